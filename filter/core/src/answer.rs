//! What the answer to a redelivery means: the table of CONTRACT section 4, as data ([`HTTP`], [`GRPC`]).
//!
//! | answer | message | attempt | destination |
//! | --- | --- | --- | --- |
//! | 2xx; gRPC 0 | delivered | | reachable, well |
//! | 429, 503 of the receiver; gRPC 8, 14 | again | counts | reachable, overloaded |
//! | 502, 504 of the receiver; gRPC 4 | again | counts | reachable, somebody behind it is not |
//! | 408, 425, other 5xx of the receiver; gRPC 1, 2, 10, 13 | again | counts | reachable |
//! | 401, 403; gRPC 7, 16 | by `redelivery.on_unauthorized` | | reachable |
//! | other 4xx, 3xx; gRPC 3, 5, 6, 9, 11, 12, 15 | dead letter: rejected | | reachable |
//! | Envoy: connection failure, connection timeout | again | only if the receiver answered others meanwhile | not reached |
//! | the dispatch is refused on the spot: no host, or a circuit breaker is full | again | the same | not asked: wait, it may be well |
//! | Envoy: timeout, cut off, protocol error; or an answer that broke off (no headers) | again | counts | in trouble |
//! | Envoy: it refuses the headers | dead letter: unstorable | | nothing |
//! | no such cluster | again | none | gone |
//! | any status of a neighbour that says it has stored it (`trust.from_receivers`) | delivered: custody has moved on | | reachable |
//!
//! How long an answer asks us to wait is [`crate::retry_after`]'s.

use crate::units::Millis;
use std::ops::RangeInclusive;

/// What a status of the receiver means; the first row that has it counts.
pub const HTTP: &[Row] = &[
    row(200..=299, Fate::Delivered, Contact::Answered),
    row(401..=401, Fate::Unauthorized, Contact::Answered),
    row(403..=403, Fate::Unauthorized, Contact::Answered),
    row(408..=408, Fate::Failed, Contact::Answered),
    row(425..=425, Fate::Failed, Contact::Answered),
    row(429..=429, Fate::Failed, Contact::Overloaded),
    row(502..=502, Fate::Failed, Contact::Gateway),
    row(503..=503, Fate::Failed, Contact::Overloaded),
    row(504..=504, Fate::Failed, Contact::Gateway),
    row(500..=599, Fate::Failed, Contact::Answered),
    row(0..=u16::MAX, Fate::Rejected, Contact::Answered),
];

/// What a gRPC status means; the first row that has it counts. Each is read as the HTTP status that google.rpc.Code sets
/// beside it, but for three: CANCELLED (1) is a reset of somebody on the way, ABORTED (10) asks to be tried again, and
/// UNIMPLEMENTED (12) and DATA_LOSS (15) do not change by being tried again.
pub const GRPC: &[Row] = &[
    row(0..=0, Fate::Delivered, Contact::Answered),
    row(4..=4, Fate::Failed, Contact::Gateway),
    row(8..=8, Fate::Failed, Contact::Overloaded),
    row(14..=14, Fate::Failed, Contact::Overloaded),
    row(7..=7, Fate::Unauthorized, Contact::Answered),
    row(16..=16, Fate::Unauthorized, Contact::Answered),
    row(1..=2, Fate::Failed, Contact::Answered),
    row(10..=10, Fate::Failed, Contact::Answered),
    row(13..=13, Fate::Failed, Contact::Answered),
    row(3..=15, Fate::Rejected, Contact::Answered),
    // Codes that do not exist are UNKNOWN (the gRPC specification).
    row(17..=u16::MAX, Fate::Failed, Contact::Answered),
];

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The statuses that it is about.
    pub statuses: RangeInclusive<u16>,
    /// For the message.
    pub fate: Fate,
    /// For the destination.
    pub contact: Contact,
}

const fn row(statuses: RangeInclusive<u16>, fate: Fate, contact: Contact) -> Row {
    Row { statuses, fate, contact }
}

/// An answer to a dispatch, as the host gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The receiver's status (Envoy's own replies lack `x-envoy-upstream-service-time`, measured).
    Received(u16),
    /// The receiver's gRPC status, from the headers or the trailers of its answer.
    ReceivedGrpc(u16),
    /// Envoy's own reply.
    Envoy(EnvoyReply),
    /// A neighbour of ours has taken custody; this is its status.
    TakenOver(u16),
    /// No headers: the answer broke off.
    BrokenOff,
    /// The dispatch was refused on the spot: no healthy host, or a circuit breaker is full.
    RefusedLocally,
    /// The dispatch was refused on the spot: Envoy knows no such cluster.
    UnknownCluster,
}

