//! The outage: a receiver leaves under mixed traffic and comes back. The one module that also runs on other Envoys
//! (`ENVOY_VERSION=1.36.4 cargo test -p redeliver-tests --test e2e outage`).
//!
//! ```text
//!   16 senders, 2 workers   all well ──> leaving ──────> gone ─────────────> back, draining ──> all well
//!   answers                 200          200 or 202      202, every one      200 or 202         200
//! ```
//!
//! Whatever was answered 200 or 202 must reach the receiver exactly once, byte for byte.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redeliver_tests::compare::{same_request, same_rewritten_request};
use redeliver_tests::{
    Bootstrap, Connection, Destination, Filter, Received, Receiver, Request, Response, Route, SOON, eventually,
};
use serde_json::{Value, json};

const SENDERS: usize = 16;
const MAX_BODY: usize = 256 * 1024;
const BODY_SIZES: [usize; 4] = [0, 1, 1024, MAX_BODY];
const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];
/// Requests of each phase: enough for every method with every size on both routes, several times.
const PER_PHASE: u64 = 160;

/// Request number `n`: method, size and route run through all combinations.
fn request(n: u64) -> Request {
    let method = METHODS[(n % 4) as usize];
    let size = BODY_SIZES[(n / 4 % 4) as usize];
    let route = if (n / 16).is_multiple_of(2) { "orders" } else { "legacy" };
    let request = Request::new(method, &format!("/{route}/{n}?q=%20"))
        .header("content-type", "application/octet-stream")
        .header("x-repeat", "one")
        .header("x-raw", b"a\xff\xe9b")
        .header("x-repeat", "two")
        .header("x-number", n.to_string());
    match (method, size) {
        ("DELETE", 0) => request,
        (_, 1024) => request.chunked(bytes(n, size).chunks(300).map(<[u8]>::to_vec).collect()),
        _ => request.body(bytes(n, size)),
    }
}

/// Bytes of every value, different for every number.
fn bytes(n: u64, size: usize) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// What all senders share: the next number, and what was answered.
struct Traffic {
    next: AtomicU64,
    /// Senders stop before this number.
    until: AtomicU64,
    answers: Mutex<Vec<(u64, Response)>>,
    over: AtomicBool,
}

impl Traffic {
    fn start(port: u16) -> Arc<Traffic> {
        let traffic = Arc::new(Traffic {
            next: AtomicU64::new(0),
            until: AtomicU64::new(PER_PHASE),
            answers: Mutex::default(),
            over: AtomicBool::new(false),
        });
        for _ in 0..SENDERS {
            tokio::spawn(sender(Arc::clone(&traffic), port));
        }
        traffic
    }

