//! The few calls of WASI preview 1 that Envoy has, in virtual time and with the seed's randomness.

use super::gate::{Gate, NOTHING, Passed, pass};
use super::memory::{read, write, write_word};
use crate::abi::{HostCall, Status};
use crate::turnstile::TURN;
use crate::vm::Guest;
use wasmtime::{Caller, Linker, Result, bail};

const MODULE: &str = "wasi_snapshot_preview1";
const SUCCESS: u32 = 0;
const BAD_FILE: u32 = 8;
const FAULT: u32 = 21;
const INVALID: u32 = 28;

const CLOCK_WALL: u32 = 0;
const CLOCK_MONOTONIC: u32 = 1;

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    linker.func_wrap(MODULE, "clock_time_get", |mut caller: Caller<'_, Guest>, clock: u32, _: u64, time_at: u32| {
        gated(&mut caller, HostCall::ClockTimeGet, |caller| clock_time(caller, clock, time_at))
    })?;
    linker.func_wrap(MODULE, "random_get", |mut caller: Caller<'_, Guest>, buffer: u32, length: u32| {
        gated(&mut caller, HostCall::RandomGet, |caller| random(caller, buffer, length))
    })?;
    linker.func_wrap(MODULE, "environ_sizes_get", environ_sizes)?;
    linker.func_wrap(MODULE, "environ_get", environ)?;
    linker.func_wrap(MODULE, "args_sizes_get", |mut caller: Caller<'_, Guest>, count_at: u32, size_at: u32| {
        errno(write_word(&mut caller, count_at, 0)).max(errno(write_word(&mut caller, size_at, 0)))
    })?;
    linker.func_wrap(MODULE, "args_get", |_: Caller<'_, Guest>, _: u32, _: u32| SUCCESS)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(MODULE, "proc_exit", |_: Caller<'_, Guest>, code: u32| -> Result<()> {
        bail!("the guest called proc_exit({code})")
    })?;
    Ok(())
}

/// These calls have no status of the ABI, so a fault here is a trap or a turn and nothing else.
fn gated(
    caller: &mut Caller<'_, Guest>,
    call: HostCall,
    make: impl FnOnce(&mut Caller<'_, Guest>) -> u32,
) -> Result<i32> {
    match pass(caller, call, NOTHING)? {
        Gate::Turn => Ok(TURN),
        Gate::Open(Passed::ThenTrap) => bail!("injected trap at {call:?}"),
        Gate::Open(Passed::Plainly | Passed::IntoConflict | Passed::IntoLoss) => Ok(make(caller).cast_signed()),
    }
}

const fn errno(status: Status) -> u32 {
    match status {
        Status::Ok => SUCCESS,
        _ => FAULT,
    }
}

fn clock_time(caller: &mut Caller<'_, Guest>, clock: u32, time_at: u32) -> u32 {
    let time = {
        let shared = caller.data().shared.lock();
        match clock {
            CLOCK_WALL => shared.clock.wall(),
            CLOCK_MONOTONIC => shared.clock.now.0,
            _ => return INVALID,
        }
    };
    errno(write(caller, time_at, &time.to_le_bytes()))
}

fn random(caller: &mut Caller<'_, Guest>, buffer: u32, length: u32) -> u32 {
    let mut bytes = vec![0; length as usize];
    {
        let guest = caller.data();
        if let Some(vm) = guest.shared.lock().vm_mut(guest.vm) {
            vm.random.fill(&mut bytes);
        }
    }
    errno(write(caller, buffer, &bytes))
}

fn environment(caller: &Caller<'_, Guest>) -> Vec<String> {
    let guest = caller.data();
    let shared = guest.shared.lock();
    let pairs = shared.vm(guest.vm).map(|vm| vm.environment.as_slice()).unwrap_or_default();
    pairs.iter().map(|(name, value)| format!("{name}={value}\0")).collect()
}

fn environ_sizes(mut caller: Caller<'_, Guest>, count_at: u32, size_at: u32) -> u32 {
    let lines = environment(&caller);
    let (count, size) = (lines.len() as u32, lines.iter().map(String::len).sum::<usize>() as u32);
    errno(write_word(&mut caller, count_at, count)).max(errno(write_word(&mut caller, size_at, size)))
}

fn environ(mut caller: Caller<'_, Guest>, pointers_at: u32, buffer: u32) -> u32 {
    let (mut pointer_at, mut text_at) = (pointers_at, buffer);
    for line in environment(&caller) {
        let written = [write_word(&mut caller, pointer_at, text_at), write(&mut caller, text_at, line.as_bytes())];
        if written.iter().any(|status| *status != Status::Ok) {
            return FAULT;
        }
        pointer_at += 4;
        text_at += line.len() as u32;
    }
    SUCCESS
}

/// Standard output and error go to the log (writevImpl in exports.cc): info and error.
fn fd_write(mut caller: Caller<'_, Guest>, fd: u32, vectors: u32, count: u32, written_at: u32) -> u32 {
    let level = match fd {
        1 => 2,
        2 => 4,
        _ => return BAD_FILE,
    };
    let mut text = Vec::new();
    for place in 0..count {
        let Some(vector) = read(&mut caller, (vectors + 8 * place, 8)) else { return FAULT };
        let word = |at: usize| u32::from_le_bytes([vector[at], vector[at + 1], vector[at + 2], vector[at + 3]]);
        let Some(part) = read(&mut caller, (word(0), word(4))) else { return FAULT };
        text.extend(part);
    }
    let written = text.len() as u32;
    log(&caller, level, &text);
    errno(write_word(&mut caller, written_at, written))
}

fn log(caller: &Caller<'_, Guest>, level: u32, text: &[u8]) {
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    let text = String::from_utf8_lossy(text).trim_end_matches('\n').to_owned();
    let line = crate::happening::LogLine { at: shared.clock.now, thread: guest.thread, vm: guest.vm, level, text };
    shared.log.push(line);
}
