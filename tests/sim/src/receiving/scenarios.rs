//! Histories by hand about receivers: the figures that the delivery semantics promise, each in one plain history.

use super::Receiving;
use super::through::{Through, Whose};
use crate::generate::at;
use crate::history::{Action, History};
use crate::message::Destination;
use crate::rules::{Form, Rules};
use crate::scenario::{Scenario, Script};
use crate::town::Mood;
use simvoy::{Chain, Moment};
use std::time::Duration;

const D0: Destination = Destination(0);

/// When the receiver of [`takes_eight`] is back.
pub const BACK: Moment = at(14_000);

/// A receiver comes back that takes eight at a time, 200 ms each, and has 1,200 messages to come.
#[must_use]
pub fn takes_eight(workers: u32) -> History {
    let takes = Mood::Takes(8, Duration::from_millis(200));
    Script::new(Rules::default(), workers, 60_000)
        .outage(1_000, 14_000)
        .then(14_000, Action::Mood(D0, takes))
        .send(1_200, 1_200, 10)
        .done()
}

/// The same by way of a listener with the same routes and the filter on it.
#[must_use]
pub fn takes_eight_by_way_of_a_listener(workers: u32) -> History {
    let mut history = takes_eight(workers);
    history.rules.receiving.through = Some(Through { whose: Whose::All, chain: Chain::Plugin });
    history
}

/// A receiver is away, then busy, then well; redeliveries of one destination or of both go through a listener.
#[must_use]
pub fn by_way_of_a_listener(through: Through, rules: Rules) -> History {
    let receiving = Receiving { through: Some(through), ..Receiving::default() };
    let other = Destination(1);
    Script::new(Rules { destinations: 2, rewrites: true, receiving, ..rules }, 2, 60_000)
        .outage(1_000, 8_000)
        .outage_of(other, 1_000, 6_000)
        .then(8_000, Action::Mood(D0, Mood::Says(503)))
        .then(14_000, Action::Mood(D0, Mood::WELL))
        .send(2_000, 30, 300)
        .send_to(other, 2_000, 30, 300)
        .done()
}

/// All workers' VMs die while messages wait that go by way of a listener; a minute later somebody sends one more.
#[must_use]
pub fn without_a_worker() -> History {
    let through = Through { whose: Whose::All, chain: Chain::Plugin };
    let receiving = Receiving { through: Some(through), ..Receiving::default() };
    Script::new(Rules { receiving, ..Rules::default() }, 2, 150_000)
        .outage(1_000, 20_000)
        .send(2_000, 20, 200)
        .then(10_000, Action::DoomWorkers)
        .send(80_000, 1, 1)
        .done()
}

/// A backlog of 300 messages for a receiver that fails every `bug`-th message with 500, if there is such a bug.
#[must_use]
pub fn bug_of_one_kind(bug: Option<u32>) -> History {
    let span = Duration::from_millis(300);
    let mood = bug.map_or(Mood::Well(span), |each| Mood::Picky(each, span));
    Script::new(Rules { window: (8, 16), ..Rules::default() }, 2, 60_000)
        .outage(1_000, 6_000)
        .then(6_000, Action::Mood(D0, mood))
        .then(40_000, Action::Mood(D0, Mood::WELL))
        .send(1_200, 300, 15)
        .done()
}

/// A backlog of 150 messages, and ten live requests a second, for a receiver that takes 600 ms for each.
#[must_use]
pub fn beside_live_traffic() -> History {
    Script::new(Rules::default(), 3, 60_000)
        .outage(1_000, 6_000)
        .then(6_000, Action::Mood(D0, Mood::Well(Duration::from_millis(600))))
        .send(1_500, 150, 20)
        .send(6_200, 400, 100)
        .done()
}

/// A backlog of 200 messages under a rate of twenty a second.
#[must_use]
pub fn at_a_rate() -> History {
    let receiving = Receiving { rate: 20, ..Receiving::default() };
    Script::new(Rules { receiving, ..Rules::default() }, 3, 60_000).outage(1_000, 10_000).send(1_500, 200, 20).done()
}

