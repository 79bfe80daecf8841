//! One message: what is known of it, and what must hold for each of its attempts and for its end.

use crate::message::{Destination, KEY, Message};
use crate::receiving::speech::Wish;
use crate::rules::Rules;
use redeliver_core::slot::DeadReason;
use simvoy::{CallToken, Headers, Moment, Request, ThreadId, VmId};
use std::time::Duration;

/// What became of a request at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It never saw it.
    None,
    /// It read it, and did not do what it asks for.
    Read,
    /// It did.
    Processed,
}

/// A redelivery as its receiver sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// Who sent it.
    pub vm: VmId,
    /// As what.
    pub token: CallToken,
    /// Where.
    pub destination: Destination,
    /// When.
    pub now: Moment,
    /// When, on the wall clock.
    pub wall_millis: u64,
    /// The wait that its answer will ask for.
    pub wish: Wish,
}

/// One redelivery.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// `x-redeliver-attempt`.
    pub number: u32,
    /// Who sent it, as what.
    pub call: (VmId, CallToken),
    /// When.
    pub sent: Moment,
    /// At its receiver.
    pub contact: Contact,
    /// What came back, if the filter heard it: when, and the status.
    pub heard: Option<(Moment, Option<u16>)>,
    /// Whether its VM was told its end; it may have trapped over it.
    pub was_told: bool,
    /// The status that the receiver gave, heard or not; of a call, the one that means the same.
    pub said: Option<u16>,
    /// The status of HTTP in it.
    pub code: Option<u16>,
    /// When it ends by itself: the receiver's answer, or the timeout.
    pub ends: Moment,
    /// How many answers the receiver had given by then: to tell whether it answered others meanwhile.
    pub answers_before: u64,
    /// How many answers to redeliveries its VM had heard by then from this receiver.
    pub heard_before: u64,
    /// Its VM heard the receiver answer another one while this was out.
    pub others_answered: bool,
    /// And whoever leads the destination must know that.
    pub must_count: bool,
    /// What its sender could know. Old: nobody else could know of this attempt either.
    pub knowledge: Knowledge,
    /// The wait that its answer asks for.
    pub wish: Wish,
    /// How many attempts had failed before, as its slot says; `None`: the slot could not be read.
    pub failures_before: Option<u16>,
    /// When its VM was told its end, and at which millisecond of the wall clock.
    pub told: Option<(Moment, u64)>,
    /// The slot agrees that it must not be sent again before this.
    pub kept_until: Option<Moment>,
}

impl Attempt {
    /// It failed by its receiver's own word, and by none that ends a probe badly: the next attempt may then be a probe,
    /// which does not wait.
    pub(super) fn failed_plainly(&self) -> bool {
        let is_plain = |status: &u16| matches!(status, 408 | 425 | 500..=502 | 504..=599);
        let heard = self.heard.and_then(|(_, status)| status);
        heard.is_some() && heard == self.said && heard.as_ref().is_some_and(is_plain)
    }

    /// Its VM was told of its 2xx, however late, and though it may have died over it: then the receipt may be there, and
    /// whoever comes next frees the slot.
    pub(super) fn may_have_settled(&self, rules: &Rules) -> bool {
        let came_in_time = self.ends < self.sent + rules.timeout;
        let status = match self.heard {
            Some((_, status)) => status,
            None => self.said.filter(|_| came_in_time),
        };
        self.told.is_some() && status.is_some_and(is_success)
    }
}

/// One attempt of a route for a live request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveContact {
    /// At the receiver.
    pub contact: Contact,
    /// The status that the receiver gave.
    pub said: Option<u16>,
}

/// What a redelivery's sender could know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Everything that had happened by then.
    Current,
    /// What was so before its thread stood still.
    Old,
}

/// What bears on a message's death.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// How old it was.
    pub age_millis: u64,
    /// Answers that its receiver had given by then.
    pub answers_now: u64,
    /// Claims that may have counted, and that no receiver has seen.
    pub unseen: usize,
    /// The thread that had its stream died or stood still since.
    pub was_interrupted: bool,
}

