//! Planted bugs: mistakes that a careless engineer might make in the filter, to prove that the tests would find them.
//!
//! ```text
//! bugs/*.toml ──> table ──┐
//!                         ├─> apply: each edit fits exactly once, none touches another ──> copy: a workspace to build
//! filter/ ────> product ──┘                                                                one module with all bugs
//! ```
//! The product knows nothing of this: a bug is data, and every edit keeps the right code beside the wrong one, so one
//! module holds all bugs and behaves as the product until `REDELIVER_PLANTED` in its environment names one of them.
//! Never changes a file of the product, never runs cargo.

pub mod apply;
pub mod copy;
pub mod product;
pub mod table;

use std::path::Path;

/// The folder of this repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the package lies two folders below the repository")
}

/// A list that is told whole: one line for each.
fn lines<T: std::fmt::Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
