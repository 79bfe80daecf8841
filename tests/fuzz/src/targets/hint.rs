//! A word to the leader of a destination, read back from a queue.
//!
//! Input: the bytes of the hint. A hint has no checksum, because a wrong one does no harm: it must only have one of its two
//! lengths: with or without a place in a line.

use crate::memory::Memory;
use redeliver_core::keys::Keys;
use redeliver_core::memory::SharedMemory;
use redeliver_core::slot::DestinationIndex;
use redeliver_core::store::Store;

const HINT_BYTES: [usize; 2] = [24, 40];

pub(super) fn target(bytes: &[u8]) {
    let (memory, keys, here) = (Memory::default(), Keys::of(b"fuzz"), DestinationIndex(7));
    let store = Store { memory: &memory, keys: &keys };
    memory.enqueue(&keys.ready(here), bytes);
    let hint = store.next_ready(here);
    assert_eq!(hint.is_some(), HINT_BYTES.contains(&bytes.len()), "{hint:?}");
    let Some(hint) = hint else { return };
    store.hint_ready(here, hint);
    assert_eq!(memory.dequeue(&keys.ready(here)).as_deref(), Some(bytes), "{hint:?} is written as it was read");
}
