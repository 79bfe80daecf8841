//! The messages: each is a pure function of its number, so the receiver can tell byte by byte what must arrive.
//!
//! | number | method | destination | body |
//! | --- | --- | --- | --- |
//! | 4 of 5 | POST, PUT, DELETE in turn | orders | 0 B to 256 KiB of pseudo-random bytes; DELETE none |
//! | 1 of 5 | the same | payments | the same |

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

/// Carries the number, so that an arrival can be looked up in the books.
pub const NUMBER_HEADER: HeaderName = HeaderName::from_static("x-demo-number");
/// Sent twice in every message: repetition has to survive.
pub const TAG_HEADER: HeaderName = HeaderName::from_static("x-demo-tag");
/// Not valid UTF-8 in every message: values are bytes, not text.
pub const BYTES_HEADER: HeaderName = HeaderName::from_static("x-demo-bytes");
/// The authority of every message.
pub const AUTHORITY: &str = "shop.example";

/// Sizes in bytes, in turn: mostly what an event weighs, the edges 0 and 1, and capture.max_body (256 KiB).
const BODY_SIZES: [usize; 20] =
    [180, 0, 920, 1, 410, 2_048, 300, 16_384, 77, 640, 1_024, 250, 65_536, 512, 33, 4_096, 128, 900, 262_144, 350];

/// Who gets a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Goes away during the demo.
    Orders,
    /// Stays.
    Payments,
}

impl Destination {
    /// The cluster's name in the bootstrap.
    pub const fn cluster(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payments => "payments",
        }
    }
}

/// One message, as the sender sends it and the receiver must get it.
pub struct Message {
    /// Its method.
    pub method: Method,
    /// Its path with the query; the first segment chooses the destination.
    pub path: String,
    /// Every header that the sender sets, but for the framing.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Message {
    /// The message with this number.
    pub fn numbered(number: usize) -> Self {
        let destination = if number % 5 == 4 { Destination::Payments } else { Destination::Orders };
        let method = [Method::POST, Method::PUT, Method::DELETE][number % 3].clone();
        let body = if method == Method::DELETE { Bytes::new() } else { body(number) };
        let path = format!("/{}/{number}?copy=%2F{number}", destination.cluster());
        Self { method, path, headers: headers(number), body }
    }
}

fn headers(number: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append(NUMBER_HEADER, HeaderValue::from(number));
    headers.append(TAG_HEADER, HeaderValue::from_static("first"));
    headers.append(TAG_HEADER, HeaderValue::from(number % 7));
    let raw = [b'a', 0xff, 0xe9, b'a' + (number % 26) as u8];
    headers.append(BYTES_HEADER, HeaderValue::from_bytes(&raw).expect("bytes above 0x7f are allowed in a value"));
    headers
}

/// Pseudo-random bytes by splitmix64 (Steele, Lea, Flood 2014), seeded with the number.
fn body(number: usize) -> Bytes {
    let length = BODY_SIZES[number % BODY_SIZES.len()];
    let mut state = number as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}
