//! Drills about receivers and configurations (see [`crate::drills`]): what chance would seldom put together.

use super::Receiving;
use super::through::{Through, Whose};
use crate::drills::{Plan, SPAN, well};
use crate::history::{Action, Configuration};
use crate::message::Destination;
use crate::rules::Rules;
use crate::town::Mood;
use simvoy::Chain;
use std::time::Duration;

const D0: Destination = Destination(0);

/// Each drill is one of so many histories that have anything of this.
const PLACES: usize = 15;

/// What takes more luck stands here more than once.
const DRILLS: [fn(&mut Plan); 12] = [
    saved_rate,
    beside_live,
    parked_then_pushed,
    few_at_a_time,
    bug_of_one_kind,
    calls_that_wait,
    calls_that_wait,
    calls_that_wait,
    between_neighbours,
    between_neighbours,
    moments_in_other_months,
    few_at_a_time_by_way_of_a_listener,
];

/// The drill of this seed, if it has one.
#[must_use]
pub fn chosen(seed: u64) -> Option<fn(&mut Plan)> {
    if Receiving::of(seed) == Receiving::default() {
        return None;
    }
    let place = fastrand::Rng::with_seed(seed ^ 0x6472_696c_6c73).usize(..PLACES);
    DRILLS.get(place).copied()
}

/// A rate, and a backlog from a long outage: what was not sent meanwhile must not come in one moment.
fn saved_rate(plan: &mut Plan) {
    plan.rules.receiving = Receiving { rate: 10, ..Receiving::default() };
    plan.rules.window = (20, 64);
    let back = plan.between(15_000, 25_000);
    plan.outage(D0, 1_000, back, Mood::WELL);
    plan.send(D0, 2_000, 120, 100);
}

/// A backlog for a receiver that takes its time, and serves others meanwhile.
fn beside_live(plan: &mut Plan) {
    plan.rules = Rules { timeout: Duration::from_secs(3), window: (5, 64), ..plan.rules.clone() };
    let back = plan.between(5_000, 7_000);
    plan.outage(D0, 1_000, back, well(600));
    plan.send(D0, 1_500, 150, 20);
    plan.send(D0, back + 200, 400, 100);
    plan.then(SPAN - 5_000, Action::Mood(D0, Mood::WELL));
}

/// A receiver takes a few at a time, and there is much for it.
fn few_at_a_time(plan: &mut Plan) {
    plan.rules.receiving = Receiving::default();
    plan.rules.window = (if plan.random.bool() { 1 } else { 5 }, 64);
    plan.workers = [1, 3, 7][plan.random.usize(..3)];
    let (most, span) = ([6, 8, 12][plan.random.usize(..3)], plan.between(180, 300));
    plan.outage(D0, 1_000, 14_000, Mood::Takes(most, Duration::from_millis(span)));
    plan.send(D0, 1_200, 1_200, 10);
    plan.then(SPAN - 5_000, Action::Mood(D0, Mood::WELL));
}

/// The same, and the filter sees its redeliveries come by.
fn few_at_a_time_by_way_of_a_listener(plan: &mut Plan) {
    few_at_a_time(plan);
    plan.rules.receiving.through = Some(Through { whose: Whose::All, chain: Chain::Plugin });
}

/// A receiver fails messages of one kind, and takes all others.
fn bug_of_one_kind(plan: &mut Plan) {
    plan.rules.receiving = Receiving::default();
    plan.rules.window = (8, 64);
    let span = Duration::from_millis(plan.between(600, 900));
    plan.outage(D0, 1_000, 8_000, Mood::Picky(2, span));
    plan.send(D0, 1_200, 650, 10);
    plan.then(SPAN - 5_000, Action::Mood(D0, Mood::WELL));
}

/// Calls whose receiver is busy, and says for how long beside its status.
fn calls_that_wait(plan: &mut Plan) {
    plan.rules.receiving = Receiving { grpc: true, asks: true, ..Receiving::default() };
    plan.outage(D0, 1_000, 4_000, Mood::Says(503));
    plan.send(D0, 1_500, 20, 100);
    plan.then(30_000, Action::Mood(D0, Mood::WELL));
}

/// A filter before us and one behind us, and a receiver that is busy now and then: custody goes back and forth.
fn between_neighbours(plan: &mut Plan) {
    let grpc = plan.random.bool();
    plan.rules.receiving =
        Receiving { trusts_senders: true, trusts_receivers: true, grpc, asks: grpc, ..Receiving::default() };
    (plan.rules.retries, plan.rules.answers_202) = (0, plan.random.bool());
    for turn in 0..4 {
        let from = 1_000 + turn * 12_000;
        let status = [503, 503, 500][plan.random.usize(..3)];
        plan.outage(D0, from, from + 3_000, Mood::Says(status));
        plan.send(D0, from + 500, 40, 150);
        plan.then(from + 8_000, Action::Mood(D0, Mood::WELL));
    }
}

/// A receiver that names moments, at another time of the year than that at which histories begin (January).
fn moments_in_other_months(plan: &mut Plan) {
    const DAY: i64 = 24 * 3_600_000;
    plan.rules.receiving = Receiving { asks: true, ..Receiving::default() };
    let days = plan.random.i64(40..330);
    plan.then(500, Action::Jump(days * DAY));
    plan.outage(D0, 1_000, 4_000, Mood::Says(503));
    plan.send(D0, 1_500, 20, 100);
    plan.then(30_000, Action::Mood(D0, Mood::WELL));
}

/// Messages are parked, and another configuration comes.
fn parked_then_pushed(plan: &mut Plan) {
    plan.rules.receiving = Receiving { parks: true, ..Receiving::default() };
    let status = [401, 403][plan.random.usize(..2)];
    plan.outage(D0, 1_000, 4_000, Mood::Says(status));
    plan.send(D0, 1_500, 12, 100);
    let pushed = plan.between(10_000, 14_000);
    plan.then(pushed, Action::Push(Configuration::Slower));
}
