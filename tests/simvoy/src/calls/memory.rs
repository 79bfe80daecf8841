//! The guest's memory: reading arguments, writing results, and allocating there for what a guest is given to keep.

use super::gate::Span;
use crate::abi::Status;
use crate::vm::Guest;
use wasmtime::{Caller, Result};

/// The bytes of a span; `None` if it leaves the memory.
pub(super) fn slice(memory: &[u8], (pointer, length): Span) -> Option<&[u8]> {
    let start = usize::try_from(pointer).ok()?;
    memory.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// A copy of a span of the guest's memory.
pub(super) fn read(caller: &mut Caller<'_, Guest>, span: Span) -> Option<Vec<u8>> {
    let memory = caller.data().memory?;
    slice(memory.data(&*caller), span).map(<[u8]>::to_vec)
}

/// Writes bytes at a place.
pub(super) fn write(caller: &mut Caller<'_, Guest>, pointer: u32, bytes: &[u8]) -> Status {
    let Some(memory) = caller.data().memory else { return Status::InvalidMemoryAccess };
    match memory.write(&mut *caller, pointer as usize, bytes) {
        Ok(()) => Status::Ok,
        Err(_) => Status::InvalidMemoryAccess,
    }
}

/// Writes a 32-bit number at a place.
pub(super) fn write_word(caller: &mut Caller<'_, Guest>, pointer: u32, word: u32) -> Status {
    write(caller, pointer, &word.to_le_bytes())
}

/// Gives the guest bytes to keep, in memory that it allocates. No bytes: a null pointer (copyToPointerSize in wasm.h).
pub(super) async fn give(
    caller: &mut Caller<'_, Guest>,
    bytes: &[u8],
    pointer_at: u32,
    length_at: u32,
) -> Result<Status> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut pointer = 0;
    if length > 0 {
        // Taken and put back: a copy of a typed function is not cheap, and a guest that traps in it is dead anyway.
        let Some(allocate) = caller.data_mut().allocate.take() else { return Ok(Status::InvalidMemoryAccess) };
        pointer = allocate.call_async(&mut *caller, length).await?;
        caller.data_mut().allocate = Some(allocate);
        if pointer == 0 || write(caller, pointer, bytes) != Status::Ok {
            return Ok(Status::InvalidMemoryAccess);
        }
    }
    Ok(match write_word(caller, pointer_at, pointer) {
        Status::Ok => write_word(caller, length_at, length),
        bad => bad,
    })
}
