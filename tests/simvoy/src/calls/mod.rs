//! The host calls: what a guest may ask, one module per room.
//!
//! Each call goes the same way: the fault hook is asked ([`gate`]), arguments are read from the guest's memory, the
//! shared state is locked for the moment of the change, results are written back. A call never runs Envoy's machinery
//! itself: what changes a stream is put off until the guest has returned (`After`), as in Envoy. None waits, and none runs
//! the guest's allocator: the turnstile does both between the guest and these functions ([`crate::turnstile`]).

mod buffers;
mod control;
mod data;
mod dispatch;
mod gate;
mod maps;
mod memory;
mod metrics;
mod properties;
mod wasi;

pub(crate) use control::{envoys_overflow, envoys_reply};
pub(crate) use gate::Passed;
pub(crate) use memory::Parcel;

use crate::vm::Guest;
use wasmtime::Linker;

/// Links one call: `name`, its kind, the span of memory that says what it is about, and the body.
macro_rules! host_call {
    ($linker:ident, $name:literal, $call:ident, $about:expr, |$caller:ident, $passed:ident $(, $arg:ident: $ty:ty)*| $body:expr) => {
        $linker.func_wrap(
            "env",
            $name,
            |mut caller: wasmtime::Caller<'_, crate::vm::Guest>, $($arg: $ty),*| -> wasmtime::Result<i32> {
                let $caller = &mut caller;
                let passed = match super::gate::pass($caller, crate::abi::HostCall::$call, $about)? {
                    super::gate::Gate::Open(passed) => passed,
                    super::gate::Gate::Turn => return Ok(crate::turnstile::TURN),
                };
                let $passed = passed;
                let answer: wasmtime::Result<_> = $body;
                super::gate::finish($caller, crate::abi::HostCall::$call, passed, answer?.into())
            },
        )?;
    };
}
use host_call;

/// Links everything that a proxy-wasm 0.2.1 guest on wasm32-wasip1 may import from Envoy.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    gate::link(linker)?;
    data::link(linker)?;
    maps::link(linker)?;
    buffers::link(linker)?;
    properties::link(linker)?;
    dispatch::link(linker)?;
    control::link(linker)?;
    metrics::link(linker)?;
    wasi::link(linker)
}
