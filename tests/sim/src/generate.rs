//! From a seed to a history.
//!
//! | | safety | liveness |
//! | --- | --- | --- |
//! | simulated | 2 minutes | 4 minutes of faults, then 6.5 minutes without any |
//! | messages | 1 to 6 a second | 1 to 3 a second |
//! | faults | at least 20 planned, and those at host calls | the same |
//!
//! Each seed turns whole kinds of faults on or off ("swarm"): a history with few kinds reaches deeper than one with all.

use crate::faults::Rates;
use crate::history::{Action, Configuration, Damage, HealthView, History, Leaving, Listener, Phase};
use crate::message::Destination;
use crate::rules::Rules;
use crate::town::Mood;
use simvoy::Moment;
use std::time::Duration;

/// Histories begin so long after the clock does, when all VMs are configured.
pub const BEGIN: Moment = Moment::millis(3_601_000);
const SAFETY_SPAN: u64 = 120_000;
const LIVENESS_FAULTS: u64 = 240_000;
/// A request without a body whose VM died before its log is given up after five minutes (OPENING_MAX); everything else
/// ends sooner.
const LIVENESS_CALM: u64 = 390_000;

/// The kinds of faults that this history has.
struct Swarm {
    outages: bool,
    lies: bool,
    traps: bool,
    stalls: bool,
    memory: bool,
    damage: bool,
    pushes: bool,
    clocks: bool,
    clusters: bool,
    threads: bool,
}

impl Swarm {
    fn random(random: &mut fastrand::Rng) -> Self {
        let mut one_in = |n: u32| random.u32(..n) == 0;
        Self {
            outages: !one_in(10),
            lies: one_in(3),
            traps: one_in(2),
            stalls: one_in(3),
            memory: one_in(2),
            damage: one_in(4),
            pushes: one_in(3),
            clocks: one_in(4),
            clusters: one_in(4),
            threads: !one_in(4),
        }
    }
}

/// The history of `seed`.
#[must_use]
pub fn history(seed: u64, phase: Phase) -> History {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(2).wrapping_add(u64::from(phase == Phase::Liveness)));
    let swarm = Swarm::random(&mut random);
    let rules = Rules::random(&mut random);
    let workers = [1, 2, 2, 3, 3, 7][random.usize(..6)];
    let span = match phase {
        Phase::Safety => SAFETY_SPAN,
        Phase::Liveness => LIVENESS_FAULTS,
    };
    let mut actions = traffic(&mut random, &rules, span, phase);
    actions.extend(faults(&mut random, &swarm, &rules, span));
    actions.push((0, Action::Rates(rates(&mut random, &swarm))));
    let end = match phase {
        Phase::Safety => span,
        Phase::Liveness => {
            actions.push((span, Action::Heal));
            span + LIVENESS_CALM
        }
    };
    actions.sort_by_key(|(at, _)| *at);
    let at = |millis: u64| Moment(BEGIN.0 + Moment::millis(millis).0);
    History {
        seed,
        phase,
        workers,
        rules,
        drain_time: Duration::from_secs([5, 20, 600][random.usize(..3)]),
        end: at(end),
        actions: actions.into_iter().map(|(millis, action)| (at(millis), action)).collect(),
    }
}

fn any_destination(random: &mut fastrand::Rng, rules: &Rules) -> Destination {
    Destination(random.u8(..rules.destinations))
}

/// Messages: a steady stream, and bursts.
fn traffic(random: &mut fastrand::Rng, rules: &Rules, span: u64, phase: Phase) -> Vec<(u64, Action)> {
    let per_second = match phase {
        Phase::Safety => random.u64(1..6),
        Phase::Liveness => random.u64(1..3),
    };
    let mut actions = Vec::new();
    let mut at = 0;
    while at < span {
        at += random.u64(..2_000 / per_second);
        let burst = if random.u32(..30) == 0 { random.u64(2..20) } else { 1 };
        for place in 0..burst {
            let listener = if random.u32(..4) == 0 { Listener::Draining } else { Listener::Newest };
            let destination = any_destination(random, rules);
            actions.push((at + place, Action::Send { destination, worker: random.u32(..64), listener }));
        }
    }
    actions.retain(|(at, _)| *at < span);
    actions
}

fn faults(random: &mut fastrand::Rng, swarm: &Swarm, rules: &Rules, span: u64) -> Vec<(u64, Action)> {
    let mut actions = Vec::new();
    let count = random.u64(20..40) * span / SAFETY_SPAN;
    for _ in 0..count {
        let at = random.u64(..span);
        let destination = any_destination(random, rules);
        actions.extend(fault(random, swarm, destination, at));
    }
    actions
}

