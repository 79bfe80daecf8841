//! What of a request is kept, and what a redelivery carries.
//!
//! | header | stored | sent on redelivery |
//! | --- | --- | --- |
//! | `:method` `:scheme` `:authority` `:path` | yes, once each | rebuilt from the stored ones |
//! | hop-by-hop (RFC 9110 7.6.1, and those that `connection` names) | no | no |
//! | framing: `content-length`, `transfer-encoding` | no | rebuilt by Envoy from the body |
//! | `x-envoy-*` (they steer Envoy's router) | no | Envoy's own |
//! | `x-redeliver-*` | no | ours |
//! | `capture.drop_headers` | no | no |
//! | everything else | yes, in order, with repetition, byte for byte | the same |
//!
//! Nothing here reads or writes a host map; a [`HeaderList`] is what one read of it gave.

pub use crate::header_list::HeaderList;
use std::fmt;

/// Header names that only we may set (CONTRACT section 4).
pub const OWN_HEADERS: [&str; 5] = [HEADER_ID, HEADER_ATTEMPT, HEADER_STATUS, HEADER_HOPS, HEADER_PASS];
/// What they all begin with, in two pieces: a name is compared with them by two instructions, and by a call with the whole.
const OWN_PREFIX: (&[u8; 8], &[u8; 4]) = (b"x-redeli", b"ver-");
/// The message's id.
pub const HEADER_ID: &str = "x-redeliver-id";
/// The number of this redelivery: 1, 2, ...
pub const HEADER_ATTEMPT: &str = "x-redeliver-attempt";
/// What became of a message, told to its sender.
pub const HEADER_STATUS: &str = "x-redeliver-status";
/// How many filters of ours the message has been stored by.
pub const HEADER_HOPS: &str = "x-redeliver-hops";
/// What a redelivery shows a listener that it goes through (`redelivery.through`): a secret of the store, by which the
/// filter there knows that the message is stored already.
pub const HEADER_PASS: &str = "x-redeliver-pass";

/// Whether a header of this name is for us alone to set.
#[must_use]
pub fn is_own(name: &[u8]) -> bool {
    let Some((start, rest)) = name.split_first_chunk() else { return false };
    start == OWN_PREFIX.0 && rest.first_chunk() == Some(OWN_PREFIX.1)
}

/// Those of our header names that `headers` carries: a forgery, since we are the only ones to set them.
pub fn forged(headers: &HeaderList) -> impl Iterator<Item = &'static str> {
    OWN_HEADERS.into_iter().filter(move |name| headers.first(name).is_some())
}

/// Headers between two neighbours, never handed on (RFC 9110 7.6.1; `proxy-authorization` and `http2-settings` speak to
/// the next hop only).
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
    "content-length",
];

/// The host hands a guest at most 1,024 pairs; our own headers and the four pseudo headers need room beside them.
pub const FIELDS_MAX: usize = 1_000;
/// The host's limit for a serialised header map is 1 MiB, nine bytes of it framing per pair; beyond it a dispatch sees an
/// empty map. 960 KiB leaves room for what a redelivery adds.
pub const FIELD_BYTES_MAX: usize = 960 * 1024;

/// One form of a request: as the sender sent it, or as the router made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `:method`.
    pub method: Vec<u8>,
    /// `:scheme`, `http` if there was none or an empty one.
    pub scheme: Vec<u8>,
    /// `:authority`.
    pub authority: Vec<u8>,
    /// `:path`, with its query.
    pub path: Vec<u8>,
    /// All other headers that are kept.
    pub fields: HeaderList,
}

/// Why a request's headers cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// A pseudo header is missing, doubled or empty.
    Pseudo,
    /// The method is not a token (RFC 9110 5.6.2): it would split the request line.
    Method,
    /// The path holds a space or a control byte: it would split the request line.
    Path,
    /// CR, LF, NUL or another control byte in a name or value: Envoy refuses to send it.
    Field,
    /// More headers, or longer ones, than the host can be handed.
    TooMany,
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pseudo => "a pseudo header is missing or doubled",
            Self::Method => "the method is not a token",
            Self::Path => "the path holds a space or a control byte",
            Self::Field => "a header holds a control byte",
            Self::TooMany => "more headers than Envoy can be handed",
        })
    }
}

