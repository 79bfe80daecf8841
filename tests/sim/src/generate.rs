//! From a seed to a history.
//!
//! | | safety | liveness |
//! | --- | --- | --- |
//! | simulated | 2 minutes | 4 minutes of faults, then 6.5 minutes without any |
//! | messages | 1 to 6 a second | 1 to 3 a second |
//! | faults | at least 20 planned, and those at host calls | the same |
//!
//! Three histories of sixteen begin with a drill (see [`crate::drills`]); of the others, some have keys
//! ([`crate::habits`]).
//! Each seed turns whole kinds of faults on or off ("swarm"): a history with few kinds reaches deeper than one with all.

use crate::ambush::{Ambush, Blow, Site};
use crate::drills;
use crate::faults::Rates;
use crate::habits::Habits;
use crate::history::{Action, Configuration, Damage, HealthView, History, Leaving, Listener, Origin, Phase, Thread};
use crate::message::Destination;
use crate::receiving::Receiving;
use crate::receiving::own::OWNER;
use crate::receiving::through::Through;
use crate::rules::Rules;
use crate::town::{Mood, Remedy, SourceMood};
use simvoy::Moment;
use simvoy::REQUESTS_MAX;
use std::time::Duration;

/// Histories begin so long after the clock does, when all VMs are configured.
pub const BEGIN: Moment = Moment::millis(3_601_000);

/// So many milliseconds after the beginning.
#[must_use]
pub const fn at(millis: u64) -> Moment {
    Moment(BEGIN.0 + Moment::millis(millis).0)
}

const SAFETY_SPAN: u64 = 120_000;
const LIVENESS_FAULTS: u64 = 240_000;
/// A request without a body whose VM died before its log is given up after five minutes (OPENING_MAX); everything else
/// ends sooner.
const LIVENESS_CALM: u64 = 390_000;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Outage,
    Hindrance,
    Lie,
    Source,
    Push,
    Beside,
    Clock,
    Damage,
    Cluster,
    Breaker,
    Leaving,
    Doom,
    DoomWorkers,
    Freeze,
    LateTicks,
    Ambush,
}

/// How often each kind is drawn, and out of how many histories one has it. The sum of the weights does not matter.
const KINDS: [(Kind, u32, u32); 16] = [
    (Kind::Outage, 12, 1),
    (Kind::Hindrance, 4, 1),
    (Kind::Lie, 4, 3),
    (Kind::Source, 4, 3),
    (Kind::Push, 2, 3),
    (Kind::Beside, 2, 8),
    (Kind::Clock, 2, 4),
    (Kind::Damage, 8, 4),
    (Kind::Cluster, 1, 4),
    (Kind::Breaker, 3, 4),
    (Kind::Leaving, 2, 6),
    (Kind::Doom, 3, 3),
    (Kind::DoomWorkers, 2, 5),
    (Kind::Freeze, 3, 4),
    (Kind::LateTicks, 2, 5),
    (Kind::Ambush, 12, 2),
];

/// The kinds of faults that this history has, and what it is like apart from them.
struct Swarm {
    kinds: Vec<(Kind, u32)>,
    traps: bool,
    stalls: bool,
    memory: bool,
    /// After this many milliseconds nobody sends any more.
    quiet_from: u64,
    calm_from: u64,
}

impl Swarm {
    fn random(random: &mut fastrand::Rng, span: u64) -> Self {
        let mut one_in = |n: u32| random.u32(..n) == 0;
        let (traps, stalls, memory) = (one_in(2), one_in(3), one_in(2));
        // Without a trap the books must be exact: half of the histories have none at all.
        let may_be = |kind: Kind| traps || !matches!(kind, Kind::Doom | Kind::DoomWorkers);
        let chosen = KINDS.iter().filter(|(kind, _, rare)| may_be(*kind) && one_in(*rare));
        let kinds = chosen.map(|(kind, weight, _)| (*kind, *weight)).collect();
        // Quiet and calm ends show what only traffic, or the next fault, would have hidden.
        let quiet_from = if one_in(3) { span / 3 } else { span };
        let calm_from = if one_in(3) { span / 2 } else { span };
        Self { kinds, traps, stalls, memory, quiet_from, calm_from }
    }

    fn kind(&self, random: &mut fastrand::Rng) -> Kind {
        let sum: u32 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut dice = random.u32(..sum.max(1));
        for (kind, weight) in &self.kinds {
            if dice < *weight {
                return *kind;
            }
            dice -= weight;
        }
        Kind::Outage
    }
}

