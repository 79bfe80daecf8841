//! The large part of a slot, read back from shared memory: a message or a receipt.
//!
//! Input: the bytes of a cell. Slot and generation are taken from it, so that reading gets past them.

use crate::cell::{Exact, Format, is_compact, number_at, sealed, short_number_at};
use crate::wire;
use redeliver_core::codec::{Damage, Seal, crc32};
use redeliver_core::message::{LargePart, Message, Road, Terms, decode, encode_receipt};
use redeliver_core::pass::Pass;
use redeliver_core::slot::{Generation, SlotIndex};
use redeliver_core::units::Millis;

const KIND_RECEIPT: u8 = b'R';

pub(super) fn target(bytes: &[u8]) {
    let (slot, generation) = place_of(bytes);
    let write = |part: &LargePart| match part {
        LargePart::Message(message) => message.encode(slot, generation),
        LargePart::Settled(memo) => encode_receipt(generation, memo.as_ref()),
    };
    let exact = if bytes.first() == Some(&KIND_RECEIPT) { Exact::Always } else { Exact::Compact };
    let format = Format::new(|bytes| decode(bytes, slot, generation), write, exact);
    let Some(part) = format.check(bytes) else { return };
    check_is_found_elsewhere(bytes, slot, generation);
    match part {
        LargePart::Message(message) => check_message(&message, crc32(bytes) as u16),
        LargePart::Settled(_) => {}
    }
}

fn place_of(bytes: &[u8]) -> (SlotIndex, Generation) {
    match bytes.first() {
        Some(&KIND_RECEIPT) => (SlotIndex(0), Generation(number_at(bytes, 6))),
        Some(_) if is_compact(bytes) => {
            let (slot, next) = short_number_at(bytes, 6);
            (SlotIndex(slot), Generation(short_number_at(bytes, next).0))
        }
        Some(_) | None => (SlotIndex(number_at(bytes, 6)), Generation(number_at(bytes, 10))),
    }
}

/// A value under another key, or of another use of its slot, is no value.
fn check_is_found_elsewhere(bytes: &[u8], slot: SlotIndex, generation: Generation) {
    let sealed = sealed(bytes, Seal::NONE).unwrap_or_default();
    assert_eq!(decode(&sealed, slot, generation.next()), Err(Damage::Field));
    if bytes.first() != Some(&KIND_RECEIPT) {
        assert_eq!(decode(&sealed, SlotIndex(slot.0 ^ 1), generation), Err(Damage::Field));
    }
}

/// Whatever could be read back is one request on the wire.
fn check_message(message: &Message, attempt: u16) {
    let straight = |authority| Road::Straight { authority };
    for road in [straight(None), straight(Some("authority.example:80")), Road::Through(Pass([0x5a; 16]))] {
        let terms = Terms { attempt, key_header: "idempotency-key", road, timeout: Millis(15_000) };
        wire::assert_is_one_request(&message.request(&terms));
    }
}
