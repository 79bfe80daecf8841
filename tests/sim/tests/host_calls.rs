//! Every host call of every path, in order: a call that is added to a path fails here, and a call that is saved shows.
//!
//! A host call costs about as much as everything that the filter itself does between two of them, so their number is what
//! a request costs. The paths are those of one worker in steady state: the second of two requests, on a VM that has seen
//! bodies, leads the destination, and is the only one that writes: what it wrote itself it need not read again.

use simvoy::abi::{Callback, HostCall};
use simvoy::{Chaos, Cluster, End, Exchange, Headers, Module, Origin, Plugin, Point, Process, Receivers, Request};
use simvoy::{Generation, Moment, Response, Route, Settings, ThreadId, Verdict};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Enough for a middle in which nothing is out of the ordinary.
const BACKLOG: usize = 400;
const PROTECTING: &str = r#"{"match": {"path_prefixes": ["/in"]}, "capture": {"as": "FORM"}}"#;
const WORKER: ThreadId = ThreadId(1);

fn module() -> Module {
    let path = std::env::var_os("REDELIVER_WASM")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/redeliver.wasm"), PathBuf::from);
    Module::from_file(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// One call: in which callback, which, about what.
type Call = (Callback, HostCall, String);

/// Writes down what the worker calls.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<Call>>>);

impl Chaos for Book {
    fn at(&mut self, point: &Point<'_>) -> Verdict {
        if point.thread == WORKER {
            let name = point.name.iter().map(|byte| if *byte == 0 { '.' } else { char::from(*byte) }).collect();
            self.0.lock().expect("nobody panics").push((point.callback, point.call, name));
        }
        Verdict::Proceed
    }
}

impl Book {
    /// What was written since the last time.
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics"))
    }
}

struct Well;

impl Receivers for Well {
    fn exchange(&mut self, _: &str, _: Origin, _: &Request, _: Moment) -> Exchange {
        Exchange::Answer { after: Duration::from_millis(5), response: Response::status(200).body("fine") }
    }
}

struct Town {
    process: Process,
    listener: Generation,
    book: Book,
}

impl Town {
    fn new(form: &str) -> Self {
        let mut process = Process::new(&module(), Settings { workers: 1, seed: 1, ..Settings::default() });
        process.set_cluster("orders", Cluster::default());
        process.set_routes(vec![Route::new("/", "orders")]);
        let listener = process.push(Some(Plugin::new("redeliver", PROTECTING.replace("FORM", form))));
        let book = Book::default();
        process.set_chaos(Box::new(book.clone()));
        process.run_for(&mut Well, Duration::from_secs(3));
        Self { process, listener, book }
    }

    /// No host is healthy, and the filter knows it.
    fn outage(&mut self) {
        self.process.with_cluster("orders", |cluster| cluster.healthy = 0);
        for _ in 0..20 {
            self.request("POST", "/in", 1024);
        }
    }

    /// The calls of one request.
    fn request(&mut self, method: &str, path: &str, body: usize) -> Vec<Call> {
        self.book.take();
        let mut head = Headers::of(&[(":method", method), (":path", path), (":authority", "a"), (":scheme", "http")]);
        head.add("content-length", body.to_string());
        let end = if body == 0 { End::Last } else { End::More };
        let stream = self.process.open(WORKER, Some(self.listener), head, end);
        if body > 0 {
            self.process.send_body(stream, vec![b'x'; body], End::Last);
        }
        self.process.run_for(&mut Well, Duration::from_millis(60));
        self.book.take().into_iter().filter(|(callback, ..)| *callback != Callback::Tick).collect()
    }
}

/// The calls of one path, each with the callback that makes it. What a call is about stands behind it, if it has a name; of
/// shared cells the kind: `h` a head, `m` a message, `b` a destination's books, `ledger` those of the whole.
struct PathCalls {
    story: &'static str,
    calls: &'static [(Callback, &'static str)],
}

use Callback::{CallResponse, Log, RequestBody, RequestHeaders, ResponseHeaders};

const DELIVERED: PathCalls = PathCalls {
    story: "1 KiB POST, protected, delivered at once",
    calls: &[
        (RequestHeaders, "proxy_get_header_map_pairs"),
        (RequestHeaders, "proxy_get_property xds.route_metadata.filter_metadata.redeliver.enabled"),
        (RequestBody, "proxy_get_buffer_bytes"),
        (ResponseHeaders, "proxy_get_header_map_pairs"),
    ],
};

const UNPROTECTED: PathCalls =
    PathCalls { story: "GET, not protected", calls: &[(RequestHeaders, "proxy_get_header_map_pairs")] };

const STORED: PathCalls = PathCalls {
    story: "1 KiB POST, no healthy host, stored in a new slot",
    calls: &[
        (RequestHeaders, "proxy_get_header_map_pairs"),
        (RequestHeaders, "proxy_get_property xds.route_metadata.filter_metadata.redeliver.enabled"),
        (RequestBody, "proxy_get_buffer_bytes"),
        (ResponseHeaders, "proxy_get_header_map_pairs"),
        (ResponseHeaders, "proxy_get_property response.flags"),
        (ResponseHeaders, "proxy_get_property upstream.address"),
        (ResponseHeaders, "proxy_get_property xds.cluster_name"),
        (ResponseHeaders, "clock_time_get"),
        (ResponseHeaders, "clock_time_get"),
        (ResponseHeaders, "proxy_get_header_map_pairs"),
        (ResponseHeaders, "proxy_set_shared_data b"),
        (ResponseHeaders, "proxy_set_shared_data ledger"),
        (ResponseHeaders, "proxy_set_shared_data m"),
        (ResponseHeaders, "proxy_set_shared_data h"),
        (ResponseHeaders, "clock_time_get"),
        (ResponseHeaders, "proxy_increment_metric"),
        (ResponseHeaders, "proxy_send_local_response"),
    ],
};

