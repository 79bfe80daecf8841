//! A redelivery looks as the router would have made it (CONTRACT, sections 3 `capture.as` and 4).
//!
//! The oracle is a live twin: the same request is sent once while the receiver is well and once while it is not, and
//! the receiver must not be able to tell the two apart but for our own headers.

use redeliver_tests::compare::{essence, same_request, same_rewritten_request};
use redeliver_tests::{Bootstrap, Destination, Envoy, Filter, Receiver, Request, Route, SOON};
use serde_json::{Value, json};

/// How the receiver is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    NoHealthyHost,
    Refused,
}

pub(crate) const LOSSES: [Loss; 2] = [Loss::NoHealthyHost, Loss::Refused];

impl Loss {
    pub(crate) fn destination(self, port: u16) -> Destination {
        match self {
            Loss::NoHealthyHost => Destination::new("orders", port).checked(),
            Loss::Refused => Destination::new("orders", port),
        }
    }

    pub(crate) async fn begin(self, orders: &Receiver, envoy: &Envoy) {
        match self {
            Loss::NoHealthyHost => {
                orders.health(503);
                envoy.wait_healthy("orders", 0).await;
            }
            Loss::Refused => {
                orders.refuse().await;
                envoy.wait_disconnected("orders").await;
            }
        }
    }

    pub(crate) async fn end(self, orders: &Receiver) {
        match self {
            Loss::NoHealthyHost => orders.health(200),
            Loss::Refused => orders.come_back().await,
        }
    }
}

fn requests() -> Vec<Request> {
    let with_headers = |request: Request| {
        request
            .header("x-repeat", "one")
            .header("x-raw", b"a\xff\xe9b")
            .header("x-repeat", "two")
            .header("accept", "*/*")
    };
    vec![
        with_headers(Request::new("DELETE", "/shop/1?why=%20old")),
        with_headers(Request::new("POST", "/shop/2").body("")),
        with_headers(Request::new("POST", "/shop/3")),
        with_headers(Request::new("PUT", "/shop/4").body("a whole")),
        with_headers(Request::new("PATCH", "/shop/5").chunked(vec![b"in ".to_vec(), b"pieces".to_vec()])),
    ]
}

/// Each request live and redelivered; the receiver's view of both, in pairs.
async fn check(loss: Loss, route: Route, config: Value) {
    let orders = Receiver::start().await;
    let destination = loss.destination(orders.port());
    let bootstrap = Bootstrap::new().destination(destination).route(route).filter(Filter::quick(config));
    check_twins(loss, orders, bootstrap).await;
}

/// The same for a whole configuration; answers the Envoy, its work done.
pub(crate) async fn check_twins(loss: Loss, orders: Receiver, bootstrap: Bootstrap) -> Envoy {
    let envoy = bootstrap.start().await;
    // A module on a listener of the bootstrap is compiled while the first health check waits for its answer.
    envoy.wait_healthy("orders", 1).await;
    for request in requests() {
        assert_eq!(envoy.send(&request).await.status, 200);
    }
    let live = orders.received();
    loss.begin(&orders, &envoy).await;
    let mut ids = Vec::new();
    for request in requests() {
        ids.push(envoy.send(&request).await.stored_id());
    }
    loss.end(&orders).await;
    envoy.wait_drained(SOON).await;
    let redelivered = orders.received().split_off(live.len());
    assert_eq!(redelivered.len(), ids.len(), "{loss:?}: {redelivered:?}");
    for (twin, id) in live.iter().zip(ids) {
        let by_id = |r: &&redeliver_tests::Received| r.headers.text("x-redeliver-id").as_deref() == Some(id.as_str());
        let found = redelivered.iter().find(by_id);
        let redelivery = found.unwrap_or_else(|| panic!("{loss:?}: {id} not in {redelivered:?}"));
        assert_eq!(essence(redelivery), essence(twin), "{loss:?}");
    }
    envoy
}

#[tokio::test]
async fn a_route_that_rewrites_path_and_host_rewrites_redeliveries_too() {
    for loss in LOSSES {
        let route = Route::new("/shop", "orders")
            .action("prefix_rewrite", json!("/v2/items"))
            .action("host_rewrite_literal", json!("items.internal"));
        check(loss, route, json!({})).await;
    }
}

#[tokio::test]
async fn a_route_that_rewrites_by_regex_and_adds_headers_does_so_for_redeliveries_too() {
    for loss in LOSSES {
        let route = Route::new("/shop", "orders")
            .action("regex_rewrite", json!({"pattern": {"regex": "^/shop/(.*)$"}, "substitution": "/v3/\\1/item"}))
            .field("request_headers_to_add", json!([{"header": {"key": "x-tenant", "value": "blue"}}]));
        check(loss, route, json!({})).await;
    }
}

#[tokio::test]
async fn a_cluster_with_auto_host_rewrite_gets_the_configured_authority() {
    for loss in LOSSES {
        let route = Route::new("/shop", "orders").action("auto_host_rewrite", json!(true));
        check(loss, route, json!({"destinations": {"orders": {"authority": "orders.internal"}}})).await;
    }
}

#[tokio::test]
async fn capture_as_arrived_redelivers_what_the_sender_sent() {
    for loss in LOSSES {
        let orders = Receiver::start().await;
        let route = Route::new("/shop", "orders").action("prefix_rewrite", json!("/v2/items"));
        let filter = Filter::quick(json!({"capture": {"as": "arrived"}}));
        let bootstrap = Bootstrap::new().destination(loss.destination(orders.port())).route(route).filter(filter);
        let envoy = bootstrap.start().await;
        let live = Request::post("/shop/live");
        assert_eq!(envoy.send(&live).await.status, 200);
        same_rewritten_request(&live, "/v2/items/live", &live.authority, &orders.received()[0]);
        loss.begin(&orders, &envoy).await;
        for request in requests() {
            envoy.send(&request).await.stored_id();
        }
        loss.end(&orders).await;
        envoy.wait_drained(SOON).await;
        for request in requests() {
            let found = orders.on_path(&request.path);
            assert_eq!(found.len(), 1, "{loss:?}: {found:?}");
            same_request(&request, &found[0]);
        }
    }
}
