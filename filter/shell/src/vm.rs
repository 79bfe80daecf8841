//! What one root context and its streams share: the configuration, the delivery work, the holds, the effects' hands.
//!
//! Carries out effects after the core has returned. Decides nothing: each decision is a call of the core.

use crate::host::{self, HostMemory, Metrics};
use litemap::LiteMap;
use redeliver_core::capture::{BodySeen, Hold, Regime, WatchStep, learned_limit};
use redeliver_core::cells::CaptureNotice;
use redeliver_core::codec::crc32;
use redeliver_core::config::{CaptureMode, Config};
use redeliver_core::delivery::looking::LineRule;
use redeliver_core::delivery::sending::Reply;
use redeliver_core::delivery::{CallToken, Delivery};
use redeliver_core::effect::{Counter, Effect, Gauge, Level};
use redeliver_core::grpc::Protocol;
use redeliver_core::keys::Keys;
use redeliver_core::lines::Line;
use redeliver_core::memory::{Change, SharedMemory, update};
use redeliver_core::message::MessageId;
use redeliver_core::reply::{self, NotStored};
use redeliver_core::store::Now;
use redeliver_core::units::{ByteCount, Millis, Monotonic};
use std::collections::VecDeque;
use std::rc::Rc;

/// The longest time between two ticks: the watchdog must release held requests within a second (CONTRACT section 7).
const TICK_MAX: Millis = Millis(500);
/// A tick that comes so long after the one before shows a thread that stood still: bodies may have come meanwhile, and
/// wait in its queue.
const STOOD_STILL: Millis = Millis(2 * TICK_MAX.0);

/// Ids that one call of the host's random source is good for.
const FRESH_IDS: usize = 16;

/// A learned limit is tried anew after this long: it may have come from a sender that stopped and went on by chance.
const LIMIT_STANDS: Millis = Millis(600_000);

/// The state of one root context.
pub struct Vm {
    /// The configuration in force here.
    pub config: Rc<Config>,
    /// Stored messages.
    pub delivery: Delivery,
    /// Shared data and queues.
    pub memory: HostMemory,
    /// How requests are captured just now.
    pub regime: Regime,
    /// Requests that wait for their body, or were let go by the timer, by context id.
    pub held: LiteMap<u32, Held>,
    /// When the timer last looked at them.
    watched_at: Monotonic,
    /// Whether the host is known to deliver bodies of held requests.
    pub body_seen: BodySeen,
    /// Copies of bodies that the streams of this VM hold.
    pub copies: ByteCount,
    /// Random bytes of the host that no id has used yet.
    fresh: Vec<[u8; 16]>,
    /// Protected requests since the last tick: counted there, so that the success path saves a host call.
    pub protected: u64,
    root_context: u32,
    metrics: Metrics,
    /// The root context answered `on_done` with false and owes a `done`.
    owes_done: Owes,
    /// Test builds: the next tick traps.
    #[cfg(feature = "trap")]
    pub trap_at_tick: bool,
}

/// A request in the watchdog's care.
pub enum Held {
    /// It waits for its body.
    Waiting {
        /// How long.
        hold: Hold,
        /// The line that it must not overtake, if it has an ordering key.
        line: Option<LineRule>,
        /// What it speaks.
        protocol: Protocol,
    },
    /// It was let go.
    Released {
        /// When.
        at: Monotonic,
        /// What of its body had come.
        received: ByteCount,
    },
    /// It was answered: nothing of it goes on.
    Answered,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owes {
    Done,
    Nothing,
}

impl Vm {
    /// The state for a configuration whose text is `text`.
    pub fn new(config: Config, text: &[u8], root_context: u32) -> Self {
        let config = Rc::new(config);
        let root_id = host::property("plugin_root_id").unwrap_or_default();
        let seed = u64::from_le_bytes(host::random_bytes());
        let monotonic = host::monotonic();
        host::set_tick(config.tick().min(TICK_MAX));
        let mut vm = Self {
            regime: Regime::of(&config.capture),
            delivery: Delivery::new(config.clone(), Keys::of(&root_id), crc32(text), seed, monotonic),
            memory: HostMemory::new(),
            held: LiteMap::new(),
            watched_at: monotonic,
            body_seen: BodySeen::No,
            copies: ByteCount(0),
            fresh: Vec::new(),
            protected: 0,
            root_context,
            metrics: Metrics::define(),
            owes_done: Owes::Nothing,
            config,
            #[cfg(feature = "trap")]
            trap_at_tick: false,
        };
        let announcement = vm.delivery.announce(&vm.memory, monotonic);
        vm.run(announcement.into_iter().collect(), host::now());
        vm
    }

    /// One turn of the timer.
    pub fn tick(&mut self) {
        #[cfg(feature = "trap")]
        self.trap_if_told();
        self.count_protected();
        self.read_notice();
        let now = host::now();
        let effects = self.delivery.tick(&self.memory, now);
        self.run(effects, now);
        self.watch_holds();
    }

