//! How an attempt ends, against the contract's table of answers: what the slot says once the filter has heard the answer,
//! and what may go out after it.
//!
//! | heard | the slot then |
//! | --- | --- |
//! | 2xx | is free |
//! | 408, 425, 429, 5xx; Envoy's word that something went out | waits, one more attempt counted; or a dead letter: attempts |
//! | Envoy's word that nothing went out | waits; counted only if the receiver answered others meanwhile |
//! | 401, 403 | a dead letter: rejected; or parked |
//! | other 3xx, 4xx | a dead letter: rejected |
//!
//! It waits for its backoff, or for as long as it was asked to, whichever is longer; the wish is capped at `backoff.max`.

use super::record::{LEASE_SLACK, Record, is_success};
use super::{Attempt, Contact, Knowledge, Oracle, Sighting};
use crate::message::Number;
use crate::rules::Rules;
use crate::violation::{Invariant, Violation};
use redeliver_core::slot::{DeadReason, Head, SlotState};
use simvoy::{CallToken, Moment, VmId};
use std::time::Duration;

/// What is in a message's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing of it.
    Gone,
    /// This.
    Slot(Head),
}

/// Whether a write that met others may have been given up: compare-and-sets are made to fail just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// They succeed.
    Calm,
    /// They may not.
    Contended,
}

/// A configuration that comes or goes reaches a thread that stands still when it comes back (30 s at most).
const CONFIGURED_LATE: Duration = Duration::from_secs(40);

/// What an attempt's end asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    Rejected,
    Unauthorized,
    /// It is tried again, and this attempt counts.
    Counts,
    /// It is tried again, and whether this attempt counts hangs on others.
    NotReached,
}

impl Verdict {
    fn of(attempt: &Attempt, status: Option<u16>) -> Self {
        let is_receivers = attempt.said.is_some() && attempt.said == status;
        match status {
            Some(status) if is_receivers && is_success(status) => Self::Delivered,
            Some(401 | 403) if is_receivers => Self::Unauthorized,
            Some(408 | 425 | 429 | 500..=599) if is_receivers => Self::Counts,
            Some(_) if is_receivers => Self::Rejected,
            Some(_) if attempt.contact == Contact::None => Self::NotReached,
            Some(_) | None => Self::Counts,
        }
    }
}

impl Oracle {
    /// A redelivery goes out, and its slot says that so many attempts had failed before.
    pub fn claimed(&mut self, call: (VmId, CallToken), failures: u16) {
        self.claims.insert(call, failures);
    }

    /// The id of the message that this call is an attempt of.
    #[must_use]
    pub fn id_of(&self, call: (VmId, CallToken)) -> Option<String> {
        let record = self.calls.get(&call).and_then(|number| self.records.get(number))?;
        record.identity.as_ref().map(|(id, _)| id.clone())
    }

    /// What an attempt's slot says when the filter has heard its end.
    pub fn ended(&mut self, call: (VmId, CallToken), seen: Seen, writes: Writes) {
        let Some(number) = self.calls.get(&call).copied() else { return };
        let Some(record) = self.records.get(&number) else { return };
        let Some(attempt) = record.attempts.iter().find(|attempt| attempt.call == call) else { return };
        if !self.is_end_judged(record, attempt) {
            return;
        }
        let rules = self.rules_of(record.message.destination);
        let is_another = |other: &&Attempt| other.call != call;
        if seen == Seen::Gone && record.attempts.iter().filter(is_another).any(|other| other.may_have_settled(rules)) {
            return;
        }
        match End::read(attempt, seen, rules, writes) {
            End::Right => {}
            End::Waits(until) => self.change(number, call, |attempt| attempt.kept_until = Some(until)),
            End::Parked(at) => {
                if let Some(record) = self.records.get_mut(&number) {
                    record.parked = Some(at);
                }
            }
            End::Wrong(text) => self.violated(Violation::of(Invariant::Paced, number, text)),
        }
    }

    fn change(&mut self, number: Number, call: (VmId, CallToken), change: impl FnOnce(&mut Attempt)) {
        let attempts = self.records.get_mut(&number).map(|record| &mut record.attempts);
        if let Some(attempt) = attempts.and_then(|all| all.iter_mut().find(|attempt| attempt.call == call)) {
            change(attempt);
        }
    }

    /// The slot shows what the filter made of the answer if the lease still was its own when it had done so, nobody could act
    /// on it since, and nobody has damaged anything.
    fn is_end_judged(&self, record: &Record, attempt: &Attempt) -> bool {
        let (Some((told, _)), Some((heard, _))) = (attempt.told, attempt.heard) else { return false };
        let is_in_time = heard <= attempt.sent + self.rules_of(record.message.destination).timeout + LEASE_SLACK;
        // What takes longer may have been overtaken: the end is written first, and its callback goes on.
        let took_no_time = heard == told && self.jumped_at < told;
        is_in_time
            && took_no_time
            && attempt.knowledge == Knowledge::Current
            && !record.is_damaged
            && self.doubt_until <= heard
    }

