//! Drills with keys: lines that grow, lose their heads or are full, and retries at every moment of a message's life.

use super::{D0, D1, Plan, SPAN, slow, stall, well};
use crate::ambush::{Blow, Site};
use crate::faults::Rates;
use crate::history::{Action, Listener, Thread};
use crate::keys::{DeadHead, Inject, KeyRules, Order};
use crate::message::Destination;
use crate::retries::{Pick, Twist};
use crate::rules::Source;
use crate::town::Mood;
use std::time::Duration;

/// One history in so many begins with one of these drills: those of [`REMAINDER`], unless they have another one.
const EVERY: u64 = 16;
const REMAINDER: u64 = 4;

/// All of them. The order decides which seed has which.
const DRILLS: [fn(&mut Plan); 10] = [
    long_line,
    crowded_line,
    rejected_head,
    line_that_expires,
    retries_throughout,
    end_of_memory,
    full_line,
    retries_at_once,
    lines_side_by_side,
    lost_hints,
];

/// Longer than any dead letter is kept, in milliseconds, and what a message may live meanwhile.
const LETTERS_GO: i64 = 169 * 3_600_000;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The drill of this seed, if it has one.
pub(super) fn chosen(seed: u64) -> Option<fn(&mut Plan)> {
    (seed % EVERY == REMAINDER).then(|| DRILLS[(seed / EVERY) as usize % DRILLS.len()])
}

impl Plan {
    fn ordered(&mut self, dead_head: DeadHead, ordering_keys: u32) {
        self.rules.keys = KeyRules { order: Order::ByKey(dead_head), ordering_keys, ..KeyRules::default() };
    }

    fn any_dead_head(&mut self) -> DeadHead {
        if self.random.bool() { DeadHead::Release } else { DeadHead::Block }
    }

    /// So many retries, one each `every` milliseconds; two of three are what they say they are.
    fn retry(&mut self, pick: Pick, from: u64, count: u64, every: u64) {
        for n in 0..count {
            let twist = match self.random.u32(..3) {
                0 => Twist::ALL[self.random.usize(..Twist::ALL.len())],
                _ => Twist::None,
            };
            let (which, worker) = (self.random.u32(..), self.random.u32(..64));
            let action = Action::Retry { pick, which, twist, worker, listener: Listener::Newest };
            self.then(from + n * every, action);
        }
    }

    fn turns(&mut self, turn: u32) {
        self.then(0, Action::Rates(Rates { turn, ..Rates::default() }));
    }
}

/// One key has a long line, its leader dies while it drains, and new requests of the key keep coming.
fn long_line(plan: &mut Plan) {
    let dead_head = plan.any_dead_head();
    plan.ordered(dead_head, 1);
    plan.rules.timeout = Duration::from_secs(1);
    let (pace, dead) = (plan.between(10, 60), plan.between(8_500, 11_000));
    plan.outage(D0, 1_000, 8_000, well(pace));
    plan.send(D0, 1_500, 90, 60);
    plan.send(D0, 8_000, 120, 150);
    plan.then(dead, Action::Doom(Thread::Leader(D0)));
    plan.then(26_000, Action::Mood(D0, Mood::WELL));
    // And once more, with nobody dying.
    plan.outage(D0, 40_000, 43_000, Mood::WELL);
    plan.send(D0, 40_200, 60, 40);
}

/// Many VMs store messages of one key at the same moment, and some stand still or die in the middle of it.
fn crowded_line(plan: &mut Plan) {
    plan.workers = 7;
    let dead_head = plan.any_dead_head();
    plan.ordered(dead_head, 1);
    plan.turns(300_000);
    plan.outage(D0, 1_000, 30_000, Mood::WELL);
    for burst in 0..12 {
        let from = 1_500 + burst * 2_000;
        plan.send(D0, from, 7, 0);
        let blow = match plan.random.u32(..4) {
            0 => Blow::Trap,
            1 => Blow::TrapAfter,
            _ => stall(900),
        };
        let site = if plan.random.bool() { Site::LargeWrite } else { Site::HeadWrite };
        plan.ambush(from, site, 1, blow);
        plan.send(D0, from + 1_200, 3, 100);
    }
}

/// The first of a line is rejected; the others go on, or wait until the dead letter is gone. New ones keep coming.
fn rejected_head(plan: &mut Plan) {
    let dead_head = plan.any_dead_head();
    plan.ordered(dead_head, 2);
    plan.rules.ttl = YEAR;
    plan.outage(D0, 1_000, 5_000, Mood::Says(404));
    plan.send(D0, 1_500, 20, 100);
    let well_again = plan.between(5_000, 6_500);
    plan.then(well_again, Action::Mood(D0, Mood::WELL));
    plan.send(D0, 7_000, 40, 200);
    let gone = plan.between(20_000, 25_000);
    plan.then(gone, Action::Jump(LETTERS_GO));
    plan.send(D0, 30_000, 40, 200);
}

/// A line grows too old to be sent while its head is out, to a receiver that takes its time; then new messages come, which
/// find that the last of the line has ended, if it did so out of turn. Later a line expires with nothing out.
fn line_that_expires(plan: &mut Plan) {
    plan.ordered(DeadHead::Release, 1);
    plan.rules.ttl = Duration::from_secs(20);
    plan.rules.window = (1, 1);
    plan.rules.source = Source::HealthCheckFilter;
    plan.rules.holds_while_down = false;
    let back = plan.between(17_500, 20_500);
    plan.outage(D0, 1_000, back, slow(5_900));
    plan.send(D0, 1_500, 8, 100);
    plan.send(D0, 22_500, 20, 100);
    plan.then(30_000, Action::Mood(D0, Mood::WELL));
    plan.outage(D0, 32_000, 54_000, Mood::WELL);
    plan.send(D0, 32_500, 100, 250);
}