    /// The answer to one of our calls. Answers whether the root, which was to go, may go with it.
    pub fn call_answered(&mut self, token: u32, header_count: u32, body_size: usize, trailer_count: u32) -> bool {
        let headers = if header_count == 0 { Default::default() } else { host::call_headers() };
        let trailers = || if trailer_count == 0 { Default::default() } else { host::call_trailers() };
        let reply = Reply { headers, body: &|| host::call_body(body_size), trailers: &trailers };
        let now = host::now();
        let effects = self.delivery.answered(&self.memory, CallToken(token), &reply, now);
        self.run(effects, now);
        let may_go = self.owes_done == Owes::Done && !self.delivery.has_calls();
        if may_go {
            self.owes_done = Owes::Nothing;
            host::done();
        }
        may_go
    }

    /// The root context is to go. Answers whether it may go at once; if not, `done` follows when the last answer is in:
    /// an answer that is lost would be a repeat.
    pub fn stop(&mut self) -> bool {
        self.count_protected();
        let has_calls = self.delivery.stop(&self.memory, host::monotonic());
        self.owes_done = if has_calls { Owes::Done } else { Owes::Nothing };
        !has_calls
    }

    /// An id that nobody can guess. The host is asked for several at a time.
    pub fn new_id(&mut self) -> MessageId {
        if self.fresh.is_empty() {
            self.fresh.extend_from_slice(host::random_bytes::<{ 16 * FRESH_IDS }>().as_chunks::<16>().0);
        }
        MessageId(self.fresh.pop().unwrap_or_else(host::random_bytes))
    }

    fn count_protected(&mut self) {
        let protected = std::mem::take(&mut self.protected);
        self.count(Counter::Protected, protected);
    }

    /// Adds to a counter at once.
    pub fn count(&self, counter: Counter, by: u64) {
        if by > 0 {
            self.metrics.count(counter, by);
        }
    }

