//! The copy of one protected request, and how far it is held.
//!
//! ```text
//!  headers ──┬─ no body ──────────────────────────────> Complete
//!            ├─ announced too long ───────────────────> TooLarge      (passes, unprotected)
//!            ├─ hold:   wait for the end of the body ─> Complete, TooLarge, Trailers, Left
//!            └─ stream: copy what passes by ──────────> Complete, TooLarge, Trailers; Passing until then
//! ```
//! A gRPC call that turns out not to be unary passes as soon as that shows: NotUnary.
//!
//! Each piece of a body is copied once, when it comes. A held request waits by *stop and watermark*: Envoy stops reading
//! when its buffer is full, where *stop and buffer* would answer 413, and it may be resumed at any time without losing a
//! byte (measured on 1.36.4, 1.39.0 and 1.40.0). Never reads the host: it says what to copy.

use crate::config::{Capture as Settings, CaptureMode};
use crate::glance::Glance;
use crate::grpc::{Protocol, Unary, unary};
use crate::headers::HeaderList;
use crate::reply::NotStored;
use crate::units::{ByteCount, Millis, Monotonic};

/// How requests are captured just now: as configured, less what the host has shown to be impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regime {
    /// Hold or stream.
    pub mode: CaptureMode,
    /// Bodies above this pass.
    pub body_bytes_max: ByteCount,
}

impl Regime {
    /// What the configuration asks for.
    #[must_use]
    pub const fn of(settings: &Settings) -> Self {
        Self { mode: settings.mode, body_bytes_max: settings.body_bytes_max }
    }
}

/// Copies of bodies that one VM holds at a time, all its requests together. A VM has 1 GiB and never gives memory back
/// (measured); what is above this share passes unprotected, with `full` if it fails.
pub const COPIES_MAX: ByteCount = ByteCount(256 * 1024 * 1024);

/// How far the body has got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// Held; this is what has come.
    Held(Vec<u8>),
    /// Passing by; this is what has passed.
    Passing(Vec<u8>),
    /// All of it.
    Complete(Vec<u8>),
    /// Longer than may be stored; passes.
    TooLarge,
    /// Its hold ended before its end came.
    Left,
    /// This VM holds too many copies already; it passes.
    NoRoom,
    /// Trailers came after it: they cannot be sent again.
    Trailers,
    /// A gRPC call of no message, of a broken one or of several; passes.
    NotUnary,
}

/// What to do with a piece of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// Copy the piece and tell [`Capture::copied`], which says whether it goes on.
    Copy,
    /// Let it go on.
    Continue,
}

/// One protected request.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The headers as the sender sent them.
    pub arrived: HeaderList,
    /// Whether the request has no body at all: its headers are out of reach after they went on (measured).
    pub has_body: HasBody,
    /// What it speaks.
    pub protocol: Protocol,
    body: Body,
}

/// Whether a request came with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HasBody {
    /// It did.
    Yes,
    /// The headers were the end.
    No,
}

/// Whether the request goes on after its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It does.
    Continue,
    /// It waits for its body.
    Hold,
}

impl Capture {
    /// The request's headers came, and announce what follows.
    #[must_use]
    pub fn begin(arrived: HeaderList, announced: Announced, regime: Regime) -> (Self, Start) {
        let Announced { has_body, length, protocol } = announced;
        let (body, start) = match (has_body, regime.mode) {
            (HasBody::No, _) if protocol == Protocol::Grpc => (Body::NotUnary, Start::Continue),
            (HasBody::No, _) => (Body::Complete(Vec::new()), Start::Continue),
            (HasBody::Yes, _) if length.is_some_and(|length| length > regime.body_bytes_max) => {
                (Body::TooLarge, Start::Continue)
            }
            (HasBody::Yes, CaptureMode::Hold) => (Body::Held(Vec::new()), Start::Hold),
            (HasBody::Yes, CaptureMode::Stream) => (Body::Passing(Vec::new()), Start::Continue),
        };
        (Self { arrived, has_body, protocol, body }, start)
    }

