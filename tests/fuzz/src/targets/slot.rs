//! The head of a slot, read back from shared memory.
//!
//! Input: the bytes of a cell; the slot is taken from it.

use crate::cell::{Format, Slack, number_at, sealed};
use redeliver_core::codec::Damage;
use redeliver_core::slot::{Head, SlotIndex};

pub(super) fn target(bytes: &[u8]) {
    let slot = SlotIndex(number_at(bytes, 6));
    // A state reads only the fields that it has; what the others hold is lost when it is written again.
    let format = Format::new(|bytes| Head::decode(bytes, slot), |head: &Head| head.encode(slot), Slack::Some);
    let Some(head) = format.check(bytes) else { return };
    assert_eq!(head.encode(slot).len(), bytes.len(), "{head:?} has one length");
    let sealed = sealed(bytes).unwrap_or_default();
    assert_eq!(Head::decode(&sealed, SlotIndex(slot.0 ^ 1)), Err(Damage::Field), "under another key");
    assert!(head.generation.next().is_after(head.generation) && !head.generation.is_after(head.generation.next()));
}
