//! Unary gRPC calls (CONTRACT, sections 3 `match.grpc`, 4 and 5), with a real gRPC receiver and sender.
//!
//! What a sender is told of custody stands beside its `grpc-status`: in the headers of an answer that has no trailers, or
//! in the trailers. tonic shows both as the metadata of a `Status`.

mod town;

use std::time::{Duration, Instant};

use redeliver_tests::{Again, Bootstrap, Envoy, Filter, Route, SOON};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::{Code, Status};
use town::{Call, GrpcReceiver, GrpcSender, PLACE, Say, grpc_destination, wait_calls};

const KEYED: &[(&str, &str)] = &[("idempotency-key", "k-1"), ("x-tenant", "blue")];

fn unary(patch: Value) -> Filter {
    Filter::quick(json!({"match": {"grpc": "unary"}})).patched(patch)
}

async fn start(receiver: &GrpcReceiver, filter: Filter) -> (Envoy, GrpcSender) {
    let bootstrap =
        Bootstrap::new().destination(receiver.destination()).route(Route::new("/", "orders")).filter(filter);
    let envoy = bootstrap.start().await;
    let sender = GrpcSender::connect(envoy.port()).await;
    (envoy, sender)
}

fn told(status: &Status, name: &str) -> Option<String> {
    status.metadata().get(name).map(|value| value.to_str().expect("text").to_owned())
}

/// The id of a call that failed with `code` and was stored.
fn stored_id(answer: Result<Vec<u8>, Status>, code: Code) -> String {
    let status = answer.expect_err("the call failed");
    assert_eq!((status.code(), told(&status, "x-redeliver-status").as_deref()), (code, Some("stored")), "{status:?}");
    told(&status, "x-redeliver-id").expect("an id")
}

fn not_stored(answer: Result<Vec<u8>, Status>, code: Code) -> Option<String> {
    let status = answer.expect_err("the call failed");
    assert_eq!((status.code(), told(&status, "x-redeliver-id")), (code, None), "{status:?}");
    told(&status, "x-redeliver-status")
}

fn is_redelivery(call: &Call) -> bool {
    call.headers.contains_key("x-redeliver-attempt")
}

#[tokio::test]
async fn a_call_that_succeeds_is_left_alone() {
    let orders = GrpcReceiver::start().await;
    let (envoy, mut sender) = start(&orders, unary(json!({}))).await;
    assert_eq!(sender.call(b"an order", KEYED).await.expect("done"), b"done");
    let [call] = &orders.calls()[..] else { panic!("not once") };
    assert_eq!((call.message.as_slice(), call.path.as_str()), (&b"an order"[..], PLACE));
    envoy.metrics_stay("protected and not stored", |m| m.protected() <= 1 && m.stored() == 0).await;
}

#[tokio::test]
async fn a_call_to_a_receiver_that_is_away_is_stored_and_delivered() {
    let orders = GrpcReceiver::absent();
    let (envoy, mut sender) = start(&orders, unary(json!({}))).await;
    let id = stored_id(sender.call(b"an order", &KEYED[1..]).await, Code::Unavailable);
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered(), metrics.dead()), (1, 1, 0));
    let [call] = &orders.calls()[..] else { panic!("not once") };
    assert_eq!((call.message.as_slice(), call.path.as_str()), (&b"an order"[..], PLACE));
    for (name, expected) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        // redelivery.timeout of the test; the sender's was 20 s.
        ("grpc-timeout", "3000m"),
        ("x-tenant", "blue"),
        ("x-redeliver-id", &id),
        ("idempotency-key", &id),
        ("x-redeliver-hops", "1"),
    ] {
        assert_eq!(call.header(name).as_deref(), Some(expected), "{name}: {call:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_found_in_headers_and_in_trailers() {
    for refusal in [Say::TrailersOnly(Code::Unavailable), Say::Trailers(Code::Unavailable)] {
        let orders = GrpcReceiver::start().await;
        // The first redelivery is refused in the same way.
        orders.say_by(move |call| match call.header("x-redeliver-attempt").as_deref() {
            None | Some("1") => refusal,
            Some(_) => Say::Ok,
        });
        let (envoy, mut sender) = start(&orders, unary(json!({}))).await;
        stored_id(sender.call(b"an order", &[]).await, Code::Unavailable);
        let metrics = envoy.wait_drained(SOON).await;
        let counts = (metrics.stored(), metrics.attempts(), metrics.attempt_failures(), metrics.delivered());
        assert_eq!(counts, (1, 2, 1, 1), "{refusal:?}");
        let calls = orders.calls();
        assert!(calls.len() == 3 && calls.iter().all(|call| call.message == b"an order"), "{refusal:?}: {calls:?}");
    }
}

#[tokio::test]
async fn only_listed_statuses_are_refusals() {
    let orders = GrpcReceiver::start().await;
    let (envoy, mut sender) = start(&orders, unary(json!({"failure": {"grpc_statuses": [8]}}))).await;
    for say in [Say::TrailersOnly, Say::Trailers] {
        for code in [Code::Unavailable, Code::NotFound] {
            orders.say(say(code));
            assert_eq!(not_stored(sender.call(b"an order", &[]).await, code), None, "no failure to us");
        }
        orders.say_by(move |call| if is_redelivery(call) { Say::Ok } else { say(Code::ResourceExhausted) });
        stored_id(sender.call(b"an order", &[]).await, Code::ResourceExhausted);
    }
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 2);
}

