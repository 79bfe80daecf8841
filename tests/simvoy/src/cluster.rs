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
    /// Requests that are out.
    pub(crate) out: u32,
    /// Threads with an idle connection, one bit each; more than one per thread is not kept in mind.
    pub(crate) idle: u64,
    /// The host name of its endpoints, which `auto_host_rewrite` sends.
    pub host_name: Option<String>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            upstream: Upstream::Receiver,
            hosts: 1,
            healthy: 1,
            requests_max: REQUESTS_MAX,
            out: 0,
            idle: 0,
            host_name: None,
        }
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
    /// The circuit breaker is full, which Envoy finds out when the new connection is there (measured).
    OverflowLater,
}

/// All clusters, and whether this Envoy is about to leave.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    /// By name.
    pub by_name: BTreeMap<String, Cluster>,
    /// `POST /healthcheck/fail` was sent to the admin port: every answer of the health listener is a 503 with
    /// `x-envoy-immediate-health-check-fail` (PLATFORM 0).
    pub is_leaving: bool,
}

impl Clusters {
    /// Whether a request may go out; if so it counts as out until [`Clusters::back`].
    pub(crate) fn admit(&mut self, name: &str, thread: ThreadId) -> Admission {
        let Some(cluster) = self.by_name.get_mut(name) else { return Admission::Unknown };
        if cluster.healthy == 0 {
            return Admission::NoHealthyHost;
        }
        let bit = bit_of(thread);
        if cluster.out >= cluster.requests_max {
            let is_idle = cluster.idle & bit != 0;
            cluster.idle |= bit;
            return if is_idle { Admission::Overflow } else { Admission::OverflowLater };
        }
        cluster.idle &= !bit;
        cluster.out += 1;
        Admission::Out
    }

    /// A whole answer has come: the connection is idle now.
    pub(crate) fn idles(&mut self, name: &str, thread: ThreadId) {
        if let Some(cluster) = self.by_name.get_mut(name) {
            cluster.idle |= bit_of(thread);
        }
    }

    /// A request that was not admitted counts as out all the same, until [`Clusters::back`].
    pub(crate) fn take(&mut self, name: &str) {
        if let Some(cluster) = self.by_name.get_mut(name) {
            cluster.out += 1;
        }
    }

    /// A request is not out any more.
    pub(crate) fn back(&mut self, name: &str) {
        if let Some(cluster) = self.by_name.get_mut(name) {
            cluster.out = cluster.out.saturating_sub(1);
        }
    }
}

/// Threads beyond the 64th share a bit, which makes a full breaker a little quicker to say so.
const fn bit_of(thread: ThreadId) -> u64 {
    1 << (thread.0 % u64::BITS)
}
