//! Fuzz targets for every parser of the pure core. A target is one function of bytes that panics if a property breaks.
//!
//! ```text
//!                       corpus/<target>/*          committed inputs, minimised
//!                        |             |
//!   cargo test    short_run: replay,   scripts/fuzz.sh: libFuzzer, guided by coverage, for as long as wanted;
//!   (stable)      then 10,000 seeded   what reaches new code goes back into the corpus
//!                 mutations             (driver/main.rs)
//!                        \             /
//!                     targets/<target>.rs          the properties
//! ```
//! A new target is a file in `targets/`, one line in [`TARGETS`]' table, and one file in `corpus/<target>/`. Never calls
//! anything but public functions of the core, and never decides what is right by asking the code under test.

mod cell;
mod input;
mod memory;
#[cfg(test)]
mod short_run;
mod targets;
mod wire;

pub use targets::{TARGETS, Target};