#[tokio::test]
async fn a_call_that_has_answered_a_message_is_no_unary_failure() {
    let orders = GrpcReceiver::start().await;
    orders.say(Say::MessageThenTrailers(Code::Unavailable));
    let (envoy, mut sender) = start(&orders, unary(json!({}))).await;
    assert_eq!(not_stored(sender.call(b"an order", &[]).await, Code::Unavailable), None);
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn delivered_is_grpc_status_0_and_nothing_else() {
    let cases = [
        (Say::TrailersOnly(Code::InvalidArgument), "rejected"),
        (Say::Trailers(Code::NotFound), "rejected"),
        (Say::Trailers(Code::Unknown), "attempts"),
        (Say::TrailersOnly(Code::DeadlineExceeded), "attempts"),
        (Say::Hang, "attempts"),
        (Say::Http(200), "attempts"),
        (Say::Http(204), "attempts"),
        (Say::Http(404), "rejected"),
        (Say::Http(503), "attempts"),
    ];
    for (say, reason) in cases {
        let orders = GrpcReceiver::start().await;
        orders.say_by(move |call| if is_redelivery(call) { say } else { Say::TrailersOnly(Code::Unavailable) });
        let (envoy, mut sender) =
            start(&orders, unary(json!({"redelivery": {"max_attempts": 2, "timeout": "500ms"}}))).await;
        stored_id(sender.call(b"an order", &[]).await, Code::Unavailable);
        envoy.wait_metrics(&format!("{say:?} ends as a dead letter"), SOON, |m| m.dead() == 1).await;
        envoy.wait_log(&format!("dead letter ({reason};"), 1).await;
        assert_eq!(envoy.metrics().delivered(), 0, "{say:?}");
    }
}

#[tokio::test]
async fn an_outage_costs_a_stored_call_no_attempt() {
    let orders = GrpcReceiver::start().await;
    let (envoy, mut sender) = start(&orders, unary(json!({"redelivery": {"max_attempts": 2}}))).await;
    sender.call(b"live", &[]).await.expect("done");
    orders.refuse().await;
    envoy.wait_disconnected("orders").await;
    stored_id(sender.call(b"an order", &[]).await, Code::Unavailable);
    envoy.wait_metrics("several attempts find nobody", SOON, |m| m.attempt_failures() >= 4).await;
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.delivered(), metrics.dead()), (1, 0));
}

#[tokio::test]
async fn an_unknown_outcome_is_stored_only_with_a_key() {
    let orders = GrpcReceiver::start().await;
    orders.say_by(|call| if is_redelivery(call) { Say::Ok } else { Say::Hang });
    let route = Route::new("/", "orders").action("timeout", json!("0.3s"));
    let bootstrap = Bootstrap::new().destination(orders.destination()).route(route).filter(unary(json!({})));
    let envoy = bootstrap.start().await;
    let mut sender = GrpcSender::connect(envoy.port()).await;
    // Envoy makes UNAVAILABLE of its own 504 too.
    let reason = not_stored(sender.call(b"an order", &[]).await, Code::Unavailable);
    assert_eq!(reason.as_deref(), Some("not-stored; reason=unknown-outcome"));
    stored_id(sender.call(b"an order", KEYED).await, Code::Unavailable);
    envoy.wait_drained(SOON).await;
    let redelivered: Vec<Call> = orders.calls().into_iter().filter(is_redelivery).collect();
    assert_eq!(redelivered.iter().map(|call| call.header("idempotency-key")).collect::<Vec<_>>(), [Some("k-1".into())]);
}