/// The history of `seed`.
#[must_use]
pub fn history(seed: u64, phase: Phase) -> History {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(2).wrapping_add(u64::from(phase == Phase::Liveness)));
    let span = match phase {
        Phase::Safety => SAFETY_SPAN,
        Phase::Liveness => LIVENESS_FAULTS,
    };
    let swarm = Swarm::random(&mut random, span);
    let mut rules = Rules { receiving: Receiving::of(seed), ..Rules::random(&mut random) };
    if rules.receiving.own.is_some() {
        rules.destinations = rules.destinations.max(OWNER.0 + 1);
    }
    let workers = [1, 2, 2, 3, 3, 7][random.usize(..6)];
    let mut actions = traffic(&mut random, &rules, &swarm, phase);
    actions.extend(faults(&mut random, &swarm, &rules, span));
    actions.push((0, Action::Rates(rates(&mut random, &swarm))));
    if swarm.calm_from < span {
        actions.push((swarm.calm_from, Action::Rates(Rates { turn: 10_000, ..Rates::default() })));
    }
    let end = match phase {
        Phase::Safety => span,
        Phase::Liveness => {
            actions.push((span, Action::Heal));
            span + LIVENESS_CALM
        }
    };
    let drain_time = Duration::from_secs([1, 5, 20, 600][random.usize(..4)]);
    let remedy = if random.u32(..4) == 0 { Remedy::None } else { Remedy::Found };
    surge(&mut random, &swarm, &rules, span, &mut actions);
    let (mut workers, mut rules) = (workers, rules);
    let habits = Habits::of(seed, phase, span);
    if habits != Habits::default() || drills::has_one(seed) {
        rules.receiving.speak_plainly();
    }
    habits.enter(&mut rules, &mut actions);
    rules = rules.settled();
    if let Some(drill) = drills::of(seed, &rules) {
        (workers, rules) = (drill.workers, drill.rules);
        // The rest of the history follows, in less time.
        for (at, _) in actions.iter_mut().filter(|(at, _)| *at < span) {
            *at = drills::SPAN + *at * (span - drills::SPAN) / span;
        }
        actions.extend(drill.actions);
    }
    rules.receiving.through = rules.receiving.through.or_else(|| Through::of(seed, rules.destinations));
    rules = rules.settled();
    actions.sort_by_key(|(at, _)| *at);
    History {
        origin: Origin::Seed,
        seed,
        phase,
        workers,
        rules,
        drain_time,
        remedy,
        end: at(end),
        actions: actions.into_iter().map(|(millis, action)| (at(millis), action)).collect(),
    }
}

fn any_destination(random: &mut fastrand::Rng, rules: &Rules) -> Destination {
    Destination(random.u8(..rules.destinations))
}

/// Messages: a steady stream, and bursts.
fn traffic(random: &mut fastrand::Rng, rules: &Rules, swarm: &Swarm, phase: Phase) -> Vec<(u64, Action)> {
    let per_second = match phase {
        Phase::Safety => random.u64(1..6),
        Phase::Liveness => random.u64(1..3),
    };
    let mut actions = Vec::new();
    let mut at = 0;
    while at < swarm.quiet_from {
        at += random.u64(..2_000 / per_second);
        let burst = if random.u32(..30) == 0 { random.u64(2..20) } else { 1 };
        let target = any_destination(random, rules);
        for place in 0..burst {
            let listener = if random.u32(..4) == 0 { Listener::Draining } else { Listener::Newest };
            let destination = if random.bool() { target } else { any_destination(random, rules) };
            actions.push((at + place, Action::Send { destination, worker: random.u32(..64), listener }));
        }
    }
    actions.retain(|(at, _)| *at < swarm.quiet_from);
    actions
}

fn faults(random: &mut fastrand::Rng, swarm: &Swarm, rules: &Rules, span: u64) -> Vec<(u64, Action)> {
    let mut actions = Vec::new();
    let count = random.u64(20..40) * span / SAFETY_SPAN;
    for _ in 0..count {
        let destination = any_destination(random, rules);
        let kind = swarm.kind(random);
        // What a source's last word comes to shows only if nothing else happens for long.
        let is_last_word = kind == Kind::Source && swarm.calm_from < span && random.bool();
        let at = if is_last_word { swarm.calm_from - 1_500 } else { random.u64(..swarm.calm_from) };
        actions.extend(fault(random, swarm, kind, destination, at));
        if needs_attempts_out(kind) && random.bool() {
            actions.extend(slow_recovery(random, destination, at));
        }
    }
    // What has an end has it before the calm.
    for (at, action) in &mut actions {
        if *at > swarm.calm_from && *at < span && is_end(action) {
            *at = swarm.calm_from;
        }
    }
    actions
}