    /// A piece of the body came, `size` bytes long. `copies` is what all requests of this VM hold already.
    pub fn body(&mut self, size: ByteCount, body_bytes_max: ByteCount, copies: ByteCount) -> BodyStep {
        match &self.body {
            Body::Held(seen) | Body::Passing(seen) if ByteCount::of(seen).plus(size) > body_bytes_max => {
                self.body = Body::TooLarge;
                BodyStep::Continue
            }
            Body::Held(_) | Body::Passing(_) if copies.plus(size) > COPIES_MAX => {
                self.body = Body::NoRoom;
                BodyStep::Continue
            }
            Body::Held(_) | Body::Passing(_) => BodyStep::Copy,
            Body::Complete(_) | Body::TooLarge | Body::Left | Body::NoRoom | Body::Trailers | Body::NotUnary => {
                BodyStep::Continue
            }
        }
    }

    /// What [`BodyStep::Copy`] copied. A copy of another size than announced is no copy: the request goes on, unprotected.
    pub fn copied(&mut self, piece: Vec<u8>, size: ByteCount, end: EndOfStream) -> Start {
        let is_whole = ByteCount::of(&piece) == size;
        // Most bodies come in one piece, which is kept as it is.
        let append = |mut seen: Vec<u8>| {
            if seen.is_empty() {
                return piece;
            }
            seen.extend_from_slice(&piece);
            seen
        };
        let (body, start) = match (std::mem::replace(&mut self.body, Body::Left), end) {
            (Body::Held(_) | Body::Passing(_), _) if !is_whole => (Body::Left, Start::Continue),
            (Body::Held(seen), _) => grown(append(seen), self.protocol, end, (Body::Held, Start::Hold)),
            (Body::Passing(seen), _) => grown(append(seen), self.protocol, end, (Body::Passing, Start::Continue)),
            (
                body @ (Body::Complete(_)
                | Body::TooLarge
                | Body::Left
                | Body::NoRoom
                | Body::Trailers
                | Body::NotUnary),
                _,
            ) => (body, Start::Continue),
        };
        self.body = body;
        start
    }

    /// Whether a copy of the body, or of a part of it, is kept here.
    #[must_use]
    pub fn has_copy(&self) -> bool {
        match &self.body {
            Body::Held(_) | Body::Passing(_) | Body::Complete(_) => true,
            Body::TooLarge | Body::Left | Body::NoRoom | Body::Trailers | Body::NotUnary => false,
        }
    }

    /// How much of the body has come while it is held.
    #[must_use]
    pub fn held_bytes(&self) -> Option<ByteCount> {
        match &self.body {
            Body::Held(seen) => Some(ByteCount::of(seen)),
            Body::Passing(_)
            | Body::Complete(_)
            | Body::TooLarge
            | Body::Left
            | Body::NoRoom
            | Body::Trailers
            | Body::NotUnary => None,
        }
    }

    /// Trailers came: the body is at its end, but not the request that could be sent again.
    pub fn trailers(&mut self) {
        self.body = Body::Trailers;
    }

    /// The hold was ended from outside: the request goes on and is not protected any more.
    pub fn let_go(&mut self) {
        if self.held_bytes().is_some() {
            self.body = Body::Left;
        }
    }

    /// The whole body, if it is known before the request goes on.
    ///
    /// # Errors
    /// Why there is none that could be stored.
    pub fn whole_body(&self) -> Result<&[u8], NotStored> {
        match &self.body {
            Body::Complete(bytes) => Ok(bytes),
            Body::TooLarge => Err(NotStored::TooLarge),
            Body::Trailers | Body::NotUnary => Err(NotStored::Unstorable),
            Body::NoRoom => Err(NotStored::Full),
            Body::Held(_) | Body::Passing(_) | Body::Left => Err(NotStored::IncompleteBody),
        }
    }

    /// The same, for the store.
    ///
    /// # Errors
    /// Why there is none that could be stored.
    pub fn take_body(&mut self) -> Result<Vec<u8>, NotStored> {
        let reason = self.whole_body().err().unwrap_or(NotStored::IncompleteBody);
        let body = std::mem::replace(&mut self.body, Body::Left);
        if let Body::Complete(bytes) = body { Ok(bytes) } else { Err(reason) }
    }
}

