//! What every request and every answer is asked for, found in one walk over its headers.
//!
//! | asked for | of | decides |
//! | --- | --- | --- |
//! | `:method` `:path` `content-type` `upgrade` `:protocol` | a request | whether it is protected (`protect.rs`) |
//! | `content-type` `content-length` | a request | what it announces (`capture.rs`) |
//! | `:status` `grpc-status` | an answer | whether it is a failure at first sight |
//! | any `x-redeliver-*` | both | whether somebody speaks in our name (`headers.rs`, `neighbours.rs`, `pass.rs`) |
//!
//! These are the headers that a request costs a look for although nothing comes of it. Whatever is asked for more rarely
//! is looked up by name when it is wanted.

use crate::grpc::Protocol;
use crate::headers::{HeaderList, is_own};
use crate::units::ByteCount;

/// The first values of these headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance<'a> {
    /// `:method`.
    pub method: Option<&'a [u8]>,
    /// `:path`.
    pub path: Option<&'a [u8]>,
    /// `content-type`.
    pub content_type: Option<&'a [u8]>,
    /// `content-length`.
    pub content_length: Option<&'a [u8]>,
    /// `upgrade`, or `:protocol` of an extended CONNECT (RFC 8441): such a stream has no end.
    pub upgrade: Option<&'a [u8]>,
    /// `:status`.
    pub status: Option<&'a [u8]>,
    /// `grpc-status`.
    pub grpc_status: Option<&'a [u8]>,
    /// The first of the headers that only we may set.
    pub own: Option<&'a [u8]>,
}

impl<'a> Glance<'a> {
    /// At these headers.
    #[must_use]
    pub fn at(headers: &'a HeaderList) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let place = match name {
                b":method" => &mut found.method,
                b":path" => &mut found.path,
                b"content-type" => &mut found.content_type,
                b"content-length" => &mut found.content_length,
                b"upgrade" | b":protocol" => &mut found.upgrade,
                b":status" => &mut found.status,
                b"grpc-status" => &mut found.grpc_status,
                _ if is_own(name) => &mut found.own,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        found
    }

    /// What the sender of the request speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol::of(self.content_type)
    }

    /// The length that the sender announced, if it can be read (RFC 9110 8.6).
    #[must_use]
    pub fn length(&self) -> Option<ByteCount> {
        self.content_length.and_then(digits).map(ByteCount)
    }

    /// The status of the answer, if it can be read.
    #[must_use]
    pub fn status_code(&self) -> Option<u16> {
        self.status.and_then(digits).and_then(|status| status.try_into().ok())
    }

    /// The status of the call, if the answer says it.
    #[must_use]
    pub fn grpc_status_code(&self) -> Option<u16> {
        self.grpc_status.and_then(digits).and_then(|status| status.try_into().ok())
    }
}

/// Digits that every number of 64 bits has room for: no step can overflow, which WebAssembly would have to look for with
/// a multiplication of 128 bits.
const DIGITS_MAX: usize = 19;

/// A number that is digits and nothing else, as many as there is room for; `parse` takes a sign too.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > DIGITS_MAX {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        byte.is_ascii_digit().then(|| number.wrapping_mul(10).wrapping_add(u64::from(byte & 0xf)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_first_value_of_each_is_found_wherever_it_stands() {
        let names = [
            ":method",
            ":path",
            "content-type",
            "content-length",
            "upgrade",
            ":status",
            "grpc-status",
            "x-redeliver-x",
        ];
        let others = ["method", "x-redeliver", "x-content-type", ":pathes", ""];
        let pairs = others.iter().chain(&names).map(|name| (*name, *name)).chain(names.map(|name| (name, "again")));
        let headers: HeaderList = pairs.collect();
        let value = |name: &'static str| Some(name.as_bytes());
        let expected = Glance {
            method: value(":method"),
            path: value(":path"),
            content_type: value("content-type"),
            content_length: value("content-length"),
            upgrade: value("upgrade"),
            status: value(":status"),
            grpc_status: value("grpc-status"),
            own: value("x-redeliver-x"),
        };
        assert_eq!(Glance::at(&headers), expected);
        assert_eq!(Glance::at(&HeaderList::default()), Glance::default());
        let connect = HeaderList::of(&[(b":protocol", b"websocket")]);
        assert_eq!(Glance::at(&connect).upgrade, Some(&b"websocket"[..]));
    }

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        let cases = [("0", Some(0)), ("007", Some(7)), ("9999999999999999999", Some(9_999_999_999_999_999_999))];
        let faulty = ["", "+1", "-1", " 1", "1 ", "1,1", "0x1", "10000000000000000000", "1\u{0661}"];
        for (text, expected) in cases.into_iter().chain(faulty.map(|text| (text, None))) {
            assert_eq!(digits(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_status_that_is_none_is_not_read_as_one() {
        let read = |text: &str| Glance { status: Some(text.as_bytes()), ..Glance::default() }.status_code();
        assert_eq!([read("200"), read("65535"), read("65536"), read("2oo")], [Some(200), Some(65535), None, None]);
    }
}
