//! The simulator arm: the cases on simvoy, in virtual time, without a socket, a port or a wait.
//!
//! | file          | what of a case it makes |
//! | ------------- | ----------------------- |
//! | `setup.rs`    | settings, clusters, routes and the plugin |
//! | `town.rs`     | the receivers, and what they have read |
//! | `wire.rs`     | heads as an HTTP/1 codec writes them, which simvoy leaves to its users |
//! | `stage.rs`    | the steps, and the senders |
//! | `missing.rs`  | the cases that simvoy does not do, each with its reason |
//!
//! It never interprets what it sees, and it never looks at a recording.

pub mod missing;
mod setup;
mod stage;
mod town;
mod wire;

use simvoy::{LoadError, Module};

use crate::arm::{Arm, Problem};
use crate::case::Case;
use crate::observation::Observation;
use crate::recording::PINNED;

/// Simvoy with the probe, compiled once.
pub struct Simulator {
    probe: Module,
}

impl Simulator {
    /// The simulator with `dist/probe.wasm`.
    ///
    /// # Errors
    /// If the probe imports a call that simvoy does not have: the sentence names it.
    pub fn new() -> Result<Simulator, LoadError> {
        let file = redeliver_tests::bootstrap::Module::Probe.path();
        Ok(Simulator { probe: Module::from_file(&file)? })
    }
}

impl Simulator {
    /// Whether simvoy calls every callback that the probe exports: the ones it does not are named.
    ///
    /// # Errors
    /// A sentence with the names and the cure.
    pub fn check_callbacks(&self) -> Result<(), String> {
        let unknown = self.probe.unknown_callbacks();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(format!("simvoy never calls {}: add them to Callback in simvoy's src/abi.rs", unknown.join(", ")))
    }
}

impl Arm for Simulator {
    fn version(&self) -> String {
        PINNED.to_owned()
    }

    fn run(&self, case: &Case) -> Result<Observation, Problem> {
        stage::run(&self.probe, case)
    }
}
