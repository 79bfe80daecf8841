//! The fence around the SDK: the only module that names `proxy_wasm::hostcalls`. The only `unsafe` code beside `abi`.
//!
//! The SDK panics on many statuses, and its string getters on any byte above 0x7f (PLATFORM 1.4); a panic is a trap. So:
//! bytes getters only; each call only where the host is known to answer Ok or a status that the SDK returns; every
//! refusal becomes a value. Nothing here decides anything.

use litemap::LiteMap;
use log::Level as LogLevel;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, GrpcStatusCode, MapType, MetricType, Status};
use redeliver_core::answer::Answer;
use redeliver_core::delivery::CallToken;
use redeliver_core::effect::{Counter, DELIVERY_DELAY, Dispatch, Gauge, Level};
use redeliver_core::grpc::Protocol;
use redeliver_core::headers::HeaderList;
use redeliver_core::memory::{Cas, Conflict, Expect, SharedMemory, Versioned};
use redeliver_core::recent::Recent;
use redeliver_core::reply::{CallStatus, LocalReply};
use redeliver_core::store::Now;
use redeliver_core::units::{ByteCount, Millis, Monotonic, Wall};
use std::cell::RefCell;
use std::time::Duration;

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u16;
    fn random_get(buffer: *mut u8, length: usize) -> u16;
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: MapType, bytes: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_get_property(path: *const u8, path_size: usize, bytes: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_millis: u32,
        token: *mut u32,
    ) -> Status;
}

const CLOCK_WALL: u32 = 0;
/// One clock for all threads of an Envoy: moments of different VMs compare (`std::time::Instant` hides the number).
const CLOCK_MONOTONIC: u32 = 1;
const NANOS_PER_MILLI: u64 = 1_000_000;

fn clock_millis(clock: u32) -> u64 {
    let mut nanos = 0;
    // SAFETY: `nanos` outlives the call, which writes eight bytes at most; on an error it stays zero.
    unsafe { clock_time_get(clock, NANOS_PER_MILLI, &raw mut nanos) };
    nanos / NANOS_PER_MILLI
}

/// This moment on both clocks.
pub fn now() -> Now {
    Now { monotonic: monotonic(), wall: Wall(clock_millis(CLOCK_WALL)) }
}

/// This moment on the clock of leases and waits.
pub fn monotonic() -> Monotonic {
    Monotonic(clock_millis(CLOCK_MONOTONIC))
}

/// Random bytes of the host (RAND_bytes in Envoy): every VM's differ.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: the buffer is `N` bytes long and outlives the call.
    unsafe { random_get(bytes.as_mut_ptr(), N) };
    bytes
}

/// Writes a line to Envoy's log.
pub fn log(level: Level, text: &str) {
    let level = match level {
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
    };
    log::log!(level, "{text}");
}

/// How often `on_tick` comes.
pub fn set_tick(period: Millis) {
    hostcalls::set_tick_period(Duration::from_millis(period.0)).unwrap_or_default();
}

/// The plugin's configuration text; empty if there is none.
pub fn plugin_configuration() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

/// A property's bytes, if the host knows it at this moment. The parts of `path` are separated by zeros, as the ABI has it:
/// the SDK puts them together anew for each call.
pub fn property(path: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the path and both places outlive the call.
    let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &raw mut bytes, &raw mut size) };
    from_host(status, bytes, size)
}

/// A property that is a number: eight bytes, little-endian.
pub fn number_property(path: &str) -> Option<u64> {
    property(path)?.try_into().ok().map(u64::from_le_bytes)
}

/// The request's headers as they now are; empty when the host has let go of them.
pub fn request_headers() -> HeaderList {
    header_map(MapType::HttpRequestHeaders)
}

/// The answer's headers.
pub fn response_headers() -> HeaderList {
    header_map(MapType::HttpResponseHeaders)
}

/// The answer's trailers; only while their callback runs.
pub fn response_trailers() -> HeaderList {
    header_map(MapType::HttpResponseTrailers)
}

/// The trailers of a call's answer; only while its callback runs.
pub fn call_trailers() -> HeaderList {
    header_map(MapType::HttpCallResponseTrailers)
}

/// The headers of a call's answer; only while its callback runs.
pub fn call_headers() -> HeaderList {
    header_map(MapType::HttpCallResponseHeaders)
}

/// The first `size` bytes of a call's answer; only while its callback runs.
pub fn call_body(size: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten().unwrap_or_default()
}

/// The piece of the request's body that the current callback is about, `size` bytes long.
pub fn request_body(size: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size).ok().flatten().unwrap_or_default()
}

