//! The real arm: an Envoy process per run, with receivers and senders on the loopback interface.
//!
//! | file           | what of a case it makes real |
//! | -------------- | ---------------------------- |
//! | `setup.rs`     | set-up, clusters, routes: a `Bootstrap` of the harness |
//! | `receivers.rs` | the behaviour of receivers   |
//! | `stage.rs`     | the steps, and the senders   |
//!
//! It never interprets what it sees.

mod receivers;
mod setup;
mod stage;

use redeliver_tests::envoy;

use crate::arm::{Arm, Problem};
use crate::case::Case;
use crate::observation::Observation;
use crate::recording::PINNED;

/// Envoy as scripts/envoy.sh has it.
#[derive(Clone, Copy, Debug)]
pub struct RealEnvoy;

impl Arm for RealEnvoy {
    fn version(&self) -> String {
        std::env::var("ENVOY_VERSION").unwrap_or_else(|_| PINNED.to_owned())
    }

    fn run(&self, case: &Case) -> Result<Observation, Problem> {
        // Before any case waits for it: a first run fetches Envoy.
        envoy::binary();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::CannotDo(format!("run anything: {error}")))?;
        runtime.block_on(stage::run(case))
    }
}
