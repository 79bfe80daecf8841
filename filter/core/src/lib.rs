//! The decisions of redeliver, pure: no clock, no log, no host call, no iteration over hash maps.
//!
//! Time, randomness and bytes come in as arguments, values go out. The shell (`filter/shell`) turns proxy-wasm callbacks
//! into calls of this crate and its answers into host calls. A check in `scripts/test.sh` proves the purity: the Wasm
//! test binary of this crate imports nothing from the module `env`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::string_slice
    )
)]
#![forbid(unsafe_code)]

// What a request is, and whether it is ours.
pub mod capture;
pub mod classify;
pub mod config;
pub mod glance;
pub mod grpc;
pub mod header_list;
pub mod headers;
pub mod neighbours;
pub mod protect;
pub mod reply;

// What is stored, and where.
pub mod cells;
pub mod codec;
pub mod digest;
pub mod duplicates;
pub mod hint;
pub mod keys;
pub mod ledger;
pub mod lines;
pub mod memory;
pub mod message;
pub mod pass;
pub mod recent;
pub mod slot;
pub mod store;

// How it gets delivered.
pub mod answer;
pub mod backoff;
pub mod courier;
pub mod delivery;
pub mod destination;
pub mod effect;
pub mod health;
pub mod live;
pub mod rate;
pub mod retry_after;
pub mod schedule;
pub mod window;

// What everything is made of.
pub mod random;
pub mod units;
