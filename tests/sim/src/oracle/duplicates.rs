//! I16: an idempotency key is taken for what it is.
//!
//! | of an earlier message of the same identity is certain that | a retry that is the same request | one that is another |
//! | --- | --- | --- |
//! | it is stored, or was delivered within the hour | gets 202, `duplicate`, its id | gets 422 |
//! | it was never stored, or was delivered earlier | is a new message | is a new message |
//! | neither: both were under way at once, its record was damaged, or somebody looked after its hour and before a clock was turned back | either | either |
//!
//! And whatever is certain: only a message of the same identity and request is joined, only one of the same identity and
//! another request refuses, two that are held have different identities, and an injected key is the message's own.

use super::order::Bucket;
use super::{Oracle, Record};
use crate::keys::{Identity, Inject, is_same_request};
use crate::message::{KEY, Manner, Number};
use crate::receiving::neighbours::are_receivers_words;
use crate::violation::{Invariant, Violation};
use redeliver_core::slot::AHEAD_MAX;
use simvoy::{CallToken, Headers, Moment, Response, VmId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a delivery is remembered (README).
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// The filter's clock and ours may be so far apart about one moment.
const SLACK: Duration = Duration::from_secs(2);
/// A slot that is being filled for longer than this is given up, whether or not its VM goes on later: a known gap.
const FILLING_MAX: Duration = Duration::from_secs(10);

/// How a request comes to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// From its sender, through the router.
    Live,
    /// Sent again.
    Again,
}

/// What is known about identities.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    by_identity: BTreeMap<Identity, Vec<Number>>,
    acknowledged: BTreeMap<Number, Moment>,
    /// Deliveries that their VM heard in time and took to the end.
    delivered: BTreeMap<Number, Reading>,
    /// When senders had their answers.
    answered: BTreeMap<Number, Reading>,
    /// What the wall clock had come to each time that it was turned back.
    turned_back: Vec<Reading>,
    /// The keys that live requests had though their senders sent none.
    injected: BTreeMap<Number, Vec<u8>>,
    damaged: Vec<(Bucket, Moment)>,
}

/// What the wall clock said at a moment, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Moment,
    wall_millis: u64,
}

/// What is certain about the memory of a message when a retry of it is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Known,
    Unknown,
    Unsure,
}

/// What the world sees when a sender has its answer.
pub struct Glance<'a> {
    /// When.
    pub now: Moment,
    /// When, on the wall clock in milliseconds.
    pub wall_millis: u64,
    /// The message that a slot holds under an id.
    pub holder: &'a dyn Fn(&str) -> Option<Number>,
    /// Whether the filter must have been there and well.
    pub is_judged: bool,
}

impl Duplicates {
    pub(super) fn begins(&mut self, identity: Option<Identity>, number: Number) {
        if let Some(identity) = identity {
            self.by_identity.entry(identity).or_default().push(number);
        }
    }

    pub(super) fn acknowledged_at(&self, number: Number) -> Option<Moment> {
        self.acknowledged.get(&number).copied()
    }

    /// How many different identities there were: no more buckets can have been written.
    pub(super) fn identities(&self) -> usize {
        self.by_identity.len()
    }
}

impl Oracle {
    /// A bucket of keys was damaged: what it knew is lost.
    pub fn bucket_damaged(&mut self, key: &[u8], now: Moment) {
        let bucket = Bucket(key.to_vec());
        self.order.damaged(bucket.clone(), now);
        self.duplicates.damaged.push((bucket, now));
    }

    /// A request is at a receiver, or would be.
    pub fn arrives(&mut self, number: Number, road: Road, headers: &Headers) {
        let Some(record) = self.records.get(&number).filter(|record| record.message.is_protected()) else { return };
        self.order.arrives(number, road);
        let (sent, found) = (record.message.headers.first(KEY), headers.first(KEY));
        let known = self.duplicates.injected.get(&number);
        let is_right = match (road, sent, self.rules.keys.inject) {
            (Road::Live, Some(_), _) | (Road::Live, None, Inject::Off) => found == sent,
            (Road::Live, None, Inject::On) => found.is_some() && known.is_none_or(|known| found == Some(known)),
            (Road::Again, _, _) => known.is_none_or(|known| found == Some(known)),
        };
        if sent.is_none()
            && road == Road::Live
            && let Some(found) = found
        {
            self.duplicates.injected.entry(number).or_insert_with(|| found.to_vec());
        }
        if !is_right {
            let text = format!("{road:?}, with another idempotency key than its own: {headers:?}");
            self.violated(Violation::of(Invariant::NoCauselessRepeat, number, text));
        }
    }

