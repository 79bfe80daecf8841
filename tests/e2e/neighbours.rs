//! Two Envoys with the filter in a row: custody is in one place at a time, and the first sender sees where (CONTRACT,
//! section 4, `trust` and hops).
//!
//! ```text
//!   sender ──> gateway (trusts receivers) ──> sidecar (trusts senders) ──> receiver
//! ```

use redeliver_tests::{
    Again, Bootstrap, Custody, Destination, Envoy, Filter, Received, Receiver, Request, Response, Route, SOON,
};
use serde_json::{Value, json};

const TRUSTING: &str = r#"{"trust": {"from_senders": true, "from_receivers": true}}"#;

fn trusting(patch: Value) -> Filter {
    Filter::quick(serde_json::from_str(TRUSTING).expect("JSON")).patched(patch)
}

/// A gateway before a sidecar before `receiver`, each with its filter.
struct Row {
    gateway: Envoy,
    sidecar: Envoy,
    receiver: Receiver,
}

impl Row {
    async fn start(receiver: Receiver, gateway: Filter, sidecar: Filter) -> Row {
        let sidecar = Bootstrap::orders(receiver.port(), sidecar).first_of_two().start().await;
        let gateway = Bootstrap::orders(sidecar.port(), gateway).beside(&sidecar).start().await;
        Row { gateway, sidecar, receiver }
    }

    async fn trusting(receiver: Receiver) -> Row {
        let gateway = Filter::quick(json!({"trust": {"from_receivers": true}}));
        Row::start(receiver, gateway, Filter::quick(json!({"trust": {"from_senders": true}}))).await
    }

    /// What was stored at the gateway and at the sidecar.
    fn stored(&self) -> (u64, u64) {
        (self.gateway.metrics().stored(), self.sidecar.metrics().stored())
    }

    async fn drained(&self) -> Vec<Received> {
        self.gateway.wait_drained(SOON).await;
        self.sidecar.wait_drained(SOON).await;
        self.receiver.delivered()
    }
}

fn header(request: &Received, name: &str) -> String {
    request.headers.text(name).unwrap_or_default()
}