/// A body after one more piece; `more` is what it is while it has not ended.
fn grown(
    bytes: Vec<u8>,
    protocol: Protocol,
    end: EndOfStream,
    (more, start): (fn(Vec<u8>) -> Body, Start),
) -> (Body, Start) {
    let unary = match protocol {
        Protocol::Http => Unary::Possible,
        Protocol::Grpc => unary(&bytes, end),
    };
    match (unary, end) {
        (Unary::Refuted, EndOfStream::Yes | EndOfStream::No) => (Body::NotUnary, Start::Continue),
        (Unary::Possible, EndOfStream::Yes) => (Body::Complete(bytes), Start::Continue),
        (Unary::Possible, EndOfStream::No) => (more(bytes), start),
    }
}

/// What a request's headers say of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Whether it has one.
    pub has_body: HasBody,
    /// How long it is, if that is said.
    pub length: Option<ByteCount>,
    /// What it speaks.
    pub protocol: Protocol,
}

impl Announced {
    /// By the headers that a glance shows.
    #[must_use]
    pub fn by(glance: &Glance<'_>, has_body: HasBody) -> Self {
        Self { has_body, length: glance.length(), protocol: glance.protocol() }
    }
}

/// Whether a callback is the last of its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfStream {
    /// It is.
    Yes,
    /// More may come.
    No,
}

/// Whether a body callback was ever seen for a held request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySeen {
    /// It was: the host delivers bodies of held requests.
    Yes,
    /// Not yet.
    No,
}

/// A held request, as the watchdog sees it from the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The first look after the last new byte; none yet, since nobody reads a clock for each piece of a body.
    waits_since: Option<Monotonic>,
    /// `request.total_size` when it was last looked at.
    total: u64,
    body_seen: BodySeen,
    /// What of the body has come.
    pub received: ByteCount,
}

/// What the watchdog does about a held request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStep {
    /// Nothing.
    Keep,
    /// Bytes came and no body callback did: the host does not deliver bodies of held requests. Let all go.
    OptionMissing,
    /// No new byte for `capture.max_hold`. Let it go.
    TimeOver,
}

impl Hold {
    /// A request is held from now on; `total` is its `request.total_size` so far.
    #[must_use]
    pub const fn new(total: u64) -> Self {
        Self { waits_since: None, total, body_seen: BodySeen::No, received: ByteCount(0) }
    }

    /// A body callback came; `received` bytes are there by now.
    pub const fn progress(&mut self, received: ByteCount) {
        self.waits_since = None;
        self.body_seen = BodySeen::Yes;
        self.received = received;
    }

    /// The thread stood still: nobody could see new bytes, so the wait begins anew.
    pub const fn stood_still(&mut self) {
        self.waits_since = None;
    }

    /// One look from the timer. `works`: whether any held request of this VM ever got a body callback. The wait is counted
    /// from the first look that saw nothing new, so it ends up to a turn of the timer later than `hold_max`, never sooner.
    pub fn watch(&mut self, total: Option<u64>, works: BodySeen, hold_max: Millis, now: Monotonic) -> WatchStep {
        let has_new_bytes = total.is_some_and(|total| total > self.total);
        match (works, self.body_seen) {
            (BodySeen::No, BodySeen::No) if has_new_bytes => return WatchStep::OptionMissing,
            (BodySeen::Yes | BodySeen::No, BodySeen::Yes | BodySeen::No) => {}
        }
        if has_new_bytes {
            self.total = total.unwrap_or(self.total);
        }
        let since = *self.waits_since.get_or_insert(now);
        if now.since(since) >= hold_max { WatchStep::TimeOver } else { WatchStep::Keep }
    }
}

/// More than this must have come before a stop is blamed on the listener's buffer: no sensible one is smaller.
const BUFFER_MIN: ByteCount = ByteCount(16 * 1024);
/// A sender that waited because Envoy did not read has the next bytes ready when it reads again.
const AT_ONCE: Millis = Millis(10);