    /// The wall clock jumps by so many milliseconds, and has said this until now.
    pub fn clock_jumps(&mut self, millis: i64, now: Moment, wall_millis: u64) {
        self.jumped_at = now;
        if millis < 0 {
            self.duplicates.turned_back.push(Reading { at: now, wall_millis });
        }
    }

    /// A VM has taken the end of a call.
    pub fn took(&mut self, call: (VmId, CallToken), wall_millis: u64) {
        let Some(number) = self.calls.get(&call).copied() else { return };
        let Some(attempt) = self.records[&number].attempts.iter().find(|attempt| attempt.call == call) else { return };
        let Some((heard, Some(status))) = attempt.heard else { return };
        // An answer that comes late changes no head: somebody else frees the slot, at a time of his.
        let timeout = self.rules.of(self.records[&number].message.destination).timeout;
        let is_in_time = heard < attempt.sent + timeout && self.back_at(call.0) < attempt.sent;
        if super::record::is_success(status) && is_in_time {
            self.duplicates.delivered.entry(number).or_insert(Reading { at: heard, wall_millis });
            self.order.delivered(number);
        }
        self.order.goes_on(number, heard);
    }

    /// What is wrong with an answer, as far as keys are concerned.
    pub fn judge_keys(&mut self, number: Number, response: &Response, glance: &Glance<'_>) {
        let word = response.headers.text("x-redeliver-status");
        self.duplicates.answered.insert(number, Reading { at: glance.now, wall_millis: glance.wall_millis });
        if word == Some("stored") && self.records[&number].acknowledged.is_some() {
            self.duplicates.acknowledged.insert(number, glance.now);
            self.counts.ordered += u64::from(self.order.has(number));
        }
        let identity = Identity::of(&self.records[&number].message, &self.rules.keys);
        let mates: Vec<Number> = identity
            .and_then(|identity| self.duplicates.by_identity.get(&identity))
            .map(|mates| mates.iter().copied().filter(|mate| *mate != number).collect())
            .unwrap_or_default();
        let is_receivers = are_receivers_words(&self.records[&number].message, response, &self.rules);
        let wrong = match (word, response.code()) {
            // To us the request was a new one.
            _ if is_receivers => self.passed_by(number, &mates, glance),
            (Some("duplicate"), code) => self.wrong_join(number, code, response, &mates, glance),
            (_, 422) => self.wrong_refusal(number, &mates, glance),
            (Some("stored"), _) => self.wrong_id(number, response).or_else(|| self.second_copy(number, &mates, glance)),
            (_, _) => self.passed_by(number, &mates, glance),
        };
        if let Some(text) = wrong {
            self.violated(Violation::of(Invariant::OnePerKey, number, text));
        }
    }

    fn wrong_join(
        &mut self,
        number: Number,
        code: u16,
        response: &Response,
        mates: &[Number],
        glance: &Glance<'_>,
    ) -> Option<String> {
        self.counts.joined += 1;
        let id = response.headers.text("x-redeliver-id").unwrap_or_default();
        if code != 202 {
            return Some(format!("joins {id}, and the status is {code}"));
        }
        let in_slot = (glance.holder)(id);
        let has_id = |mate: &&Number| {
            let record = &self.records[*mate];
            let told = record.acknowledged.as_ref().map(|(id, _)| id.as_str());
            let carried = record.identity.as_ref().map(|(id, _)| id.as_str());
            told == Some(id) || carried == Some(id) || in_slot == Some(**mate)
        };
        let Some(first) = mates.iter().find(has_id).copied() else {
            return Some(format!("joins {id}, which is no message of the same key and scope"));
        };
        let (record, retry) = (&self.records[&first], &self.records[&number]);
        if !is_same_request(&record.message, &retry.message) {
            return Some(format!("joins message {}, which asks for something else", first.0));
        }
        if self.memory(record, retry, glance) == Memory::Unknown {
            return Some(format!("joins message {}, which was delivered long ago, or never stored", first.0));
        }
        // From now on a sender counts on the first one, even if its own never heard of it.
        self.duplicates.acknowledged.entry(first).or_insert(glance.now);
        let told = (id.to_owned(), glance.wall_millis);
        if let Some(record) = self.records.get_mut(&first) {
            record.acknowledged.get_or_insert(told);
        }
        None
    }