/// A whole map in one call, as it is: the SDK takes it apart into two allocations for each header, and panics when there is
/// none.
fn header_map(map: MapType) -> HeaderList {
    let (mut bytes, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: both places outlive the call.
    let status = unsafe { proxy_get_header_map_pairs(map, &raw mut bytes, &raw mut size) };
    from_host(status, bytes, size).map(HeaderList::of_host).unwrap_or_default()
}

/// What the host answered with, if it did.
fn from_host(status: Status, bytes: *mut u8, size: usize) -> Option<Vec<u8>> {
    if status != Status::Ok || bytes.is_null() {
        return None;
    }
    // SAFETY: the host has the memory from the SDK's `proxy_on_memory_allocate`, which makes a boxed slice of this size.
    Some(unsafe { Vec::from_raw_parts(bytes, size, size) })
}

/// Takes a header out of the request.
pub fn remove_request_header(name: &str) {
    hostcalls::remove_map_value(MapType::HttpRequestHeaders, name).unwrap_or_default();
}

/// Adds a header to the request.
pub fn add_request_header(name: &str, value: &str) {
    hostcalls::add_map_value_bytes(MapType::HttpRequestHeaders, name, value.as_bytes()).unwrap_or_default();
}

/// The part of an answer that is being looked at: where its status is, and where our word goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its headers.
    Headers,
    /// Its trailers.
    Trailers,
}

impl Part {
    const fn map(self) -> MapType {
        match self {
            Self::Headers => MapType::HttpResponseHeaders,
            Self::Trailers => MapType::HttpResponseTrailers,
        }
    }

    /// Takes a header out of it.
    pub fn remove(self, name: &str) {
        hostcalls::remove_map_value(self.map(), name).unwrap_or_default();
    }

    /// Adds a header to it.
    pub fn add(self, name: &str, value: &str) {
        hostcalls::add_map_value_bytes(self.map(), name, value.as_bytes()).unwrap_or_default();
    }
}

/// Answers the sender in place of whatever was to come. A gRPC call gets a status and the headers, and no document.
pub fn reply(reply: &LocalReply, protocol: Protocol) {
    match protocol {
        Protocol::Http => reply_to_request(reply),
        Protocol::Grpc => reply_to_call(reply),
    }
}

fn reply_to_request(reply: &LocalReply) {
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    hostcalls::send_http_response(reply.status, headers, Some(reply.body.as_bytes())).unwrap_or_default();
}

fn reply_to_call(reply: &LocalReply) {
    // The host's content-type is that of a call; a second one would be appended to it.
    let headers = reply.headers.iter().filter(|(name, _)| *name != "content-type");
    let metadata = headers.map(|(name, value)| (*name, value.as_bytes())).collect();
    let status = match reply.grpc_status {
        CallStatus::InvalidArgument => GrpcStatusCode::InvalidArgument,
        CallStatus::Unavailable => GrpcStatusCode::Unavailable,
    };
    hostcalls::send_grpc_response(status, None, metadata).unwrap_or_default();
}

/// Speaks for another context from now on. Answers whether it exists.
pub fn speak_for(context: u32) -> bool {
    hostcalls::set_effective_context(context).is_ok()
}

/// Lets a held request go on.
pub fn resume_request() {
    hostcalls::resume_http_request().unwrap_or_default();
}

/// The root context has finished; only after its `on_done` answered false.
pub fn done() {
    hostcalls::done().unwrap_or_default();
}

/// A serialised map without a pair.
const NO_PAIRS: [u8; 4] = [0; 4];

/// Sends a request from the root context, its headers as they are: the SDK would serialise them anew, and takes text only.
///
/// # Errors
/// What the host's refusal means.
pub fn dispatch(dispatch: &Dispatch) -> Result<CallToken, Answer> {
    let (cluster, headers, body) = (dispatch.cluster.0.as_bytes(), dispatch.headers.serialised(), &dispatch.body);
    let timeout = u32::try_from(dispatch.timeout.0).unwrap_or(u32::MAX);
    let mut token = 0;
    // SAFETY: all slices and the token outlive the call; an empty map of trailers is a count of zero.
    let status = unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            NO_PAIRS.as_ptr(),
            NO_PAIRS.len(),
            timeout,
            &raw mut token,
        )
    };
    if status == Status::Ok {
        Ok(CallToken(token))
    } else if status == Status::BadArgument {
        Err(Answer::UnknownCluster)
    } else {
        Err(Answer::RefusedLocally)
    }
}