/// Whether a fault says most when it finds redeliveries under way, to a receiver that takes its time.
fn needs_attempts_out(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Push
            | Kind::Beside
            | Kind::Clock
            | Kind::Doom
            | Kind::DoomWorkers
            | Kind::Freeze
            | Kind::LateTicks
            | Kind::Ambush
    )
}

/// A backlog that goes out to a receiver which takes its time, at this moment.
fn slow_recovery(random: &mut fastrand::Rng, destination: Destination, at: u64) -> Vec<(u64, Action)> {
    let back = at.saturating_sub(random.u64(500..6_000));
    // Some wait until they are nearly too old (the short `store.ttl` of these histories is 20 s).
    let away = back.saturating_sub(if random.bool() { random.u64(2_000..6_000) } else { random.u64(15_000..20_000) });
    let slow = Mood::Slow(Duration::from_millis(random.u64(500..5_000)));
    vec![
        (away, Action::Mood(destination, Mood::Refusing)),
        (away, Action::Health(destination, HealthView::Unhealthy)),
        (back, Action::Mood(destination, slow)),
        (back, Action::Health(destination, HealthView::Healthy)),
        (at + random.u64(500..8_000), Action::Mood(destination, Mood::WELL)),
    ]
}

/// In one history of five: far more messages than a sweep sees at once wait for a slow receiver, and who leads it dies or
/// ticks late, or its listener goes away. Or no worker is left at all, nobody sends and nothing fails any more: then the
/// main thread's VM must see the backlog through.
fn surge(random: &mut fastrand::Rng, swarm: &Swarm, rules: &Rules, span: u64, actions: &mut Vec<(u64, Action)>) {
    if random.u32(..5) > 0 {
        return;
    }
    let destination = any_destination(random, rules);
    let is_last = random.bool();
    let begin = if is_last { span / 3 } else { swarm.calm_from - 20_000 };
    let slow = Mood::Slow(Duration::from_millis(random.u64(500..2_500)));
    let end = begin + 14_000;
    if is_last {
        actions.retain(|(at, action)| *at <= end || !matches!(action, Action::Send { .. }));
        // What was to happen later happens sooner.
        for (at, _) in actions.iter_mut().filter(|(at, _)| *at > end && *at < span) {
            *at = *at * end / span;
        }
        actions.push((end + 500, Action::Rates(Rates { turn: 10_000, ..Rates::default() })));
    }
    actions.extend([
        (begin, Action::Mood(destination, Mood::Refusing)),
        (begin, Action::Health(destination, HealthView::Unhealthy)),
        (begin + 5_000, Action::Mood(destination, slow)),
        (begin + 5_000, Action::Health(destination, HealthView::Healthy)),
        (begin + 18_000, Action::Mood(destination, Mood::WELL)),
    ]);
    let send = |worker| Action::Send { destination, worker, listener: Listener::Newest };
    actions.extend((0..130).map(|n| (begin + 100 + u64::from(n) * 20, send(n))));
    match random.u32(..3) {
        0 if swarm.traps && is_last => actions.push((end, Action::DoomWorkers)),
        0 | 1 => {
            for turn in 0..3 {
                let (at, thread) = (begin + 8_000 + turn * 2_000, Thread::Number(random.u32(..64)));
                let late = Action::LateTicks(thread, Duration::from_millis(random.u64(4_000..8_000)));
                actions.push((at, if swarm.traps && random.bool() { Action::Doom(thread) } else { late }));
            }
        }
        _ => {
            actions.push((begin + 1_000, Action::Beside));
            actions.push((begin + 6_000, Action::NotBeside));
        }
    }
}

/// Whether an action makes a receiver or a listener well again. A source that is silent or lies goes on in the calm:
/// only there it shows what becomes of its word.
fn is_end(action: &Action) -> bool {
    match action {
        Action::Mood(_, mood) => mood.is_well(),
        Action::Health(_, HealthView::Healthy) | Action::Restore(_) | Action::NotBeside => true,
        Action::Breaker(_, most) => *most == REQUESTS_MAX,
        _ => false,
    }
}

