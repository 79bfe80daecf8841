//! Which requests are protected: all conditions of `match` that are given must hold (CONTRACT section 3).
//!
//! Cheap conditions first; the cluster and the route's metadata cost a host call each and are asked for last. Never
//! protected, whatever is configured: CONNECT and upgrades (they have no end), gRPC-Web (its status is in the body). gRPC only
//! with `match.grpc: unary`.

use crate::config::{Grpc, Matching, Prefer, RouteOptIn};
use crate::glance::Glance;
use crate::grpc::Protocol;
use crate::headers::HeaderList;
use crate::units::ClusterName;

/// What the route's metadata `filter_metadata.redeliver.enabled` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSwitch {
    /// Nothing.
    Unset,
    /// True.
    Enabled,
    /// False: never protected.
    Disabled,
}

/// What the host knows of the chosen route, asked for only when it matters.
pub trait RouteFacts {
    /// The cluster that the route chose.
    fn cluster(&self) -> Option<ClusterName>;
    /// The route's switch.
    fn switch(&self) -> RouteSwitch;
}

/// Whether a request is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Yes.
    Protected,
    /// No: it passes as if we were not there.
    Unprotected,
}

/// Decides by the request's headers, of which `glance` is a part, and its route.
#[must_use]
pub fn protection(
    matching: &Matching,
    headers: &HeaderList,
    glance: &Glance<'_>,
    route: &dyn RouteFacts,
) -> Protection {
    let is_protected = matching.protects_anything()
        && glance.upgrade.is_none()
        && is_readable(matching.grpc, glance)
        && glance.method.is_some_and(|method| is_listed(&matching.methods, method))
        && glance.path.is_some_and(|path| has_prefix(&matching.path_prefixes, path))
        && is_preferred(matching.prefer, headers)
        && is_chosen_cluster(&matching.clusters, route)
        && is_switched_on(matching.route_opt_in, route.switch());
    if is_protected { Protection::Protected } else { Protection::Unprotected }
}

/// Whether the answer will say how it went: to a gRPC call it does so in its own way.
fn is_readable(grpc: Grpc, glance: &Glance<'_>) -> bool {
    let is_any_grpc = glance.content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
    match (glance.protocol(), grpc) {
        (Protocol::Http, Grpc::Off | Grpc::Unary) => !is_any_grpc,
        (Protocol::Grpc, Grpc::Off) => false,
        (Protocol::Grpc, Grpc::Unary) => true,
    }
}

fn is_listed(methods: &[String], method: &[u8]) -> bool {
    method != b"CONNECT" && methods.iter().any(|listed| listed.as_bytes() == method)
}

fn has_prefix(prefixes: &[String], path: &[u8]) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| path.starts_with(prefix.as_bytes()))
}

fn is_preferred(prefer: Prefer, headers: &HeaderList) -> bool {
    match prefer {
        Prefer::Ignore => true,
        Prefer::Required => prefers_async(headers),
    }
}

/// Whether the sender asked for `respond-async` (RFC 7240 section 4.1).
#[must_use]
pub fn prefers_async(headers: &HeaderList) -> bool {
    let preferences = headers.all("prefer").flat_map(preferences);
    preferences
        .map(|part| part.split(|byte| matches!(byte, b';' | b'=')).next().unwrap_or_default().trim_ascii())
        .any(|name| name.eq_ignore_ascii_case(b"respond-async"))
}

/// The preferences in one value; a comma inside a quoted string (RFC 9110 5.6.4) separates none.
fn preferences(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut text = Text::Plain;
    value.split(move |byte| {
        text = text.after(*byte);
        *byte == b',' && text == Text::Plain
    })
}

/// Where in a header's value a byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
}

impl Text {
    const fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Plain, b'"') | (Self::Escaped, _) => Self::Quoted,
            (Self::Quoted, b'"') | (Self::Plain, _) => Self::Plain,
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted, _) => Self::Quoted,
        }
    }
}

