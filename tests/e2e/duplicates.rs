//! A sender's retry of a stored message (CONTRACT, section 4): known by its idempotency key, and before it goes out.
//!
//! | the second request has | the sender gets |
//! | --- | --- |
//! | the same key, scope and content | 202, the first id, `duplicate` |
//! | the same key and scope, other content | 422, a problem document |
//! | the same key, another `authorization` | what a first request gets |

use redeliver_tests::bootstrap::Module;
use redeliver_tests::sender;
use redeliver_tests::sender::Custody;
use redeliver_tests::{Bootstrap, Envoy, Filter, Receiver, Reply, Request, Response, Route, SOON};
use serde_json::{Value, json};

/// An Envoy with three workers whose only receiver is away.
async fn outage(config: Value) -> (Envoy, Receiver) {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(config)).workers(3).start().await;
    (envoy, orders)
}

fn keyed(path: &str, key: &str, body: &str) -> Request {
    Request::post(path)
        .header("idempotency-key", key)
        .header("authorization", "Bearer alice")
        .header("content-type", "text/plain")
        .body(body)
}

/// It is told that the message is held already, and which one it is.
#[track_caller]
fn joins(answer: &Response, first: &str) {
    assert_eq!((answer.status, answer.custody()), (202, Custody::Duplicate), "{answer:?}");
    assert_eq!(answer.header("x-redeliver-id").as_deref(), Some(first), "{answer:?}");
}

#[track_caller]
fn refused(answer: &Response) {
    assert_eq!((answer.status, answer.custody()), (422, Custody::Unsaid), "{answer:?}");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"), "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.text()).expect("a problem document");
    assert_eq!(problem["status"], 422, "{problem}");
}

#[tokio::test]
async fn a_retry_during_an_outage_joins_the_stored_message_from_whatever_worker() {
    let (envoy, orders) = outage(json!({})).await;
    let request = keyed("/pay", "k", "ten");
    let first = envoy.send(&request).await.stored_id();
    // Each connection goes to some worker.
    for _ in 0..12 {
        joins(&envoy.send(&request).await, &first);
    }
    joins(&redeliver_tests::sender_h2::send(envoy.port(), &request).await, &first);
    let bodiless = Request::new("DELETE", "/pay").header("idempotency-key", "d");
    let deleted = envoy.send(&bodiless).await.stored_id();
    joins(&envoy.send(&bodiless).await, &deleted);
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered(), metrics.duplicates_joined()), (2, 2, 14));
    assert_eq!(orders.received().len(), 2);
    joins(&envoy.send(&request).await, &first);
    assert_eq!(orders.received().len(), 2, "a late retry does not reach the receiver again");
}

#[tokio::test]
async fn other_content_under_the_same_key_is_refused() {
    let (envoy, orders) = outage(json!({})).await;
    let first = envoy.send(&keyed("/pay", "k", "ten")).await.stored_id();
    refused(&envoy.send(&keyed("/pay", "k", "eleven")).await);
    refused(&envoy.send(&keyed("/pay?again", "k", "ten")).await);
    refused(&envoy.send(&keyed("/pay", "k", "ten").header("content-type", "text/html")).await);
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    refused(&envoy.send(&keyed("/pay", "k", "eleven")).await);
    joins(&envoy.send(&keyed("/pay", "k", "ten")).await, &first);
    assert_eq!(orders.received().len(), 1);
}

#[tokio::test]
async fn strangers_never_join_each_other() {
    let (envoy, orders) = outage(json!({"capture": {"drop_headers": ["authorization"]}})).await;
    let as_sender = |name: &str| {
        let request = Request::post("/pay").header("idempotency-key", "k").body("ten");
        if name.is_empty() { request } else { request.header("authorization", format!("Bearer {name}")) }
    };
    let mut ids = Vec::new();
    for name in ["alice", "bob", ""] {
        ids.push(envoy.send(&as_sender(name)).await.stored_id());
    }
    for (name, id) in ["alice", "bob", ""].iter().zip(&ids) {
        joins(&envoy.send(&as_sender(name)).await, id);
    }
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 3);
    assert!(orders.received().iter().all(|copy| copy.headers.text("authorization").is_none()));
}

#[tokio::test]
async fn the_scope_and_the_header_are_the_operators_choice() {
    let idempotency = json!({"header": "X-Request-Key", "scope_headers": ["x-tenant"]});
    let (envoy, orders) = outage(json!({"idempotency": idempotency})).await;
    let request = |tenant: &str, who: &str| {
        let keyed = Request::post("/pay").header("x-request-key", "k").header("x-tenant", tenant);
        keyed.header("authorization", who).body("ten")
    };
    let first = envoy.send(&request("a", "alice")).await.stored_id();
    joins(&envoy.send(&request("a", "bob")).await, &first);
    envoy.send(&request("b", "alice")).await.stored_id();
    for _ in 0..2 {
        envoy.send(&keyed("/plain", "not the header", "x")).await.stored_id();
    }
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    for copy in orders.on_path("/pay") {
        assert_eq!(copy.headers.text("x-request-key").as_deref(), Some("k"));
    }
    let ours = orders.on_path("/plain")[0].headers.text("x-request-key");
    assert_eq!(ours, orders.on_path("/plain")[0].headers.text("x-redeliver-id"));
}

