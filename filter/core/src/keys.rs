//! The names of all shared cells and queues: a fixed set, so that a store which runs for years makes no new key.
//!
//! Every name is `rd` + format version + six digits of the plugin's `root_id` + `.` + what it is. Istio gives all plugins
//! of a proxy one namespace (ECOSYSTEM finding 3), so the prefix is ours alone; one store per `root_id` (CONTRACT
//! section 10). At most 22 bytes: the host's map keeps such keys inline.

use crate::codec::{FORMAT_VERSION, crc32};
use crate::message::hexadecimal_digit;
use crate::slot::{DestinationIndex, SlotIndex};

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

/// What the host's map keeps inline.
const NAME_BYTES_MAX: usize = 22;

/// The names for one `root_id`.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The names that belong to the plugin `root_id`.
    #[must_use]
    pub fn of(root_id: &[u8]) -> Self {
        let digest = crc32(root_id) & 0x00ff_ffff;
        Self { prefix: format!("rd{FORMAT_VERSION}{digest:06x}.") }
    }

    fn name(&self, what: &str) -> String {
        [&self.prefix, what].concat()
    }

    /// A kind and a number in so many hexadecimal digits. By hand: a tick names a hundred slots, and the formatting
    /// machinery was a fifth of its time.
    fn numbered(&self, kind: u8, digits: usize, number: u32) -> String {
        let mut name = Vec::with_capacity(NAME_BYTES_MAX);
        name.extend_from_slice(self.prefix.as_bytes());
        name.push(kind);
        name.resize(name.len().saturating_add(digits), 0);
        let mut rest = number;
        for place in name.iter_mut().rev().take(digits) {
            *place = hexadecimal_digit(rest.to_le_bytes()[0]);
            rest >>= 4;
        }
        String::from_utf8(name).unwrap_or_default() // ASCII is UTF-8
    }

    /// The head of a slot.
    #[must_use]
    pub fn head(&self, slot: SlotIndex) -> String {
        self.numbered(b'h', 8, slot.0)
    }

    /// The large part of a slot.
    #[must_use]
    pub fn large(&self, slot: SlotIndex) -> String {
        self.numbered(b'm', 8, slot.0)
    }

    /// The books: counts and bytes of all slots.
    #[must_use]
    pub fn ledger(&self) -> String {
        self.name("ledger")
    }

    /// The books of one destination: its part of those of the whole.
    #[must_use]
    pub fn destination_ledger(&self, destination: DestinationIndex) -> String {
        self.numbered(b'b', 4, destination.0.into())
    }

    /// The table of destinations.
    #[must_use]
    pub fn destinations(&self) -> String {
        self.name("dests")
    }

    /// Who leads a destination, and what it says of it.
    #[must_use]
    pub fn leadership(&self, destination: DestinationIndex) -> String {
        self.numbered(b'l', 4, destination.0.into())
    }

    /// How much live traffic a destination serves.
    #[must_use]
    pub fn live(&self, destination: DestinationIndex) -> String {
        self.numbered(b'i', 4, destination.0.into())
    }

    /// What live traffic showed of a destination.
    #[must_use]
    pub fn evidence(&self, destination: DestinationIndex) -> String {
        self.numbered(b'e', 4, destination.0.into())
    }

    /// What the active health source said of a destination.
    #[must_use]
    pub fn verdict(&self, destination: DestinationIndex) -> String {
        self.numbered(b'v', 4, destination.0.into())
    }

    /// What is remembered of idempotency keys.
    #[must_use]
    pub fn duplicates(&self, bucket: Bucket) -> String {
        self.numbered(b'd', 4, bucket.0.into())
    }

    /// The last messages of ordering keys.
    #[must_use]
    pub fn lines(&self, bucket: Bucket) -> String {
        self.numbered(b'o', 4, bucket.0.into())
    }

    /// Who keeps house.
    #[must_use]
    pub fn housekeeping(&self) -> String {
        self.name("house")
    }

    /// Who asks the health source.
    #[must_use]
    pub fn polling(&self) -> String {
        self.name("poll")
    }

    /// Which configuration rules.
    #[must_use]
    pub fn rule(&self) -> String {
        self.name("rule")
    }

    /// Which configuration was announced last.
    #[must_use]
    pub fn announced(&self) -> String {
        self.name("said")
    }

    /// What was learned about the listener's buffers.
    #[must_use]
    pub fn capture_notice(&self) -> String {
        self.name("notice")
    }

    /// When a VM that serves streams was last alive.
    #[must_use]
    pub fn worker_alive(&self) -> String {
        self.name("worker")
    }

    /// What redeliveries show to a listener that they go through.
    #[must_use]
    pub fn pass(&self) -> String {
        self.name("pass")
    }

    /// Hints at free slots (a queue).
    #[must_use]
    pub fn free_slots(&self) -> String {
        self.name("free")
    }

    /// Hints at queued messages of a destination (a queue).
    #[must_use]
    pub fn ready(&self, destination: DestinationIndex) -> String {
        self.numbered(b'q', 4, destination.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn slot_keys_stay_inline_in_the_hosts_map() {
        let keys = Keys::of(b"any root id, however long it may be");
        for key in [keys.head(SlotIndex(u32::MAX)), keys.large(SlotIndex(u32::MAX)), keys.ledger()] {
            assert!(key.len() <= NAME_BYTES_MAX, "{key}");
        }
    }

    #[test]
    fn numbers_have_all_their_digits() {
        let keys = Keys::of(b"");
        assert_eq!(keys.head(SlotIndex(0x00c0_ffee)), format!("{}h00c0ffee", keys.prefix));
        assert_eq!(keys.large(SlotIndex(0)), format!("{}m00000000", keys.prefix));
        assert_eq!(keys.ready(DestinationIndex(0xbeef)), format!("{}qbeef", keys.prefix));
    }

    #[test]
    fn two_root_ids_share_no_key() {
        assert_ne!(Keys::of(b"a").ledger(), Keys::of(b"b").ledger());
    }
}
