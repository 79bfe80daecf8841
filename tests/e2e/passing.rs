//! What must pass as if the filter were not there: large and unfinished bodies, streaming calls, upgrades, unprotected
//! requests. The oracle is the plain listener of the same Envoy.

use std::time::{Duration, Instant};

use redeliver_tests::compare::{answer_essence, essence};
use redeliver_tests::{Bootstrap, Connection, Custody, Envoy, Filter, Receiver, Reply, Request, Route, SOON};
use redeliver_tests::{sender, sender_h2};
use serde_json::json;

/// The default of `capture.max_body`.
const MAX_BODY: usize = 256 * 1024;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 % 251) as u8).collect()
}

fn pieces(size: usize) -> Vec<Vec<u8>> {
    bytes(size).chunks(10_000).map(<[u8]>::to_vec).collect()
}

async fn quick(orders: &Receiver) -> Envoy {
    Bootstrap::orders(orders.port(), Filter::quick(json!({}))).start().await
}

fn large_requests() -> Vec<(&'static str, Request)> {
    vec![
        ("at the limit, sized", Request::post("/at/sized").body(bytes(MAX_BODY))),
        ("at the limit, chunked", Request::post("/at/chunked").chunked(pieces(MAX_BODY))),
        ("one over, sized", Request::post("/over/sized").body(bytes(MAX_BODY + 1))),
        ("one over, chunked", Request::post("/over/chunked").chunked(pieces(MAX_BODY + 1))),
        ("3 MiB, sized", Request::post("/3m/sized").body(bytes(3 << 20))),
        ("3 MiB, chunked", Request::post("/3m/chunked").chunked(pieces(3 << 20))),
    ]
}

#[tokio::test]
async fn bodies_of_any_size_reach_a_healthy_receiver_as_without_the_filter() {
    let orders = Receiver::start().await;
    let envoy = quick(&orders).await;
    for (name, request) in large_requests() {
        let (with, without) = (envoy.send(&request).await, envoy.send_plain(&request).await);
        assert_eq!(answer_essence(&with), answer_essence(&without), "{name}");
        let twins = orders.on_path(&request.path);
        assert_eq!(twins.len(), 2, "{name}");
        assert!(essence(&twins[0]) == essence(&twins[1]), "{name}: the receiver can tell them apart");
        assert!(twins[0].body == request.payload(), "{name}: the body changed");
    }
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn over_http_2_bodies_of_any_size_reach_a_healthy_receiver_as_without_the_filter() {
    let orders = Receiver::start().await;
    let envoy = quick(&orders).await;
    for (name, request) in large_requests() {
        let with = sender_h2::send(envoy.port(), &request).await;
        let without = sender_h2::send(envoy.plain_port(), &request).await;
        assert_eq!(answer_essence(&with), answer_essence(&without), "{name}");
        let twins = orders.on_path(&request.path);
        assert!(essence(&twins[0]) == essence(&twins[1]), "{name}: the receiver can tell them apart");
    }
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn a_body_at_the_limit_is_stored_and_one_byte_more_is_too_large() {
    let orders = Receiver::absent().await;
    let envoy = quick(&orders).await;
    for (name, request) in large_requests() {
        let answer = envoy.send(&request).await;
        if request.path.starts_with("/at/") {
            answer.stored_id();
        } else {
            let expected = (503, Custody::NotStored("too-large".to_owned()));
            assert_eq!((answer.status, answer.custody()), expected, "{name}");
        }
    }
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    let received = orders.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|request| request.body == bytes(MAX_BODY)), "a stored body changed");
}

#[tokio::test]
async fn custody_works_over_http_2_too() {
    let orders = Receiver::absent().await;
    let envoy = quick(&orders).await;
    let requests = [Request::post("/h2/body").body(bytes(50_000)), Request::new("DELETE", "/h2/headers-only")];
    let mut ids = Vec::new();
    for request in &requests {
        ids.push(sender_h2::send(envoy.port(), request).await.stored_id());
    }
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    for (request, id) in requests.iter().zip(ids) {
        let [delivery] = &orders.on_path(&request.path)[..] else { panic!("{} not once", request.path) };
        assert_eq!(delivery.headers.text("x-redeliver-id"), Some(id));
        assert_eq!((delivery.authority(), &delivery.body), (request.authority.clone(), &request.payload()));
    }
}

