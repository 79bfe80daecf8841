//! The head of a slot, read back from shared memory.
//!
//! Input: the bytes of a cell; the slot is taken from it. One of the compact format does not name it: it may be any, and is
//! sealed with it.

use crate::cell::{Exact, Format, number_at, sealed};
use redeliver_core::codec::{Damage, Seal};
use redeliver_core::slot::{Head, SlotIndex};

pub(super) fn target(bytes: &[u8]) {
    let slot = SlotIndex(number_at(bytes, 6));
    let seal = Seal(slot.0);
    let format = Format::new(|bytes| Head::decode(bytes, slot), |head: &Head| head.encode(slot), Exact::Compact);
    let Some(head) = format.of_place(seal).check(bytes) else { return };
    let sealed = sealed(bytes, seal).unwrap_or_default();
    let elsewhere = Head::decode(&sealed, SlotIndex(slot.0 ^ 1));
    assert!(matches!(elsewhere, Err(Damage::Field | Damage::Checksum)), "under another key: {elsewhere:?}");
    assert!(head.generation.next().is_after(head.generation) && !head.generation.is_after(head.generation.next()));
}
