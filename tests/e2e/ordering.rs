//! `redelivery.order: by_key`: messages of one key arrive in the order in which they were accepted, and nobody overtakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redeliver_tests::bootstrap::{Module, merge};
use redeliver_tests::sender::{Connection, Custody};
use redeliver_tests::sender_h2;
use redeliver_tests::{Bootstrap, Envoy, Filter, Receiver, Reply, Request, Response, SOON};
use serde_json::{Value, json};

fn by_key(patch: Value) -> Filter {
    let mut config = json!({
        "capture": {"as": "arrived"},
        "redelivery": {"order": "by_key", "order_key_header": "x-account", "window": {"initial": 8, "max": 8}},
    });
    merge(&mut config, patch);
    Filter::quick(config)
}

/// Request number `n` of an account; a body, so that it is held.
fn of(account: &str, n: u32) -> Request {
    Request::post(&format!("/{account}/{n}")).header("x-account", account).body(format!("{account} {n}"))
}

fn plain(n: u32) -> Request {
    Request::post(&format!("/plain/{n}")).body("x")
}

/// An Envoy with three workers whose only receiver is away.
async fn outage(filter: Filter) -> (Envoy, Receiver) {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), filter).workers(3).start().await;
    (envoy, orders)
}

/// The numbers of an account's requests, in the order in which the receiver answered them 200.
fn delivered(orders: &Receiver, account: &str) -> Vec<u32> {
    let prefix = format!("/{account}/");
    let numbers = orders.delivered().into_iter().filter_map(|request| request.path.strip_prefix(&prefix)?.parse().ok());
    numbers.collect()
}

/// It is refused, since it must not overtake.
#[track_caller]
fn must_wait(answer: &Response, reason: &str) {
    assert_eq!((answer.status, answer.custody()), (503, Custody::NotStored(reason.to_owned())), "{answer:?}");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"), "{answer:?}");
}

