//! Faults inside the process: what the hook does at host calls, and how often each fault met each state of a record.

use crate::message::Destination;
use crate::slots::{self, RecordState};
use simvoy::abi::Callback;
use simvoy::{Chaos, Moment, Point, Process, ThreadId, Verdict};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What can go wrong. The first ones strike at a host call, the others from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A VM traps in place of a host call.
    Trap,
    /// A VM traps right after a host call.
    TrapAfter,
    /// A thread stands still for a moment.
    Stall,
    /// A thread stands still for longer than leases last.
    LongStall,
    /// A compare-and-set meets another writer.
    Conflict,
    /// A hint is lost.
    LostHint,
    /// A bit of a value flips.
    FlippedBit,
    /// A value is cut short.
    CutValue,
    /// A value gets under another key.
    SwappedValue,
    /// A configuration is pushed.
    Push,
    /// The wall clock jumps.
    ClockJump,
    /// Envoy's view of a destination's health changes.
    Health,
    /// A receiver changes its mood for the worse.
    Outage,
    /// A cluster is removed, and comes back.
    ClusterGone,
    /// A circuit breaker is nearly closed.
    Breaker,
    /// Envoy fails its own health checks.
    Leaving,
    /// The health source is silent, or lies.
    Source,
    /// A thread's ticks are late.
    LateTicks,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Trap,
        Self::TrapAfter,
        Self::Stall,
        Self::LongStall,
        Self::Conflict,
        Self::LostHint,
        Self::FlippedBit,
        Self::CutValue,
        Self::SwappedValue,
        Self::Push,
        Self::ClockJump,
        Self::Health,
        Self::Outage,
        Self::ClusterGone,
        Self::Breaker,
        Self::Leaving,
        Self::Source,
        Self::LateTicks,
    ];
}

/// How often each fault strikes, per million host calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// A turn for other threads: no fault, but the ground for most.
    pub turn: u32,
    /// See [`Fault`].
    pub trap: u32,
    /// See [`Fault`].
    pub trap_after: u32,
    /// See [`Fault`].
    pub stall: u32,
    /// See [`Fault`].
    pub long_stall: u32,
    /// See [`Fault`]; of sets with a cas only.
    pub conflict: u32,
    /// See [`Fault`]; of queue calls only.
    pub lost_hint: u32,
}

/// How often each fault has struck, and what it met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By fault.
    pub struck: BTreeMap<Fault, u64>,
    /// By fault and the state of a record that it met.
    pub met: BTreeMap<(Fault, RecordState), u64>,
}

impl Coverage {
    /// A fault struck.
    pub fn struck(&mut self, fault: Fault) {
        *self.struck.entry(fault).or_default() += 1;
    }

    /// It met a record in this state.
    pub fn met(&mut self, fault: Fault, state: RecordState) {
        *self.met.entry((fault, state)).or_default() += 1;
    }

    /// Together with another history's.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.struck {
            *self.struck.entry(*fault).or_default() += count;
        }
        for (pair, count) in &other.met {
            *self.met.entry(*pair).or_default() += count;
        }
    }
}

/// A fault at a host call, and the head key that was last named in that callback.
#[derive(Clone, Debug)]
struct Strike {
    fault: Fault,
    head: Option<Vec<u8>>,
}

/// What the hook and the world share.
#[derive(Debug, Default)]
pub struct Board {
    /// Rates at this time.
    pub rates: Rates,
    /// The next host call on each of these threads traps.
    pub doomed: Vec<ThreadId>,
    /// The next host call on this thread stands still for so long.
    pub frozen: Option<(ThreadId, Duration)>,
    /// Waits for the next call of its kind, on any thread.
    pub ambush: Option<Ambush>,
    /// Exactly this call of all calls that it counts traps; for cut points.
    pub cut: Option<Cut>,
    /// Traps that were injected.
    pub traps: u64,
    /// Threads that stand still for longer than leases may last.
    pub stalls: Vec<Standstill>,
    /// Dispatches per cluster, lately.
    pub dispatches: BTreeMap<Destination, VecDeque<Moment>>,
    strikes: Vec<Strike>,
    /// By thread; empty: the callback that runs there has named none.
    last_heads: Vec<Vec<u8>>,
}

/// A thread that stands still for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// Which.
    pub thread: ThreadId,
    /// Until when.
    pub until: Moment,
    /// What it was at.
    pub work: Work,
}

/// What a callback is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A sender's request.
    Request,
    /// Redelivery: a tick, or the answer to a call.
    Redelivery,
}

impl Work {
    const fn of(callback: Callback) -> Self {
        match callback {
            Callback::Tick | Callback::CallResponse | Callback::QueueReady => Self::Redelivery,
            _ => Self::Request,
        }
    }
}

