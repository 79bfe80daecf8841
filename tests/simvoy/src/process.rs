//! The process: all threads, one event loop, one seed. Here is what a test does to it and sees of it; how it runs is in
//! `process/event_loop.rs`.

mod event_loop;

use crate::chaos::Chaos;
use crate::cluster::{Cluster, HealthChecks};
use crate::connection;
use crate::happening::{Happening, LogLine};
use crate::http::Headers;
use crate::ids::{Generation, StreamId, ThreadId, VmId};
use crate::jobs::{Job, Place};
use crate::memory::{SharedData, SharedQueues, Value};
use crate::metrics::Metrics;
use crate::network::{Exchange, Origin};
use crate::plugin::Plugin;
use crate::route::Route;
use crate::shared::{Handle, Shared};
use crate::stream::{End, Piece, Stream};
use crate::thread::Thread;
use crate::time::Moment;
use crate::trace::Event;
use crate::vm::Module;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// More workers than that no process has: each has VMs of its own, and the engine's pool is made for so many.
pub const WORKERS_MAX: u32 = 64;

/// What a process is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Worker threads; the main thread comes on top. None counts as one, and more than [`WORKERS_MAX`] as so many.
    pub workers: u32,
    /// Decides everything that is left to chance in here.
    pub seed: u64,
    /// `per_connection_buffer_limit_bytes`; Envoy's default is 1 MiB.
    pub buffer_limit: usize,
    /// How long a replaced listener lives on (`--drain-time-s`; Envoy's default is 600 s).
    pub drain_time: Duration,
    /// How many of the last events are kept in words; zero is fastest.
    pub keep_events: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { workers: 1, seed: 0, buffer_limit: 1 << 20, drain_time: Duration::from_secs(600), keep_events: 0 }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A thread ran to its next turn or to the end of its job.
    Ran(ThreadId),
    /// A timer ran, or time moved.
    Moved,
    /// Nothing happens before this moment.
    Until(Moment),
}

type Running = Pin<Box<dyn Future<Output = Thread> + Send>>;

enum Seat {
    Idle(Box<Thread>),
    /// In the middle of a job.
    Busy(Running),
}

/// An Envoy process.
pub struct Process {
    shared: Handle,
    seats: Vec<Option<Seat>>,
    pushes: u32,
}

impl Process {
    /// A process without clusters, routes and plugins.
    #[must_use]
    pub fn new(module: &Module, settings: Settings) -> Self {
        let threads = 1 + settings.workers.clamp(1, WORKERS_MAX);
        let shared = Handle::new(Shared::new(threads, &settings));
        let seat = |id| Some(Seat::Idle(Box::new(Thread::new(ThreadId(id), shared.clone(), module.clone()))));
        let seats = (0..threads).map(seat).collect();
        Self { shared, seats, pushes: 0 }
    }

    /// Sets the fault hook.
    pub fn set_chaos(&mut self, chaos: Box<dyn Chaos>) {
        self.shared.lock().chaos = chaos;
    }

    /// Adds a cluster, or gives it another configuration; what is out to it stays out.
    pub fn set_cluster(&mut self, name: &str, cluster: Cluster) {
        self.shared.lock().clusters.set(name, cluster);
    }

    /// Takes a cluster away, as CDS does.
    pub fn remove_cluster(&mut self, name: &str) {
        self.shared.lock().clusters.remove(name);
    }

    /// Changes a cluster, if it is there.
    pub fn with_cluster(&mut self, name: &str, change: impl FnOnce(&mut Cluster)) {
        if let Some(cluster) = self.shared.lock().clusters.get_mut(name) {
            change(cluster);
        }
    }

