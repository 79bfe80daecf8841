//! Drills: histories that begin with one rare constellation on purpose, a few moments of chance in it, and go on as any
//! other.
//!
//! The random histories find what a few independent faults can bring about. A bug that needs five things in the right
//! order (a leader that dies while its one attempt hangs in a high slot, and low slots that fall due meanwhile) would take
//! them a hundred thousand seeds. Who has thought of such an order writes it down here; chance does the rest.

mod keys;

use crate::ambush::{Ambush, Blow, Site};
use crate::faults::Rates;
use crate::history::{Action, Configuration, Damage, HealthView, Leaving, Listener, Thread};
use crate::message::Destination;
use crate::receiving;
use crate::rules::{Form, Mode, Rules, Source};
use crate::slots::RecordState;
use crate::town::{Mood, SourceMood};
use simvoy::REQUESTS_MAX;
use std::time::Duration;

/// One history in so many begins with one of these drills; [`keys`] has others, for other seeds.
const EVERY: u64 = 8;
/// How long a drill lasts, in milliseconds; what the history has beside it comes later.
pub const SPAN: u64 = 60_000;

const D0: Destination = Destination(0);
const D1: Destination = Destination(1);

/// All drills. The order decides which seed has which.
const DRILLS: [fn(&mut Plan); 10] = [
    last_stand,
    takeover,
    late_leader,
    hanging_neighbour,
    long_failure,
    overtaken_store,
    old_answer,
    old_hint,
    crowd,
    standstills,
];

/// The beginning of a history.
pub struct Plan {
    /// Worker threads.
    pub workers: u32,
    /// Its configuration, with what the drill needs.
    pub rules: Rules,
    /// What happens, by milliseconds.
    pub actions: Vec<(u64, Action)>,
    pub(crate) random: fastrand::Rng,
}

/// Whether the history of this seed begins with a drill.
#[must_use]
pub fn has_one(seed: u64) -> bool {
    chosen(seed).is_some()
}

/// One of those above, or of those that are about receivers or about keys.
fn chosen(seed: u64) -> Option<fn(&mut Plan)> {
    if seed % EVERY == EVERY - 1 {
        return Some(DRILLS[(seed / EVERY) as usize % DRILLS.len()]);
    }
    receiving::drills::chosen(seed).or_else(|| keys::chosen(seed))
}

/// The drill of this seed, if it has one; `rules` are those that the history would have without it.
#[must_use]
pub fn of(seed: u64, rules: &Rules) -> Option<Plan> {
    let drill = chosen(seed)?;
    let mut plan = Plan {
        workers: 3,
        rules: Rules {
            messages_max: 10_000,
            bytes_max: 64 << 20,
            ttl: Duration::from_secs(24 * 3_600),
            timeout: Duration::from_secs(6),
            attempts_max: 20,
            backoff_max: Duration::from_secs(2),
            stable_for: Duration::ZERO,
            ..rules.clone()
        },
        actions: Vec::new(),
        random: fastrand::Rng::with_seed(seed ^ 0x6472_696c),
    };
    // Poison would only hide what a drill is about.
    plan.then(0, Action::Cure);
    plan.then(0, Action::Rates(Rates { turn: 50_000, ..Rates::default() }));
    drill(&mut plan);
    plan.rules = plan.rules.settled();
    Some(plan)
}

impl Plan {
    pub(crate) fn then(&mut self, at: u64, action: Action) {
        self.actions.push((at, action));
    }

    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.random.u64(from..to)
    }

    /// A destination is away, and Envoy knows; then it is back, in this mood.
    pub(crate) fn outage(&mut self, destination: Destination, from: u64, to: u64, mood: Mood) {
        self.then(from, Action::Mood(destination, Mood::Refusing));
        self.then(from, Action::Health(destination, HealthView::Unhealthy));
        self.then(to, Action::Mood(destination, mood));
        self.then(to, Action::Health(destination, HealthView::Healthy));
    }

    pub(crate) fn send(&mut self, destination: Destination, from: u64, count: u64, every: u64) {
        for n in 0..count {
            let worker = self.random.u32(..64);
            self.then(from + n * every, Action::Send { destination, worker, listener: Listener::Newest });
        }
    }

    fn ambush(&mut self, at: u64, site: Site, times: u32, blow: Blow) {
        self.then(at, Action::Ambush(Ambush { site, skip: 0, times, blow }));
    }
}

fn slow(millis: u64) -> Mood {
    Mood::Slow(Duration::from_millis(millis))
}

pub(crate) fn well(millis: u64) -> Mood {
    Mood::Well(Duration::from_millis(millis))
}

fn stall(millis: u64) -> Blow {
    Blow::Stall(Duration::from_millis(millis))
}

