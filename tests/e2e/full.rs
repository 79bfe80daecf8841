//! A full store: new messages are refused as they are, old ones are never dropped (CONTRACT, sections 3 and 10).

use redeliver_tests::compare::answer_essence;
use redeliver_tests::{Bootstrap, Custody, Envoy, Filter, Receiver, Request, Response, SOON, sender};
use serde_json::json;

fn full() -> Custody {
    Custody::NotStored("full".to_owned())
}

/// Everybody at once, over connections of their own.
async fn all_at_once(envoy: &Envoy, requests: Vec<Request>) -> Vec<Response> {
    let port = envoy.port();
    let tasks: Vec<_> =
        requests.into_iter().map(|request| tokio::spawn(async move { sender::send(port, &request).await })).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("an answer"));
    }
    answers
}

#[tokio::test]
async fn the_message_limit_is_exact_over_all_workers() {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"store": {"max_messages": 10}}));
    let envoy = Bootstrap::orders(orders.port(), filter).workers(3).start().await;
    let requests = (0..60).map(|n| match n % 2 {
        0 => Request::post(&format!("/{n}")),
        _ => Request::new("DELETE", &format!("/{n}")),
    });
    let answers = all_at_once(&envoy, requests.collect()).await;
    let stored = answers.iter().filter(|answer| answer.custody() == Custody::Stored).count();
    let refused = answers.iter().filter(|answer| (answer.status, answer.custody()) == (503, full())).count();
    assert_eq!((stored, refused), (10, 50));
    let late = Request::post("/late");
    let (mut with, without) = (envoy.send(&late).await, envoy.send_plain(&late).await);
    assert_eq!(with.custody(), full());
    with.headers = with.headers.without(|name| name == "x-redeliver-status");
    assert_eq!(answer_essence(&with), answer_essence(&without), "the original failure is not original");
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered(), metrics.not_stored()), (10, 10, 51));
    for id in answers.iter().filter_map(|answer| answer.header("x-redeliver-id")) {
        let copies = orders.received().iter().filter(|r| r.headers.text("x-redeliver-id") == Some(id.clone())).count();
        assert_eq!(copies, 1, "{id}");
    }
}

#[tokio::test]
async fn the_byte_limit_counts_bodies_headers_and_book_keeping() {
    const LIMIT: u64 = 100 * 1024;
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"store": {"max_bytes": "100KiB"}}));
    let envoy = Bootstrap::orders(orders.port(), filter).workers(2).start().await;
    let request = |n: usize| match n % 2 {
        0 => Request::post(&format!("/{n}")).body(vec![b'x'; 8 * 1024]),
        _ => Request::post(&format!("/{n}")).header("x-large", vec![b'h'; 8 * 1024]),
    };
    let answers = all_at_once(&envoy, (0..30).map(request).collect()).await;
    let stored = answers.iter().filter(|answer| answer.custody() == Custody::Stored).count() as u64;
    assert!(answers.iter().all(|answer| matches!(answer.custody(), Custody::Stored) || answer.custody() == full()));
    assert!(stored * 8 * 1024 <= LIMIT, "{stored} messages of 8 KiB are more than 100 KiB");
    assert!(stored >= 8, "only {stored} messages of 8 KiB in 100 KiB");
    let metrics = envoy.wait_metrics("the gauge knows them", SOON, |m| m.queued() == stored).await;
    assert!((stored * 8 * 1024..=LIMIT).contains(&metrics.queued_bytes()), "{metrics:?}");
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), stored);
    envoy.wait_metrics("nothing is left", SOON, |m| m.queued_bytes() == 0).await;
}

#[tokio::test]
async fn room_is_free_again_after_delivery_and_dead_letters_count() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"store": {"max_messages": 4}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    let rejecting = |request: &redeliver_tests::Received| match request.attempt() {
        None => 503,
        Some(_) if request.path.starts_with("/bad") => 400,
        Some(_) => 200,
    };
    orders.reply_with(move |request| redeliver_tests::Reply::status(rejecting(request)));
    for round in 0..3 {
        for n in 0..3 {
            envoy.send(&Request::post(&format!("/good/{round}/{n}"))).await.stored_id();
        }
        envoy.wait_drained(SOON).await;
    }
    for n in 0..3 {
        envoy.send(&Request::post(&format!("/bad/{n}"))).await.stored_id();
    }
    envoy.wait_metrics("three are dead", SOON, |m| m.dead() == 3 && m.at_rest()).await;
    orders.answer(503);
    envoy.send(&Request::post("/last")).await.stored_id();
    assert_eq!(envoy.send(&Request::post("/none")).await.custody(), full(), "dead letters count");
}