#[tokio::test]
async fn what_the_second_stores_the_first_hands_on_and_does_not_store() {
    let row = Row::trusting(Receiver::absent().await).await;
    let answer = row.gateway.send(&Request::post("/orders/1")).await;
    let id = answer.stored_id();
    assert!(answer.text().contains(&id), "{answer:?}");
    assert_eq!(row.stored(), (0, 1));
    row.receiver.come_back().await;
    let [delivered] = &row.drained().await[..] else { panic!("not once: {:?}", row.receiver.received()) };
    assert_eq!((header(delivered, "x-redeliver-id"), header(delivered, "x-redeliver-hops")), (id, "1".to_owned()));
    row.gateway.metrics_stay("the gateway stores nothing", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn what_the_second_says_it_stored_is_handed_on_with_the_failure_too() {
    let gateway = Filter::quick(json!({"trust": {"from_receivers": true}}));
    let sidecar = Filter::quick(json!({"trust": {"from_senders": true}, "reply": "original"}));
    let row = Row::start(Receiver::absent().await, gateway, sidecar).await;
    let answer = row.gateway.send(&Request::post("/orders/1")).await;
    assert_eq!((answer.status, answer.custody()), (503, Custody::Stored), "{answer:?}");
    assert_eq!(row.stored(), (0, 1));
    row.receiver.come_back().await;
    assert_eq!(row.drained().await.len(), 1);
}

#[tokio::test]
async fn what_the_first_stores_while_the_second_is_away_arrives_once() {
    let receiver = Receiver::start().await;
    let mut row = Row::trusting(receiver).await;
    row.sidecar.terminate().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(row.gateway.send(&Request::post(&format!("/orders/{n}"))).await.stored_id());
    }
    row.sidecar.start_again().await;
    let mut delivered = row.drained().await;
    delivered.sort_by(|a, b| a.path.cmp(&b.path));
    let seen: Vec<String> = delivered.iter().map(|request| header(request, "x-redeliver-id")).collect();
    assert_eq!(seen, ids, "each once, with the id that its sender knows");
    assert!(delivered.iter().all(|request| header(request, "x-redeliver-hops") == "1"), "{delivered:?}");
    assert_eq!(row.stored(), (5, 0));
}

#[tokio::test]
async fn custody_moves_on_with_its_id_when_the_second_is_back_and_the_receiver_is_not() {
    let mut row = Row::trusting(Receiver::absent().await).await;
    row.sidecar.terminate().await;
    let id = row.gateway.send(&Request::post("/orders/1")).await.stored_id();
    row.sidecar.start_again().await;
    row.gateway.wait_drained(SOON).await;
    assert_eq!(row.stored(), (1, 1));
    row.receiver.come_back().await;
    let [delivered] = &row.drained().await[..] else { panic!("not once: {:?}", row.receiver.received()) };
    let told = ["x-redeliver-id", "x-redeliver-hops", "idempotency-key"].map(|name| header(delivered, name));
    assert_eq!(told, [id.clone(), "2".to_owned(), id]);
}

#[tokio::test]
async fn custody_moves_on_although_the_second_answers_with_the_failure() {
    let gateway = Filter::quick(json!({"trust": {"from_receivers": true}}));
    let sidecar = Filter::quick(json!({"trust": {"from_senders": true}, "reply": "original"}));
    let mut row = Row::start(Receiver::absent().await, gateway, sidecar).await;
    row.sidecar.terminate().await;
    row.gateway.send(&Request::post("/orders/1")).await.stored_id();
    row.sidecar.start_again().await;
    assert_eq!(row.gateway.wait_drained(SOON).await.delivered(), 1);
    row.receiver.come_back().await;
    assert_eq!(row.drained().await.len(), 1);
    assert_eq!(row.stored(), (1, 1));
}

async fn one(filter: Filter, request: &Request) -> (Response, Vec<Received>) {
    let receiver = Receiver::absent().await;
    let envoy = Bootstrap::orders(receiver.port(), filter).start().await;
    let answer = envoy.send(request).await;
    receiver.come_back().await;
    envoy.wait_drained(SOON).await;
    (answer, receiver.delivered())
}

#[tokio::test]
async fn a_message_with_three_hops_is_not_stored_again() {
    let before = |hops: &str| Request::post("/orders/1").header("x-redeliver-hops", hops);
    let (answer, _) = one(trusting(json!({})), &before("3")).await;
    assert_eq!((answer.status, answer.custody()), (503, Custody::NotStored("unstorable".to_owned())));
    let (answer, delivered) = one(trusting(json!({})), &before("2")).await;
    answer.stored_id();
    assert_eq!(header(&delivered[0], "x-redeliver-hops"), "3");
}

#[tokio::test]
async fn without_trust_hops_and_ids_of_others_are_made_up() {
    let request = Request::post("/orders/1").header("x-redeliver-hops", "3").header("x-redeliver-id", "a".repeat(32));
    let (answer, delivered) = one(Filter::quick(json!({})), &request).await;
    let id = answer.stored_id();
    assert_ne!(id, "a".repeat(32));
    assert_eq!(
        (header(&delivered[0], "x-redeliver-id"), header(&delivered[0], "x-redeliver-hops")),
        (id, "1".to_owned())
    );
}

#[tokio::test]
async fn a_neighbours_headers_are_handed_on_when_nothing_fails() {
    let receiver = Receiver::start().await;
    receiver.reply_with(|_| {
        let headers = vec![("x-redeliver-status", b"stored".to_vec()), ("x-redeliver-id", b"theirs".to_vec())];
        redeliver_tests::Reply::Answer(202, headers)
    });
    let request = Request::post("/orders/1").header("x-redeliver-hops", "1").header("x-redeliver-id", "a".repeat(32));
    for (filter, expected) in [(trusting(json!({})), true), (Filter::quick(json!({})), false)] {
        let envoy = Bootstrap::orders(receiver.port(), filter).start().await;
        let answer = envoy.send(&request).await;
        let handed_on = (answer.header("x-redeliver-id").is_some(), answer.custody() == Custody::Stored);
        assert_eq!((answer.status, handed_on), (202, (expected, expected)), "{answer:?}");
        let received = receiver.received().pop().expect("the request");
        let names = ["x-redeliver-hops", "x-redeliver-id"];
        assert!(names.iter().all(|name| received.headers.get(name).is_some() == expected), "{received:?}");
        assert_eq!(envoy.metrics().stored(), 0);
    }
}

#[tokio::test]
async fn a_neighbours_reason_gives_way_to_ours() {
    let receiver = Receiver::start().await;
    receiver.reply_with(|_| {
        redeliver_tests::Reply::Answer(503, vec![("x-redeliver-status", b"not-stored; reason=full".to_vec())])
    });
    for (patch, expected) in [
        (json!({"store": {"accept": false}}), Custody::NotStored("closed".to_owned())),
        (json!({"reply": "original"}), Custody::Stored),
    ] {
        let envoy = Bootstrap::orders(receiver.port(), trusting(patch)).start().await;
        let answer = envoy.send(&Request::post("/orders/1")).await;
        assert_eq!((answer.status, answer.custody()), (503, expected));
        assert_eq!(answer.headers.0.iter().filter(|(name, _)| name == "x-redeliver-status").count(), 1);
    }
}

/// A chain within one Envoy: both listeners have one store, and the second closes it to what it sends on.
#[tokio::test]
async fn a_redelivery_to_a_listener_with_the_same_store_is_not_taken_for_a_retry() {
    for trust in [true, false] {
        let orders = Receiver::absent().await;
        let filter = Filter::quick(json!({
            "trust": {"from_senders": trust},
            "destinations": {"orders": {"store": {"accept": false}}},
        }));
        let bootstrap = Bootstrap::new()
            .destination(Destination::new("orders", orders.port()))
            .route(Route::new("/in", "again").action("prefix_rewrite", json!("/out")))
            .route(Route::new("/out", "orders"))
            .again(Again::Filtered)
            .filter(filter);
        let envoy = bootstrap.start().await;
        let request = Request::post("/in/1").header("idempotency-key", "k").body("ten");
        let id = envoy.send(&request).await.stored_id();
        // A redelivery that fails there is an attempt, and one that gets through is the message's delivery.
        envoy.wait_metrics("an attempt has failed", SOON, |m| m.attempt_failures() > 0).await;
        orders.come_back().await;
        let metrics = envoy.wait_drained(SOON).await;
        assert_eq!((metrics.stored(), metrics.delivered(), metrics.dead()), (1, 1, 0), "trust {trust}: {metrics:?}");
        let [delivered] = &orders.received()[..] else { panic!("trust {trust}: {:?}", orders.received()) };
        assert_eq!((delivered.path.as_str(), delivered.body.as_slice()), ("/out/1", b"ten".as_slice()));
        let retry = envoy.send(&request).await;
        assert_eq!((retry.custody(), retry.header("x-redeliver-id")), (Custody::Duplicate, Some(id)), "trust {trust}");
    }
}
