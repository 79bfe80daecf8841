//! A duty that one VM of the process has at a time, by a short lease that anybody may take when it is over.
//!
//! Workers come first: a VM that never saw a stream may be the main thread's, which cannot reach an internal listener
//! (measured) and serves nobody. It waits longer, and yields as soon as a worker lives.

use super::Thread;
use crate::cells::{Lease, VmId};
use crate::memory::{Change, SharedMemory, update};
use crate::units::{Millis, Monotonic};

/// How long a duty is held without a renewal: what stands still meanwhile does no harm for a second.
const LEASE: Millis = Millis(1_000);
/// How long a VM that never saw a stream leaves a vacancy to the workers.
const IDLE_WAIT: Millis = Millis(1_500);

/// Who applies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applicant {
    pub vm: VmId,
    pub thread: Thread,
    /// Whether some worker was alive lately.
    pub workers: Workers,
}

/// Whether some worker was alive lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workers {
    Live,
    Silent,
}

/// One VM's hold on a duty.
#[derive(Clone, Debug, Default)]
pub(super) struct Tenancy {
    held_until: Option<Monotonic>,
    vacant_since: Option<Monotonic>,
    away_until: Monotonic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tenure {
    Mine,
    Others,
    Vacant,
}

impl Tenancy {
    pub(super) const fn is_held(&self) -> bool {
        self.held_until.is_some()
    }

    /// Takes or renews the lease in the cell `key`. Answers whether the duty is this VM's.
    pub(super) fn hold(&mut self, memory: &dyn SharedMemory, key: &str, applicant: Applicant, now: Monotonic) -> bool {
        let must_yield = applicant.thread == Thread::Unknown && applicant.workers == Workers::Live;
        if now < self.away_until || must_yield {
            self.leave(memory, key, applicant.vm, now);
            return false;
        }
        if self.held_until.is_some_and(|until| until > now.after(Millis(LEASE.0 / 2))) {
            return true;
        }
        self.apply(memory, key, applicant, now);
        self.is_held()
    }

    fn apply(&mut self, memory: &dyn SharedMemory, key: &str, applicant: Applicant, now: Monotonic) {
        let (is_mine, until) = (self.is_held(), now.after(LEASE));
        let wait = if is_mine || applicant.thread == Thread::Worker { Millis::ZERO } else { IDLE_WAIT };
        let has_waited = self.vacant_since.is_some_and(|since| now.since(since) >= wait);
        let outcome = update(memory, key, |bytes| {
            let found = bytes.and_then(|bytes| Lease::decode(bytes).ok()).filter(|lease| lease.until > now);
            match found {
                Some(lease) if lease.holder != applicant.vm => Change::Keep(Tenure::Others),
                None if !is_mine && !has_waited => Change::Keep(Tenure::Vacant),
                Some(_) | None => Change::Write(Lease { holder: applicant.vm, until }.encode(), Tenure::Mine),
            }
        });
        self.held_until = (outcome == Ok(Tenure::Mine)).then_some(until);
        self.vacant_since = match outcome {
            Ok(Tenure::Vacant) => self.vacant_since.or(Some(now)),
            Ok(Tenure::Mine | Tenure::Others) | Err(_) => None,
        };
    }

    /// Gives the duty back, and does not apply again before `until`.
    pub(super) fn stay_away(
        &mut self,
        memory: &dyn SharedMemory,
        key: &str,
        vm: VmId,
        now: Monotonic,
        until: Monotonic,
    ) {
        self.leave(memory, key, vm, now);
        self.away_until = until;
    }

    /// Gives the duty back: its lease ends now.
    pub(super) fn leave(&mut self, memory: &dyn SharedMemory, key: &str, vm: VmId, now: Monotonic) {
        if self.held_until.take().is_none() {
            return;
        }
        let outcome = update(memory, key, |bytes| match bytes.and_then(|bytes| Lease::decode(bytes).ok()) {
            Some(lease) if lease.holder == vm => Change::Write(Lease { until: now, ..lease }.encode(), ()),
            Some(_) | None => Change::Keep(()),
        });
        // If it cannot be given back, it runs out.
        outcome.unwrap_or_default();
    }
}
