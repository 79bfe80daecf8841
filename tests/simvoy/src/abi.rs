//! The numbers of proxy-wasm ABI 0.2.1, and the one wire format that it has: serialised pairs.
//!
//! Numbers are from the specification (proxy-wasm/spec, abi-versions/v0.2.1); where Envoy's host differs, the host wins
//! (proxy-wasm-cpp-host, include/proxy-wasm/). Knows no VM and no memory.

use crate::http::Headers;
use std::fmt;

/// What a host call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No such thing.
    NotFound = 1,
    /// An argument that is wrong, or a map that is not there in this phase.
    BadArgument = 2,
    /// A property that has no bytes.
    SerializationFailure = 3,
    /// A gRPC service that is neither a message nor a known cluster.
    ParseFailure = 4,
    /// A pointer out of the guest's memory.
    InvalidMemoryAccess = 6,
    /// A queue without items.
    Empty = 7,
    /// Somebody else wrote in between.
    CasMismatch = 8,
    /// The request could not even be begun.
    InternalFailure = 10,
    /// The status of an HTTP call that broke off.
    BrokenConnection = 11,
    /// Not in this host.
    Unimplemented = 12,
}

/// A header map that a guest can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapType {
    /// Request headers.
    RequestHeaders,
    /// Request trailers.
    RequestTrailers,
    /// Response headers.
    ResponseHeaders,
    /// Response trailers.
    ResponseTrailers,
    /// Initial metadata of a gRPC answer.
    GrpcInitialMetadata,
    /// Trailing metadata of a gRPC answer.
    GrpcTrailingMetadata,
    /// Headers of an HTTP call's answer.
    CallHeaders,
    /// Trailers of an HTTP call's answer.
    CallTrailers,
}

impl MapType {
    /// The map with this number.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::RequestHeaders,
            1 => Self::RequestTrailers,
            2 => Self::ResponseHeaders,
            3 => Self::ResponseTrailers,
            4 => Self::GrpcInitialMetadata,
            5 => Self::GrpcTrailingMetadata,
            6 => Self::CallHeaders,
            7 => Self::CallTrailers,
            _ => return None,
        })
    }
}

/// A buffer that a guest can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BufferType {
    /// The request's body.
    RequestBody,
    /// The response's body.
    ResponseBody,
    /// Bytes of a network filter: not modelled.
    Network,
    /// The body of an HTTP call's answer.
    CallBody,
    /// The message of a gRPC answer.
    GrpcMessage,
    /// The VM's configuration.
    VmConfiguration,
    /// The plugin's configuration.
    PluginConfiguration,
    /// Arguments of a foreign function: always empty here.
    CallData,
}

impl BufferType {
    /// The buffer with this number.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::RequestBody,
            1 => Self::ResponseBody,
            2 | 3 => Self::Network,
            4 => Self::CallBody,
            5 => Self::GrpcMessage,
            6 => Self::VmConfiguration,
            7 => Self::PluginConfiguration,
            8 => Self::CallData,
            _ => return None,
        })
    }
}

/// Every callback of the host into a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Callback {
    /// `_initialize` or `_start`.
    Initialize,
    /// `proxy_on_context_create`.
    ContextCreate,
    /// `proxy_on_vm_start`.
    VmStart,
    /// `proxy_on_configure`.
    Configure,
    /// `proxy_on_tick`.
    Tick,
    /// `proxy_on_queue_ready`.
    QueueReady,
    /// `proxy_on_request_headers`.
    RequestHeaders,
    /// `proxy_on_request_body`.
    RequestBody,
    /// `proxy_on_request_trailers`.
    RequestTrailers,
    /// `proxy_on_response_headers`.
    ResponseHeaders,
    /// `proxy_on_response_body`.
    ResponseBody,
    /// `proxy_on_response_trailers`.
    ResponseTrailers,
    /// `proxy_on_http_call_response`.
    CallResponse,
    /// `proxy_on_grpc_receive_initial_metadata`.
    GrpcInitialMetadata,
    /// `proxy_on_grpc_receive`.
    GrpcReceive,
    /// `proxy_on_grpc_receive_trailing_metadata`.
    GrpcTrailingMetadata,
    /// `proxy_on_grpc_close`.
    GrpcClose,
    /// `proxy_on_done`.
    Done,
    /// `proxy_on_log`.
    Log,
    /// `proxy_on_delete`.
    Delete,
}