/// Retries while a message waits, while it is out, and after it has arrived.
fn retries_throughout(plan: &mut Plan) {
    plan.rules.keys.inject = if plan.random.bool() { Inject::On } else { Inject::Off };
    let back = plan.between(8_000, 12_000);
    plan.outage(D0, 1_000, back, slow(2_500));
    plan.send(D0, 1_500, 60, 60);
    plan.retry(Pick::Stored, 5_200, 25, 100);
    plan.retry(Pick::Out, back + 1_000, 30, 100);
    plan.ambush(back + 2_000, Site::Answer, 1, Blow::TrapAfter);
    plan.then(back + 6_000, Action::Mood(D0, Mood::WELL));
    plan.retry(Pick::Delivered, back + 8_000, 30, 200);
    plan.retry(Pick::Any, back + 16_000, 30, 500);
}

/// Retries of deliveries that are nearly forgotten, and of those that are.
fn end_of_memory(plan: &mut Plan) {
    plan.outage(D0, 1_000, 4_000, Mood::WELL);
    plan.send(D0, 1_500, 60, 40);
    plan.retry(Pick::Delivered, 9_000, 10, 100);
    plan.then(12_000, Action::Jump(120_000));
    plan.retry(Pick::Delivered, 13_000, 10, 100);
    plan.then(20_000, Action::Jump(3_430_000));
    plan.retry(Pick::Delivered, 21_000, 20, 100);
    plan.then(25_000, Action::Jump(60_000));
    plan.retry(Pick::Delivered, 26_000, 20, 100);
}

/// A store that has no room for all that must wait: who cannot be stored must not overtake either.
fn full_line(plan: &mut Plan) {
    let dead_head = plan.any_dead_head();
    plan.ordered(dead_head, 1);
    plan.rules.messages_max = 5;
    plan.rules.holds_while_down = false;
    // The receiver takes live requests while it redelivers slowly.
    plan.outage(D0, 1_000, 4_000, slow(900));
    plan.send(D0, 1_500, 80, 100);
    plan.then(12_000, Action::Mood(D0, Mood::WELL));
    plan.outage(D0, 20_000, 23_000, slow(900));
    plan.send(D0, 20_500, 80, 100);
    plan.then(32_000, Action::Mood(D0, Mood::WELL));
}

/// A message and its retry are stored at the same moment by two VMs, one of which stands still or dies.
fn retries_at_once(plan: &mut Plan) {
    plan.workers = 7;
    plan.turns(300_000);
    // What is cut off may have been processed: only messages with a key are stored then.
    plan.then(1_000, Action::Mood(D0, slow(400)));
    for burst in 0..14 {
        let from = 1_500 + burst * 2_500;
        plan.send(D0, from, 12, 0);
        for n in 0..8 {
            let (which, worker) = (plan.random.u32(..), plan.random.u32(..64));
            let pick = if n < 4 { Pick::Open } else { Pick::Any };
            let action = Action::Retry { pick, which, twist: Twist::None, worker, listener: Listener::Newest };
            plan.then(from + 2 + n % 3, action);
        }
        plan.then(from + 100, Action::Mood(D0, Mood::Refusing));
        plan.then(from + 1_200, Action::Mood(D0, slow(400)));
        let blow = match plan.random.u32(..4) {
            0 => Blow::Trap,
            1 => Blow::TrapAfter,
            _ => stall(900),
        };
        plan.ambush(from + 100, Site::LargeWrite, 1, blow);
        plan.send(D0, from + 300, 6, 0);
        plan.retry(Pick::Open, from + 301, 6, 0);
        plan.retry(Pick::Any, from + 500, 6, 50);
    }
    plan.then(SPAN - 10_000, Action::Mood(D0, Mood::WELL));
}

/// The same keys at two destinations, one of which is away; and requests without a key beside them.
fn lines_side_by_side(plan: &mut Plan) {
    let dead_head = plan.any_dead_head();
    plan.ordered(dead_head, 3);
    plan.rules.holds_while_down = false;
    plan.rules.destinations = plan.rules.destinations.max(2);
    plan.outage(D0, 15_000, 35_000, Mood::WELL);
    for destination in [D0, D1] {
        plan.send(destination, 14_000, 150, 150);
    }
    let others = (2..plan.rules.destinations).map(Destination);
    for destination in others.collect::<Vec<_>>() {
        plan.send(destination, 16_000, 20, 300);
    }
}

/// Half of the hints are lost, and so many messages wait for another destination that the sweep needs several ticks for
/// all: a leader hears of the second of a line, which is due at once, before it has seen the first.
fn lost_hints(plan: &mut Plan) {
    plan.ordered(DeadHead::Release, 4);
    plan.rules.destinations = plan.rules.destinations.max(2);
    plan.rules.holds_while_down = false;
    plan.rules.window = (5, 64);
    plan.then(0, Action::Rates(Rates { turn: 50_000, lost_hint: 500_000, ..Rates::default() }));
    plan.outage(D1, 1_000, SPAN - 8_000, Mood::WELL);
    plan.send(D1, 1_500, 450, 8);
    for turn in 0..30 {
        let from = 6_000 + turn * 1_500;
        plan.then(from, Action::Mood(D0, Mood::Says(503)));
        plan.then(from + 250, Action::Mood(D0, Mood::WELL));
        plan.send(D0, from, 12, 45);
    }
}
