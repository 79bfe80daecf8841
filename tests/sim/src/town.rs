//! The receivers: what each is in the mood for, and what it does with a request.
//!
//! A mood is what the receiver *is*; what Envoy thinks of its health is set apart, so a history may let the two lie.

use crate::message::{Destination, Message};
use crate::oracle::{Contact, Oracle};
use simvoy::{Exchange, Moment, Origin, Receivers, Request, Response};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a receiver does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything, after so long.
    Well(Duration),
    /// Nobody listens.
    Refusing,
    /// Takes requests, processes them, and never answers.
    Hanging,
    /// Processes them, and answers after so long.
    Slow(Duration),
    /// Answers with this status; it has processed nothing.
    Says(u16),
    /// Closes before it answers; half of the time it has processed the request.
    Cutting,
    /// Processes, begins an answer, and closes.
    CuttingAfter,
    /// Speaks no HTTP; it has processed nothing.
    Garbage,
    /// Now this, now that.
    Flaky,
    /// Answers 503 before it has read the body.
    Hasty,
}

/// All receivers of a history, and the oracle that sees what they see.
pub struct Town {
    moods: BTreeMap<Destination, Mood>,
    random: fastrand::Rng,
    /// What should be, and what is.
    pub oracle: Oracle,
    /// Whether poison messages still break their receivers.
    pub poison: Poison,
    /// The wall clock at this moment, in milliseconds; the world sets it before each step.
    pub wall_millis: u64,
}

/// Whether poison messages break their receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// They do.
    Works,
    /// They are like any other.
    Cured,
}

const LATENCY: Duration = Duration::from_millis(5);

impl Town {
    /// Everybody is well.
    #[must_use]
    pub fn new(seed: u64, destinations: u8, oracle: Oracle) -> Self {
        let moods = (0..destinations).map(|n| (Destination(n), Mood::Well(LATENCY))).collect();
        Self {
            moods,
            random: fastrand::Rng::with_seed(seed ^ 0x746f_776e),
            oracle,
            poison: Poison::Works,
            wall_millis: 0,
        }
    }

    /// A receiver changes its mood.
    pub fn set_mood(&mut self, destination: Destination, mood: Mood) {
        self.moods.insert(destination, mood);
    }

    /// A receiver's mood.
    #[must_use]
    pub fn mood(&self, destination: Destination) -> Mood {
        self.moods.get(&destination).copied().unwrap_or(Mood::Refusing)
    }

    /// What this receiver does with this message now, and whether it has processed it.
    fn act(&mut self, destination: Destination, is_poison: bool) -> (Exchange, Contact) {
        let mood =
            if is_poison && self.mood(destination) != Mood::Refusing { Mood::Cutting } else { self.mood(destination) };
        let mood = if mood == Mood::Flaky { self.any_mood() } else { mood };
        let processed = |yes| if yes { Contact::Processed } else { Contact::Read };
        let ok = Response::status(200).header("content-length", "2").body("ok");
        match mood {
            Mood::Well(after) | Mood::Slow(after) => (Exchange::Answer { after, response: ok }, Contact::Processed),
            Mood::Refusing => (Exchange::Refused, Contact::None),
            Mood::Hanging => (Exchange::Silence, Contact::Processed),
            Mood::Says(status) => {
                (Exchange::Answer { after: LATENCY, response: Response::status(status) }, Contact::Read)
            }
            // A poison message breaks its receiver before anything is done.
            Mood::Cutting => {
                let is_processed = !is_poison && self.random.bool();
                (Exchange::CutBeforeHeaders { after: LATENCY }, processed(is_processed))
            }
            Mood::CuttingAfter => (Exchange::CutAfterHeaders { after: LATENCY, response: ok }, Contact::Processed),
            Mood::Garbage => (Exchange::Garbage { after: LATENCY }, Contact::Read),
            Mood::Flaky | Mood::Hasty => {
                (Exchange::Answer { after: LATENCY, response: Response::status(503) }, Contact::Read)
            }
        }
    }

    fn any_mood(&mut self) -> Mood {
        const STATUSES: [u16; 6] = [503, 500, 429, 502, 408, 425];
        match self.random.u32(..12) {
            0..4 => Mood::Well(LATENCY),
            4 => Mood::Refusing,
            5 => Mood::Hanging,
            6 => Mood::Slow(Duration::from_millis(self.random.u64(..8_000))),
            7..9 => Mood::Says(STATUSES[self.random.usize(..STATUSES.len())]),
            9 => Mood::Cutting,
            10 => Mood::CuttingAfter,
            _ => Mood::Garbage,
        }
    }
}

impl Receivers for Town {
    fn exchange(&mut self, cluster: &str, origin: Origin, request: &Request, now: Moment) -> Exchange {
        let Some(destination) = Destination::of(cluster) else { return Exchange::Refused };
        let number = request.headers.text(":path").and_then(Message::number_of);
        let is_poison = self.poison == Poison::Works && number.is_some_and(|number| self.oracle.is_poison(number));
        let (exchange, contact) = self.act(destination, is_poison);
        match origin {
            Origin::Live(_) => self.oracle.reached_live(number, contact, &exchange, now),
            Origin::Dispatch(vm, token) => {
                let call = crate::oracle::Sighting { vm, token, destination, now, wall_millis: self.wall_millis };
                self.oracle.reached_again(number, &call, request, contact, &exchange);
            }
        }
        exchange
    }

    fn early(&mut self, cluster: &str, origin: Origin, _: &Request, _: Moment) -> Option<Exchange> {
        let mood = self.mood(Destination::of(cluster)?);
        let response = Response::status(503);
        let is_hasty = mood == Mood::Hasty && matches!(origin, Origin::Live(_));
        is_hasty.then_some(Exchange::Answer { after: LATENCY, response })
    }
}
