//! What the filter makes of a destination's health (CONTRACT, section 6).

use std::time::{Duration, Instant};

use redeliver_tests::wait::throughout;
use redeliver_tests::{
    Bootstrap, Custody, Destination, Envoy, Filter, HealthListener, Receiver, Reply, Request, Route,
};
use redeliver_tests::{SOON, eventually};
use serde_json::{Value, json};

const INTERVAL: Duration = Duration::from_millis(400);
const STABLE_FOR: Duration = Duration::from_millis(400);
const PROBE_MAX: Duration = Duration::from_secs(1);

fn health(source: &str) -> Value {
    let cluster = if source == "admin" { "admin_api" } else { "redeliver_health" };
    json!({"health": {
        "source": source, "cluster": cluster, "interval": "400ms", "stable_for": "400ms", "probe_max": "1s",
    }})
}

async fn store(envoy: &Envoy, count: usize) {
    for n in 0..count {
        envoy.send(&Request::post(&format!("/backlog/{n}"))).await.stored_id();
    }
}

/// One source with one number of workers: the backlog drains within interval + stable_for + 2 s of health.
async fn drains_in_time(source: &'static str, workers: u32) {
    const BACKLOG: usize = 60;
    let orders = Receiver::start().await;
    let active = source != "passive";
    // Envoy's own defaults here: workers learn of health up to 1 s after the main thread, and the limit must hold.
    let destination = Destination::new("orders", orders.port())
        .with("common_lb_config", json!({"healthy_panic_threshold": {"value": 0}}));
    let bootstrap = Bootstrap::new()
        .destination(if active { destination.checked() } else { destination })
        .route(Route::new("/", "orders"))
        .filter(Filter::quick(health(source)));
    let envoy = bootstrap.workers(workers).start().await;
    orders.refuse().await;
    if active {
        envoy.wait_healthy("orders", 0).await;
    }
    store(&envoy, BACKLOG).await;
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1 && m.in_flight() == 0).await;
    if active {
        let attempts = envoy.metrics().attempts();
        throughout("no message is sent while down", Duration::from_secs(1), || match envoy.metrics() {
            m if m.attempts() == attempts && m.destinations_down() == 1 => Ok(()),
            m => Err(format!("{m:?}, attempts were {attempts}")),
        })
        .await;
    }
    orders.come_back().await;
    // Passive: the next probe is at most probe_max away, plus a fifth of jitter.
    let limit = if active { INTERVAL + STABLE_FOR } else { PROBE_MAX * 12 / 10 } + Duration::from_secs(2);
    if active {
        envoy.wait_healthy("orders", 1).await;
    }
    let healthy_at = Instant::now();
    let received = orders.wait_received(BACKLOG, SOON * 2).await;
    let took = healthy_at.elapsed();
    let first = received[0].at.saturating_duration_since(healthy_at);
    println!("{source}, {workers} workers: first redelivery after {first:?}, {BACKLOG} after {took:?}");
    assert!(took < limit, "{source}, {workers} workers: drained {took:?} after health, limit {limit:?}");
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.delivered(), metrics.destinations_down()), (BACKLOG as u64, 0));
    assert_eq!(orders.received().len(), BACKLOG, "something was delivered twice");
}

#[tokio::test]
async fn a_backlog_drains_in_time_by_the_health_check_filter_with_1_worker() {
    drains_in_time("health_check_filter", 1).await;
}

#[tokio::test]
async fn a_backlog_drains_in_time_by_the_health_check_filter_with_3_workers() {
    drains_in_time("health_check_filter", 3).await;
}

#[tokio::test]
async fn a_backlog_drains_in_time_by_the_admin_port_with_1_worker() {
    drains_in_time("admin", 1).await;
}

#[tokio::test]
async fn a_backlog_drains_in_time_by_the_admin_port_with_3_workers() {
    drains_in_time("admin", 3).await;
}

#[tokio::test]
async fn a_backlog_drains_in_time_passively_with_1_worker() {
    drains_in_time("passive", 1).await;
}

#[tokio::test]
async fn a_backlog_drains_in_time_passively_with_3_workers() {
    drains_in_time("passive", 3).await;
}

/// Whether the destination was up or down when Envoy began to fail its own health check.
#[derive(Clone, Copy, Debug)]
enum Before {
    Up,
    Down,
}

