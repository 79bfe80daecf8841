//! Histories by hand: the outage that everything is measured with, the cut points, and bugs that show in whole histories.
//!
//! A bug that a seed found is run for ever: as a scenario here, or, if a few calls of the core show it, as a test there
//! (`bugs.rs` says which).

use crate::faults::Rates;
use crate::generate::at;
use crate::history::{Action, Damage, HealthView, History, Listener, Origin, Phase, Thread};
use crate::message::Destination;
use crate::receiving;
use crate::rules::{Form, Rules, Source};
use crate::town::{Mood, Remedy, SourceMood};
use std::time::Duration;

/// A history with a name.
pub struct Scenario {
    /// A sentence about behaviour.
    pub name: &'static str,
    /// What happened once, or might.
    pub story: &'static str,
    /// It.
    pub history: History,
}

const D0: Destination = Destination(0);

/// Builds a history by hand, in milliseconds after its beginning.
pub struct Script {
    history: History,
}

impl Script {
    /// Nothing happens yet; everything is judged at `end_millis`.
    #[must_use]
    pub fn new(rules: Rules, workers: u32, end_millis: u64) -> Self {
        Self {
            history: History {
                origin: Origin::Scenario(""),
                seed: 7,
                phase: Phase::Liveness,
                workers,
                rules: rules.settled(),
                drain_time: Duration::from_secs(5),
                remedy: Remedy::Found,
                end: at(end_millis),
                actions: vec![(at(0), Action::Cure)],
            },
        }
    }

    /// Something happens.
    #[must_use]
    pub fn then(mut self, millis: u64, action: Action) -> Self {
        self.history.actions.push((at(millis), action));
        self
    }

    /// So many messages to the first destination, one each `every` milliseconds, on all workers in turn.
    #[must_use]
    pub fn send(self, from: u64, count: u32, every: u64) -> Self {
        self.send_to(D0, from, count, every)
    }

    /// As [`Script::send`], to any destination.
    #[must_use]
    pub fn send_to(mut self, destination: Destination, from: u64, count: u32, every: u64) -> Self {
        for n in 0..count {
            let action = Action::Send { destination, worker: n, listener: Listener::Newest };
            self.history.actions.push((at(from + u64::from(n) * every), action));
        }
        self
    }

    /// The first destination is away, and Envoy knows.
    #[must_use]
    pub fn outage(self, from: u64, to: u64) -> Self {
        self.outage_of(D0, from, to)
    }

    /// A destination is away, and Envoy knows.
    #[must_use]
    pub fn outage_of(self, destination: Destination, from: u64, to: u64) -> Self {
        self.then(from, Action::Mood(destination, Mood::Refusing))
            .then(from, Action::Health(destination, HealthView::Unhealthy))
            .then(to, Action::Mood(destination, Mood::WELL))
            .then(to, Action::Health(destination, HealthView::Healthy))
    }

    /// The history.
    #[must_use]
    pub fn done(mut self) -> History {
        self.history.actions.sort_by_key(|(at, _)| *at);
        self.history
    }
}

/// One outage of `minutes`, with `messages` spread over it: what the simulator's speed is measured with.
#[must_use]
pub fn outage(messages: u32, minutes: u64) -> History {
    let span = minutes * 60_000;
    Script::new(Rules::default(), 2, span + 60_000)
        .outage(1_000, span)
        .send(2_000, messages, (span - 3_000) / u64::from(messages.max(1)))
        .done()
}

/// Three destinations recover from the same outage, each with 80 messages; the fourth has a backlog of `dead_backlog`, and
/// stays away until long after: what fairness is measured with (I13).
#[must_use]
pub fn recovery_beside_a_dead_one(dead_backlog: u32) -> History {
    let rules = Rules { destinations: 4, ..Rules::default() };
    let dead = Destination(3);
    let script = (0..3).map(Destination).fold(Script::new(rules, 3, 300_000), |script, destination| {
        script.outage_of(destination, 1_000, 30_000).send_to(destination, 2_000, 80, 300)
    });
    script.outage_of(dead, 1_000, 200_000).send_to(dead, 2_000, dead_backlog, 25).done()
}