/// Envoy's own reply to a dispatch, told apart by its text (measured on 1.36 to 1.40, PLATFORM 1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvoyReply {
    /// No connection came about.
    NotReached,
    /// It would not ask: no host, no room in a circuit breaker, no route.
    NotAsked,
    /// The headers cannot be put on the wire.
    InvalidHeader,
    /// Anything else: the request may have been processed. Carries the status.
    InDoubt(u16),
}

impl EnvoyReply {
    /// Reads a reply that may be of an Envoy behind, by how its router's texts begin (measured on 1.40); `None`: it is
    /// somebody else's.
    #[must_use]
    pub fn recognise(status: u16, text: &[u8]) -> Option<Self> {
        const BEGINNINGS: [&[u8]; 4] = [
            b"upstream connect error or disconnect/reset before headers",
            b"no healthy upstream",
            b"upstream request timeout",
            b"upstream max stream duration reached",
        ];
        BEGINNINGS.into_iter().any(|beginning| text.starts_with(beginning)).then(|| Self::read(status, text))
    }

    /// Reads a reply of Envoy.
    #[must_use]
    pub fn read(status: u16, text: &[u8]) -> Self {
        const NOT_REACHED: [&[u8]; 2] = [b"connection failure", b"connection timeout"];
        const NOT_ASKED: [&[u8]; 4] = [b"no healthy upstream", b"overflow", b"no cluster match", b"no route"];
        let says = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
        if says(b"invalid header") {
            return Self::InvalidHeader;
        }
        match status {
            503 if NOT_REACHED.into_iter().any(says) => Self::NotReached,
            503 if NOT_ASKED.into_iter().any(says) => Self::NotAsked,
            _ => Self::InDoubt(status),
        }
    }
}

/// What becomes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Delivered,
    /// It failed in earnest: the attempt counts.
    Failed,
    /// It was not reached: the attempt counts only if the receiver was answering others at the time.
    NotReached,
    /// The receiver does not accept who sends it: `redelivery.on_unauthorized` decides.
    Unauthorized,
    /// The receiver will never take it.
    Rejected,
    /// Envoy will never send it.
    Unsendable,
}

/// What the answer says about the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The receiver answered and took the message or judged it.
    Answered,
    /// The receiver answered that it has too much to do (429, 503).
    Overloaded,
    /// The receiver answered for somebody behind it that is in trouble (502, 504).
    Gateway,
    /// Something went out, and no whole answer came.
    Trouble,
    /// No connection came about.
    NotReached,
    /// Envoy would not ask it: no healthy host, or a full circuit breaker, which a healthy receiver has too.
    NotAsked,
    /// Envoy knows no such cluster.
    Unknown,
    /// Nothing.
    Nothing,
}

/// An answer, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// For the message.
    pub fate: Fate,
    /// For the destination.
    pub contact: Contact,
    /// The status for reports, HTTP or gRPC (those end at 16); 0 without one.
    pub status: u16,
    /// How long the receiver asked not to be sent this message; zero if it did not ask.
    pub asked_wait: Millis,
}

/// Reads an answer by the table above; without headers nobody has asked for a wait.
#[must_use]
pub fn read(answer: Answer) -> Reading {
    let (fate, contact, status) = match answer {
        Answer::Received(status) => look_up(HTTP, status),
        Answer::ReceivedGrpc(status) => look_up(GRPC, status),
        Answer::TakenOver(status) => (Fate::Delivered, Contact::Answered, status),
        Answer::Envoy(EnvoyReply::NotReached) => (Fate::NotReached, Contact::NotReached, 503),
        Answer::Envoy(EnvoyReply::NotAsked) => (Fate::NotReached, Contact::NotAsked, 503),
        Answer::Envoy(EnvoyReply::InvalidHeader) => (Fate::Unsendable, Contact::Nothing, 503),
        Answer::Envoy(EnvoyReply::InDoubt(status)) => (Fate::Failed, Contact::Trouble, status),
        Answer::BrokenOff => (Fate::Failed, Contact::Trouble, 0),
        Answer::RefusedLocally => (Fate::NotReached, Contact::NotAsked, 0),
        Answer::UnknownCluster => (Fate::NotReached, Contact::Unknown, 0),
    };
    Reading { fate, contact, status, asked_wait: Millis::ZERO }
}

