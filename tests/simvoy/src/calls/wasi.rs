//! WASI preview 1 as Envoy has it, in virtual time and with the seed's randomness: clocks, randomness, the environment and
//! the log. Everything else is there to be imported and does nothing ([`STUBS`]).
//!
//! A fault hook is asked about each of these calls too. `Conflict` and `Lose` do nothing to them.

use super::gate::{Given, gated, pass_at_once};
use super::memory::{both, read, slice, write, write_word};
use crate::abi::{HostCall, Status};
use crate::vm::Guest;
use wasmtime::{Caller, FuncType, Linker, Result, Val, ValType, bail};

/// Envoy registers every call under both names (WasmBase::registerCallbacks in wasm.cc).
const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// An error number of WASI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errno {
    Success = 0,
    BadFile = 8,
    Exists = 20,
    Fault = 21,
    NoEntry = 44,
    NoSystemCall = 52,
    NotSupported = 58,
}

impl Given for Errno {
    fn number(self) -> i32 {
        self as i32
    }
}

impl From<Status> for Errno {
    fn from(status: Status) -> Self {
        if status == Status::Ok { Self::Success } else { Self::Fault }
    }
}

/// Calls that do nothing: what they take (`l`: 64 bits), and what they give. Measured on 1.40.0 with zeros for arguments
/// (FACTS.md of tests/conformance); `path_link` and `path_symlink` really take one argument less there than WASI says.
const STUBS: &[(HostCall, &str, Errno)] = &[
    (HostCall::FdAdvise, "illi", Errno::Success),
    (HostCall::FdAllocate, "ill", Errno::BadFile),
    (HostCall::FdClose, "i", Errno::Success),
    (HostCall::FdDatasync, "i", Errno::BadFile),
    (HostCall::FdFdstatSetFlags, "ii", Errno::NoSystemCall),
    (HostCall::FdFdstatSetRights, "ill", Errno::BadFile),
    (HostCall::FdFilestatGet, "ii", Errno::BadFile),
    (HostCall::FdFilestatSetSize, "il", Errno::BadFile),
    (HostCall::FdFilestatSetTimes, "illi", Errno::BadFile),
    (HostCall::FdPread, "iiili", Errno::NoSystemCall),
    (HostCall::FdPrestatDirName, "iii", Errno::NoSystemCall),
    (HostCall::FdPrestatGet, "ii", Errno::BadFile),
    (HostCall::FdPwrite, "iiili", Errno::BadFile),
    (HostCall::FdRead, "iiii", Errno::NoSystemCall),
    (HostCall::FdReaddir, "iiili", Errno::Exists),
    (HostCall::FdRenumber, "ii", Errno::BadFile),
    (HostCall::FdSeek, "ilii", Errno::Success),
    (HostCall::FdSync, "i", Errno::BadFile),
    (HostCall::FdTell, "ii", Errno::BadFile),
    (HostCall::PathCreateDirectory, "iii", Errno::NotSupported),
    (HostCall::PathFilestatGet, "iiiii", Errno::NotSupported),
    (HostCall::PathFilestatSetTimes, "iiiilli", Errno::NotSupported),
    (HostCall::PathLink, "iiiiii", Errno::NotSupported),
    (HostCall::PathOpen, "iiiiillii", Errno::NoEntry),
    (HostCall::PathReadlink, "iiiiii", Errno::NotSupported),
    (HostCall::PathRemoveDirectory, "iii", Errno::NotSupported),
    (HostCall::PathRename, "iiiiii", Errno::NotSupported),
    (HostCall::PathSymlink, "iiii", Errno::NotSupported),
    (HostCall::PathUnlinkFile, "iii", Errno::NotSupported),
    (HostCall::PollOneoff, "iiii", Errno::Success),
    (HostCall::SchedYield, "", Errno::Success),
    (HostCall::SockAccept, "iii", Errno::NotSupported),
    (HostCall::SockRecv, "iiiiii", Errno::NotSupported),
    (HostCall::SockSend, "iiiii", Errno::NotSupported),
    (HostCall::SockShutdown, "ii", Errno::NotSupported),
];

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    for module in MODULES {
        link_as(linker, module)?;
        for (call, takes, errno) in STUBS {
            link_stub(linker, module, *call, takes, *errno)?;
        }
    }
    Ok(())
}