impl Callback {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Initialize,
        Self::ContextCreate,
        Self::VmStart,
        Self::Configure,
        Self::Tick,
        Self::QueueReady,
        Self::RequestHeaders,
        Self::RequestBody,
        Self::RequestTrailers,
        Self::ResponseHeaders,
        Self::ResponseBody,
        Self::ResponseTrailers,
        Self::CallResponse,
        Self::GrpcInitialMetadata,
        Self::GrpcReceive,
        Self::GrpcTrailingMetadata,
        Self::GrpcClose,
        Self::Done,
        Self::Log,
        Self::Delete,
    ];

    /// The export that the host looks for.
    #[must_use]
    pub const fn export(self) -> &'static str {
        match self {
            Self::Initialize => "_initialize",
            Self::ContextCreate => "proxy_on_context_create",
            Self::VmStart => "proxy_on_vm_start",
            Self::Configure => "proxy_on_configure",
            Self::Tick => "proxy_on_tick",
            Self::QueueReady => "proxy_on_queue_ready",
            Self::RequestHeaders => "proxy_on_request_headers",
            Self::RequestBody => "proxy_on_request_body",
            Self::RequestTrailers => "proxy_on_request_trailers",
            Self::ResponseHeaders => "proxy_on_response_headers",
            Self::ResponseBody => "proxy_on_response_body",
            Self::ResponseTrailers => "proxy_on_response_trailers",
            Self::CallResponse => "proxy_on_http_call_response",
            Self::GrpcInitialMetadata => "proxy_on_grpc_receive_initial_metadata",
            Self::GrpcReceive => "proxy_on_grpc_receive",
            Self::GrpcTrailingMetadata => "proxy_on_grpc_receive_trailing_metadata",
            Self::GrpcClose => "proxy_on_grpc_close",
            Self::Done => "proxy_on_done",
            Self::Log => "proxy_on_log",
            Self::Delete => "proxy_on_delete",
        }
    }
}

/// How many words a callback takes and gives; everything in the ABI's callbacks is 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub takes: usize,
    pub gives: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |count: usize| vec!["i32"; count].join(", ");
        write!(f, "({}) -> ({})", words(self.takes), words(self.gives))
    }
}

impl Callback {
    /// Its shape.
    pub(crate) const fn shape(self) -> Shape {
        let (takes, gives) = match self {
            Self::Initialize => (0, 0),
            Self::Tick | Self::Log | Self::Delete => (1, 0),
            Self::ContextCreate | Self::QueueReady => (2, 0),
            Self::GrpcInitialMetadata | Self::GrpcReceive | Self::GrpcTrailingMetadata | Self::GrpcClose => (3, 0),
            Self::CallResponse => (5, 0),
            Self::Done => (1, 1),
            Self::VmStart | Self::Configure | Self::RequestTrailers | Self::ResponseTrailers => (2, 1),
            Self::RequestHeaders | Self::RequestBody | Self::ResponseHeaders | Self::ResponseBody => (3, 1),
        };
        Shape { takes, gives }
    }
}

macro_rules! host_calls {
    ($($call:ident = $import:literal,)*) => {
        /// Every host call: one for each import that Envoy has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        #[allow(missing_docs)] // the names are the ABI's own
        pub enum HostCall {
            $($call,)*
        }

        impl HostCall {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$call,)*];

            /// The name under which a guest imports it.
            #[must_use]
            pub const fn import(self) -> &'static str {
                match self {
                    $(Self::$call => $import,)*
                }
            }
        }
    };
}

