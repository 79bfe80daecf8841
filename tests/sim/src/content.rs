//! Whether what arrives is what was sent: invariant I3, written against the contract's section 4.

use crate::message::{CREDENTIAL, KEY, Message};
use crate::receiving::calls::{is_call, wrong_call};
use crate::receiving::neighbours::hops_before;
use crate::receiving::through::wrong_pass;
use crate::rules::{Form, Rules};
use simvoy::{Headers, Request};

/// Headers that speak to the next hop only, and framing.
const NOT_CARRIED: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
    "content-length",
];

/// Headers that somebody else than the sender adds, so their presence says nothing here; those of a route are expected apart.
const ADDED: [&str; 5] = ["x-forwarded-proto", "x-envoy-original-host", "x-request-id", "x-routed-by", "grpc-timeout"];

/// What differs, if anything does.
#[must_use]
pub fn difference(message: &Message, request: &Request, rules: &Rules) -> Option<String> {
    let expected = expected(message, rules);
    for (name, wanted) in expected {
        let found: Vec<_> = request.headers.0.iter().filter(|(other, _)| other == name).collect();
        if found.len() != 1 || found[0].1 != wanted.as_bytes() {
            return Some(format!("{name} is {found:?} and not {wanted:?}"));
        }
    }
    if request.body != message.body {
        return Some(format!(
            "a body of {} bytes instead of {}, or other bytes",
            request.body.len(),
            message.body.len()
        ));
    }
    if let Some(wrong) = framing(request).or_else(|| wrong_pass(message, &request.headers, rules)) {
        return Some(wrong);
    }
    if let Some(wrong) =
        Some(request).filter(|_| message.is_call()).and_then(|got| wrong_call(&got.headers, rules.timeout))
    {
        return Some(wrong);
    }
    let (sent, got) = (carried(&message.headers), carried(&request.headers));
    let sent = if rules.drops_credential { without(sent, CREDENTIAL) } else { sent };
    let got = if message.headers.first(KEY).is_none() { without(got, KEY) } else { got };
    if sent != got {
        return Some(format!("headers {:?} instead of {:?}", Headers(got), Headers(sent)));
    }
    let own = message.headers.text("x-request-id");
    if own.is_some() && request.headers.text("x-request-id") != own {
        return Some(format!("x-request-id {:?}", request.headers.text("x-request-id")));
    }
    None
}

/// What must be there, once and with this value.
fn expected(message: &Message, rules: &Rules) -> Vec<(&'static str, String)> {
    let path = message.headers.text(":path").unwrap_or_default().to_owned();
    let authority = message.headers.text(":authority").unwrap_or_default().to_owned();
    let is_routed = rules.form == Form::Routed || rules.through(message.destination).is_some();
    let is_changed = is_routed && rules.is_rewritten(message.destination);
    let (path, authority) = if is_changed && rules.rewrites_line() {
        (rules.rewrite(&path), crate::rules::REWRITTEN_HOST.to_owned())
    } else {
        (path, authority)
    };
    let line = [
        (":method", message.method().to_owned()),
        (":path", path),
        (":authority", authority),
        ("x-redeliver-hops", (hops_before(message, rules) + 1).to_string()),
    ];
    let added = rules.routed_by().filter(|_| is_changed).map(|(name, value)| (name, value.to_owned()));
    line.into_iter().chain(added).collect()
}

/// What a call carries that Envoy makes anew for every request: framing, and what speaks to the next hop only.
#[must_use]
pub fn replayed(head: &Headers) -> Option<String> {
    // A call says to each next hop that it knows trailers.
    let is_said = |name: &str| name == "te" && is_call(head);
    let found = head.0.iter().find(|(name, _)| NOT_CARRIED.contains(&name.as_str()) && !is_said(name))?;
    Some(format!("{}: {} was replayed", found.0, String::from_utf8_lossy(&found.1)))
}

/// Exactly one word about the length, and a true one.
fn framing(request: &Request) -> Option<String> {
    if request.headers.first("transfer-encoding").is_some() {
        return Some("transfer-encoding was replayed".to_owned());
    }
    let lengths: Vec<_> = request.headers.0.iter().filter(|(name, _)| name == "content-length").collect();
    let is_true = match lengths.as_slice() {
        [] => request.body.is_empty(),
        [(_, length)] => *length == request.body.len().to_string().into_bytes(),
        _ => false,
    };
    (!is_true).then(|| format!("content-length {lengths:?} for {} bytes", request.body.len()))
}

/// What of a request's headers must arrive unchanged and in order.
fn carried(headers: &Headers) -> Vec<(String, Vec<u8>)> {
    let named: Vec<String> = headers
        .0
        .iter()
        .filter(|(name, _)| name == "connection")
        .flat_map(|(_, value)| {
            let value = String::from_utf8_lossy(value).to_ascii_lowercase();
            value.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let is_carried = |name: &str| {
        !name.starts_with(':')
            && !name.starts_with("x-envoy-")
            && !name.starts_with("x-redeliver-")
            && !NOT_CARRIED.contains(&name)
            && !ADDED.contains(&name)
            && !named.iter().any(|other| other == name)
    };
    headers.0.iter().filter(|(name, _)| is_carried(name)).cloned().collect()
}

fn without(headers: Vec<(String, Vec<u8>)>, name: &str) -> Vec<(String, Vec<u8>)> {
    headers.into_iter().filter(|(found, _)| found != name).collect()
}