    /// A cluster as it is now.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<Cluster> {
        self.shared.lock().clusters.get(name).cloned()
    }

    /// `POST /healthcheck/fail`, or `ok`.
    pub fn set_health_checks(&mut self, checks: HealthChecks) {
        self.shared.lock().clusters.health_checks = checks;
    }

    /// Sets the routes of all listeners. A request keeps the route that was chosen for it.
    pub fn set_routes(&mut self, routes: Vec<Route>) {
        self.shared.lock().routes = routes.into_iter().map(Arc::new).collect();
    }

    /// This moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.shared.lock().clock.now
    }

    /// The wall clock, in nanoseconds since the epoch.
    #[must_use]
    pub fn wall(&self) -> u64 {
        self.shared.lock().clock.wall()
    }

    /// Moves the wall clock alone.
    pub fn jump_wall(&mut self, nanos: i128) {
        self.shared.lock().clock.jump_wall(nanos);
    }

    /// A new version of the listener, with this plugin or with none. If it is taken, the one before it drains; if it is
    /// refused, Envoy keeps what it has.
    pub fn push(&mut self, plugin: Option<Plugin>) -> Generation {
        self.pushes += 1;
        let generation = Generation(self.pushes);
        let mut shared = self.shared.lock();
        match plugin {
            Some(plugin) => {
                let plugin = Arc::new(plugin);
                shared.plugins.insert(generation, plugin.clone());
                shared.post(ThreadId::MAIN, Job::Load(generation, plugin, Place::Instead));
            }
            None => shared.replace_listener(None),
        }
        generation
    }

    /// A second listener with the plugin, beside the one that takes new connections.
    pub fn push_beside(&mut self, plugin: Plugin) -> Generation {
        self.pushes += 1;
        let generation = Generation(self.pushes);
        let plugin = Arc::new(plugin);
        let mut shared = self.shared.lock();
        shared.plugins.insert(generation, plugin.clone());
        shared.post(ThreadId::MAIN, Job::Load(generation, plugin, Place::Beside));
        generation
    }

    /// Removes a listener that stands beside; it drains.
    pub fn remove_beside(&mut self, generation: Generation) {
        self.shared.lock().post(ThreadId::MAIN, Job::Remove(generation));
    }

    /// Ticks of this thread, if there is one, come late, at this moment at the earliest, while everything else goes on: a timer of
    /// libevent waits for the events that are there already.
    pub fn delay_ticks(&mut self, thread: ThreadId, until: Moment) {
        if let Some(thread) = self.shared.lock().threads.get_mut(thread.0 as usize) {
            thread.ticks_late_until = until;
        }
    }

    /// A version of the listener that is only tried: if the plugin takes its configuration, nothing changes all the same.
    pub fn try_push(&mut self, plugin: Plugin) {
        self.shared.lock().post(ThreadId::MAIN, Job::TryOut(Arc::new(plugin)));
    }

    /// A thread has made its root context for a generation: it may still be at it, or have failed.
    #[must_use]
    pub fn is_loaded(&self, thread: ThreadId, generation: Generation) -> bool {
        self.shared.lock().loaded.contains(&(thread, generation))
    }

    /// SIGTERM: every root context hears of it, and a thread that has told its own does nothing any more. When all have,
    /// nothing ever happens in this process: what `on_done` answers makes no difference (PLATFORM 1.9, row "SIGTERM";
    /// `dispatch::terminate_drops_the_answer`).
    pub fn terminate(&mut self) {
        let mut shared = self.shared.lock();
        for thread in (0..self.seats.len()).map(|id| ThreadId(id as u32)) {
            shared.post(thread, Job::Stop);
        }
    }

    /// A sender's request begins on a worker, through a version of the listener (`None`: one without a plugin). Envoy
    /// adds what a connection manager adds. A thread that is no worker takes no connection: the stream is reset at once.
    pub fn open(&mut self, worker: ThreadId, generation: Option<Generation>, head: Headers, end: End) -> StreamId {
        let wants_close = connection::wants_close(&head);
        let head = connection::enter(head, &mut self.shared.lock().random);
        let stream = self.open_as_is(worker, generation, head, end);
        if let Some(opened) = self.shared.lock().streams.get_mut(&stream) {
            opened.wants_close = wants_close;
        }
        stream
    }

    /// As [`Process::open`], with the head as it reaches the plugin: another filter in front of it may have put in
    /// anything, framing and hop-by-hop headers too.
    pub fn open_as_is(
        &mut self,
        worker: ThreadId,
        generation: Option<Generation>,
        head: Headers,
        end: End,
    ) -> StreamId {
        let mut shared = self.shared.lock();
        let plugin = generation.and_then(|generation| shared.plugins.get(&generation).cloned());
        let stream = shared.next_stream();
        if worker == ThreadId::MAIN || worker.0 as usize >= shared.threads.len() {
            shared.happened(Happening::Reset { stream });
            return stream;
        }
        shared.streams.insert(stream, Stream::new(worker, plugin, head, end));
        shared.post(worker, Job::Open(stream, generation));
        stream
    }

    /// More of a request's body.
    pub fn send_body(&mut self, stream: StreamId, bytes: Vec<u8>, end: End) {
        self.post_to(stream, |stream| Job::Piece(stream, Piece::Data(bytes, end)));
    }

    /// A request's trailers, which end it.
    pub fn send_trailers(&mut self, stream: StreamId, trailers: Headers) {
        self.post_to(stream, |stream| Job::Piece(stream, Piece::Trailers(trailers)));
    }

    /// The sender closes.
    pub fn disconnect(&mut self, stream: StreamId) {
        self.post_to(stream, Job::Disconnect);
    }

    /// A receiver that was silent does something after all, with the attempt that is out.
    pub fn answer(&mut self, origin: Origin, exchange: Exchange) {
        let origin = origin.of_wire();
        let attempt = match origin {
            Origin::Live(stream) => {
                let shared = self.shared.lock();
                shared.streams.get(&stream).and_then(|stream| Some(stream.outgoing.as_ref()?.attempt)).unwrap_or(0)
            }
            Origin::Dispatch(..) | Origin::Through(..) => 1,
        };
        self.ends(origin, attempt, exchange);
    }

    fn post_to(&mut self, stream: StreamId, job: impl FnOnce(StreamId) -> Job) {
        let mut shared = self.shared.lock();
        if let Some(thread) = shared.streams.get(&stream).map(|stream| stream.thread) {
            shared.post(thread, job(stream));
        }
    }

    /// What has happened since the last time.
    pub fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.shared.lock().happenings)
    }

    /// What was logged since the last time.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.shared.lock().log)
    }

    /// Looks at the shared data.
    pub fn with_data<T>(&self, look: impl FnOnce(&SharedData) -> T) -> T {
        look(&self.shared.lock().data)
    }

    /// Looks at the shared queues.
    pub fn with_queues<T>(&self, look: impl FnOnce(&SharedQueues) -> T) -> T {
        look(&self.shared.lock().queues)
    }

    /// Overwrites a value from outside of all guests: another plugin of the same `vm_id`, or a fault of memory.
    pub fn overwrite(&mut self, vm_id: &str, key: &[u8], bytes: &[u8]) {
        // A write that asks for no number cannot be refused.
        let _always_ok = self.shared.lock().data.set(vm_id, key, bytes, 0);
    }

    /// A value of the shared data.
    #[must_use]
    pub fn value(&self, vm_id: &str, key: &[u8]) -> Option<Value> {
        self.shared.lock().data.get(vm_id, key).cloned()
    }

    /// The stats.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.lock().metrics.clone()
    }

    /// One counter or gauge.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        self.shared.lock().metrics.value(name)
    }

    /// VMs that live and have not failed.
    #[must_use]
    pub fn live_vms(&self) -> Vec<(ThreadId, VmId)> {
        self.shared.lock().live_vms().collect()
    }

    /// Root contexts of a VM: one for each plugin configuration that it has and has not let go.
    #[must_use]
    pub fn root_count(&self, vm: VmId) -> usize {
        self.shared.lock().vm(vm).map_or(0, |vm| vm.roots().count())
    }

    /// The largest memory of a guest, in bytes; guests in the middle of a job are left out.
    #[must_use]
    pub fn memory_bytes_max(&self) -> usize {
        let idle = self.seats.iter().flatten().filter_map(|seat| match seat {
            Seat::Idle(thread) => Some(thread.memory_bytes_max()),
            Seat::Busy(_) => None,
        });
        idle.max().unwrap_or(0)
    }

    /// The hash of all that has happened: different hashes mean different runs. How the process is polled is no part of it.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.shared.lock().trace.hash()
    }

    /// How many events the hash is over.
    #[must_use]
    pub fn trace_count(&self) -> u64 {
        self.shared.lock().trace.count()
    }

    /// The last events in words, oldest first, if they are kept.
    #[must_use]
    pub fn last_events(&self) -> Vec<Event> {
        self.shared.lock().trace.kept().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Receivers, Request, tiny};

    struct Nobody;

    impl Receivers for Nobody {
        fn exchange(&mut self, _: &str, _: Origin, _: &Request, _: Moment) -> Exchange {
            Exchange::Silence
        }
    }

    fn process(workers: u32) -> Process {
        Process::new(&tiny::module(), Settings { workers, ..Settings::default() })
    }

    #[test]
    fn a_process_in_which_nothing_happens_does_not_wait_for_the_end_of_time() {
        let mut process = process(1);
        process.push(Some(Plugin::new("v", "")));
        process.run_until(&mut Nobody, Moment::NEVER);
        let now = process.now();
        assert!(now < Moment::NEVER, "{now}");
        assert_eq!(process.step(&mut Nobody, Moment::NEVER), Step::Until(Moment::NEVER));
        process.run_for(&mut Nobody, Duration::from_secs(5));
        assert_eq!(process.now() - now, Duration::from_secs(5), "with a limit, time goes there");
    }

    #[test]
    fn a_number_of_workers_that_no_process_has_is_brought_into_range() {
        for (workers, threads) in [(0, 2), (1, 2), (3, 4), (u32::MAX, 1 + WORKERS_MAX as usize)] {
            assert_eq!(process(workers).seats.len(), threads, "{workers}");
        }
    }

    #[test]
    fn a_thread_that_is_no_worker_takes_no_connection() {
        for thread in [ThreadId::MAIN, ThreadId(2), ThreadId(9), ThreadId(u32::MAX)] {
            let mut process = process(1);
            process.delay_ticks(thread, Moment::millis(1));
            let stream = process.open(thread, None, Headers::default(), End::Last);
            assert_eq!(process.take_happenings(), [Happening::Reset { stream }], "{thread:?}");
            process.send_body(stream, Vec::new(), End::Last);
            process.disconnect(stream);
            process.run_until(&mut Nobody, Moment::NEVER);
        }
    }

    #[test]
    fn nothing_happens_in_a_process_that_was_told_to_end() {
        let mut process = process(2);
        process.push(Some(Plugin::new("v", "")));
        process.set_cluster("orders", Cluster::default());
        process.set_routes(vec![Route::new("/", "orders")]);
        let head = Headers::of(&[(":method", "GET"), (":path", "/a"), (":authority", "shop")]);
        process.open(ThreadId(1), None, head.clone(), End::Last);
        process.run_for(&mut Nobody, Duration::from_secs(1));
        process.terminate();
        process.run_for(&mut Nobody, Duration::from_secs(1));
        process.take_happenings();
        process.open(ThreadId(2), None, head, End::Last);
        // Longer than the route's time: its 504 never comes.
        process.run_for(&mut Nobody, Duration::from_secs(60));
        assert_eq!(process.take_happenings(), []);
        assert_eq!(process.step(&mut Nobody, Moment::NEVER), Step::Until(Moment::NEVER));
    }

    /// Does the same with each request.
    struct Alike(Exchange);

    impl Receivers for Alike {
        fn exchange(&mut self, cluster: &str, _: Origin, request: &Request, _: Moment) -> Exchange {
            assert_eq!((cluster, request.headers.text(":path")), ("orders", Some("/in/a")));
            self.0.clone()
        }
    }

    #[test]
    fn a_request_to_an_internal_listener_is_a_stream_there_and_is_answered_with_its_end() {
        let after = Duration::from_millis(5);
        let answer = crate::Response::status(200).body("fine");
        let cases = [
            (Exchange::Answer { after, response: answer.clone() }, Some(200)),
            (Exchange::Refused, Some(503)),
            (Exchange::Garbage { after }, Some(502)),
            (Exchange::CutAfterHeaders { after, response: answer }, None),
            (Exchange::Silence, Some(504)),
        ];
        for (exchange, expected) in cases {
            let mut process = process(1);
            process.set_cluster("orders", Cluster::default());
            process.set_cluster("again", Cluster::internal(crate::Upstream::Listener(crate::Chain::Router)));
            let mut out = Route::new("/out/", "again");
            (out.prefix_rewrite, out.timeout) = (Some("/in/".to_owned()), Duration::from_secs(1));
            process.set_routes(vec![out, Route::new("/in/", "orders")]);
            let head = Headers::of(&[(":method", "GET"), (":path", "/out/a"), (":authority", "shop")]);
            let stream = process.open(ThreadId(1), None, head, End::Last);
            process.run_for(&mut Alike(exchange.clone()), Duration::from_secs(3));
            let codes: Vec<_> = process
                .take_happenings()
                .into_iter()
                .map(|happening| match happening {
                    Happening::Answered { stream: answered, response } if answered == stream => Some(response.code()),
                    Happening::Reset { stream: reset } if reset == stream => None,
                    other => panic!("{exchange:?}: {other:?}"),
                })
                .collect();
            assert_eq!(codes, [expected], "{exchange:?}");
            let shared = process.shared.lock();
            assert!(shared.streams.is_empty() && shared.inner.is_empty(), "{exchange:?}: nothing is left behind");
        }
    }

    #[test]
    fn no_jump_of_the_wall_clock_leads_out_of_its_numbers() {
        let mut process = process(1);
        for (nanos, wall) in [(i128::MAX, u64::MAX), (i128::MAX, u64::MAX), (i128::MIN, 0), (i128::MIN, 0)] {
            process.jump_wall(nanos);
            if nanos < 0 {
                process.jump_wall(nanos);
            }
            assert_eq!(process.wall(), wall, "{nanos}");
        }
    }

    #[test]
    fn a_vm_for_which_the_engine_has_no_room_is_no_trap_of_the_guest() {
        let mut process = process(1);
        // Each vm_id has VMs of its own on every thread, and no listener is ever drained.
        for n in 0..150 {
            process.push_beside(Plugin::new(&format!("v{n}"), ""));
            process.run_for(&mut Nobody, Duration::from_secs(1));
        }
        let happenings = process.take_happenings();
        assert!(happenings.iter().any(|happening| matches!(happening, Happening::NotMade { .. })));
        assert!(!happenings.iter().any(|happening| matches!(happening, Happening::Trapped { .. })));
        assert!(process.live_vms().len() <= 200, "what could not be made is not counted");
    }
}