/// A backlog, no worker left, and nobody who sends: the main thread's VM must see it through.
fn last_stand(plan: &mut Plan) {
    plan.rules.timeout = Duration::from_secs(1);
    let (dead, back) = (plan.between(9_000, 12_000), plan.between(12_000, 16_000));
    plan.outage(D0, 1_000, back, Mood::WELL);
    plan.send(D0, 2_000, 30, 200);
    plan.then(dead, Action::DoomWorkers);
}

/// The leader dies while its attempts hang in high slots, and low slots fall due before its successor has seen them all.
fn takeover(plan: &mut Plan) {
    plan.rules.window = [(1, 1), (1, 2)][plan.random.usize(..2)];
    plan.rules.backoff_initial = Duration::from_millis(500);
    plan.outage(D0, 1_000, 6_000, Mood::Says(500));
    plan.send(D0, 1_500, 500, 8);
    // Failing rounds through all of them, and the hang somewhere in one.
    let hang = plan.between(8_500, 11_500);
    plan.then(hang, Action::Mood(D0, slow(5_900)));
    let dead = hang + plan.between(100, 1_500);
    plan.then(dead, Action::Doom(Thread::Leader(D0)));
    plan.then(hang + 12_000, Action::Mood(D0, Mood::WELL));
}

/// The leader's ticks are late, so it loses its lease; but answers still reach it. Its successor looks at a hundred slots
/// at a time: what it may not send beside shows when the other's attempts have gone on to the next hundred.
fn late_leader(plan: &mut Plan) {
    plan.rules.window = (1, 1);
    let (pace, late) = (plan.between(50, 80), plan.between(1_000, 3_000));
    plan.outage(D0, 1_000, 8_000, well(pace));
    plan.send(D0, 1_500, 300, 20);
    plan.then(8_000 + late, Action::LateTicks(Thread::Leader(D0), Duration::from_millis(8_500)));
}

/// One destination never answers, another has a long backlog: it must not wait for the first.
fn hanging_neighbour(plan: &mut Plan) {
    plan.workers = 1;
    plan.rules.destinations = plan.rules.destinations.max(2);
    plan.rules.window = (1, 64);
    plan.rules.timeout = Duration::from_secs(1);
    let pace = plan.between(200, 300);
    plan.outage(D0, 1_000, 5_000, Mood::Hanging);
    plan.outage(D1, 1_000, 5_000, well(pace));
    plan.send(D0, 1_500, 20, 100);
    plan.send(D1, 1_500, 220, 15);
    plan.then(SPAN - 10_000, Action::Mood(D0, Mood::WELL));
}

/// A message that fails often, at the edge of what a backoff can be.
fn long_failure(plan: &mut Plan) {
    plan.rules.backoff_initial = Duration::from_millis(200);
    plan.rules.backoff_max = Duration::from_secs(10);
    let status = [500, 501, 502, 408][plan.random.usize(..4)];
    plan.outage(D0, 1_000, 4_000, Mood::Says(status));
    plan.send(D0, 1_500, 8, 100);
    plan.then(SPAN - 5_000, Action::Mood(D0, Mood::WELL));
}

/// A VM stands still in the middle of a store until its slot is given up, and goes on while another VM fills it.
fn overtaken_store(plan: &mut Plan) {
    plan.workers = 7;
    plan.outage(D0, 1_000, 40_000, Mood::WELL);
    plan.send(D0, 2_000, 260, 50);
    let begin = plan.between(2_100, 2_400);
    let wakes = plan.between(10_300, 11_000);
    plan.ambush(begin, Site::LargeWrite, 1, stall(wakes));
    let overtakes = plan.between(1_000, 2_000);
    plan.ambush(begin + 9_900, Site::LargeWrite, 5, stall(overtakes));
}

/// A VM stands still over a failure's answer until its attempt is given up, and settles it while another VM's is out; that
/// one dies, and a third takes over.
fn old_answer(plan: &mut Plan) {
    plan.rules.source = Source::Passive;
    plan.rules.backoff_initial = Duration::from_millis(200);
    plan.outage(D0, 1_000, 5_000, Mood::Says(500));
    plan.send(D0, 2_000, 3, 100);
    let (pause, dead) = (plan.between(8_200, 9_500), plan.between(14_000, 17_000));
    plan.ambush(5_000, Site::Answer, 1, stall(pause));
    plan.then(9_000, Action::Mood(D0, slow(5_900)));
    plan.then(dead, Action::Doom(Thread::Leader(D0)));
    plan.then(30_000, Action::Mood(D0, Mood::WELL));
}