/// Shared data and queues of Envoy.
#[derive(Default)]
pub struct HostMemory {
    vm_id: String,
    /// Queue names that were resolved; a token stays good as long as the `vm_id` lives.
    queues: RefCell<LiteMap<String, u32>>,
    recent: Recent,
}

impl HostMemory {
    /// The memory of this VM's `vm_id`.
    pub fn new() -> Self {
        let vm_id = property("plugin_vm_id").unwrap_or_default();
        Self { vm_id: String::from_utf8_lossy(&vm_id).into_owned(), ..Self::default() }
    }

    fn queue(&self, name: &str) -> Option<u32> {
        if let Some(token) = self.queues.borrow().get(name) {
            return Some(*token);
        }
        let resolved = hostcalls::resolve_shared_queue(&self.vm_id, name).ok().flatten();
        let token = resolved.or_else(|| hostcalls::register_shared_queue(name).ok())?;
        self.queues.borrow_mut().insert(name.to_owned(), token);
        Some(token)
    }
}

impl SharedMemory for HostMemory {
    fn get(&self, key: &str) -> Option<Versioned> {
        match hostcalls::get_shared_data(key) {
            Ok((bytes, Some(cas))) => {
                self.recent.read(Cas(cas));
                Some(Versioned { bytes: bytes.unwrap_or_default(), cas: Cas(cas) })
            }
            Ok((_, None)) | Err(_) => None,
        }
    }

    fn set(&self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        let cas = match expect {
            Expect::Version(cas) => Some(cas.0),
            Expect::Absent => Some(Cas::NEVER_ISSUED.0),
            Expect::Anything => None,
        };
        hostcalls::set_shared_data(key, Some(value), cas).map_err(|_| Conflict)?;
        self.recent.wrote();
        Ok(())
    }

    fn enqueue(&self, queue: &str, hint: &[u8]) {
        let sent = self.queue(queue).is_some_and(|token| hostcalls::enqueue_shared_queue(token, Some(hint)).is_ok());
        if !sent {
            self.queues.borrow_mut().remove(queue);
        }
    }

    fn dequeue(&self, queue: &str) -> Option<Vec<u8>> {
        match hostcalls::dequeue_shared_queue(self.queue(queue)?) {
            Ok(hint) => hint,
            Err(_) => {
                self.queues.borrow_mut().remove(queue);
                None
            }
        }
    }

    fn recent(&self) -> Option<&Recent> {
        Some(&self.recent)
    }
}

/// The stats of CONTRACT section 9.
pub struct Metrics {
    /// With the host's number; so few that a look through them is the quickest.
    counters: Vec<(Counter, u32)>,
    gauges: Vec<(Gauge, u32)>,
    delivery_delay: Option<u32>,
}

impl Metrics {
    /// Defines them all, so that each shows from the start.
    pub fn define() -> Self {
        let counter = |counter: Counter| Some((counter, define(MetricType::Counter, counter.name())?));
        let gauge = |gauge: Gauge| Some((gauge, define(MetricType::Gauge, gauge.name())?));
        Self {
            counters: Counter::ALL.into_iter().filter_map(counter).collect(),
            gauges: Gauge::ALL.into_iter().filter_map(gauge).collect(),
            delivery_delay: define(MetricType::Histogram, DELIVERY_DELAY),
        }
    }

    /// Adds to a counter.
    pub fn count(&self, counter: Counter, by: u64) {
        if let (Some(id), Ok(by)) = (number_of(&self.counters, counter), i64::try_from(by)) {
            hostcalls::increment_metric(id, by).unwrap_or_default();
        }
    }

    /// Sets a gauge.
    pub fn gauge(&self, gauge: Gauge, value: u64) {
        if let Some(id) = number_of(&self.gauges, gauge) {
            hostcalls::record_metric(id, value).unwrap_or_default();
        }
    }

    /// Records a delivery delay.
    pub fn delivery_delay(&self, delay: Millis) {
        if let Some(id) = self.delivery_delay {
            hostcalls::record_metric(id, delay.0).unwrap_or_default();
        }
    }
}

fn number_of<T: PartialEq>(defined: &[(T, u32)], wanted: T) -> Option<u32> {
    defined.iter().find(|(found, _)| *found == wanted).map(|(_, number)| *number)
}

fn define(kind: MetricType, name: &str) -> Option<u32> {
    hostcalls::define_metric(kind, name).ok()
}

/// The size of a host buffer as a length of ours.
pub fn byte_count(size: usize) -> ByteCount {
    ByteCount(u64::try_from(size).unwrap_or(u64::MAX))
}