fn is_chosen_cluster(clusters: &[ClusterName], route: &dyn RouteFacts) -> bool {
    clusters.is_empty() || route.cluster().is_some_and(|cluster| clusters.contains(&cluster))
}

const fn is_switched_on(opt_in: RouteOptIn, switch: RouteSwitch) -> bool {
    match (opt_in, switch) {
        (_, RouteSwitch::Disabled) | (RouteOptIn::Required, RouteSwitch::Unset) => false,
        (RouteOptIn::Off, RouteSwitch::Unset) | (_, RouteSwitch::Enabled) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    struct Route(Option<&'static str>, RouteSwitch);

    impl RouteFacts for Route {
        fn cluster(&self) -> Option<ClusterName> {
            self.0.map(|name| ClusterName(name.to_owned()))
        }
        fn switch(&self) -> RouteSwitch {
            self.1
        }
    }

    fn check(matching: &str, request: &[(&str, &str)], route: &Route) -> bool {
        let config = crate::config::parse(format!("{{\"match\":{matching}}}").as_bytes()).unwrap();
        let line = [(":method", "POST"), (":path", "/orders/1")];
        let given = |name: &str| request.iter().any(|(found, _)| *found == name);
        let pairs = line.iter().filter(|(name, _)| !given(name)).chain(request);
        let headers = pairs.copied().collect();
        protection(&config.matching, &headers, &Glance::at(&headers), route) == Protection::Protected
    }

    #[test]
    fn a_preference_inside_a_quoted_string_is_not_asked_for() {
        let cases = [
            (r#"note="a, respond-async, b""#, false),
            (r#"note="a, respond-async; b=c""#, false),
            (r#"note="\", respond-async, ""#, false),
            (r#"note="a, b", respond-async"#, true),
            (r#"note="\\", respond-async"#, true),
        ];
        for (value, expected) in cases {
            let headers = HeaderList::of(&[(b"prefer", value.as_bytes())]);
            assert_eq!(prefers_async(&headers), expected, "{value}");
        }
    }

    #[test]
    fn all_given_conditions_must_hold() {
        use RouteSwitch::{Disabled, Enabled, Unset};
        const ORDERS: &str = r#"{"path_prefixes":["/orders"]}"#;
        let plain = Route(Some("orders"), Unset);
        type Case = (&'static str, &'static [(&'static str, &'static str)], bool);
        let cases: [Case; 17] = [
            ("{}", &[], false),
            (ORDERS, &[], true),
            (ORDERS, &[(":path", "/other")], false),
            (ORDERS, &[(":method", "GET")], false),
            (ORDERS, &[("upgrade", "websocket")], false),
            (ORDERS, &[("content-type", "application/grpc+proto")], false),
            (r#"{"path_prefixes":["/"],"grpc":"unary"}"#, &[("content-type", "application/grpc+proto")], true),
            (r#"{"path_prefixes":["/"],"grpc":"unary"}"#, &[("content-type", "application/grpc-web+proto")], false),
            (r#"{"path_prefixes":["/"],"grpc":"unary"}"#, &[("content-type", "application/json")], true),
            (r#"{"path_prefixes":["/"],"methods":["GET"]}"#, &[(":method", "GET")], true),
            (r#"{"clusters":["orders"]}"#, &[], true),
            (r#"{"clusters":["payments"]}"#, &[], false),
            (r#"{"prefer":"required"}"#, &[], false),
            (r#"{"prefer":"required"}"#, &[("prefer", "wait=5, Respond-Async")], true),
            (r#"{"prefer":"required"}"#, &[("prefer", "respond-async-not")], false),
            (r#"{"route_opt_in":true}"#, &[], false),
            (r#"{"path_prefixes":["/orders"],"clusters":["payments"]}"#, &[], false),
        ];
        for (matching, request, expected) in cases {
            assert_eq!(check(matching, request, &plain), expected, "{matching} {request:?}");
        }
        assert!(check(r#"{"route_opt_in":true}"#, &[], &Route(None, Enabled)));
        assert!(!check(ORDERS, &[], &Route(None, Disabled)), "a route that is switched off is never protected");
    }
}