#[tokio::test]
async fn an_envoy_that_fails_its_own_health_check_goes_on_delivering() {
    for before in [Before::Up, Before::Down] {
        let orders = Receiver::start().await;
        let filter = Filter::quick(health("health_check_filter"));
        let envoy = Bootstrap::checked_orders(orders.port(), filter).start().await;
        match before {
            Before::Up => orders.answer(503),
            Before::Down => {
                orders.health(503);
                envoy.wait_healthy("orders", 0).await;
            }
        }
        store(&envoy, 20).await;
        if let Before::Down = before {
            envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1).await;
        }
        envoy.admin.post("/healthcheck/fail").expect("the admin port takes it");
        orders.answer(200);
        orders.health(200);
        envoy.wait_healthy("orders", 1).await;
        let live = envoy.send(&Request::post("/live")).await;
        assert_eq!((live.status, live.custody()), (200, Custody::Unsaid), "{before:?}");
        let metrics = envoy.wait_drained(SOON).await;
        assert_eq!(metrics.delivered(), 20, "{before:?}");
    }
}

#[tokio::test]
async fn an_unreachable_health_listener_delays_nothing() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(health("health_check_filter"));
    let bootstrap = Bootstrap::orders(orders.port(), filter).health_listener(HealthListener::Unreachable);
    let envoy = bootstrap.start().await;
    orders.refuse().await;
    store(&envoy, 20).await;
    orders.come_back().await;
    let started = Instant::now();
    let live = envoy.send(&Request::post("/live")).await;
    assert_eq!((live.status, live.custody()), (200, Custody::Unsaid));
    assert!(started.elapsed() < Duration::from_secs(1), "live traffic was held: {:?}", started.elapsed());
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 20);
}

#[tokio::test]
async fn a_health_path_that_nobody_serves_is_unknown_and_delays_nothing() {
    let orders = Receiver::start().await;
    let mut config = health("health_check_filter");
    config["health"]["path"] = json!("/nowhere/{cluster}");
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(config)).start().await;
    orders.refuse().await;
    store(&envoy, 5).await;
    orders.come_back().await;
    assert_eq!(envoy.send(&Request::post("/live")).await.status, 200);
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 5);
}

#[tokio::test]
async fn stable_for_is_waited_for_after_health_returns() {
    let orders = Receiver::start().await;
    let mut config = health("health_check_filter");
    config["health"]["stable_for"] = json!("2s");
    let envoy = Bootstrap::checked_orders(orders.port(), Filter::quick(config)).start().await;
    orders.health(503);
    envoy.wait_healthy("orders", 0).await;
    store(&envoy, 3).await;
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1).await;
    let healthy_at = Instant::now();
    orders.health(200);
    let first = orders.wait_received(1, SOON).await[0].at;
    let waited = first.duration_since(healthy_at);
    assert!(waited >= Duration::from_secs(2), "the first redelivery came after {waited:?}");
    envoy.wait_drained(SOON).await;
}

#[tokio::test]
async fn hold_while_down_stores_at_once_and_always_answers_202() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({
        "capture": {"as": "arrived"},
        "hold_while_down": true,
        "reply": "original",
        "health": {"source": "passive", "probe_max": "5s"},
        "redelivery": {"backoff": {"initial": "5s", "max": "5s"}},
    }));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    orders.refuse().await;
    for n in 0..6 {
        let failed = envoy.send(&Request::post(&format!("/early/{n}"))).await;
        if failed.status == 202 {
            break; // Down already: held.
        }
        assert_eq!((failed.status, failed.custody()), (503, Custody::Stored));
    }
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1).await;
    orders.come_back().await;
    let held = envoy.send(&Request::post("/held")).await;
    held.stored_id();
    assert!(orders.on_path("/held").iter().all(|request| request.attempt().is_some()), "the router was asked");
    envoy.wait_drained(SOON * 2).await;
    assert_eq!(orders.on_path("/held").len(), 1);
    let live = envoy.send(&Request::post("/live")).await;
    assert_eq!((live.status, live.custody()), (200, Custody::Unsaid), "up again, and still held");
}

#[tokio::test]
async fn without_hold_while_down_a_live_request_of_a_down_destination_goes_through_and_ends_down() {
    let orders = Receiver::start().await;
    let slow = json!({
        "health": {"source": "passive", "probe_max": "60s"},
        "redelivery": {"backoff": {"initial": "30s", "max": "60s"}},
    });
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(slow)).start().await;
    orders.refuse().await;
    store(&envoy, 6).await;
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1).await;
    orders.come_back().await;
    assert_eq!(envoy.send(&Request::post("/live")).await.status, 200);
    envoy.wait_metrics("orders is not down any more", SOON, |m| m.destinations_down() == 0).await;
}