#[tokio::test]
async fn a_key_that_nothing_is_stored_of_changes_nothing() {
    let orders = Receiver::start().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    for _ in 0..3 {
        assert_eq!(envoy.send(&keyed("/pay", "k", "ten")).await.status, 200);
    }
    assert_eq!(orders.received().len(), 3, "what was delivered at once is the receiver's to know");
}

#[tokio::test]
async fn inject_gives_the_first_attempt_the_key_of_all_later_ones() {
    let orders = Receiver::start().await;
    orders.reply_with(|request| if request.attempt().is_some() { Reply::status(200) } else { Reply::CloseUnanswered });
    let config = json!({"idempotency": {"inject": true}, "failure": {"unknown_outcome": "always"}});
    let rewritten = Route::new("/", "orders").action("prefix_rewrite", json!("/v2/"));
    let bootstrap = Bootstrap::new()
        .destination(redeliver_tests::Destination::new("orders", orders.port()))
        .route(rewritten)
        .filter(Filter::quick(config));
    let envoy = bootstrap.start().await;
    let requests = [Request::post("/one").body("x"), Request::new("DELETE", "/two"), keyed("/three", "mine", "x")];
    let mut ids = Vec::new();
    for request in &requests {
        ids.push(envoy.send(request).await.stored_id());
    }
    envoy.wait_drained(SOON).await;
    for (path, id) in ["/v2/one", "/v2/two", "/v2/three"].iter().zip(ids) {
        let copies = orders.on_path(path);
        let keys: Vec<_> = copies.iter().map(|copy| copy.headers.all("idempotency-key")).collect();
        let expected = if path.ends_with("three") { b"mine".to_vec() } else { id.into_bytes() };
        assert!(copies.len() >= 2, "{copies:?}");
        assert!(keys.iter().all(|keys| *keys == [&expected[..]]), "{path}: {keys:?}");
    }
}

#[tokio::test]
async fn an_injected_key_is_not_the_senders_word_that_a_repeat_does_no_harm() {
    let orders = Receiver::start().await;
    orders.reply_with(|_| Reply::CloseUnanswered);
    let filter = Filter::quick(json!({"idempotency": {"inject": true}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    let answer = envoy.send(&Request::post("/plain").body("x")).await;
    assert_eq!((answer.status, answer.custody()), (503, Custody::NotStored("unknown-outcome".to_owned())));
    envoy.send(&keyed("/pay", "k", "ten")).await.stored_id();
}

#[tokio::test]
async fn of_many_retries_at_once_one_is_stored() {
    const KEYS: usize = 10;
    let (envoy, orders) = outage(json!({})).await;
    for round in 0..KEYS {
        let key = format!("k{round}");
        let requests: Vec<Request> = (0..12).map(|_| keyed("/pay", &key, "ten")).collect();
        let answers = requests.into_iter().map(|request| {
            let port = envoy.port();
            tokio::spawn(async move { sender::send(port, &request).await })
        });
        let mut ids = std::collections::BTreeSet::new();
        let mut stored = 0;
        for answer in answers.collect::<Vec<_>>() {
            let answer = answer.await.expect("a sender");
            assert_eq!(answer.status, 202, "{answer:?}");
            stored += usize::from(answer.custody() == Custody::Stored);
            ids.extend(answer.header("x-redeliver-id"));
        }
        assert_eq!((stored, ids.len()), (1, 1), "round {round}");
    }
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), orders.received().len()), (KEYS as u64, KEYS));
}

#[tokio::test]
async fn what_is_stored_without_asking_the_router_is_known_too() {
    let (envoy, orders) = outage(json!({"capture": {"as": "arrived"}, "hold_while_down": true})).await;
    envoy.send(&Request::post("/first").body("x")).await.stored_id();
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1).await;
    let first = envoy.send(&keyed("/pay", "k", "ten")).await.stored_id();
    joins(&envoy.send(&keyed("/pay", "k", "ten")).await, &first);
    refused(&envoy.send(&keyed("/pay", "k", "eleven")).await);
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 2);
}

#[tokio::test]
async fn the_memory_outlives_every_vm() {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({})).module(Module::Trapping);
    let envoy = Bootstrap::orders(orders.port(), filter).workers(1).start().await;
    let first = envoy.send(&keyed("/pay", "k", "ten")).await.stored_id();
    for how in ["main", "request"] {
        envoy.send(&Request::new("GET", "/trap").header("x-redeliver-trap", how)).await;
    }
    envoy.wait_log("RuntimeError: unreachable", 2).await;
    let retry = async {
        loop {
            let answer = envoy.send(&keyed("/pay", "k", "ten")).await;
            // FAIL_RELOAD answers 503 until the worker has a VM again.
            if answer.status != 503 {
                break answer;
            }
        }
    };
    joins(&tokio::time::timeout(SOON, retry).await.expect("an answer"), &first);
}

#[tokio::test]
async fn without_inject_a_first_attempt_is_left_alone() {
    let orders = Receiver::start().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    envoy.send(&Request::post("/plain").body("x")).await;
    assert_eq!(orders.received()[0].headers.text("idempotency-key"), None);
}