impl Envelope {
    /// What is kept of `headers` by the table above.
    ///
    /// # Errors
    /// The first reason why this request could not be sent again.
    pub fn capture(headers: &HeaderList, drop_headers: &[String]) -> Result<Self, Unsendable> {
        Kept::of(headers, drop_headers)?.to_envelope()
    }

    /// What is kept of `headers`, another form of the same request; `None` if it is the same as this, which then need not be
    /// put together a second time: most routes change nothing that is kept.
    ///
    /// # Errors
    /// As [`Envelope::capture`].
    pub fn other(&self, headers: &HeaderList, drop_headers: &[String]) -> Result<Option<Self>, Unsendable> {
        // What is the same needs no check of its own.
        debug_assert!(self.check().is_ok(), "an envelope that was captured or read back");
        let kept = Kept::of(headers, drop_headers)?;
        if kept.is(self) { Ok(None) } else { kept.to_envelope().map(Some) }
    }

    /// Whether this can be put on the wire: exactly three parts in the request line, no control byte anywhere.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Unsendable> {
        if [&self.method, &self.scheme, &self.authority, &self.path].into_iter().any(Vec::is_empty) {
            return Err(Unsendable::Pseudo);
        }
        if !self.method.iter().all(|byte| is_token_byte(*byte)) {
            return Err(Unsendable::Method);
        }
        if !self.path.iter().chain(&self.authority).chain(&self.scheme).all(|byte| *byte > b' ' && *byte != 0x7f) {
            return Err(Unsendable::Path);
        }
        if !self.fields.iter().all(|(name, value)| is_field(name, value)) {
            return Err(Unsendable::Field);
        }
        if self.fields.iter().count() > FIELDS_MAX || self.byte_count() > FIELD_BYTES_MAX {
            return Err(Unsendable::TooMany);
        }
        Ok(())
    }

    /// The bytes of all names and values.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        let line = [&self.method, &self.scheme, &self.authority, &self.path].into_iter().map(Vec::len);
        let fields = self.fields.iter().map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(9));
        line.chain(fields).fold(0, usize::saturating_add)
    }

    /// The first value of the field `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.first(name)
    }
}

/// What is kept of a request's headers, in the place where it stands.
struct Kept<'a> {
    method: &'a [u8],
    scheme: &'a [u8],
    authority: &'a [u8],
    path: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Kept<'a> {
    fn of(headers: &'a HeaderList, drop_headers: &[String]) -> Result<Self, Unsendable> {
        let named: Vec<String> = headers.all("connection").flat_map(connection_options).collect();
        let is_listed = |name: &[u8]| named.iter().chain(drop_headers).any(|other| other.as_bytes() == name);
        let (mut method, mut scheme, mut authority, mut path) = (None, None, None, None);
        let mut fields = headers.room(0);
        for (name, value) in headers {
            match name {
                b":method" => once(&mut method, value)?,
                b":scheme" => scheme = scheme.or(Some(value)),
                b":authority" => once(&mut authority, value)?,
                b":path" => once(&mut path, value)?,
                _ if is_never_kept(name) || is_listed(name) => {}
                _ => fields.push((name, value)),
            }
        }
        let (Some(method), Some(authority), Some(path)) = (method, authority, path) else {
            return Err(Unsendable::Pseudo);
        };
        let scheme = scheme.filter(|scheme| !scheme.is_empty()).unwrap_or(b"http");
        Ok(Self { method, scheme, authority, path, fields })
    }

    fn is(&self, envelope: &Envelope) -> bool {
        let Envelope { method, scheme, authority, path, fields } = envelope;
        [self.method, self.scheme, self.authority, self.path] == [method, scheme, authority, path].map(Vec::as_slice)
            && self.fields.iter().copied().eq(fields)
    }

    fn to_envelope(&self) -> Result<Envelope, Unsendable> {
        let envelope = Envelope {
            method: self.method.to_vec(),
            scheme: self.scheme.to_vec(),
            authority: self.authority.to_vec(),
            path: self.path.to_vec(),
            fields: HeaderList::of(&self.fields),
        };
        envelope.check()?;
        Ok(envelope)
    }
}

