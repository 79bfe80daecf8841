//! The pass of a redelivery that goes through a listener with the same routes (`redelivery.through`): a secret of the
//! store, 128 random bits that the first sender of such a redelivery makes.
//!
//! The filter may be on that listener too. There a request with the store's pass is not protected: the message is in the
//! store already, and its failure must come back to the courier that sent it, as an attempt. `trust` and hops would stop
//! it too, but only after it had been stored three times. A pass is no proof against its receivers, who may see it; all
//! that it gives away is that a request is not protected and keeps its `x-redeliver-*` headers.

use crate::codec::{Damage, Reader, Writer};
use crate::keys::Keys;
use crate::memory::{Change, SharedMemory, update};
use crate::message::hexadecimal;
use std::fmt;

/// The secret; 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(pub [u8; 16]);

const KIND_PASS: u8 = b'P';

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl Pass {
    /// The pass of this store: the one that is there, or `fresh` if there is none yet or it was damaged. `None` when others
    /// are writing it: the next attempt finds theirs.
    pub fn of_store(memory: &dyn SharedMemory, keys: &Keys, fresh: Self) -> Option<Self> {
        let outcome = update(memory, &keys.pass(), |bytes| match bytes.map(Self::decode) {
            Some(Ok(found)) => Change::Keep(found),
            Some(Err(Damage::Later)) => Change::Keep(fresh), // which nobody knows
            Some(Err(_)) | None => Change::Write(fresh.encode(), fresh),
        });
        outcome.ok()
    }

    /// Whether `shown` is the pass of this store.
    pub fn is_shown(memory: &dyn SharedMemory, keys: &Keys, shown: &[u8]) -> bool {
        let found = memory.get(&keys.pass()).and_then(|value| Self::decode(&value.bytes).ok());
        found.is_some_and(|found| found.to_string().as_bytes() == shown)
    }

    fn encode(self) -> Vec<u8> {
        let mut writer = Writer::new(KIND_PASS, 16);
        writer.raw(&self.0);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, KIND_PASS)?;
        let pass = Self(reader.raw()?);
        reader.close()?;
        Ok(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Expect;
    use crate::memory::double::{MemoryDouble, VmMemory};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const FIRST: Pass = Pass([1; 16]);
    const SECOND: Pass = Pass([2; 16]);

    #[test]
    fn a_store_has_one_pass_and_a_damaged_one_is_replaced() {
        let (double, keys) = (MemoryDouble::default(), Keys::of(b"a"));
        let memory = VmMemory::immortal(&double);
        assert!(!Pass::is_shown(&memory, &keys, FIRST.to_string().as_bytes()));
        assert_eq!(Pass::of_store(&memory, &keys, FIRST), Some(FIRST));
        assert_eq!(Pass::of_store(&memory, &keys, SECOND), Some(FIRST));
        assert!(Pass::is_shown(&memory, &keys, FIRST.to_string().as_bytes()));
        assert!(!Pass::is_shown(&memory, &Keys::of(b"b"), FIRST.to_string().as_bytes()), "another store");
        for other in [SECOND.to_string().as_bytes(), b""] {
            assert!(!Pass::is_shown(&memory, &keys, other));
        }
        memory.set(&keys.pass(), b"damaged", Expect::Anything).unwrap();
        assert!(!Pass::is_shown(&memory, &keys, b""));
        assert_eq!(Pass::of_store(&memory, &keys, SECOND), Some(SECOND));
    }
}
