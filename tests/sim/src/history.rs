//! A history: everything that will happen to a process, as a list that can be read, cut and repeated.
//!
//! A seed makes it; what strikes at host calls is left to rates and to the same seed. Actions can be left out one by one,
//! which is how a failing history is made small.

use crate::ambush::Ambush;
use crate::faults::Rates;
use crate::message::Destination;
use crate::retries::{Pick, Twist};
use crate::rules::Rules;
use crate::slots::RecordState;
use crate::town::{Mood, Remedy, SourceMood};
use simvoy::Moment;
use std::time::Duration;

/// What a history is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Faults until the end: nothing may be lost.
    Safety,
    /// Faults, then none: the backlog must end.
    Liveness,
}

/// What made a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its seed.
    Seed,
    /// A person: the scenario of this name.
    Scenario(&'static str),
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The next message to this destination, on the worker with this number, through an old listener if there is one.
    Send {
        /// Where to.
        destination: Destination,
        /// On which worker (modulo their number).
        worker: u32,
        /// Through which listener.
        listener: Listener,
    },
    /// A sender sends a message again, or what it says is the same.
    Retry {
        /// A message in which state.
        pick: Pick,
        /// Which of those (modulo their number).
        which: u32,
        /// How it differs.
        twist: Twist,
        /// On which worker (modulo their number).
        worker: u32,
        /// Through which listener.
        listener: Listener,
    },
    /// A receiver changes its mood.
    Mood(Destination, Mood),
    /// Envoy's view of a destination's health.
    Health(Destination, HealthView),
    /// Rates of faults at host calls from now on.
    Rates(Rates),
    /// The next host call on this thread traps.
    Doom(Thread),
    /// Every worker's next host call traps.
    DoomWorkers,
    /// This thread stands still at its next host call.
    Freeze(Thread, Duration),
    /// Something strikes at the next call of a kind.
    Ambush(Ambush),
    /// This thread's ticks come late.
    LateTicks(Thread, Duration),
    /// The health source changes its mood.
    Source(SourceMood),
    /// A second listener with another configuration appears beside the first.
    Beside,
    /// It goes away.
    NotBeside,
    /// The wall clock jumps by so many milliseconds.
    Jump(i64),
    /// A value of shared memory is damaged.
    Damage(Damage),
    /// A configuration is pushed.
    Push(Configuration),
    /// A cluster is removed.
    Remove(Destination),
    /// A cluster comes back.
    Restore(Destination),
    /// A cluster takes only so many requests at once.
    Breaker(Destination, u32),
    /// `POST /healthcheck/fail` or `ok`.
    Leaving(Leaving),
    /// No message breaks its receiver any more.
    Cure,
    /// Everything is well from now on.
    Heal,
}

/// One of the process's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// This one (modulo their number); 0 is the main thread.
    Number(u32),
    /// The one that last sent something to this destination again: its leader's, if it has one.
    Leader(Destination),
}

/// Through which version of the listener a sender comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The newest.
    Newest,
    /// One that drains, if there is one.
    Draining,
}

/// What Envoy thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthView {
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
}

/// Whether Envoy fails its own health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Which configuration is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// The one of the history.
    Own,
    /// The same with a longer tick.
    Slower,
    /// The same with half of the store.
    Smaller,
    /// One that no build takes.
    Faulty,
}

/// How a value is damaged; the number chooses which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit of a head flips.
    FlipHead(u32),
    /// One bit of a large part flips.
    FlipLarge(u32),
    /// A head is cut short.
    CutHead(u32),
    /// A large part is cut short.
    CutLarge(u32),
    /// Two large parts change places.
    Swap(u32),
    /// One bit of any other cell flips: books, leases, tables.
    FlipCell(u32),
    /// The word that a worker lives says a moment in the future.
    FutureWorker,
    /// The table of destinations becomes unreadable.
    Destinations,
}

impl Damage {
    /// A number that chooses a record in this state, if there is one.
    #[must_use]
    pub fn aimed(state: RecordState, which: u32) -> u32 {
        let place = RecordState::ALL.iter().position(|other| *other == state).unwrap_or_default();
        // Place and number both count: see `aim`.
        which / AIM_PERIOD * AIM_PERIOD + place as u32 * AIM_STEP
    }

    /// The state of the records that a number chooses from.
    #[must_use]
    pub fn aim(which: u32) -> RecordState {
        RecordState::ALL[(which / AIM_STEP) as usize % RecordState::ALL.len()]
    }
}

/// So many numbers choose from records in one state, the next ones from those in the next.
const AIM_STEP: u32 = 7;
const AIM_PERIOD: u32 = AIM_STEP * RecordState::ALL.len() as u32;

/// What a history is.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// What made it.
    pub origin: Origin,
    /// What decides everything that is left to chance.
    pub seed: u64,
    /// What it is for.
    pub phase: Phase,
    /// Worker threads.
    pub workers: u32,
    /// The configuration.
    pub rules: Rules,
    /// How long a replaced listener lives on.
    pub drain_time: Duration,
    /// Whether poison ends when everything is made well.
    pub remedy: Remedy,
    /// When it ends.
    pub end: Moment,
    /// What happens, in order.
    pub actions: Vec<(Moment, Action)>,
}

impl History {
    /// When everything was made well, if it ever was.
    #[must_use]
    pub fn healed_at(&self) -> Option<Moment> {
        self.actions.iter().find(|(_, action)| *action == Action::Heal).map(|(at, _)| *at)
    }

    /// The history without those actions whose place `keeps` does not name. What heals stays.
    #[must_use]
    pub fn keeping(&self, keeps: impl Fn(usize) -> bool) -> Self {
        let kept = self
            .actions
            .iter()
            .enumerate()
            .filter(|(place, (_, action))| matches!(action, Action::Heal | Action::Cure) || keeps(*place));
        Self { actions: kept.map(|(_, action)| action.clone()).collect(), ..self.clone() }
    }
}
