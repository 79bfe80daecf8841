//! The names of all shared cells and queues: a fixed set, so that a store which runs for years makes no new key.
//!
//! Every name is `rd` + format version + six digits of the plugin's `root_id` + `.` + what it is. Istio gives all plugins
//! of a proxy one namespace (ECOSYSTEM finding 3), so the prefix is ours alone; one store per `root_id` (CONTRACT
//! section 10). At most 22 bytes: the host's map keeps such keys inline.

use crate::codec::{FORMAT_VERSION, crc32};
use crate::message::hexadecimal_digit;
use crate::slot::{DestinationIndex, SlotIndex};
use std::fmt;
use std::ops::Deref;

/// Buckets of the memory of idempotency keys, and as many of the lines: at 1,000,000 messages, the most that a store takes,
/// 61 in each, 4 KB to read. All of them in use cost the host 2 MB for their keys.
pub const BUCKETS: u16 = 16_384;

/// One of [`BUCKETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket(u16);

impl Bucket {
    /// The bucket of a digest, of which any 16 bits are as good as any others.
    #[must_use]
    pub fn of(digest: [u8; 2]) -> Self {
        Self(u16::from_le_bytes(digest).checked_rem(BUCKETS).unwrap_or_default())
    }
}

/// What the host's map keeps inline; no name is longer.
const NAME_BYTES_MAX: usize = 22;

/// The name of a cell or a queue. It needs no memory of its own: a message is stored and settled under a dozen of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Name {
    fn then(mut self, bytes: &[u8]) -> Self {
        let end = self.length.saturating_add(bytes.len());
        debug_assert!(end <= NAME_BYTES_MAX, "{self} is full");
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        }
        self
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default() // ASCII is UTF-8
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The names for one `root_id`.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Name,
}

impl Keys {
    /// The names that belong to the plugin `root_id`.
    #[must_use]
    pub fn of(root_id: &[u8]) -> Self {
        let digest = crc32(root_id) & 0x00ff_ffff;
        let empty = Name { bytes: [0; NAME_BYTES_MAX], length: 0 };
        Self { prefix: empty.then(format!("rd{FORMAT_VERSION}{digest:06x}.").as_bytes()) }
    }

    fn name(&self, what: &str) -> Name {
        self.prefix.then(what.as_bytes())
    }

    /// A kind and a number in so many hexadecimal digits. By hand: a tick names a hundred slots, and the formatting
    /// machinery was a fifth of its time.
    fn numbered<const DIGITS: usize>(&self, kind: u8, number: u32) -> Name {
        let mut digits = [0; DIGITS];
        let mut rest = number;
        for place in digits.iter_mut().rev() {
            *place = hexadecimal_digit(rest.to_le_bytes()[0]);
            rest >>= 4;
        }
        self.prefix.then(&[kind]).then(&digits)
    }

    /// The head of a slot.
    #[must_use]
    pub fn head(&self, slot: SlotIndex) -> Name {
        self.numbered::<8>(b'h', slot.0)
    }

    /// The large part of a slot.
    #[must_use]
    pub fn large(&self, slot: SlotIndex) -> Name {
        self.numbered::<8>(b'm', slot.0)
    }

    /// The books: counts and bytes of all slots.
    #[must_use]
    pub fn ledger(&self) -> Name {
        self.name("ledger")
    }

    /// The books of one destination: its part of those of the whole.
    #[must_use]
    pub fn destination_ledger(&self, destination: DestinationIndex) -> Name {
        self.numbered::<4>(b'b', destination.0.into())
    }

    /// The table of destinations.
    #[must_use]
    pub fn destinations(&self) -> Name {
        self.name("dests")
    }

    /// Who leads a destination, and what it says of it.
    #[must_use]
    pub fn leadership(&self, destination: DestinationIndex) -> Name {
        self.numbered::<4>(b'l', destination.0.into())
    }

    /// How much live traffic a destination serves.
    #[must_use]
    pub fn live(&self, destination: DestinationIndex) -> Name {
        self.numbered::<4>(b'i', destination.0.into())
    }