/// One fault, with its end if it has one.
fn fault(random: &mut fastrand::Rng, swarm: &Swarm, destination: Destination, at: u64) -> Vec<(u64, Action)> {
    let length = [random.u64(100..2_000), random.u64(1_000..10_000), random.u64(5_000..60_000)][random.usize(..3)];
    let end = at + length;
    let which = random.u32(..16);
    match which {
        0 if swarm.pushes => vec![(at, Action::Push(configuration(random)))],
        1 if swarm.clocks => vec![(at, Action::Jump(jump(random)))],
        2..4 if swarm.damage => vec![(at, Action::Damage(damage(random)))],
        4 if swarm.clusters => cluster_fault(random, destination, at, end),
        5..7 if swarm.threads && swarm.traps => vec![(at, Action::Doom(random.u32(..64)))],
        7 if swarm.threads && swarm.stalls => {
            vec![(at, Action::Freeze(random.u32(..64), Duration::from_millis(random.u64(500..20_000))))]
        }
        8..10 if swarm.lies => {
            let (first, then) = (HealthView::Unhealthy, HealthView::Healthy);
            vec![(at, Action::Health(destination, first)), (end, Action::Health(destination, then))]
        }
        _ if swarm.outages => outage(random, swarm, destination, at, end),
        _ => vec![(at, Action::Mood(destination, mood(random))), (end, Action::Mood(destination, well()))],
    }
}

fn well() -> Mood {
    Mood::Well(Duration::from_millis(5))
}

fn mood(random: &mut fastrand::Rng) -> Mood {
    const STATUSES: [u16; 12] = [503, 503, 500, 429, 502, 504, 404, 409, 301, 401, 408, 425];
    match random.u32(..14) {
        0..3 => Mood::Refusing,
        3 => Mood::Hanging,
        4 => Mood::Slow(Duration::from_millis(random.u64(500..12_000))),
        5..7 => Mood::Says(STATUSES[random.usize(..STATUSES.len())]),
        7 => Mood::Cutting,
        8 => Mood::CuttingAfter,
        9 => Mood::Garbage,
        10 => Mood::Hasty,
        _ => Mood::Flaky,
    }
}

/// A receiver is away, and Envoy notices after a while, or never.
fn outage(
    random: &mut fastrand::Rng,
    swarm: &Swarm,
    destination: Destination,
    at: u64,
    end: u64,
) -> Vec<(u64, Action)> {
    let mut actions = vec![(at, Action::Mood(destination, mood(random))), (end, Action::Mood(destination, well()))];
    if random.u32(..4) > 0 {
        let (noticed, forgiven) = (at + random.u64(..1_500), end + random.u64(..1_500));
        actions.push((noticed, Action::Health(destination, HealthView::Unhealthy)));
        actions.push((forgiven, Action::Health(destination, HealthView::Healthy)));
        if swarm.lies && random.bool() {
            let middle = random.u64(noticed..=forgiven.max(noticed));
            actions.push((middle, Action::Health(destination, HealthView::Healthy)));
        }
    }
    actions
}

fn cluster_fault(random: &mut fastrand::Rng, destination: Destination, at: u64, end: u64) -> Vec<(u64, Action)> {
    match random.u32(..4) {
        0 => vec![(at, Action::Remove(destination)), (end, Action::Restore(destination))],
        1 => vec![(at, Action::Leaving(Leaving::Yes)), (end, Action::Leaving(Leaving::No))],
        _ => vec![(at, Action::Breaker(destination, random.u32(1..4))), (end, Action::Breaker(destination, 1_024))],
    }
}

fn configuration(random: &mut fastrand::Rng) -> Configuration {
    match random.u32(..6) {
        0..2 => Configuration::Own,
        2..4 => Configuration::Slower,
        4 => Configuration::Smaller,
        _ => Configuration::Faulty,
    }
}

fn jump(random: &mut fastrand::Rng) -> i64 {
    const HOUR: i64 = 3_600_000;
    let far = [10_000, HOUR, 23 * HOUR, 10 * 24 * HOUR, 10 * 365 * 24 * HOUR][random.usize(..5)];
    if random.bool() { far } else { -far }
}

fn damage(random: &mut fastrand::Rng) -> Damage {
    let which = random.u32(..);
    match random.u32(..8) {
        0..2 => Damage::FlipHead(which),
        2..4 => Damage::FlipLarge(which),
        4 => Damage::CutHead(which),
        5 => Damage::CutLarge(which),
        6 => Damage::Swap(which),
        _ => Damage::FlipCell(which),
    }
}

fn rates(random: &mut fastrand::Rng, swarm: &Swarm) -> Rates {
    let mut one_of = |values: [u32; 3]| values[random.usize(..3)];
    Rates {
        turn: one_of([0, 10_000, 100_000]),
        trap: if swarm.traps { one_of([5, 20, 100]) } else { 0 },
        trap_after: if swarm.traps { one_of([0, 10, 50]) } else { 0 },
        stall: if swarm.stalls { one_of([0, 20, 100]) } else { 0 },
        long_stall: if swarm.stalls { one_of([0, 0, 5]) } else { 0 },
        conflict: if swarm.memory { one_of([1_000, 100_000, 500_000]) } else { 0 },
        lost_hint: if swarm.memory { one_of([0, 50_000, 1_000_000]) } else { 0 },
    }
}
