//! What all threads of one process share, behind one lock that is never held while a guest runs.
//!
//! Everything here is data; who changes it: host calls (`calls/`), threads (`thread/`) and the event loop (`process`).

use crate::chaos::Chaos;
use crate::cluster::Clusters;
use crate::guest::{Call, Context, VmShared};
use crate::happening::{Happening, LogLine};
use crate::http::Headers;
use crate::ids::{CallToken, ContextId, Generation, StreamId, ThreadId, VmId};
use crate::jobs::{Job, Timed, Timer};
use crate::memory::{SharedData, SharedQueues};
use crate::metrics::Metrics;
use crate::network::Origin;
use crate::plugin::{Plugin, PluginKey};
use crate::route::{self, Route};
use crate::stream::Stream;
use crate::time::{Clock, Moment};
use crate::trace::{Event, Kind, Trace};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct ThreadShared {
    pub inbox: VecDeque<Job>,
    pub stalled_until: Moment,
    /// No tick before this moment, while everything else goes on.
    pub ticks_late_until: Moment,
    pub life: ThreadLife,
}

/// Whether a thread takes jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ThreadLife {
    #[default]
    Runs,
    /// It has told its root contexts that the process ends.
    HasStopped,
}

/// The state of a process.
pub(crate) struct Shared {
    pub clock: Clock,
    pub data: SharedData,
    pub queues: SharedQueues,
    pub metrics: Metrics,
    pub clusters: Clusters,
    pub routes: Vec<Arc<Route>>,
    pub chaos: Box<dyn Chaos>,
    pub trace: Trace,
    pub random: fastrand::Rng,
    pub vms: BTreeMap<VmId, VmShared>,
    pub streams: BTreeMap<StreamId, Stream>,
    /// Streams on an internal listener, by what they are attempts of.
    pub inner: BTreeMap<(Origin, u64), StreamId>,
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
            inner: BTreeMap::new(),
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

    /// The process has aborted, or has ended as it was told to.
    pub(crate) fn is_over(&self) -> bool {
        self.has_aborted || self.threads.iter().all(|thread| thread.life == ThreadLife::HasStopped)
    }

    pub(crate) fn post(&mut self, thread: ThreadId, job: Job) {
        self.thread_mut(thread).inbox.push_back(job);
    }

    pub(crate) fn later(&mut self, after: Duration, timer: Timer) {
        self.timers_set += 1;
        let (at, order) = (self.clock.now + after, self.timers_set);
        self.timers.push(Timed { at, order, timer });
    }

    /// The next tick of a root context, if it wants any.
    pub(crate) fn arm_ticks(&mut self, vm: VmId, root: ContextId) {
        let Some(found) = self.vm_mut(vm) else { return };
        let thread = found.thread;
        if let Some((period, arming)) = found.root_mut(root).and_then(|root| root.timer.arm()) {
            self.later(period, Timer::Job(thread, Job::Tick(vm, root, arming)));
        }
    }

    pub(crate) fn vm(&self, vm: VmId) -> Option<&VmShared> {
        self.vms.get(&vm)
    }

    pub(crate) fn vm_mut(&mut self, vm: VmId) -> Option<&mut VmShared> {
        self.vms.get_mut(&vm)
    }

    /// The stream that a context is of, if it is of one.
    pub(crate) fn stream_of(&self, vm: VmId, context: ContextId) -> Option<StreamId> {
        self.vm(vm)?.stream_of(context)
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
        happening.feed(&mut self.trace, now);
        if self.trace.keeps() {
            self.trace.keep(Event { at: now, place: None, text: happening.to_string() });
        }
        self.happenings.push(happening);
    }

    /// Takes a line of a guest's log down.
    pub(crate) fn logged(&mut self, thread: ThreadId, vm: VmId, level: u32, text: &[u8]) {
        let at = self.clock.now;
        self.trace.feed(Kind::LogLine, at, [u64::from(vm.0), u64::from(level), 0], text);
        let text = String::from_utf8_lossy(text).into_owned();
        self.log.push(LogLine { at, thread, vm, level, text });
    }

    /// The route for a stream's headers as they now are.
    pub(crate) fn choose_route(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        let path = found.request.text(":path").unwrap_or_default();
        found.info.route = route::find(&self.routes, path).cloned();
        found.info.cluster = found.info.route.as_ref().map(|route| route.cluster.clone());
    }

    /// A call is over: it does not count as out any more.
    pub(crate) fn end_call(&mut self, vm: VmId, token: CallToken) -> Option<(ContextId, Call)> {
        let found = self.vm_mut(vm)?;
        let root = found.roots().find(|(_, root)| root.calls.contains_key(&token)).map(|(id, _)| id)?;
        let call = found.root_mut(root)?.calls.remove(&token)?;
        self.clusters.back(&call.cluster);
        self.hang_up(Origin::Dispatch(vm, token), 1);
        Some((root, call))
    }

    /// Nobody waits for this attempt any more: if it is a stream on an internal listener, its connection is closed.
    pub(crate) fn hang_up(&mut self, origin: Origin, attempt: u64) {
        if let Some(stream) = self.inner.remove(&(origin, attempt))
            && let Some(thread) = self.streams.get(&stream).map(|stream| stream.thread)
        {
            self.post(thread, Job::Disconnect(stream));
        }
    }

    /// The newest version of the listener whose plugin this thread has.
    pub(crate) fn plugin_of(&self, thread: ThreadId) -> Option<Generation> {
        let newest = self.listener?;
        let mut loaded = self.loaded.range((thread, Generation(0))..=(thread, newest));
        Some(loaded.next_back().map_or(newest, |(_, generation)| *generation))
    }

    /// A context and all its calls are gone (~Context cancels them).
    pub(crate) fn remove_context(&mut self, vm: VmId, context: ContextId) {
        let removed = self.vm_mut(vm).and_then(|found| found.contexts.remove(&context));
        if let Some(Context::Root(root)) = removed {
            for (token, call) in &root.calls {
                self.clusters.back(&call.cluster);
                self.hang_up(Origin::Dispatch(vm, *token), 1);
            }
        }
    }

    /// Takes a VM out, with its contexts and their calls.
    pub(crate) fn take_vm(&mut self, vm: VmId) -> Option<VmShared> {
        let contexts: Vec<ContextId> =
            self.vm(vm).into_iter().flat_map(|found| found.contexts.keys().copied()).collect();
        contexts.into_iter().for_each(|context| self.remove_context(vm, context));
        self.vms.remove(&vm)
    }

    /// Takes a VM out; its shared data goes too if it was the last one to hold it.
    pub(crate) fn remove_vm(&mut self, vm: VmId) {
        if let Some(gone) = self.take_vm(vm) {
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

    /// What a throw-away VM has found is remembered as long as some listener has a plugin of its VM key (`life_cycle::listener_removed`: a
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
                stream.filter(|s| s.visible.shows_request_headers()).map(|stream| &stream.request)
            }
            MapType::RequestTrailers => {
                stream.filter(|s| s.visible.request_trailers && !s.visible.log)?.request_trailers.as_ref()
            }
            MapType::ResponseHeaders => stream
                .filter(|s| s.visible.shows_response_headers())
                .map(|stream| &stream.response.headers)
                .filter(|headers| !headers.0.is_empty()),
            MapType::ResponseTrailers => stream
                .filter(|s| s.visible.shows_response_trailers())
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