/// What is known of one message.
#[derive(Clone, Debug)]
pub struct Record {
    /// As sent.
    pub message: Message,
    /// The thread that has its stream.
    pub thread: ThreadId,
    /// When it was sent.
    pub sent: Moment,
    /// When, on the wall clock, in milliseconds.
    pub sent_wall: u64,
    /// Every byte of it has been sent.
    pub is_sent_whole: bool,
    /// Its head has left the filter before its body was whole.
    pub went_on: bool,
    /// What its sender got.
    pub answer: Option<u16>,
    /// The id in a 202, and when by the wall clock (milliseconds).
    pub acknowledged: Option<(String, u64)>,
    /// Contacts of the live request: one for each attempt of its route.
    pub live: Vec<LiveContact>,
    /// Redeliveries.
    pub attempts: Vec<Attempt>,
    /// The id and key that redeliveries carry.
    pub identity: Option<(String, String)>,
    /// Its life has ended for the filter: delivered, and heard so.
    pub is_settled: bool,
    /// It was seen as a dead letter.
    pub is_dead: bool,
    /// When it was parked, if it has not been sent since.
    pub parked: Option<Moment>,
    /// A neighbour has taken it from its live request.
    pub is_elsewhere: bool,
    /// For how long its slot was seen to be parked, by the wall clock: that does not count for its ttl.
    pub parked_for: Duration,
    /// A fault was aimed at its bytes: it may end as corrupt, and must still not arrive wrong.
    pub is_damaged: bool,
}

/// `failure.statuses`: a receiver's "not now".
pub(super) const REFUSED: u16 = 503;

/// An answer that is heard so long after its timeout is in time: the filter waits a little longer, and a thread that
/// stands still between claim and call for less than a second uses some of it up.
pub(super) const LEASE_SLACK: Duration = Duration::from_secs(1);

impl Record {
    pub(super) fn times_processed(&self) -> usize {
        let live = self.live.iter().filter(|live| live.contact == Contact::Processed).count();
        live + self.attempts.iter().filter(|attempt| attempt.contact == Contact::Processed).count()
    }

