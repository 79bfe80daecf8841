//! I15: messages of one line end in the order in which they were accepted, and nothing passes them.
//!
//! A comes before B if A's sender had its 202 before B was sent; two that were under way at once have no order. While A has
//! not ended, neither B itself nor its redelivery may be at the receiver. What A's head says when B is there decides: an
//! end is for ever, so what has not ended then had not ended before.
//!
//! | A is | has it ended? |
//! | --- | --- |
//! | waiting, or out | no |
//! | a dead letter | with `on_dead_head: release` |
//! | in no slot | yes |

use super::record::is_success;
use super::{Knowledge, Oracle, Record, Road};
use crate::keys::{DeadHead, Identity, Line, Order};
use crate::message::{Message, Number};
use crate::rules::Rules;
use crate::slots;
use crate::violation::{Invariant, Violation};
use redeliver_core::digest;
use redeliver_core::header_list::HeaderList;
use redeliver_core::keys;
use redeliver_core::slot::{Head, SlotState};
use redeliver_core::units::ClusterName;
use simvoy::Moment;
use std::collections::{BTreeMap, BTreeSet};

/// The name of a bucket of shared memory. Which one a message has, only the product's digests say: asked when one was
/// damaged, or a clock was turned back over what it holds, and for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket(pub(super) Vec<u8>);

impl Bucket {
    /// Where an identity is remembered.
    pub(super) fn of_identity(message: &Message, rules: &Rules) -> Option<Self> {
        Identity::of(message, &rules.keys)?;
        let config = redeliver_core::config::parse(rules.configuration().as_bytes()).ok()?;
        let [first, second, ..] = digest::identity(&headers(message), &config.idempotency)?.0;
        Some(Self(slots::keys().duplicates(keys::Bucket::of([first, second])).as_bytes().to_vec()))
    }

    /// Where the end of a line is.
    fn of_line(message: &Message) -> Option<Self> {
        let cluster = ClusterName(message.destination.cluster());
        let line = digest::line(&headers(message), &cluster, crate::keys::ORDERING_KEY)?;
        let [first, second, ..] = line.0.to_le_bytes();
        Some(Self(slots::keys().lines(keys::Bucket::of([first, second])).as_bytes().to_vec()))
    }
}

fn headers(message: &Message) -> HeaderList {
    message.headers.0.iter().map(|(name, value)| (name, value)).collect()
}

/// What is known about lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    members: BTreeMap<Line, Vec<Number>>,
    line_of: BTreeMap<Number, Line>,
    /// When a message of a line last ended.
    went_on: BTreeMap<Line, Moment>,
    /// Requests that came to a receiver in this step, and messages whose delivery was heard in it.
    arrivals: Vec<(Number, Road)>,
    deliveries: Vec<Number>,
    damaged: Vec<(Bucket, Moment)>,
}

impl Lines {
    pub(super) fn begins(&mut self, line: Option<Line>, number: Number) {
        if let Some(line) = line {
            self.members.entry(line.clone()).or_default().push(number);
            self.line_of.insert(number, line);
        }
    }

    pub(super) fn has(&self, number: Number) -> bool {
        self.line_of.contains_key(&number)
    }

    pub(super) fn arrives(&mut self, number: Number, road: Road) {
        if self.has(number) {
            self.arrivals.push((number, road));
        }
    }

    pub(super) fn delivered(&mut self, number: Number) {
        if self.has(number) {
            self.deliveries.push(number);
        }
    }

    pub(super) fn damaged(&mut self, bucket: Bucket, now: Moment) {
        self.damaged.push((bucket, now));
    }

    pub(super) fn goes_on(&mut self, number: Number, now: Moment) {
        if let Some(line) = self.line_of.get(&number) {
            self.went_on.insert(line.clone(), now);
        }
    }

    /// How many different lines there were: no more buckets can have been written.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }
}

/// Whether a message in this state stands in the way of those behind it; a slot that is still being filled holds none.
fn is_in_the_way(state: SlotState, order: Order) -> bool {
    match state {
        SlotState::Opening { .. } | SlotState::Queued { .. } | SlotState::Sending { .. } | SlotState::Parked { .. } => {
            true
        }
        SlotState::Dead { .. } => order == Order::ByKey(DeadHead::Block),
        SlotState::Free | SlotState::Filling { .. } => false,
    }
}

/// Messages that wait for others of their lines. `heads`: all of them, each with any name of its message.
pub fn held_up<'a, N: Copy + Ord>(heads: impl Iterator<Item = (N, &'a Head)>, order: Order) -> BTreeSet<N> {
    let mut lines: BTreeMap<u64, Vec<(u64, SlotState, N)>> = BTreeMap::new();
    for (name, head) in heads {
        if let Some(place) = head.place {
            lines.entry(place.spot.line.0).or_default().push((place.spot.number, head.state, name));
        }
    }
    let mut held_up = BTreeSet::new();
    for line in lines.values_mut() {
        line.sort_unstable_by_key(|(spot, _, _)| *spot);
        let first = line.iter().position(|(_, state, _)| is_in_the_way(*state, order));
        let behind = line.iter().skip(first.map_or(line.len(), |first| first + 1));
        held_up.extend(behind.map(|(_, _, name)| *name));
    }
    held_up
}