    fn answered(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Lets the senders send until `count` requests have been answered in all.
    async fn let_through(&self, count: u64) {
        self.until.store(count, Ordering::SeqCst);
        eventually(&format!("{count} answers"), SOON * 3, || {
            let answered = self.answered();
            if answered as u64 == count { Ok(()) } else { Err(answered.to_string()) }
        })
        .await;
    }
}

/// One sender: keep-alive, as fast as it is answered, idle while no number is free.
async fn sender(traffic: Arc<Traffic>, port: u16) {
    let mut connection = Connection::open(port).await;
    loop {
        let number = traffic.next.fetch_add(1, Ordering::SeqCst);
        while number >= traffic.until.load(Ordering::SeqCst) {
            if traffic.over.load(Ordering::SeqCst) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let answer = connection.send(&request(number)).await;
        let answer = answer.unwrap_or_else(|error| panic!("request {number} was not answered: {error}"));
        if answer.closes() {
            connection = Connection::open(port).await;
        }
        traffic.answers.lock().unwrap().push((number, answer));
    }
}

fn bootstrap(orders: Destination, config: Value) -> Bootstrap {
    let legacy = Route::new("/legacy", "orders")
        .action("prefix_rewrite", json!("/v2/items"))
        .action("host_rewrite_literal", json!("items.internal"));
    Bootstrap::new()
        .workers(2)
        .destination(orders)
        .route(legacy)
        .route(Route::new("/", "orders"))
        .filter(Filter::quick(config))
}

async fn check(destination: impl FnOnce(Destination) -> Destination, health: Value) {
    let orders = Receiver::start().await;
    let destination = destination(Destination::new("orders", orders.port()));
    let envoy = bootstrap(destination, json!({"health": health})).start().await;
    let traffic = Traffic::start(envoy.port());
    traffic.let_through(PER_PHASE).await;
    let well = traffic.answered();
    // Numbers free for the taking while the receiver leaves: its last answers and the first failures.
    traffic.until.store(2 * PER_PHASE, Ordering::SeqCst);
    orders.leave().await;
    traffic.let_through(2 * PER_PHASE).await;
    let left = traffic.answered();
    traffic.let_through(3 * PER_PHASE).await;
    let gone = traffic.answered();
    orders.come_back().await;
    traffic.let_through(4 * PER_PHASE).await;
    let metrics = envoy.wait_drained(SOON * 3).await;
    traffic.over.store(true, Ordering::SeqCst);

    let answers = std::mem::take(&mut *traffic.answers.lock().unwrap());
    let with_status = |answers: &[(u64, Response)], status| answers.iter().filter(|(_, a)| a.status == status).count();
    assert_eq!(with_status(&answers[..well], 200), well, "not everything was answered 200 while all was well");
    for (number, answer) in &answers[well..] {
        assert!(matches!(answer.status, 200 | 202), "request {number}: {answer:?}");
    }
    assert_eq!(with_status(&answers[left..gone], 202), gone - left, "not everything of the outage was answered 202");
    assert_eq!(metrics.stored(), with_status(&answers, 202) as u64);
    assert_eq!((metrics.delivered(), metrics.dead()), (metrics.stored(), 0));
    each_once(&answers, &orders.received());
    assert_eq!(orders.received().len(), answers.len(), "the receiver has requests that nobody sent");
    envoy.metrics_stay("nothing was refused or corrupt", |m| m.not_stored() == 0 && m.corrupt() == 0).await;
}

/// Every answered request is at the receiver exactly once, as it was sent or as its route rewrites it.
fn each_once(answers: &[(u64, Response)], received: &[Received]) {
    let mut by_number = std::collections::HashMap::<String, Vec<&Received>>::new();
    for one in received {
        by_number.entry(one.headers.text("x-number").unwrap_or_default()).or_default().push(one);
    }
    for (number, answer) in answers {
        let copies = by_number.get(&number.to_string()).map_or(&[][..], Vec::as_slice);
        let [copy] = copies else {
            panic!("request {number} ({}) was received {} times: {copies:?}", answer.status, copies.len())
        };
        let sent = request(*number);
        match sent.path.strip_prefix("/legacy") {
            Some(rest) => same_rewritten_request(&sent, &format!("/v2/items{rest}"), "items.internal", copy),
            None => same_request(&sent, copy),
        }
        assert_eq!(copy.attempt().is_some(), answer.status == 202, "request {number}: {copy:?}");
        let id = copy.headers.text("x-redeliver-id");
        assert_eq!(id, answer.header("x-redeliver-id"), "request {number}");
    }
}

#[tokio::test]
async fn an_outage_seen_by_health_checks_loses_and_duplicates_nothing() {
    check(Destination::checked, json!({"source": "health_check_filter"})).await;
}

#[tokio::test]
async fn an_outage_seen_by_failures_alone_loses_and_duplicates_nothing() {
    check(|unchecked| unchecked, json!({"source": "passive"})).await;
}

#[tokio::test]
async fn an_outage_seen_through_the_admin_port_loses_and_duplicates_nothing() {
    check(Destination::checked, json!({"source": "admin", "cluster": "admin_api"})).await;
}
