//! A configuration push during an outage: the store outlives it (CONTRACT, section 10).

use std::time::Duration;

use redeliver_tests::envoy::Push;
use redeliver_tests::{Bootstrap, Custody, Envoy, Filter, Receiver, Reply, Request, SOON};
use serde_json::{Value, json};

/// Short against a test, long against one attempt.
const DRAIN_TIME: Duration = Duration::from_secs(2);

fn bootstrap(port: u16, config: Value) -> Bootstrap {
    Bootstrap::orders(port, Filter::quick(config)).workers(2).drain_time(DRAIN_TIME)
}

async fn store(envoy: &Envoy, name: &str, count: usize) {
    for n in 0..count {
        envoy.send(&Request::post(&format!("/{name}/{n}"))).await.stored_id();
    }
}

/// Waits until the old configuration is gone: its listener has drained.
async fn old_one_is_gone(envoy: &Envoy) {
    envoy.wait_stat("listener_manager.total_filter_chains_draining", 0).await;
    envoy.wait_stat("listener_manager.total_listeners_draining", 0).await;
}

fn each_once(orders: &Receiver, count: usize) {
    let delivered = orders.delivered();
    let mut ids: Vec<_> = delivered.iter().map(|request| request.headers.text("x-redeliver-id")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), delivered.len()), (count, count), "distinct messages, deliveries");
}

#[tokio::test]
async fn a_push_during_an_outage_loses_and_duplicates_nothing() {
    let orders = Receiver::absent().await;
    let envoy = bootstrap(orders.port(), json!({})).start().await;
    store(&envoy, "first", 30).await;
    for (round, attempts) in [(1, 15), (2, 16)] {
        let next = bootstrap(orders.port(), json!({"redelivery": {"max_attempts": attempts}}));
        assert_eq!(envoy.push(&next).await, Push::Taken);
        store(&envoy, &format!("push-{round}"), 10).await;
    }
    old_one_is_gone(&envoy).await;
    store(&envoy, "after", 10).await;
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered()), (60, 60));
    each_once(&orders, 60);
}

#[tokio::test]
async fn a_push_while_attempts_are_out_loses_and_duplicates_nothing() {
    let orders = Receiver::absent().await;
    let envoy = bootstrap(orders.port(), json!({})).start().await;
    store(&envoy, "backlog", 40).await;
    orders.reply_with(|_| Reply::Late(Duration::from_millis(700), 200));
    orders.come_back().await;
    for attempts in 15..18 {
        let seen = orders.received().len();
        orders.wait_received((seen + 1).min(40), SOON).await;
        let next = bootstrap(orders.port(), json!({"redelivery": {"max_attempts": attempts}}));
        assert_eq!(envoy.push(&next).await, Push::Taken);
    }
    let metrics = envoy.wait_drained(SOON * 3).await;
    assert_eq!((metrics.stored(), metrics.delivered()), (40, 40));
    old_one_is_gone(&envoy).await;
    each_once(&orders, 40);
}

#[tokio::test]
async fn the_newest_configuration_rules() {
    let orders = Receiver::absent().await;
    let envoy = bootstrap(orders.port(), json!({})).start().await;
    store(&envoy, "before", 5).await;
    let closed = bootstrap(orders.port(), json!({"store": {"accept": false, "max_messages": 3}}));
    assert_eq!(envoy.push(&closed).await, Push::Taken);
    let answer = envoy.send(&Request::post("/closed")).await;
    assert_eq!((answer.status, answer.custody()), (503, Custody::NotStored("closed".to_owned())));
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!(metrics.delivered(), 5, "a smaller limit drops nothing, a closed store goes on delivering");
}

#[tokio::test]
async fn a_push_back_to_an_earlier_configuration_rules_again() {
    let orders = Receiver::absent().await;
    let envoy = bootstrap(orders.port(), json!({})).start().await;
    store(&envoy, "first", 3).await;
    let closed = bootstrap(orders.port(), json!({"store": {"accept": false}}));
    assert_eq!(envoy.push(&closed).await, Push::Taken);
    assert_eq!(envoy.send(&Request::post("/closed")).await.custody(), Custody::NotStored("closed".to_owned()));
    assert_eq!(envoy.push(&bootstrap(orders.port(), json!({}))).await, Push::Taken);
    store(&envoy, "again", 3).await;
    old_one_is_gone(&envoy).await;
    orders.come_back().await;
    // Envoy runs the earlier one on without configuring it again, so it must first notice that the later one is gone.
    assert_eq!(envoy.wait_drained(SOON * 2).await.delivered(), 6);
    each_once(&orders, 6);
}

#[tokio::test]
async fn a_parked_message_is_released_by_another_configuration() {
    let orders = Receiver::start().await;
    orders.reply_with(|request| Reply::status(if request.attempt().is_some() { 401 } else { 503 }));
    let park = |attempts: u16| json!({"redelivery": {"on_unauthorized": "park", "max_attempts": attempts}});
    let envoy = bootstrap(orders.port(), park(10)).start().await;
    store(&envoy, "first", 3).await;
    orders.wait_received(6, SOON).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let metrics = envoy.wait_metrics("all three are held", SOON, |m| m.queued() == 3).await;
    assert_eq!((orders.received().len(), metrics.dead(), metrics.attempts()), (6, 0, 3), "one attempt each");
    orders.answer(200);
    assert_eq!(envoy.push(&bootstrap(orders.port(), park(11))).await, Push::Taken);
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 3);
    each_once(&orders, 3);
}
