//! The receivers: what each is in the mood for, and what it does with a request. And the health source, if it is to lie.
//!
//! A mood is what the receiver *is*; what Envoy thinks of its health is set apart, so a history may let the two lie.

use crate::message::{Destination, Message, Number, Poison};
use crate::oracle::{Contact, Oracle, Road, Sighting};
use crate::receiving::calls::Calls;
use crate::receiving::neighbours::Neighbours;
use crate::receiving::speech::{Speech, Wish};
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
    /// Processes, closes, and is not there for a moment: it has crashed, and somebody starts it again.
    Crashing,
    /// Processes, begins an answer, and closes.
    CuttingAfter,
    /// Speaks no HTTP; it has processed nothing.
    Garbage,
    /// Now this, now that.
    Flaky,
    /// Answers 503 before it has read the body.
    Hasty,
    /// Takes so many at a time, each for so long; whoever else comes gets a 503.
    Takes(u32, Duration),
    /// Takes everything after so long, but for each so many-th message, which it fails with 500: a bug of its own.
    Picky(u32, Duration),
}

impl Mood {
    /// As usual.
    pub const WELL: Self = Self::Well(LATENCY);

    /// Whether it takes every request soon.
    #[must_use]
    pub fn is_well(self) -> bool {
        matches!(self, Self::Well(_))
    }
}

/// What is at the other end of `health.cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceMood {
    /// Envoy's own listener or admin port.
    Honest,
    /// Nobody.
    Silent,
    /// Something that calls every destination unhealthy.
    Gloomy,
}

/// Whether poison messages break their receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// They do.
    None,
    /// They are like any other.
    Found,
}

/// All receivers of a history, and the oracle that sees what they see.
pub struct Town {
    moods: BTreeMap<Destination, Mood>,
    /// Receivers that have crashed, and until when.
    crashed: BTreeMap<Destination, Moment>,
    random: fastrand::Rng,
    speech: Speech,
    calls: Calls,
    neighbours: Neighbours,
    /// Requests that a receiver which takes few at a time is at work on, by their ends.
    at_work: BTreeMap<Destination, Vec<Moment>>,
    /// What should be, and what is.
    pub oracle: Oracle,
    /// Whether there is a remedy for poison.
    pub remedy: Remedy,
    /// The health source.
    pub source: SourceMood,
    /// The wall clock at this moment, in milliseconds; the world sets it before each step.
    pub wall_millis: u64,
}

const LATENCY: Duration = Duration::from_millis(5);
/// A connection that does not come about is given up after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// A crashed receiver is back after so long.
const RESTART: Duration = Duration::from_millis(200);

