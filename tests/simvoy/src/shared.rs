//! What all threads of one process share, behind one lock that is never held while a guest runs.
//!
//! Everything here is data; who changes it: host calls (`calls/`), threads (`thread/`) and the event loop (`process`).

use crate::chaos::Chaos;
use crate::cluster::Clusters;
use crate::http::{Headers, Request, Response};
use crate::ids::{CallToken, ContextId, StreamId, ThreadId, VmId};
use crate::memory::{SharedData, SharedQueues, SpaceId};
use crate::metrics::{MetricIds, Metrics};
use crate::network::{Origin, Outcome};
use crate::plugin::{Plugin, PluginKey};
use crate::route::{self, Route};
use crate::stream::{Piece, Stream};
use crate::time::{Clock, Moment};
use crate::trace::{self, Event, Trace};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One version of the listener with the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// What a thread has to do next.
#[derive(Debug)]
pub(crate) enum Job {
    /// Make the plugin's root context; the main thread tries it in a throw-away VM first.
    Load(Generation, Arc<Plugin>, Place),
    /// Try the plugin in a throw-away VM, and no more (`--mode validate`, or a push that is refused).
    TryOut(Arc<Plugin>),
    /// The listener of this generation takes no new connections any more.
    Remove(Generation),
    /// The listener of this generation has drained.
    Unload(Generation),
    Tick(VmId, ContextId),
    QueueReady(VmId, ContextId, u32),
    Open(StreamId, Option<Generation>),
    Piece(StreamId, Piece),
    Disconnect(StreamId),
    Upstream(StreamId, u64, Outcome),
    Called(VmId, CallToken, Outcome),
    /// SIGTERM.
    Stop,
}

/// Where a new version of a listener goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It replaces the listener that takes new connections.
    Instead,
    /// It is another listener.
    Beside,
}

/// What happens later.
#[derive(Debug)]
pub(crate) enum Timer {
    Job(ThreadId, Job),
    /// A request reaches the other end of its wire.
    Exchange {
        origin: Origin,
        attempt: u64,
        cluster: String,
        request: Box<Request>,
        arrival: Arrival,
    },
}

/// How much of a request has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Head,
    Whole,
}

#[derive(Debug)]
pub(crate) struct Timed {
    pub at: Moment,
    /// Timers of the same moment run in the order in which they were set.
    pub order: u64,
    pub timer: Timer,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// What a test hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The sender of a stream has its answer.
    Answered {
        /// Which.
        stream: StreamId,
        /// With what.
        response: Response,
    },
    /// The stream ended without a whole answer.
    Reset {
        /// Which.
        stream: StreamId,
    },
    /// A guest has made an HTTP call.
    Called {
        /// Which VM.
        vm: VmId,
        /// Which call.
        token: CallToken,
        /// Its headers as the guest gave them, before Envoy has rebuilt anything.
        head: Headers,
    },
    /// A guest is about to be told the end of one of its calls.
    Told {
        /// Which VM.
        vm: VmId,
        /// Which call.
        token: CallToken,
    },
    /// It was told, and took it without trapping.
    Heard {
        /// Which VM.
        vm: VmId,
        /// Which call.
        token: CallToken,
        /// The status that it was shown; `None`: an answer without headers.
        status: Option<u16>,
    },
    /// A VM trapped.
    Trapped {
        /// On which thread.
        thread: ThreadId,
        /// Which.
        vm: VmId,
        /// What the engine says.
        message: String,
    },
    /// A thread has a new VM.
    Started {
        /// On which thread.
        thread: ThreadId,
        /// Which.
        vm: VmId,
    },
    /// A push was taken: the main thread's try went well.
    Taken(Generation),
    /// A push was refused.
    Refused(Generation),
    /// A root context is gone.
    Gone {
        /// On which thread.
        thread: ThreadId,
        /// Whose.
        generation: Generation,
    },
    /// The last VM of a `vm_id` is gone, and its shared data with it (PLATFORM 1.1).
    DataGone(String),
    /// A guest made a call on which Envoy aborts (PLATFORM H1).
    Aborted(String),
}

/// A line of a guest's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub at: Moment,
    /// On which thread.
    pub thread: ThreadId,
    /// By which VM.
    pub vm: VmId,
    /// 0 trace, 1 debug, 2 info, 3 warn, 4 error, 5 critical.
    pub level: u32,
    /// What.
    pub text: String,
}

