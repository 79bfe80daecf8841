//! Bytes in shared memory: little-endian numbers, length-prefixed strings, and a checksum that every cell carries.
//!
//! ```text
//! cell = kind (1) | format version (1) | crc32 of the rest (4) | rest
//! ```
//! | version | what is written in it | numbers and lengths |
//! | --- | --- | --- |
//! | 1, first | books, leases, tables, receipts; before, heads and messages too | of fixed size |
//! | 2, extended | receipts with a fingerprint; before, heads in a line and messages with later fields too | of fixed size |
//! | 4, compact | heads and messages: there is one of each for every message that is stored | as many bytes as they need |
//!
//! What was written before is read. Every version has an odd number of ones, so that one flipped bit makes no other version;
//! the next are 7, 8, 11. A cell of a version that is not known yet is a later build's, which is there at the same time
//! while a new module takes over: it is no damage to be mended ([`Damage::Later`]).
//!
//! Reading is total: whatever stands in memory (another plugin's bytes, a torn or older value) becomes a value or a
//! [`Damage`], never a panic and never a guess.

use std::fmt;
use std::sync::OnceLock;

/// The first format. It is part of the name of every key too ([`crate::keys`]), so that number stays.
pub const FORMAT_VERSION: u8 = 1;
/// The format with the fields that came later. A newer filter reads the formats before its own (CONTRACT section 10).
pub const FORMAT_EXTENDED: u8 = 2;
/// The format for what there is a million of.
pub const FORMAT_COMPACT: u8 = 4;

/// In which format a cell was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`FORMAT_VERSION`].
    First,
    /// [`FORMAT_EXTENDED`].
    Extended,
    /// [`FORMAT_COMPACT`].
    Compact,
}

/// Where a cell belongs, for cells of the compact format that do not say so themselves: it goes into the checksum, which
/// then is that of no other place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal(pub u32);

impl Seal {
    /// The cell says where it belongs, or there is only one of it.
    pub const NONE: Self = Self(0);
}

/// Bits of a number that stand in one byte; the eighth says that more follow (LEB128, as in WebAssembly's own binaries).
const NUMBER_BITS: u32 = 7;
const MORE_FOLLOW: u8 = 0x80;

/// The highest version that there will ever be: what stands there in foreign bytes is mostly above it.
const VERSION_MAX: u8 = 31;

const CHECKSUM_AT: usize = 2;
const HEADER_BYTES: usize = 6;

/// Why bytes in shared memory could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Fewer bytes than the format needs.
    Short,
    /// The first byte is not the kind that belongs there.
    Kind,
    /// A format version that there is not, or not for this kind.
    Version,
    /// A format version of a later build: what it wrote is for it to read, and for nobody else to mend.
    Later,
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
            Self::Later => "written by a later version",
            Self::Checksum => "checksum mismatch",
            Self::Field => "impossible field",
            Self::Trailing => "bytes left over",
        })
    }
}

/// Builds one cell.
pub struct Writer {
    bytes: Vec<u8>,
    format: Format,
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
            Format::Compact => FORMAT_COMPACT,
        };
        let mut bytes = Vec::with_capacity(capacity.saturating_add(HEADER_BYTES));
        bytes.extend_from_slice(&[kind, version, 0, 0, 0, 0]);
        Self { bytes, format }
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

    /// Appends a number in as many bytes as it needs.
    pub fn number(&mut self, value: u64) -> &mut Self {
        let mut rest = value;
        loop {
            let low = rest as u8 & !MORE_FOLLOW;
            rest >>= NUMBER_BITS;
            if rest == 0 {
                return self.u8(low);
            }
            self.u8(low | MORE_FOLLOW);
        }
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends a length and the bytes. Callers bound their input far below 4 GiB (the host's 1 MiB header limit,
    /// `capture.max_body`).
    pub fn string(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        match self.format {
            Format::First | Format::Extended => self.u32(length),
            Format::Compact => self.number(length.into()),
        };
        self.raw(value)
    }

    /// The finished cell, checksum filled in.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.sealed(Seal::NONE)
    }

    /// The finished cell of a place.
    #[must_use]
    pub fn sealed(mut self, seal: Seal) -> Vec<u8> {
        let checksum = checksum(seal, self.bytes.get(HEADER_BYTES..).unwrap_or_default());
        if let Some(place) = self.bytes.get_mut(CHECKSUM_AT..HEADER_BYTES) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        self.bytes
    }
}

