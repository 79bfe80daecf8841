//! The fault hook: what happens at each host call, by what was ordered for it or by rates.

use crate::ambush::{Ambush, Blow, STALL_LONG, destination_of};
use crate::faults::{Coverage, Fault, Rates};
use crate::message::Destination;
use crate::slots;
use simvoy::abi::Callback;
use simvoy::{Chaos, Moment, Point, Process, ThreadId, Verdict};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// When a hint was last lost.
    pub hint_lost_at: Option<Moment>,
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
            // Whatever else a guest is asked is about a stream, or about its own life.
            _ => Self::Request,
        }
    }
}

/// While a VM is made no fault strikes: one that dies there stays dead until the next push (a null handle is never loaded
/// again), which no filter can mend.
const fn is_birth(callback: Callback) -> bool {
    matches!(callback, Callback::Initialize | Callback::VmStart | Callback::Configure)
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
        HostCall::SetSharedData if dice < rates.conflict && !slots::is_part(point.name, b'm') => {
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
            let (verdict, fault) = Blow::Stall(span).verdict();
            return Some((verdict, Some(fault)));
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
        if slots::is_part(point.name, b'h') {
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
                Verdict::Lose => board.hint_lost_at = Some(point.now),
                Verdict::Proceed | Verdict::Yield | Verdict::Stall(_) | Verdict::Conflict => {}
            }
        }
        verdict
    }
}
