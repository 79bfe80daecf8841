//! Routes: which cluster a request goes to, and what the router makes of it on the way.

use crate::http::Headers;
use std::time::Duration;

/// Envoy's default for a route without a `timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// One route; the first whose prefix matches wins.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// How long the whole answer may take; zero: for ever.
    pub timeout: Duration,
    /// How often a failed attempt is repeated.
    pub retries: u32,
    /// `filter_metadata.redeliver.enabled` and the like: namespace, key, value.
    pub metadata: Vec<(String, String, bool)>,
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
            metadata: Vec::new(),
        }
    }

    fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.prefix)
    }

    /// What the router makes of the headers. Done before it looks for a host, so a request without one is rewritten too
    /// (PLATFORM 0, row "With no healthy host").
    pub(crate) fn rewrite(&self, headers: &mut Headers) {
        let path = headers.text(":path").unwrap_or_default().to_owned();
        if let Some(rewritten) = &self.prefix_rewrite
            && let Some(rest) = path.strip_prefix(&self.prefix)
        {
            headers.set("x-envoy-original-path", path.clone());
            headers.set(":path", format!("{rewritten}{rest}"));
        }
        if let Some(host) = &self.host_rewrite {
            if let Some(host) = headers.first(":authority").map(<[u8]>::to_vec) {
                headers.set("x-forwarded-host", host);
            }
            headers.set(":authority", host.as_str());
        }
        for (name, value) in &self.request_headers {
            headers.set(name, value.as_str());
        }
    }
}

/// The first route that takes `path`.
pub(crate) fn find<'a>(routes: &'a [Route], path: &str) -> Option<&'a Route> {
    routes.iter().find(|route| route.matches(path))
}
