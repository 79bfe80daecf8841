//! The books: how many messages and bytes are held, in one cell that every store and every settle changes; and the same
//! for each destination, in a cell of its own, for the limits that one can have.
//!
//! Room is reserved before a slot is written and given back after it was freed, so a VM that dies in between leaves the
//! books too high, never too low: the store refuses early, it never takes more than it may. The audit (housekeeping)
//! finds such a difference once the books have been quiet, and mends it.

use crate::codec::{Damage, Reader, Writer};
use crate::config::StoreLimits;
use crate::memory::{Change, Conflict, SharedMemory, update_again};
use crate::slot::SlotIndex;
use crate::units::ByteCount;

/// The books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Slots in use, dead letters included.
    pub messages: u32,
    /// Their charges together.
    pub bytes: ByteCount,
    /// Dead letters among them.
    pub dead: u32,
    /// Their charges.
    pub dead_bytes: ByteCount,
    /// Slots that exist: 0..slots have keys. None in the books of one destination.
    pub slots: u32,
    /// Counts the changes, so that an audit sees whether the books were quiet.
    pub changes: u32,
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For one more message.
    Yes,
    /// By count or by bytes there is none.
    Full,
}

impl Ledger {
    /// Whether a message of `charge` fits into `limits`.
    #[must_use]
    pub fn room(&self, charge: ByteCount, limits: &StoreLimits) -> Room {
        let fits = self.messages < limits.messages_max && self.bytes.plus(charge) <= limits.bytes_max;
        if fits { Room::Yes } else { Room::Full }
    }

    fn take(&mut self, charge: ByteCount, limits: &StoreLimits) -> Result<(), ReserveError> {
        match self.room(charge, limits) {
            Room::Full => Err(ReserveError::Full),
            Room::Yes => {
                self.messages = self.messages.saturating_add(1);
                self.bytes = self.bytes.plus(charge);
                Ok(())
            }
        }
    }

    fn one_more(&mut self) -> SlotIndex {
        let made = SlotIndex(self.slots);
        self.slots = self.slots.saturating_add(1);
        made
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(b'B', 32);
        writer.u32(self.messages).u64(self.bytes.0).u32(self.dead).u64(self.dead_bytes.0).u32(self.slots);
        writer.u32(self.changes);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'B')?;
        let ledger = Self {
            messages: reader.u32()?,
            bytes: ByteCount(reader.u64()?),
            dead: reader.u32()?,
            dead_bytes: ByteCount(reader.u64()?),
            slots: reader.u32()?,
            changes: reader.u32()?,
        };
        reader.close()?;
        Ok(ledger)
    }

    /// The books as they stand; empty ones if there are none yet.
    ///
    /// # Errors
    /// What is wrong with the cell.
    pub fn read(memory: &dyn SharedMemory, key: &str) -> Result<Self, Damage> {
        memory
            .get(key)
            .filter(|value| !value.bytes.is_empty())
            .map_or(Ok(Self::default()), |value| Self::decode(&value.bytes))
    }
}

/// Takes room for one message.
///
/// # Errors
/// [`ReserveError`].
pub fn reserve(
    memory: &dyn SharedMemory,
    key: &str,
    charge: ByteCount,
    limits: &StoreLimits,
) -> Result<(), ReserveError> {
    change(memory, key, |ledger| ledger.take(charge, limits)).unwrap_or(Err(ReserveError::Busy))
}

/// The slot that a new message is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Somebody said that it is free.
    Found(SlotIndex),
    /// It was made for this message: nobody else has heard of it.
    Made(SlotIndex),
}

impl Seat {
    /// Which one.
    #[must_use]
    pub const fn slot(self) -> SlotIndex {
        match self {
            Self::Found(slot) | Self::Made(slot) => slot,
        }
    }
}

