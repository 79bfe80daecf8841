//! Which failures are stored (CONTRACT, section 5): every kind of failure with every kind of request.

use std::fmt::Write;

use redeliver_tests::{Bootstrap, Custody, Filter, Receiver, Request, SOON};
use serde_json::json;

use crate::faults::{Faults, NAMES};

/// What is known about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NeverReached,
    Refused,
    Unknown,
}

fn kind(fault: &str) -> Kind {
    match fault {
        "no-healthy-host" | "refused" | "connect-timeout" | "overflow" => Kind::NeverReached,
        "by-the-receiver" => Kind::Refused,
        "response-timeout" | "reset-after-send" | "processed-then-refused" | "processed-then-ejected" => Kind::Unknown,
        other => panic!("no fault is called {other}"),
    }
}

/// The requests, and whether section 5 calls them idempotent.
fn requests(fault: &str) -> [(Request, bool); 5] {
    let path = |name: &str| format!("/{fault}/{name}");
    [
        (Request::post(&path("post")), false),
        (Request::new("PATCH", &path("patch")).body("a change"), false),
        (Request::new("PUT", &path("put")).body("a whole"), true),
        (Request::new("DELETE", &path("delete")), true),
        (Request::post(&path("keyed")).header("idempotency-key", format!("key of {fault}")), true),
    ]
}

/// One setting of `failure.unknown_outcome` against all faults and all requests.
async fn check(unknown_outcome: &str, stores_unknown: impl Fn(bool) -> bool) {
    let faults = Faults::start().await;
    let filter = Filter::quick(json!({"failure": {"unknown_outcome": unknown_outcome}}));
    let envoy = faults.bootstrap().filter(filter).start().await;
    faults.inject(&envoy).await;
    let (mut wrong, mut stored) = (String::new(), Vec::new());
    for fault in NAMES {
        for (request, idempotent) in requests(fault) {
            faults.reload(&envoy, fault).await;
            let answer = envoy.send(&request).await;
            let storable = kind(fault) != Kind::Unknown || stores_unknown(idempotent);
            let expected = match (storable, fault) {
                (true, _) => (202, Custody::Stored),
                (false, "response-timeout") => (504, Custody::NotStored("unknown-outcome".to_owned())),
                (false, _) => (503, Custody::NotStored("unknown-outcome".to_owned())),
            };
            if (answer.status, answer.custody()) != expected {
                let seen = (answer.status, answer.custody());
                writeln!(wrong, "{fault} {} {}: {seen:?} instead of {expected:?}", request.method, request.path)
                    .unwrap();
            }
            if let Some(id) = answer.header("x-redeliver-id") {
                stored.push((fault, request.path.clone(), id));
            }
        }
    }
    assert!(wrong.is_empty(), "unknown_outcome: {unknown_outcome}\n{wrong}");
    faults.clear(&envoy).await;
    let metrics = envoy.wait_drained(SOON * 2).await;
    assert_eq!(metrics.stored(), stored.len() as u64);
    assert_eq!(metrics.delivered(), stored.len() as u64);
    delivered_exactly(&faults, &stored);
}

/// Every stored message was delivered once under its id, and nothing else was delivered.
fn delivered_exactly(faults: &Faults, stored: &[(&str, String, String)]) {
    for (fault, path, id) in stored {
        let deliveries = faults.receiver(fault).delivered();
        let ids: Vec<_> =
            deliveries.iter().filter(|d| d.path == *path).map(|d| d.headers.text("x-redeliver-id")).collect();
        assert_eq!(ids, [Some(id.clone())], "{path}");
    }
    let all: usize = NAMES.iter().map(|fault| faults.receiver(fault).delivered().len()).sum();
    assert_eq!(all, stored.len(), "something was delivered that was never stored");
}

#[tokio::test]
async fn an_unknown_outcome_is_stored_if_the_request_is_idempotent() {
    check("if_idempotent", |idempotent| idempotent).await;
}

#[tokio::test]
async fn an_unknown_outcome_is_always_stored_when_asked_so() {
    check("always", |_| true).await;
}

#[tokio::test]
async fn an_unknown_outcome_is_never_stored_when_asked_so() {
    check("never", |_| false).await;
}

/// The receiver's own answers with `failure.statuses: [503, 502, 504]`: what a POST and a PUT get.
const ANSWERS: &[(u16, &str, u16, &str)] = &[
    // receiver says, method, sender gets, custody
    (503, "POST", 202, "stored"),
    (502, "POST", 502, "not-stored; reason=unknown-outcome"),
    (504, "POST", 504, "not-stored; reason=unknown-outcome"),
    (502, "PUT", 202, "stored"),
    (504, "PUT", 202, "stored"),
    (500, "PUT", 500, ""),
    (429, "PUT", 429, ""),
    (413, "PUT", 413, ""),
    (404, "PUT", 404, ""),
    (302, "PUT", 302, ""),
    (204, "PUT", 204, ""),
];

#[tokio::test]
async fn only_listed_answers_of_the_receiver_are_failures_and_502_and_504_leave_the_outcome_unknown() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"failure": {"statuses": [503, 502, 504]}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    for (says, method, status, custody) in ANSWERS {
        orders.reply_with(move |request| {
            redeliver_tests::Reply::status(if request.attempt().is_some() { 200 } else { *says })
        });
        let answer = envoy.send(&Request::new(method, &format!("/{says}")).body("x")).await;
        let seen = (answer.status, answer.header("x-redeliver-status").unwrap_or_default());
        assert_eq!(seen, (*status, (*custody).to_owned()), "{method}, receiver says {says}");
    }
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered(), metrics.not_stored()), (3, 3, 2));
}