/// A call of a guest that is out.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub cluster: String,
    pub kind: CallKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    Http,
    Grpc,
}

/// The end of a root context's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootLife {
    Live,
    /// `on_done` answered false.
    PendingDone,
    /// The guest has called `proxy_done`.
    PendingDelete,
}

#[derive(Debug)]
pub(crate) struct Root {
    pub plugin: Arc<Plugin>,
    pub calls: BTreeMap<CallToken, Call>,
    /// The answer that a callback is about (http_call_response_).
    pub answer: Option<Response>,
    /// The message that a callback is about (grpc_receive_buffer_).
    pub grpc_message: Vec<u8>,
    pub status: (u32, String),
    pub tick: Option<Duration>,
    pub life: RootLife,
}

#[derive(Debug)]
pub(crate) enum Context {
    /// The VM's own, for `_initialize`.
    Vm,
    Root(Box<Root>),
    Stream {
        stream: StreamId,
        root: ContextId,
    },
}

/// What a guest asked for and Envoy does after the guest has returned (addAfterVmCallAction: calls never nest).
#[derive(Debug)]
pub(crate) enum After {
    ContinueRequest(StreamId),
    ContinueResponse(StreamId),
    Reply(StreamId, Response, String),
    Close(StreamId),
    FinishShutdown(ContextId),
    /// A gRPC call that could not begin ends all the same (measured).
    GrpcRefused(ContextId, CallToken, String),
}

/// The host's side of one VM.
#[derive(Debug)]
pub(crate) struct VmShared {
    pub thread: ThreadId,
    pub vm_id: String,
    /// Where its shared data is.
    pub space: SpaceId,
    pub contexts: BTreeMap<ContextId, Context>,
    pub after: VecDeque<After>,
    /// A local reply was sent in this callback: whatever the guest answers, nothing goes on.
    pub stop_iteration: bool,
    pub has_failed: bool,
    pub metric_ids: MetricIds,
    pub random: fastrand::Rng,
    pub environment: Vec<(String, String)>,
    pub vm_configuration: Vec<u8>,
    next_context: u32,
    last_http_token: u32,
    last_grpc_token: u32,
}

/// Tokens of one kind are four apart; the low bits are the kind (Wasm::kCalloutIncrement).
const TOKEN_STEP: u32 = 4;

impl VmShared {
    pub(crate) fn new(thread: ThreadId, plugin: &Plugin, space: SpaceId, random: fastrand::Rng) -> Self {
        Self {
            thread,
            vm_id: plugin.vm_id.clone(),
            space,
            contexts: BTreeMap::from([(ContextId(0), Context::Vm)]),
            after: VecDeque::new(),
            stop_iteration: false,
            has_failed: false,
            metric_ids: MetricIds::default(),
            random,
            environment: plugin.environment.clone(),
            vm_configuration: plugin.vm_configuration.clone(),
            next_context: 1,
            last_http_token: 0,
            last_grpc_token: 1,
        }
    }

    pub(crate) fn add_context(&mut self, context: Context) -> ContextId {
        let id = ContextId(self.next_context);
        self.next_context += 1;
        self.contexts.insert(id, context);
        id
    }

    pub(crate) fn next_token(&mut self, kind: CallKind) -> CallToken {
        let last = match kind {
            CallKind::Http => &mut self.last_http_token,
            CallKind::Grpc => &mut self.last_grpc_token,
        };
        *last = last.wrapping_add(TOKEN_STEP);
        CallToken(*last)
    }

    pub(crate) fn has_call(&self, token: CallToken) -> bool {
        self.roots().any(|(_, root)| root.calls.contains_key(&token))
    }

    pub(crate) fn root_of(&self, context: ContextId) -> ContextId {
        match self.contexts.get(&context) {
            Some(Context::Stream { root, .. }) => *root,
            Some(Context::Root(_) | Context::Vm) | None => context,
        }
    }

    pub(crate) fn root(&self, context: ContextId) -> Option<&Root> {
        match self.contexts.get(&context)? {
            Context::Root(root) => Some(root),
            Context::Vm | Context::Stream { .. } => None,
        }
    }

    pub(crate) fn root_mut(&mut self, context: ContextId) -> Option<&mut Root> {
        match self.contexts.get_mut(&context)? {
            Context::Root(root) => Some(root),
            Context::Vm | Context::Stream { .. } => None,
        }
    }

