//! The yardstick of redelivery: a filter that dispatches so many requests to a cluster, so many at a time, and nothing
//! else.
//!
//! ```text
//!   GET /orders/100000 ──> answered 202, remembered ──> timer: dispatch until 64 are out ──> each answer: the next one
//! ```
//! It stores nothing, reads no answer and keeps no time: what it costs is Envoy's client and the way into a VM and
//! back. The VM that gets the request does it all, so it is always a worker's, as a leader of ours is.

#![allow(missing_docs)] // nothing is public but the ABI, and the SDK's macro writes that

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::cell::RefCell;
use std::time::Duration;

/// As many as a redelivery window takes at most by default (`redelivery.window.max`).
const CONCURRENCY: u64 = 64;
/// As the benchmarks' messages (1 KiB).
const BODY: [u8; 1024] = [b'x'; 1024];
/// As the filter's default tick.
const TICK: Duration = Duration::from_millis(100);
/// As the filter's default timeout of an attempt.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is still to be done.
#[derive(Default)]
struct Task {
    cluster: String,
    left: u64,
    out: u64,
}

thread_local! {
    /// A VM has one thread; the stream that brings the task and the root context that does it share nothing else.
    static TASK: RefCell<Task> = RefCell::default();
}

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Root {
    fn dispatch_some(&self) {
        TASK.with_borrow_mut(|task| {
            while task.left > 0 && task.out < CONCURRENCY {
                let headers =
                    vec![(":method", "POST"), (":scheme", "http"), (":authority", "orders"), (":path", "/orders")];
                if self.dispatch_http_call(&task.cluster, headers, Some(&BODY), vec![], TIMEOUT).is_err() {
                    return; // the timer tries again
                }
                task.left = task.left.saturating_sub(1);
                task.out = task.out.saturating_add(1);
            }
        });
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        TASK.with_borrow_mut(|task| task.out = task.out.saturating_sub(1));
        self.dispatch_some();
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        self.set_tick_period(TICK);
        true
    }

    fn on_tick(&mut self) {
        self.dispatch_some();
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }
}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header_bytes(":path").unwrap_or_default();
        let told = String::from_utf8(path).ok().and_then(|path| {
            let (cluster, count) = path.strip_prefix('/')?.split_once('/')?;
            Some((cluster.to_owned(), count.parse::<u64>().ok()?))
        });
        let status = if told.is_some() { 202 } else { 400 };
        if let Some((cluster, count)) = told {
            TASK.with_borrow_mut(|task| {
                task.cluster = cluster;
                task.left = task.left.saturating_add(count);
            });
        }
        self.send_http_response(status, vec![], None);
        Action::Pause
    }
}
