//! Redeliveries by way of an internal listener with the same routes (CONTRACT, section 3, `redelivery.through`).
//!
//! ```text
//!   sender ──> main ──> filter ──> routes ──> orders          at once
//!                 store ──> again ──> routes ──> orders       redelivered, as it arrived
//! ```
//!
//! The oracle is the live twin of `rewrites`: the receiver cannot tell a redelivery from what the routes make of the same
//! request at once, `auto_host_rewrite` without a configured authority included.

use crate::rewrites::{LOSSES, check_twins};
use redeliver_tests::{Again, Bootstrap, Custody, Filter, Receiver, Request, Route, SOON};
use serde_json::{Value, json};

fn routes() -> Vec<(&'static str, Route)> {
    let rewriting = Route::new("/shop", "orders")
        .action("prefix_rewrite", json!("/v2/items"))
        .action("host_rewrite_literal", json!("items.internal"));
    let auto_host = Route::new("/shop", "orders").action("auto_host_rewrite", json!(true));
    let mutating = Route::new("/shop", "orders")
        .action("regex_rewrite", json!({"pattern": {"regex": "^/shop/(.*)$"}, "substitution": "/v3/\\1/item"}))
        .field("request_headers_to_add", json!([{"header": {"key": "x-tenant", "value": "blue"}}]))
        .field("request_headers_to_remove", json!(["x-raw"]));
    vec![("rewriting", rewriting), ("auto_host_rewrite", auto_host), ("header mutation", mutating)]
}

fn filter(patch: Value) -> Filter {
    Filter::quick(json!({"redelivery": {"through": "again"}})).patched(patch)
}

async fn check_routes(again: Again, patch: Value) {
    for (name, route) in routes() {
        for loss in LOSSES {
            let orders = Receiver::start().await;
            let bootstrap = Bootstrap::new()
                .destination(loss.destination(orders.port()))
                .route(route.clone())
                .filter(filter(patch.clone()))
                .again(again);
            let envoy = check_twins(loss, orders, bootstrap).await;
            let metrics = envoy.metrics();
            assert_eq!((metrics.stored(), metrics.delivered()), (5, 5), "{name}, {loss:?}: stored once");
            assert!(envoy.admin.stat("http.again.downstream_rq_total") >= 5, "{name}, {loss:?}: not by way of it");
        }
    }
}

#[tokio::test]
async fn routes_make_of_redeliveries_what_they_make_of_live_requests() {
    check_routes(Again::Plain, json!({})).await;
}

#[tokio::test]
async fn the_filter_on_that_listener_knows_its_own_redeliveries() {
    check_routes(Again::Filtered, json!({"capture": {"as": "arrived"}})).await;
}

/// Attempts fail for a while; the failures come back as attempts and nothing is stored again.
async fn check_failing(again: Again, patch: Value) {
    let orders = Receiver::start().await;
    orders.answer(503);
    let envoy = Bootstrap::orders(orders.port(), filter(patch)).again(again).workers(2).start().await;
    let id = envoy.send(&Request::post("/orders/1").header("x-redeliver-id", "made up")).await.stored_id();
    let refused = orders.wait_received(5, SOON).await;
    orders.answer(200);
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered(), metrics.protected()), (1, 1, 1), "{metrics:?}");
    let attempts: Vec<_> = orders.received().iter().filter_map(|request| request.attempt()).collect();
    assert_eq!(attempts, (1..=attempts.len() as u32).collect::<Vec<_>>());
    assert_eq!(metrics.attempt_failures(), attempts.len() as u64 - 1);
    for redelivery in orders.received().iter().filter(|request| request.attempt().is_some()) {
        let told = ["x-redeliver-id", "x-redeliver-hops"].map(|name| redelivery.headers.text(name));
        assert_eq!(told, [Some(id.clone()), Some("1".to_owned())], "{} refused", refused.len());
        let has_pass = redelivery.headers.get("x-redeliver-pass").is_some();
        assert_eq!(has_pass, again == Again::Plain, "the filter takes the pass out, where it is");
    }
}

#[tokio::test]
async fn a_failure_behind_that_listener_comes_back_as_an_attempt() {
    check_failing(Again::Plain, json!({})).await;
    check_failing(Again::Filtered, json!({})).await;
    check_failing(Again::Filtered, json!({"trust": {"from_senders": true, "from_receivers": true}})).await;
}

#[tokio::test]
async fn the_state_is_that_of_the_destination_and_an_outage_costs_no_attempt() {
    for again in [Again::Plain, Again::Filtered] {
        for loss in LOSSES {
            let orders = Receiver::start().await;
            let bootstrap = Bootstrap::new()
                .destination(loss.destination(orders.port()))
                .route(Route::new("/", "orders"))
                .filter(filter(json!({"redelivery": {"max_attempts": 2}})))
                .again(again);
            let envoy = bootstrap.start().await;
            envoy.wait_healthy("orders", 1).await;
            assert_eq!(envoy.send(&Request::post("/live")).await.status, 200);
            loss.begin(&orders, &envoy).await;
            envoy.send(&Request::post("/orders/1")).await.stored_id();
            envoy.wait_metrics("several attempts find nobody", SOON, |m| m.attempt_failures() >= 4).await;
            envoy.wait_log("destination orders:", 1).await;
            assert_eq!(envoy.metrics().dead(), 0, "{again:?} {loss:?}: an outage costs no attempt");
            loss.end(&orders).await;
            let metrics = envoy.wait_drained(SOON).await;
            assert_eq!((metrics.stored(), metrics.delivered()), (1, 1), "{again:?} {loss:?}");
        }
    }
}

#[tokio::test]
async fn a_made_up_pass_opens_nothing() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), filter(json!({}))).again(Again::Filtered).start().await;
    let request = Request::post("/orders/1").header("x-redeliver-pass", "a".repeat(32)).header("x-redeliver-hops", "2");
    let answer = envoy.send(&request).await;
    assert_eq!(answer.custody(), Custody::Stored);
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    assert_eq!(orders.received()[0].headers.text("x-redeliver-hops").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_receivers_own_503_is_no_word_of_that_listeners_router() {
    let orders = Receiver::start().await;
    orders.answer(503);
    let patch = json!({"redelivery": {"max_attempts": 2}});
    let envoy = Bootstrap::orders(orders.port(), filter(patch)).again(Again::Plain).start().await;
    envoy.send(&Request::post("/orders/1")).await.stored_id();
    envoy.wait_metrics("dead after two attempts", SOON, |m| m.dead() == 1).await;
    assert_eq!(orders.received().len(), 3);
}

#[tokio::test]
async fn a_way_that_envoy_does_not_know_costs_no_attempt() {
    let orders = Receiver::absent().await;
    let patch = json!({"redelivery": {"through": "nowhere", "max_attempts": 1}});
    let envoy = Bootstrap::orders(orders.port(), filter(patch)).start().await;
    envoy.send(&Request::post("/orders/1")).await.stored_id();
    orders.come_back().await;
    envoy.wait_log("destination orders: up -> down (unknown cluster)", 1).await;
    envoy.wait_metrics("it is tried and kept", SOON, |m| m.attempts() >= 2 && m.queued() == 1 && m.dead() == 0).await;
    assert_eq!(orders.received().len(), 0);
}