    pub(crate) fn stream_of(&self, context: ContextId) -> Option<StreamId> {
        match self.contexts.get(&context)? {
            Context::Stream { stream, .. } => Some(*stream),
            Context::Vm | Context::Root(_) => None,
        }
    }

    pub(crate) fn roots(&self) -> impl Iterator<Item = (ContextId, &Root)> {
        self.contexts.iter().filter_map(|(id, context)| match context {
            Context::Root(root) => Some((*id, root.as_ref())),
            Context::Vm | Context::Stream { .. } => None,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct ThreadShared {
    pub inbox: VecDeque<Job>,
    pub stalled_until: Moment,
    /// No tick before this moment, while everything else goes on.
    pub ticks_late_until: Moment,
}

/// The state of a process.
pub(crate) struct Shared {
    pub clock: Clock,
    pub data: SharedData,
    pub queues: SharedQueues,
    pub metrics: Metrics,
    pub clusters: Clusters,
    pub routes: Vec<Route>,
    pub chaos: Box<dyn Chaos>,
    pub trace: Trace,
    pub random: fastrand::Rng,
    pub vms: BTreeMap<VmId, VmShared>,
    pub streams: BTreeMap<StreamId, Stream>,
    pub threads: Vec<ThreadShared>,
    pub timers: BinaryHeap<Timed>,
    pub happenings: Vec<Happening>,
    pub log: Vec<LogLine>,
    /// `per_connection_buffer_limit_bytes`.
    pub buffer_limit: usize,
    /// Plugins that a throw-away VM has accepted or refused.
    pub tried: BTreeMap<PluginKey, Tried>,
    pub loaded: BTreeSet<(ThreadId, Generation)>,
    /// How long a replaced listener lives on.
    pub drain_time: Duration,
    /// The listener that takes new connections.
    pub listener: Option<Generation>,
    /// Envoy has killed itself: nothing happens any more.
    pub has_aborted: bool,
    /// What each generation of the listener was pushed with.
    pub plugins: BTreeMap<Generation, Arc<Plugin>>,
    /// Generations whose plugin some thread still has: each keeps its `vm_id` alive (the base VM's handle).
    pub holders: BTreeMap<Generation, String>,
    timers_set: u64,
    vms_made: u32,
    streams_made: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    Well,
    Badly,
}

/// The lock around it. Cheap: never contended, since one thread runs at a time.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Mutex<Shared>>);

impl Handle {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(Mutex::new(shared)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        // A test that panicked elsewhere may still print what is in here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn new(threads: u32, settings: &crate::Settings) -> Self {
        Self {
            clock: Clock::default(),
            data: SharedData::default(),
            queues: SharedQueues::default(),
            metrics: Metrics::default(),
            clusters: Clusters::default(),
            routes: Vec::new(),
            chaos: Box::new(crate::chaos::Calm),
            trace: Trace::new(settings.keep_events),
            random: fastrand::Rng::with_seed(settings.seed),
            vms: BTreeMap::new(),
            streams: BTreeMap::new(),
            threads: (0..threads).map(|_| ThreadShared::default()).collect(),
            timers: BinaryHeap::new(),
            happenings: Vec::new(),
            log: Vec::new(),
            buffer_limit: settings.buffer_limit,
            drain_time: settings.drain_time,
            listener: None,
            has_aborted: false,
            tried: BTreeMap::new(),
            loaded: BTreeSet::new(),
            plugins: BTreeMap::new(),
            holders: BTreeMap::new(),
            timers_set: 0,
            vms_made: 0,
            streams_made: 0,
        }
    }

    pub(crate) fn thread_mut(&mut self, thread: ThreadId) -> &mut ThreadShared {
        &mut self.threads[thread.0 as usize]
    }

    pub(crate) fn post(&mut self, thread: ThreadId, job: Job) {
        self.thread_mut(thread).inbox.push_back(job);
    }

    pub(crate) fn later(&mut self, after: Duration, timer: Timer) {
        self.timers_set += 1;
        let (at, order) = (self.clock.now + after, self.timers_set);
        self.timers.push(Timed { at, order, timer });
    }

    pub(crate) fn vm(&self, vm: VmId) -> Option<&VmShared> {
        self.vms.get(&vm)
    }

    pub(crate) fn vm_mut(&mut self, vm: VmId) -> Option<&mut VmShared> {
        self.vms.get_mut(&vm)
    }

    pub(crate) fn add_vm(&mut self, thread: ThreadId, plugin: &Plugin) -> VmId {
        self.vms_made += 1;
        let vm = VmId(self.vms_made);
        let random = self.random.fork();
        let space = self.data.space_id(&plugin.vm_id);
        self.vms.insert(vm, VmShared::new(thread, plugin, space, random));
        vm
    }

    pub(crate) fn next_stream(&mut self) -> StreamId {
        self.streams_made += 1;
        StreamId(self.streams_made)
    }

    /// Takes a happening down. After an abort there is no process in which anything could happen.
    pub(crate) fn happened(&mut self, happening: Happening) {
        if self.has_aborted {
            return;
        }
        self.has_aborted = matches!(happening, Happening::Aborted(_));
        let now = self.clock.now;
        self.trace.feed(trace::KIND_OUTSIDE, now, [self.happenings.len() as u64, 0, 0], &[]);
        if self.trace.keeps() {
            self.trace.keep(Event { at: now, place: None, text: brief(&happening) });
        }
        self.happenings.push(happening);
    }

    /// The route for a stream's headers as they now are.
    pub(crate) fn choose_route(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        let path = found.request.text(":path").unwrap_or_default();
        let route = route::find(&self.routes, path);
        found.info.route = route.and_then(|route| self.routes.iter().position(|other| other == route));
        found.info.cluster = route.map(|route| route.cluster.clone());
    }

    /// A call is over: it does not count as out any more.
    pub(crate) fn end_call(&mut self, vm: VmId, token: CallToken) -> Option<(ContextId, Call)> {
        let found = self.vm_mut(vm)?;
        let root = found.roots().find(|(_, root)| root.calls.contains_key(&token)).map(|(id, _)| id)?;
        let call = found.root_mut(root)?.calls.remove(&token)?;
        self.clusters.back(&call.cluster);
        Some((root, call))
    }

    /// A context and all its calls are gone (~Context cancels them).
    pub(crate) fn remove_context(&mut self, vm: VmId, context: ContextId) {
        let removed = self.vm_mut(vm).and_then(|found| found.contexts.remove(&context));
        if let Some(Context::Root(root)) = removed {
            for call in root.calls.values() {
                self.clusters.back(&call.cluster);
            }
        }
    }

    /// Takes a VM out.
    pub(crate) fn remove_vm(&mut self, vm: VmId) {
        let contexts: Vec<ContextId> =
            self.vm(vm).into_iter().flat_map(|found| found.contexts.keys().copied()).collect();
        contexts.into_iter().for_each(|context| self.remove_context(vm, context));
        if let Some(gone) = self.vms.remove(&vm) {
            self.release_data(&gone.vm_id);
        }
    }

    /// Another listener takes new connections, or none; the one before it drains.
    pub(crate) fn replace_listener(&mut self, by: Option<Generation>) {
        if let Some(old) = std::mem::replace(&mut self.listener, by) {
            self.drain(old);
        }
    }

    /// A listener takes no new connections any more, and lets its plugin go when it has drained.
    pub(crate) fn drain(&mut self, old: Generation) {
        for thread in (0..self.threads.len()).map(|id| ThreadId(id as u32)) {
            self.later(self.drain_time, Timer::Job(thread, Job::Unload(old)));
        }
    }

    /// A thread has let go of a generation.
    pub(crate) fn let_go(&mut self, thread: ThreadId, generation: Generation) {
        self.loaded.remove(&(thread, generation));
        if self.loaded.iter().any(|(_, other)| *other == generation) {
            return;
        }
        if let Some(vm_id) = self.holders.remove(&generation) {
            self.forget_tries(generation);
            self.release_data(&vm_id);
        }
    }

    /// What a throw-away VM has found is remembered as long as some listener has a plugin of its VM key (measured: a
    /// listener that was removed and comes back is tried again).
    fn forget_tries(&mut self, gone: Generation) {
        let key_of = |generation: &Generation| self.plugins.get(generation).map(|plugin| plugin.vm_key());
        let Some(gone) = key_of(&gone) else { return };
        if !self.holders.keys().any(|generation| key_of(generation).as_ref() == Some(&gone)) {
            self.tried.retain(|key, _| *key.vm_key() != gone);
        }
    }

    /// Shared data goes with the last VM and the last configuration of its `vm_id` (PLATFORM 1.1).
    fn release_data(&mut self, vm_id: &str) {
        let is_held = self.vms.values().any(|vm| vm.vm_id == vm_id) || self.holders.values().any(|held| held == vm_id);
        if !is_held {
            self.data.forget(vm_id);
            self.queues.forget(vm_id);
            self.happened(Happening::DataGone(vm_id.to_owned()));
        }
    }

    /// The map that a context may read, if it is there in this phase.
    pub(crate) fn map(&self, vm: VmId, context: ContextId, map: crate::abi::MapType) -> Option<&Headers> {
        use crate::abi::MapType;
        let found = self.vm(vm)?;
        let stream = found.stream_of(context).and_then(|stream| self.streams.get(&stream));
        let answer = || found.root(found.root_of(context))?.answer.as_ref();
        match map {
            MapType::RequestHeaders => {
                stream.filter(|s| s.visible.request_headers || s.visible.log).map(|stream| &stream.request)
            }
            MapType::RequestTrailers => {
                stream.filter(|s| s.visible.request_trailers && !s.visible.log)?.request_trailers.as_ref()
            }
            MapType::ResponseHeaders => stream
                .filter(|s| s.visible.response_headers || s.visible.log)
                .map(|stream| &stream.response.headers)
                .filter(|headers| !headers.0.is_empty()),
            MapType::ResponseTrailers => stream
                .filter(|s| s.visible.response_trailers || s.visible.log)
                .map(|stream| &stream.response.trailers)
                .filter(|trailers| !trailers.0.is_empty()),
            MapType::GrpcInitialMetadata | MapType::CallHeaders => answer().map(|answer| &answer.headers),
            MapType::GrpcTrailingMetadata | MapType::CallTrailers => {
                answer().map(|answer| &answer.trailers).filter(|trailers| !trailers.0.is_empty())
            }
        }
    }

    /// The map that a context may change, if it is there in this phase.
    pub(crate) fn map_mut(&mut self, vm: VmId, context: ContextId, map: crate::abi::MapType) -> Option<&mut Headers> {
        use crate::abi::MapType;
        let stream = self.vm(vm)?.stream_of(context)?;
        let stream = self.streams.get_mut(&stream)?;
        match map {
            MapType::RequestHeaders => stream.visible.request_headers.then_some(&mut stream.request),
            MapType::RequestTrailers => {
                if stream.visible.request_trailers {
                    stream.request_trailers.as_mut()
                } else {
                    None
                }
            }
            MapType::ResponseHeaders => stream.visible.response_headers.then_some(&mut stream.response.headers),
            MapType::ResponseTrailers => stream.visible.response_trailers.then_some(&mut stream.response.trailers),
            MapType::GrpcInitialMetadata
            | MapType::GrpcTrailingMetadata
            | MapType::CallHeaders
            | MapType::CallTrailers => None,
        }
    }

    /// Every VM that lives on a thread and has not failed.
    pub(crate) fn live_vms(&self) -> impl Iterator<Item = (ThreadId, VmId)> {
        self.vms.iter().filter(|(_, vm)| !vm.has_failed).map(|(id, vm)| (vm.thread, *id))
    }
}

fn brief(happening: &Happening) -> String {
    match happening {
        Happening::Answered { stream, response } => format!("stream {}: answered {}", stream.0, response.code()),
        Happening::Reset { stream } => format!("stream {}: reset", stream.0),
        Happening::Called { vm, token, .. } => format!("vm {}: call {} goes out", vm.0, token.0),
        Happening::Told { vm, token } => format!("vm {}: call {} ends", vm.0, token.0),
        Happening::Heard { vm, token, status } => format!("vm {}: call {} ended: {status:?}", vm.0, token.0),
        Happening::Trapped { thread, vm, message } => {
            format!("thread {}: vm {} trapped: {}", thread.0, vm.0, message.lines().next().unwrap_or_default())
        }
        Happening::Started { thread, vm } => format!("thread {}: vm {} started", thread.0, vm.0),
        Happening::Taken(generation) => format!("push {} taken", generation.0),
        Happening::Refused(generation) => format!("push {} refused", generation.0),
        Happening::Gone { thread, generation } => {
            format!("thread {}: root context of push {} gone", thread.0, generation.0)
        }
        Happening::DataGone(vm_id) => format!("shared data of {vm_id} gone"),
        Happening::Aborted(why) => format!("Envoy aborts: {why}"),
    }
}