    fn wrong_refusal(&mut self, number: Number, mates: &[Number], glance: &Glance<'_>) -> Option<String> {
        self.counts.refused += 1;
        let retry = &self.records[&number];
        let is_reason = |mate: &Number| {
            let record = &self.records[mate];
            !is_same_request(&record.message, &retry.message) && self.memory(record, retry, glance) != Memory::Unknown
        };
        let is_true = mates.iter().any(is_reason);
        (!is_true).then(|| "422, and its key was used for nothing else".to_owned())
    }

    /// An injected key is the id, which the sender is told.
    fn wrong_id(&self, number: Number, response: &Response) -> Option<String> {
        let injected = self.duplicates.injected.get(&number)?;
        let id = response.headers.first("x-redeliver-id");
        (id != Some(injected)).then(|| "its first attempt had another key than its id".to_owned())
    }

    fn second_copy(&self, number: Number, mates: &[Number], glance: &Glance<'_>) -> Option<String> {
        let retry = &self.records[&number];
        let is_held_too = |mate: &&Number| {
            let record = &self.records[*mate];
            // Both may have been under way at once; one of the two still finds the other in the store.
            let are_both_held = self.is_held(record, glance)
                && !self.is_in_doubt(record)
                && !self.stood_still(record)
                && !self.stood_still(retry);
            are_both_held || self.memory(record, retry, glance) == Memory::Known
        };
        let first = mates.iter().find(is_held_too)?;
        Some(format!("stored, though message {} of the same key is stored, or was delivered lately", first.0))
    }

    /// A retry that must have been known was treated as if it were new.
    fn passed_by(&self, number: Number, mates: &[Number], glance: &Glance<'_>) -> Option<String> {
        let retry = &self.records[&number];
        let is_looked_up = retry.is_whole(&self.rules)
            && retry.message.body.len() <= self.rules.body_max
            && !matches!(retry.message.manner, Manner::Trailers(..));
        if !is_looked_up || !glance.is_judged {
            return None;
        }
        let first = mates.iter().find(|mate| self.memory(&self.records[*mate], retry, glance) == Memory::Known)?;
        let answer = retry.answer.unwrap_or_default();
        Some(format!(
            "answered {answer}, though message {} of the same key is stored, or was delivered lately",
            first.0
        ))
    }

    /// Whether somebody may be storing another message of its key at this moment, or died at it: for as long as that may
    /// be so, nobody can say whether this one is a retry, and it is not stored. The same for a line in which more
    /// messages are being stored than one can stand behind.
    #[must_use]
    pub fn is_contested(&self, number: Number) -> bool {
        let retry = &self.records[&number];
        let is_storing = |mate: &Record| mate.answer.is_none() || !self.is_untroubled(mate.thread, retry.sent);
        let identity = Identity::of(&retry.message, &self.rules.keys);
        let mates = identity.and_then(|identity| self.duplicates.by_identity.get(&identity)).into_iter().flatten();
        let is_its_key = mates.filter(|mate| **mate != number).any(|mate| is_storing(&self.records[mate]));
        is_its_key || self.mates(number).filter(|mate| is_storing(mate)).count() >= AHEAD_MAX
    }

