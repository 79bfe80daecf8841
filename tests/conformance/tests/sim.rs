//! Every case on the simulator, in virtual time: it is held to what was recorded on the pinned Envoy.
//!
//! A probe that makes a call that simvoy does not have is refused with a sentence before the first case; that every
//! callback is seen in some case is a test of its own.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use redeliver_conformance::sim::{Simulator, missing};
use redeliver_conformance::suite;

fn main() -> ExitCode {
    match Simulator::new().map(Arc::new) {
        Ok(simulator) => {
            let asked = Arc::clone(&simulator);
            let callbacks = Trial::test("every_callback_of_the_probe_is_made", move || {
                let cases = suite::cases(missing::reason)?;
                asked.check_callbacks(cases.iter()).map_err(Failed::from)
            });
            suite::main_with(simulator, missing::reason, vec![callbacks])
        }
        Err(problem) => {
            eprintln!("simvoy cannot run the probe: {problem}");
            ExitCode::FAILURE
        }
    }
}
