//! A filter that does what a script says and writes down what the host does: the instrument of the conformance suite.
//!
//! ```text
//!   configuration = script (JSON)          the host's log = trace
//!   {"on_tick": [{"do": ["done"]}]}   ->   ~probe 5f0e… 1 on_tick
//!                                          ~probe 5f0e… 1   done -> 1 NotFound
//! ```
//!
//! It speaks the raw ABI (proxy-wasm 0.2.1), not the SDK, because the SDK traps on statuses that the suite wants to see.
//! It exports every callback, so each is a line of the trace; the one exception is a tick for which the script has
//! nothing to do, because how many of those there are is a matter of time. It decides nothing by itself, never traps
//! unless told to, and keeps no borrow of its state across a host call, so a host that calls back in the middle of one
//! shows up in the trace instead of ending in a panic.
//!
//! Outside wasm32 this is only the language: `script` and `bytes`, with which the suite reads its cases.

pub mod bytes;
pub mod script;
pub mod trace;

#[cfg(target_arch = "wasm32")]
mod call;
#[cfg(target_arch = "wasm32")]
mod exports;
#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(target_arch = "wasm32")]
mod run;
#[cfg(target_arch = "wasm32")]
mod vm;
