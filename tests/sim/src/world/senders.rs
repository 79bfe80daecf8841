//! Senders: requests that begin, bodies that come in pieces, and those who hang up.

use super::World;
use crate::faults::Fault;
use crate::history::Listener;
use crate::message::{Destination, Entry, Manner, Message, Number};
use crate::receiving::calls::turn_into_call;
use crate::receiving::neighbours::pass_on;
use crate::receiving::through::pretend;
use crate::rules::HOLD_MAX;
use simvoy::{End, Generation, Headers, Moment, StreamId, ThreadId};
use std::time::Duration;

/// A body's next piece, or the end of it.
#[derive(Clone, Debug)]
pub(super) enum Later {
    Piece(StreamId, Number, Vec<u8>, End),
    Trailers(StreamId, Number),
    HangUp(StreamId),
    /// The sender has paused for longer than it may be held.
    Overslept(StreamId, Number, Option<Generation>),
}

impl World {
    pub(super) fn send(&mut self, destination: Destination, worker: u32, listener: Listener) {
        let number = Number(self.numbers);
        self.numbers += 1;
        let mut message = Message::new(self.history.seed, number, destination, self.history.rules.body_max);
        self.history.rules.keys.dress(self.history.seed, &mut message);
        if self.history.rules.receiving.grpc {
            turn_into_call(&mut message, self.history.seed);
        }
        if self.history.rules.receiving.trusts_senders {
            pass_on(&mut message, self.history.seed);
        }
        if self.history.rules.receiving.through.is_some() {
            pretend(&mut message, self.history.seed);
        }
        self.begin(message, worker, listener);
    }

    /// A message begins.
    pub(super) fn begin(&mut self, message: Message, worker: u32, listener: Listener) {
        let (now, number) = (self.process.now(), message.number);
        let worker = ThreadId(1 + worker % self.history.workers);
        let old = self.draining.filter(|(_, drained)| *drained > now).map(|(old, _)| old);
        let generation = match listener {
            Listener::Draining => old.or(self.newest),
            // A thread that stands still has the listener that it had.
            Listener::Newest => self.newest.filter(|newest| self.process.is_loaded(worker, *newest)).or(old),
        };
        let generation = generation.or(self.newest);
        let end = if message.body.is_empty() { End::Last } else { End::More };
        let stream = match message.entry {
            Entry::FromSender => self.process.open(worker, generation, message.headers.clone(), end),
            Entry::FromFilter => self.process.open_as_is(worker, generation, message.headers.clone(), end),
        };
        self.senders.insert(stream, number);
        self.plan_body(stream, generation, &message, now);
        let is_empty = message.body.is_empty();
        self.town.oracle.sends(message, worker, now, self.process.wall() / 1_000_000);
        if is_empty {
            self.town.oracle.sent_whole(number);
        }
    }

    /// Pieces of a body, spread over time as the sender's manner is.
    fn plan_body(&mut self, stream: StreamId, generation: Option<Generation>, message: &Message, now: Moment) {
        if message.body.is_empty() {
            return;
        }
        let (count, pause) = match message.manner {
            Manner::Whole => (1, Duration::ZERO),
            Manner::Pieces(count, pause) | Manner::Trailers(count, pause) | Manner::HangsUp(count, pause) => {
                (count, pause)
            }
        };
        let size = message.body.len().div_ceil(count as usize).max(1);
        let chunks: Vec<Vec<u8>> = message.body.chunks(size).map(<[u8]>::to_vec).collect();
        let last = chunks.len() - 1;
        let mut at = now;
        for (place, bytes) in chunks.into_iter().enumerate() {
            let end =
                if place == last && !matches!(message.manner, Manner::Trailers(..)) { End::Last } else { End::More };
            let later = match message.manner {
                Manner::HangsUp(..) if place == last => Later::HangUp(stream),
                Manner::Whole | Manner::Pieces(..) | Manner::Trailers(..) | Manner::HangsUp(..) => {
                    Later::Piece(stream, message.number, bytes, end)
                }
            };
            self.add_later(at, later);
            at = at + pause;
            if place < last && pause > HOLD_MAX + Duration::from_millis(500) {
                // Before the next piece, which is of the same moment.
                self.add_later(at, Later::Overslept(stream, message.number, generation));
            }
        }
        if matches!(message.manner, Manner::Trailers(..)) {
            self.add_later(at, Later::Trailers(stream, message.number));
        }
    }

    fn add_later(&mut self, at: Moment, later: Later) {
        self.laters += 1;
        self.later.insert((at, self.laters), later);
    }

    pub(super) fn send_later(&mut self, later: Later) {
        match later {
            Later::Piece(stream, number, bytes, end) => {
                if end == End::Last {
                    self.town.oracle.sent_whole(number);
                }
                self.process.send_body(stream, bytes, end);
            }
            Later::Trailers(stream, number) => {
                self.town.oracle.sent_whole(number);
                self.process.send_trailers(stream, Headers::of(&[("x-checksum", "1")]));
            }
            Later::Overslept(stream, number, generation) => {
                let record = &self.town.oracle.records[&number];
                // Envoy closes the connections of a listener that has drained.
                let is_judged = generation == self.newest
                    && self.town.oracle.is_untroubled(record.thread, record.sent)
                    && !self.coverage.struck.contains_key(&Fault::Stall);
                if self.senders.contains_key(&stream) && is_judged {
                    self.town.oracle.goes_on_after_pause(number);
                }
            }
            Later::HangUp(stream) => {
                self.senders.remove(&stream);
                self.process.disconnect(stream);
            }
        }
    }
}
