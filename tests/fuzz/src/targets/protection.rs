//! Whether a request is protected, and whether its sender asked for an asynchronous answer.
//!
//! Input: path prefixes GS methods GS clusters GS prefer GS route opt-in GS gRPC GS the route's cluster GS its switch GS headers.

use crate::input::Sections;
use redeliver_core::config::{Grpc, Matching, Prefer, RouteOptIn};
use redeliver_core::glance::Glance;
use redeliver_core::headers::HeaderList;
use redeliver_core::protect::{Protection, RouteFacts, RouteSwitch, prefers_async, protection};
use redeliver_core::units::ClusterName;
use std::cell::Cell;

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    let matching = Matching {
        path_prefixes: sections.texts(),
        methods: sections.texts(),
        clusters: sections.texts().into_iter().map(ClusterName).collect(),
        prefer: sections.choice(&[Prefer::Ignore, Prefer::Required]),
        route_opt_in: sections.choice(&[RouteOptIn::Off, RouteOptIn::Required]),
        grpc: sections.choice(&[Grpc::Off, Grpc::Unary]),
    };
    let route = Route {
        cluster: sections.texts().into_iter().next().map(ClusterName),
        switch: sections.choice(&[RouteSwitch::Unset, RouteSwitch::Enabled, RouteSwitch::Disabled]),
        asked: Cell::new(0),
    };
    let headers = sections.headers();
    if !headers.all("prefer").all(is_well_formed) {
        return;
    }
    assert_eq!(prefers_async(&headers), asks_async(&headers), "{headers:?}");

    let is_protected = protection(&matching, &headers, &Glance::at(&headers), &route) == Protection::Protected;
    assert_eq!(is_protected, second_opinion(&matching, &headers, &route), "{matching:?} {headers:?}");
    let may_ask = !matching.clusters.is_empty() && matches_line(&matching, &headers);
    assert!(route.asked.get() <= u32::from(may_ask), "a host call that no condition needs");
}

/// The host's knowledge, with a count of the questions for the cluster: each is a host call.
struct Route {
    cluster: Option<ClusterName>,
    switch: RouteSwitch,
    asked: Cell<u32>,
}

impl RouteFacts for Route {
    fn cluster(&self) -> Option<ClusterName> {
        self.asked.set(self.asked.get() + 1);
        self.cluster.clone()
    }

    fn switch(&self) -> RouteSwitch {
        self.switch
    }
}

fn second_opinion(matching: &Matching, headers: &HeaderList, route: &Route) -> bool {
    let is_opted_in = matching.route_opt_in == RouteOptIn::Required;
    let is_chosen = !matching.path_prefixes.is_empty()
        || !matching.clusters.is_empty()
        || matching.prefer == Prefer::Required
        || is_opted_in;
    let is_cluster = matching.clusters.is_empty() || route.cluster.iter().any(|name| matching.clusters.contains(name));
    let is_route = match route.switch {
        RouteSwitch::Disabled => false,
        RouteSwitch::Enabled => true,
        RouteSwitch::Unset => !is_opted_in,
    };
    is_chosen && is_cluster && is_route && !has_no_end(headers, matching.grpc) && matches_line(matching, headers)
}

/// Never protected: tunnels, upgrades, gRPC unless it is asked for, gRPC-Web.
fn has_no_end(headers: &HeaderList, grpc: Grpc) -> bool {
    let content_type = headers.first("content-type").unwrap_or_default();
    let is_asked_for = grpc == Grpc::Unary && crate::wire::is_grpc(content_type);
    let is_grpc = content_type.starts_with(b"application/grpc") && !is_asked_for;
    let is_there = |name: &str| headers.first(name).is_some();
    is_grpc || is_there("upgrade") || is_there(":protocol") || headers.first(":method") == Some(b"CONNECT")
}

fn matches_line(matching: &Matching, headers: &HeaderList) -> bool {
    let (Some(method), Some(path)) = (headers.first(":method"), headers.first(":path")) else { return false };
    let is_method = matching.methods.iter().any(|listed| listed.as_bytes() == method);
    let is_path = matching.path_prefixes.iter().any(|prefix| path.starts_with(prefix.as_bytes()));
    is_method
        && (is_path || matching.path_prefixes.is_empty())
        && (matching.prefer == Prefer::Ignore || asks_async(headers))
}

/// `Prefer` by RFC 7240 section 2, byte by byte: a comma or a semicolon inside a quoted string separates nothing.
fn asks_async(headers: &HeaderList) -> bool {
    headers.all("prefer").any(|value| preferences(value).iter().any(|name| name == b"respond-async"))
}

/// Whether all quotes are closed; what a value means that breaks its grammar nobody has said.
fn is_well_formed(value: &[u8]) -> bool {
    let is_quote =
        |(place, byte): (usize, &u8)| *byte == b'"' && place.checked_sub(1).is_none_or(|at| value[at] != b'\\');
    !value.windows(2).any(|pair| pair == b"\\\\")
        && value.iter().enumerate().filter(|pair| is_quote(*pair)).count() % 2 == 0
}

/// The names of the preferences in one value, in lower case.
fn preferences(value: &[u8]) -> Vec<Vec<u8>> {
    let (mut names, mut is_name, mut is_quoted, mut is_escaped) = (vec![Vec::new()], true, false, false);
    for byte in value.to_ascii_lowercase() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b',' => {
                names.push(Vec::new());
                is_name = true;
                continue;
            }
            b';' | b'=' => is_name = false,
            _ => {}
        }
        if is_name && let Some(name) = names.last_mut() {
            name.push(byte);
        }
    }
    names.iter().map(|name| name.trim_ascii().to_vec()).collect()
}
