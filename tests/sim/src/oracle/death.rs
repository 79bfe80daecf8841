//! How a message may end as a dead letter, and what may have cost it attempts that no receiver has seen.
//!
//! | unseen | whose |
//! | --- | --- |
//! | claimed by a VM that died or stood still before it sent | anybody's |
//! | refused behind a listener, since Envoy has no cluster of the destination | theirs that go through it (`redelivery.through`) |

use super::Oracle;
use super::record::{End, Record};
use crate::message::{Destination, Number};
use crate::violation::{Invariant, Violation};
use redeliver_core::slot::DeadReason;
use simvoy::Moment;

impl Oracle {
    /// A VM has died, or stands still, at work on redeliveries: it may have claimed messages and sent none of them, which
    /// counts as an attempt that nobody has seen.
    pub fn interrupted(&mut self) {
        self.interruptions += 1;
    }

    /// Envoy has no cluster of this destination from now on.
    pub fn removed(&mut self, destination: Destination) {
        self.absent.insert(destination, Moment(u64::MAX));
    }

    /// It has one.
    pub fn restored(&mut self, destination: Destination, now: Moment) {
        self.absent.entry(destination).and_modify(|until| *until = now.min(*until));
    }

    /// Claims of a message that may have counted and that no receiver has seen: those of VMs that died or stood still, and
    /// behind a listener those that its router had no cluster for, which it answers as an empty-handed receiver would.
    fn unseen(&self, record: &Record, claims: u32) -> usize {
        let unsent = (claims as usize).saturating_sub(record.attempts.len());
        let destination = record.message.destination;
        let has_way = self.rules_of(destination).through(destination).is_some();
        let was_absent = self.absent.get(&destination).is_some_and(|until| *until >= record.sent);
        if has_way && was_absent { unsent } else { unsent.min(self.interruptions) }
    }

    /// A message is a dead letter with this reason after so many claims, since this moment on the wall clock.
    pub fn died(&mut self, number: Number, reason: DeadReason, claims: u32, wall_millis: u64) {
        let Some(record) = self.records.get_mut(&number) else { return };
        if std::mem::replace(&mut record.is_dead, true) {
            return;
        }
        self.counts.dead += 1;
        self.order.goes_on(number, self.looked_at);
        let record = &self.records[&number];
        if record.is_damaged {
            return;
        }
        let answers = self.answers.get(&record.message.destination).copied().unwrap_or(0);
        let since = record.acknowledged.as_ref().map_or(record.sent_wall, |(_, wall)| record.sent_wall.min(*wall));
        let age_millis = wall_millis.saturating_sub(since);
        let success = record.attempts.iter().find(|attempt| self.must_be_heard(record, attempt));
        if let Some(success) = success {
            let text = format!("a dead letter ({reason}), and attempt {} was a success", success.number);
            return self.violated(Violation::of(Invariant::NothingUnexpected, number, text));
        }
        let end = End {
            age_millis,
            answers_now: answers,
            unseen: self.unseen(record, claims),
            was_interrupted: !self.is_untroubled(record.thread, record.sent),
        };
        if let Some(wrong) = record.wrong_death(reason, self.rules_of(record.message.destination), end) {
            self.violated(Violation::of(Invariant::NothingLost, number, wrong));
        }
    }
}
