//! What every request that leaves must keep, written down a second time and from the standards (RFC 9110, RFC 9112, the
//! host's limits), so that the core's own tables are not their only witness.

use redeliver_core::headers::HeaderList;
use std::collections::BTreeSet;

/// Headers between two neighbours (RFC 9110 7.6.1, RFC 9113 8.2.2), framing, and those that Envoy or we make anew.
const NEVER_REPLAYED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const PSEUDO: [&str; 4] = [":method", ":scheme", ":authority", ":path"];

/// A map of the host takes 1,024 pairs and 1 MiB: a count of 4 bytes, and 8 of lengths and 2 NULs around each pair.
const PAIRS_MAX: usize = 1_024;
const BYTES_MAX: usize = 1024 * 1024;

/// Whether a header of a sender has to be left out of a redelivery, `connection` options apart.
pub(crate) fn is_never_replayed(name: &str) -> bool {
    let is_ours_or_envoys = name.starts_with("x-envoy-") || name.starts_with("x-redeliver-");
    name.starts_with(':') || is_ours_or_envoys || NEVER_REPLAYED.contains(&name)
}

/// The headers that `connection` names, in lower case; what is not UTF-8 is read as a header's name is.
pub(crate) fn connection_options(headers: &HeaderList) -> BTreeSet<String> {
    let options = headers.all("connection").flat_map(|value| value.split(|byte| *byte == b','));
    options.map(|option| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase()).collect()
}

/// A token of RFC 9110 5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    let is_separator = |byte: &u8| b"\"(),/:;<=>?@[\\]{}".contains(byte);
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_graphic() && !is_separator(byte))
}

/// A part of a request line: neither empty nor able to end it or to start another part.
pub(crate) fn is_part_of_line(bytes: &[u8]) -> bool {
    !bytes.is_empty() && !bytes.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
}

/// A field's value: no control byte but the tab.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
}

/// Panics unless `headers` can be put on the wire as exactly one request.
pub(crate) fn assert_is_one_request(headers: &HeaderList) {
    let pairs: Vec<_> = headers.iter().collect();
    for (place, name) in PSEUDO.into_iter().enumerate() {
        assert_eq!(pairs.get(place).map(|(name, _)| *name), Some(name.as_bytes()), "in its place: {headers:?}");
        assert_eq!(headers.all(name).count(), 1, "{name} once: {headers:?}");
        assert!(is_part_of_line(headers.first(name).unwrap_or_default()), "{name}: {headers:?}");
    }
    assert!(is_token(headers.first(":method").unwrap_or_default()), "{headers:?}");
    for (name, value) in pairs.iter().skip(PSEUDO.len()) {
        assert!(is_token(name) && is_value(value), "{}: {headers:?}", name.escape_ascii());
    }
    let bytes = headers.serialised().len();
    assert!(pairs.len() <= PAIRS_MAX && bytes <= BYTES_MAX, "{} pairs, {bytes} bytes", pairs.len());
}

/// `application/grpc`, alone or with a codec or a parameter; gRPC-Web is something else.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type == b"application/grpc"
        || content_type.starts_with(b"application/grpc+")
        || content_type.starts_with(b"application/grpc;")
}