/// Where something may strike on purpose: in the middle of what must look like one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A large part is about to be written.
    LargeWrite,
    /// A head is.
    HeadWrite,
    /// Anything else is: books, leases, tables.
    CellWrite,
    /// A hint is about to be given.
    Hint,
    /// A redelivery is about to go out.
    Dispatch,
    /// An answer is about to be read.
    Answer,
    /// A stream has ended, and its log callback begins.
    Log,
    /// The routed form of a stored request is about to be written, in that callback.
    RoutedForm,
}

/// What strikes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The VM traps in place of the call.
    Trap,
    /// The VM traps after the call.
    TrapAfter,
    /// The thread stands still.
    Stall(Duration),
}

/// One blow at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambush {
    /// Where.
    pub site: Site,
    /// How many calls of this kind get by first.
    pub skip: u32,
    /// How many in a row are struck then.
    pub times: u32,
    /// What.
    pub blow: Blow,
}

impl Site {
    fn is_at(self, point: &Point<'_>) -> bool {
        use simvoy::abi::HostCall;
        let is_write = point.call == HostCall::SetSharedData;
        match self {
            Self::LargeWrite => is_write && is_slot(point.name, b'm'),
            Self::HeadWrite => is_write && is_slot(point.name, b'h'),
            Self::CellWrite => is_write && !is_slot(point.name, b'm') && !is_slot(point.name, b'h'),
            Self::Hint => point.call == HostCall::EnqueueQueue,
            Self::Dispatch => point.call == HostCall::HttpCall && destination_of(point.name).is_some(),
            Self::Answer => point.callback == Callback::CallResponse && point.nth == 0,
            Self::Log => point.callback == Callback::Log && point.nth == 0,
            Self::RoutedForm => point.callback == Callback::Log && is_write && is_slot(point.name, b'm'),
        }
    }
}

impl Blow {
    fn verdict(self) -> (Verdict, Fault) {
        match self {
            Self::Trap => (Verdict::Trap, Fault::Trap),
            Self::TrapAfter => (Verdict::TrapAfter, Fault::TrapAfter),
            Self::Stall(span) if span >= STALL_LONG => (Verdict::Stall(span), Fault::LongStall),
            Self::Stall(span) => (Verdict::Stall(span), Fault::Stall),
        }
    }
}

/// A stall from here on may outlive what a thread believes; a lease lasts longer than this.
const STALL_LONG: Duration = Duration::from_secs(1);

/// While a VM is made no fault strikes: one that dies there stays dead until the next push (a null handle is never loaded
/// again), which no filter can mend.
const fn is_birth(callback: Callback) -> bool {
    matches!(callback, Callback::Initialize | Callback::VmStart | Callback::Configure)
}

fn destination_of(cluster: &[u8]) -> Option<Destination> {
    std::str::from_utf8(cluster).ok().and_then(Destination::of)
}

/// A cut point: the trap strikes at host call number `at` of the callbacks that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Counted from 0; counts down.
    pub at: u32,
    /// In which callback.
    pub callback: Callback,
    /// Only from this moment on.
    pub from: Moment,
    /// Only up to this moment.
    pub until: Moment,
}

/// The shared board.
#[derive(Clone, Debug, Default)]
pub struct Boards(Arc<Mutex<Board>>);

impl Boards {
    /// The board.
    pub fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What faults at host calls have met since the last time, looked up in the process.
    pub fn settle(&self, process: &Process, coverage: &mut Coverage) {
        let strikes = std::mem::take(&mut self.lock().strikes);
        for strike in strikes {
            coverage.struck(strike.fault);
            let head = strike.head.and_then(|key| Some((process.value(slots::VM_ID, &key)?, key)));
            if let Some(state) = head.and_then(|(value, key)| slots::state_of(&key, &value.bytes)) {
                coverage.met(strike.fault, state);
            }
        }
    }
}

/// The fault hook.
pub struct Hook {
    board: Boards,
    random: fastrand::Rng,
}

const MILLION: u32 = 1_000_000;

impl Hook {
    /// A hook that reads `board`.
    #[must_use]
    pub fn new(board: Boards, seed: u64) -> Self {
        Self { board, random: fastrand::Rng::with_seed(seed ^ 0x6861_6f73) }
    }
}

/// What happens at a call, and which fault that is.
type Decision = (Verdict, Option<Fault>);

