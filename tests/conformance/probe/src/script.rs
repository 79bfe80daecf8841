//! The language of scripts: for each callback, rules; in each rule, when it holds, which host calls to make, what to return.
//!
//! ```json
//! {"on_request_headers": [
//!   {"when": {"path": "/a"}, "do": [{"get_property": ["request", "path"]}, "trap"], "return": 1}
//! ]}
//! ```
//!
//! Every rule whose conditions hold runs, in order; the last `return` counts. Without one a callback returns what
//! lets things go on: Continue, and true for on_vm_start, on_configure and on_done. Names are the ABI's without
//! `proxy_`. Unknown words are refused, never skipped.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bytes::Bytes;

/// What one plugin does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Script(pub BTreeMap<Callback, Vec<Rule>>);

impl Script {
    /// The script in a configuration; an empty configuration is an empty script.
    ///
    /// # Errors
    /// What is wrong, where, and which words are known instead.
    pub fn parse(json: &[u8]) -> Result<Script, String> {
        if json.is_empty() {
            return Ok(Script::default());
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }
}

/// A callback that a rule can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the ABI
pub enum Callback {
    OnContextCreate,
    OnVmStart,
    OnConfigure,
    OnTick,
    OnQueueReady,
    OnRequestHeaders,
    OnRequestBody,
    OnRequestTrailers,
    OnResponseHeaders,
    OnResponseBody,
    OnResponseTrailers,
    OnHttpCallResponse,
    OnGrpcReceiveInitialMetadata,
    OnGrpcReceive,
    OnGrpcReceiveTrailingMetadata,
    OnGrpcClose,
    OnDone,
    OnLog,
    OnDelete,
}

/// What to do in one situation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// All of it must hold.
    #[serde(default)]
    pub when: When,
    /// How often the rule may run in one VM; without it, always.
    pub times: Option<u32>,
    /// The host calls, in order.
    #[serde(default, rename = "do")]
    pub ops: Vec<Op>,
    /// What the callback returns: an action (0 Continue, 1 Pause, 2 StopAndWatermark ...), or 0 and 1 for false and true.
    #[serde(rename = "return")]
    pub answer: Option<u32>,
}

/// The conditions of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The context is a stream with exactly this `:path` (as it was in on_request_headers).
    pub path: Option<String>,
    /// This VM has raised the flag.
    pub flag: Option<String>,
    /// The shared key holds something (in any VM of the same vm_id).
    pub shared: Option<String>,
    /// The VM is of this kind.
    pub vm: Option<VmKind>,
    /// The headers or the piece of body are, or are not, the last of the message.
    pub message: Option<Message>,
}

/// What a VM knows about itself: only a worker's ever sees a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmKind {
    /// It has had a stream.
    Worker,
    /// It has not had a stream yet; after a worker's VM had one, that is the main thread's.
    Idle,
}

/// Whether a message (request or response) goes on after this callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// `end_of_stream` is true.
    Ends,
    /// `end_of_stream` is false.
    GoesOn,
}

/// A header map of the ABI, in the order of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the ABI
pub enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    GrpcInitialMetadata = 4,
    GrpcTrailingMetadata = 5,
    HttpCallResponseHeaders = 6,
    HttpCallResponseTrailers = 7,
}

/// A buffer of the ABI, in the order of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the ABI
pub enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    DownstreamData = 2,
    UpstreamData = 3,
    HttpCallResponseBody = 4,
    GrpcReceive = 5,
    VmConfiguration = 6,
    PluginConfiguration = 7,
    CallData = 8,
}

/// A half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the ABI
pub enum Half {
    Request = 0,
    Response = 1,
}

/// A kind of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the ABI
pub enum Metric {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

/// The number that a write to shared data is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cas {
    /// 0: no comparison.
    Any,
    /// What this VM's last `get_shared_data` of the key said.
    Last,
    /// u32::MAX, which no host has ever issued.
    NeverIssued,
    /// This number.
    Literal(u32),
}

