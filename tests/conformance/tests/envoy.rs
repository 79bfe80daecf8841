//! Every case on a real Envoy: the pinned one, or the one that ENVOY_VERSION or ENVOY_BIN picks.

use std::process::ExitCode;

use redeliver_conformance::envoy::RealEnvoy;

fn main() -> ExitCode {
    redeliver_conformance::suite::main(RealEnvoy)
}