/// Links one call that does something.
macro_rules! wasi_call {
    ($linker:ident, $module:ident, $call:ident, |$caller:ident $(, $arg:ident: $ty:ty)*| $body:expr) => {
        $linker.func_wrap(
            $module,
            HostCall::$call.import(),
            |mut caller: Caller<'_, Guest>, $($arg: $ty),*| -> Result<i32> {
                gated(&mut caller, HostCall::$call, |$caller| $body)
            },
        )?;
    };
}

fn link_as(linker: &mut Linker<Guest>, module: &str) -> Result<()> {
    wasi_call!(linker, module, ClockTimeGet, |caller, clock: u32, _precision: u64, time_at: u32| {
        clock_time(caller, clock, time_at)
    });
    wasi_call!(linker, module, ClockResGet, |caller, clock: u32, time_at: u32| clock_resolution(
        caller, clock, time_at
    ));
    wasi_call!(linker, module, RandomGet, |caller, buffer: u32, length: u32| random(caller, buffer, length));
    wasi_call!(linker, module, EnvironSizesGet, |caller, count_at: u32, size_at: u32| {
        environ_sizes(caller, count_at, size_at)
    });
    wasi_call!(linker, module, EnvironGet, |caller, pointers_at: u32, buffer: u32| {
        environ(caller, pointers_at, buffer)
    });
    wasi_call!(linker, module, ArgsSizesGet, |caller, count_at: u32, size_at: u32| {
        words(caller, [(count_at, 0), (size_at, 0)])
    });
    wasi_call!(linker, module, ArgsGet, |_caller, _pointers_at: u32, _buffer: u32| Errno::Success);
    wasi_call!(linker, module, FdWrite, |caller, file: u32, vectors: u32, count: u32, written_at: u32| {
        fd_write(caller, file, (vectors, count), written_at)
    });
    wasi_call!(linker, module, FdFdstatGet, |caller, file: u32, state_at: u32| fd_state(caller, file, state_at));
    linker.func_wrap(
        module,
        HostCall::ProcExit.import(),
        |mut caller: Caller<'_, Guest>, code: u32| -> Result<()> {
            pass_at_once(&mut caller, HostCall::ProcExit)?;
            bail!("the guest called proc_exit({code})")
        },
    )?;
    Ok(())
}

fn link_stub(linker: &mut Linker<Guest>, module: &str, call: HostCall, takes: &str, errno: Errno) -> Result<()> {
    let takes = takes.chars().map(|shape| if shape == 'l' { ValType::I64 } else { ValType::I32 });
    let shape = FuncType::new(linker.engine(), takes, [ValType::I32]);
    linker.func_new(module, call.import(), shape, move |mut caller, _, results| {
        let given = gated(&mut caller, call, |_| errno)?;
        if let [result] = results {
            *result = Val::I32(given);
        }
        Ok(())
    })?;
    Ok(())
}

const CLOCK_WALL: u32 = 0;
const CLOCK_MONOTONIC: u32 = 1;

/// Two clocks, and no more (wasi_unstable_clock_time_get in exports.cc; PLATFORM 1.5, row "clock").
fn clock_time(caller: &mut Caller<'_, Guest>, clock: u32, time_at: u32) -> Errno {
    let time = {
        let shared = caller.data().shared.lock();
        match clock {
            CLOCK_WALL => shared.clock.wall(),
            CLOCK_MONOTONIC => shared.clock.now.0,
            _ => return Errno::NotSupported,
        }
    };
    write(caller, time_at, &time.to_le_bytes()).into()
}

/// A nanosecond: what virtual time is counted in.
fn clock_resolution(caller: &mut Caller<'_, Guest>, clock: u32, time_at: u32) -> Errno {
    match clock {
        CLOCK_WALL | CLOCK_MONOTONIC => write(caller, time_at, &1_u64.to_le_bytes()).into(),
        _ => Errno::NotSupported,
    }
}

