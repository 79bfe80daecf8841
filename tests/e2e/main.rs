//! The filter on a real Envoy, one module per topic.
//!
//! Every test starts an Envoy of its own on free ports and is independent of all others. `ENVOY_BIN` or `ENVOY_VERSION`
//! picks the Envoy; the module `outage` is the one to run on several versions.

mod answers;
mod capacity;
mod configuration;
mod destinations;
mod duplicates;
mod fairness;
mod faults;
mod full;
mod grpc;
mod harness;
mod health;
mod hold_option;
mod kinds;
mod manifests;
mod matching;
mod metrics;
mod neighbours;
mod ordering;
mod outage;
mod passing;
mod push;
mod rewrites;
mod settling;
mod through;
mod traps;
