//! `allow_on_headers_stop_iteration` is missing: the filter notices, releases what it holds, and says so (CONTRACT,
//! section 7).

use std::time::{Duration, Instant};

use redeliver_tests::{Bootstrap, Custody, Envoy, Filter, Receiver, Request, SOON};
use serde_json::json;

/// The contract allows 1 s; the rest is the machine's.
const RELEASED_WITHIN: Duration = Duration::from_millis(1300);
const AT_ONCE: Duration = Duration::from_millis(300);

async fn without_option(orders: &Receiver, workers: u32) -> Envoy {
    let filter = Filter::quick(json!({"capture": {"max_hold": "1s"}})).without_hold_option();
    Bootstrap::orders(orders.port(), filter).workers(workers).start().await
}

async fn timed(envoy: &Envoy, request: &Request) -> Duration {
    let started = Instant::now();
    let answer = envoy.send(request).await;
    assert_eq!((answer.status, answer.custody()), (200, Custody::Unsaid));
    started.elapsed()
}

fn errors(envoy: &Envoy) -> Vec<String> {
    envoy.log_lines_with("allow_on_headers_stop_iteration")
}

#[tokio::test]
async fn held_requests_are_released_unharmed_and_the_option_is_named_once() {
    let orders = Receiver::start().await;
    let envoy = without_option(&orders, 2).await;
    let requests: Vec<Request> = vec![
        Request::post("/first").body(vec![7; 5_000]),
        Request::post("/chunked").chunked(vec![b"one".to_vec(), b"two".to_vec()]),
    ];
    for request in &requests {
        let took = timed(&envoy, request).await;
        assert!(took < RELEASED_WITHIN, "{} was held for {took:?}", request.path);
        assert_eq!(orders.on_path(&request.path)[0].body, request.payload(), "{}", request.path);
    }
    // Connections spread over both workers; none of them may wait any more.
    for n in 0..20 {
        let took = timed(&envoy, &Request::post(&format!("/later/{n}"))).await;
        assert!(took < AT_ONCE, "later request {n} was held for {took:?}");
    }
    assert_eq!(errors(&envoy).len(), 1, "{:?}", errors(&envoy));
    assert!(errors(&envoy)[0].contains("[error]"), "{:?}", errors(&envoy));
    envoy.wait_metrics("capture is degraded", SOON, |m| m.capture_degraded() == 1).await;
}

#[tokio::test]
async fn several_requests_held_at_once_are_all_released() {
    let orders = Receiver::start().await;
    let envoy = without_option(&orders, 1).await;
    let first: Vec<Request> = (0..8).map(|n| Request::post(&format!("/held/{n}")).body(vec![n; 3_000])).collect();
    let started = Instant::now();
    let tasks: Vec<_> = first
        .iter()
        .map(|request| {
            let (port, request) = (envoy.port(), request.clone());
            tokio::spawn(async move { redeliver_tests::sender::send(port, &request).await.status })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("an answer"), 200);
    }
    assert!(started.elapsed() < RELEASED_WITHIN, "held for {:?}", started.elapsed());
    for request in &first {
        assert_eq!(orders.on_path(&request.path)[0].body, request.payload());
    }
}

#[tokio::test]
async fn empty_chunked_bodies_are_delayed_by_max_hold_at_most_and_later_ones_not_at_all() {
    let orders = Receiver::start().await;
    let envoy = without_option(&orders, 1).await;
    let empty = |path: &str| Request::post(path).chunked(Vec::new());
    let took = timed(&envoy, &empty("/empty/first")).await;
    assert!(took < RELEASED_WITHIN, "held for {took:?}");
    let took = timed(&envoy, &Request::post("/with/bytes")).await;
    assert!(took < RELEASED_WITHIN, "held for {took:?}");
    for n in 0..5 {
        let took = timed(&envoy, &empty(&format!("/empty/{n}"))).await;
        assert!(took < AT_ONCE, "later request {n} was held for {took:?}");
    }
}

#[tokio::test]
async fn it_goes_on_as_stream_and_stores_what_stream_can() {
    let orders = Receiver::start().await;
    let envoy = without_option(&orders, 1).await;
    timed(&envoy, &Request::post("/first")).await;
    orders.answer(503);
    envoy.send(&Request::new("DELETE", "/headers-only")).await.stored_id();
    envoy.send(&Request::post("/answered/after/the/body")).await.stored_id();
    orders.refuse().await;
    envoy.wait_disconnected("orders").await;
    envoy.send(&Request::new("DELETE", "/headers-only/refused")).await.stored_id();
}

#[tokio::test]
async fn stream_mode_holds_nothing_and_stores_what_it_saw_to_the_end() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"capture": {"mode": "stream"}})).without_hold_option();
    let envoy = Bootstrap::checked_orders(orders.port(), filter).start().await;
    let took = timed(&envoy, &Request::post("/live")).await;
    assert!(took < AT_ONCE, "stream mode held a request for {took:?}");
    orders.answer(503);
    envoy.send(&Request::post("/answered/after/the/body")).await.stored_id();
    orders.health(503);
    envoy.wait_healthy("orders", 0).await;
    envoy.send(&Request::new("DELETE", "/headers-only")).await.stored_id();
    let lost = envoy.send(&Request::post("/never/seen")).await;
    assert_eq!((lost.status, lost.custody()), (503, Custody::NotStored("incomplete-body".to_owned())));
    envoy.metrics_stay("stream was asked for: nothing is degraded", |m| m.capture_degraded() == 0).await;
    assert_eq!(errors(&envoy), Vec::<String>::new());
}
