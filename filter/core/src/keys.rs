//! The names of all shared cells and queues: a fixed set, so that a store which runs for years makes no new key.
//!
//! Every name is `rd` + format version + six digits of the plugin's `root_id` + `.` + what it is. Istio gives all plugins
//! of a proxy one namespace (ECOSYSTEM finding 3), so the prefix is ours alone; one store per `root_id` (CONTRACT
//! section 10). At most 22 bytes: the host's map keeps such keys inline.

use crate::codec::{FORMAT_VERSION, crc32};
use crate::slot::{DestinationIndex, SlotIndex};

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
        format!("{}{what}", self.prefix)
    }

    /// The head of a slot.
    #[must_use]
    pub fn head(&self, slot: SlotIndex) -> String {
        format!("{}h{:08x}", self.prefix, slot.0)
    }

    /// The large part of a slot.
    #[must_use]
    pub fn large(&self, slot: SlotIndex) -> String {
        format!("{}m{:08x}", self.prefix, slot.0)
    }

    /// The books: counts and bytes of all slots.
    #[must_use]
    pub fn ledger(&self) -> String {
        self.name("ledger")
    }

    /// The table of destinations.
    #[must_use]
    pub fn destinations(&self) -> String {
        self.name("dests")
    }

    /// Who leads a destination, and what it says of it.
    #[must_use]
    pub fn leadership(&self, destination: DestinationIndex) -> String {
        format!("{}l{:04x}", self.prefix, destination.0)
    }

    /// What live traffic showed of a destination.
    #[must_use]
    pub fn evidence(&self, destination: DestinationIndex) -> String {
        format!("{}e{:04x}", self.prefix, destination.0)
    }

    /// What the active health source said of a destination.
    #[must_use]
    pub fn verdict(&self, destination: DestinationIndex) -> String {
        format!("{}v{:04x}", self.prefix, destination.0)
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

    /// Hints at free slots (a queue).
    #[must_use]
    pub fn free_slots(&self) -> String {
        self.name("free")
    }

    /// Hints at queued messages of a destination (a queue).
    #[must_use]
    pub fn ready(&self, destination: DestinationIndex) -> String {
        format!("{}q{:04x}", self.prefix, destination.0)
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
            assert!(key.len() <= 22, "{key}");
        }
    }

    #[test]
    fn two_root_ids_share_no_key() {
        assert_ne!(Keys::of(b"a").ledger(), Keys::of(b"b").ledger());
    }
}