#[tokio::test]
async fn expect_100_continue_works_as_without_the_filter() {
    let orders = Receiver::start().await;
    let envoy = quick(&orders).await;
    let mut answers = Vec::new();
    for port in [envoy.port(), envoy.plain_port()] {
        let mut connection = Connection::open(port).await;
        let head = b"POST /expect HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        connection.write(head).await;
        assert_eq!(connection.read_head().await.unwrap().start, "HTTP/1.1 100 Continue");
        connection.write(b"after").await;
        answers.push(answer_essence(&connection.read_response().await.unwrap()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(orders.received()[0].body, b"after");
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn a_request_that_expects_100_continue_is_stored_like_any_other() {
    let orders = Receiver::absent().await;
    let envoy = quick(&orders).await;
    let mut connection = Connection::open(envoy.port()).await;
    connection.write(b"POST /expect HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert_eq!(connection.read_head().await.unwrap().start, "HTTP/1.1 100 Continue");
    connection.write(b"after").await;
    connection.read_response().await.unwrap().stored_id();
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    assert_eq!(orders.received()[0].body, b"after");
    assert_eq!(orders.received()[0].headers.get("expect"), None);
}

#[tokio::test]
async fn one_keep_alive_connection_carries_stored_and_delivered_requests() {
    let orders = Receiver::start().await;
    let envoy = quick(&orders).await;
    let mut connection = Connection::open(envoy.port()).await;
    for round in 0..5 {
        orders.reply_with(|request| Reply::status(if request.attempt().is_some() { 200 } else { 503 }));
        let request = Request::post(&format!("/stored/{round}")).body(bytes(1000));
        connection.send(&request).await.expect("the connection is kept").stored_id();
        orders.answer(200);
        let live =
            connection.send(&Request::new("PUT", &format!("/live/{round}"))).await.expect("the connection is kept");
        assert_eq!((live.status, live.custody()), (200, Custody::Unsaid));
    }
    assert_eq!(envoy.wait_drained(SOON).await.delivered(), 5);
    assert_eq!(envoy.admin.stat("http.main.downstream_cx_total"), 1);
}

#[tokio::test]
async fn a_sender_that_goes_away_mid_body_leaves_nothing_behind() {
    for orders in [Receiver::start().await, Receiver::absent().await] {
        let envoy = quick(&orders).await;
        let halves: [&[u8]; 3] = [
            b"POST /half HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nonly a part",
            b"POST /half HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
            b"POST /half HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n",
        ];
        for half in halves {
            let mut connection = Connection::open(envoy.port()).await;
            connection.write(half).await;
            envoy.wait_stat("http.main.downstream_rq_active", 1).await;
            drop(connection);
            envoy.wait_stat("http.main.downstream_rq_active", 0).await;
        }
        envoy.metrics_stay("nothing is stored", |m| m.stored() == 0 && m.queued() == 0).await;
        assert_eq!(orders.received().len(), 0, "half a request was completed by somebody");
    }
}

#[tokio::test]
async fn a_full_duplex_call_on_a_protected_route_goes_on_after_max_hold() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"capture": {"max_hold": "500ms"}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    let mut call = Connection::open(envoy.port()).await;
    let started = Instant::now();
    call.write(b"POST /duplex HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    assert_eq!(call.read_head().await.unwrap().start, "HTTP/1.1 200 OK");
    assert_eq!(call.read_chunk().await.unwrap(), Some(b"one".to_vec()));
    let held = started.elapsed();
    assert!(held < Duration::from_millis(500 + 500), "held for {held:?}");
    for word in [b"two", b"six", b"ten"] {
        call.write(&redeliver_tests::wire::chunk(word)).await;
        assert_eq!(call.read_chunk().await.unwrap(), Some(word.to_vec()));
    }
    call.write(b"0\r\n\r\n").await;
    assert_eq!(call.read_chunk().await.unwrap(), None);
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn a_slow_upload_that_keeps_moving_is_held_to_its_end_and_stored() {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"capture": {"max_hold": "1s"}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    let mut upload = Connection::open(envoy.port()).await;
    upload.write(b"POST /slow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..6 {
        upload.write(&redeliver_tests::wire::chunk(b"piece")).await;
        // The pace of the sender is the case under test: 2.4 s in all, never 1 s without a byte.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    upload.write(b"0\r\n\r\n").await;
    upload.read_response().await.unwrap().stored_id();
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    assert_eq!(orders.received()[0].body, b"piece".repeat(6));
}

#[tokio::test]
async fn an_upload_that_stalls_longer_than_max_hold_is_not_stored() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"capture": {"max_hold": "500ms"}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    orders.answer(503);
    let mut upload = Connection::open(envoy.port()).await;
    upload.write(b"POST /stall HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf").await;
    envoy.wait_stat("cluster.orders.upstream_rq_active", 1).await;
    upload.write(b"late").await;
    let answer = upload.read_response().await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(matches!(answer.custody(), Custody::NotStored(_) | Custody::Unsaid), "{answer:?}");
    assert_eq!(orders.received()[0].body, b"halflate");
    envoy.metrics_stay("nothing is stored", |m| m.stored() == 0).await;
}

#[tokio::test]
async fn a_buffer_limit_below_max_body_costs_no_413_and_is_named_once() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({}));
    let envoy = Bootstrap::orders(orders.port(), filter).workers(2).buffer_limit(32 * 1024).start().await;
    let mut refused = Vec::new();
    for round in 0..8 {
        let request = match round % 2 {
            0 => Request::post(&format!("/upload/{round}/sized")).body(bytes(70_000)),
            _ => Request::post(&format!("/upload/{round}/chunked")).chunked(pieces(70_000)),
        };
        match envoy.send(&request).await {
            answer if answer.status == 413 => refused.push(request.path),
            answer => assert_eq!((answer.status, answer.custody()), (200, Custody::Unsaid), "upload {round}"),
        }
    }
    assert!(refused.is_empty(), "refused with 413: {refused:?}");
    assert_eq!(orders.received().len(), 8);
    assert!(orders.received().iter().all(|request| request.body == bytes(70_000)), "an upload changed");
    let lines = envoy.log_lines_with("per_connection_buffer_limit_bytes");
    assert_eq!(lines.len(), 1, "the cure is named once: {lines:?}");
    orders.answer(503);
    envoy.send(&Request::post("/small")).await.stored_id();
    let large = envoy.send(&Request::post("/large").body(bytes(70_000))).await;
    assert_eq!((large.status, large.custody()), (503, Custody::NotStored("too-large".to_owned())));
}

#[tokio::test]
async fn upgrades_and_connect_are_never_protected() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"match": {"methods": ["GET", "POST"]}}));
    let bootstrap = Bootstrap::orders(orders.port(), filter)
        .upgrade("websocket")
        .upgrade("CONNECT")
        .route(Route::connect("orders"));
    let envoy = bootstrap.start().await;
    let tunnels: [&[u8]; 3] = [
        b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
    ];
    orders.refuse().await;
    for tunnel in tunnels {
        let mut answers = Vec::new();
        for port in [envoy.port(), envoy.plain_port()] {
            let mut connection = Connection::open(port).await;
            connection.write(tunnel).await;
            answers.push(answer_essence(&connection.read_response().await.unwrap()));
        }
        assert_eq!(answers[0], answers[1], "{}", tunnel.escape_ascii());
        assert_eq!(answers[0].0, 503);
    }
    envoy.metrics_stay("nothing was protected", |m| m.stored() == 0 && m.protected() == 0).await;
}