#[tokio::test]
async fn a_reason_for_not_storing_stands_beside_the_status() {
    for refusal in [Say::TrailersOnly(Code::Unavailable), Say::Trailers(Code::Unavailable)] {
        let orders = GrpcReceiver::start().await;
        orders.say(refusal);
        let (_envoy, mut sender) = start(&orders, unary(json!({"store": {"accept": false}}))).await;
        let reason = not_stored(sender.call(b"an order", &[]).await, Code::Unavailable);
        assert_eq!(reason.as_deref(), Some("not-stored; reason=closed"), "{refusal:?}");
    }
}

#[tokio::test]
async fn while_a_destination_is_down_a_call_still_gets_its_own_status() {
    let orders = GrpcReceiver::absent();
    let filter = unary(json!({"hold_while_down": true, "capture": {"as": "arrived"}}));
    let (envoy, mut sender) = start(&orders, filter).await;
    for _ in 0..8 {
        stored_id(sender.call(b"an order", &[]).await, Code::Unavailable);
    }
    envoy.wait_log("destination orders: up -> down", 1).await;
    stored_id(sender.call(b"an order", &[]).await, Code::Unavailable);
    orders.come_back().await;
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 9);
}

#[tokio::test]
async fn without_the_key_calls_are_not_protected() {
    let orders = GrpcReceiver::absent();
    let (envoy, mut sender) = start(&orders, Filter::quick(json!({}))).await;
    assert_eq!(not_stored(sender.call(b"an order", &[]).await, Code::Unavailable), None);
    envoy.metrics_stay("nothing is protected", |m| m.protected() == 0).await;
}