host_calls! {
    Log = "proxy_log",
    GetLogLevel = "proxy_get_log_level",
    GetCurrentTime = "proxy_get_current_time_nanoseconds",
    SetTickPeriod = "proxy_set_tick_period_milliseconds",
    GetProperty = "proxy_get_property",
    SetProperty = "proxy_set_property",
    GetSharedData = "proxy_get_shared_data",
    SetSharedData = "proxy_set_shared_data",
    RegisterQueue = "proxy_register_shared_queue",
    ResolveQueue = "proxy_resolve_shared_queue",
    EnqueueQueue = "proxy_enqueue_shared_queue",
    DequeueQueue = "proxy_dequeue_shared_queue",
    GetMapPairs = "proxy_get_header_map_pairs",
    GetMapSize = "proxy_get_header_map_size",
    SetMapPairs = "proxy_set_header_map_pairs",
    GetMapValue = "proxy_get_header_map_value",
    ReplaceMapValue = "proxy_replace_header_map_value",
    AddMapValue = "proxy_add_header_map_value",
    RemoveMapValue = "proxy_remove_header_map_value",
    GetBuffer = "proxy_get_buffer_bytes",
    GetBufferStatus = "proxy_get_buffer_status",
    SetBuffer = "proxy_set_buffer_bytes",
    DefineMetric = "proxy_define_metric",
    IncrementMetric = "proxy_increment_metric",
    RecordMetric = "proxy_record_metric",
    GetMetric = "proxy_get_metric",
    HttpCall = "proxy_http_call",
    GrpcCall = "proxy_grpc_call",
    GrpcStream = "proxy_grpc_stream",
    GrpcSend = "proxy_grpc_send",
    GrpcCancel = "proxy_grpc_cancel",
    GrpcClose = "proxy_grpc_close",
    SendLocalResponse = "proxy_send_local_response",
    ContinueStream = "proxy_continue_stream",
    CloseStream = "proxy_close_stream",
    SetEffectiveContext = "proxy_set_effective_context",
    Done = "proxy_done",
    GetStatus = "proxy_get_status",
    CallForeignFunction = "proxy_call_foreign_function",
    ResolveDns = "envoy_resolve_dns",
    NotifyMemoryGrowth = "emscripten_notify_memory_growth",
    PthreadEqual = "pthread_equal",
    ArgsGet = "args_get",
    ArgsSizesGet = "args_sizes_get",
    ClockResGet = "clock_res_get",
    ClockTimeGet = "clock_time_get",
    EnvironGet = "environ_get",
    EnvironSizesGet = "environ_sizes_get",
    FdAdvise = "fd_advise",
    FdAllocate = "fd_allocate",
    FdClose = "fd_close",
    FdDatasync = "fd_datasync",
    FdFdstatGet = "fd_fdstat_get",
    FdFdstatSetFlags = "fd_fdstat_set_flags",
    FdFdstatSetRights = "fd_fdstat_set_rights",
    FdFilestatGet = "fd_filestat_get",
    FdFilestatSetSize = "fd_filestat_set_size",
    FdFilestatSetTimes = "fd_filestat_set_times",
    FdPread = "fd_pread",
    FdPrestatDirName = "fd_prestat_dir_name",
    FdPrestatGet = "fd_prestat_get",
    FdPwrite = "fd_pwrite",
    FdRead = "fd_read",
    FdReaddir = "fd_readdir",
    FdRenumber = "fd_renumber",
    FdSeek = "fd_seek",
    FdSync = "fd_sync",
    FdTell = "fd_tell",
    FdWrite = "fd_write",
    PathCreateDirectory = "path_create_directory",
    PathFilestatGet = "path_filestat_get",
    PathFilestatSetTimes = "path_filestat_set_times",
    PathLink = "path_link",
    PathOpen = "path_open",
    PathReadlink = "path_readlink",
    PathRemoveDirectory = "path_remove_directory",
    PathRename = "path_rename",
    PathSymlink = "path_symlink",
    PathUnlinkFile = "path_unlink_file",
    PollOneoff = "poll_oneoff",
    ProcExit = "proc_exit",
    RandomGet = "random_get",
    SchedYield = "sched_yield",
    SockAccept = "sock_accept",
    SockRecv = "sock_recv",
    SockSend = "sock_send",
    SockShutdown = "sock_shutdown",
}

