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

use std::collections::BTreeSet;

use simvoy::{LoadError, Module};

use crate::arm::{Arm, Authority, Problem};
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
    /// Whether simvoy makes every callback that the probe exports, in some case that it runs; those that it does not make
    /// are named in `missing.rs`.
    ///
    /// # Errors
    /// A sentence with the names and the cure.
    pub fn check_callbacks<'a>(&self, cases: impl Iterator<Item = &'a Case>) -> Result<(), String> {
        let mut made = BTreeSet::new();
        for case in cases {
            let seen = self.run(case).map_err(|problem| format!("{}: {problem}", case.case))?;
            made.extend(seen.trace.iter().filter_map(|traced| callback_of(&traced.line.text).map(str::to_owned)));
        }
        for callback in self.probe.callbacks().filter_map(|export| export.strip_prefix("proxy_")) {
            match (made.contains(callback), missing::is_never_made(callback)) {
                (true, false) | (false, true) => {}
                (false, false) => return Err(format!("no case shows {callback}: write one, and record it")),
                (true, true) => return Err(format!("{callback} is made: take it out of missing.rs")),
            }
        }
        Ok(())
    }
}

/// The callback whose beginning a line is.
fn callback_of(line: &str) -> Option<&str> {
    line.split(' ').next().filter(|word| word.starts_with("on_"))
}

impl Arm for Simulator {
    fn version(&self) -> Result<String, Problem> {
        Ok(PINNED.to_owned())
    }

    fn authority(&self) -> Authority {
        Authority::Imitation
    }

    fn run(&self, case: &Case) -> Result<Observation, Problem> {
        stage::run(&self.probe, case)
    }
}