impl Oracle {
    /// Requests of lines that have come to a receiver since the last time.
    pub fn take_arrivals(&mut self) -> Vec<(Number, Road)> {
        std::mem::take(&mut self.order.arrivals)
    }

    /// Messages of lines whose deliveries were heard since the last time.
    pub fn take_deliveries(&mut self) -> Vec<Number> {
        std::mem::take(&mut self.order.deliveries)
    }

    /// Whether two messages stand in one line.
    #[must_use]
    pub fn are_in_one_line(&self, one: Number, other: Number) -> bool {
        let line = self.order.line_of.get(&one);
        line.is_some() && line == self.order.line_of.get(&other)
    }

    /// When a message of this one's line last ended; `None`: it stands in no line.
    #[must_use]
    pub fn line_went_on(&self, number: Number) -> Option<Moment> {
        let line = self.order.line_of.get(&number)?;
        Some(self.order.went_on.get(line).copied().unwrap_or(Moment(0)))
    }

    /// How many buckets may have been written: idempotency keys, lines.
    #[must_use]
    pub fn buckets_max(&self) -> (usize, usize) {
        (self.duplicates.identities(), self.order.count())
    }

    /// Whether another message of its line may have been there when this one came: then it may have had to wait.
    #[must_use]
    pub fn may_wait(&self, number: Number) -> bool {
        let record = &self.records[&number];
        let may_be_there = |other: &Record| {
            let was_heard = |(at, status): (Moment, Option<u16>)| at < record.sent && status.is_some_and(is_success);
            let was_delivered = other.attempts.iter().filter_map(|attempt| attempt.heard).any(was_heard);
            let is_nothing = other.acknowledged.is_none() && other.answer.is_some() && other.attempts.is_empty();
            let was_never_there = is_nothing && self.is_untroubled(other.thread, other.sent);
            let has_left = was_never_there || was_delivered;
            !has_left
        };
        self.mates(number).any(may_be_there)
    }

    pub(super) fn mates(&self, number: Number) -> impl Iterator<Item = &Record> {
        let members = self.order.line_of.get(&number).and_then(|line| self.order.members.get(line));
        members.into_iter().flatten().filter(move |mate| **mate != number).filter_map(|mate| self.records.get(mate))
    }

    /// A request is at its receiver. `states`: what the heads of all messages say at this moment.
    pub fn judge_turn(&mut self, number: Number, road: Road, states: &BTreeMap<Number, SlotState>, now: Moment) {
        let Some(record) = self.records.get(&number) else { return };
        let overtaken = self.mates(number).find(|mate| {
            let comes_before = self.duplicates.acknowledged_at(mate.message.number).is_some_and(|at| at < record.sent);
            let state = states.get(&mate.message.number);
            let has_not_ended = state.is_some_and(|state| is_in_the_way(*state, self.rules.keys.order));
            comes_before && has_not_ended && !self.is_disordered(mate, record)
        });
        // One that comes late, since its thread stood still, was claimed when its turn had come.
        let is_late = record.attempts.last().is_some_and(|attempt| attempt.knowledge == Knowledge::Old);
        let timeout = self.rules.of(record.message.destination).timeout;
        let beside = self.mates(number).find(|mate| {
            let is_out = mate.attempts.last().is_some_and(|attempt| {
                let is_over = attempt.was_told || now >= attempt.sent + timeout;
                !is_over && attempt.knowledge == Knowledge::Current
            });
            road == Road::Again && !is_late && is_out && !self.is_disordered(mate, record)
        });
        let text = match (overtaken, beside) {
            (Some(mate), _) => {
                format!("{road:?}: overtakes message {} of its key, which has not ended", mate.message.number.0)
            }
            (None, Some(mate)) => format!("sent again while message {} of its key is out", mate.message.number.0),
            (None, None) => return,
        };
        self.violated(Violation::of(Invariant::InOrder, number, text));
    }

    /// Whether damage may have turned these two round: of a head that stood between them (it is mended out of turn), or of
    /// the line's bucket while the first was there (a damaged one reads as if it were empty).
    fn is_disordered(&self, first: &Record, second: &Record) -> bool {
        let acknowledged_at = |record: &Record| self.duplicates.acknowledged_at(record.message.number);
        let is_between = |mate: &Record| {
            mate.is_damaged
                && acknowledged_at(mate).is_none_or(|at| at >= first.sent)
                && mate.sent <= second.sent.max(first.sent)
        };
        let bucket = Bucket::of_line(&first.message);
        let was_forgotten = |(damaged, at): &(Bucket, Moment)| {
            bucket.as_ref() == Some(damaged)
                && *at >= first.sent
                && acknowledged_at(second).is_none_or(|stored| stored >= *at)
        };
        first.is_damaged
            || self.mates(first.message.number).any(is_between)
            || self.order.damaged.iter().any(was_forgotten)
    }
}
