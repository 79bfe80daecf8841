//! gRPC: some requests of a history are unary calls, some are calls of another kind, and receivers answer all of them as
//! such. For the oracle a call's status is the HTTP status that means the same: the contract's table has both in one row.

use super::neighbours::words;
use super::speech::Wish;
use crate::message::{Manner, Message};
use simvoy::{Exchange, Headers, Response};
use std::time::Duration;

/// Makes a message a call, every other time.
pub fn turn_into_call(message: &mut Message, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(message.number.0) << 24 ^ 0x6772_7063);
    if random.bool() {
        return;
    }
    if message.body.len() < 8 {
        message.body = vec![7; 20];
        message.manner = Manner::Whole;
        message.headers.remove("content-length");
    }
    // One length-prefixed message; or two, or a half.
    let length = message.body.len() as u32 - PREFIX as u32;
    let told = match random.u32(..10) {
        0 => length - 2,
        1 => length + 9,
        _ => length,
    };
    message.body[0] = 0;
    message.body[1..PREFIX].copy_from_slice(&told.to_be_bytes());
    message.headers.set(":method", "POST");
    message.headers.set("content-type", ["application/grpc", "application/grpc+proto"][random.usize(..2)]);
    message.headers.remove("te");
    message.headers.add("te", "trailers");
    if random.bool() {
        message.headers.add("grpc-timeout", "7S");
    }
}

/// A byte that says whether it is compressed, and a length of four.
const PREFIX: usize = 5;

/// Whether a request is a call.
#[must_use]
pub fn is_call(headers: &Headers) -> bool {
    headers.text("content-type").is_some_and(|value| value.starts_with("application/grpc"))
}

/// Whether it is one message and nothing else; only such a call is stored.
#[must_use]
pub fn is_unary(body: &[u8]) -> bool {
    body.split_first_chunk::<PREFIX>().is_some_and(|([compressed, length @ ..], rest)| {
        *compressed <= 1 && u32::from_be_bytes(*length) as usize == rest.len()
    })
}

/// What receivers say to calls.
#[derive(Debug)]
pub struct Calls(fastrand::Rng);

impl Calls {
    /// The same for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed ^ 0x0063_616c_6c73))
    }

    /// An answer as a call gets it: its status in the trailers, or in the headers if nothing else comes; or from somebody on
    /// the way who speaks plain HTTP. What it asks for may be said in the words of gRPC, beside the status.
    pub fn speak(&mut self, exchange: Exchange, wish: Wish) -> (Exchange, Wish) {
        let Exchange::Answer { after, response } = exchange else { return (exchange, wish) };
        let code = response.code();
        if code < 300 {
            return (Exchange::Answer { after, response: done(&response) }, wish);
        }
        let (response, wish) = match self.0.u32(..8) {
            0 => (response, wish),
            // No word about how it went: whoever made it does not speak for the receiver.
            1 if code >= 500 => (Response::status(200).header("content-type", "text/html"), Wish::None),
            _ => self.failed(&response, wish),
        };
        (Exchange::Answer { after, response }, wish)
    }

    fn failed(&mut self, failure: &Response, wish: Wish) -> (Response, Wish) {
        let status = match failure.code() {
            503 => 14,
            429 => 8,
            504 => 4,
            401 => 16,
            403 => 7,
            408 | 425 | 500..=599 => [1, 2, 10, 13][self.0.usize(..4)],
            _ => [3, 5, 6, 9, 11, 12, 15][self.0.usize(..7)],
        };
        let mut end = Headers::of(&[("grpc-status", &status.to_string())]);
        let wish = match (wish, self.0.u32(..8)) {
            (Wish::For(wait), _) => {
                end.add("grpc-retry-pushback-ms", wait.as_millis().to_string());
                wish
            }
            // "Do not retry": as long as we ever wait.
            (_, 0) => {
                end.add("grpc-retry-pushback-ms", "-1");
                Wish::For(NEVER)
            }
            (_, 1) => {
                end.add("grpc-retry-pushback-ms", "soon");
                Wish::None
            }
            (_, _) => Wish::None,
        };
        end.0.extend(words(&failure.headers));
        let mut response = Response::status(200).header("content-type", "application/grpc");
        if self.0.bool() {
            response.headers.0.extend(end.0);
        } else {
            response.trailers = end;
        }
        (response, wish)
    }
}

/// The longest wait that is one.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

fn done(success: &Response) -> Response {
    let mut response =
        Response::status(200).header("content-type", "application/grpc").body(b"\0\0\0\0\x02ok".to_vec());
    response.trailers = Headers::of(&[("grpc-status", "0")]);
    response.trailers.0.extend(words(&success.headers));
    response
}

/// The HTTP status that means the same as this answer to a call.
#[must_use]
pub fn meaning(response: &Response) -> u16 {
    let said = response.headers.text("grpc-status").or_else(|| response.trailers.text("grpc-status"));
    match (response.code(), said.and_then(|text| text.parse::<u16>().ok())) {
        (200, Some(status)) => match status {
            0 => 200,
            14 => 503,
            8 => 429,
            4 => 504,
            16 => 401,
            7 => 403,
            1 | 2 | 10 | 13 => 500,
            _ => 400,
        },
        (200..=299, None) => 500,
        (code, _) => code,
    }
}

/// An answer to a call as the oracle reads one: with the status that means the same, and what is behind it in one place.
#[must_use]
pub fn plain(response: &Response) -> Response {
    let mut plain = response.clone();
    plain.headers.set(":status", meaning(response).to_string());
    plain.headers.0.extend(std::mem::take(&mut plain.trailers.0));
    plain
}

/// What is wrong with a redelivered call, other than what may be wrong with any message; and the headers that are judged.
#[must_use]
pub fn wrong_call(got: &Headers, timeout: Duration) -> Option<String> {
    let all = |name: &str| {
        got.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let deadline = format!("{}m", timeout.as_millis()).into_bytes();
    if all("te") != [b"trailers".to_vec()] {
        return Some(format!("te is {:?}", all("te")));
    }
    (all("grpc-timeout") != [deadline]).then(|| format!("grpc-timeout is {:?}", got.text("grpc-timeout")))
}
