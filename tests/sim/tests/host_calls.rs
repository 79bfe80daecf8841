//! Every host call of every path, in order: a call that is added to a path fails here, and a call that is saved shows.
//!
//! A host call costs about as much as everything that the filter itself does between two of them, so their number is what
//! a request costs. The paths are those of one worker in steady state: the second of two requests, on a VM that has seen
//! bodies.

use simvoy::abi::{Callback, HostCall};
use simvoy::{Chaos, Cluster, End, Exchange, Headers, Module, Origin, Plugin, Point, Process, Receivers, Request};
use simvoy::{Generation, Moment, Response, Route, Settings, ThreadId, Verdict};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    /// What was written since the last time, but the timer's.
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

fn text(calls: &[Call]) -> String {
    calls.iter().map(|(callback, call, name)| format!("{callback:?}: {} {name}\n", call.import())).collect()
}

#[test]
fn look() {
    for form in ["routed", "arrived"] {
        let mut town = Town::new(form);
        town.request("POST", "/in", 1024);
        println!("== {form} POST\n{}", text(&town.request("POST", "/in", 1024)));
        println!("== {form} GET\n{}", text(&town.request("GET", "/in", 0)));
        println!("== {form} POST 64K\n{}", text(&town.request("POST", "/in", 65536)));
        town.process.with_cluster("orders", |cluster| cluster.healthy = 0);
        for _ in 0..10 {
            town.request("POST", "/in", 1024);
        }
        println!("== {form} POST stored\n{}", text(&town.request("POST", "/in", 1024)));
        println!("== {form} DELETE stored\n{}", text(&town.request("DELETE", "/in", 0)));
        town.process.with_cluster("orders", |cluster| cluster.healthy = 1);
        town.book.take();
        town.process.run_for(&mut Well, Duration::from_secs(20));
        println!(
            "== {form} redelivery\n{}",
            text(
                &town
                    .book
                    .take()
                    .into_iter()
                    .filter(|(callback, ..)| *callback == Callback::CallResponse)
                    .collect::<Vec<_>>()
            )
        );
        town.book.take();
        town.process.run_for(&mut Well, Duration::from_secs(1));
        println!("== {form} idle second\n{}", text(&town.book.take()));
    }
}
