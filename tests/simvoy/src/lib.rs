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
//! | the event loop, and what a test does to a process | [`Process`] |
//! | jobs of one thread: streams, plugins, timers, answers | `thread/` |
//! | the host calls | `calls/` |
//! | what waits for turns and allocates between guest and host | `turnstile` |
//! | numbers of the ABI | [`abi`] |
//! | what receivers do on the wire | [`Receivers`], [`Exchange`] |
//! | faults | [`Chaos`], [`Verdict`] |
//!
//! **The same seed gives the same run**: nothing in here reads a clock, the environment or a hash map's order, and
//! [`Process::trace_hash`] proves it. Threads are interleaved at host calls, where the fault hook says so; a guest is never
//! called while it is in a call (Envoy puts everything off until it returns).
//!
//! **Not modelled:** network filters, gRPC streams, HTTP/1 framing on the wire, response bodies in more pieces than two,
//! more than one HTTP filter, retries of a guest's call, and the route cache beyond "chosen again when the router is
//! reached". That the rest is as in Envoy is what the conformance suite holds it to (`tests/conformance`, test `sim`).

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
mod vm;

pub use chaos::{Calm, Chaos, Point, Verdict};
pub use cluster::{Cluster, HealthChecks, REQUESTS_MAX, Upstream};
pub use happening::{Happening, LogLine};
pub use http::{Headers, Request, Response};
pub use ids::{CallToken, ContextId, Generation, StreamId, ThreadId, VmId};
pub use memory::{Mark, SharedData, SharedQueues, Value};
pub use metrics::{Metric, Metrics};
pub use network::{Exchange, Origin, Receivers, flag};
pub use plugin::{FailurePolicy, HeadersStop, Plugin};
pub use process::{Process, Settings, Step, WORKERS_MAX};
pub use route::{Metadata, RetryReason, Route};
pub use stream::End;
pub use time::{Clock, Moment};
pub use trace::Event;
pub use vm::{LoadError, Module};