/// A VM stands still between a message and its hint until the slot has another one.
fn old_hint(plan: &mut Plan) {
    plan.rules.destinations = plan.rules.destinations.max(2);
    // A claim that nobody can settle is a failed attempt when its lease is over: here it would end its message.
    plan.rules.attempts_max = 1;
    let begin = plan.between(1_500, 3_000);
    let pause = plan.between(6_500, 12_000);
    plan.ambush(begin, Site::Hint, 1, stall(pause));
    plan.outage(D0, 1_000, 3_500, Mood::WELL);
    plan.send(D0, begin + 50, 5, 100);
    // The next ones take its slot, and wait for another destination.
    plan.outage(D1, begin + 5_000, begin + pause + 3_000, Mood::WELL);
    plan.send(D1, begin + 5_100, 12, 100);
}

/// Many VMs that all want the last places of a small store, for two destinations: each has books of its own too.
fn crowd(plan: &mut Plan) {
    plan.workers = 7;
    plan.rules.destinations = plan.rules.destinations.max(2);
    plan.rules.messages_max = 5;
    plan.then(0, Action::Rates(Rates { turn: 300_000, ..Rates::default() }));
    for turn in 0..8 {
        let from = 1_000 + turn * 6_000;
        plan.outage(D0, from, from + 2_000, Mood::WELL);
        plan.outage(D1, from, from + 2_000, Mood::WELL);
        for burst in 0..4 {
            plan.send(D0, from + 300 + burst * 400, 7, 0);
            plan.send(D1, from + 300 + burst * 400, 7, 0);
        }
    }
}

/// Threads stand still, or die, in the middle of a store, and everything else goes wrong meanwhile.
fn standstills(plan: &mut Plan) {
    const PERIOD: u64 = 4_000;
    plan.rules.form = Form::Routed;
    plan.rules.mode = Mode::Hold;
    plan.rules.holds_while_down = false;
    plan.outage(D0, 500, 45_000, Mood::WELL);
    plan.send(D0, 1_000, 280, 200);
    // What was damaged is judged less strictly afterwards: half of these histories have none of it.
    let troubles = if plan.random.bool() { TROUBLES } else { TROUBLES_OF_MEMORY };
    for turn in 0..14 {
        let begin = 1_000 + turn * PERIOD;
        let (site, state) = match plan.random.bool() {
            true => (Site::LargeWrite, RecordState::Filling),
            false => (Site::RoutedForm, RecordState::Opening),
        };
        let blow = match plan.random.u32(..8) {
            0 => Blow::Trap,
            1 => Blow::TrapAfter,
            2 => stall(900),
            _ => stall(3_500),
        };
        plan.ambush(begin, site, 1, blow);
        for _ in 0..5 {
            let at = begin + plan.between(500, 3_000);
            let trouble = plan.random.u32(..troubles);
            let trouble = self::trouble(plan, trouble, state);
            plan.then(at, trouble);
        }
    }
    let wide = (0..plan.rules.destinations).map(|n| Action::Breaker(Destination(n), REQUESTS_MAX));
    plan.actions.extend(wide.map(|action| (SPAN - 1_000, action)));
    plan.then(SPAN - 1_000, Action::Source(SourceMood::Honest));
    plan.then(SPAN - 1_000, Action::Leaving(Leaving::No));
    plan.then(SPAN - 1_000, Action::Restore(D0));
}

/// Kinds of trouble, and how many with those that damage memory.
const TROUBLES: u32 = 10;
const TROUBLES_OF_MEMORY: u32 = 16;

/// Anything from outside that does not end the outage for long; damage is aimed at records in `state`.
fn trouble(plan: &mut Plan, kind: u32, state: RecordState) -> Action {
    let which = plan.random.u32(..);
    let aimed = Damage::aimed(state, which);
    match kind {
        0 => Action::Push(Configuration::Slower),
        1 => Action::Jump([10_000, -10_000, 3_600_000, -3_600_000][which as usize % 4]),
        2 => Action::Health(D0, HealthView::Unhealthy),
        3 => Action::Mood(D0, Mood::Refusing),
        4 => Action::Remove(Destination(plan.rules.destinations - 1)),
        5 => Action::Restore(Destination(plan.rules.destinations - 1)),
        6 => Action::Breaker(D0, 1 + which % 3),
        7 => Action::Leaving(if which.is_multiple_of(2) { Leaving::Yes } else { Leaving::No }),
        8 => Action::Source(if which.is_multiple_of(2) { SourceMood::Silent } else { SourceMood::Gloomy }),
        9 => Action::LateTicks(Thread::Number(which), Duration::from_millis(2_000)),
        10 => Action::Damage(Damage::FlipLarge(aimed)),
        11 => Action::Damage(Damage::FlipHead(aimed)),
        12 | 13 => Action::Damage(Damage::CutLarge(aimed)),
        _ => Action::Damage(Damage::Swap(aimed)),
    }
}
