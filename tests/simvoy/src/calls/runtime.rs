//! What is in `env` beside the ABI: remains of Emscripten, and Envoy's own extension.

use super::gate::{NOTHING, gated, pass_at_once};
use super::host_call;
use crate::abi::{HostCall, Status};
use crate::vm::Guest;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    // It gives nothing back, so nothing can be done about it but to trap.
    linker.func_wrap("env", HostCall::NotifyMemoryGrowth.import(), |mut caller: Caller<'_, Guest>, _memory: u32| {
        pass_at_once(&mut caller, HostCall::NotifyMemoryGrowth)
    })?;
    let name = HostCall::PthreadEqual.import();
    linker.func_wrap("env", name, |mut caller: Caller<'_, Guest>, left: u32, right: u32| {
        gated(&mut caller, HostCall::PthreadEqual, |_| left == right)
    })?;
    // Names are not resolved here: a guest that wants that is told so.
    host_call!(
        linker,
        "envoy_resolve_dns",
        ResolveDns,
        NOTHING,
        |_caller, _passed, _name: u32, _size: u32, _token_at: u32| Ok(Status::Unimplemented)
    );
    Ok(())
}