    fn is_held(&self, record: &Record, glance: &Glance<'_>) -> bool {
        let id = record.acknowledged.as_ref().map(|(id, _)| id);
        id.is_some_and(|id| (glance.holder)(id) == Some(record.message.number))
    }

    /// Its record, or the bucket that its key is in, was damaged while it was there.
    fn is_in_doubt(&self, record: &Record) -> bool {
        let bucket = || Bucket::of_identity(&record.message, &self.rules);
        record.is_damaged
            || self
                .duplicates
                .damaged
                .iter()
                .any(|(damaged, at)| *at >= record.sent && bucket().as_ref() == Some(damaged))
    }

    /// Its thread stood still for so long that others may have given up the slot that it was filling.
    fn stood_still(&self, record: &Record) -> bool {
        self.stalls.get(&record.thread).is_some_and(|until| *until >= record.sent + FILLING_MAX)
    }

    fn memory(&self, first: &Record, retry: &Record, glance: &Glance<'_>) -> Memory {
        if self.is_in_doubt(first) {
            return Memory::Unsure;
        }
        let number = first.message.number;
        match self.duplicates.acknowledged_at(number) {
            None if self.was_never_stored(first, glance) => Memory::Unknown,
            Some(at) if at < retry.sent => match self.duplicates.delivered.get(&number) {
                _ if self.is_held(first, glance) => Memory::Known,
                Some(delivered) if self.jumped_at < retry.sent && !self.may_be_forgotten(first, *delivered) => {
                    let age = Duration::from_millis(glance.wall_millis.saturating_sub(delivered.wall_millis));
                    match age {
                        age if age + SLACK < REMEMBERED => Memory::Known,
                        age if age > REMEMBERED + SLACK + (glance.now - retry.sent) => Memory::Unknown,
                        _ => Memory::Unsure,
                    }
                }
                Some(_) | None => Memory::Unsure,
            },
            Some(_) | None => Memory::Unsure,
        }
    }

    /// The hour of a delivery was over by the wall clock, somebody looked then, and the clock was turned back later: whoever
    /// looks forgets what is too old.
    fn may_be_forgotten(&self, first: &Record, delivered: Reading) -> bool {
        let is_over = |wall_millis: u64| {
            let age = Duration::from_millis(wall_millis.saturating_sub(delivered.wall_millis));
            age + SLACK >= REMEMBERED
        };
        let turns =
            self.duplicates.turned_back.iter().filter(|turn| turn.at >= delivered.at && is_over(turn.wall_millis));
        turns.map(|turn| turn.at).any(|turned_at| {
            // Its sender was answered when the hour was over, or even later.
            let may_have_looked = |other: &Number| {
                let answered = self.duplicates.answered.get(other);
                self.records[other].sent <= turned_at
                    && answered.is_none_or(|read| {
                        read.at > turned_at || (read.at >= delivered.at && is_over(read.wall_millis))
                    })
            };
            let identity = Identity::of(&first.message, &self.rules.keys);
            let mates = identity.as_ref().and_then(|identity| self.duplicates.by_identity.get(identity));
            let has_looked = mates.into_iter().flatten().any(may_have_looked);
            has_looked || self.shares_its_bucket(first, turned_at)
        })
    }

    /// Another identity that was there by then is kept in the same bucket: what is written of one takes what is too old of
    /// the other with it.
    fn shares_its_bucket(&self, first: &Record, by: Moment) -> bool {
        let identity = Identity::of(&first.message, &self.rules.keys);
        let bucket = Bucket::of_identity(&first.message, &self.rules);
        let others = self.duplicates.by_identity.iter().filter(|(other, _)| Some(*other) != identity.as_ref());
        let eldest = others.filter_map(|(_, numbers)| numbers.first()).map(|number| &self.records[number]);
        eldest.filter(|other| other.sent <= by).any(|other| Bucket::of_identity(&other.message, &self.rules) == bucket)
    }

    fn was_never_stored(&self, record: &Record, glance: &Glance<'_>) -> bool {
        let is_unseen = record.attempts.is_empty() && record.answer.is_some();
        is_unseen && self.is_untroubled(record.thread, record.sent) && !self.is_held(record, glance)
    }
}
