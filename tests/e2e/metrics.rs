//! The metrics that the contract names (section 9): they exist under these names, and the books balance.

use std::time::Duration;

use redeliver_tests::admin::{HISTOGRAM, NUMBERS};
use redeliver_tests::{Bootstrap, Filter, Receiver, Reply, Request, SOON, eventually};
use serde_json::json;

#[tokio::test]
async fn every_metric_exists_under_its_name_and_no_other() {
    let orders = Receiver::start().await;
    orders.reply_with(|request| Reply::status(if request.attempt().is_some() { 200 } else { 503 }));
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await;
    envoy.send(&Request::post("/a?client=text")).await.stored_id();
    envoy.wait_drained(SOON).await;
    let mut expected: Vec<&str> = NUMBERS.iter().copied().chain([HISTOGRAM]).collect();
    expected.sort_unstable();
    let metrics = envoy.metrics();
    let mut names = metrics.names();
    names.sort_unstable();
    assert_eq!(names, expected);
    let prometheus = envoy.admin.get("/stats/prometheus").unwrap();
    for name in NUMBERS {
        let line = format!("redeliver_{name}{{}} ");
        assert!(prometheus.lines().any(|seen| seen.starts_with(&line)), "no line {line:?} in Prometheus");
    }
    assert!(prometheus.contains("redeliver_delivery_delay_ms_bucket"), "no histogram in Prometheus");
}

#[tokio::test]
async fn gauges_follow_a_backlog_up_and_down() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(json!({}))).workers(2).start().await;
    for n in 0..10 {
        envoy.send(&Request::post(&format!("/{n}")).body(vec![b'x'; 1000])).await.stored_id();
    }
    let metrics = envoy
        .wait_metrics("the backlog shows", SOON, |m| {
            m.queued() == 10 && m.destinations_down() == 1 && m.oldest_age_ms() > 500
        })
        .await;
    assert!((10_000..50_000).contains(&metrics.queued_bytes()), "{metrics:?}");
    orders.reply_with(|_| Reply::Late(Duration::from_millis(300), 200));
    orders.come_back().await;
    envoy.wait_metrics("attempts show while they are out", SOON, |m| m.in_flight() > 0).await;
    envoy.wait_drained(SOON).await;
    envoy
        .wait_metrics("all gauges are back", SOON, |m| {
            (m.queued(), m.queued_bytes(), m.oldest_age_ms(), m.destinations_down(), m.in_flight()) == (0, 0, 0, 0, 0)
        })
        .await;
    eventually("the histogram has counted", SOON, || {
        let text = envoy.admin.get("/stats?filter=delivery_delay_ms&type=Histograms").unwrap();
        if text.contains("P50(") && !text.contains("No recorded values") { Ok(()) } else { Err(text) }
    })
    .await;
}