    /// Another attempt before the wait is over that the receiver asked for. Only a probe of a leader that has not heard the
    /// wish may come sooner: what was asked is in the slot as a due time, and probes do not go by those.
    pub(super) fn asked_too_soon(&self, record: &Record, sighting: &Sighting) -> Option<String> {
        let last = record.attempts.last()?;
        let until = last.kept_until.filter(|until| sighting.now < *until)?;
        let is_other_term = last.call.0 != sighting.vm || self.disturbed_at >= last.sent;
        let is_excused = record.is_damaged || (is_other_term && self.may_probe(sighting));
        (!is_excused)
            .then(|| format!("sent again {:?} before the wait is over that was asked for", until - sighting.now))
    }

    /// Another attempt of a parked message, with the configuration under which it was parked.
    pub(super) fn after_parking(&self, record: &Record) -> Option<String> {
        let parked = record.parked.filter(|parked| self.configured_at + CONFIGURED_LATE < *parked)?;
        // Which configuration rules stands in a cell.
        let is_excused = record.is_damaged || self.doubt_until >= parked;
        (!is_excused).then(|| format!("sent again though it was parked at {parked}"))
    }
}

/// What the slot says, judged.
enum End {
    Right,
    /// It must not be sent before.
    Waits(Moment),
    Parked(Moment),
    Wrong(String),
}

impl End {
    fn read(attempt: &Attempt, seen: Seen, rules: &Rules, writes: Writes) -> Self {
        let status = attempt.heard.and_then(|(_, status)| status);
        let verdict = Verdict::of(attempt, status);
        let wrong =
            |what: &str| Self::Wrong(format!("{what} after attempt {} was answered {status:?}", attempt.number));
        let head = match (seen, verdict) {
            (Seen::Gone, Verdict::Delivered) => return Self::Right,
            (Seen::Gone, _) => return wrong("gone"),
            (Seen::Slot(head), _) => head,
        };
        // Somebody has claimed it since, or its end could not be written.
        if u32::from(head.sends) != attempt.number {
            return Self::Right;
        }
        match (verdict, head.state) {
            (_, SlotState::Sending { .. }) if writes == Writes::Contended => Self::Right,
            // Another VM may have looked at its age in the same moment; whether it was old enough is judged with the rest.
            (_, SlotState::Dead { reason: DeadReason::Expired }) => Self::Right,
            (Verdict::Rejected, SlotState::Dead { reason: DeadReason::Rejected }) => Self::Right,
            (Verdict::Unauthorized, SlotState::Dead { reason: DeadReason::Rejected }) if !rules.receiving.parks => {
                Self::Right
            }
            (Verdict::Unauthorized, SlotState::Parked { .. }) if rules.receiving.parks => {
                attempt.heard.map_or(Self::Right, |(at, _)| Self::Parked(at))
            }
            (Verdict::Counts | Verdict::NotReached, state) => again(attempt, verdict, head, state, rules),
            (_, state) => wrong(&format!("{state:?}")),
        }
    }
}

/// A failure that is tried again, or was the last.
fn again(attempt: &Attempt, verdict: Verdict, head: Head, state: SlotState, rules: &Rules) -> End {
    let status = attempt.heard.and_then(|(_, status)| status);
    let wrong = |text: String| End::Wrong(format!("attempt {}, answered {status:?}: {text}", attempt.number));
    let Some(before) = attempt.failures_before else { return End::Right };
    let may_count = verdict == Verdict::Counts || attempt.others_answered;
    match state {
        SlotState::Dead { reason: DeadReason::Attempts }
            if may_count && u32::from(before) + 1 >= rules.attempts_max =>
        {
            End::Right
        }
        SlotState::Queued { due } => {
            let counted = head.attempts.saturating_sub(before);
            let is_right = counted == 1 && may_count || counted == 0 && verdict == Verdict::NotReached;
            if !is_right || head.attempts < before || u32::from(head.attempts) >= rules.attempts_max {
                return wrong(format!("{before} failed before, and {} have now", head.attempts));
            }
            wait(attempt, verdict, head.attempts, Moment::millis(due.0), rules)
        }
        SlotState::Free
        | SlotState::Filling { .. }
        | SlotState::Opening { .. }
        | SlotState::Sending { .. }
        | SlotState::Parked { .. }
        | SlotState::Dead { .. } => wrong(format!("{state:?}")),
    }
}

/// Whether it waits as long as it should: its backoff, or what it was asked for.
fn wait(attempt: &Attempt, verdict: Verdict, failures: u16, due: Moment, rules: &Rules) -> End {
    let (Some((told, wall)), Some((heard, status))) = (attempt.told, attempt.heard) else { return End::Right };
    let is_receivers = verdict == Verdict::Counts && attempt.said == status;
    let asked = attempt.wish.wait(wall).filter(|_| is_receivers).map(|wait| wait.min(rules.backoff_max));
    let (least, most) = rules.backoff_bounds(usize::from(failures.max(1)));
    let (least, most) = match asked {
        Some(asked) => (least.max(asked), most.max(Rules::jittered_up(asked))),
        None => (least, most),
    };
    // Clocks are read in whole milliseconds.
    let tick = Duration::from_millis(1);
    if due + tick < told + least || due > heard + most + tick {
        let text = format!(
            "attempt {} was told {status:?} at {told} and waits until {due}: asked for {:?}, and {least:?} to {most:?} are right",
            attempt.number, attempt.wish
        );
        return End::Wrong(text);
    }
    asked.map_or(End::Right, |asked| End::Waits(Moment((told + asked).0.saturating_sub(tick.as_nanos() as u64))))
}
