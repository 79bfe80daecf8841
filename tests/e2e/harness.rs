//! The harness itself, without the filter: what the scripted faults look like to Envoy.
//!
//! The other tests blame the filter when something is wrong; these say that it was not the harness.

use std::time::Duration;

use redeliver_tests::sender::{Connection, send};
use redeliver_tests::{Bootstrap, Destination, Receiver, Reply, Request, Route, compare, sender_h2};
use serde_json::json;

/// One destination without the filter.
fn plain(port: u16) -> Bootstrap {
    Bootstrap::new().destination(Destination::new("orders", port)).route(Route::new("/", "orders"))
}

#[tokio::test]
async fn a_request_arrives_byte_for_byte() {
    let orders = Receiver::start().await;
    let envoy = plain(orders.port()).start().await;
    let request = Request::post("/orders/1?q=a%20b")
        .header("x-repeat", "one")
        .header("x-raw", b"a\xff\xe9b")
        .header("x-repeat", "two")
        .header("x-request-id", "the-id-of-the-sender")
        .body((0..=255u8).collect::<Vec<u8>>());
    let answer = envoy.send(&request).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "receiver says 200\n"));
    compare::same_request(&request, &orders.received()[0]);
    let chunked = request.clone().chunked(vec![b"one".to_vec(), b"two".to_vec()]);
    envoy.send(&chunked).await;
    compare::same_request(&chunked, &orders.received()[1]);
    let answer = sender_h2::send(envoy.port(), &request.body("over HTTP/2")).await;
    assert_eq!((answer.status, orders.received()[2].body.as_slice()), (200, b"over HTTP/2".as_slice()));
}

#[tokio::test]
async fn a_leaving_receiver_finishes_what_it_has_and_then_refuses() {
    let orders = Receiver::start().await;
    orders.reply_with(|_| Reply::Late(Duration::from_millis(300), 200));
    let envoy = plain(orders.port()).start().await;
    let request = Request::post("/slow");
    let (answer, ()) = tokio::join!(envoy.send(&request), async {
        envoy.wait_stat("cluster.orders.upstream_rq_active", 1).await;
        orders.leave().await;
    });
    assert_eq!(answer.status, 200);
    assert_eq!(envoy.send(&Request::post("/late")).await.status, 503);
    orders.answer(200);
    orders.come_back().await;
    assert_eq!(envoy.send(&Request::post("/again")).await.status, 200);
    assert_eq!(orders.on_path("/late").len(), 0);
}

#[tokio::test]
async fn a_full_duplex_call_is_echoed_while_it_is_open() {
    let orders = Receiver::start().await;
    let envoy = plain(orders.port()).start().await;
    let mut call = Connection::open(envoy.port()).await;
    call.write(b"POST /duplex HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    assert_eq!(call.read_head().await.unwrap().start, "HTTP/1.1 200 OK");
    assert_eq!(call.read_chunk().await.unwrap(), Some(b"one".to_vec()));
    call.write(b"3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(call.read_chunk().await.unwrap(), Some(b"two".to_vec()));
    assert_eq!(call.read_chunk().await.unwrap(), None);
}

/// Each scripted fault and the flags of Envoy's access log that it must lead to.
const FAULTS: &[(&str, u16, &str)] = &[
    ("no-healthy-host", 503, "UH"),
    ("refused", 503, "UF"),
    ("connect-timeout", 503, "UF"),
    ("overflow", 503, "UO"),
    ("by-the-receiver", 503, "-"),
    ("response-timeout", 504, "UT"),
    ("reset-after-send", 503, "UC"),
    ("processed-then-refused", 503, "URX,UF"),
    ("processed-then-ejected", 503, "UH"),
];

#[tokio::test]
async fn every_scripted_fault_looks_to_envoy_as_it_is_meant() {
    let faults = crate::faults::Faults::start().await;
    let envoy = faults.bootstrap().start().await;
    faults.inject(&envoy).await;
    for (fault, status, flags) in FAULTS {
        let path = format!("/{fault}");
        let answer = send(envoy.plain_port(), &Request::post(&path)).await;
        assert_eq!(answer.status, *status, "{fault}: {}", answer.text());
        let line = envoy.access_line("plain", &path).await;
        assert_eq!(line.split(' ').nth(3), Some(*flags), "{line}");
    }
    let line = envoy.access_line("plain", "/processed-then-refused").await;
    assert!(line.ends_with("attempts=2"), "{line}");
    let line = envoy.access_line("plain", "/processed-then-ejected").await;
    let attempts = line.rsplit('=').next().and_then(|count| count.parse::<u32>().ok());
    assert!(attempts.is_some_and(|count| count > 1), "{line}");
}

#[tokio::test]
async fn a_push_reaches_a_running_envoy() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let base = || {
        Bootstrap::new()
            .destination(Destination::new("first", first.port()))
            .destination(Destination::new("second", second.port()))
    };
    let envoy = base().route(Route::new("/", "first")).start().await;
    envoy.send(&Request::post("/before")).await;
    let next = base().route(Route::new("/", "second").action("timeout", json!("3s")));
    assert_eq!(envoy.push(&next).await, redeliver_tests::envoy::Push::Taken);
    envoy.send(&Request::post("/after")).await;
    assert_eq!((first.received().len(), second.received().len()), (1, 1));
    let faulty = base().route(Route::new("/", "nowhere"));
    assert_eq!(envoy.push(&faulty).await, redeliver_tests::envoy::Push::Rejected);
}
