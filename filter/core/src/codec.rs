//! Bytes in shared memory: little-endian numbers, length-prefixed strings, and a checksum that every cell carries.
//!
//! ```text
//! cell = kind (1) | format version (1) | crc32 of the rest (4) | rest
//! ```
//! Two versions exist: the first, and a second one for the cells that got more fields (heads that stand in a line, messages
//! with a fingerprint, a line or hops before, receipts with a fingerprint). A cell without those fields is still written
//! in the first, byte for byte as before.
//!
//! Reading is total: whatever stands in memory (another plugin's bytes, a torn or older value) becomes a value or a
//! [`Damage`], never a panic and never a guess.

use std::fmt;
use std::sync::OnceLock;

/// The first format. It is part of the name of every key too ([`crate::keys`]), so that number stays.
pub const FORMAT_VERSION: u8 = 1;
/// The format with the fields that came later. A newer filter reads this one and the one before (CONTRACT section 10).
pub const FORMAT_EXTENDED: u8 = 2;

/// In which format a cell was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`FORMAT_VERSION`].
    First,
    /// [`FORMAT_EXTENDED`].
    Extended,
}

const CHECKSUM_AT: usize = 2;
const HEADER_BYTES: usize = 6;

/// Why bytes in shared memory could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Fewer bytes than the format needs.
    Short,
    /// The first byte is not the kind that belongs there.
    Kind,
    /// A format version that this build does not know.
    Version,
    /// The checksum does not match the bytes.
    Checksum,
    /// A field holds a value that the format does not allow.
    Field,
    /// Bytes are left over behind the last field.
    Trailing,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "too short",
            Self::Kind => "another kind of cell",
            Self::Version => "unknown format version",
            Self::Checksum => "checksum mismatch",
            Self::Field => "impossible field",
            Self::Trailing => "bytes left over",
        })
    }
}

/// Builds one cell.
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A cell of `kind`, with room for `capacity` bytes of content.
    #[must_use]
    pub fn new(kind: u8, capacity: usize) -> Self {
        Self::of(kind, Format::First, capacity)
    }

    /// The same in a format.
    #[must_use]
    pub fn of(kind: u8, format: Format, capacity: usize) -> Self {
        let version = match format {
            Format::First => FORMAT_VERSION,
            Format::Extended => FORMAT_EXTENDED,
        };
        let mut bytes = Vec::with_capacity(capacity.saturating_add(HEADER_BYTES));
        bytes.extend_from_slice(&[kind, version, 0, 0, 0, 0]);
        Self { bytes }
    }

    /// Appends one byte.
    #[inline]
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Appends a 16-bit number.
    #[inline]
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a 32-bit number.
    #[inline]
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a 64-bit number.
    #[inline]
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends a 32-bit length and the bytes. Callers bound their input far below 4 GiB (the host's 1 MiB header limit,
    /// `capture.max_body`).
    pub fn string(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX)).raw(value)
    }

    /// The finished cell, checksum filled in.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let checksum = crc32(self.bytes.get(HEADER_BYTES..).unwrap_or_default());
        if let Some(place) = self.bytes.get_mut(CHECKSUM_AT..HEADER_BYTES) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        self.bytes
    }
}

/// Reads one cell front to back.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks kind, version and checksum.
    ///
    /// # Errors
    /// The first [`Damage`] found.
    pub fn open(bytes: &'a [u8], kind: u8) -> Result<Self, Damage> {
        match Self::open_either(bytes, kind)? {
            (reader, Format::First) => Ok(reader),
            (_, Format::Extended) => Err(Damage::Version),
        }
    }

    /// The same for a kind of cell that exists in both formats.
    ///
    /// # Errors
    /// The first [`Damage`] found.
    pub fn open_either(bytes: &'a [u8], kind: u8) -> Result<(Self, Format), Damage> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(Damage::Short)?;
        let &[found, version, a, b, c, d] = header else { return Err(Damage::Short) };
        if found != kind {
            return Err(Damage::Kind);
        }
        let format = match version {
            FORMAT_VERSION => Format::First,
            FORMAT_EXTENDED => Format::Extended,
            _ => return Err(Damage::Version),
        };
        if u32::from_le_bytes([a, b, c, d]) != crc32(rest) {
            return Err(Damage::Checksum);
        }
        Ok((Self { rest }, format))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (front, rest) = self.rest.split_first_chunk::<N>().ok_or(Damage::Short)?;
        self.rest = rest;
        Ok(*front)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Damage::Short`] at the end; so do the others.
    pub fn u8(&mut self) -> Result<u8, Damage> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next 16-bit number.
    ///
    /// # Errors
    /// [`Damage::Short`].
    pub fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 32-bit number.
    ///
    /// # Errors
    /// [`Damage::Short`].
    pub fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 64-bit number.
    ///
    /// # Errors
    /// [`Damage::Short`].
    pub fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Damage::Short`].
    pub fn raw<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        self.array()
    }

    /// The next length-prefixed string.
    ///
    /// # Errors
    /// [`Damage::Short`].
    pub fn string(&mut self) -> Result<&'a [u8], Damage> {
        let length = usize::try_from(self.u32()?).map_err(|_| Damage::Field)?;
        let (front, rest) = self.rest.split_at_checked(length).ok_or(Damage::Short)?;
        self.rest = rest;
        Ok(front)
    }

    /// Whether more follows: a field at the end that is left out where it says nothing.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`Damage::Trailing`].
    pub fn close(self) -> Result<(), Damage> {
        if self.rest.is_empty() { Ok(()) } else { Err(Damage::Trailing) }
    }
}