/// One fault, with its end if it has one.
fn fault(
    random: &mut fastrand::Rng,
    swarm: &Swarm,
    kind: Kind,
    destination: Destination,
    at: u64,
) -> Vec<(u64, Action)> {
    let length = [random.u64(100..2_000), random.u64(1_000..10_000), random.u64(5_000..60_000)][random.usize(..3)];
    let end = at + length;
    let millis = Duration::from_millis;
    match kind {
        Kind::Outage => outage(random, destination, at, end),
        Kind::Hindrance => {
            vec![(at, Action::Mood(destination, mood(random))), (end, Action::Mood(destination, Mood::WELL))]
        }
        Kind::Lie => {
            let (first, then) = (HealthView::Unhealthy, HealthView::Healthy);
            vec![(at, Action::Health(destination, first)), (end, Action::Health(destination, then))]
        }
        Kind::Source => {
            let mood = if random.bool() { SourceMood::Silent } else { SourceMood::Gloomy };
            let mut actions = vec![
                (at, Action::Source(mood)),
                (end + random.u64(60_000..150_000), Action::Source(SourceMood::Honest)),
            ];
            if random.u32(..3) > 0 {
                // Its last word was a bad one.
                actions.push((at.saturating_sub(3_000), Action::Health(destination, HealthView::Unhealthy)));
                actions.push((at + 1_000, Action::Health(destination, HealthView::Healthy)));
            }
            actions
        }
        Kind::Push => vec![(at, Action::Push(configuration(random)))],
        Kind::Beside => vec![(at, Action::Beside), (end, Action::NotBeside)],
        Kind::Clock => vec![(at, Action::Jump(jump(random)))],
        Kind::Damage => vec![(at, Action::Damage(damage(random)))],
        Kind::Cluster => vec![(at, Action::Remove(destination)), (end, Action::Restore(destination))],
        Kind::Breaker => {
            let slow = Mood::Well(millis(random.u64(5..600)));
            vec![
                (at, Action::Breaker(destination, random.u32(1..4))),
                (at, Action::Mood(destination, slow)),
                (end, Action::Breaker(destination, REQUESTS_MAX)),
            ]
        }
        Kind::Leaving => vec![(at, Action::Leaving(Leaving::Yes)), (end + 20_000, Action::Leaving(Leaving::No))],
        Kind::Doom => vec![(at, Action::Doom(Thread::Number(random.u32(..64))))],
        Kind::DoomWorkers => vec![(at, Action::DoomWorkers)],
        Kind::Freeze => {
            vec![(at, Action::Freeze(Thread::Number(random.u32(..64)), millis(random.u64(500..20_000))))]
        }
        Kind::LateTicks => {
            vec![(at, Action::LateTicks(Thread::Number(random.u32(..64)), millis(random.u64(1_000..15_000))))]
        }
        Kind::Ambush => vec![(at, Action::Ambush(ambush(random, swarm)))],
    }
}

fn ambush(random: &mut fastrand::Rng, swarm: &Swarm) -> Ambush {
    const SITES: [Site; 8] = [
        Site::LargeWrite,
        Site::HeadWrite,
        Site::CellWrite,
        Site::Hint,
        Site::Dispatch,
        Site::Answer,
        Site::Log,
        Site::Log,
    ];
    let stall = [random.u64(1..50), random.u64(100..1_000), random.u64(3_000..20_000)][random.usize(..3)];
    let blow = match random.u32(..6) {
        0 if swarm.traps => Blow::Trap,
        1 if swarm.traps => Blow::TrapAfter,
        _ => Blow::Stall(Duration::from_millis(stall)),
    };
    Ambush { site: SITES[random.usize(..SITES.len())], skip: random.u32(..4), times: 1, blow }
}

fn mood(random: &mut fastrand::Rng) -> Mood {
    const STATUSES: [u16; 12] = [503, 503, 500, 429, 502, 504, 404, 409, 301, 401, 408, 425];
    match random.u32(..15) {
        14 => Mood::Crashing,
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
fn outage(random: &mut fastrand::Rng, destination: Destination, at: u64, end: u64) -> Vec<(u64, Action)> {
    let mut actions = vec![(at, Action::Mood(destination, mood(random))), (end, Action::Mood(destination, Mood::WELL))];
    if random.u32(..4) > 0 {
        let (noticed, forgiven) = (at + random.u64(..1_500), end + random.u64(..1_500));
        actions.push((noticed, Action::Health(destination, HealthView::Unhealthy)));
        actions.push((forgiven, Action::Health(destination, HealthView::Healthy)));
        if random.u32(..6) == 0 {
            let middle = random.u64(noticed..=forgiven.max(noticed));
            actions.push((middle, Action::Health(destination, HealthView::Healthy)));
        }
    }
    actions
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
    match random.u32(..9) {
        0..2 => Damage::FlipHead(which),
        2..4 => Damage::FlipLarge(which),
        4 => Damage::CutHead(which),
        5 => Damage::CutLarge(which),
        6..8 => Damage::Swap(which),
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
