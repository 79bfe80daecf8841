//! The copy of one protected request, and how far it is held.
//!
//! ```text
//!  headers ──┬─ no body ──────────────────────────────> Complete
//!            ├─ announced too long ───────────────────> TooLarge      (passes, unprotected)
//!            ├─ hold:   wait for the end of the body ─> Complete, TooLarge, Trailers, Left
//!            └─ stream: copy what passes by ──────────> Complete, TooLarge, Trailers; Passing until then
//! ```
//! A hold ends by returning Continue from the body callback, at the end of the body or above the limit: Envoy 1.36 to
//! 1.39.0 lose bytes otherwise (measured). Never reads the host: it says what to copy.

use crate::config::{Capture as Settings, CaptureMode};
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
    /// Where that limit comes from.
    pub limit: Limit,
}

/// Where the limit for bodies comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The configuration.
    Configured,
    /// A 413: the listener's buffer is smaller than was thought. A body without a length is not held any more: even the
    /// piece with which it is let go must fit into the buffer (measured), and a piece may be as large as the buffer.
    Learned,
}

impl Regime {
    /// What the configuration asks for.
    #[must_use]
    pub const fn of(settings: &Settings) -> Self {
        Self { mode: settings.mode, body_bytes_max: settings.body_bytes_max, limit: Limit::Configured }
    }
}

/// How far the body has got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// Held; the host buffers it.
    Held,
    /// Passing by; this is what has passed.
    Passing(Vec<u8>),
    /// All of it.
    Complete(Vec<u8>),
    /// Longer than may be stored; passes.
    TooLarge,
    /// Its hold ended before its end came.
    Left,
    /// Trailers came after it: they cannot be sent again.
    Trailers,
}

/// What to do with a piece of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// Keep it in the host's buffer.
    Wait,
    /// Copy all that the host shows, tell [`Capture::copied`], and let it go on.
    CopyAndContinue,
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
    /// The request's headers came; `has_body` says whether more follows.
    #[must_use]
    pub fn begin(arrived: HeaderList, has_body: HasBody, regime: Regime) -> (Self, Start) {
        let length = announced(&arrived);
        let (body, start) = match (has_body, regime.mode) {
            (HasBody::No, _) => (Body::Complete(Vec::new()), Start::Continue),
            (HasBody::Yes, _) if length.is_some_and(|length| length > regime.body_bytes_max) => {
                (Body::TooLarge, Start::Continue)
            }
            (HasBody::Yes, CaptureMode::Hold) if length.is_some() || regime.limit == Limit::Configured => {
                (Body::Held, Start::Hold)
            }
            (HasBody::Yes, CaptureMode::Hold | CaptureMode::Stream) => (Body::Passing(Vec::new()), Start::Continue),
        };
        (Self { arrived, has_body, body }, start)
    }

    /// A piece of the body came. While held, `size` is all that the host has buffered; otherwise it is the piece.
    pub fn body(&mut self, size: ByteCount, end: EndOfStream, body_bytes_max: ByteCount) -> BodyStep {
        match &self.body {
            Body::Held if size > body_bytes_max => {
                self.body = Body::TooLarge;
                BodyStep::Continue
            }
            Body::Held => match end {
                EndOfStream::Yes => BodyStep::CopyAndContinue,
                EndOfStream::No => BodyStep::Wait,
            },
            Body::Passing(seen) if ByteCount::of(seen).plus(size) > body_bytes_max => {
                self.body = Body::TooLarge;
                BodyStep::Continue
            }
            Body::Passing(_) => BodyStep::CopyAndContinue,
            Body::Complete(_) | Body::TooLarge | Body::Left | Body::Trailers => BodyStep::Continue,
        }
    }

    /// What [`BodyStep::CopyAndContinue`] copied. A copy of another size than announced is no copy.
    pub fn copied(&mut self, bytes: Vec<u8>, size: ByteCount, end: EndOfStream) {
        let is_whole = ByteCount::of(&bytes) == size;
        let so_far = match std::mem::replace(&mut self.body, Body::Left) {
            Body::Held => bytes,
            Body::Passing(mut seen) => {
                seen.extend_from_slice(&bytes);
                seen
            }
            Body::Complete(_) | Body::TooLarge | Body::Left | Body::Trailers => return,
        };
        if is_whole {
            self.body = match end {
                EndOfStream::Yes => Body::Complete(so_far),
                EndOfStream::No => Body::Passing(so_far),
            };
        }
    }

    /// Trailers came: the body is at its end, but not the request that could be sent again.
    pub fn trailers(&mut self) {
        self.body = Body::Trailers;
    }

    /// The hold was ended from outside: the request goes on and is not protected any more.
    pub fn let_go(&mut self) {
        if self.body == Body::Held {
            self.body = Body::Left;
        }
    }

    /// Whether the request waits for its body.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.body == Body::Held
    }

    /// The whole body.
    ///
    /// # Errors
    /// Why there is none that could be stored.
    pub fn take_body(&mut self) -> Result<Vec<u8>, NotStored> {
        match std::mem::replace(&mut self.body, Body::Left) {
            Body::Complete(bytes) => Ok(bytes),
            Body::TooLarge => Err(NotStored::TooLarge),
            Body::Trailers => Err(NotStored::Unstorable),
            Body::Held | Body::Passing(_) | Body::Left => Err(NotStored::IncompleteBody),
        }
    }
}

