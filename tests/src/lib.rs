//! The harness of the tests on real Envoy: everything around the filter, and nothing of the filter.
//!
//! ```text
//!   Sender ──── bytes ────> Envoy (with the filter) ──── bytes ────> Receiver
//!   wire.rs     sender.rs   envoy.rs, bootstrap.rs       receiver.rs  wire.rs
//!                              │
//!                              └── admin port: admin.rs (metrics of the filter, health of clusters)
//! ```
//!
//! It knows the filter only by its public contract: configuration keys, headers, metrics. It never links the filter's
//! crates, so a test here cannot pass because both sides share a mistake. Nothing in it sleeps to synchronise; whoever
//! waits says for what and until when (`wait.rs`).

pub mod admin;
pub mod bootstrap;
pub mod compare;
pub mod envoy;
pub mod ports;
pub mod receiver;
pub mod sender;
pub mod sender_h2;
pub mod wait;
pub mod wire;

pub use admin::{Admin, Metrics};
pub use bootstrap::{Again, Bootstrap, Destination, Filter, HealthCheck, HealthListener, Route};
pub use envoy::Envoy;
pub use receiver::{Received, Receiver, Reply};
pub use sender::{Connection, Custody, Request, Response};
pub use wait::{SOON, eventually};