/// Both tables have a row for every number; a hole would mean an answer like any other failure.
fn look_up(table: &[Row], status: u16) -> (Fate, Contact, u16) {
    let found = table.iter().find(|row| row.statuses.contains(&status));
    found.map_or((Fate::Failed, Contact::Answered, status), |row| (row.fate, row.contact, status))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A status beside what the contract makes of it.
    fn check(read: impl Fn(u16) -> Reading, expected: impl Fn(u16) -> (Fate, Contact), statuses: RangeInclusive<u16>) {
        for status in statuses {
            let found = read(status);
            assert_eq!((found.fate, found.contact), expected(status), "{status}");
            assert_eq!((found.status, found.asked_wait), (status, Millis::ZERO), "{status}");
        }
    }

    #[test]
    fn every_status_of_a_receiver_has_the_fate_of_the_contract() {
        let expected = |status| match status {
            200..=299 => (Fate::Delivered, Contact::Answered),
            401 | 403 => (Fate::Unauthorized, Contact::Answered),
            429 | 503 => (Fate::Failed, Contact::Overloaded),
            502 | 504 => (Fate::Failed, Contact::Gateway),
            408 | 425 | 500..=599 => (Fate::Failed, Contact::Answered),
            _ => (Fate::Rejected, Contact::Answered),
        };
        check(|status| read(Answer::Received(status)), expected, 0..=u16::MAX);
    }

    #[test]
    fn every_grpc_status_is_delivered_tried_again_or_given_up() {
        let expected = |status| match status {
            0 => (Fate::Delivered, Contact::Answered),
            8 | 14 => (Fate::Failed, Contact::Overloaded),
            4 => (Fate::Failed, Contact::Gateway),
            7 | 16 => (Fate::Unauthorized, Contact::Answered),
            3 | 5 | 6 | 9 | 11 | 12 | 15 => (Fate::Rejected, Contact::Answered),
            _ => (Fate::Failed, Contact::Answered),
        };
        check(|status| read(Answer::ReceivedGrpc(status)), expected, 0..=u16::MAX);
    }

    /// The rows of the document's table that are about statuses: its cells.
    fn rows_of_the_document() -> Vec<Vec<&'static str>> {
        let document = include_str!("../../../docs/configuration.md");
        let (_, table) = document.split_once("| HTTP | gRPC |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with("| ") && !line.contains("no whole answer"));
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    fn meaning(row: &[&str]) -> (Fate, Contact) {
        let fate = match row[2] {
            "delivered" => Fate::Delivered,
            "again" => Fate::Failed,
            "by `redelivery.on_unauthorized`" => Fate::Unauthorized,
            "dead letter, `rejected`" => Fate::Rejected,
            other => panic!("{other}"),
        };
        let contact = match (row[4], row[5]) {
            ("grows", "succeeds") => Contact::Answered,
            ("shrinks", "succeeds") => Contact::Gateway,
            ("shrinks", "fails") => Contact::Overloaded,
            other => panic!("{other:?}"),
        };
        assert_eq!(row[3], if fate == Fate::Failed { "counts" } else { "" }, "{row:?}");
        (fate, contact)
    }

    #[test]
    fn the_document_shows_these_tables() {
        let rows = rows_of_the_document();
        let names = |cell: &str, word: &str| cell.split(", ").any(|part| part == word);
        let row_of = |column: usize, words: [&str; 2]| {
            let named = |word| rows.iter().find(|row| names(row[column], word));
            meaning(words.into_iter().find_map(named).unwrap_or_else(|| panic!("no row has {words:?}: {rows:?}")))
        };
        let http = |status: u16| match status {
            200..=299 => "200 to 299",
            300..=399 => "3xx",
            400..=499 => "other 4xx",
            _ => "other 5xx",
        };
        check(
            |status| read(Answer::Received(status)),
            |status| row_of(0, [&status.to_string(), http(status)]),
            200..=599,
        );
        check(
            |status| read(Answer::ReceivedGrpc(status)),
            |status| row_of(1, [&status.to_string(), "a code that does not exist"]),
            0..=20,
        );
    }

    #[test]
    fn every_row_is_the_first_for_some_status() {
        for table in [HTTP, GRPC] {
            for (nth, row) in table.iter().enumerate() {
                let is_first = |status: u16| table.iter().position(|row| row.statuses.contains(&status)) == Some(nth);
                assert!(row.statuses.clone().any(is_first), "{row:?} is behind others that have all of it");
            }
        }
    }

    #[test]
    fn a_neighbour_that_has_custody_ends_ours_whatever_its_status_is() {
        for status in [14, 202, 503] {
            assert_eq!(read(Answer::TakenOver(status)).fate, Fate::Delivered, "{status}");
        }
    }

    #[test]
    fn envoys_replies_are_told_apart_by_their_text() {
        let refused =
            b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
        let cut = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        let cases: [(u16, &[u8], EnvoyReply); 6] = [
            (503, refused, EnvoyReply::NotReached),
            (503, b"no healthy upstream", EnvoyReply::NotAsked),
            (503, cut, EnvoyReply::InDoubt(503)),
            (504, b"upstream request timeout", EnvoyReply::InDoubt(504)),
            (502, b"protocol error", EnvoyReply::InDoubt(502)),
            (503, b"invalid header value for: x", EnvoyReply::InvalidHeader),
        ];
        for (status, text, expected) in cases {
            assert_eq!(EnvoyReply::read(status, text), expected, "{}", String::from_utf8_lossy(text));
        }
    }
}
