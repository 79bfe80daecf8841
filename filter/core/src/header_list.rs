//! A header map as one read of the host gave it: one piece of memory, looked through in place.
//!
//! ```text
//! count (4) | count x (length of the name (4) | length of the value (4)) | count x (name | 0 | value | 0)
//! ```
//! That is how the proxy-wasm ABI serialises a map (0.2.1, `proxy_get_header_map_pairs`; numbers little-endian). A request
//! is mostly only looked at, so nothing is taken apart before somebody asks: one allocation instead of two for each header.
//! Reading is total: what does not fit the form ends the list.

use std::fmt;

const COUNT_BYTES: usize = 4;
const LENGTHS_BYTES: usize = 8;

/// Headers: names in lower case (Envoy's form), values as raw bytes, order and repetition kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderList {
    serialised: Vec<u8>,
}

impl HeaderList {
    /// What the host serialised; empty for a map that there is not.
    #[must_use]
    pub const fn of_host(serialised: Vec<u8>) -> Self {
        Self { serialised }
    }

    /// The list of these pairs. Callers bound them far below 4 GiB (the host's own limit is 1 MiB).
    #[must_use]
    pub fn of(pairs: &[(&[u8], &[u8])]) -> Self {
        let length = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let sum = pairs.iter().fold(COUNT_BYTES, |sum, (name, value)| {
            sum.saturating_add(LENGTHS_BYTES).saturating_add(name.len()).saturating_add(value.len()).saturating_add(2)
        });
        // All zeros, so that those behind the texts stand there already.
        let mut serialised = vec![0; sum];
        if let Some((count, rest)) = serialised.split_first_chunk_mut() {
            *count = length(pairs.len()).to_le_bytes();
            let lengths_bytes = pairs.len().saturating_mul(LENGTHS_BYTES);
            let (lengths, mut texts) = rest.split_at_mut_checked(lengths_bytes).unwrap_or_default();
            for ((name, value), place) in pairs.iter().zip(lengths.as_chunks_mut().0) {
                *place = (u64::from(length(value.len())) << 32 | u64::from(length(name.len()))).to_le_bytes();
                texts = put(put(texts, name), value);
            }
        }
        Self { serialised }
    }

    /// The list that the host can be handed.
    #[must_use]
    pub fn serialised(&self) -> &[u8] {
        &self.serialised
    }

    /// All pairs, in order.
    #[must_use]
    pub fn iter(&self) -> Pairs<'_> {
        let (lengths, texts) = self.parts();
        Pairs { lengths, texts }
    }

    /// An empty vector with room for all pairs and so many `more`: one that grows is moved again and again.
    #[must_use]
    pub fn room<'a>(&self, more: usize) -> Vec<(&'a [u8], &'a [u8])> {
        Vec::with_capacity(self.parts().0.as_chunks::<LENGTHS_BYTES>().0.len().saturating_add(more))
    }

    /// The lengths of all pairs, and their texts.
    fn parts(&self) -> (&[u8], &[u8]) {
        let (count, rest) = self.serialised.split_first_chunk::<COUNT_BYTES>().unwrap_or((&[0; COUNT_BYTES], &[]));
        let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
        rest.split_at_checked(count.saturating_mul(LENGTHS_BYTES)).unwrap_or_default()
    }

    /// The first value of `name`. A request is asked for a dozen names: only a name of the right length is looked at.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        let (lengths, texts) = self.parts();
        let mut start: usize = 0;
        for [a, b, c, d, e, f, g, h] in lengths.as_chunks::<LENGTHS_BYTES>().0 {
            let name_length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok()?;
            let value_length = usize::try_from(u32::from_le_bytes([*e, *f, *g, *h])).ok()?;
            let value_start = start.checked_add(name_length)?.checked_add(1)?;
            let value_end = value_start.checked_add(value_length)?;
            if name_length == name.len() && texts.get(start..).is_some_and(|rest| rest.starts_with(name.as_bytes())) {
                // The zero behind it belongs to the value: without it the list ends before.
                return texts.get(value_start..value_end).filter(|_| value_end < texts.len());
            }
            start = value_end.checked_add(1)?;
        }
        None
    }

    /// All values of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// Whether there is not even one: the host has let go of the map.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> IntoIterator for &'a HeaderList {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Pairs<'a>;

    fn into_iter(self) -> Pairs<'a> {
        self.iter()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for HeaderList {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let owned: Vec<(N, V)> = pairs.into_iter().collect();
        let pairs: Vec<(&[u8], &[u8])> = owned.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
        Self::of(&pairs)
    }
}

impl fmt::Debug for HeaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, value)| (name.escape_ascii(), value.escape_ascii()))).finish()
    }
}

/// Writes a text to the front of `place`, and answers with what follows behind its zero.
fn put<'a>(place: &'a mut [u8], text: &[u8]) -> &'a mut [u8] {
    let Some((front, rest)) = place.split_at_mut_checked(text.len()) else { return &mut [] };
    front.copy_from_slice(text);
    rest.get_mut(1..).unwrap_or_default()
}

/// The pairs of a list.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    lengths: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let ([a, b, c, d, e, f, g, h], lengths) = self.lengths.split_first_chunk::<LENGTHS_BYTES>()?;
        let (name, rest) = text(self.texts, [*a, *b, *c, *d])?;
        let (value, rest) = text(rest, [*e, *f, *g, *h])?;
        (self.lengths, self.texts) = (lengths, rest);
        Some((name, value))
    }
}

/// A text of `length` bytes, and what follows behind its zero. Always inlined, like the step above: built for size, a look
/// for one name is a call for every header otherwise.
#[inline(always)]
fn text(bytes: &[u8], length: [u8; 4]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
    rest.split_first().map(|(_, rest)| (text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ABI: &[u8] = b"\x02\0\0\0\x05\0\0\0\x04\0\0\0\x01\0\0\0\0\0\0\0:path\0/a\0b\0x\0\0";

    fn pairs(list: &HeaderList) -> Vec<(&[u8], &[u8])> {
        list.iter().collect()
    }

    #[test]
    fn a_list_is_written_and_read_as_the_abi_says() {
        let list = HeaderList::of_host(ABI.to_vec());
        assert_eq!(pairs(&list), [(&b":path"[..], &b"/a\0b"[..]), (b"x", b"")]);
        assert_eq!(list.iter().collect::<HeaderList>().serialised(), ABI);
    }

    #[test]
    fn repetition_and_order_are_kept() {
        let list: HeaderList = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!((list.first("a"), list.first("c")), (Some(&b"1"[..]), None));
        assert_eq!(list.all("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(pairs(&list).len(), 3);
    }

    #[test]
    fn what_does_not_fit_the_form_ends_the_list() {
        for length in 0..ABI.len() {
            let cut = HeaderList::of_host(ABI[..length].to_vec());
            assert!(pairs(&cut).len() < 2, "{length}: {cut:?}");
            let looked_through = |name: &str| cut.iter().find(|(found, _)| *found == name.as_bytes());
            for name in [":path", "x", "y"] {
                assert_eq!(cut.first(name), looked_through(name).map(|(_, value)| value), "{length}: {name}");
            }
        }
        let too_long = HeaderList::of_host(b"\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffa\0b\0".to_vec());
        let too_many = HeaderList::of_host(b"\xff\xff\xff\xff\x01\0\0\0\x01\0\0\0a\0b\0".to_vec());
        assert!(too_long.is_empty() && too_many.is_empty() && HeaderList::default().is_empty());
        assert_eq!((too_long.first("a"), too_many.first("a")), (None, None));
    }
}