/// Keeps a pseudo header that there may be once.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Result<(), Unsendable> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Unsendable::Pseudo),
    }
}

/// Whether a header of this name is dropped from every message.
#[must_use]
pub fn is_never_kept(name: &[u8]) -> bool {
    name.starts_with(b":")
        || name == b"host"
        || name.starts_with(b"x-envoy-")
        || is_own(name)
        || HOP_BY_HOP.iter().any(|other| other.as_bytes() == name)
}

fn connection_options(value: &[u8]) -> impl Iterator<Item = String> {
    value.split(|byte| *byte == b',').map(|part| String::from_utf8_lossy(part.trim_ascii()).to_ascii_lowercase())
}

fn is_field(name: &[u8], value: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| is_token_byte(*byte))
        && value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

/// `tchar` of RFC 9110 5.6.2.
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn list(fields: &[(&str, &[u8])]) -> HeaderList {
        let pseudo: [(&str, &[u8]); 3] = [(":method", b"POST"), (":authority", b"orders"), (":path", b"/a?b=c")];
        pseudo.iter().chain(fields).copied().collect()
    }

    fn kept(fields: &[(&str, &[u8])]) -> HeaderList {
        Envelope::capture(&list(fields), &["authorization".to_owned()]).unwrap().fields
    }

    #[test]
    fn order_repetition_and_bytes_are_kept() {
        let fields: [(&str, &[u8]); 4] = [("b", b"1"), ("a", b"\xff\xe9"), ("b", b"2"), ("cookie", b"")];
        assert_eq!(kept(&fields), fields.into_iter().collect());
    }

    #[test]
    fn framing_hop_by_hop_steering_and_forged_headers_are_dropped() {
        for name in HOP_BY_HOP.into_iter().chain(OWN_HEADERS).chain(["host", "x-envoy-retry-on", "authorization"]) {
            assert_eq!(kept(&[(name, b"1")]), HeaderList::of(&[]), "{name}");
        }
        let named: [(&str, &[u8]); 3] = [("connection", b"close, X-Secret"), ("x-secret", b"1"), ("x-open", b"2")];
        assert_eq!(kept(&named), HeaderList::of(&[(b"x-open", b"2")]));
    }

    #[test]
    fn what_cannot_be_sent_again_is_refused() {
        type Change = fn(&mut Envelope);
        let cases: [(&str, Change, Unsendable); 10] = [
            ("no method", |e| e.method.clear(), Unsendable::Pseudo),
            ("no scheme", |e| e.scheme.clear(), Unsendable::Pseudo),
            ("space in method", |e| e.method = b"PO ST".to_vec(), Unsendable::Method),
            ("space in path", |e| e.path = b"/a b".to_vec(), Unsendable::Path),
            ("newline in authority", |e| e.authority = b"a\nb".to_vec(), Unsendable::Path),
            ("newline in value", |e| e.fields = HeaderList::of(&[(b"a", b"1\r\n2")]), Unsendable::Field),
            ("space in name", |e| e.fields = HeaderList::of(&[(b"a b", b"1")]), Unsendable::Field),
            ("no UTF-8 in name", |e| e.fields = HeaderList::of(&[(b"\xff", b"1")]), Unsendable::Field),
            ("too many", |e| e.fields = HeaderList::of(&[(&b"a"[..], &b""[..]); FIELDS_MAX + 1]), Unsendable::TooMany),
            ("too long", |e| e.fields = HeaderList::of(&[(b"a", &[b'x'; FIELD_BYTES_MAX])]), Unsendable::TooMany),
        ];
        for (story, change, expected) in cases {
            let mut envelope = Envelope::capture(&list(&[]), &[]).unwrap();
            change(&mut envelope);
            assert_eq!(envelope.check(), Err(expected), "{story}");
        }
    }

    #[test]
    fn another_form_that_keeps_the_same_is_none() {
        let dropped = ["authorization".to_owned()];
        let arrived = list(&[("a", b"1"), ("authorization", b"x"), ("b", b"2")]);
        let envelope = Envelope::capture(&arrived, &dropped).unwrap();
        let other = |fields: &[(&str, &[u8])]| envelope.other(&list(fields), &dropped);
        for same in [
            &[("a", &b"1"[..]), ("authorization", b"y"), ("b", b"2")][..],
            &[(":scheme", b"http"), ("x-envoy-attempt-count", b"1"), ("a", b"1"), ("b", b"2"), ("te", b"trailers")],
            &[("connection", b"x-hop"), ("a", b"1"), ("x-hop", b"1"), ("b", b"2")],
        ] {
            assert_eq!(other(same), Ok(None), "{same:?}");
        }
        for changed in [
            &[(":scheme", &b"https"[..]), ("a", b"1"), ("b", b"2")][..],
            &[("a", b"1")],
            &[("a", b"1"), ("b", b"3")],
            &[("b", b"2"), ("a", b"1")],
            &[("a", b"1"), ("b", b"2"), ("b", b"2")],
        ] {
            assert_eq!(other(changed), Envelope::capture(&list(changed), &dropped).map(Some), "{changed:?}");
        }
        for name in [":method", ":authority", ":path"] {
            let changed: HeaderList = list(&[("a", b"1"), ("b", b"2")])
                .iter()
                .map(|(found, value)| (found, if found == name.as_bytes() { b"other" } else { value }))
                .collect();
            let found = envelope.other(&changed, &dropped);
            assert_ne!(found, Ok(None), "{name}");
            assert_eq!(found, Envelope::capture(&changed, &dropped).map(Some), "{name}");
        }
        assert_eq!(other(&[(":path", b"/evil")]), Err(Unsendable::Pseudo));
        assert_eq!(other(&[("a", b"1\n2")]), Err(Unsendable::Field));
        assert_eq!(envelope.other(&HeaderList::default(), &[]), Err(Unsendable::Pseudo), "the host has let go of it");
    }

    #[test]
    fn of_schemes_the_first_counts_and_an_empty_one_is_none() {
        let cases: [(&[&[u8]], &[u8]); 5] = [
            (&[], b"http"),
            (&[b""], b"http"),
            (&[b"https"], b"https"),
            (&[b"https", b"http"], b"https"),
            (&[b"", b"https"], b"http"),
        ];
        for (schemes, expected) in cases {
            let schemes: Vec<_> = schemes.iter().map(|scheme| (":scheme", *scheme)).collect();
            let captured = Envelope::capture(&list(&schemes), &[]).unwrap();
            assert_eq!(captured.scheme, expected, "{schemes:?}");
        }
    }

    #[test]
    fn a_doubled_empty_or_missing_pseudo_header_is_refused() {
        let envelope = Envelope::capture(&list(&[]), &[]).unwrap();
        for name in [":method", ":authority", ":path"] {
            for values in [&[][..], &[""], &["", "/a"], &["/a", ""], &["/a", "/a"]] {
                let others = list(&[]);
                let others = others.iter().filter(|(found, _)| *found != name.as_bytes());
                let changed: HeaderList =
                    others.chain(values.iter().map(|value| (name.as_bytes(), value.as_bytes()))).collect();
                let refused = Err(Unsendable::Pseudo);
                assert_eq!(Envelope::capture(&changed, &[]), refused, "{name} {values:?}");
                assert_eq!(envelope.other(&changed, &[]), refused.map(Some), "{name} {values:?}");
            }
        }
    }
}