#[tokio::test]
async fn a_websocket_upgrade_on_a_protected_route_is_switched_at_once() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"match": {"methods": ["GET"]}}));
    let envoy = Bootstrap::orders(orders.port(), filter).upgrade("websocket").start().await;
    let switch = || {
        let headers = vec![("connection", b"upgrade".to_vec()), ("upgrade", b"websocket".to_vec())];
        Reply::Answer(101, headers)
    };
    orders.reply_with(move |_| switch());
    let mut connection = Connection::open(envoy.port()).await;
    let started = Instant::now();
    connection.write(b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    let head = connection.read_head().await.unwrap();
    assert_eq!(sender::status_of(&head), 101, "{head:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "an upgrade was held for {:?}", started.elapsed());
}

#[tokio::test]
async fn unprotected_requests_and_their_failures_pass_unchanged() {
    let orders = Receiver::start().await;
    let filter = Filter::quick(json!({"match": {"path_prefixes": ["/protected"]}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    let forged = |request: Request| {
        request
            .header("x-redeliver-id", "forged")
            .header("x-redeliver-attempt", "7")
            .header("x-request-id", "same-for-both")
            .header("x-raw", b"a\xff\xe9b")
            .header("idempotency-key", "k")
    };
    let requests = [
        forged(Request::post("/other")),
        forged(Request::new("GET", "/protected/read")),
        forged(Request::new("DELETE", "/x")),
    ];
    let own = || Reply::Answer(503, vec![("x-redeliver-status", b"stored".to_vec()), ("x-odd", b"\xfe".to_vec())]);
    for round in ["answered", "failed", "refused"] {
        match round {
            "answered" => orders.answer(200),
            "failed" => orders.reply_with(move |_| own()),
            _ => orders.refuse().await,
        }
        for request in &requests {
            let seen = orders.received().len();
            let (with, without) = (envoy.send(request).await, envoy.send_plain(request).await);
            assert_eq!(answer_essence(&with), answer_essence(&without), "{round} {}", request.path);
            if let [one, other] = &orders.received()[seen..] {
                assert_eq!(one.headers, other.headers, "{round} {}", request.path);
            }
        }
    }
    envoy.metrics_stay("nothing was protected", |m| m.stored() == 0 && m.protected() == 0).await;
}
