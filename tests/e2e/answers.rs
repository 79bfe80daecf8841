//! What senders and receivers see of custody (CONTRACT, section 4).

use redeliver_tests::compare::answer_essence;
use redeliver_tests::{Bootstrap, Custody, Filter, Receiver, Reply, Request, SOON, eventually};
use serde_json::{Value, json};

/// The live request fails, the redelivery succeeds.
fn busy_once() -> impl Fn(&redeliver_tests::Received) -> Reply {
    |request| Reply::status(if request.attempt().is_some() { 200 } else { 503 })
}

#[tokio::test]
async fn a_stored_message_is_answered_202_with_its_id_as_header_and_json() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    let answer = envoy.send(&Request::post("/a").header("prefer", "respond-async, wait=10")).await;
    let id = answer.stored_id();
    assert!(id.len() <= 40, "{id}");
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')), "{id}");
    assert!(id.len() >= 22, "128 random bits need 22 URL-safe characters: {id}");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body, json!({"id": id, "status": "stored"}));
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.header("preference-applied").as_deref(), Some("respond-async"));
    assert_eq!(answer.header("location"), None, "receipts need an operator");
    let plain = envoy.send(&Request::post("/b")).await;
    assert_ne!(plain.stored_id(), id);
    assert_eq!(plain.header("preference-applied"), None, "it was not asked for");
}

#[tokio::test]
async fn reply_original_keeps_the_failure_and_adds_status_and_id() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"reply": "original"}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    let requests = [Request::post("/a"), Request::new("DELETE", "/b"), Request::new("PUT", "/c").body("x")];
    let own = || Reply::Answer(503, vec![("retry-after", b"7".to_vec()), ("x-own", b"\xffbytes".to_vec())]);
    orders.reply_with(move |request| if request.attempt().is_some() { Reply::status(503) } else { own() });
    for (round, statuses) in [("by the receiver", 503), ("refused", 503)] {
        if round == "refused" {
            orders.refuse().await;
            envoy.wait_disconnected("orders").await;
        }
        for request in &requests {
            let (with, without) = (envoy.send(request).await, envoy.send_plain(request).await);
            assert_eq!((with.status, with.custody()), (statuses, Custody::Stored), "{round} {}", request.method);
            let id = with.header("x-redeliver-id").expect("an id");
            let mut bare = with.clone();
            bare.headers = with.headers.without(|name| name.starts_with("x-redeliver-"));
            assert_eq!(answer_essence(&bare), answer_essence(&without), "{round} {}: {id}", request.method);
        }
    }
    orders.answer(200);
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 6);
}

#[tokio::test]
async fn forged_headers_of_ours_reach_nobody() {
    const OURS: [&str; 4] = ["x-redeliver-id", "x-redeliver-attempt", "x-redeliver-status", "x-redeliver-hops"];
    let orders = Receiver::start().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    let forging = |status| {
        let forged = || OURS.map(|name| (name, b"stored".to_vec())).to_vec();
        move |request: &redeliver_tests::Received| match request.attempt() {
            Some(_) => Reply::status(200),
            None => Reply::Answer(status, forged()),
        }
    };
    let request = |method: &str, path: &str| {
        OURS.iter().fold(Request::new(method, path).body("x"), |request, name| request.header(name, "7"))
    };
    for status in [200, 202, 404] {
        orders.reply_with(forging(status));
        let answer = envoy.send(&request("POST", &format!("/live/{status}"))).await;
        assert_eq!(answer.status, status);
        for name in OURS {
            assert_eq!(answer.header(name), None, "{name} of the receiver reached the sender with {status}");
        }
    }
    orders.reply_with(forging(503));
    let id = envoy.send(&request("PUT", "/stored")).await.stored_id();
    assert_ne!(id, "stored");
    envoy.wait_drained(SOON).await;
    for received in orders.received() {
        let ours = OURS.map(|name| received.headers.all(name).len());
        match received.attempt() {
            None => assert_eq!(ours, [0; 4], "a forged header reached the receiver live: {received:?}"),
            Some(attempt) => {
                assert_eq!((attempt, received.headers.text("x-redeliver-id")), (1, Some(id.clone())));
                assert_eq!(ours, [1, 1, 0, 1], "{received:?}");
                assert_ne!(received.headers.text("x-redeliver-hops").as_deref(), Some("7"));
            }
        }
    }
}