    /// Its receiver has said so.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.said.is_some_and(is_success))
    }

    pub(super) fn wrong_place(&self, sighting: &Sighting) -> Option<String> {
        let is_wrong = sighting.destination != self.message.destination;
        is_wrong.then(|| format!("arrived at {}", sighting.destination.cluster()))
    }

    /// The id and the key are the same on every attempt, and the id is the one that the sender has.
    pub(super) fn wrong_identity(&self, request: &Request) -> Option<String> {
        let id = request.headers.text("x-redeliver-id").unwrap_or_default();
        let key = request.headers.first(KEY).map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default();
        if let Some((acknowledged, _)) = &self.acknowledged
            && acknowledged != id
        {
            return Some(format!("id {id}, and the sender was told {acknowledged}"));
        }
        let sent = self.message.headers.first(KEY).map(|key| String::from_utf8_lossy(key).into_owned());
        if key.is_empty() || sent.is_some_and(|sent| sent != key) {
            return Some(format!("idempotency key {key:?}"));
        }
        match &self.identity {
            Some(known) if *known != (id.to_owned(), key.clone()) && !self.is_damaged => {
                Some(format!("id and key are {id} and {key}; they were {known:?}"))
            }
            Some(_) | None => None,
        }
    }

    /// The number of the attempt rises. (A thread that stood still before it sent says a number that has been overtaken.)
    pub(super) fn number_behind(&self, request: &Request) -> Option<String> {
        let before = self.attempts.iter().map(|attempt| attempt.number).max().unwrap_or(0);
        let number = header_number(&request.headers, "x-redeliver-attempt").unwrap_or(0);
        (number <= before && !self.is_damaged).then(|| format!("attempt {number} after attempt {before}"))
    }

    /// A live request that was processed is stored only if a repeat does no harm (contract, section 5). Where the route
    /// tries again by itself, its operator has called a repeat harmless, and the last receiver's word counts: a refusal.
    pub(super) fn unsafe_repeat(&self, rules: &Rules) -> Option<String> {
        let was_processed = self.live.iter().any(|live| live.contact == Contact::Processed);
        let was_refused = self.live.last().is_some_and(|live| live.said == Some(REFUSED));
        (was_processed && !was_refused && !self.may_be_repeated(rules))
            .then(|| "the live request was processed, and a repeat does harm".to_owned())
    }

    /// Nothing is sent after it had expired or was a dead letter.
    pub(super) fn after_the_end(&self, sighting: &Sighting, rules: &Rules) -> Option<String> {
        if self.is_dead && !self.is_damaged {
            return Some("sent again after it was a dead letter".to_owned());
        }
        let (_, since) = self.acknowledged.as_ref()?;
        let age = Duration::from_millis(sighting.wall_millis.saturating_sub(*since));
        let parked = self.parked_for;
        (age.saturating_sub(parked) > rules.ttl + Duration::from_secs(1)).then(|| {
            format!("sent {age:?} after its 202, of which it was parked for {parked:?}; its ttl is {:?}", rules.ttl)
        })
    }

    /// Another attempt after the filter had heard a 2xx, be it late: a receipt outlives every lease.
    pub(super) fn causeless_repeat(&self, sighting: &Sighting) -> Option<String> {
        let settled = self.attempts.iter().find(|attempt| {
            let success = attempt.heard.filter(|(_, status)| status.is_some_and(is_success));
            // A late attempt held no lease: another VM may have claimed the message before it was heard.
            let slack = if attempt.knowledge == Knowledge::Old { Duration::from_secs(1) } else { Duration::ZERO };
            success.is_some_and(|(heard, _)| heard + slack < sighting.now)
        })?;
        (!self.is_damaged).then(|| format!("sent again though attempt {} was answered 2xx", settled.number))
    }

    /// Another attempt after `max_attempts` that failed for certain: the receiver, or what broke off, was heard in time.
    pub(super) fn one_too_many(&self, rules: &Rules) -> Option<String> {
        let has_failed = |attempt: &&Attempt| {
            let Some((heard, status)) = attempt.heard else { return false };
            let is_in_time =
                heard <= attempt.sent + rules.timeout + LEASE_SLACK && attempt.knowledge == Knowledge::Current;
            // One that is parked for it is no failure.
            let is_parked = rules.receiving.parks && matches!(attempt.said, Some(401 | 403)) && attempt.said == status;
            let is_genuine = (attempt.contact != Contact::None || attempt.must_count) && !is_parked;
            is_in_time && is_genuine && !status.is_some_and(is_success)
        };
        let failed = self.attempts.iter().filter(has_failed).count();
        (failed >= rules.attempts_max as usize && !self.is_damaged)
            .then(|| format!("sent again after {failed} failed attempts; max_attempts is {}", rules.attempts_max))
    }

    /// Another attempt while the one before has neither ended nor run out.
    pub(super) fn second_lease(&self, sighting: &Sighting, rules: &Rules) -> Option<String> {
        let out = self.attempts.iter().find(|attempt| {
            !attempt.was_told && attempt.knowledge == Knowledge::Current && sighting.now < attempt.sent + rules.timeout
        })?;
        (!self.is_damaged).then(|| format!("sent while attempt {} of {} is out", out.number, out.sent))
    }

    /// Why this record should not have died of that.
    pub(super) fn wrong_death(&self, reason: DeadReason, rules: &Rules, end: End) -> Option<String> {
        let said = |wanted: fn(u16) -> bool| self.attempts.iter().filter_map(|attempt| attempt.said).any(wanted);
        let is_right = match reason {
            DeadReason::Rejected => said(|s| (300..500).contains(&s) && !matches!(s, 408 | 425 | 429)),
            DeadReason::Expired => Duration::from_millis(end.age_millis) >= rules.ttl,
            DeadReason::Attempts => {
                self.genuine_failures(rules, end.answers_now) + end.unseen >= rules.attempts_max as usize
            }
            DeadReason::Corrupt => false,
            // Its VM died before the end of its stream, when the routed form of a request is read whose headers had left
            // the filter by the time of its failure.
            DeadReason::Unstorable => {
                let had_left = self.message.body.is_empty() || rules.mode == crate::rules::Mode::Stream;
                self.attempts.is_empty() && had_left && end.was_interrupted
            }
        };
        (!is_right).then(|| {
            format!("a dead letter ({reason}) after {} attempts, aged {} ms", self.attempts.len(), end.age_millis)
        })
    }

    /// Attempts that may count: all but those which nobody answered while nobody was answered.
    fn genuine_failures(&self, rules: &Rules, answers_now: u64) -> usize {
        let next = self.attempts.iter().skip(1).map(|attempt| attempt.answers_before).chain([answers_now]);
        let counted = self.attempts.iter().zip(next).filter(|(attempt, answers_after)| {
            let others_answered = attempt.others_answered || *answers_after > attempt.answers_before;
            // An answer that nobody heard in time ends its lease, whatever it says.
            let lease = rules.timeout + LEASE_SLACK * 2;
            let is_late = attempt.heard.is_none_or(|(heard, _)| heard > attempt.sent + lease);
            attempt.contact != Contact::None || is_late || attempt.knowledge == Knowledge::Old || others_answered
        });
        counted.count()
    }
}

pub(super) fn header_number(headers: &Headers, name: &str) -> Option<u32> {
    headers.text(name)?.parse().ok()
}

pub(super) fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}