/// The limit to go by when a held request stopped coming and went on as soon as it was let go: then the listener's buffer
/// was full. `received` is what had come (Envoy reads at most a buffer's length past its limit, so half of it fits), `wait`
/// how long after the release the next piece came. `None`: the sender was slow.
#[must_use]
pub fn learned_limit(received: ByteCount, wait: Millis, in_force: ByteCount) -> Option<ByteCount> {
    let is_full = received > BUFFER_MIN && wait <= AT_ONCE;
    is_full.then(|| ByteCount(received.0 / 2).min(in_force))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const LIMIT: ByteCount = ByteCount(10);

    fn begin_with(headers: HeaderList, has_body: HasBody, regime: Regime) -> (Capture, Start) {
        let announced = Announced::by(&Glance::at(&headers), has_body);
        Capture::begin(headers, announced, regime)
    }

    fn begin(mode: CaptureMode, length: Option<&str>) -> (Capture, Start) {
        let headers = length.map(|text| ("content-length", text));
        let regime = Regime { mode, body_bytes_max: LIMIT };
        begin_with(headers.into_iter().collect(), HasBody::Yes, regime)
    }

    fn pieces(mode: CaptureMode, pieces: &[(&[u8], EndOfStream)]) -> (Capture, Vec<Start>) {
        let (mut capture, start) = begin(mode, None);
        let mut starts = vec![start];
        for (piece, end) in pieces {
            let step = capture.body(ByteCount::of(piece), LIMIT, ByteCount(0));
            starts.push(match step {
                BodyStep::Copy => capture.copied(piece.to_vec(), ByteCount::of(piece), *end),
                BodyStep::Continue => Start::Continue,
            });
        }
        (capture, starts)
    }

    #[test]
    fn a_held_body_waits_for_its_end_and_a_streamed_one_does_not() {
        use Start::{Continue, Hold};
        let body: [(&[u8], EndOfStream); 3] =
            [(b"abc", EndOfStream::No), (b"defghij", EndOfStream::No), (b"", EndOfStream::Yes)];
        for (mode, expected) in [
            (CaptureMode::Hold, [Hold, Hold, Hold, Continue]),
            (CaptureMode::Stream, [Continue, Continue, Continue, Continue]),
        ] {
            let (mut capture, starts) = pieces(mode, &body);
            assert_eq!(starts, expected);
            assert_eq!(capture.take_body(), Ok(b"abcdefghij".to_vec()));
            let (mut unfinished, _) = pieces(mode, &body[..2]);
            assert_eq!(unfinished.take_body(), Err(NotStored::IncompleteBody));
        }
    }

    #[test]
    fn what_is_too_long_passes_announced_or_not() {
        assert_eq!(begin(CaptureMode::Hold, Some("11")).1, Start::Continue);
        assert_eq!(begin(CaptureMode::Hold, Some("10")).1, Start::Hold);
        for mode in [CaptureMode::Hold, CaptureMode::Stream] {
            let body: [(&[u8], EndOfStream); 3] =
                [(b"12345", EndOfStream::No), (b"678901", EndOfStream::No), (b"2", EndOfStream::Yes)];
            let (mut capture, starts) = pieces(mode, &body);
            assert_eq!(starts[2..], [Start::Continue, Start::Continue]);
            assert_eq!(capture.take_body(), Err(NotStored::TooLarge));
        }
    }

    #[test]
    fn an_announced_length_is_digits_and_nothing_else() {
        for text in ["+11", "-1", " 11", "11, 11", "", "18446744073709551616"] {
            assert_eq!(begin(CaptureMode::Hold, Some(text)).1, Start::Hold, "{text:?}");
        }
    }

    #[test]
    fn trailers_a_lost_hold_and_a_short_copy_are_never_stored() {
        let (mut trailers, _) = begin(CaptureMode::Hold, None);
        trailers.trailers();
        assert_eq!(trailers.take_body(), Err(NotStored::Unstorable));
        let (mut left, _) = begin(CaptureMode::Hold, None);
        left.let_go();
        assert_eq!(left.body(ByteCount(1), LIMIT, ByteCount(0)), BodyStep::Continue);
        assert_eq!(left.take_body(), Err(NotStored::IncompleteBody));
        let (mut short, _) = begin(CaptureMode::Hold, None);
        assert_eq!(short.copied(vec![1; 4], ByteCount(5), EndOfStream::Yes), Start::Continue);
        assert_eq!(short.take_body(), Err(NotStored::IncompleteBody));
    }

    #[test]
    fn a_body_for_which_the_vm_has_no_room_passes_and_is_full_if_it_fails() {
        for mode in [CaptureMode::Hold, CaptureMode::Stream] {
            let (mut capture, _) = begin(mode, None);
            assert_eq!(capture.body(ByteCount(1), LIMIT, COPIES_MAX), BodyStep::Continue);
            assert!(!capture.has_copy());
            assert_eq!(capture.take_body(), Err(NotStored::Full));
        }
    }

    #[test]
    fn a_call_passes_as_soon_as_it_cannot_be_unary() {
        let headers = || HeaderList::of(&[(b"content-type", b"application/grpc")]);
        let regime = Regime { mode: CaptureMode::Hold, body_bytes_max: ByteCount(100) };
        let copied = |pieces: &[(&[u8], EndOfStream)]| {
            let (mut capture, _) = begin_with(headers(), HasBody::Yes, regime);
            let last =
                pieces.iter().map(|(piece, end)| capture.copied(piece.to_vec(), ByteCount::of(piece), *end)).last();
            (last, capture.take_body())
        };
        let (one, two): (&[u8], &[u8]) = (b"\0\0\0\0\x01a", b"\0\0\0\0\x01a\0");
        assert_eq!(copied(&[(one, EndOfStream::Yes)]), (Some(Start::Continue), Ok(one.to_vec())));
        assert_eq!(
            copied(&[(one, EndOfStream::No), (b"", EndOfStream::Yes)]),
            (Some(Start::Continue), Ok(one.to_vec()))
        );
        assert_eq!(copied(&[(one, EndOfStream::No)]), (Some(Start::Hold), Err(NotStored::IncompleteBody)));
        assert_eq!(copied(&[(two, EndOfStream::No)]), (Some(Start::Continue), Err(NotStored::Unstorable)));
        assert_eq!(copied(&[(b"\0", EndOfStream::Yes)]), (Some(Start::Continue), Err(NotStored::Unstorable)));
        let (mut empty, start) = begin_with(headers(), HasBody::No, regime);
        assert_eq!((start, empty.take_body()), (Start::Continue, Err(NotStored::Unstorable)));
    }

    #[test]
    fn the_watchdog_tells_a_missing_option_from_a_slow_sender() {
        let max = Millis(2_000);
        let hold = || {
            let mut hold = Hold::new(100);
            assert_eq!(hold.watch(Some(100), BodySeen::No, max, Monotonic(0)), WatchStep::Keep);
            hold
        };
        assert_eq!(hold().watch(Some(100), BodySeen::No, max, Monotonic(1_999)), WatchStep::Keep);
        assert_eq!(hold().watch(Some(101), BodySeen::No, max, Monotonic(100)), WatchStep::OptionMissing);
        assert_eq!(hold().watch(Some(101), BodySeen::Yes, max, Monotonic(100)), WatchStep::Keep);
        assert_eq!(hold().watch(None, BodySeen::No, max, Monotonic(2_000)), WatchStep::TimeOver);
        let mut slow = hold();
        slow.progress(ByteCount(1));
        assert_eq!(slow.watch(Some(200), BodySeen::No, max, Monotonic(1_500)), WatchStep::Keep);
        assert_eq!(slow.watch(Some(200), BodySeen::No, max, Monotonic(3_000)), WatchStep::Keep);
        assert_eq!(slow.watch(Some(200), BodySeen::No, max, Monotonic(3_500)), WatchStep::TimeOver);
    }

    #[test]
    fn a_thread_that_stood_still_does_not_blame_the_sender() {
        let max = Millis(2_000);
        let mut hold = Hold::new(100);
        assert_eq!(hold.watch(None, BodySeen::Yes, max, Monotonic(0)), WatchStep::Keep);
        hold.stood_still();
        assert_eq!(hold.watch(None, BodySeen::Yes, max, Monotonic(9_000)), WatchStep::Keep);
        assert_eq!(hold.watch(None, BodySeen::Yes, max, Monotonic(10_999)), WatchStep::Keep);
        assert_eq!(hold.watch(None, BodySeen::Yes, max, Monotonic(11_000)), WatchStep::TimeOver);
    }

    #[test]
    fn a_full_buffer_is_told_from_a_slow_sender() {
        let in_force = ByteCount(256 * 1024);
        assert_eq!(learned_limit(ByteCount(65_536), Millis(1), in_force), Some(ByteCount(32_768)));
        assert_eq!(learned_limit(ByteCount(65_536), Millis(11), in_force), None);
        assert_eq!(learned_limit(ByteCount(100), Millis(0), in_force), None);
    }
}