/// Reads one cell front to back.
pub struct Reader<'a> {
    rest: &'a [u8],
    format: Format,
}

impl<'a> Reader<'a> {
    /// Checks kind, version and checksum.
    ///
    /// # Errors
    /// The first [`Damage`] found.
    pub fn open(bytes: &'a [u8], kind: u8) -> Result<Self, Damage> {
        match Self::open_any(bytes, kind, Seal::NONE)? {
            (reader, Format::First) => Ok(reader),
            (_, Format::Extended | Format::Compact) => Err(Damage::Version),
        }
    }

    /// The same for a kind of cell that exists in several formats; `seal` is for the compact one.
    ///
    /// # Errors
    /// The first [`Damage`] found.
    pub fn open_any(bytes: &'a [u8], kind: u8, seal: Seal) -> Result<(Self, Format), Damage> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(Damage::Short)?;
        let &[found, version, a, b, c, d] = header else { return Err(Damage::Short) };
        if found != kind {
            return Err(Damage::Kind);
        }
        let said = u32::from_le_bytes([a, b, c, d]);
        let (format, seal) = match version {
            FORMAT_VERSION => (Format::First, Seal::NONE),
            FORMAT_EXTENDED => (Format::Extended, Seal::NONE),
            FORMAT_COMPACT => (Format::Compact, seal),
            version if version <= VERSION_MAX && version.count_ones() % 2 == 1 => {
                // In later formats too the checksum stands there, sealed or not: otherwise these are just bytes.
                let is_whole = [Seal::NONE, seal].iter().any(|seal| checksum(*seal, rest) == said);
                return Err(if is_whole { Damage::Later } else { Damage::Version });
            }
            _ => return Err(Damage::Version),
        };
        if said != checksum(seal, rest) {
            return Err(Damage::Checksum);
        }
        Ok((Self { rest, format }, format))
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

    /// The next number that is 16 bits in the formats of fixed sizes.
    ///
    /// # Errors
    /// [`Damage::Short`]; [`Damage::Field`] if it is too large, or longer than it needs to be.
    pub fn short(&mut self) -> Result<u16, Damage> {
        match self.format {
            Format::First | Format::Extended => self.u16(),
            Format::Compact => u16::try_from(self.number()?).map_err(|_| Damage::Field),
        }
    }

    /// The next number that is 32 bits in the formats of fixed sizes.
    ///
    /// # Errors
    /// As [`Reader::short`].
    pub fn word(&mut self) -> Result<u32, Damage> {
        match self.format {
            Format::First | Format::Extended => self.u32(),
            Format::Compact => u32::try_from(self.number()?).map_err(|_| Damage::Field),
        }
    }

    /// The next number that is 64 bits in the formats of fixed sizes.
    ///
    /// # Errors
    /// As [`Reader::short`].
    pub fn long(&mut self) -> Result<u64, Damage> {
        match self.format {
            Format::First | Format::Extended => self.u64(),
            Format::Compact => self.number(),
        }
    }

    fn number(&mut self) -> Result<u64, Damage> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(NUMBER_BITS as usize) {
            let byte = self.u8()?;
            let bits = u64::from(byte & !MORE_FOLLOW);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(Damage::Field);
            }
            number |= bits << shift;
            if byte & MORE_FOLLOW == 0 {
                return Ok(number);
            }
        }
        Err(Damage::Field)
    }

    /// The next length-prefixed string.
    ///
    /// # Errors
    /// As [`Reader::short`].
    pub fn string(&mut self) -> Result<&'a [u8], Damage> {
        let length = usize::try_from(self.word()?).map_err(|_| Damage::Field)?;
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

/// The cell was written by a later build: it is neither to be read nor to be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later;

/// What a cell says that may be lost: nothing if there is none, or if it is damaged.
///
/// # Errors
/// [`Later`].
pub fn read_or_nothing<T: Default>(
    bytes: Option<&[u8]>,
    read: impl Fn(&[u8]) -> Result<T, Damage>,
) -> Result<T, Later> {
    match bytes.map(read) {
        Some(Ok(found)) => Ok(found),
        Some(Err(Damage::Later)) => Err(Later),
        Some(Err(_)) | None => Ok(T::default()),
    }
}

/// CRC-32 (ISO-HDLC, the one of zip and Ethernet): finds bit flips, truncation and mixed-up cells; it is no secret. Eight
/// bytes at a time (Kounavis and Berry, "A systematic approach to building high performance software-based CRC
/// generators", 2005): a tick reads fifty heads, and most of that time was the checksum.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    checksum(Seal::NONE, bytes)
}