impl Town {
    /// Everybody is well.
    #[must_use]
    pub fn new(seed: u64, destinations: u8, oracle: Oracle) -> Self {
        let moods = (0..destinations).map(|n| (Destination(n), Mood::WELL)).collect();
        Self {
            moods,
            crashed: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed ^ 0x746f_776e),
            calls: Calls::new(seed),
            neighbours: Neighbours::new(seed),
            at_work: BTreeMap::new(),
            speech: Speech::new(oracle.rules.receiving.clone(), seed),
            oracle,
            remedy: Remedy::None,
            source: SourceMood::Honest,
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

    /// What this receiver does with a message now, and whether it has processed it.
    fn act(
        &mut self,
        destination: Destination,
        number: Option<Number>,
        poison: Poison,
        now: Moment,
    ) -> (Exchange, Contact) {
        let is_away = self.crashed.get(&destination).is_some_and(|until| *until > now);
        let mood = match self.mood(destination) {
            Mood::Flaky => self.any_mood(),
            Mood::Crashing if is_away => Mood::Refusing,
            Mood::Takes(most, span) if !self.has_hands_free(destination, most, span, now) => Mood::Says(503),
            Mood::Takes(_, span) => Mood::Well(span),
            Mood::Picky(each, _) if number.is_some_and(|number| number.0.is_multiple_of(each)) => Mood::Says(500),
            Mood::Picky(_, span) => Mood::Well(span),
            mood => mood,
        };
        let answer = |status| Exchange::Answer { after: LATENCY, response: Response::status(status) };
        match (mood, poison) {
            (Mood::Refusing, _) => (Exchange::Refused, Contact::None),
            (_, Poison::Unreachable) => (Exchange::ConnectTimeout { after: CONNECT_TIMEOUT }, Contact::None),
            // It breaks its receiver before anything is done.
            (_, Poison::Breaks) => (Exchange::CutBeforeHeaders { after: LATENCY }, Contact::Read),
            (_, Poison::Busy) | (Mood::Flaky | Mood::Hasty, Poison::None) => (answer(503), Contact::Read),
            (Mood::Well(after) | Mood::Slow(after) | Mood::Takes(_, after) | Mood::Picky(_, after), Poison::None) => {
                (Exchange::Answer { after, response: self.thanks() }, Contact::Processed)
            }
            (Mood::Hanging, Poison::None) => (Exchange::Silence, Contact::Processed),
            (Mood::Says(status), Poison::None) => (answer(status), Contact::Read),
            (Mood::Cutting, Poison::None) => {
                let contact = if self.random.bool() { Contact::Processed } else { Contact::Read };
                (Exchange::CutBeforeHeaders { after: LATENCY }, contact)
            }
            (Mood::Crashing, Poison::None) => {
                self.crashed.insert(destination, now + RESTART);
                (Exchange::CutBeforeHeaders { after: LATENCY }, Contact::Processed)
            }
            (Mood::CuttingAfter, Poison::None) => {
                (Exchange::CutAfterHeaders { after: LATENCY, response: self.thanks() }, Contact::Processed)
            }
            (Mood::Garbage, Poison::None) => (Exchange::Garbage { after: LATENCY }, Contact::Read),
        }
    }

    /// Whether a receiver that takes so many at a time takes one more; if so it is at work on it from now on.
    fn has_hands_free(&mut self, destination: Destination, most: u32, span: Duration, now: Moment) -> bool {
        let at_work = self.at_work.entry(destination).or_default();
        at_work.retain(|until| *until > now);
        let is_free = at_work.len() < most as usize;
        if is_free {
            at_work.push(now + span);
        }
        is_free
    }

    /// One of the ways to say that it is done. A receiver may use our words: it must not be believed.
    fn thanks(&mut self) -> Response {
        let response = match self.random.u32(..8) {
            0 => Response::status(201).header("content-length", "2").body("ok"),
            1 => Response::status(204),
            _ => Response::status(200).header("content-length", "2").body("ok"),
        };
        match self.random.u32(..12) {
            0 => response.header("x-redeliver-status", "stored").header("x-redeliver-id", FORGED_ID),
            _ => response,
        }
    }

    fn any_mood(&mut self) -> Mood {
        const STATUSES: [u16; 6] = [503, 500, 429, 502, 408, 425];
        match self.random.u32(..12) {
            0..4 => Mood::WELL,
            4 => Mood::Refusing,
            5 => Mood::Hanging,
            6 => Mood::Slow(Duration::from_millis(self.random.u64(..8_000))),
            7..9 => Mood::Says(STATUSES[self.random.usize(..STATUSES.len())]),
            9 => Mood::Cutting,
            10 => Mood::CuttingAfter,
            _ => Mood::Garbage,
        }
    }

    /// The health source, while it is not Envoy's own.
    fn source(&self, request: &Request) -> Exchange {
        match self.source {
            SourceMood::Honest | SourceMood::Silent => Exchange::Refused,
            SourceMood::Gloomy => gloomy(request.headers.text(":path").unwrap_or_default()),
        }
    }

    fn poison(&self, request: &Request) -> (Option<Number>, Poison) {
        let number = Message::number_in(&request.headers);
        let poison = number.map_or(Poison::None, |number| self.oracle.poison(number));
        (number, if self.remedy == Remedy::Found { Poison::None } else { poison })
    }
}

/// What a receiver that uses our words says.
pub const FORGED_ID: &str = "forged-by-a-receiver";

impl Receivers for Town {
    fn exchange(&mut self, cluster: &str, origin: Origin, request: &Request, now: Moment) -> Exchange {
        let Some(destination) = Destination::of(cluster) else { return self.source(request) };
        let (number, poison) = self.poison(request);
        let (mut exchange, contact) = self.act(destination, number, poison, now);
        let is_live = matches!(origin, Origin::Live(_));
        if let Some(number) = number {
            self.oracle.arrives(number, if is_live { Road::Live } else { Road::Again }, &request.headers);
        }
        // Who answers before the body has come says no more.
        if self.mood(destination) != Mood::Hasty {
            exchange = self.neighbours.take_over(exchange);
        }
        let is_call = number.is_some_and(|number| self.oracle.is_call(number));
        match origin {
            Origin::Live(_) => {
                if is_call {
                    exchange = self.calls.speak(exchange, Wish::None).0;
                }
                self.oracle.reached_live(number, request, contact, &exchange, now);
            }
            Origin::Dispatch(vm, token) | Origin::Through(_, vm, token) => {
                let mut wish;
                (exchange, wish) = self.speech.reword(exchange, self.wall_millis);
                if is_call {
                    (exchange, wish) = self.calls.speak(exchange, wish);
                }
                let call = Sighting { vm, token, destination, now, wall_millis: self.wall_millis, wish };
                self.oracle.reached_again(number, &call, request, contact, &exchange);
            }
        }
        exchange
    }

    fn early(&mut self, cluster: &str, origin: Origin, head: &Request, _: Moment) -> Option<Exchange> {
        let destination = Destination::of(cluster)?;
        if let (Origin::Live(_), Some(number)) = (origin, Message::number_in(&head.headers)) {
            self.oracle.went_on(number);
        }
        let is_hasty = self.mood(destination) == Mood::Hasty && matches!(origin, Origin::Live(_));
        is_hasty.then_some(Exchange::Answer { after: LATENCY, response: Response::status(503) })
    }
}

/// The answer of a source that calls everything unhealthy, to either kind of question.
fn gloomy(path: &str) -> Exchange {
    let unhealthy = |n| format!("cluster.d{n}.membership_healthy: 0\ncluster.d{n}.membership_total: 1\n");
    let response = match path.starts_with("/stats") {
        true => Response::status(200).body((0..8).map(unhealthy).collect::<String>()),
        false => Response::status(503),
    };
    Exchange::Answer { after: Duration::ZERO, response }
}