const REDELIVERED: PathCalls = PathCalls {
    story: "an answer to a redelivery, and the next message",
    calls: &[
        (CallResponse, "proxy_get_header_map_pairs"),
        (CallResponse, "clock_time_get"),
        (CallResponse, "clock_time_get"),
        (CallResponse, "proxy_set_shared_data m"),
        (CallResponse, "proxy_set_shared_data h"),
        (CallResponse, "proxy_set_shared_data b"),
        (CallResponse, "proxy_set_shared_data ledger"),
        (CallResponse, "proxy_enqueue_shared_queue"),
        (CallResponse, "proxy_get_shared_data h"),
        (CallResponse, "proxy_get_shared_data m"),
        (CallResponse, "proxy_set_shared_data h"),
        (CallResponse, "proxy_increment_metric"),
        (CallResponse, "proxy_record_metric"),
        (CallResponse, "proxy_increment_metric"),
        (CallResponse, "proxy_http_call orders"),
        (CallResponse, "clock_time_get"),
    ],
};

/// A call as the tables have it: without the prefix of the store's cells and the number of the slot.
fn words((callback, call, name): &Call) -> (Callback, String) {
    let cell = name.strip_prefix("rd1").and_then(|name| name.split_once('.')).map(|(_, cell)| cell);
    let kind = match cell {
        Some(cell) if cell.get(1..).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit())) => &cell[..1],
        Some(cell) => cell,
        None => name.as_str(),
    };
    (*callback, [call.import(), kind].join(" ").trim_end().to_owned())
}

fn check(expected: &PathCalls, calls: &[Call]) {
    let found: Vec<_> = calls.iter().map(words).collect();
    let expected_calls: Vec<_> =
        expected.calls.iter().map(|(callback, call)| (*callback, (*call).to_owned())).collect();
    assert_eq!(found, expected_calls, "{}: {} calls", expected.story, found.len());
}

#[test]
fn a_request_that_succeeds_costs_four_calls_and_one_that_is_not_protected_one() {
    for form in ["routed", "arrived"] {
        let mut town = Town::new(form);
        town.request("POST", "/in", 1024);
        check(&DELIVERED, &town.request("POST", "/in", 1024));
        check(&UNPROTECTED, &town.request("GET", "/in", 0));
    }
}

#[test]
fn a_stored_message_costs_seventeen_calls() {
    let mut town = Town::new("routed");
    town.outage();
    check(&STORED, &town.request("POST", "/in", 1024));
}

/// One whose routed form is not wanted saves the second look at the request's headers.
#[test]
fn a_message_stored_as_it_arrived_costs_one_call_less() {
    let mut town = Town::new("arrived");
    town.outage();
    assert_eq!(town.request("POST", "/in", 1024).len(), STORED.calls.len() - 1);
}

/// A free slot is found by its hint and taken before it is written to; a store in use has some.
#[test]
fn a_message_stored_in_a_used_slot_costs_three_calls_more() {
    let mut town = Town::new("routed");
    town.outage();
    town.process.with_cluster("orders", |cluster| cluster.healthy = 1);
    town.process.run_for(&mut Well, Duration::from_secs(60));
    town.process.with_cluster("orders", |cluster| cluster.healthy = 0);
    for _ in 0..5 {
        town.request("POST", "/in", 1024);
    }
    let calls: Vec<_> = town.request("POST", "/in", 1024).iter().map(words).collect();
    assert_eq!(calls.len(), STORED.calls.len() + 3, "{calls:?}");
}

/// A request without a body shows its routed form only at its end, which costs a second look and a second write.
#[test]
fn a_stored_request_without_a_body_writes_its_record_twice() {
    let mut town = Town::new("routed");
    town.outage();
    let calls = town.request("DELETE", "/in", 0);
    let at_its_end = calls.iter().filter(|(callback, ..)| *callback == Log).count();
    assert_eq!((calls.len() - at_its_end, at_its_end), (14, 7), "{:?}", calls.iter().map(words).collect::<Vec<_>>());
}

#[test]
fn a_redelivery_costs_sixteen_calls() {
    let mut town = Town::new("routed");
    town.outage();
    for _ in 0..BACKLOG {
        town.request("POST", "/in", 1024);
    }
    town.process.with_cluster("orders", |cluster| cluster.healthy = 1);
    town.book.take();
    town.process.run_for(&mut Well, Duration::from_secs(20));
    let mut answers: Vec<Vec<Call>> = Vec::new();
    for call in town.book.take().into_iter().filter(|(callback, ..)| *callback == CallResponse) {
        match answers.last_mut() {
            Some(answer) if call.1 != HostCall::GetMapPairs => answer.push(call),
            Some(_) | None => answers.push(vec![call]),
        }
    }
    assert!(answers.len() >= BACKLOG, "{} answers", answers.len());
    // In the middle of the backlog; at times the window grows, and an answer sends two.
    let sends_one = |answer: &&Vec<Call>| answer.iter().filter(|(_, call, _)| *call == HostCall::HttpCall).count() == 1;
    let answer = answers[BACKLOG / 2..].iter().find(sends_one).expect("most answers send one more");
    check(&REDELIVERED, answer);
}