/// Messages wait for a receiver, and others are at it, when the wall clock jumps by so much.
#[must_use]
pub fn clock_jumps(millis: i64) -> History {
    let script = Script::new(Rules { timeout: Duration::from_secs(6), ..Rules::default() }, 2, 60_000)
        .outage(1_000, 12_000)
        .send(2_000, 40, 100)
        .then(8_000, Action::Jump(millis))
        .then(12_000, Action::Mood(D0, Mood::Well(Duration::from_secs(2))))
        .then(14_000, Action::Jump(-millis));
    script.then(15_500, Action::Jump(millis)).then(17_000, Action::Jump(-millis)).done()
}

/// Three destinations recover from the same outage, each with 80 messages. Beside them, if `beside` says so, a fourth is
/// dead for long, with a thousand, and a fifth takes nearly its whole time for each.
#[must_use]
pub fn recovery_beside_others(beside: Beside) -> History {
    let rules = Rules { destinations: 5, ..Rules::default() };
    let (dead, slow) = (Destination(3), Destination(4));
    let script = (0..3).map(Destination).fold(Script::new(rules, 3, 300_000), |script, destination| {
        script.outage_of(destination, 1_000, 30_000).send_to(destination, 2_000, 80, 300)
    });
    match beside {
        Beside::Nobody => script.done(),
        Beside::DeadAndSlow => script
            .outage_of(dead, 1_000, 200_000)
            .send_to(dead, 2_000, 1_000, 25)
            .outage_of(slow, 1_000, 30_000)
            .then(30_000, Action::Mood(slow, Mood::Slow(Duration::from_millis(2_900))))
            .then(200_000, Action::Mood(slow, Mood::WELL))
            .send_to(slow, 2_000, 500, 50)
            .done(),
    }
}

/// Who else there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nobody.
    Nobody,
    /// One that is dead and one that is slow, each with a backlog.
    DeadAndSlow,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let jump = |name, millis| Scenario {
        name,
        story: "the wall clock is for ttl and for the moments that receivers name; leases and backoff know another",
        history: clock_jumps(millis),
    };
    let way = |name, through, rules| Scenario {
        name,
        story: "an outage and refusals behind a listener with the same routes; nothing is stored twice",
        history: by_way_of_a_listener(through, rules),
    };
    const HOUR: i64 = 3_600_000;
    const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;
    vec![
        Scenario {
            name: "a receiver that takes eight at a time gets about eight at a time",
            story: "its 503s are what the window learns from",
            history: takes_eight(3),
        },
        Scenario {
            name: "a bug in one kind of message does not throttle the rest",
            story: "every other message gets 500 for ever",
            history: bug_of_one_kind(Some(2)),
        },
        Scenario {
            name: "redelivery takes a share beside live traffic",
            story: "a backlog must not crowd out those who are served",
            history: beside_live_traffic(),
        },
        Scenario {
            name: "a rate holds from the first moment on",
            story: "what was not sent during an outage is not saved up",
            history: at_a_rate(),
        },
        jump("an hour ahead and back costs nothing", HOUR),
        jump("an hour back and ahead costs nothing", -HOUR),
        jump("ten years ahead end what is older than its ttl, and lose nothing", TEN_YEARS),
        jump("ten years back cost nothing", -TEN_YEARS),
        Scenario {
            name: "a listener on the way holds nothing back",
            story: "redeliveries that come to the filter again counted as live traffic, and three were out at a time",
            history: takes_eight_by_way_of_a_listener(3),
        },
        way(
            "the filter on the listener knows its own redeliveries",
            Through { whose: Whose::All, chain: Chain::Plugin },
            Rules::default(),
        ),
        way(
            "the routes make of what arrived what they make of a live request",
            Through { whose: Whose::All, chain: Chain::Router },
            Rules { form: Form::Arrived, ..Rules::default() },
        ),
        way(
            "one destination goes by way of a listener, the other straight",
            Through { whose: Whose::One(D0), chain: Chain::Plugin },
            Rules::default(),
        ),
        Scenario {
            name: "what goes by way of a listener waits for a worker",
            story: "the main thread does not reach it; once all workers' VMs were dead, the next request brought one back",
            history: without_a_worker(),
        },
        Scenario {
            name: "nobody waits for a dead one or a slow one",
            story: "all have a backlog, and each its own window",
            history: recovery_beside_others(Beside::DeadAndSlow),
        },
    ]
}
