//! What every cell of shared memory must keep, whatever it holds (`codec.rs` of the core).
//!
//! | property | of |
//! | --- | --- |
//! | what reads, reads the same after it was written again | any bytes |
//! | a flipped bit or a lost end is found | cells that read |
//! | what reads is written again byte for byte | cells in the newest format of their kind |
//!
//! Bytes that a fuzzer changes fail at the checksum, so each input is also read with its version and checksum put right:
//! then every field behind them is fuzzed.

use redeliver_core::codec::{Damage, FORMAT_COMPACT, FORMAT_EXTENDED, FORMAT_VERSION, Seal, checksum, crc32};
use std::fmt::Debug;
use std::marker::PhantomData;

const CHECKSUM: std::ops::Range<usize> = 2..6;

/// In which formats a cell is written again byte for byte.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Exact {
    /// In all: each is written in the one that its fields need.
    Always,
    /// In the compact one: those before are read only, and written in the compact one.
    Compact,
}

/// How one kind of cell is read and written.
pub(crate) struct Format<T, D, E> {
    decode: D,
    encode: E,
    exact: Exact,
    seal: Seal,
    value: PhantomData<T>,
}

impl<T: PartialEq + Debug, D: Fn(&[u8]) -> Result<T, Damage>, E: Fn(&T) -> Vec<u8>> Format<T, D, E> {
    pub(crate) fn new(decode: D, encode: E, exact: Exact) -> Self {
        Self { decode, encode, exact, seal: Seal::NONE, value: PhantomData }
    }

    /// The same for cells that belong to a place and do not name it.
    pub(crate) fn of_place(self, seal: Seal) -> Self {
        Self { seal, ..self }
    }

    /// Checks all properties on `bytes`, as they are and sealed. Answers with what the sealed cell says.
    pub(crate) fn check(&self, bytes: &[u8]) -> Option<T> {
        self.check_read_back(bytes);
        let sealed = sealed(bytes, self.seal)?;
        let value = self.check_read_back(&sealed)?;
        self.check_damage_is_found(&sealed);
        if self.exact == Exact::Always || is_compact(&sealed) {
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
            1 => Damage::Version, // one flipped bit makes no version that there is, or will be
            _ => Damage::Checksum,
        };
        assert_eq!((self.decode)(&flipped), Err(expected), "bit {bit} flipped");
        let length = 1 + place % (sealed.len() - 1); // an empty value is one that was never written
        assert!((self.decode)(&sealed[..length]).is_err(), "cut to {length} bytes");
    }
}

/// The cell that `bytes` would be with the right version and checksum; nothing if they are too short to be one.
pub(crate) fn sealed(bytes: &[u8], seal: Seal) -> Option<Vec<u8>> {
    let rest = bytes.get(CHECKSUM.end..)?;
    let mut sealed = bytes.to_vec();
    let (version, seal) = match sealed[1] {
        FORMAT_COMPACT => (FORMAT_COMPACT, seal),
        FORMAT_EXTENDED => (FORMAT_EXTENDED, Seal::NONE),
        _ => (FORMAT_VERSION, Seal::NONE),
    };
    sealed[1] = version;
    sealed[CHECKSUM].copy_from_slice(&checksum(seal, rest).to_le_bytes());
    Some(sealed)
}

/// Whether its numbers take as many bytes as they need.
pub(crate) fn is_compact(cell: &[u8]) -> bool {
    cell.get(1) == Some(&FORMAT_COMPACT)
}

/// The 32-bit number at `at` of a cell, zero if it ends before.
pub(crate) fn number_at(bytes: &[u8], at: usize) -> u32 {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The number of as many bytes as it needs at `at` of a cell, and where the next one is; zero if there is none.
pub(crate) fn short_number_at(bytes: &[u8], at: usize) -> (u32, usize) {
    let bytes = bytes.get(at..).unwrap_or_default();
    let length = bytes.iter().position(|byte| *byte < 128).map_or(bytes.len(), |last| last + 1);
    let number = bytes[..length].iter().rev().fold(0_u64, |number, byte| number << 7 | u64::from(byte & 127));
    (u32::try_from(number).unwrap_or_default(), at + length)
}