/// The same from another start for each place: what follows keeps two starts apart, whatever the bytes are.
#[must_use]
pub fn checksum(seal: Seal, bytes: &[u8]) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = CRC_TABLES.get_or_init(crc_tables);
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(!seal.0, |crc, eight| {
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
        for format in [Format::First, Format::Extended, Format::Compact] {
            let mut writer = Writer::of(b'x', format, 0);
            writer.u8(7).number(300).string(b"hello");
            let whole = writer.sealed(Seal::NONE);
            let is_refused = |bytes: &[u8]| Reader::open_any(bytes, b'x', Seal::NONE).is_err();
            for length in 0..whole.len() {
                assert!(is_refused(&whole[..length]), "{format:?} cut to {length} bytes");
            }
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(is_refused(&bytes), "{format:?}, bit {bit} flipped");
            }
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let read = |version| {
            let mut bytes = cell();
            bytes[1] = version;
            Reader::open(&bytes, b'x').map(|_| ()).unwrap_err()
        };
        for version in [7, 8, 11, 13, 31] {
            assert_eq!(read(version), Damage::Later, "{version}");
        }
        for version in [0, 3, 5, 6, 9, 30, 32, b' ', 255] {
            assert_eq!(read(version), Damage::Version, "{version}");
        }
        let mut garbage = cell();
        (garbage[1], garbage[7]) = (7, !garbage[7]);
        assert_eq!(Reader::open(&garbage, b'x').map(|_| ()), Err(Damage::Version), "no later build seals like that");
        let known = [FORMAT_VERSION, FORMAT_EXTENDED, FORMAT_COMPACT];
        assert!(known.iter().all(|version| version.count_ones() % 2 == 1 && *version <= VERSION_MAX));
    }

    fn number(value: u64) -> Vec<u8> {
        let mut writer = Writer::of(b'x', Format::Compact, 0);
        writer.number(value);
        writer.finish()
    }

    #[test]
    fn a_number_takes_the_bytes_that_it_needs_and_reads_back() {
        let cases =
            [(0, 1), (1, 1), (0x7f, 1), (0x80, 2), (0x3fff, 2), (0x4000, 3), (u64::MAX >> 1, 9), (u64::MAX, 10)];
        for (value, length) in cases {
            let bytes = number(value);
            assert_eq!(bytes.len(), HEADER_BYTES + length, "{value}");
            let (mut reader, _) = Reader::open_any(&bytes, b'x', Seal::NONE).unwrap();
            assert_eq!((reader.long(), reader.close()), (Ok(value), Ok(())), "{value}");
        }
    }

    #[test]
    fn a_number_that_is_too_large_or_longer_than_it_needs_to_be_is_none() {
        let reader = |rest: &'static [u8]| Reader { rest, format: Format::Compact };
        assert_eq!(reader(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").long(), Ok(u64::MAX));
        for (story, bytes, damage) in [
            ("no end", &b"\x80"[..], Damage::Short),
            ("a zero behind it", b"\x80\0", Damage::Field),
            ("65 bits", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Damage::Field),
            ("eleven bytes", &[0xff; 11], Damage::Field),
        ] {
            assert_eq!(reader(bytes).long(), Err(damage), "{story}");
        }
        assert_eq!(reader(&[0xff, 0xff, 3]).short(), Ok(u16::MAX));
        assert_eq!(reader(&[0x80, 0x80, 4]).short(), Err(Damage::Field), "2^16");
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0xf]).word(), Ok(u32::MAX));
        assert_eq!(reader(&[0x80, 0x80, 0x80, 0x80, 0x10]).word(), Err(Damage::Field), "2^32");
    }

    #[test]
    fn a_sealed_cell_is_that_of_its_place_only() {
        let sealed = |place| {
            let mut writer = Writer::of(b'x', Format::Compact, 0);
            writer.u8(7);
            writer.sealed(Seal(place))
        };
        for place in [0, 1, 2, 255, 1 << 16, u32::MAX] {
            for other in [0, 1, 2, 255, 1 << 16, u32::MAX] {
                let found = Reader::open_any(&sealed(place), b'x', Seal(other)).map(|_| ());
                let expected = if place == other { Ok(()) } else { Err(Damage::Checksum) };
                assert_eq!(found, expected, "{place} under {other}");
            }
        }
    }
}
