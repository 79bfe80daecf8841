//! Polling: one VM of the process asks the active health source, and writes down what it says for all.
//!
//! A duty of its own, apart from housekeeping, because its holder must reach the source, and not every thread can: one
//! whose polls do not get through hands over and stays away for a while. If none can reach it, verdicts grow old and the
//! passive rules apply.

use super::tenancy::Tenancy;
use super::{Delivery, Thread, note};
use crate::cells::Observation;
use crate::config::{Health, HealthSource};
use crate::delivery::sending::Reply;
use crate::effect::{Call, Dispatch, Effect, Level};
use crate::health::{self, Poll};
use crate::memory::{Expect, SharedMemory};
use crate::slot::DestinationIndex;
use crate::units::{ClusterName, Millis, Monotonic};
use litemap::LiteMap;

/// How long a VM stays away after its polls did not get through.
const STAY_AWAY: Millis = Millis(10_000);
/// Polls in a row that must fail before the duty is handed over: one may be bad luck.
const FAILED_POLLS_MAX: u32 = 2;

/// What the poller remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Polling {
    tenancy: Tenancy,
    polled_at: LiteMap<DestinationIndex, Monotonic>,
    asked: LiteMap<DestinationIndex, ()>,
    /// Few: destinations can have sources of their own.
    sources: Vec<Source>,
    /// When a poll got through to any.
    reached_at: Option<Monotonic>,
}

/// A health source, known by its cluster.
#[derive(Clone, Debug)]
struct Source {
    cluster: ClusterName,
    admin: Admin,
    /// Polls in a row that did not get through.
    failed: u32,
    /// Whether the log has been told since it was last reached.
    has_complained: bool,
}

/// Whether a question to an admin port is out: its answer is about all destinations that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admin {
    Quiet,
    Asked,
}

impl Polling {
    fn source(&mut self, cluster: &ClusterName) -> Option<&mut Source> {
        if !self.sources.iter().any(|source| source.cluster == *cluster) {
            let cluster = cluster.clone();
            self.sources.push(Source { cluster, admin: Admin::Quiet, failed: 0, has_complained: false });
        }
        self.sources.iter_mut().find(|source| source.cluster == *cluster)
    }

    /// Notes whether a question to this admin port is out. Answers what was noted before.
    fn admin(&mut self, cluster: &ClusterName, admin: Admin) -> Admin {
        self.source(cluster).map_or(Admin::Quiet, |source| std::mem::replace(&mut source.admin, admin))
    }

    fn reached(&mut self, cluster: &ClusterName, now: Monotonic) {
        self.reached_at = Some(now);
        if let Some(source) = self.source(cluster) {
            (source.failed, source.has_complained) = (0, false);
        }
    }

    /// Whether no source was reached of late; that one of several is away is no reason to hand over.
    fn is_cut_off(&self, interval: Millis, now: Monotonic) -> bool {
        self.reached_at.is_none_or(|at| now.since(at) >= interval.times(2))
    }
}

impl Delivery {
    /// Asks the active sources once per interval, if this VM has the duty. A question that is still out is not asked again.
    pub(super) fn poll(&mut self, memory: &dyn SharedMemory, now: Monotonic, effects: &mut Vec<Effect>) {
        let is_passive = self.config.policies().all(|policy| policy.health.source == HealthSource::Passive);
        if is_passive || !self.hold_polling(memory, now) {
            return;
        }
        for place in 0..self.names.len() {
            let Ok(place) = u16::try_from(place) else { return };
            self.poll_one(DestinationIndex(place), now, effects);
        }
    }

