//! The length that a sender announced, and the copy of a body that comes in pieces.
//!
//! Input: headers GS whether there is a body GS mode GS the longest body GS how it ends GS pieces.

use crate::input::Sections;
use redeliver_core::capture::{
    Announced, BodyStep, COPIES_MAX, Capture, EndOfStream, HasBody, Regime, Start, learned_limit,
};
use redeliver_core::config::CaptureMode;
use redeliver_core::glance::Glance;
use redeliver_core::headers::HeaderList;
use redeliver_core::reply::NotStored;
use redeliver_core::units::{ByteCount, Millis};

/// How the body comes to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    WithItsLastPiece,
    Never,
    WithTrailers,
    LetGo,
    /// The VM holds too many copies of other requests.
    WithoutRoom,
}

const ENDINGS: [Ending; 5] =
    [Ending::WithItsLastPiece, Ending::Never, Ending::WithTrailers, Ending::LetGo, Ending::WithoutRoom];

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    let headers: HeaderList = sections.headers().iter().filter(|(name, _)| *name != b"content-type").collect();
    let has_body = sections.choice(&[HasBody::Yes, HasBody::No]);
    let mode = sections.choice(&[CaptureMode::Hold, CaptureMode::Stream]);
    let limit = ByteCount(sections.number() % 64);
    let ending = sections.choice(&ENDINGS);
    let pieces = sections.items();

    let length = Glance::at(&headers).length();
    assert_eq!(length, second_reading(&headers), "{headers:?}");
    check_learned_limit(length.unwrap_or_default(), limit);
    let regime = Regime { mode, body_bytes_max: limit };
    let call = headers.iter().chain([(&b"content-type"[..], &b"application/grpc+proto"[..])]).collect();
    let begin = |headers: HeaderList| {
        let announced = Announced::by(&Glance::at(&headers), has_body);
        Capture::begin(headers, announced, regime)
    };
    let (mut call, _) = begin(call);
    let (mut capture, start) = begin(headers);
    let is_held = start == Start::Hold;
    assert!(!is_held || (mode == CaptureMode::Hold && has_body == HasBody::Yes), "held without a reason");
    if has_body == HasBody::Yes {
        pieces_come(&mut capture, &pieces, limit, ending);
        pieces_come(&mut call, &pieces, limit, ending);
    }
    let expected = expected_body(&pieces, has_body, length, limit, ending);
    let unary = expected.clone().ok().filter(|body| has_body == HasBody::Yes && is_one_message(body));
    assert_eq!(call.take_body().ok(), unary, "as a gRPC call");
    assert_eq!(capture.take_body(), expected, "{mode:?} {ending:?} up to {limit}");
    assert_eq!(capture.take_body(), Err(NotStored::IncompleteBody), "a body is taken once");
}

/// A length is digits alone (RFC 9110 8.6), and no more than fit into 64 bits whatever they are.
fn second_reading(headers: &HeaderList) -> Option<ByteCount> {
    let digits =
        headers.first("content-length").filter(|value| value.len() < 20 && value.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(ByteCount)
}

/// A flag, a length of four bytes, and so many bytes.
fn is_one_message(body: &[u8]) -> bool {
    let [0 | 1, a, b, c, d, message @ ..] = body else { return false };
    message.len() as u64 == u64::from(u32::from_be_bytes([*a, *b, *c, *d]))
}

fn pieces_come(capture: &mut Capture, pieces: &[&[u8]], limit: ByteCount, ending: Ending) {
    let copies = if ending == Ending::WithoutRoom { COPIES_MAX } else { ByteCount(0) };
    for (place, piece) in pieces.iter().enumerate() {
        let is_last = place + 1 == pieces.len() && ending == Ending::WithItsLastPiece;
        let end = if is_last { EndOfStream::Yes } else { EndOfStream::No };
        if capture.body(ByteCount::of(piece), limit, copies) == BodyStep::Copy {
            let start = capture.copied(piece.to_vec(), ByteCount::of(piece), end);
            assert!(start == Start::Continue || !is_last, "held for ever");
        }
    }
    match ending {
        Ending::WithTrailers => capture.trailers(),
        Ending::LetGo => capture.let_go(),
        Ending::WithItsLastPiece | Ending::Never | Ending::WithoutRoom => {}
    }
}

fn expected_body(
    pieces: &[&[u8]],
    has_body: HasBody,
    announced: Option<ByteCount>,
    limit: ByteCount,
    ending: Ending,
) -> Result<Vec<u8>, NotStored> {
    let body = pieces.concat();
    let is_too_large = announced.is_some_and(|length| length > limit) || ByteCount::of(&body) > limit;
    let has_bytes = !body.is_empty();
    match (has_body, ending) {
        (HasBody::No, _) => Ok(Vec::new()),
        (HasBody::Yes, Ending::WithTrailers) => Err(NotStored::Unstorable),
        // Without room, the first piece that has bytes is the end of it; too large comes first if that piece is.
        (HasBody::Yes, Ending::WithoutRoom) if has_bytes && !is_first_too_large(pieces, announced, limit) => {
            Err(NotStored::Full)
        }
        (HasBody::Yes, _) if is_too_large => Err(NotStored::TooLarge),
        (HasBody::Yes, Ending::WithItsLastPiece) if !pieces.is_empty() => Ok(body),
        (HasBody::Yes, _) => Err(NotStored::IncompleteBody),
    }
}

fn is_first_too_large(pieces: &[&[u8]], announced: Option<ByteCount>, limit: ByteCount) -> bool {
    let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(0, |piece| piece.len() as u64);
    announced.is_some_and(|length| length > limit) || first > limit.0
}

/// What is learned about a buffer never widens what is in force.
fn check_learned_limit(received: ByteCount, in_force: ByteCount) {
    let learned = learned_limit(received, Millis(0), in_force);
    assert!(learned.is_none_or(|limit| limit <= in_force && limit.0 <= received.0 / 2), "{learned:?}");
}
