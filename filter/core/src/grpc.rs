//! Unary gRPC calls (`match.grpc: unary`), and what differs for them from any other request (CONTRACT sections 4 and 5).
//!
//! | | any other request | a unary call |
//! | --- | --- | --- |
//! | it is one if | | its `content-type` is `application/grpc`, or that with `+` or `;` behind it |
//! | it is whole | at the end of the stream | there, and if it is one length-prefixed message and nothing else |
//! | it failed | by `:status` | by `grpc-status`, in the headers or, before any message, in the trailers |
//! | the sender of a stored one gets | 202 | the original `grpc-status`, with our headers beside it |
//! | a redelivery | | has `te: trailers` and a `grpc-timeout` of its own: the sender's spanned its own attempt |
//! | it is delivered | by 2xx | by `grpc-status: 0` |
//!
//! A call that streams passes as soon as a second message begins, or at `capture.max_hold`. `application/grpc-web` is no
//! call to us: its status is in the body. Reads bytes and headers; knows no host.

use crate::capture::EndOfStream;
use crate::units::Millis;

/// Where the end of a call says how it went.
pub const GRPC_STATUS: &str = "grpc-status";

/// What a message speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// A gRPC call.
    Grpc,
}

impl Protocol {
    /// By the content type.
    #[must_use]
    pub fn of(content_type: Option<&[u8]>) -> Self {
        match content_type.and_then(|value| value.strip_prefix(b"application/grpc")).map(<[u8]>::first) {
            Some(None | Some(b'+' | b';')) => Self::Grpc,
            Some(Some(_)) | None => Self::Http,
        }
    }
}

/// Whether a body can be that of a unary call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// It can, or at its end: it is.
    Possible,
    /// No message, more than one, or a broken one.
    Refuted,
}

/// Judges what has come of a body: a byte that says whether it is compressed, a length of four bytes, the message
/// (gRPC over HTTP/2, "Length-Prefixed-Message").
#[must_use]
pub fn unary(body: &[u8], end: EndOfStream) -> Unary {
    let so_far = match end {
        EndOfStream::Yes => Unary::Refuted,
        EndOfStream::No => Unary::Possible,
    };
    let Some(([compressed, length @ ..], message)) = body.split_first_chunk::<5>() else { return so_far };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    match message.len().cmp(&length) {
        _ if *compressed > 1 => Unary::Refuted,
        std::cmp::Ordering::Less => so_far,
        std::cmp::Ordering::Equal => Unary::Possible,
        std::cmp::Ordering::Greater => Unary::Refuted,
    }
}

/// A deadline has at most eight digits (gRPC over HTTP/2, "TimeoutValue").
const MILLIS_MAX: u64 = 99_999_999;

/// The value of `grpc-timeout` for one attempt: milliseconds, or whole seconds where those have too many digits.
#[must_use]
pub fn deadline(timeout: Millis) -> String {
    match timeout.0 {
        millis @ 0..=MILLIS_MAX => format!("{millis}m"),
        millis => format!("{}S", (millis / 1_000).min(MILLIS_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", Protocol::Grpc),
            ("application/grpc+proto", Protocol::Grpc),
            ("application/grpc;v=1", Protocol::Grpc),
            ("application/grpc-web", Protocol::Http),
            ("application/grpc-web+proto", Protocol::Http),
            ("application/json", Protocol::Http),
            ("", Protocol::Http),
        ] {
            assert_eq!(Protocol::of(Some(value.as_bytes())), expected, "{value}");
        }
        assert_eq!(Protocol::of(None), Protocol::Http);
    }

    #[test]
    fn a_unary_call_is_one_message_and_nothing_else() {
        use EndOfStream::{No, Yes};
        use Unary::{Possible, Refuted};
        let cases: [(&[u8], Unary, Unary); 9] = [
            (b"", Possible, Refuted),
            (b"\0\0\0", Possible, Refuted),
            (b"\0\0\0\0\0", Possible, Possible),
            (b"\x01\0\0\0\x02a", Possible, Refuted),
            (b"\x01\0\0\0\x02ab", Possible, Possible),
            (b"\0\0\0\0\x02abc", Refuted, Refuted),
            (b"\0\0\0\0\x01a\0\0\0\0\x01b", Refuted, Refuted),
            (b"\x02\0\0\0\x01a", Refuted, Refuted),
            (b"\0\xff\xff\xff\xffa", Possible, Refuted),
        ];
        for (body, growing, whole) in cases {
            assert_eq!((unary(body, No), unary(body, Yes)), (growing, whole), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn a_deadline_has_at_most_eight_digits() {
        for (timeout, expected) in [
            (1, "1m"),
            (15_000, "15000m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (2_147_483_647, "2147483S"),
        ] {
            assert_eq!(deadline(Millis(timeout)), expected);
        }
    }
}
