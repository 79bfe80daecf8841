//! Envoy's own replies, told apart by their text, and what any answer to a redelivery means.
//!
//! Input: status GS text.

use crate::input::Sections;
use redeliver_core::answer::{Answer, Contact, EnvoyReply, Fate, Reading, read};

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    let (status, text) = (sections.number() as u16, sections.bytes());
    let reply = EnvoyReply::read(status, text);
    assert_eq!(reply, second_reading(status, &String::from_utf8_lossy(text)), "{status}");
    check_envoys(read(Answer::Envoy(reply)), reply);
    check_receivers(read(Answer::Received(status)), status);
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
    assert!(!matches!(reading.contact, Contact::Answered | Contact::Overloaded), "{reply:?} means {reading:?}");
}

/// The receiver's: delivered by a 2xx alone, again by what CONTRACT section 4 lists, rejected by all else.
fn check_receivers(reading: Reading, status: u16) {
    let is_again = matches!(status, 408 | 425 | 429) || status / 100 == 5;
    let fate = match (status / 100, is_again) {
        (2, _) => Fate::Delivered,
        (_, true) => Fate::Failed,
        (_, false) => Fate::Rejected,
    };
    let contact = if [429, 503].contains(&status) { Contact::Overloaded } else { Contact::Answered };
    assert_eq!(reading, Reading { fate, contact, status });
}