    /// What live traffic showed of a destination.
    #[must_use]
    pub fn evidence(&self, destination: DestinationIndex) -> Name {
        self.numbered::<4>(b'e', destination.0.into())
    }

    /// What the active health source said of a destination.
    #[must_use]
    pub fn verdict(&self, destination: DestinationIndex) -> Name {
        self.numbered::<4>(b'v', destination.0.into())
    }

    /// What is remembered of idempotency keys.
    #[must_use]
    pub fn duplicates(&self, bucket: Bucket) -> Name {
        self.numbered::<4>(b'd', bucket.0.into())
    }

    /// The last messages of ordering keys.
    #[must_use]
    pub fn lines(&self, bucket: Bucket) -> Name {
        self.numbered::<4>(b'o', bucket.0.into())
    }

    /// Who keeps house.
    #[must_use]
    pub fn housekeeping(&self) -> Name {
        self.name("house")
    }

    /// Who asks the health source.
    #[must_use]
    pub fn polling(&self) -> Name {
        self.name("poll")
    }

    /// Which configuration rules.
    #[must_use]
    pub fn rule(&self) -> Name {
        self.name("rule")
    }

    /// Which configuration was announced last.
    #[must_use]
    pub fn announced(&self) -> Name {
        self.name("said")
    }

    /// What was learned about the listener's buffers.
    #[must_use]
    pub fn capture_notice(&self) -> Name {
        self.name("notice")
    }

    /// When a VM that serves streams was last alive.
    #[must_use]
    pub fn worker_alive(&self) -> Name {
        self.name("worker")
    }

    /// What redeliveries show to a listener that they go through.
    #[must_use]
    pub fn pass(&self) -> Name {
        self.name("pass")
    }

    /// Hints at free slots (a queue).
    #[must_use]
    pub fn free_slots(&self) -> Name {
        self.name("free")
    }

    /// Hints at queued messages of a destination (a queue).
    #[must_use]
    pub fn ready(&self, destination: DestinationIndex) -> Name {
        self.numbered::<4>(b'q', destination.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_name_is_whole_and_another() {
        let keys = Keys::of(b"any root id, however long it may be");
        let (slot, destination, bucket) = (SlotIndex(u32::MAX), DestinationIndex(u16::MAX), Bucket(u16::MAX));
        let of_slots = [Keys::head, Keys::large].map(|name| (name(&keys, slot), "kffffffff"));
        let of_destinations =
            [Keys::destination_ledger, Keys::leadership, Keys::live, Keys::evidence, Keys::verdict, Keys::ready]
                .map(|name| (name(&keys, destination), "kffff"));
        let of_buckets = [Keys::duplicates, Keys::lines].map(|name| (name(&keys, bucket), "kffff"));
        let of_all = [
            (keys.ledger(), "ledger"),
            (keys.destinations(), "dests"),
            (keys.housekeeping(), "house"),
            (keys.polling(), "poll"),
            (keys.rule(), "rule"),
            (keys.announced(), "said"),
            (keys.capture_notice(), "notice"),
            (keys.worker_alive(), "worker"),
            (keys.pass(), "pass"),
            (keys.free_slots(), "free"),
        ];
        let mut seen = BTreeSet::new();
        for (name, end) in of_slots.into_iter().chain(of_destinations).chain(of_buckets).chain(of_all) {
            assert_eq!(name.len(), keys.prefix.len() + end.len(), "{name}");
            assert!(seen.insert(name.to_string()), "{name} twice");
        }
    }

    #[test]
    fn numbers_have_all_their_digits() {
        let keys = Keys::of(b"");
        let prefix = keys.prefix;
        assert_eq!(*keys.head(SlotIndex(0x00c0_ffee)), format!("{prefix}h00c0ffee"));
        assert_eq!(*keys.large(SlotIndex(0)), format!("{prefix}m00000000"));
        assert_eq!(*keys.ready(DestinationIndex(0xbeef)), format!("{prefix}qbeef"));
    }

    #[test]
    fn two_root_ids_share_no_key() {
        assert_ne!(Keys::of(b"a").ledger(), Keys::of(b"b").ledger());
    }
}