/// CRC-32 (ISO-HDLC, the one of zip and Ethernet): finds bit flips, truncation and mixed-up cells; it is no secret. Eight
/// bytes at a time (Kounavis and Berry, "A systematic approach to building high performance software-based CRC
/// generators", 2005): a tick reads a hundred heads, and most of that time was the checksum.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = CRC_TABLES.get_or_init(crc_tables);
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(!0, |crc, eight| {
        let [a, b, c, d, e, f, g, h] = (u64::from(crc) ^ u64::from_le_bytes(*eight)).to_le_bytes();
        let first = entry(t7, a) ^ entry(t6, b) ^ entry(t5, c) ^ entry(t4, d);
        first ^ entry(t3, e) ^ entry(t2, f) ^ entry(t1, g) ^ entry(t0, h)
    });
    !rest.iter().fold(crc, |crc, byte| entry(t0, (crc as u8) ^ byte) ^ (crc >> 8))
}

/// Always inlined: built for size it is a call for every byte otherwise.
#[inline(always)]
fn entry(table: &[u32; 256], byte: u8) -> u32 {
    table.get(usize::from(byte)).copied().unwrap_or_default()
}

/// What a byte does to the checksum, by the number of bytes behind it.
type CrcTables = [[u32; 256]; 8];

/// Computed when a VM first needs them, in microseconds: written down they would be 8 KiB of the module.
static CRC_TABLES: OnceLock<CrcTables> = OnceLock::new();

fn crc_tables() -> CrcTables {
    const POLYNOMIAL_REVERSED: u32 = 0xEDB8_8320;
    let shifted = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL_REVERSED } else { crc >> 1 };
    let alone: [u32; 256] = std::array::from_fn(|byte| (0..8).fold(u32::try_from(byte).unwrap_or_default(), shifted));
    let mut tables = [alone; 8];
    let mut before = alone;
    for table in tables.iter_mut().skip(1) {
        *table = before.map(|crc| (0..8).fold(crc, shifted));
        before = *table;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn cell() -> Vec<u8> {
        let mut writer = Writer::new(b'x', 0);
        writer.u8(7).u16(300).u32(70_000).u64(1 << 40).string(b"hello");
        writer.finish()
    }

    #[test]
    fn crc32_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn crc32_of_any_length_is_that_of_its_bits() {
        let by_bits = |bytes: &[u8]| {
            !bytes.iter().fold(!0_u32, |crc, byte| {
                (0..8).fold(
                    crc ^ u32::from(*byte),
                    |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 },
                )
            })
        };
        let bytes: Vec<u8> = (0..100_u32).map(|place| (place * 37 + 11) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(crc32(&bytes[..length]), by_bits(&bytes[..length]), "{length} bytes");
        }
    }

    #[test]
    fn a_cell_reads_back_as_written() {
        let bytes = cell();
        let mut reader = Reader::open(&bytes, b'x').unwrap();
        assert_eq!(reader.u8(), Ok(7));
        assert_eq!(reader.u16(), Ok(300));
        assert_eq!(reader.u32(), Ok(70_000));
        assert_eq!(reader.u64(), Ok(1 << 40));
        assert_eq!(reader.string(), Ok(&b"hello"[..]));
        assert_eq!(reader.close(), Ok(()));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let whole = cell();
        for length in 0..whole.len() {
            assert!(Reader::open(&whole[..length], b'x').is_err(), "cut to {length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::open(&bytes, b'x').is_err(), "bit {bit} flipped");
        }
    }
}
