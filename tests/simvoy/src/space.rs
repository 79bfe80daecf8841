//! The keys and values of one `vm_id`: found by a hash, kept in the order in which the keys were made.
//!
//! ```text
//!   places:  key ──> 2          entries:  0 │ key, value, number
//!   (a hash without chance)               1 │ key, value, number
//!                                         2 │ key, value, number   <── a key never moves: no call deletes one
//! ```
//! Never iterates the hash map, so its order decides nothing.

use crate::abi::Status;
use crate::memory::Value;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[derive(Debug, Default)]
pub(crate) struct Space {
    places: HashMap<Vec<u8>, usize, BuildHasherDefault<KeyHasher>>,
    entries: Vec<(Vec<u8>, Value)>,
}

impl Space {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Value> {
        self.places.get(key).map(|place| &self.entries[*place].1)
    }

    /// Writes a value, which gets the number `next`, unless `cas` asks for another number than the one that is there.
    pub(crate) fn set(&mut self, key: &[u8], bytes: &[u8], cas: u32, next: u32) -> Status {
        let Some(place) = self.places.get(key) else {
            self.places.insert(key.to_vec(), self.entries.len());
            self.entries.push((key.to_vec(), Value { bytes: bytes.to_vec(), cas: next }));
            return Status::Ok;
        };
        let found = &mut self.entries[*place].1;
        if cas != 0 && cas != found.cas {
            return Status::CasMismatch;
        }
        found.bytes.clear();
        found.bytes.extend_from_slice(bytes);
        found.cas = next;
        Status::Ok
    }

    /// A key that exists is written again with what it holds: only its number changes.
    pub(crate) fn touch(&mut self, key: &[u8], next: u32) -> Option<()> {
        let place = *self.places.get(key)?;
        self.entries[place].1.cas = next;
        Some(())
    }

    /// In the order in which the keys were made.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_slice(), value))
    }
}

/// A fast hash with a fixed seed: keys are a guest's own, and nobody attacks a test.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The length of a key, which goes before its bytes and becomes their seed.
    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }
}
