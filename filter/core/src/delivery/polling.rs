//! Polling: one VM of the process asks the active health source, and writes down what it says for all.
//!
//! A duty of its own, apart from housekeeping, because its holder must reach the source, and not every thread can: one
//! whose polls do not get through hands over and stays away for a while. If none can reach it, verdicts grow old and the
//! passive rules apply.

use super::tenancy::Tenancy;
use super::{Delivery, Thread, note};
use crate::cells::Observation;
use crate::config::HealthSource;
use crate::delivery::sending::Reply;
use crate::effect::{Call, Dispatch, Effect, Level};
use crate::health::{self, Poll};
use crate::memory::{Expect, SharedMemory};
use crate::slot::DestinationIndex;
use crate::units::{Millis, Monotonic};
use std::collections::BTreeSet;

/// How long a VM stays away after its polls did not get through.
const STAY_AWAY: Millis = Millis(10_000);
/// Polls in a row that must fail before the duty is handed over: one may be bad luck.
const FAILED_POLLS_MAX: u32 = 2;

/// What the poller remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Polling {
    tenancy: Tenancy,
    polled_at: Option<Monotonic>,
    asked: BTreeSet<DestinationIndex>,
    asked_admin: bool,
    /// Polls in a row that did not get through.
    failed: u32,
    /// Whether the log has been told since the source was last reached.
    has_complained: bool,
}

impl Polling {
    fn reached(&mut self) {
        self.failed = 0;
        self.has_complained = false;
    }
}

impl Delivery {
    /// Asks the active source once per interval, if this VM has the duty. A question that is still out is not asked again.
    pub(super) fn poll(&mut self, memory: &dyn SharedMemory, now: Monotonic, effects: &mut Vec<Effect>) {
        if self.config.health.source == HealthSource::Passive || !self.hold_polling(memory, now) {
            return;
        }
        let health = &self.config.health;
        if self.polling.polled_at.is_some_and(|at| now.since(at) < health.interval) {
            return;
        }
        self.polling.polled_at = Some(now);
        match health.source {
            HealthSource::Passive => {}
            HealthSource::HealthCheckFilter => self.poll_health_checks(effects),
            HealthSource::Admin => {
                if !std::mem::replace(&mut self.polling.asked_admin, true) {
                    effects.push(self.question(Call::AdminStats, health::ADMIN_PATH.to_owned()));
                }
            }
        }
    }

    fn poll_health_checks(&mut self, effects: &mut Vec<Effect>) {
        for (place, cluster) in self.names.iter().enumerate() {
            let Ok(place) = u16::try_from(place) else { return };
            let destination = DestinationIndex(place);
            // A place that lost its name: nothing goes there.
            if cluster.0.is_empty() {
                continue;
            }
            if self.polling.asked.insert(destination) {
                let path = health::health_check_path(&self.config.health, cluster);
                effects.push(self.question(Call::HealthCheck(destination), path));
            }
        }
    }

    fn question(&self, call: Call, path: String) -> Effect {
        let health = &self.config.health;
        Effect::Dispatch(Box::new(Dispatch {
            call,
            cluster: health.cluster.clone(),
            headers: health::request(health, path),
            body: Vec::new(),
            timeout: health::timeout(health),
        }))
    }

    /// A question could not even be sent.
    pub(super) fn poll_failed(
        &mut self,
        memory: &dyn SharedMemory,
        call: Call,
        now: Monotonic,
        effects: &mut Vec<Effect>,
    ) {
        match call {
            Call::HealthCheck(destination) => {
                self.polling.asked.remove(&destination);
            }
            Call::AdminStats => self.polling.asked_admin = false,
            Call::Attempt(_) | Call::LapsedAttempt(_) => {}
        }
        self.unreachable(memory, now, effects);
    }

    fn hold_polling(&mut self, memory: &dyn SharedMemory, now: Monotonic) -> bool {
        let applicant = self.applicant(memory, now);
        let is_held = self.polling.tenancy.hold(memory, &self.keys.polling(), applicant, now);
        if !is_held {
            self.polling.failed = 0;
            self.polling.asked.clear();
            self.polling.asked_admin = false;
        }
        is_held
    }

    /// Gives the duty back: its lease ends now.
    pub(super) fn leave_polling(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        self.polling.tenancy.leave(memory, &self.keys.polling(), self.vm, now);
    }

    fn unreachable(&mut self, memory: &dyn SharedMemory, now: Monotonic, effects: &mut Vec<Effect>) {
        self.polling.failed = self.polling.failed.saturating_add(1);
        if self.polling.failed < FAILED_POLLS_MAX {
            return;
        }
        let until = now.after(STAY_AWAY);
        self.polling.tenancy.stay_away(memory, &self.keys.polling(), self.vm, now, until);
        // A VM that never saw a stream may be the main thread's, which cannot reach an internal listener: no news.
        if self.thread == Thread::Worker && !std::mem::replace(&mut self.polling.has_complained, true) {
            let text = format!(
                "health.cluster {} cannot be reached from this thread, another one tries; if none can, the passive rules \
                 apply: check that the cluster exists and that its listener answers",
                self.config.health.cluster
            );
            effects.push(note(Level::Warn, text));
        }
    }

    pub(super) fn health_checked(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        reply: &Reply<'_>,
        now: Monotonic,
        effects: &mut Vec<Effect>,
    ) {
        self.polling.asked.remove(&destination);
        self.polled(memory, destination, health::read_health_check(&reply.headers), now, effects);
    }

    pub(super) fn admin_answered(
        &mut self,
        memory: &dyn SharedMemory,
        reply: &Reply<'_>,
        now: Monotonic,
        effects: &mut Vec<Effect>,
    ) {
        self.polling.asked_admin = false;
        if reply.headers.first(":status") != Some(b"200") {
            return self.unreachable(memory, now, effects);
        }
        let text = (reply.body)();
        let percent = self.config.health.healthy_percent_min;
        let polls: Vec<Poll> =
            self.names.iter().map(|cluster| health::read_admin_stats(&text, cluster, percent)).collect();
        for (place, poll) in (0..).zip(polls) {
            self.polled(memory, DestinationIndex(place), poll, now, effects);
        }
    }

    fn polled(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        poll: Poll,
        now: Monotonic,
        effects: &mut Vec<Effect>,
    ) {
        match poll {
            Poll::Says(verdict) => {
                self.polling.reached();
                let before = self.observation(memory, destination);
                let observation = Observation::following(before, verdict, now);
                // The poller is the only writer; a second one for a moment says the same.
                memory
                    .set(&self.keys.verdict(destination), &observation.encode(), Expect::Anything)
                    .unwrap_or_default();
            }
            Poll::Unknown => self.polling.reached(),
            Poll::Unreachable => self.unreachable(memory, now, effects),
        }
    }
}