/// Takes room for one message, and a slot: one that `find` finds free, or one more, made in the same change. `find` is
/// asked at most once, and only if the books know of more slots than messages. What it found comes back with an error too:
/// it is to be told of again.
///
/// # Errors
/// [`ReserveError`].
pub fn reserve_slot(
    memory: &dyn SharedMemory,
    key: &str,
    charge: ByteCount,
    limits: &StoreLimits,
    find: impl Fn() -> Option<SlotIndex>,
) -> Result<Seat, (ReserveError, Option<SlotIndex>)> {
    let mut found = None;
    let mut has_asked = false;
    let outcome = change(memory, key, |ledger| {
        let has_free = ledger.slots > ledger.messages;
        ledger.take(charge, limits)?;
        if has_free && !has_asked {
            has_asked = true;
            found = find();
        }
        Ok(found.map_or_else(|| Seat::Made(ledger.one_more()), Seat::Found))
    });
    outcome.unwrap_or(Err(ReserveError::Busy)).map_err(|error| (error, found))
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveError {
    /// The limits are reached.
    Full,
    /// The cell is damaged, or too many VMs wrote at once.
    Busy,
}

/// Makes one more slot and names it.
///
/// # Errors
/// [`Conflict`] if too many VMs wrote at once.
pub fn new_slot(memory: &dyn SharedMemory, key: &str) -> Result<SlotIndex, Conflict> {
    change(memory, key, Ledger::one_more)
}

/// Gives back the room of one live message.
///
/// # Errors
/// [`Conflict`] if too many VMs wrote at once; the audit mends the difference. The same holds for the next two.
pub fn release(memory: &dyn SharedMemory, key: &str, charge: ByteCount) -> Result<(), Conflict> {
    change(memory, key, |ledger| {
        ledger.messages = ledger.messages.saturating_sub(1);
        ledger.bytes = ByteCount(ledger.bytes.0.saturating_sub(charge.0));
    })
}

/// A live message became a dead letter: it keeps its room.
///
/// # Errors
/// [`Conflict`].
pub fn bury(memory: &dyn SharedMemory, key: &str, charge: ByteCount) -> Result<(), Conflict> {
    change(memory, key, |ledger| {
        ledger.dead = ledger.dead.saturating_add(1);
        ledger.dead_bytes = ledger.dead_bytes.plus(charge);
    })
}

/// Gives back the room of a dead letter.
///
/// # Errors
/// [`Conflict`].
pub fn release_dead(memory: &dyn SharedMemory, key: &str, charge: ByteCount) -> Result<(), Conflict> {
    change(memory, key, |ledger| {
        ledger.messages = ledger.messages.saturating_sub(1);
        ledger.bytes = ByteCount(ledger.bytes.0.saturating_sub(charge.0));
        ledger.dead = ledger.dead.saturating_sub(1);
        ledger.dead_bytes = ByteCount(ledger.dead_bytes.0.saturating_sub(charge.0));
    })
}

/// Writes `counted` over the books if they still stand as `seen`.
///
/// # Errors
/// [`Conflict`] if they do not.
pub fn mend(memory: &dyn SharedMemory, key: &str, seen: &Ledger, counted: Ledger) -> Result<(), Conflict> {
    change(memory, key, |ledger| {
        if ledger == seen {
            *ledger = counted;
            Ok(())
        } else {
            Err(Conflict)
        }
    })?
}

/// One change of the cell. A damaged cell conflicts for ever: the audit rebuilds it ([`rebuild`]).
fn change<T>(memory: &dyn SharedMemory, key: &str, mut apply: impl FnMut(&mut Ledger) -> T) -> Result<T, Conflict> {
    update_again(memory, key, |bytes| {
        let Ok(mut ledger) = bytes.filter(|bytes| !bytes.is_empty()).map_or(Ok(Ledger::default()), Ledger::decode)
        else {
            return Change::Keep(Err(Conflict));
        };
        let before = ledger;
        let result = apply(&mut ledger);
        if ledger == before {
            return Change::Keep(Ok(result));
        }
        ledger.changes = before.changes.wrapping_add(1);
        Change::Write(ledger.encode(), Ok(result))
    })?
}

/// Writes `counted` over a damaged cell.
///
/// # Errors
/// None with the rules of the host; the type is the memory's.
pub fn rebuild(memory: &dyn SharedMemory, key: &str, counted: Ledger) -> Result<(), Conflict> {
    memory.set(key, &counted.encode(), crate::memory::Expect::Anything)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::memory::double::MemoryDouble;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn limits(messages_max: u32, bytes_max: u64) -> StoreLimits {
        let mut limits = crate::config::parse(b"{}").map(|config: Config| config.shared.store.clone()).unwrap();
        limits.messages_max = messages_max;
        limits.bytes_max = ByteCount(bytes_max);
        limits
    }

    #[test]
    fn room_ends_exactly_at_either_limit() {
        let memory = MemoryDouble::default();
        let take = |limits: &StoreLimits| reserve(&memory, "k", ByteCount(10), limits);
        assert_eq!(take(&limits(2, 100)), Ok(()));
        assert_eq!(take(&limits(2, 19)), Err(ReserveError::Full));
        assert_eq!(take(&limits(2, 20)), Ok(()));
        assert_eq!(take(&limits(2, 100)), Err(ReserveError::Full));
        release(&memory, "k", ByteCount(10)).unwrap();
        assert_eq!(take(&limits(2, 100)), Ok(()));
    }

    #[test]
    fn a_damaged_cell_refuses_new_messages_until_it_is_rebuilt() {
        let memory = MemoryDouble::default();
        memory.overwrite("k", b"garbage");
        assert_eq!(reserve(&memory, "k", ByteCount(1), &limits(9, 9)), Err(ReserveError::Busy));
        rebuild(&memory, "k", Ledger::default()).unwrap();
        assert_eq!(reserve(&memory, "k", ByteCount(1), &limits(9, 9)), Ok(()));
    }

    #[test]
    fn the_audit_writes_only_over_quiet_books() {
        let memory = MemoryDouble::default();
        reserve(&memory, "k", ByteCount(1), &limits(9, 9)).unwrap();
        let seen = Ledger::read(&memory, "k").unwrap();
        reserve(&memory, "k", ByteCount(1), &limits(9, 9)).unwrap();
        assert_eq!(mend(&memory, "k", &seen, Ledger::default()), Err(Conflict));
        let seen = Ledger::read(&memory, "k").unwrap();
        assert_eq!(mend(&memory, "k", &seen, Ledger { messages: 1, ..seen }), Ok(()));
        assert_eq!(Ledger::read(&memory, "k").unwrap().messages, 1);
    }
}