#[tokio::test]
async fn a_redelivery_names_its_attempt_its_key_and_the_original_request_id() {
    let orders = Receiver::start().await;
    orders.reply_with(|request| Reply::status(if request.attempt() == Some(3) { 200 } else { 503 }));
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    let keyless = envoy.send(&Request::post("/keyless").header("x-request-id", "from-the-sender")).await.stored_id();
    let keyed = Request::post("/keyed").header("idempotency-key", "\"the sender's\"");
    envoy.send(&keyed).await.stored_id();
    envoy.wait_drained(SOON * 2).await;
    for path in ["/keyless", "/keyed"] {
        let copies = orders.on_path(path);
        assert_eq!(copies.iter().map(|copy| copy.attempt()).collect::<Vec<_>>(), [None, Some(1), Some(2), Some(3)]);
        let ids: Vec<_> = copies.iter().map(|copy| copy.headers.text("x-request-id")).collect();
        assert!(ids.iter().all(|id| *id == ids[0] && id.is_some()), "x-request-id changed: {ids:?}");
        let keys: Vec<_> = copies[1..].iter().map(|copy| copy.headers.text("idempotency-key")).collect();
        assert!(keys.iter().all(|key| *key == keys[0] && key.is_some()), "the key changed: {keys:?}");
        for copy in &copies[1..] {
            assert!(copy.headers.text("x-redeliver-hops").is_some(), "{copy:?}");
            assert_eq!(copy.headers.all("idempotency-key").len(), 1, "{copy:?}");
        }
    }
    assert_eq!(orders.on_path("/keyless")[0].headers.text("x-request-id").as_deref(), Some("from-the-sender"));
    assert_eq!(orders.on_path("/keyed")[2].headers.text("idempotency-key").as_deref(), Some("\"the sender's\""));
    assert_eq!(orders.on_path("/keyless")[1].headers.text("x-redeliver-id"), Some(keyless));
}

#[tokio::test]
async fn dropped_headers_are_neither_stored_nor_redelivered() {
    let orders = Receiver::start().await;
    orders.reply_with(busy_once());
    let filter = Filter::quick(json!({"capture": {"drop_headers": ["authorization", "X-Secret"]}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    for method in ["POST", "DELETE"] {
        let request = Request::new(method, &format!("/{method}"))
            .header("authorization", "Bearer s3cret")
            .header("x-kept", "yes")
            .header("x-secret", "one")
            .header("x-secret", "two");
        envoy.send(&request).await.stored_id();
    }
    envoy.wait_drained(SOON).await;
    for method in ["POST", "DELETE"] {
        let [live, redelivered] = &orders.on_path(&format!("/{method}"))[..] else { panic!("{:?}", orders.received()) };
        assert!(live.headers.get("authorization").is_some() && live.headers.get("x-secret").is_some());
        assert_eq!(redelivered.headers.get("authorization"), None);
        assert_eq!(redelivered.headers.get("x-secret"), None);
        assert_eq!(redelivered.headers.text("x-kept").as_deref(), Some("yes"));
    }
}

#[tokio::test]
async fn hop_by_hop_and_steering_headers_are_never_replayed() {
    let orders = Receiver::start().await;
    orders.reply_with(busy_once());
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    let request = Request::post("/a")
        .header("x-envoy-upstream-rq-timeout-ms", "100")
        .header("x-envoy-retry-on", "5xx")
        .header("x-envoy-max-retries", "5")
        .header("connection", "keep-alive, x-named")
        .header("x-named", "by connection")
        .header("te", "gzip")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive");
    envoy.send(&request).await.stored_id();
    envoy.wait_drained(SOON).await;
    let [_, redelivered] = &orders.on_path("/a")[..] else { panic!("{:?}", orders.received()) };
    for name in ["connection", "te", "keep-alive", "proxy-connection", "x-named", "transfer-encoding"] {
        assert_eq!(redelivered.headers.get(name), None, "{name} was replayed: {redelivered:?}");
    }
    for name in ["x-envoy-upstream-rq-timeout-ms", "x-envoy-retry-on", "x-envoy-max-retries"] {
        assert_eq!(redelivered.headers.get(name), None, "{name} was replayed: {redelivered:?}");
    }
    assert_eq!(redelivered.headers.all("content-length").len(), 1);
}

#[tokio::test]
async fn a_closed_store_takes_nothing_new() {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"store": {"accept": false}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    for request in [Request::post("/a"), Request::new("DELETE", "/b")] {
        let answer = envoy.send(&request).await;
        assert_eq!((answer.status, answer.custody()), (503, Custody::NotStored("closed".to_owned())));
        assert_eq!(answer.header("x-redeliver-id"), None);
    }
    envoy.wait_metrics("both are counted", SOON, |m| m.not_stored() == 2 && m.stored() == 0).await;
}

#[tokio::test]
async fn requests_with_trailers_are_unstorable_and_otherwise_unharmed() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    let answer = redeliver_tests::sender_h2::send_with_trailers(envoy.port(), &Request::post("/trailers")).await;
    assert_eq!((answer.status, answer.custody()), (503, Custody::NotStored("unstorable".to_owned())));
    orders.come_back().await;
    let answer = redeliver_tests::sender_h2::send_with_trailers(envoy.port(), &Request::post("/live")).await;
    assert_eq!((answer.status, answer.custody()), (200, Custody::Unsaid));
    eventually("the live one arrived", SOON, || match orders.on_path("/live").len() {
        1 => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
    assert_eq!(orders.on_path("/trailers").len(), 0);
}
