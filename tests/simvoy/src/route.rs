//! Routes: which cluster a request goes to, and what the router makes of it on the way.

use crate::http::Headers;
use crate::network::Failure;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default for a route without a `timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// One route; the first whose prefix matches wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The beginning of the paths that it takes.
    pub prefix: String,
    /// Where they go.
    pub cluster: String,
    /// What stands in the prefix's place on the way out.
    pub prefix_rewrite: Option<String>,
    /// The authority on the way out.
    pub host_rewrite: Option<String>,
    /// Headers set on the way out.
    pub request_headers: Vec<(String, String)>,
    /// How long the whole answer may take, all attempts together; zero: for ever (`failure::timeout_over_all_attempts`).
    pub timeout: Duration,
    /// How often a failed attempt is repeated (`num_retries`), at once: Envoy's pause between attempts is not modelled.
    pub retries: u32,
    /// What an attempt must have failed with to be repeated (`retry_on`); from [`Route::new`]:
    /// `5xx,reset,connect-failure`.
    pub retry_on: BTreeSet<RetryReason>,
    /// Answered by Envoy itself, with this status and no body, in a cluster's place (`direct_response`).
    pub direct_status: Option<u16>,
    /// `filter_metadata`, by namespace.
    pub metadata: Vec<(String, Metadata)>,
}

/// A reason to repeat an attempt: a word of `retry_on`. A timeout of the route is none, and neither is a full circuit
/// breaker, whatever the words are (RetryStateImpl in Envoy's retry_state_impl.cc; cases `failure::retried_*` and
/// `failure::retry_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryReason {
    /// `5xx`: any answer of 500 or more, or none.
    FiveXx,
    /// `gateway-error`: an answer of 502, 503 or 504, or none.
    GatewayError,
    /// `reset`: no answer.
    Reset,
    /// `connect-failure`: no connection.
    ConnectFailure,
    /// `retriable-4xx`: an answer of 409.
    RetriableFourXx,
}

impl RetryReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::FiveXx, Self::GatewayError, Self::Reset, Self::ConnectFailure, Self::RetriableFourXx];

    /// Envoy's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::FiveXx => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ConnectFailure => "connect-failure",
            Self::RetriableFourXx => "retriable-4xx",
        }
    }

    /// The reason with Envoy's word for it; `None`: not modelled.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }

    /// Whether an answer is such a reason.
    pub(crate) const fn is_answer(self, code: u16) -> bool {
        match self {
            Self::FiveXx => code >= 500,
            Self::GatewayError => matches!(code, 502..=504),
            Self::RetriableFourXx => code == 409,
            Self::Reset | Self::ConnectFailure => false,
        }
    }

    /// Whether an attempt that ended without an answer is such a reason.
    pub(crate) const fn is_failure(self, failure: Failure) -> bool {
        match (self, failure) {
            (_, Failure::Timeout) | (Self::RetriableFourXx, _) => false,
            (Self::FiveXx | Self::GatewayError | Self::Reset, _) => true,
            (Self::ConnectFailure, Failure::Refused | Failure::ConnectTimeout) => true,
            (Self::ConnectFailure, Failure::Cut | Failure::Garbage) => false,
        }
    }
}

/// A value of a route's metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Metadata {
    /// `true`, `false`.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A string.
    Text(String),
    /// Named values.
    Fields(Vec<(String, Metadata)>),
}

impl Metadata {
    /// The value at the end of a path of names.
    pub(crate) fn find<'a>(fields: &'a [(String, Metadata)], path: &[&str]) -> Option<&'a Metadata> {
        let (first, rest) = path.split_first()?;
        let (_, value) = fields.iter().find(|(name, _)| name == first)?;
        match (value, rest) {
            (value, []) => Some(value),
            (Metadata::Fields(fields), rest) => Metadata::find(fields, rest),
            (Metadata::Bool(_) | Metadata::Number(_) | Metadata::Text(_), _) => None,
        }
    }

    /// As a guest gets it: a byte, eight bytes, or text (serializeValue in context.cc). A struct has no bytes here.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Metadata::Bool(value) => Some(vec![u8::from(*value)]),
            Metadata::Number(number) => Some(number.to_le_bytes().to_vec()),
            Metadata::Text(text) => Some(text.clone().into_bytes()),
            Metadata::Fields(_) => None,
        }
    }
}

impl Route {
    /// Paths that begin with `prefix` go to `cluster`, unchanged.
    #[must_use]
    pub fn new(prefix: &str, cluster: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            cluster: cluster.to_owned(),
            prefix_rewrite: None,
            host_rewrite: None,
            request_headers: Vec::new(),
            timeout: TIMEOUT,
            retries: 0,
            retry_on: BTreeSet::from([RetryReason::FiveXx, RetryReason::Reset, RetryReason::ConnectFailure]),
            direct_status: None,
            metadata: Vec::new(),
        }
    }

    fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.prefix)
    }

    /// What the router makes of the headers. Done before it looks for a host, so a request without one is rewritten too
    /// (PLATFORM 0, row "With no healthy host").
    pub(crate) fn rewrite(&self, headers: &mut Headers) {
        if let Some(host) = &self.host_rewrite {
            if let Some(host) = headers.first(":authority").map(<[u8]>::to_vec) {
                headers.set("x-envoy-original-host", host);
            }
            headers.set(":authority", host.as_str());
        }
        let path = headers.text(":path").unwrap_or_default().to_owned();
        if let Some(rewritten) = &self.prefix_rewrite
            && let Some(rest) = path.strip_prefix(&self.prefix)
        {
            headers.set("x-envoy-original-path", path.clone());
            headers.set(":path", format!("{rewritten}{rest}"));
        }
        for (name, value) in &self.request_headers {
            headers.set(name, value.as_str());
        }
    }
}

/// The first route that takes `path`.
pub(crate) fn find<'a>(routes: &'a [Arc<Route>], path: &str) -> Option<&'a Arc<Route>> {
    routes.iter().find(|route| route.matches(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_to_retry_is_known_by_envoys_word() {
        for reason in RetryReason::ALL {
            assert_eq!(RetryReason::of(reason.word()), Some(reason));
        }
        assert_eq!(RetryReason::of("retriable-status-codes"), None, "not modelled");
    }

    #[test]
    fn a_timeout_of_the_route_is_never_repeated_and_a_refusal_is_unless_only_an_answer_counts() {
        for reason in RetryReason::ALL {
            assert!(!reason.is_failure(Failure::Timeout), "{reason:?}");
            assert_eq!(reason.is_failure(Failure::Refused), reason != RetryReason::RetriableFourXx, "{reason:?}");
        }
    }
}