#[tokio::test]
async fn a_streaming_call_goes_on_after_max_hold_or_with_its_second_message() {
    let orders = GrpcReceiver::start().await;
    let hold = Duration::from_millis(1_000);
    let (envoy, mut sender) = start(&orders, unary(json!({"capture": {"max_hold": "1s"}}))).await;
    let (send, messages) = mpsc::channel::<Vec<u8>>(4);
    let started = Instant::now();
    send.send(b"one".to_vec()).await.expect("a sender");
    let mut echo = sender.echo(Receiving(messages)).await.expect("the call goes on");
    assert_eq!(echo.message().await.expect("an echo"), Some(b"one".to_vec()));
    let held = started.elapsed();
    assert!(held < hold + Duration::from_millis(700), "held for {held:?}");
    for word in ["two", "six"] {
        send.send(word.into()).await.expect("a sender");
        assert_eq!(echo.message().await.expect("an echo"), Some(word.into()));
    }
    drop(send);
    assert_eq!(echo.message().await.expect("the end"), None);

    let started = Instant::now();
    let (send, messages) = mpsc::channel::<Vec<u8>>(4);
    for word in ["one", "two"] {
        send.send(word.into()).await.expect("a sender");
    }
    let mut echo = sender.echo(Receiving(messages)).await.expect("the call goes on");
    assert_eq!(echo.message().await.expect("an echo"), Some(b"one".to_vec()));
    assert!(started.elapsed() < hold, "a second message shows that it streams: {:?}", started.elapsed());
    drop(send);
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn a_streaming_call_that_fails_is_not_stored() {
    let orders = GrpcReceiver::absent();
    let (envoy, mut sender) = start(&orders, unary(json!({}))).await;
    let messages = tokio_stream::iter(vec![b"one".to_vec(), b"two".to_vec()]);
    let status = match sender.echo(messages).await {
        Err(status) => status,
        Ok(mut echo) => echo.message().await.expect_err("nobody is there"),
    };
    assert_eq!(told(&status, "x-redeliver-status").as_deref(), Some("not-stored; reason=unstorable"), "{status:?}");
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn of_two_filters_in_a_row_one_stores_a_call() {
    let orders = GrpcReceiver::absent();
    let route = || Route::new("/", "orders");
    let near = unary(json!({"trust": {"from_senders": true}}));
    let far = unary(json!({"trust": {"from_receivers": true}}));
    let bootstrap = Bootstrap::new().destination(orders.destination()).route(route()).filter(near);
    let mut sidecar = bootstrap.first_of_two().start().await;
    let bootstrap = Bootstrap::new().destination(grpc_destination(sidecar.port())).route(route()).filter(far);
    let gateway = bootstrap.beside(&sidecar).start().await;
    let mut sender = GrpcSender::connect(gateway.port()).await;
    let first = stored_id(sender.call(b"at the sidecar", &[]).await, Code::Unavailable);
    assert_eq!((gateway.metrics().stored(), sidecar.metrics().stored()), (0, 1));
    orders.come_back().await;
    sidecar.wait_drained(SOON).await;
    orders.refuse().await;
    sidecar.terminate().await;
    let second = stored_id(sender.call(b"at the gateway", &[]).await, Code::Unavailable);
    sidecar.start_again().await;
    gateway.wait_drained(SOON).await;
    orders.come_back().await;
    let calls = wait_calls(&orders, 2).await;
    sidecar.wait_drained(SOON).await;
    let seen: Vec<_> =
        calls.iter().map(|call| (call.header("x-redeliver-id"), call.header("x-redeliver-hops"))).collect();
    assert_eq!(seen, [(Some(first), Some("1".into())), (Some(second), Some("2".into()))]);
}

#[tokio::test]
async fn a_call_goes_through_a_listener_with_the_same_routes_too() {
    for again in [Again::Plain, Again::Filtered] {
        let orders = GrpcReceiver::start().await;
        let refusal = Say::Trailers(Code::Unavailable);
        orders.say_by(
            move |call| if call.header("x-redeliver-attempt").as_deref() > Some("1") { Say::Ok } else { refusal },
        );
        let route = Route::new("/", "orders").field(
            "request_headers_to_add",
            json!([{"header": {"key": "x-tenant", "value": "blue"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]),
        );
        let filter = unary(json!({"redelivery": {"through": "again_http2", "max_attempts": 2}}));
        let bootstrap = Bootstrap::new().destination(orders.destination()).route(route).filter(filter).again(again);
        let envoy = bootstrap.start().await;
        let mut sender = GrpcSender::connect(envoy.port()).await;
        stored_id(sender.call(b"refused", &[]).await, Code::Unavailable);
        let metrics = envoy.wait_drained(SOON).await;
        assert_eq!((metrics.stored(), metrics.attempt_failures(), metrics.delivered()), (1, 1, 1), "{again:?}");
        orders.refuse().await;
        envoy.wait_disconnected("orders").await;
        stored_id(sender.call(b"away", &[]).await, Code::Unavailable);
        envoy.wait_metrics("several attempts find nobody", SOON, |m| m.attempt_failures() >= 5).await;
        orders.say(Say::Ok);
        orders.come_back().await;
        let metrics = envoy.wait_drained(SOON).await;
        assert_eq!((metrics.stored(), metrics.delivered(), metrics.dead()), (2, 2, 0), "{again:?}");
        let delivered = orders.calls().pop().expect("a call");
        assert_eq!(delivered.message, b"away");
        assert_eq!(delivered.header("x-tenant").as_deref(), Some("blue"));
    }
}

/// What comes out of a channel, as a stream.
struct Receiving(mpsc::Receiver<Vec<u8>>);

impl tokio_stream::Stream for Receiving {
    type Item = Vec<u8>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Vec<u8>>> {
        self.0.poll_recv(context)
    }
}

#[tokio::test]
async fn a_retry_of_a_stored_call_keeps_a_grpc_status_and_is_told_the_first_id() {
    let orders = GrpcReceiver::absent();
    let (envoy, mut sender) = start(&orders, unary(json!({}))).await;
    let id = stored_id(sender.call(b"an order", KEYED).await, Code::Unavailable);
    let again = sender.call(b"an order", KEYED).await.expect_err("it is stored already");
    let said = (told(&again, "x-redeliver-status"), told(&again, "x-redeliver-id"));
    assert_eq!((again.code(), said), (Code::Unavailable, (Some("duplicate".to_owned()), Some(id))), "{again:?}");
    let other = sender.call(b"another order", KEYED).await.expect_err("the key is taken");
    assert_eq!((other.code(), told(&other, "x-redeliver-status")), (Code::InvalidArgument, None), "{other:?}");
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!((metrics.stored(), metrics.delivered(), orders.calls().len()), (1, 1, 1));
}

#[tokio::test]
async fn a_call_of_a_key_that_waits_is_stored_behind_the_others() {
    let orders = GrpcReceiver::absent();
    let by_key = json!({"capture": {"as": "arrived"}, "redelivery": {"order": "by_key", "backoff": {"initial": "2s", "max": "2s"}}});
    let (envoy, mut sender) = start(&orders, unary(by_key)).await;
    let key = &[("x-ordering-key", "a")];
    stored_id(sender.call(b"first", key).await, Code::Unavailable);
    orders.come_back().await;
    stored_id(sender.call(b"second", key).await, Code::Unavailable);
    envoy.wait_drained(SOON).await;
    let messages: Vec<_> = orders.calls().into_iter().map(|call| call.message).collect();
    assert_eq!(messages, [b"first".to_vec(), b"second".to_vec()]);
}
