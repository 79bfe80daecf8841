//! What a destination has of its own (CONTRACT, section 3: destinations).

use redeliver_tests::{Bootstrap, Custody, Destination, Envoy, Filter, Receiver, Reply, Request, Route, SOON};
use serde_json::json;

/// Two destinations that answer alike, of which `stock` has keys of its own.
async fn orders_and_stock(port: u16, stock: serde_json::Value) -> Envoy {
    let bootstrap = ["orders", "stock"].into_iter().fold(Bootstrap::new().workers(2), |bootstrap, name| {
        bootstrap.destination(Destination::new(name, port)).route(Route::new(&format!("/{name}"), name))
    });
    bootstrap.filter(Filter::quick(json!({"destinations": {"stock": stock}}))).start().await
}

#[tokio::test]
async fn a_destination_has_its_own_failures_attempts_and_part_of_the_store() {
    let both = Receiver::start().await;
    let stock = json!({
        "failure": {"statuses": [500]},
        "store": {"max_messages": 2},
        "redelivery": {"max_attempts": 2},
    });
    let envoy = orders_and_stock(both.port(), stock).await;
    both.answer(500);
    assert_eq!(envoy.send(&Request::post("/orders/live")).await.custody(), Custody::Unsaid, "500 is no failure there");
    for n in 0..2 {
        envoy.send(&Request::post(&format!("/stock/{n}"))).await.stored_id();
    }
    let full = envoy.send(&Request::post("/stock/2")).await;
    assert_eq!((full.status, full.custody()), (500, Custody::NotStored("full".to_owned())));
    both.reply_with(|request| Reply::status(if request.attempt().is_some() { 500 } else { 503 }));
    assert_eq!(envoy.send(&Request::post("/stock/3")).await.custody(), Custody::Unsaid, "503 is no failure here");
    for n in 0..4 {
        envoy.send(&Request::post(&format!("/orders/{n}"))).await.stored_id();
    }
    envoy.wait_metrics("the own max_attempts ends both", SOON, |m| m.dead() == 2).await;
    for n in 0..2 {
        assert_eq!(both.on_path(&format!("/stock/{n}")).len(), 3, "live, and two redeliveries");
    }
    both.answer(200);
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.delivered(), metrics.dead()), (4, 2));
}

#[tokio::test]
async fn a_destination_can_take_nothing_while_the_others_do() {
    let both = Receiver::absent().await;
    let envoy = orders_and_stock(both.port(), json!({"store": {"accept": false}})).await;
    let closed = envoy.send(&Request::post("/stock/a")).await;
    assert_eq!(closed.custody(), Custody::NotStored("closed".to_owned()));
    envoy.send(&Request::post("/orders/a")).await.stored_id();
    both.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 1);
}