    fn poll_one(&mut self, destination: DestinationIndex, now: Monotonic, effects: &mut Vec<Effect>) {
        // A place that lost its name: nothing goes there.
        let Some(cluster) = self.name(destination).filter(|name| !name.0.is_empty()).cloned() else { return };
        let policy = self.config.of(&cluster).clone();
        let health = &policy.health;
        let is_early = self.polling.polled_at.get(&destination).is_some_and(|at| now.since(*at) < health.interval);
        if is_early || health.source == HealthSource::Passive {
            return;
        }
        self.polling.polled_at.insert(destination, now);
        match health.source {
            HealthSource::Passive => {}
            HealthSource::HealthCheckFilter => {
                if self.polling.asked.insert(destination, ()).is_none() {
                    let path = health::health_check_path(health, &cluster);
                    effects.push(question(Call::HealthCheck(destination), health, path));
                }
            }
            HealthSource::Admin => {
                if self.polling.admin(&health.cluster, Admin::Asked) == Admin::Quiet {
                    effects.push(question(Call::AdminStats(destination), health, health::ADMIN_PATH.to_owned()));
                }
            }
        }
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
                self.unreachable(memory, destination, now, effects);
            }
            Call::AdminStats(destination) => {
                let policy = self.policy(destination);
                self.polling.admin(&policy.health.cluster, Admin::Quiet);
                self.unreachable(memory, destination, now, effects);
            }
            Call::Attempt(_) | Call::LapsedAttempt(_) => {}
        }
    }

    fn hold_polling(&mut self, memory: &dyn SharedMemory, now: Monotonic) -> bool {
        let applicant = self.applicant(memory, now);
        let is_held = self.polling.tenancy.hold(memory, &self.keys.polling(), applicant, now);
        if !is_held {
            self.polling.asked.clear();
            self.polling.reached_at = None;
            for source in &mut self.polling.sources {
                (source.admin, source.failed) = (Admin::Quiet, 0);
            }
        }
        is_held
    }

    /// Gives the duty back: its lease ends now.
    pub(super) fn leave_polling(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        self.polling.tenancy.leave(memory, &self.keys.polling(), self.vm, now);
    }

    fn unreachable(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        now: Monotonic,
        effects: &mut Vec<Effect>,
    ) {
        let policy = self.policy(destination);
        let (health, thread) = (&policy.health, self.thread);
        let Some(source) = self.polling.source(&health.cluster) else { return };
        source.failed = source.failed.saturating_add(1);
        if source.failed < FAILED_POLLS_MAX {
            return;
        }
        // A VM that never saw a stream may be the main thread's, which cannot reach an internal listener: no news.
        if thread == Thread::Worker && !std::mem::replace(&mut source.has_complained, true) {
            let text = format!(
                "health.cluster {} cannot be reached from this thread, another one tries; if none can, the passive rules \
                 apply: check that the cluster exists and that its listener answers",
                health.cluster
            );
            effects.push(note(Level::Warn, text));
        }
        if self.polling.is_cut_off(health.interval, now) {
            let until = now.after(STAY_AWAY);
            self.polling.tenancy.stay_away(memory, &self.keys.polling(), self.vm, now, until);
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

    /// The admin port that was asked for `destination` has answered: for all destinations whose source it is.
    pub(super) fn admin_answered(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        reply: &Reply<'_>,
        now: Monotonic,
        effects: &mut Vec<Effect>,
    ) {
        let source = self.policy(destination).health.cluster.clone();
        self.polling.admin(&source, Admin::Quiet);
        if reply.headers.first(":status") != Some(b"200") {
            return self.unreachable(memory, destination, now, effects);
        }
        let text = (reply.body)();
        let poll = |cluster: &ClusterName| {
            let health = &self.config.of(cluster).health;
            let is_asked = health.source == HealthSource::Admin && health.cluster == source;
            is_asked.then(|| health::read_admin_stats(&text, cluster, health.healthy_percent_min))
        };
        let polls: Vec<Option<Poll>> = self.names.iter().map(poll).collect();
        for (place, poll) in (0..).zip(polls) {
            if let Some(poll) = poll {
                self.polled(memory, DestinationIndex(place), poll, now, effects);
            }
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
        let policy = self.policy(destination);
        match poll {
            Poll::Says(verdict) => {
                self.polling.reached(&policy.health.cluster, now);
                let before = self.observation(memory, destination);
                let observation = Observation::following(before, verdict, now);
                // The poller is the only writer; a second one for a moment says the same.
                memory
                    .set(&self.keys.verdict(destination), &observation.encode(), Expect::Anything)
                    .unwrap_or_default();
            }
            Poll::Unknown => self.polling.reached(&policy.health.cluster, now),
            Poll::Unreachable => self.unreachable(memory, destination, now, effects),
        }
    }
}

fn question(call: Call, health: &Health, path: String) -> Effect {
    Effect::Dispatch(Box::new(Dispatch {
        call,
        cluster: health.cluster.clone(),
        headers: health::request(health, path),
        body: Vec::new(),
        timeout: health::timeout(health),
    }))
}
