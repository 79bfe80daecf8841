//! What senders send: message number `n` of a seed is always the same request, so nothing of it need be stored.
//!
//! The number stands at the end of its path, which no route rewrites; so a receiver knows what it has got, and can tell
//! whether it is whole.

use crate::receiving::calls;
use crate::retries::TRY;
use simvoy::Headers;
use std::time::Duration;

/// A destination of the history: cluster `d<n>`, paths `/d<n>/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination(pub u8);

impl Destination {
    /// Its cluster.
    #[must_use]
    pub fn cluster(self) -> String {
        format!("d{}", self.0)
    }

    /// The destination of a path that some sender sent.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Self::of(path.strip_prefix('/')?.split('/').next()?)
    }

    /// The destination of a cluster.
    #[must_use]
    pub fn of(cluster: &str) -> Option<Self> {
        cluster.strip_prefix('d')?.parse().ok().map(Self)
    }
}

/// The number of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub u32);

/// How a sender goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// All at once.
    Whole,
    /// In so many pieces, with a pause between two.
    Pieces(u32, Duration),
    /// As `Pieces`, and then trailers.
    Trailers(u32, Duration),
    /// As `Pieces`, and closes before the last one.
    HangsUp(u32, Duration),
}

/// What is wrong with a message: nothing that its sender could see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Nothing.
    None,
    /// A receiver that meets it closes the connection, every time.
    Breaks,
    /// Its connection never comes about, every time.
    Unreachable,
    /// Its receiver says 503, every time.
    Busy,
}

/// How a head gets to the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Through the connection manager, which takes framing and hop-by-hop headers out.
    FromSender,
    /// From another filter in front, which put such headers in again.
    FromFilter,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which.
    pub number: Number,
    /// Where to.
    pub destination: Destination,
    /// As sent.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
    /// How it comes.
    pub manner: Manner,
    /// How its head gets in.
    pub entry: Entry,
    /// What is wrong with it.
    pub poison: Poison,
}

/// The header that makes a message repeatable.
pub const KEY: &str = "idempotency-key";

/// A header that `capture.drop_headers` may name.
pub const CREDENTIAL: &str = "authorization";

const METHODS: [&str; 8] = ["POST", "POST", "POST", "POST", "PUT", "PATCH", "DELETE", "GET"];

impl Message {
    /// Message `number` of `seed`, to `destination`, with bodies of at most about `body_max` bytes.
    #[must_use]
    pub fn new(seed: u64, number: Number, destination: Destination, body_max: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(number.0) << 32) ^ 0x6d65_7373_6167_6500);
        let method = METHODS[random.usize(..METHODS.len())];
        let body = body(&mut random, method, body_max);
        let manner = manner(&mut random, &body);
        let mut headers = headers(&mut random, number, destination, method, &body, manner);
        let entry = if random.u32(..8) == 0 { Entry::FromFilter } else { Entry::FromSender };
        if entry == Entry::FromFilter {
            add_framing(&mut headers);
        }
        let poison = match random.u32(..100) {
            0 => Poison::Breaks,
            1 => Poison::Unreachable,
            2 => Poison::Busy,
            _ => Poison::None,
        };
        Self { number, destination, headers, body, manner, entry, poison }
    }

    /// The number of the message whose head this is: a retry's own, or the one at the end of its path.
    #[must_use]
    pub fn number_in(head: &Headers) -> Option<Number> {
        match head.text(TRY) {
            Some(number) => number.parse().ok().map(Number),
            None => head.text(":path").and_then(Self::number_of),
        }
    }

    /// The number at the end of a path.
    #[must_use]
    pub fn number_of(path: &str) -> Option<Number> {
        path.rsplit_once('m')?.1.parse().ok().map(Number)
    }

    /// `:method`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.headers.text(":method").unwrap_or_default()
    }

    /// Whether it is a gRPC call.
    #[must_use]
    pub fn is_call(&self) -> bool {
        calls::is_call(&self.headers)
    }

    /// Whether it is a call that nobody can store: it is not one message.
    #[must_use]
    pub fn is_odd_call(&self) -> bool {
        self.is_call() && !calls::is_unary(&self.body)
    }

    /// Whether sending it twice does no harm by the rules of the contract, section 5.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(self.method(), "PUT" | "DELETE") || self.headers.first(KEY).is_some_and(|key| !key.is_empty())
    }

    /// Whether the default `match.methods` choose it.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.method() != "GET"
    }
}

/// What no codec would have let through.
fn add_framing(headers: &mut Headers) {
    if headers.first("content-length").is_none() {
        headers.add("transfer-encoding", "chunked");
    }
    if headers.first("connection").is_none() {
        headers.add("connection", "keep-alive, x-option");
        headers.add("x-option", "of this connection only");
    }
}

fn body(random: &mut fastrand::Rng, method: &str, body_max: usize) -> Vec<u8> {
    let length = match random.u32(..20) {
        _ if matches!(method, "DELETE" | "GET") => 0,
        0 => 0,
        1 => body_max,
        2 => body_max + 1 + random.usize(..100),
        3..5 => random.usize(..body_max),
        _ => random.usize(1..400),
    };
    let mut body = vec![0; length];
    random.fill(&mut body);
    body
}

fn manner(random: &mut fastrand::Rng, body: &[u8]) -> Manner {
    if body.len() < 2 {
        return Manner::Whole;
    }
    let pieces = random.u32(2..5);
    let pause = Duration::from_millis(random.u64(..400));
    match random.u32(..40) {
        0..6 => Manner::Pieces(pieces, pause),
        6 => Manner::Trailers(pieces, pause),
        7 => Manner::HangsUp(pieces, pause),
        8 => Manner::Pieces(pieces, pause + Duration::from_secs(3)),
        _ => Manner::Whole,
    }
}

fn headers(
    random: &mut fastrand::Rng,
    number: Number,
    destination: Destination,
    method: &str,
    body: &[u8],
    manner: Manner,
) -> Headers {
    let path = format!("/d{}/m{}", destination.0, number.0);
    let mut headers =
        Headers::of(&[(":authority", "shop.example"), (":path", &path), (":method", method), (":scheme", "http")]);
    // A body of known length announces it; one with trailers cannot (HTTP/1).
    if !body.is_empty() && !matches!(manner, Manner::Trailers(..)) && random.bool() {
        headers.add("content-length", body.len().to_string());
    }
    headers.add("content-type", "application/json");
    if random.u32(..3) == 0 {
        headers.add(KEY, format!("key-{}", number.0));
    }
    if random.u32(..4) == 0 {
        headers.add(CREDENTIAL, "Bearer of-the-sender");
    }
    match random.u32(..12) {
        0 => headers.add("x-raw", vec![b'a', 0xff, 0xe9, b'b']),
        1 => {
            headers.add("x-repeat", "one");
            headers.add("x-repeat", "two");
        }
        2 => {
            headers.add("x-redeliver-id", "forged");
            headers.add("x-redeliver-attempt", "7");
        }
        3 => {
            headers.add("connection", "close, x-secret");
            headers.add("x-secret", "for the next hop only");
            headers.add("te", "trailers");
        }
        4 => headers.add("x-envoy-upstream-rq-timeout-ms", "1"),
        5 => headers.add("x-request-id", format!("request-{}", number.0)),
        _ => {}
    }
    headers
}