    fn run(&mut self, effects: Vec<Effect>, began: Now) {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Dispatch(dispatch) => {
                    let outcome = host::dispatch(&dispatch);
                    let now = Now { monotonic: host::monotonic(), ..began };
                    queue.extend(self.delivery.dispatched(&self.memory, dispatch.call, outcome, now));
                }
                Effect::Count(counter, by) => self.metrics.count(counter, by),
                Effect::Gauge(gauge, value) => self.metrics.gauge(gauge, value),
                Effect::DeliveryDelay(delay) => self.metrics.delivery_delay(delay),
                Effect::Note(level, text) => host::log(level, &text),
            }
        }
    }

    /// Looks after requests that wait for their body.
    fn watch_holds(&mut self) {
        let now = host::monotonic();
        let since = now.since(std::mem::replace(&mut self.watched_at, now));
        if since >= STOOD_STILL {
            self.excuse_holds();
        }
        let contexts: Vec<u32> = self.held.keys().copied().collect();
        for context in &contexts {
            match self.watch(*context, now) {
                WatchStep::Keep => {}
                WatchStep::TimeOver => self.release(*context),
                WatchStep::OptionMissing => {
                    self.degrade();
                    contexts.iter().for_each(|other| self.release(*other));
                    break;
                }
            }
        }
        if !contexts.is_empty() {
            host::speak_for(self.root_context);
        }
    }

    fn excuse_holds(&mut self) {
        for (_, held) in self.held.iter_mut() {
            match held {
                Held::Waiting { hold, .. } => hold.stood_still(),
                Held::Released { .. } | Held::Answered => {}
            }
        }
    }

    fn watch(&mut self, context: u32, now: Monotonic) -> WatchStep {
        if !host::speak_for(context) {
            self.held.remove(&context);
            return WatchStep::Keep;
        }
        match self.held.get_mut(&context) {
            Some(Held::Waiting { hold, .. }) => {
                let total = host::number_property("request\0total_size");
                hold.watch(total, self.body_seen, self.config.capture.hold_max, now)
            }
            Some(Held::Released { .. } | Held::Answered) | None => WatchStep::Keep,
        }
    }

    /// Lets a held request go on, unless it would overtake stored messages of its key: without the whole body it cannot
    /// be stored behind them.
    fn release(&mut self, context: u32) {
        let Some(Held::Waiting { hold, line, protocol }) = self.held.get(&context) else { return };
        let (received, protocol, now) = (hold.received, *protocol, host::monotonic());
        let must_wait = line.is_some_and(|line| self.delivery.line(&self.memory, line, now) == Line::Waiting);
        let next = if must_wait { Held::Answered } else { Held::Released { at: now, received } };
        self.held.insert(context, next);
        match (host::speak_for(context), must_wait) {
            (true, true) => self.refuse_to_overtake(NotStored::IncompleteBody, protocol),
            (true, false) => host::resume_request(),
            (false, true | false) => {}
        }
    }

    /// Answers the current stream's sender that its request must not overtake stored messages.
    pub fn refuse_to_overtake(&self, reason: NotStored, protocol: Protocol) {
        self.count(Counter::NotStored, 1);
        host::reply(&reply::must_wait(reason), protocol);
    }

    /// A request that was let go has its next piece: at once, if it was the listener's full buffer that had stopped it.
    pub fn went_on(&mut self, context: u32) {
        let Some(Held::Released { at, received }) = self.held.remove(&context) else { return };
        let wait = host::monotonic().since(at);
        if let Some(limit) = learned_limit(received, wait, self.regime.body_bytes_max) {
            self.lower_limit(limit);
        }
    }

    /// The host does not deliver bodies of held requests: stream from now on, on all workers, and say so once.
    fn degrade(&mut self) {
        self.regime.mode = CaptureMode::Stream;
        let is_news = self.write_notice(|notice, now| CaptureNotice { degraded_at: now.monotonic, ..notice });
        if is_news {
            self.metrics.gauge(Gauge::CaptureDegraded, 1);
            host::log(
                Level::Error,
                "capture.mode hold does not work on this listener: the Wasm filter's config lacks \
                 allow_on_headers_stop_iteration: true (Envoy 1.35 or later); going on as capture.mode stream, which \
                 stores little: set the option",
            );
        }
    }

    /// The listener's buffer is smaller than `capture.max_body`: bodies above `limit` pass from now on, on all workers.
    fn lower_limit(&mut self, limit: ByteCount) {
        let configured = self.config.capture.body_bytes_max;
        self.regime.body_bytes_max = limit;
        let is_news = self.write_notice(|notice, now| CaptureNotice {
            limited_at: now.monotonic,
            body_bytes_max: limit.0,
            ..notice
        });
        if is_news {
            host::log(
                Level::Error,
                &format!(
                    "the listener's per_connection_buffer_limit_bytes is below capture.max_body ({configured}): a held \
                     request filled it and waited for capture.max_hold; bodies above {} bytes pass unprotected from now \
                     on: raise the listener's limit or lower capture.max_body",
                    limit.0
                ),
            );
        }
    }

    /// Changes what all VMs know about the listener's buffers. Answers whether it was the first word on it.
    fn write_notice(&self, change: impl Fn(CaptureNotice, Now) -> CaptureNotice) -> bool {
        let now = host::now();
        let outcome = update(&self.memory, &self.delivery.keys().capture_notice(), |bytes| {
            let before = self.current(bytes);
            let after = change(before, now);
            let is_first = (after.degraded_at != before.degraded_at && before.degraded_at.0 == 0)
                || (after.limited_at != before.limited_at && before.limited_at.0 == 0);
            Change::Write(after.encode(), is_first)
        });
        outcome.unwrap_or(false)
    }

    /// What others learned since this configuration came.
    fn current(&self, bytes: Option<&[u8]>) -> CaptureNotice {
        let configured_at = self.delivery.configured_at();
        let notice = bytes.and_then(|bytes| CaptureNotice::decode(bytes).ok()).unwrap_or_default();
        CaptureNotice {
            degraded_at: if notice.degraded_at > configured_at { notice.degraded_at } else { Default::default() },
            limited_at: if notice.limited_at > configured_at { notice.limited_at } else { Default::default() },
            ..notice
        }
    }

    /// Takes over what other workers learned about the listener's buffers.
    pub fn read_notice(&mut self) {
        let value = self.memory.get(&self.delivery.keys().capture_notice());
        let notice = self.current(value.as_ref().map(|value| value.bytes.as_slice()));
        if notice.degraded_at.0 > 0 {
            self.regime.mode = CaptureMode::Stream;
        }
        let configured = self.config.capture.body_bytes_max;
        let stands = notice.limited_at.0 > 0 && host::monotonic().since(notice.limited_at) < LIMIT_STANDS;
        self.regime.body_bytes_max = if stands { configured.min(ByteCount(notice.body_bytes_max)) } else { configured };
    }
}

#[cfg(feature = "trap")]
mod trap {
    //! Test builds only: a VM that dies when it is told to.

    use super::Vm;
    use redeliver_core::memory::{Expect, SharedMemory};

    const MAIN_THREAD_KEY: &str = "redeliver-test-trap";

    /// Dies.
    pub fn trap() -> ! {
        core::arch::wasm32::unreachable()
    }

    impl Vm {
        /// `x-redeliver-trap: main`: a VM that never saw a stream dies at its next tick.
        pub fn tell_main_thread_to_trap(&self) {
            self.memory.set(MAIN_THREAD_KEY, b"1", Expect::Anything).unwrap_or_default();
        }

        pub(super) fn trap_if_told(&self) {
            let is_told = self.memory.get(MAIN_THREAD_KEY).is_some_and(|value| value.bytes == b"1");
            if self.trap_at_tick {
                trap();
            }
            if is_told && self.delivery.never_saw_a_stream() {
                self.memory.set(MAIN_THREAD_KEY, b"0", Expect::Anything).unwrap_or_default();
                trap();
            }
        }
    }
}

#[cfg(feature = "trap")]
pub use trap::trap;
