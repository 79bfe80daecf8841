//! Words in shared queues: what waits, and which slots are free.
//!
//! A hint spares a search. It may be lost, doubled or stale: whoever takes one looks at the head of the slot, and the sweep
//! finds what no hint tells.

use crate::digest::LineKey;
use crate::slot::{Generation, SlotIndex, Spot, Ticket};
use crate::units::{Monotonic, Wall};

/// A word to the leader: this message waits. Wrong or stale hints do no harm, a claim looks at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyHint {
    /// Which message.
    pub ticket: Ticket,
    /// Not before this.
    pub due: Monotonic,
    /// Since when it is held.
    pub stored_at: Wall,
    /// Where it stands in the line of its key.
    pub spot: Option<Spot>,
}

impl ReadyHint {
    /// For the queue of its destination.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend_from_slice(&self.ticket.slot.0.to_le_bytes());
        bytes.extend_from_slice(&self.ticket.generation.0.to_le_bytes());
        bytes.extend_from_slice(&self.due.0.to_le_bytes());
        bytes.extend_from_slice(&self.stored_at.0.to_le_bytes());
        if let Some(spot) = self.spot {
            bytes.extend_from_slice(&spot.line.0.to_le_bytes());
            bytes.extend_from_slice(&spot.number.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`ReadyHint::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (slot, rest) = bytes.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (due, rest) = rest.split_first_chunk()?;
        let (stored_at, rest) = rest.split_first_chunk()?;
        let spot = match rest {
            [] => None,
            rest => Some(decode_spot(rest)?),
        };
        let ticket = Ticket {
            slot: SlotIndex(u32::from_le_bytes(*slot)),
            generation: Generation(u32::from_le_bytes(*generation)),
        };
        let (due, stored_at) = (Monotonic(u64::from_le_bytes(*due)), Wall(u64::from_le_bytes(*stored_at)));
        Some(Self { ticket, due, stored_at, spot })
    }
}

fn decode_spot(bytes: &[u8]) -> Option<Spot> {
    let (line, number) = bytes.split_first_chunk()?;
    let number = number.try_into().ok()?;
    Some(Spot { line: LineKey(u64::from_le_bytes(*line)), number: u64::from_le_bytes(number) })
}

/// A slot that was free when this was said, for the queue of free slots.
#[must_use]
pub const fn encode_free(slot: SlotIndex) -> [u8; 4] {
    slot.0.to_le_bytes()
}

/// Reads what [`encode_free`] wrote; `None` for anything else.
#[must_use]
pub fn decode_free(bytes: &[u8]) -> Option<SlotIndex> {
    bytes.try_into().ok().map(|bytes| SlotIndex(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_hint_reads_back_as_written_and_nothing_else_is_one() {
        let ticket = Ticket { slot: SlotIndex(u32::MAX), generation: Generation(7) };
        let spot = Spot { line: LineKey(9), number: 1 << 50 };
        for spot in [None, Some(spot)] {
            let hint = ReadyHint { ticket, due: Monotonic(1 << 40), stored_at: Wall(3), spot };
            let bytes = hint.encode();
            assert_eq!(ReadyHint::decode(&bytes), Some(hint));
            assert_eq!(ReadyHint::decode(&bytes[1..]), None);
            assert_eq!(ReadyHint::decode(&[&bytes[..], b"x"].concat()), None);
        }
    }

    #[test]
    fn a_free_slot_reads_back_as_written_and_nothing_else_is_one() {
        assert_eq!(decode_free(&encode_free(SlotIndex(70_000))), Some(SlotIndex(70_000)));
        for garbage in [&b""[..], b"abc", b"abcde"] {
            assert_eq!(decode_free(garbage), None);
        }
    }
}
