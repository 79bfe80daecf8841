//! The decisions of redeliver, pure: no clock, no log, no host call, no iteration over hash maps.
//!
//! Time, randomness and bytes come in as arguments, values go out. The shell (`filter/shell`) turns proxy-wasm callbacks
//! into calls of this crate and its answers into host calls. A check in `scripts/test.sh` proves the purity: the Wasm
//! test binary of this crate imports nothing from the module `env`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod config;
pub mod units;