/// The host refuses more pairs than this (proxy-wasm-cpp-host limits.h; PLATFORM 1.5).
pub(crate) const PAIRS_MAX: usize = 1_024;
/// The host refuses longer serialised pairs than this (the same).
pub(crate) const PAIRS_BYTES_MAX: usize = 1_048_576;

/// Pairs as the host hands them to a guest; nothing at all for an empty map.
#[must_use]
pub(crate) fn write_pairs(headers: &Headers) -> Vec<u8> {
    if headers.0.is_empty() {
        return Vec::new();
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = u32::try_from(headers.0.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for (name, value) in &headers.0 {
        bytes.extend_from_slice(&length(name.as_bytes()));
        bytes.extend_from_slice(&length(value));
    }
    for (name, value) in &headers.0 {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

/// Pairs as a guest hands them to the host. Anything that is wrong with them gives an *empty* map, as in Envoy
/// (PLATFORM 1.5: 1,025 headers make a dispatch without any).
#[must_use]
pub(crate) fn read_pairs(bytes: &[u8]) -> Headers {
    if bytes.len() > PAIRS_BYTES_MAX {
        return Headers::default();
    }
    try_read_pairs(bytes).unwrap_or_default()
}

fn try_read_pairs(bytes: &[u8]) -> Option<Headers> {
    let (count, mut rest) = take_number(bytes)?;
    if count > PAIRS_MAX {
        return None;
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, after_name) = take_number(rest)?;
        let (value, after_value) = take_number(after_name)?;
        lengths.push((name, value));
        rest = after_value;
    }
    let mut headers = Headers::default();
    for (name, value) in lengths {
        let (name, after_name) = take_text(rest, name)?;
        let (value, after_value) = take_text(after_name, value)?;
        // Envoy lowers every name that it puts into a map.
        headers.0.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
        rest = after_value;
    }
    rest.is_empty().then_some(headers)
}

fn take_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

/// The next `length` bytes, which a zero byte must end.
fn take_text(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(length)?;
    let (end, rest) = rest.split_first()?;
    (*end == 0).then_some((text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(count: usize) -> Headers {
        Headers((0..count).map(|n| (format!("x-{n}"), vec![0xff, b'a'])).collect())
    }

    #[test]
    fn pairs_read_back_as_written_up_to_the_hosts_limit() {
        assert_eq!(read_pairs(&write_pairs(&headers(1_024))), headers(1_024));
        assert_eq!(read_pairs(&write_pairs(&headers(1_025))), Headers::default(), "one more, and the map is empty");
        let long = Headers(vec![("x".to_owned(), vec![b'a'; PAIRS_BYTES_MAX])]);
        assert_eq!(read_pairs(&write_pairs(&long)), Headers::default());
    }

    #[test]
    fn pairs_that_end_early_or_late_are_no_pairs() {
        let whole = write_pairs(&headers(3));
        for length in 0..whole.len() {
            assert_eq!(read_pairs(&whole[..length]), Headers::default(), "cut to {length} bytes");
        }
        assert_eq!(read_pairs(&[whole.as_slice(), b"x"].concat()), Headers::default());
    }

    #[test]
    fn callbacks_are_listed_in_the_order_of_their_numbers() {
        for (place, callback) in Callback::ALL.into_iter().enumerate() {
            assert_eq!(callback as usize, place, "{callback:?}");
        }
    }
}
