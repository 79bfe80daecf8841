//! Clusters as Envoy sees them: how many hosts, how many healthy, how much is out, and what that means for a request.
//!
//! Envoy's own verdict about health is a number here that a test sets; whether the receiver agrees is the receiver's
//! business ([`crate::Receivers`]).

use crate::ids::ThreadId;
use std::collections::BTreeMap;

/// Concurrent requests to a cluster unless it says otherwise (Envoy's default circuit breaker; PLATFORM 1.5).
pub const REQUESTS_MAX: u32 = 1_024;

/// Who answers for a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// A receiver of the test.
    #[default]
    Receiver,
    /// An internal listener with a health check filter per cluster. Workers reach it, the main thread does not
    /// (PLATFORM 0, row "An internal listener").
    HealthListener,
    /// The admin port: membership gauges.
    Admin,
    /// An internal listener with the routes of all others. A request to it is a stream there, on the thread that sends it,
    /// and what the stream ends with is its answer. Workers reach it, the main thread does not.
    Listener(Chain),
}

/// The filters of an internal listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The router alone.
    Router,
    /// The plugin before it, as the listener that takes new connections has it.
    Plugin,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Who answers.
    pub upstream: Upstream,
    /// Endpoints.
    pub hosts: u32,
    /// Endpoints that Envoy calls healthy.
    pub healthy: u32,
    /// Requests that may be out at once, live ones and dispatches together.
    pub requests_max: u32,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { upstream: Upstream::Receiver, hosts: 1, healthy: 1, requests_max: REQUESTS_MAX }
    }
}

impl Cluster {
    /// A cluster that the process answers for itself.
    #[must_use]
    pub fn internal(upstream: Upstream) -> Self {
        Self { upstream, ..Self::default() }
    }
}

/// What a request to a cluster meets before anything goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may go out.
    Out,
    /// No such cluster.
    Unknown,
    /// No endpoint, or none that is healthy.
    NoHealthyHost,
    /// The circuit breaker is full, and a connection is idle: Envoy says so at once.
    Overflow,
    /// The circuit breaker is full, which Envoy finds out when the new connection is there
    /// (`dispatch::breaker_full`, `failure::overflow`).
    OverflowLater,
}

/// What the admin port was told last (PLATFORM 0, row "healthcheck/fail").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthChecks {
    /// `POST /healthcheck/ok`, or nothing yet.
    #[default]
    Answered,
    /// `POST /healthcheck/fail`: every answer of the health listener is a 503 with `x-envoy-immediate-health-check-fail`.
    Failed,
}

/// What is under way to a cluster. It outlives the cluster's configuration: Envoy keeps it when a cluster is updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    /// Requests that are out.
    out: u32,
    /// Threads with an idle connection, one bit each; more than one per thread is not kept in mind.
    idle: u64,
}

/// All clusters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clusters {
    by_name: BTreeMap<String, (Cluster, Usage)>,
    /// What the health listener answers.
    pub health_checks: HealthChecks,
}

impl Clusters {
    pub(crate) fn get(&self, name: &str) -> Option<&Cluster> {
        self.by_name.get(name).map(|(cluster, _)| cluster)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Cluster> {
        self.by_name.get_mut(name).map(|(cluster, _)| cluster)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Cluster)> {
        self.by_name.iter().map(|(name, (cluster, _))| (name.as_str(), cluster))
    }

    /// Adds a cluster, or another configuration of one: what is under way to it still is.
    pub(crate) fn set(&mut self, name: &str, cluster: Cluster) {
        self.by_name.entry(name.to_owned()).or_default().0 = cluster;
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// Whether a request may go out; if so it counts as out until [`Clusters::back`].
    pub(crate) fn admit(&mut self, name: &str, thread: ThreadId) -> Admission {
        let Some((cluster, usage)) = self.by_name.get_mut(name) else { return Admission::Unknown };
        if cluster.healthy == 0 {
            return Admission::NoHealthyHost;
        }
        let bit = bit_of(thread);
        if usage.out >= cluster.requests_max {
            let is_idle = usage.idle & bit != 0;
            usage.idle |= bit;
            return if is_idle { Admission::Overflow } else { Admission::OverflowLater };
        }
        usage.idle &= !bit;
        usage.out += 1;
        Admission::Out
    }

    fn usage(&mut self, name: &str) -> Option<&mut Usage> {
        self.by_name.get_mut(name).map(|(_, usage)| usage)
    }

    /// A whole answer has come: the connection is idle now.
    pub(crate) fn idles(&mut self, name: &str, thread: ThreadId) {
        if let Some(usage) = self.usage(name) {
            usage.idle |= bit_of(thread);
        }
    }

    /// A request that was not admitted counts as out all the same, until [`Clusters::back`].
    pub(crate) fn take(&mut self, name: &str) {
        if let Some(usage) = self.usage(name) {
            usage.out = usage.out.saturating_add(1);
        }
    }

    /// A request is not out any more.
    pub(crate) fn back(&mut self, name: &str) {
        if let Some(usage) = self.usage(name) {
            usage.out = usage.out.saturating_sub(1);
        }
    }
}

/// Threads beyond the 64th share a bit, which makes a full breaker a little quicker to say so.
const fn bit_of(thread: ThreadId) -> u64 {
    1 << (thread.0 % u64::BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_configuration_of_a_cluster_does_not_forget_what_is_out() {
        let mut clusters = Clusters::default();
        let narrow = Cluster { requests_max: 1, ..Cluster::default() };
        let admit = |clusters: &mut Clusters| clusters.admit("orders", ThreadId(1));
        assert_eq!(admit(&mut clusters), Admission::Unknown);
        clusters.set("orders", narrow.clone());
        assert_eq!(admit(&mut clusters), Admission::Out);
        clusters.set("orders", Cluster { healthy: 1, ..narrow.clone() });
        assert_eq!(admit(&mut clusters), Admission::OverflowLater, "one is out already");
        clusters.back("orders");
        assert_eq!(admit(&mut clusters), Admission::Out);
        clusters.remove("orders");
        clusters.set("orders", narrow);
        assert_eq!(admit(&mut clusters), Admission::Out, "a new cluster has a new breaker");
    }
}
