//! HTTP as this host sees it: whole heads and pieces of bodies, never a socket.

use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A header map: names in lower case, values as raw bytes, order and repetition kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// A map of these texts.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
    }

    /// The first value of `name`.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_slice())
    }

    /// The first value of `name`, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Adds one more value.
    pub fn add(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Sets the only value: in the place of the first, or at the end.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let value = value.into();
        let place = self.0.iter().position(|(found, _)| found == name);
        match place {
            Some(place) => {
                self.0[place].1 = value;
                let mut seen = 0;
                self.0.retain(|(found, _)| {
                    seen += usize::from(found == name);
                    found != name || seen == 1
                });
            }
            None => self.add(name, value),
        }
    }

    /// Sets the only value, at the end of the map: so Envoy replaces a header, except for the pseudo headers, which keep
    /// their places (`stream::header_changes`).
    pub fn replace(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        if name.starts_with(':') {
            return self.set(name, value);
        }
        self.remove(name);
        self.add(name, value);
    }

    /// Takes out all values of `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(found, _)| found != name);
    }

    /// What Envoy counts as the map's size: names and values.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// A number that another map has only by accident: it goes into the hash of a run.
    pub(crate) fn digest(&self) -> u64 {
        let of_pair = |seed, (name, value): &(String, Vec<u8>)| {
            xxh3_64_with_seed(value, xxh3_64_with_seed(name.as_bytes(), seed))
        };
        self.0.iter().fold(0, of_pair)
    }

    /// The number of pairs, as callbacks get it.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
    }
}

/// A whole request, as it goes out on a wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Pseudo headers included.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
    /// Empty if there are none.
    pub trailers: Headers,
}

/// A whole response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// `:status` included.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
    /// Empty if there are none.
    pub trailers: Headers,
}

impl Response {
    /// A response with this status and no more.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { headers: Headers::of(&[(":status", &status.to_string())]), ..Self::default() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status; 0 if there is none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.headers.text(":status").and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_a_repeated_header_leaves_one_in_the_place_of_the_first() {
        let mut headers = Headers::of(&[("a", "1"), ("b", "2"), ("a", "3")]);
        headers.set("a", "9");
        assert_eq!(headers, Headers::of(&[("a", "9"), ("b", "2")]));
    }
}
