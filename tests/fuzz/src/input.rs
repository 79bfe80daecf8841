//! Fuzz bytes as text in parts, so that a corpus file can be read and written by a person.
//!
//! ```text
//! section GS section GS ...        a section is text, a number, or
//! item RS item RS ...              a list, whose items can be
//! name US value                    header pairs
//! ```
//! GS, RS and US are the ASCII separators 0x1d, 0x1e and 0x1f. Reading is total: what is missing is empty or zero.

use redeliver_core::headers::HeaderList;

const GROUP: u8 = 0x1d;
const RECORD: u8 = 0x1e;
const UNIT: u8 = 0x1f;

/// The sections of one input, front to back.
pub(crate) struct Sections<'a>(&'a [u8]);

impl<'a> Sections<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next section; empty behind the last.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let (section, rest) = split(self.0, GROUP);
        self.0 = rest;
        section
    }

    /// The next section as text; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The next section as a number: its digits, modulo 2^64.
    pub(crate) fn number(&mut self) -> u64 {
        let digits = self.bytes().iter().filter(|byte| byte.is_ascii_digit());
        digits.fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    }

    /// The next section as one word of several.
    pub(crate) fn choice<T: Copy>(&mut self, words: &[T]) -> T {
        let number = usize::try_from(self.number()).unwrap_or(usize::MAX);
        words[number % words.len()]
    }

    /// The next section as a list; an empty section has no item.
    pub(crate) fn items(&mut self) -> Vec<&'a [u8]> {
        let mut rest = self.bytes();
        let mut items = Vec::new();
        while !rest.is_empty() {
            let (item, others) = split(rest, RECORD);
            items.push(item);
            rest = others;
        }
        items
    }

    /// The next section as a list of texts.
    pub(crate) fn texts(&mut self) -> Vec<String> {
        self.items().into_iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect()
    }

    /// The next section as one read of a header map: names in lower case, as the host has them.
    pub(crate) fn headers(&mut self) -> HeaderList {
        self.items().into_iter().map(header).collect()
    }
}

/// A list taken apart: names as text.
pub(crate) fn owned(headers: &HeaderList) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec())).collect()
}

fn header(item: &[u8]) -> (String, Vec<u8>) {
    let (name, value) = split(item, UNIT);
    (String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec())
}

/// What lies before and behind the first `separator`.
fn split(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == separator);
    at.map_or((bytes, &[]), |at| (&bytes[..at], &bytes[at + 1..]))
}
