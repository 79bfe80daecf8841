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
mod runtime;
mod service;
mod wasi;

pub(crate) use control::{OVERFLOW, envoys_overflow, envoys_reply};
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

/// Links everything that a proxy-wasm 0.2.1 guest may import from Envoy 1.40.0: [`HostCall::ALL`], and no more. (Measured:
/// a module for each import of WASI preview 1 and of the host, loaded by Envoy or not; FACTS.md of tests/conformance.)
///
/// [`HostCall::ALL`]: crate::abi::HostCall::ALL
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    gate::link(linker)?;
    data::link(linker)?;
    maps::link(linker)?;
    buffers::link(linker)?;
    properties::link(linker)?;
    dispatch::link(linker)?;
    control::link(linker)?;
    metrics::link(linker)?;
    runtime::link(linker)?;
    wasi::link(linker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::HostCall;
    use crate::shared::{Handle, Shared};
    use crate::{Settings, ThreadId, VmId};
    use std::collections::BTreeSet;
    use wasmtime::{Engine, Store};

    /// What is linked under a module's name.
    fn linked(module: &str) -> BTreeSet<String> {
        let mut linker = Linker::new(&Engine::default());
        link(&mut linker).unwrap_or_else(|error| panic!("{error:#}"));
        let shared = Handle::new(Shared::new(1, &Settings::default()));
        let mut store = Store::new(linker.engine(), Guest::new(shared, VmId(1), ThreadId::MAIN));
        let names = linker.iter(&mut store).filter(|(found, ..)| *found == module).map(|(_, name, _)| name.to_owned());
        names.collect()
    }

    #[test]
    fn what_is_linked_is_what_the_list_of_host_calls_says() {
        let is_of_env =
            |name: &&str| ["proxy_", "envoy_", "emscripten_", "pthread_"].iter().any(|of| name.starts_with(of));
        let names = || HostCall::ALL.iter().map(|call| call.import());
        let of_env: BTreeSet<String> = names().filter(is_of_env).map(str::to_owned).collect();
        let of_wasi: BTreeSet<String> = names().filter(|name| !is_of_env(name)).map(str::to_owned).collect();
        assert_eq!((of_env.len(), of_wasi.len()), (42, 45), "as many as Envoy 1.40.0 has of those that were tried");
        assert_eq!(linked("env"), of_env);
        assert_eq!(linked("wasi_snapshot_preview1"), of_wasi);
        assert_eq!(linked("wasi_unstable"), of_wasi);
    }
}
