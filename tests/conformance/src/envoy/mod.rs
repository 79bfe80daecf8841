//! The real arm: an Envoy process per run, with receivers and senders on the loopback interface.
//!
//! | file           | what of a case it makes real |
//! | -------------- | ---------------------------- |
//! | `setup.rs`     | set-up, clusters, routes: a `Bootstrap` of the harness |
//! | `receivers.rs` | the behaviour of receivers   |
//! | `grpc.rs`      | the receiver that speaks gRPC |
//! | `stage.rs`     | the steps, and the senders   |
//!
//! It never interprets what it sees.

mod grpc;
mod receivers;
mod setup;
mod stage;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use redeliver_tests::envoy;

use crate::arm::{Arm, Authority, Problem};
use crate::case::Case;
use crate::observation::Observation;

/// Envoy as scripts/envoy.sh has it.
#[derive(Clone, Copy, Debug)]
pub struct RealEnvoy;

impl Arm for RealEnvoy {
    /// What the binary says of itself, wherever it comes from: a recording under a wrong version is a lie.
    fn version(&self) -> Result<String, Problem> {
        static VERSION: OnceLock<Result<String, Problem>> = OnceLock::new();
        VERSION.get_or_init(|| asked(envoy::binary())).clone()
    }

    fn authority(&self) -> Authority {
        Authority::Original
    }

    fn run(&self, case: &Case) -> Result<Observation, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::CannotDo(format!("run anything: {error}")))?;
        runtime.block_on(stage::run(case))
    }
}

/// Asks a binary for its version.
fn asked(binary: &Path) -> Result<String, Problem> {
    let problem = |what: String| Problem::CannotDo(format!("find out the version of {}: {what}", binary.display()));
    let output = Command::new(binary).arg("--version").output().map_err(|error| problem(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    version_in(&text).map(str::to_owned).ok_or_else(|| problem(format!("it says {:?}", text.trim())))
}

/// The version in `... version: <commit>/<version>/<state>/<kind>/<library>`.
fn version_in(text: &str) -> Option<&str> {
    let (_, said) = text.split_once("version: ")?;
    said.split('/').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_says_its_version_behind_its_path_and_its_commit() {
        let text = "\n/opt/a/b/envoy  version: 9e5580933739775e/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(version_in(text), Some("1.40.0"));
        assert_eq!(version_in("envoy"), None);
    }
}
