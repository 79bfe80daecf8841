//! A virtual machine of the filter dies with leases held and attempts out; the others take over (DESIGN, law 3).
//!
//! Runs the test-only build, which traps when a request header tells it to:
//!
//! | `x-redeliver-trap` | what dies                                                                |
//! | ------------------ | ------------------------------------------------------------------------ |
//! | `request`          | the VM of the worker that reads the request, at once                      |
//! | `worker-tick`      | the VM of that worker, at its next tick                                   |
//! | `main`             | the VM of the main thread (of any thread that never saw a stream), same   |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redeliver_tests::bootstrap::Module;
use redeliver_tests::{Bootstrap, Envoy, Filter, Receiver, Reply, Request, Response, SOON};
use serde_json::json;

const BACKLOG: usize = 20;

/// A lease and an attempt both end well within this.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);

/// An Envoy with a backlog, leases held and attempts out: the receiver reads redeliveries and is silent.
struct Stage {
    envoy: Envoy,
    orders: Receiver,
    well: Arc<AtomicBool>,
}

impl Stage {
    async fn with_attempts_out(workers: u32) -> Stage {
        let orders = Receiver::absent().await;
        let filter = Filter::quick(json!({"redelivery": {"timeout": "2s"}})).module(Module::Trapping);
        let envoy = Bootstrap::orders(orders.port(), filter).workers(workers).start().await;
        for n in 0..BACKLOG {
            envoy.send(&Request::post(&format!("/{n}"))).await.stored_id();
        }
        let well = Arc::new(AtomicBool::new(false));
        let is_well = Arc::clone(&well);
        orders.reply_with(move |request| match request.attempt() {
            Some(_) if !is_well.load(Ordering::SeqCst) => Reply::Hang,
            Some(_) | None => Reply::status(200),
        });
        orders.come_back().await;
        orders.wait_received(1, SOON).await;
        Stage { envoy, orders, well }
    }

    /// Traps the VM of the worker behind a new connection; which one that is, the kernel decides.
    async fn trap(&self, how: &str) {
        let request = Request::new("GET", "/trap").header("x-redeliver-trap", how);
        // What the sender gets is not the point: a dying VM answers 503, one that dies later lets the request through.
        self.envoy.send(&request).await;
    }

    /// Sends until the answer has this status: FAIL_RELOAD makes a new VM on the first request after its back-off, and
    /// answers 503 before.
    async fn until_answered(&self, status: u16, request: &Request) -> Response {
        let answered = async {
            loop {
                let answer = self.envoy.send(request).await;
                if answer.status == status {
                    break answer;
                }
            }
        };
        tokio::time::timeout(SOON, answered).await.unwrap_or_else(|_| panic!("never answered {status}"))
    }

    async fn wait_traps(&self, count: usize) {
        self.envoy.wait_log("RuntimeError: unreachable", count).await;
    }

    /// The receiver is well from now on: everything is delivered, each message once with a known outcome.
    async fn all_is_delivered(mut self) {
        self.well.store(true, Ordering::SeqCst);
        let metrics = self.envoy.wait_drained(TAKEN_OVER_WITHIN).await;
        assert!(self.envoy.runs(), "Envoy itself died");
        assert_eq!((metrics.dead(), metrics.corrupt()), (0, 0), "{metrics:?}");
        let delivered = self.orders.delivered();
        for n in 0..BACKLOG {
            let path = format!("/{n}");
            let copies = delivered.iter().filter(|request| request.path == path).count();
            assert_eq!(copies, 1, "{path} was delivered {copies} times");
        }
    }
}

#[tokio::test]
async fn when_one_worker_traps_in_a_request_the_others_deliver() {
    let stage = Stage::with_attempts_out(2).await;
    stage.trap("request").await;
    stage.wait_traps(1).await;
    stage.all_is_delivered().await;
}

#[tokio::test]
async fn when_every_worker_traps_and_no_request_comes_the_main_thread_delivers() {
    let stage = Stage::with_attempts_out(2).await;
    for _ in 0..16 {
        stage.trap("worker-tick").await;
    }
    stage.wait_traps(2).await;
    stage.all_is_delivered().await;
}

#[tokio::test]
async fn when_the_main_thread_traps_the_workers_deliver() {
    let stage = Stage::with_attempts_out(2).await;
    stage.trap("main").await;
    stage.wait_traps(1).await;
    stage.all_is_delivered().await;
}

#[tokio::test]
async fn when_the_only_worker_and_the_main_thread_trap_the_next_request_brings_delivery_back() {
    let stage = Stage::with_attempts_out(1).await;
    stage.trap("main").await;
    stage.wait_traps(1).await;
    stage.trap("worker-tick").await;
    stage.wait_traps(2).await;
    stage.until_answered(200, &Request::new("GET", "/wake")).await;
    stage.all_is_delivered().await;
}

#[tokio::test]
async fn a_worker_that_trapped_protects_requests_again() {
    let stage = Stage::with_attempts_out(1).await;
    stage.trap("request").await;
    stage.wait_traps(1).await;
    stage.orders.refuse().await;
    let id = stage.until_answered(202, &Request::post("/after")).await.stored_id();
    stage.well.store(true, Ordering::SeqCst);
    stage.orders.come_back().await;
    stage.envoy.wait_drained(TAKEN_OVER_WITHIN).await;
    let copies = stage.orders.on_path("/after");
    assert!(copies.iter().any(|copy| copy.headers.text("x-redeliver-id").as_deref() == Some(&id)), "{copies:?}");
}
