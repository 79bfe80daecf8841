//! Retries: what senders send again, and how a retry differs from the first.
//!
//! A retry is a message of its own, with a number of its own in the header [`TRY`], which no digest of the filter reads;
//! all else is that of the first one, but for its twist. So a receiver, and whoever looks into a slot, can tell which of
//! the two it has.

use crate::message::{CREDENTIAL, Manner, Message, Number};
use crate::oracle::Record;
use simvoy::{Headers, Moment};

/// The number of a retry. The path has that of the first one.
pub const TRY: &str = "x-try";

/// Which message is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// One whose sender has no answer yet.
    Open,
    /// One that is stored, and not under way.
    Stored,
    /// One that is being redelivered.
    Out,
    /// One that was stored and delivered.
    Delivered,
    /// Any with a key.
    Any,
}

impl Pick {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Open, Self::Stored, Self::Out, Self::Delivered, Self::Any];

    /// Whether a message is one of these at this moment.
    #[must_use]
    pub fn is_one(self, record: &Record, now: Moment) -> bool {
        let is_stored = record.acknowledged.is_some() && !record.is_settled;
        let is_out = record.attempts.last().is_some_and(|last| !last.was_told && last.ends > now);
        match self {
            Self::Open => record.answer.is_none(),
            Self::Stored => is_stored && !is_out,
            Self::Out => is_stored && is_out,
            Self::Delivered => record.is_settled,
            Self::Any => true,
        }
    }
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// Nothing: it is the same request.
    None,
    /// One byte of the body; the content-type, if there is no body.
    Body,
    /// The content-type.
    ContentType,
    /// The path.
    Path,
    /// The credential: another sender, who happens to have the same key.
    Credential,
}

impl Twist {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Body, Self::ContentType, Self::Path, Self::Credential];
}

/// `first` once more, as message `number`.
#[must_use]
pub fn again(first: &Message, number: Number, twist: Twist) -> Message {
    let mut message = Message { number, manner: Manner::Whole, ..first.clone() };
    message.headers.0.retain(|(name, _)| name != TRY);
    message.headers.add(TRY, number.0.to_string());
    match (twist, message.body.last_mut()) {
        (Twist::None, _) => {}
        (Twist::Body, Some(last)) => *last ^= 1,
        (Twist::Body, None) | (Twist::ContentType, _) => set(&mut message.headers, "content-type", b"text/plain"),
        (Twist::Path, _) => {
            let path = message.headers.text(":path").unwrap_or_default().replace("/m", "/again/m");
            set(&mut message.headers, ":path", path.as_bytes());
        }
        (Twist::Credential, _) => set(&mut message.headers, CREDENTIAL, b"Bearer of-a-stranger"),
    }
    message
}

fn set(headers: &mut Headers, name: &str, value: &[u8]) {
    match headers.0.iter_mut().find(|(found, _)| found == name) {
        Some((_, found)) => *found = value.to_vec(),
        None => headers.add(name, value.to_vec()),
    }
}