/// About so many messages stored and delivered, 500 in each short outage: what a guest's memory is measured with (I8).
#[must_use]
pub fn endurance(messages: u32) -> History {
    const CYCLE: u64 = 10_000;
    const PER_CYCLE: u32 = 500;
    let cycles = u64::from(messages.div_ceil(PER_CYCLE));
    let mut script = Script::new(Rules::default(), 3, cycles * CYCLE + 60_000);
    for cycle in 0..cycles {
        let from = cycle * CYCLE;
        script = script.outage(from, from + 4_500).send(from + 200, PER_CYCLE, 8);
    }
    script.done()
}

/// Rules under which the code goes different ways to the store.
#[must_use]
pub fn ways_to_the_store() -> Vec<(&'static str, Rules)> {
    let rules = Rules { source: Source::HealthCheckFilter, ..Rules::default() };
    vec![
        ("routed", rules.clone()),
        ("arrived", Rules { form: Form::Arrived, ..rules.clone() }),
        ("rewritten", Rules { rewrites: true, ..rules.clone() }),
        ("the failure is handed on", Rules { answers_202: false, ..rules.clone() }),
        ("held while down", Rules { holds_while_down: true, ..rules.clone() }),
        ("passive health", Rules { source: Source::Passive, ..rules }),
    ]
}

/// Every named scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let named = |scenario: Scenario| Scenario {
        history: History { origin: Origin::Scenario(scenario.name), ..scenario.history },
        ..scenario
    };
    by_hand().into_iter().chain(receiving::scenarios::all()).map(named).collect()
}

fn by_hand() -> Vec<Scenario> {
    vec![
        Scenario { name: "an outage becomes a delay", story: "the plainest history there is", history: outage(100, 2) },
        Scenario {
            name: "a damaged word that a worker lives does not keep the main thread idle for ever",
            story: "the cell had no checksum, and a moment in the future was read as alive; then all workers died",
            history: Script::new(Rules::default(), 2, 120_000)
                .outage(1_000, 30_000)
                .send(2_000, 20, 100)
                .then(10_000, Action::Damage(Damage::FutureWorker))
                .then(20_000, Action::Doom(Thread::Number(1)))
                .then(20_000, Action::Doom(Thread::Number(2)))
                .done(),
        },
        Scenario {
            name: "a damaged table of destinations is mended though no VM remembers it",
            story: "all VMs were made anew after the damage; every store was refused, and what was stored stayed",
            history: Script::new(Rules::default(), 2, 200_000)
                .outage(1_000, 60_000)
                .send(2_000, 20, 100)
                .then(10_000, Action::Damage(Damage::Destinations))
                .then(10_000, Action::Doom(Thread::Number(0)))
                .then(10_100, Action::Doom(Thread::Number(1)))
                .then(10_200, Action::Doom(Thread::Number(2)))
                .send(20_000, 20, 300)
                .done(),
        },
        Scenario {
            name: "a health source that calls everything unhealthy is asked to prove it",
            story: "one message each suspect_after goes out all the same, and the end of the lie ends the wait",
            history: Script::new(
                Rules {
                    suspect_after: Duration::from_secs(20),
                    backoff_max: Duration::from_secs(2),
                    ..Rules::default()
                },
                2,
                200_000,
            )
            .outage(1_000, 10_000)
            .send(2_000, 20, 100)
            .then(5_000, Action::Source(SourceMood::Gloomy))
            .then(150_000, Action::Source(SourceMood::Honest))
            .done(),
        },
        Scenario {
            name: "a head that is fought over still gets its routed form",
            story: "a completion gave up at the first conflict, and an acknowledged message became a dead letter",
            history: Script::new(Rules { rewrites: true, answers_202: false, ..Rules::default() }, 3, 400_000)
                .then(0, Action::Rates(Rates { conflict: 500_000, turn: 50_000, ..Rates::default() }))
                .outage(1_000, 30_000)
                .send(2_000, 120, 200)
                .then(31_000, Action::Rates(Rates::default()))
                .done(),
        },
        Scenario {
            name: "losing every hint only delays",
            story: "queues are hints; the sweep finds what they forget",
            history: Script::new(Rules::default(), 3, 300_000)
                .then(0, Action::Rates(Rates { lost_hint: 1_000_000, turn: 50_000, ..Rates::default() }))
                .outage(1_000, 30_000)
                .send(2_000, 60, 200)
                .done(),
        },
    ]
}
