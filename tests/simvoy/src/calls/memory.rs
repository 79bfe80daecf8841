//! The guest's memory: reading arguments, writing results, and parcels of what a guest is given to keep.

use super::gate::{Answer, Passed, Span, end};
use crate::abi::{HostCall, Status};
use crate::vm::Guest;
use wasmtime::{Caller, Result, bail};

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
    match both(caller).and_then(|(memory, _)| put(memory, pointer, bytes)) {
        Some(()) => Status::Ok,
        None => Status::InvalidMemoryAccess,
    }
}

/// Writes a 32-bit number at a place.
pub(super) fn write_word(caller: &mut Caller<'_, Guest>, pointer: u32, word: u32) -> Status {
    write(caller, pointer, &word.to_le_bytes())
}

/// Where a guest wants to find what it is given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    /// The pointer to the bytes.
    pub pointer_at: u32,
    /// How many they are.
    pub length_at: u32,
    /// One word beside them: the number of a shared value, and where it goes.
    pub word: Option<(u32, u32)>,
}

/// Bytes on their way to a guest, which makes room for them meanwhile. One at a time: no allocator asks for something that
/// comes in a parcel.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    /// The guest has an allocator.
    pub can_allocate: bool,
    /// Used again and again, so that a call needs no memory of ours.
    bytes: Vec<u8>,
    places: Places,
    /// The call whose answer it is.
    call: Option<(HostCall, Passed)>,
}

impl Parcel {
    /// Packs what needs room; what needs none is there at once.
    pub(super) fn send(&mut self, memory: &mut [u8], bytes: &[u8], places: Places) -> Answer {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.places = places;
        match length(bytes) {
            0 => self.unpack(memory, 0).into(),
            length if self.can_allocate => Answer::Room(length),
            _ => Status::InvalidMemoryAccess.into(),
        }
    }

    pub(super) fn belongs_to(&mut self, call: HostCall, passed: Passed) {
        self.call = Some((call, passed));
    }

    /// Writes everything. No bytes: a null pointer (copyToPointerSize in wasm.h).
    fn unpack(&self, memory: &mut [u8], pointer: u32) -> Status {
        let Places { pointer_at, length_at, word } = self.places;
        let words = [Some((pointer_at, pointer)), Some((length_at, length(&self.bytes))), word];
        let is_written = put(memory, pointer, &self.bytes).is_some()
            && words.into_iter().flatten().all(|(at, word)| put(memory, at, &word.to_le_bytes()).is_some());
        if is_written { Status::Ok } else { Status::InvalidMemoryAccess }
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn put(memory: &mut [u8], pointer: u32, bytes: &[u8]) -> Option<()> {
    let start = usize::try_from(pointer).ok()?;
    memory.get_mut(start..start.checked_add(bytes.len())?)?.copy_from_slice(bytes);
    Some(())
}

/// The guest's memory and what the host knows of the guest, side by side.
pub(super) fn both<'a>(caller: &'a mut Caller<'_, Guest>) -> Option<(&'a mut [u8], &'a mut Guest)> {
    Some(caller.data().memory?.data_and_store_mut(caller))
}

/// Gives the guest bytes to keep, in memory that it allocates.
pub(super) fn give(caller: &mut Caller<'_, Guest>, bytes: &[u8], pointer_at: u32, length_at: u32) -> Answer {
    match both(caller) {
        Some((memory, guest)) => guest.parcel.send(memory, bytes, Places { pointer_at, length_at, word: None }),
        None => Status::InvalidMemoryAccess.into(),
    }
}

/// The guest has made room at `pointer`; null if it could not.
pub(super) fn deliver(mut caller: Caller<'_, Guest>, pointer: u32) -> Result<i32> {
    let Some((memory, guest)) = both(&mut caller) else { bail!("room in a guest without memory") };
    let Some((call, passed)) = guest.parcel.call.take() else { bail!("room that nobody has asked for") };
    let status = if pointer == 0 { Status::InvalidMemoryAccess } else { guest.parcel.unpack(memory, pointer) };
    end(&mut caller, call, passed, status)
}