/// The length that the sender announced.
#[must_use]
pub fn announced(headers: &HeaderList) -> Option<ByteCount> {
    std::str::from_utf8(headers.first("content-length")?).ok()?.parse().ok().map(ByteCount)
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
    /// When the last new byte came.
    progress_at: Monotonic,
    /// `request.total_size` when it was last looked at.
    total: u64,
    body_seen: BodySeen,
    /// All that the host has buffered, by the last body callback that kept it there.
    pub buffered: ByteCount,
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
    /// A request is held from `now` on; `total` is its `request.total_size` so far.
    #[must_use]
    pub const fn new(total: u64, now: Monotonic) -> Self {
        Self { progress_at: now, total, body_seen: BodySeen::No, buffered: ByteCount(0) }
    }

    /// A body callback kept `buffered` bytes in the host.
    pub const fn progress(&mut self, buffered: ByteCount, now: Monotonic) {
        self.progress_at = now;
        self.body_seen = BodySeen::Yes;
        self.buffered = buffered;
    }

    /// One look from the timer. `works`: whether any held request of this VM ever got a body callback.
    pub fn watch(&mut self, total: Option<u64>, works: BodySeen, hold_max: Millis, now: Monotonic) -> WatchStep {
        let has_new_bytes = total.is_some_and(|total| total > self.total);
        match (works, self.body_seen) {
            (BodySeen::No, BodySeen::No) if has_new_bytes => return WatchStep::OptionMissing,
            (BodySeen::Yes | BodySeen::No, BodySeen::Yes | BodySeen::No) => {}
        }
        if has_new_bytes {
            self.total = total.unwrap_or(self.total);
        }
        if now.since(self.progress_at) >= hold_max { WatchStep::TimeOver } else { WatchStep::Keep }
    }
}

/// A request that the timer let go, on its way on.
///
/// After a body callback answered Pause, Envoy up to 1.39.0 goes on buffering when the request is resumed from outside,
/// and loses the next piece if that is answered with Continue (measured on 1.36.4 and 1.39.0; never the buffered ones).
/// A piece that is answered with Pause is never lost, and Continue is safe again while Envoy knows the body as paused:
///
/// ```text
/// resumed, no body callback before ─────────────────────────────────────> Clean
/// resumed after one: Resumed ── piece: Pause ──> Parked ── next piece: Continue ──> Clean
///                       ^                           |
///                       `──────── timer: resume ────'
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Every piece goes on.
    Clean,
    /// The next piece must be paused once.
    Resumed,
    /// A piece is paused; the timer resumes it, or the next piece does.
    Parked,
}