fn random(caller: &mut Caller<'_, Guest>, buffer: u32, length: u32) -> Errno {
    let Some((memory, guest)) = both(caller) else { return Errno::Fault };
    let span = usize::try_from(buffer).ok().zip(usize::try_from(length).ok());
    let span = span.and_then(|(start, length)| memory.get_mut(start..start.checked_add(length)?));
    let Some(bytes) = span else { return Errno::Fault };
    if let Some(vm) = guest.shared.lock().vm_mut(guest.vm) {
        vm.random.fill(bytes);
    }
    Errno::Success
}

fn environment(caller: &Caller<'_, Guest>) -> Vec<String> {
    let guest = caller.data();
    let shared = guest.shared.lock();
    let pairs = shared.vm(guest.vm).map(|vm| vm.environment.as_slice()).unwrap_or_default();
    pairs.iter().map(|(name, value)| format!("{name}={value}\0")).collect()
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn words(caller: &mut Caller<'_, Guest>, words: [(u32, u32); 2]) -> Errno {
    let is_written = words.into_iter().all(|(at, word)| write_word(caller, at, word) == Status::Ok);
    if is_written { Errno::Success } else { Errno::Fault }
}

fn environ_sizes(caller: &mut Caller<'_, Guest>, count_at: u32, size_at: u32) -> Errno {
    let lines = environment(caller);
    let size = lines.iter().map(String::len).sum();
    words(caller, [(count_at, length(lines.len())), (size_at, length(size))])
}

fn environ(caller: &mut Caller<'_, Guest>, pointers_at: u32, buffer: u32) -> Errno {
    let (mut pointer_at, mut text_at) = (pointers_at, buffer);
    for line in environment(caller) {
        let written = [write_word(caller, pointer_at, text_at), write(caller, text_at, line.as_bytes())];
        if written != [Status::Ok; 2] {
            return Errno::Fault;
        }
        // What lies beyond the last address is no memory, so the next write fails.
        pointer_at = pointer_at.saturating_add(4);
        text_at = text_at.saturating_add(length(line.len()));
    }
    Errno::Success
}

/// The level of the log that a file stands for: standard output is info, standard error is error (writevImpl in
/// exports.cc).
const fn level_of(file: u32) -> Option<u32> {
    match file {
        1 => Some(2),
        2 => Some(4),
        _ => None,
    }
}

/// One write may not be longer than this: no guest's log is, and vectors may name the same memory again and again.
const WRITE_BYTES_MAX: usize = 1 << 24;

/// A write to the log: one line, whose last line break goes (writevImpl in exports.cc).
fn fd_write(caller: &mut Caller<'_, Guest>, file: u32, vectors: (u32, u32), written_at: u32) -> Errno {
    let Some(level) = level_of(file) else { return Errno::BadFile };
    let Some(text) = gather(caller, vectors) else { return Errno::Fault };
    if !text.is_empty() {
        let guest = caller.data();
        guest.shared.lock().logged(guest.thread, guest.vm, level, text.strip_suffix(b"\n").unwrap_or(&text));
    }
    write_word(caller, written_at, length(text.len())).into()
}

fn gather(caller: &mut Caller<'_, Guest>, (vectors, count): (u32, u32)) -> Option<Vec<u8>> {
    let vectors = read(caller, (vectors, count.checked_mul(8)?))?;
    let (memory, _) = both(caller)?;
    let mut text = Vec::new();
    for vector in vectors.chunks_exact(8) {
        let (start, size) = vector.split_first_chunk::<4>()?;
        let span = (u32::from_le_bytes(*start), u32::from_le_bytes(*size.first_chunk()?));
        let part = if span.1 == 0 { &[] } else { slice(memory, span)? };
        if text.len().saturating_add(part.len()) > WRITE_BYTES_MAX {
            return None;
        }
        text.extend_from_slice(part);
    }
    Some(text)
}

/// `fs_rights_base` is `FD_WRITE` and everything else is zero (wasi_unstable_fd_fdstat_get in exports.cc).
const STATE_OF_A_LOG: [u64; 3] = [0, 64, 0];

fn fd_state(caller: &mut Caller<'_, Guest>, file: u32, state_at: u32) -> Errno {
    if level_of(file).is_none() {
        return Errno::BadFile;
    }
    write(caller, state_at, &STATE_OF_A_LOG.map(u64::to_le_bytes).concat()).into()
}