fn decide(board: &mut Board, random: &mut fastrand::Rng, point: &Point<'_>) -> Decision {
    if let Some(decision) = board.ordered(point) {
        return decision;
    }
    let rates = board.rates;
    if is_birth(point.callback) {
        return (Verdict::Proceed, None);
    }
    let dice = random.u32(..MILLION);
    let mut line = rates.turn;
    if dice < line {
        return (Verdict::Yield, None);
    }
    let mut within = |rate: u32| {
        line += rate;
        dice < line
    };
    if within(rates.trap) {
        return (Verdict::Trap, Some(Fault::Trap));
    }
    if within(rates.trap_after) {
        return (Verdict::TrapAfter, Some(Fault::TrapAfter));
    }
    if within(rates.stall) {
        return (Verdict::Stall(Duration::from_millis(random.u64(1..400))), Some(Fault::Stall));
    }
    if within(rates.long_stall) {
        return (Verdict::Stall(Duration::from_millis(random.u64(3_000..30_000))), Some(Fault::LongStall));
    }
    decide_about_memory(rates, random, point)
}

fn decide_about_memory(rates: Rates, random: &mut fastrand::Rng, point: &Point<'_>) -> Decision {
    use simvoy::abi::HostCall;
    let dice = random.u32(..MILLION);
    match point.call {
        // A large part has one writer at a time; only heads and cells are fought over.
        HostCall::SetSharedData if dice < rates.conflict && !is_slot(point.name, b'm') => {
            (Verdict::Conflict, Some(Fault::Conflict))
        }
        HostCall::EnqueueQueue | HostCall::DequeueQueue if dice < rates.lost_hint => {
            (Verdict::Lose, Some(Fault::LostHint))
        }
        _ => (Verdict::Proceed, None),
    }
}

impl Board {
    /// What was ordered for just this call.
    fn ordered(&mut self, point: &Point<'_>) -> Option<Decision> {
        if self.doomed.contains(&point.thread) && !is_birth(point.callback) {
            self.doomed.retain(|thread| *thread != point.thread);
            return Some((Verdict::Trap, Some(Fault::Trap)));
        }
        if let Some((thread, span)) = self.frozen
            && thread == point.thread
        {
            self.frozen = None;
            return Some((Verdict::Stall(span), Some(Fault::LongStall)));
        }
        if let Some(ambush) = &mut self.ambush
            && !is_birth(point.callback)
            && ambush.site.is_at(point)
        {
            if ambush.skip > 0 {
                ambush.skip -= 1;
                return None;
            }
            let (verdict, fault) = ambush.blow.verdict();
            ambush.times = ambush.times.saturating_sub(1);
            if ambush.times == 0 {
                self.ambush = None;
            }
            return Some((verdict, Some(fault)));
        }
        let cut = self.cut.as_mut()?;
        if cut.callback != point.callback || point.now < cut.from || point.now > cut.until {
            return None;
        }
        if cut.at > 0 {
            cut.at -= 1;
            return None;
        }
        self.cut = None;
        Some((Verdict::Trap, Some(Fault::Trap)))
    }

    fn last_head(&mut self, thread: ThreadId) -> &mut Vec<u8> {
        let place = thread.0 as usize;
        if self.last_heads.len() <= place {
            self.last_heads.resize_with(place + 1, Vec::new);
        }
        &mut self.last_heads[place]
    }

    fn note(&mut self, point: &Point<'_>) {
        let last_head = self.last_head(point.thread);
        if point.nth == 0 {
            last_head.clear();
        }
        if is_slot(point.name, b'h') {
            last_head.clear();
            last_head.extend_from_slice(point.name);
        }
        if point.call == simvoy::abi::HostCall::HttpCall
            && let Some(destination) = destination_of(point.name)
        {
            let lately = self.dispatches.entry(destination).or_default();
            lately.push_back(point.now);
            while lately.front().is_some_and(|at| point.now - *at > Duration::from_secs(1)) {
                lately.pop_front();
            }
        }
    }
}

/// `rd<version><six digits>.<kind><eight digits>`: a part of a slot, `h` for its head, `m` for its large part.
fn is_slot(name: &[u8], kind: u8) -> bool {
    name.len() == 19 && name.starts_with(b"rd") && name.get(10) == Some(&kind)
}

impl Chaos for Hook {
    fn at(&mut self, point: &Point<'_>) -> Verdict {
        let mut board = self.board.lock();
        board.note(point);
        let (verdict, fault) = decide(&mut board, &mut self.random, point);
        if let Some(fault) = fault {
            let head = Some(board.last_head(point.thread).clone()).filter(|head| !head.is_empty());
            board.strikes.push(Strike { fault, head });
            match verdict {
                Verdict::Trap | Verdict::TrapAfter => board.traps += 1,
                Verdict::Stall(span) if span >= STALL_LONG => {
                    let work = Work::of(point.callback);
                    board.stalls.push(Standstill { thread: point.thread, until: point.now + span, work });
                }
                Verdict::Proceed | Verdict::Yield | Verdict::Stall(_) | Verdict::Conflict | Verdict::Lose => {}
            }
        }
        verdict
    }
}