/// Whether the host loses a piece as [`Passage`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeBug {
    /// It may.
    Present,
    /// Envoy 1.39.1, 1.40.0 and later do not (measured on 1.39.1, 1.39.3, 1.40.0).
    Absent,
}

impl ResumeBug {
    /// Whether Envoy `major.minor.patch` has it. A version that is not known is taken to have it.
    #[must_use]
    pub fn of(version: Option<(u64, u64, u64)>) -> Self {
        if version.is_some_and(|version| version >= (1, 39, 1)) { Self::Absent } else { Self::Present }
    }
}

impl Passage {
    /// A held request was resumed from the timer.
    #[must_use]
    pub fn after_resume(hold: &Hold, bug: ResumeBug) -> Self {
        match (hold.body_seen, bug) {
            (BodySeen::No, _) | (_, ResumeBug::Absent) => Self::Clean,
            (BodySeen::Yes, ResumeBug::Present) => Self::Resumed,
        }
    }

    /// A piece of the body came: whether it goes on, and the passage after it.
    #[must_use]
    pub const fn piece(self) -> (Self, Start) {
        match self {
            Self::Clean | Self::Parked => (Self::Clean, Start::Continue),
            Self::Resumed => (Self::Parked, Start::Hold),
        }
    }
}

/// The limit to go by after a 413 for a request of which the host had shown `shown`: half of it, since the last piece may
/// have been as long as all before; always below the limit in force.
#[must_use]
pub fn learned_limit(shown: ByteCount, in_force: ByteCount) -> ByteCount {
    ByteCount(shown.0 / 2).min(ByteCount(in_force.0.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const LIMIT: ByteCount = ByteCount(10);

    fn begin(mode: CaptureMode, length: Option<&str>) -> (Capture, Start) {
        let headers = length.map(|text| ("content-length".to_owned(), text.as_bytes().to_vec()));
        let regime = Regime { mode, body_bytes_max: LIMIT, limit: Limit::Configured };
        Capture::begin(HeaderList(headers.into_iter().collect()), HasBody::Yes, regime)
    }

    #[test]
    fn a_held_body_is_copied_whole_at_its_end() {
        let (mut capture, start) = begin(CaptureMode::Hold, None);
        assert_eq!(start, Start::Hold);
        assert_eq!(capture.body(ByteCount(4), EndOfStream::No, LIMIT), BodyStep::Wait);
        assert_eq!(capture.body(ByteCount(10), EndOfStream::Yes, LIMIT), BodyStep::CopyAndContinue);
        capture.copied(vec![7; 10], ByteCount(10), EndOfStream::Yes);
        assert_eq!(capture.take_body(), Ok(vec![7; 10]));
    }

    #[test]
    fn a_streamed_body_is_complete_only_at_its_end() {
        let (mut capture, start) = begin(CaptureMode::Stream, None);
        assert_eq!(start, Start::Continue);
        for (piece, end) in [(b"ab", EndOfStream::No), (b"cd", EndOfStream::Yes)] {
            assert_eq!(capture.body(ByteCount(2), end, LIMIT), BodyStep::CopyAndContinue);
            if end == EndOfStream::Yes {
                assert_eq!(capture.clone().take_body(), Err(NotStored::IncompleteBody));
            }
            capture.copied(piece.to_vec(), ByteCount(2), end);
        }
        assert_eq!(capture.take_body(), Ok(b"abcd".to_vec()));
    }

    #[test]
    fn what_is_too_long_passes_announced_or_not() {
        assert_eq!(begin(CaptureMode::Hold, Some("11")).1, Start::Continue);
        assert_eq!(begin(CaptureMode::Hold, Some("10")).1, Start::Hold);
        for mode in [CaptureMode::Hold, CaptureMode::Stream] {
            let (mut capture, _) = begin(mode, None);
            assert_eq!(capture.body(ByteCount(11), EndOfStream::No, LIMIT), BodyStep::Continue);
            assert_eq!(capture.body(ByteCount(1), EndOfStream::Yes, LIMIT), BodyStep::Continue);
            assert_eq!(capture.take_body(), Err(NotStored::TooLarge));
        }
    }

    #[test]
    fn trailers_a_lost_hold_and_a_short_copy_are_never_stored() {
        let (mut trailers, _) = begin(CaptureMode::Hold, None);
        trailers.trailers();
        assert_eq!(trailers.take_body(), Err(NotStored::Unstorable));
        let (mut left, _) = begin(CaptureMode::Hold, None);
        left.let_go();
        assert_eq!(left.body(ByteCount(1), EndOfStream::Yes, LIMIT), BodyStep::Continue);
        assert_eq!(left.take_body(), Err(NotStored::IncompleteBody));
        let (mut short, _) = begin(CaptureMode::Hold, None);
        short.body(ByteCount(5), EndOfStream::Yes, LIMIT);
        short.copied(vec![1; 4], ByteCount(5), EndOfStream::Yes);
        assert_eq!(short.take_body(), Err(NotStored::IncompleteBody));
    }

    #[test]
    fn the_watchdog_tells_a_missing_option_from_a_slow_sender() {
        let max = Millis(2_000);
        let hold = || Hold::new(100, Monotonic(0));
        assert_eq!(hold().watch(Some(100), BodySeen::No, max, Monotonic(1_999)), WatchStep::Keep);
        assert_eq!(hold().watch(Some(101), BodySeen::No, max, Monotonic(100)), WatchStep::OptionMissing);
        assert_eq!(hold().watch(Some(101), BodySeen::Yes, max, Monotonic(100)), WatchStep::Keep);
        assert_eq!(hold().watch(None, BodySeen::No, max, Monotonic(2_000)), WatchStep::TimeOver);
        let mut slow = hold();
        slow.progress(ByteCount(1), Monotonic(1_500));
        assert_eq!(slow.watch(Some(200), BodySeen::No, max, Monotonic(3_000)), WatchStep::Keep);
        assert_eq!(slow.watch(Some(200), BodySeen::No, max, Monotonic(3_500)), WatchStep::TimeOver);
    }

    #[test]
    fn a_released_request_never_answers_continue_right_after_a_resume_on_an_old_envoy() {
        let mut seen = Hold::new(0, Monotonic(0));
        seen.progress(ByteCount(1), Monotonic(1));
        let passage = Passage::after_resume(&seen, ResumeBug::of(Some((1, 39, 0))));
        assert_eq!(passage.piece(), (Passage::Parked, Start::Hold));
        assert_eq!(Passage::Parked.piece(), (Passage::Clean, Start::Continue));
        let unseen = Hold::new(0, Monotonic(0));
        assert_eq!(Passage::after_resume(&unseen, ResumeBug::Present), Passage::Clean);
        assert_eq!(Passage::after_resume(&seen, ResumeBug::of(Some((1, 40, 0)))), Passage::Clean);
        assert_eq!(ResumeBug::of(None), ResumeBug::Present);
    }

    #[test]
    fn the_learned_limit_is_below_what_was_refused() {
        assert_eq!(learned_limit(ByteCount(36), ByteCount(256)), ByteCount(18));
        assert_eq!(learned_limit(ByteCount(36), ByteCount(10)), ByteCount(9));
    }

    #[test]
    fn under_a_learned_limit_only_bodies_with_a_length_are_held() {
        let regime = Regime { mode: CaptureMode::Hold, body_bytes_max: LIMIT, limit: Limit::Learned };
        let sized = HeaderList(vec![("content-length".to_owned(), b"10".to_vec())]);
        assert_eq!(Capture::begin(sized, HasBody::Yes, regime).1, Start::Hold);
        assert_eq!(Capture::begin(HeaderList::default(), HasBody::Yes, regime).1, Start::Continue);
    }
}