#[tokio::test]
async fn overflow_is_no_sign_of_being_down() {
    let orders = Receiver::start().await;
    let breakers = json!({"thresholds": [{"max_requests": 0}]});
    let bootstrap = Bootstrap::new()
        .destination(Destination::new("orders", orders.port()).with("circuit_breakers", breakers))
        .route(Route::new("/", "orders"))
        .filter(Filter::quick(health("passive")));
    let envoy = bootstrap.start().await;
    store(&envoy, 12).await;
    throughout("overflow does not lead to down", Duration::from_secs(1), || match envoy.metrics() {
        m if m.destinations_down() == 0 => Ok(()),
        m => Err(format!("{m:?}")),
    })
    .await;
    envoy.admin.post("/runtime_modify?circuit_breakers.orders.default.max_requests=1000").unwrap();
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 12);
}

#[tokio::test]
async fn an_unhealthy_destination_that_answers_is_suspected_after_a_while() {
    let orders = Receiver::start().await;
    let mut config = health("health_check_filter");
    config["health"]["suspect_after"] = json!("1s");
    let panicking = json!({"healthy_panic_threshold": {"value": 50}});
    let bootstrap = Bootstrap::new()
        .destination(Destination::new("orders", orders.port()).checked().with("common_lb_config", panicking))
        .route(Route::new("/", "orders"))
        .filter(Filter::quick(config));
    let envoy = bootstrap.start().await;
    orders.health(503);
    envoy.wait_healthy("orders", 0).await;
    orders.answer(503);
    store(&envoy, 2).await;
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1).await;
    orders.answer(200);
    envoy.wait_drained(SOON * 2).await;
    assert_eq!(orders.delivered().len(), 2);
}

#[tokio::test]
async fn the_window_holds_for_the_whole_process() {
    let orders = Receiver::start().await;
    let mut config = health("passive");
    config["redelivery"] = json!({"window": {"initial": 2, "max": 4}});
    let envoy = Bootstrap::orders(orders.port(), Filter::quick(config)).workers(3).start().await;
    orders.refuse().await;
    store(&envoy, 80).await;
    orders.reply_with(|_| Reply::Late(Duration::from_millis(20), 200));
    orders.come_back().await;
    envoy.wait_drained(SOON * 2).await;
    let peak = orders.peak_in_hand();
    assert!((2..=4).contains(&peak), "{peak} redeliveries at once");
}

#[tokio::test]
async fn a_destination_that_fails_again_while_it_drains_loses_nothing() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(health("health_check_filter"));
    let envoy = Bootstrap::checked_orders(orders.port(), filter).workers(2).start().await;
    orders.refuse().await;
    envoy.wait_healthy("orders", 0).await;
    store(&envoy, 40).await;
    for _ in 0..3 {
        let before = orders.received().len();
        orders.reply_with(|_| Reply::Late(Duration::from_millis(50), 200));
        orders.come_back().await;
        eventually("some of the backlog has come", SOON, || match orders.received().len() {
            now if now > before || now >= 40 => Ok(()),
            now => Err(format!("{now}, before {before}")),
        })
        .await;
        orders.leave().await;
    }
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON * 2).await.delivered(), 40);
    assert_eq!(orders.delivered().len(), 40, "something was delivered twice though every outcome was known");
}

/// With Envoy's default threshold a cluster whose hosts are all unhealthy is used as if they were well.
#[tokio::test]
async fn in_panic_mode_nothing_is_redelivered_to_hosts_that_envoy_calls_unhealthy() {
    let orders = Receiver::start().await;
    let panicking = json!({"healthy_panic_threshold": {"value": 50}, "update_merge_window": "0s"});
    let bootstrap = Bootstrap::new()
        .destination(Destination::new("orders", orders.port()).checked().with("common_lb_config", panicking))
        .route(Route::new("/", "orders"))
        .filter(Filter::quick(health("health_check_filter")));
    let envoy = bootstrap.start().await;
    orders.health(500);
    envoy.wait_healthy("orders", 0).await;
    orders.answer(503);
    store(&envoy, 3).await;
    envoy.wait_metrics("orders is down", SOON, |m| m.destinations_down() == 1 && m.queued() == 3).await;
    orders.answer(200);
    let live = envoy.send(&Request::post("/live")).await;
    assert_eq!((live.status, live.custody()), (200, Custody::Unsaid), "this is panic mode: Envoy sends all the same");
    throughout("nothing is redelivered", Duration::from_secs(2), || match (envoy.metrics(), orders.received()) {
        (m, received) if m.attempts() == 0 && received.iter().all(|request| request.attempt().is_none()) => Ok(()),
        (m, received) => Err(format!("{m:?}, {} requests", received.len())),
    })
    .await;
    orders.health(200);
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.delivered(), metrics.attempts()), (3, 3));
}