/// Something that the host has given a number, by its name or by the number itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a name that an earlier call made known, or a number")]
pub enum Handle {
    /// What this VM has registered, resolved or defined under this name.
    Name(String),
    /// This number, whether the host knows it or not.
    Number(u32),
}

/// A context.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "\"root\", \"this\", the path of a stream, or a number")]
pub enum Context {
    /// `root`, `this`, or the latest stream with this path, gone or not.
    Name(String),
    /// This number, whether the host knows it or not.
    Number(u32),
}

/// A list of headers.
pub type Headers = Vec<(Bytes, Bytes)>;

/// A request to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    /// The upstream.
    pub cluster: String,
    /// All headers, pseudo headers included.
    pub headers: Headers,
    /// This many more headers `x-more-0`, `x-more-1`...
    #[serde(default)]
    pub more_headers: u32,
    /// The body; empty means none.
    #[serde(default)]
    pub body: Bytes,
    /// Trailers.
    #[serde(default)]
    pub trailers: Headers,
    /// The time for the whole answer.
    pub timeout_ms: u32,
}

/// Which service a gRPC call goes to: what the host gets in the place of a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// An encoded GrpcService message that names this cluster.
    Encoded(String),
    /// These bytes as they are.
    Raw(Bytes),
}

/// A unary gRPC call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcCall {
    /// The upstream.
    pub service: Service,
    /// The gRPC service.
    pub name: String,
    /// The gRPC method.
    pub method: String,
    /// The request message.
    #[serde(default)]
    pub message: Bytes,
    /// The time for the whole answer.
    pub timeout_ms: u32,
}

/// An answer in the receiver's place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalResponse {
    /// The status code.
    pub status: u32,
    /// `response.code_details`.
    #[serde(default)]
    pub details: Bytes,
    /// Headers.
    #[serde(default)]
    pub headers: Headers,
    /// The body.
    #[serde(default)]
    pub body: Bytes,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the ABI, arguments in its order
pub enum Op {
    /// A line of the script's own, to wait for.
    Say(String),
    /// Raises a flag of this VM.
    Raise(String),
    /// Executes `unreachable`.
    Trap,
    GetHeaderMapPairs(Map),
    GetHeaderMapSize(Map),
    GetHeaderMapValue(Map, Bytes),
    SetHeaderMapPairs(Map, Headers),
    AddHeaderMapValue(Map, Bytes, Bytes),
    ReplaceHeaderMapValue(Map, Bytes, Bytes),
    RemoveHeaderMapValue(Map, Bytes),
    /// Buffer, start, length.
    GetBufferBytes(Buffer, u32, u32),
    /// Buffer, start, length to replace, new bytes.
    SetBufferBytes(Buffer, u32, u32, Bytes),
    GetProperty(Vec<String>),
    SetProperty(Vec<String>, Bytes),
    GetSharedData(Bytes),
    SetSharedData(Bytes, Bytes, Cas),
    RegisterSharedQueue(String),
    /// vm_id, name.
    ResolveSharedQueue(String, String),
    EnqueueSharedQueue(Handle, Bytes),
    DequeueSharedQueue(Handle),
    DefineMetric(Metric, String),
    IncrementMetric(Handle, i64),
    RecordMetric(Handle, u64),
    GetMetric(Handle),
    HttpCall(HttpCall),
    GrpcCall(GrpcCall),
    /// Ends the call that this VM made last.
    GrpcCancel,
    GrpcClose,
    GetStatus,
    SendLocalResponse(LocalResponse),
    ContinueStream(Half),
    CloseStream(Half),
    SetEffectiveContext(Context),
    SetTickPeriodMilliseconds(u32),
    Done,
    GetLogLevel,
    /// Reads the wall clock twice and says whether it stood still, went on, or went back.
    GetCurrentTimeNanoseconds,
    /// Reads random bytes twice and says whether they differ.
    RandomGet,
}
