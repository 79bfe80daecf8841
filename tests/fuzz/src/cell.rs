//! What every cell of shared memory must keep, whatever it holds (`codec.rs` of the core).
//!
//! | property | of |
//! | --- | --- |
//! | what reads, reads the same after it was written again | any bytes |
//! | a flipped bit or a lost end is found | cells that read |
//! | what reads is written again byte for byte | cells whose format has no slack |
//!
//! Bytes that a fuzzer changes fail at the checksum, so each input is also read with its version and checksum put right:
//! then every field behind them is fuzzed.

use redeliver_core::codec::{Damage, FORMAT_EXTENDED, FORMAT_VERSION, crc32};
use std::fmt::Debug;
use std::marker::PhantomData;

const CHECKSUM: std::ops::Range<usize> = 2..6;

/// Whether two different cells can mean the same.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Slack {
    /// Fields that a state does not use are read and ignored.
    Some,
    /// Every byte counts.
    None,
}

/// How one kind of cell is read and written.
pub(crate) struct Format<T, D, E> {
    decode: D,
    encode: E,
    slack: Slack,
    value: PhantomData<T>,
}

impl<T: PartialEq + Debug, D: Fn(&[u8]) -> Result<T, Damage>, E: Fn(&T) -> Vec<u8>> Format<T, D, E> {
    pub(crate) fn new(decode: D, encode: E, slack: Slack) -> Self {
        Self { decode, encode, slack, value: PhantomData }
    }

    /// Checks all properties on `bytes`, as they are and sealed. Answers with what the sealed cell says.
    pub(crate) fn check(&self, bytes: &[u8]) -> Option<T> {
        self.check_read_back(bytes);
        let sealed = sealed(bytes)?;
        let value = self.check_read_back(&sealed)?;
        self.check_damage_is_found(&sealed);
        if self.slack == Slack::None {
            assert_eq!((self.encode)(&value), sealed, "{value:?} is not written as it was read");
        }
        Some(value)
    }

    fn check_read_back(&self, bytes: &[u8]) -> Option<T> {
        let value = (self.decode)(bytes).ok()?;
        assert_eq!((self.decode)(&(self.encode)(&value)).as_ref(), Ok(&value), "written again");
        Some(value)
    }

    /// One bit and one length, which differ from input to input; all of them would cost a square of the length.
    fn check_damage_is_found(&self, sealed: &[u8]) {
        let place = crc32(sealed) as usize;
        let bit = place % (sealed.len() * 8);
        let mut flipped = sealed.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => Damage::Kind,
            1 => Damage::Version,
            _ => Damage::Checksum,
        };
        assert_eq!((self.decode)(&flipped), Err(expected), "bit {bit} flipped");
        let length = 1 + place % (sealed.len() - 1); // an empty value is one that was never written
        assert!((self.decode)(&sealed[..length]).is_err(), "cut to {length} bytes");
    }
}

/// The cell that `bytes` would be with the right version and checksum; nothing if they are too short to be one.
pub(crate) fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.get(CHECKSUM.end..)?;
    let mut sealed = bytes.to_vec();
    if sealed[1] != FORMAT_EXTENDED {
        sealed[1] = FORMAT_VERSION;
    }
    sealed[CHECKSUM].copy_from_slice(&crc32(rest).to_le_bytes());
    Some(sealed)
}

/// The 32-bit number at `at` of a cell, zero if it ends before.
pub(crate) fn number_at(bytes: &[u8], at: usize) -> u32 {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
