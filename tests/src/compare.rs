//! What "equal" means between a request as sent, as delivered live, and as redelivered.
//!
//! | header                                       | why it may differ                                                |
//! | -------------------------------------------- | ---------------------------------------------------------------- |
//! | content-length, transfer-encoding, connection | framing belongs to each hop                                     |
//! | x-envoy-*                                    | Envoy's notes to itself, rebuilt on each hop                     |
//! | x-redeliver-*, idempotency-key               | ours; each test that is about them looks at them by name         |
//! | x-request-id                                 | one per request, so it differs between twins; see `same_request` |
//!
//! Everything else, order and repetition included, must be byte-equal.

use crate::receiver::Received;
use crate::sender::{Request, Response};
use crate::wire::Headers;

/// The headers of a request that every copy of it must carry in the same order.
pub fn lasting(headers: &Headers) -> Headers {
    headers.without(|name| {
        matches!(name, "content-length" | "transfer-encoding" | "connection" | "idempotency-key" | "x-request-id")
            || name.starts_with("x-envoy-")
            || name.starts_with("x-redeliver-")
    })
}

/// A request of the receiver in comparable form: method, path, lasting headers (authority included), body.
pub fn essence(request: &Received) -> (String, String, Headers, Vec<u8>) {
    (request.method.clone(), request.path.clone(), lasting(&request.headers), request.body.clone())
}

/// Fails unless `received` is what Envoy makes of `sent` on a route that rewrites nothing.
///
/// # Panics
/// With the first part that differs.
pub fn same_request(sent: &Request, received: &Received) {
    assert_eq!((&sent.method, &sent.path), (&received.method, &received.path));
    same_headers_and_body(sent, &sent.authority, received);
}

/// As `same_request`, on a route that made `path` and `authority` of it.
///
/// # Panics
/// With the first part that differs.
pub fn same_rewritten_request(sent: &Request, path: &str, authority: &str, received: &Received) {
    assert_eq!((sent.method.as_str(), path), (received.method.as_str(), received.path.as_str()));
    same_headers_and_body(sent, authority, received);
}

fn same_headers_and_body(sent: &Request, authority: &str, received: &Received) {
    let mut expected = Headers::default();
    expected.push("host", authority);
    expected.0.extend(sent.headers.0.iter().cloned());
    expected.push("x-forwarded-proto", "http");
    assert_eq!(lasting(&expected), lasting(&received.headers), "headers of {} {}", sent.method, sent.path);
    if let Some(id) = sent.headers.get("x-request-id") {
        assert_eq!(Some(id), received.headers.get("x-request-id"), "x-request-id of {} {}", sent.method, sent.path);
    }
    assert!(received.headers.get("x-request-id").is_some(), "no x-request-id in {:?}", received.headers);
    let (sent_body, body) = (sent.payload(), &received.body);
    assert!(
        sent_body == *body,
        "body of {} {}: sent {} B, got {} B",
        sent.method,
        sent.path,
        sent_body.len(),
        body.len()
    );
}

/// An answer in comparable form: status, headers without those that tell the time, body.
pub fn answer_essence(response: &Response) -> (u16, Headers, Vec<u8>) {
    let timeless = response.headers.without(|name| matches!(name, "date" | "x-envoy-upstream-service-time"));
    (response.status, timeless, response.body.clone())
}
