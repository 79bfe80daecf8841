//! Simvoy: a proxy-wasm host that behaves like Envoy's, in virtual time.
//!
//! It runs a proxy-wasm 0.2.1 module *unchanged* in as many VMs as an Envoy with so many workers would have, and does to
//! it what Envoy does: every rule is copied from a measurement or from the source of Envoy, and names it. What it is for:
//! to run thousands of histories with faults in the time in which a real Envoy runs one, and to run each of them again.
//!
//! ```text
//!   senders ──> Process ── Thread 0 (main) ── VM ── guest        Receivers (yours)
//!                  │  ├──── Thread 1 ──────── VM ── guest  ───────────> exchange()
//!                  │  └──── Thread 2 ──────── VM ── guest
//!                  ├── one virtual clock, one random generator, one trace hash
//!                  └── Chaos (yours) is asked at every host call: proceed, yield, stall, trap, conflict, lose
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | what a test does to a process and sees of it | [`Process`] |
//! | the event loop | `process/event_loop.rs` |
//! | jobs of one thread: streams, plugins, timers, answers | `thread/` |
//! | the host calls | `calls/` |
//! | what waits for turns and allocates between guest and host | `turnstile` |
//! | numbers of the ABI | [`abi`] |
//! | what receivers do on the wire | [`Receivers`], [`Exchange`] |
//! | faults | [`Chaos`], [`Verdict`] |
//!
//! # An example
//!
//! ```
//! use simvoy::{Cluster, End, Exchange, Happening, Headers, Module, Moment, Origin, Plugin, Process, Receivers};
//! use simvoy::{Request, Response, Route, Settings, ThreadId};
//! use std::time::Duration;
//!
//! struct Shop;
//! impl Receivers for Shop {
//!     fn exchange(&mut self, _: &str, _: Origin, _: &Request, _: Moment) -> Exchange {
//!         Exchange::Answer { after: Duration::from_millis(5), response: Response::status(200).body("fine") }
//!     }
//! }
//!
//! // (memory 1), malloc, and the marker of ABI 0.2.1: a guest that lets everything go on.
//! const GUEST: &[u8] = b"\0asm\x01\0\0\0\x01\x06\x01\x60\x01\x7f\x01\x7f\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x2d\x03\
//!     \x06memory\x02\0\x06malloc\0\0\x17proxy_abi_version_0_2_1\0\0\x0a\x06\x01\x04\0\x20\0\x0b";
//!
//! let module = Module::from_bytes("a guest", GUEST)?;
//! let mut process = Process::new(&module, Settings { workers: 2, seed: 7, ..Settings::default() });
//! process.set_cluster("orders", Cluster::default());
//! process.set_routes(vec![Route::new("/", "orders")]);
//! let listener = process.push(Some(Plugin::new("shop", "configuration")));
//! process.run_for(&mut Shop, Duration::from_secs(1));
//! let head = Headers::of(&[(":method", "GET"), (":path", "/a"), (":authority", "shop.example"), (":scheme", "http")]);
//! let sent = process.open(ThreadId(1), Some(listener), head, End::Last);
//! process.run_for(&mut Shop, Duration::from_secs(1));
//! let answered = |happening: &Happening| match happening {
//!     Happening::Answered { stream, response } if *stream == sent => Some(response.code()),
//!     _ => None,
//! };
//! assert_eq!(process.take_happenings().iter().find_map(answered), Some(200));
//! # Ok::<(), simvoy::LoadError>(())
//! ```
//!
//! # The same seed gives the same run
//!
//! Nothing in here reads a clock, the environment or a hash map's order, and [`Process::trace_hash`] shows it: different
//! hashes mean different runs. Threads are interleaved at host calls, where the fault hook says so; a guest is never called
//! while it is in a call (Envoy puts everything off until it returns).
//!
//! # Where the rules come from
//!
//! Each names the row of PLATFORM (the project's measurements), the place in Envoy's source, or the conformance case that
//! shows it, as `topic::case`. Those cases are recorded on a real Envoy, and simvoy is held to all of them but the ones that
//! its list of missing cases names (`tests/conformance`, test `sim`).
//!
//! # Not modelled
//!
//! | what | what happens here instead |
//! | --- | --- |
//! | network filters, HTTP/2 and HTTP/3 senders, upgrades, CONNECT | there are only requests of HTTP/1 kind |
//! | what a codec refuses or frames: 400, 426, 431 above 60 KiB or 100 headers | a request begins behind the codec; `request.protocol` is always HTTP/1.1 |
//! | more than one HTTP filter, other filters' replies | [`Process::open_as_is`] takes a head as another filter may have left it |
//! | an answer piece by piece | body at once, then its end; an early answer overtakes the request's body |
//! | a held answer above the buffer limit (500) | it is held |
//! | retries of a guest's call (`x-envoy-retry-on`) | one attempt; the header goes out |
//! | the pause between attempts, per-try timeouts, hedging, budgets | the next attempt goes out at once |
//! | words of `retry_on` beside [`RetryReason`] | there is none |
//! | the route cache | the route is chosen again when the router is reached |
//! | gRPC streams, `google_grpc` | `proxy_grpc_stream` is `Unimplemented`; a call through `google_grpc` traps with a sentence |
//! | foreign functions, `envoy_resolve_dns` | `NotFound`, `Unimplemented` |
//! | attributes beside those that `calls/properties.rs` lists; properties seen by others | `NotFound` |
//! | capability restriction | every call is allowed |
//! | remote code, more than one module, `_start` that ends with `proc_exit` | one module for all; `proc_exit` traps |
//! | reading and writing files, sockets, `poll_oneoff` | Envoy's own stubs; `poll_oneoff` gives 0 at once |
//! | endpoints one by one, panic routing, outlier detection, connection limits | a cluster has so many hosts, so many of them healthy; `max_requests` is the only breaker |
//! | a cluster that goes and comes back while requests are out | its breaker begins at zero, and their ends are counted off it |
//! | draining connections, `Connection: close` while draining | a stream stays with the listener that it was opened on |
//! | an internal listener of more than one kind, or with routes of its own | one, with everybody's routes; a request enters it whole |
//! | hot restart | drop the process, make another |
//! | `wasm.*` stats, the prefix `wasmcustom.` | custom metrics by their own names |

pub mod abi;
mod calls;
mod chaos;
mod cluster;
mod connection;
mod guest;
mod happening;
mod http;
mod ids;
mod internal;
mod jobs;
mod memory;
mod metrics;
mod network;
mod plugin;
mod process;
mod route;
mod shared;
mod space;
mod stream;
mod thread;
mod time;
#[cfg(test)]
mod tiny;
mod trace;
mod turnstile;
mod unary;
mod vm;

pub use chaos::{Calm, Chaos, Point, Verdict};
pub use cluster::{Chain, Cluster, HealthChecks, REQUESTS_MAX, Upstream};
pub use happening::{Happening, LogLine};
pub use http::{Headers, Request, Response};
pub use ids::{CallToken, ContextId, Generation, StreamId, ThreadId, VmId};
pub use memory::{Mark, SharedData, SharedQueues, Value};
pub use metrics::{Metric, Metrics};
pub use network::{Exchange, Origin, Receivers};
pub use plugin::{FailurePolicy, HeadersStop, Plugin};
pub use process::{Process, Settings, Step, WORKERS_MAX};
pub use route::{Metadata, RetryReason, Route};
pub use stream::End;
pub use time::Moment;
pub use trace::Event;
pub use vm::{LoadError, Module};
