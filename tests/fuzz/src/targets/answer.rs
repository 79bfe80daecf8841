//! Envoy's own replies, told apart by their text, and what any answer to a redelivery means.
//!
//! Input: status GS text.

use crate::input::Sections;
use redeliver_core::answer::{Answer, Contact, EnvoyReply, Fate, Reading, read};
use redeliver_core::units::Millis;

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    let (status, text) = (sections.number() as u16, sections.bytes());
    let reply = EnvoyReply::read(status, text);
    assert_eq!(reply, second_reading(status, &String::from_utf8_lossy(text)), "{status}");
    check_envoys(read(Answer::Envoy(reply)), reply);
    check_receivers(read(Answer::Received(status)), status);
    check_grpc(read(Answer::ReceivedGrpc(status)), status);
}

/// The same table as conditions on text.
fn second_reading(status: u16, text: &str) -> EnvoyReply {
    let says_any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if text.contains("invalid header") {
        EnvoyReply::InvalidHeader
    } else if status != 503 {
        EnvoyReply::InDoubt(status)
    } else if says_any(&["connection failure", "connection timeout"]) {
        EnvoyReply::NotReached
    } else if says_any(&["no healthy upstream", "overflow", "no cluster match", "no route"]) {
        EnvoyReply::NotAsked
    } else {
        EnvoyReply::InDoubt(status)
    }
}

/// Envoy's own reply never delivers a message, and never shows that the receiver lives.
fn check_envoys(reading: Reading, reply: EnvoyReply) {
    assert!(!matches!(reading.fate, Fate::Delivered | Fate::Rejected), "{reply:?} means {reading:?}");
    let is_word = matches!(reading.contact, Contact::Answered | Contact::Overloaded | Contact::Gateway);
    assert!(!is_word, "{reply:?} means {reading:?}");
}

/// The receiver's: delivered by a 2xx alone, again by what CONTRACT section 4 lists, rejected by all else.
fn check_receivers(reading: Reading, status: u16) {
    let is_again = matches!(status, 408 | 425 | 429) || status / 100 == 5;
    let fate = match (status / 100, is_again) {
        (2, _) => Fate::Delivered,
        (_, true) => Fate::Failed,
        (_, false) if matches!(status, 401 | 403) => Fate::Unauthorized,
        (_, false) => Fate::Rejected,
    };
    let contact = match status {
        429 | 503 => Contact::Overloaded,
        502 | 504 => Contact::Gateway,
        _ => Contact::Answered,
    };
    assert_eq!(reading, Reading { fate, contact, status, asked_wait: Millis::ZERO });
}

/// gRPC delivers by 0 alone, and gives no message up for a status that may change.
fn check_grpc(reading: Reading, status: u16) {
    let fate = match status {
        0 => Fate::Delivered,
        7 | 16 => Fate::Unauthorized,
        3 | 5 | 6 | 9 | 11 | 12 | 15 => Fate::Rejected,
        _ => Fate::Failed,
    };
    assert_eq!((reading.fate, reading.status), (fate, status));
    assert_eq!(reading.contact == Contact::Overloaded, matches!(status, 8 | 14), "{status}");
}
