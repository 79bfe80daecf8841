//! The books, read back from shared memory, and every change of them.
//!
//! Input: the bytes of the cell. Their charges and limits are drawn from its checksum.

use crate::cell::{Exact, Format, sealed};
use crate::memory::Memory;
use redeliver_core::codec::{Seal, crc32};
use redeliver_core::config::{Intake, StoreLimits};
use redeliver_core::ledger::{self, Ledger, ReserveError};
use redeliver_core::random::Random;
use redeliver_core::units::{ByteCount, Millis};

const KEY: &str = "ledger";

pub(super) fn target(bytes: &[u8]) {
    let read = |bytes: &[u8]| Ledger::read(&Memory::with(KEY, bytes), KEY);
    // `rebuild` is the only writer that takes whole books; without other VMs it cannot conflict.
    let write = |books: &Ledger| {
        let memory = Memory::default();
        assert_eq!(ledger::rebuild(&memory, KEY, *books), Ok(()));
        memory.bytes(KEY)
    };
    let Some(books) = Format::new(read, write, Exact::Always).check(bytes) else { return };
    let memory = Memory::with(KEY, &sealed(bytes, Seal::NONE).unwrap_or_default());
    check_changes(&memory, books, &mut Random::seeded(u64::from(crc32(bytes))));
}

/// Whatever the books say, no change of them overflows, and room is given exactly within both limits.
fn check_changes(memory: &Memory, books: Ledger, random: &mut Random) {
    let charge = ByteCount(random.next() >> (random.up_to(63)));
    let limits = StoreLimits {
        messages_max: books.messages.saturating_add(random.up_to(2) as u32).max(1),
        bytes_max: books.bytes.plus(ByteCount(random.up_to(charge.0.saturating_mul(2)))),
        ttl: Millis(1),
        intake: Intake::Open,
    };
    let sum = u128::from(books.bytes.0) + u128::from(charge.0);
    let fits = books.messages < limits.messages_max && sum <= u128::from(limits.bytes_max.0);
    let expected = if fits { Ok(()) } else { Err(ReserveError::Full) };
    if sum <= u128::from(u64::MAX) {
        assert_eq!(ledger::reserve(memory, KEY, charge, &limits), expected, "{charge} in {limits:?} of {books:?}");
    }
    assert_eq!(ledger::new_slot(memory, KEY).map(|slot| slot.0), Ok(books.slots));
    for change in [ledger::release, ledger::bury, ledger::release_dead, ledger::release_dead] {
        assert_eq!(change(memory, KEY, charge), Ok(()));
    }
}