#[tokio::test]
async fn messages_of_a_key_from_three_workers_arrive_in_order_and_nobody_else_waits() {
    let (envoy, orders) = outage(by_key(json!({}))).await;
    // A new connection for each: they come in by different workers.
    for n in 0..5 {
        envoy.send(&of("a", n)).await.stored_id();
        envoy.send(&of("b", n)).await.stored_id();
        envoy.send(&plain(n)).await.stored_id();
    }
    // The first of `a` fails for a while: the others of `a` wait for it, and nobody else does.
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    orders.reply_with(move |request| {
        let is_stuck = request.path == "/a/0" && !is_well.load(Ordering::SeqCst);
        Reply::status(if is_stuck { 500 } else { 200 })
    });
    orders.come_back().await;
    envoy.wait_metrics("all others are delivered", SOON, |m| m.delivered() == 10 && m.queued() == 5).await;
    assert_eq!((delivered(&orders, "a"), delivered(&orders, "b")), (vec![], vec![0, 1, 2, 3, 4]));
    assert!(orders.received().iter().filter(|request| request.path.starts_with("/a/")).all(|r| r.path == "/a/0"));
    well.store(true, Ordering::SeqCst);
    envoy.wait_drained(SOON).await;
    assert_eq!(delivered(&orders, "a"), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn many_senders_of_one_key_are_all_stored_and_each_keeps_its_order() {
    const SENDERS: u32 = 12;
    const EACH: u32 = 20;
    let (envoy, orders) = outage(by_key(json!({}))).await;
    let port = envoy.port();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            tokio::spawn(async move {
                let mut connection = Connection::open(port).await;
                for n in 0..EACH {
                    let path = format!("/{sender}/{n}");
                    let request = Request::post(&path).header("x-account", "all").body("x");
                    let answer = connection.send(&request).await.expect("an answer");
                    answer.stored_id();
                    if answer.closes() {
                        connection = Connection::open(port).await;
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("all were stored");
    }
    orders.come_back().await;
    let metrics = envoy.wait_drained(SOON).await;
    assert_eq!(metrics.delivered(), u64::from(SENDERS * EACH));
    assert_eq!(orders.peak_in_hand(), 1, "one at a time");
    for sender in 0..SENDERS {
        assert_eq!(delivered(&orders, &sender.to_string()), (0..EACH).collect::<Vec<_>>(), "sender {sender}");
    }
}

#[tokio::test]
async fn a_new_request_is_stored_behind_the_stored_ones_of_its_key() {
    let (envoy, orders) = outage(by_key(json!({}))).await;
    envoy.send(&of("a", 0)).await.stored_id();
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    orders.reply_with(move |request| {
        let is_stuck = request.path == "/a/0" && !is_well.load(Ordering::SeqCst);
        Reply::status(if is_stuck { 500 } else { 200 })
    });
    orders.come_back().await;
    orders.wait_received(1, SOON).await;
    let mut connection = Connection::open(envoy.port()).await;
    for n in 1..4 {
        let answer = connection.send(&of("a", n)).await.expect("an answer");
        answer.stored_id();
    }
    let bodiless = Request::new("DELETE", "/a/4").header("x-account", "a");
    envoy.send(&bodiless).await.stored_id();
    // Another key, and none, pass at once.
    assert_eq!(envoy.send(&of("b", 0)).await.status, 200);
    assert_eq!(envoy.send(&plain(0)).await.status, 200);
    assert_eq!(delivered(&orders, "a"), Vec::<u32>::new());
    well.store(true, Ordering::SeqCst);
    envoy.wait_drained(SOON).await;
    assert_eq!(delivered(&orders, "a"), [0, 1, 2, 3, 4]);
    // The line is empty: a request passes again.
    assert_eq!(envoy.send(&of("a", 5)).await.status, 200);
}

#[tokio::test]
async fn the_next_of_a_key_goes_out_when_its_predecessor_settles() {
    const COUNT: u32 = 40;
    // With a tick and a backoff of a second, anything but the answer itself would show.
    let slow = json!({"redelivery": {"tick": "1s", "backoff": {"initial": "1s", "max": "1s"}}});
    let (envoy, orders) = outage(by_key(slow)).await;
    for n in 0..COUNT {
        envoy.send(&of("a", n)).await.stored_id();
    }
    orders.come_back().await;
    let first = orders.wait_received(1, SOON).await;
    assert_eq!(first[0].path, "/a/0");
    let begun = std::time::Instant::now();
    envoy.wait_drained(SOON).await;
    assert_eq!(delivered(&orders, "a"), (0..COUNT).collect::<Vec<_>>());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?} for {COUNT} messages", begun.elapsed());
}

#[tokio::test]
async fn a_request_that_must_wait_and_cannot_be_stored_is_refused_and_never_overtakes() {
    let (envoy, orders) = outage(by_key(json!({"capture": {"max_body": 100}, "store": {"max_messages": 2}}))).await;
    envoy.send(&of("a", 0)).await.stored_id();
    orders.reply_with(|request| Reply::status(if request.path.starts_with("/a/") { 500 } else { 200 }));
    orders.come_back().await;
    orders.wait_received(1, SOON).await;
    let long = |path: &str| Request::post(path).header("x-account", "a");
    must_wait(&envoy.send(&long("/a/long").body(vec![b'x'; 200])).await, "too-large");
    must_wait(&envoy.send(&long("/a/pieces").chunked(vec![vec![b'x'; 60], vec![b'x'; 60]])).await, "too-large");
    must_wait(&sender_h2::send_with_trailers(envoy.port(), &of("a", 7)).await, "unstorable");
    sender_h2::send(envoy.port(), &of("a", 1)).await.stored_id();
    must_wait(&envoy.send(&of("a", 2)).await, "full");
    assert_eq!(envoy.send(&of("b", 0)).await.status, 200);
    orders.answer(200);
    envoy.wait_drained(SOON).await;
    let mut paths: Vec<_> = orders.delivered().into_iter().map(|request| request.path).collect();
    paths.retain(|path| path.starts_with("/a/"));
    assert_eq!(paths, ["/a/0", "/a/1"]);
}

#[tokio::test]
async fn a_slow_upload_that_is_let_go_does_not_overtake_either() {
    let (envoy, orders) = outage(by_key(json!({"capture": {"max_hold": "300ms"}}))).await;
    envoy.send(&of("a", 0)).await.stored_id();
    orders.reply_with(|_| Reply::status(500));
    orders.come_back().await;
    let head = |account: &str| {
        format!("POST /{account}/slow HTTP/1.1\r\nhost: x\r\nx-account: {account}\r\ncontent-length: 10\r\n\r\nabc")
    };
    let mut connection = Connection::open(envoy.port()).await;
    connection.write(head("a").as_bytes()).await;
    let answer = connection.read_response().await.expect("an answer");
    must_wait(&answer, "incomplete-body");
    assert!(orders.on_path("/a/slow").is_empty());
    let mut other = Connection::open(envoy.port()).await;
    other.write(head("b").as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    other.write(b"defghij").await;
    assert_eq!(other.read_response().await.expect("an answer").status, 500, "another key was let go");
}

#[tokio::test]
async fn without_holding_nothing_overtakes_either() {
    let (envoy, orders) = outage(by_key(json!({"capture": {"mode": "stream"}}))).await;
    let bodiless = Request::new("DELETE", "/a/0").header("x-account", "a");
    envoy.send(&bodiless).await.stored_id();
    must_wait(&envoy.send(&of("a", 1)).await, "incomplete-body");
    orders.come_back().await;
    envoy.wait_drained(SOON).await;
    assert_eq!(envoy.send(&of("a", 2)).await.status, 200);
}

#[tokio::test]
async fn a_dead_letter_releases_its_key_or_blocks_it() {
    for (policy, second) in [("release", Some(())), ("block", None)] {
        let (envoy, orders) = outage(by_key(json!({"redelivery": {"on_dead_head": policy}}))).await;
        for n in 0..3 {
            envoy.send(&of("a", n)).await.stored_id();
        }
        envoy.send(&of("b", 0)).await.stored_id();
        orders.reply_with(|request| Reply::status(if request.path == "/a/0" { 400 } else { 200 }));
        orders.come_back().await;
        let metrics = envoy.wait_metrics("b is delivered, the first of a is dead", SOON, |m| {
            m.dead() == 1 && m.delivered() == if second.is_some() { 3 } else { 1 }
        });
        metrics.await;
        match second {
            Some(()) => {
                assert_eq!(delivered(&orders, "a"), [1, 2]);
                assert_eq!(envoy.send(&of("a", 3)).await.status, 200);
            }
            None => {
                envoy.send(&of("a", 3)).await.stored_id();
                envoy.wait_metrics("the new one is counted", SOON, |m| m.queued() == 3).await;
                envoy.metrics_stay("the key is blocked", |m| m.delivered() == 1 && m.queued() == 3).await;
                assert_eq!(envoy.send(&of("b", 1)).await.status, 200);
            }
        }
    }
}

#[tokio::test]
async fn the_order_survives_the_death_of_vms() {
    let filter = by_key(json!({"redelivery": {"timeout": "2s"}})).module(Module::Trapping);
    let (envoy, orders) = outage(filter).await;
    for n in 0..30 {
        envoy.send(&of("a", n)).await.stored_id();
        envoy.send(&of("b", n)).await.stored_id();
    }
    orders.reply_with(|_| Reply::Late(Duration::from_millis(30), 200));
    orders.come_back().await;
    orders.wait_received(10, SOON).await;
    for _ in 0..16 {
        envoy.send(&Request::new("GET", "/trap").header("x-redeliver-trap", "worker-tick")).await;
    }
    envoy.wait_log("RuntimeError: unreachable", 2).await;
    envoy.wait_drained(Duration::from_secs(20)).await;
    for account in ["a", "b"] {
        // One that was out when its VM died may come twice; it does so before the next one comes.
        let mut numbers = delivered(&orders, account);
        numbers.dedup();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>(), "{account}");
    }
}
