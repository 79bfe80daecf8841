//! What a proxy-wasm host does, as cases that every host must answer alike.
//!
//! ```text
//!   cases/<topic>/<case>.yaml          an Arm                      the same file, below its "---"
//!   set-up, script, steps  ──────>  real Envoy, simulator  ──────>  the recorded transcript
//!   case.rs                         arm.rs, envoy/, sim/               transcript.rs, recording.rs
//! ```
//!
//! The probe (package redeliver-probe) is the filter under every case: it does what the case's script says and writes down
//! each callback and each host call. A case is data: nothing in it is about ports, sockets or one arm. A recording is
//! made on the pinned Envoy, never by hand and never by the simulator; whoever passes all cases may be trusted
//! where there is no Envoy. The suite knows nothing of redeliver's filter.

pub mod arm;
pub mod case;
pub mod envoy;
pub mod observation;
pub mod recording;
pub mod sim;
pub mod step;
pub mod suite;
pub mod transcript;

pub use arm::{Arm, Authority, Problem};
pub use case::Case;
pub use observation::Observation;
