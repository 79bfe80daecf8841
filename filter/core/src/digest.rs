//! What two requests have in common, as numbers: the identity of an idempotency key, the content of a request, the line
//! of an ordering key.
//!
//! | digest | of | bits |
//! | --- | --- | --- |
//! | identity | `idempotency.header` and `idempotency.scope_headers`, all values in order | 128 |
//! | content | destination, authority, method, path, content-type, body, as the sender sent them | 128 |
//! | line | destination and `redelivery.order_key_header`, all values in order | 64 |
//!
//! SHA-256, cut: nobody can make two that are equal, so a stranger cannot get at another's key. Every part has its length
//! in front, so that no two requests become the same text. Never keeps what it has read: a credential that is never stored
//! leaves nothing behind but this.

use crate::config::Idempotency;
use crate::headers::HeaderList;
use crate::units::ClusterName;
use sha2::{Digest as _, Sha256};

/// Which idempotency key, in which scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity(pub [u8; 16]);

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(pub [u8; 16]);

/// Which messages are delivered one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineKey(pub u64);

/// An idempotency key and what it was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The key in its scope.
    pub identity: Identity,
    /// What it was used for.
    pub content: Content,
}

/// The identity of a request's key; `None` if it has no key, or an empty one.
#[must_use]
pub fn identity(arrived: &HeaderList, idempotency: &Idempotency) -> Option<Identity> {
    arrived.first(&idempotency.header).filter(|key| !key.is_empty())?;
    let mut parts = Parts::of(b"identity");
    parts.field(arrived, &idempotency.header);
    for name in &idempotency.scope_headers {
        parts.field(arrived, name);
    }
    Some(Identity(parts.finish()))
}

/// The content of a request.
#[must_use]
pub fn content(arrived: &HeaderList, cluster: &ClusterName, body: &[u8]) -> Content {
    let mut parts = Parts::of(b"content");
    parts.part(cluster.0.as_bytes());
    for name in [":authority", ":method", ":path", "content-type"] {
        parts.field(arrived, name);
    }
    parts.part(body);
    Content(parts.finish())
}

/// The line that a request belongs to; `None` if it has no ordering key, or an empty one.
#[must_use]
pub fn line(arrived: &HeaderList, cluster: &ClusterName, key_header: &str) -> Option<LineKey> {
    arrived.first(key_header).filter(|key| !key.is_empty())?;
    let mut parts = Parts::of(b"line");
    parts.part(cluster.0.as_bytes());
    parts.field(arrived, key_header);
    let [a, b, c, d, e, f, g, h, ..] = parts.finish();
    Some(LineKey(u64::from_le_bytes([a, b, c, d, e, f, g, h])))
}

/// A text of parts that cannot be mistaken for other parts.
struct Parts(Sha256);

impl Parts {
    fn of(kind: &[u8]) -> Self {
        let mut parts = Self(Sha256::new());
        parts.part(kind);
        parts
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(bytes);
    }

    /// All values of a header, their number first.
    fn field(&mut self, headers: &HeaderList, name: &str) {
        let count = headers.all(name).count();
        self.0.update(u64::try_from(count).unwrap_or(u64::MAX).to_le_bytes());
        for value in headers.all(name) {
            self.part(value);
        }
    }

    fn finish(self) -> [u8; 16] {
        let whole: [u8; 32] = self.0.finalize().into();
        whole.first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn headers(pairs: &[(&str, &str)]) -> HeaderList {
        pairs.iter().copied().collect()
    }

    fn idempotency() -> Idempotency {
        crate::config::parse(b"{}").unwrap().idempotency
    }

    fn cluster(name: &str) -> ClusterName {
        ClusterName(name.to_owned())
    }

    #[test]
    fn an_identity_is_the_key_and_its_scope_and_nothing_else() {
        let of = |pairs: &[(&str, &str)]| identity(&headers(pairs), &idempotency());
        let (key, who) = (("idempotency-key", "k"), ("authorization", "a"));
        assert_eq!(of(&[key, who, ("x-other", "1")]), of(&[who, ("x-other", "2"), key]));
        assert_eq!((of(&[]), of(&[("idempotency-key", "")])), (None, None));
        let all = [
            of(&[key, who]),
            of(&[key]),
            of(&[key, ("authorization", "b")]),
            of(&[key, ("authorization", "")]),
            of(&[key, who, who]),
            of(&[("idempotency-key", "ka"), ("authorization", "")]),
            of(&[key, key, who]),
        ];
        let different: BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }

    #[test]
    fn every_part_of_the_content_counts() {
        let line = |path: &str, kind: &str, body: &str, to: &str| {
            let pairs = [(":authority", "h"), (":method", "POST"), (":path", path), ("content-type", kind)];
            content(&headers(&pairs), &cluster(to), body.as_bytes()).0
        };
        let all = [
            line("/a", "t", "b", "c"),
            line("/b", "t", "b", "c"),
            line("/a", "u", "b", "c"),
            line("/a", "t", "bb", "c"),
            line("/a", "t", "b", "d"),
            line("/a", "tb", "", "c"),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all[0], line("/a", "t", "b", "c"));
    }

    #[test]
    fn a_line_belongs_to_one_key_of_one_destination() {
        let of = |key: &str, to: &str| line(&headers(&[("x-ordering-key", key)]), &cluster(to), "x-ordering-key");
        assert_eq!(of("a", "orders"), of("a", "orders"));
        assert_eq!(BTreeSet::from([of("a", "orders"), of("b", "orders"), of("a", "stock")]).len(), 3);
        assert_eq!((of("", "orders"), line(&headers(&[]), &cluster("orders"), "x-ordering-key")), (None, None));
    }
}
