//! What the answer to a redelivery means: the table of CONTRACT section 4, as data.
//!
//! | answer | message | attempt | destination |
//! | --- | --- | --- | --- |
//! | 2xx | delivered | | reachable, well |
//! | 429, 503 of the receiver | again | counts | reachable, overloaded |
//! | 408, 425, other 5xx of the receiver | again | counts | reachable |
//! | other 4xx, 3xx | dead letter: rejected | | reachable |
//! | Envoy: connection failure, connection timeout | again | only if the receiver answered others meanwhile | not reached |
//! | the dispatch is refused on the spot: no host, or a circuit breaker is full | again | the same | not asked: wait, it may be well |
//! | Envoy: timeout, cut off, protocol error; or an answer that broke off (no headers) | again | counts | in trouble |
//! | Envoy: it refuses the headers | dead letter: unstorable | | nothing |
//! | no such cluster | again | none | gone |
//! | any status of a neighbour that says it has stored it (`trust.from_receivers`) | delivered: custody has moved on | | reachable |

/// An answer to a dispatch, as the host gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The receiver's status (Envoy's own replies lack `x-envoy-upstream-service-time`, measured).
    Received(u16),
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
    /// The status for reports; 0 without one.
    pub status: u16,
}

/// Reads an answer by the table above.
#[must_use]
pub const fn read(answer: Answer) -> Reading {
    let (fate, contact, status) = match answer {
        Answer::Received(status) => (fate_of(status), contact_of(status), status),
        Answer::TakenOver(status) => (Fate::Delivered, Contact::Answered, status),
        Answer::Envoy(EnvoyReply::NotReached) => (Fate::NotReached, Contact::NotReached, 503),
        Answer::Envoy(EnvoyReply::NotAsked) => (Fate::NotReached, Contact::NotAsked, 503),
        Answer::Envoy(EnvoyReply::InvalidHeader) => (Fate::Unsendable, Contact::Nothing, 503),
        Answer::Envoy(EnvoyReply::InDoubt(status)) => (Fate::Failed, Contact::Trouble, status),
        Answer::BrokenOff => (Fate::Failed, Contact::Trouble, 0),
        Answer::RefusedLocally => (Fate::NotReached, Contact::NotAsked, 0),
        Answer::UnknownCluster => (Fate::NotReached, Contact::Unknown, 0),
    };
    Reading { fate, contact, status }
}

const fn fate_of(status: u16) -> Fate {
    match status {
        200..=299 => Fate::Delivered,
        408 | 425 | 429 | 500..=599 => Fate::Failed,
        _ => Fate::Rejected,
    }
}

const fn contact_of(status: u16) -> Contact {
    match status {
        429 | 503 => Contact::Overloaded,
        _ => Contact::Answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_status_of_a_receiver_has_the_fate_of_the_contract() {
        for status in 100..=599 {
            let expected = match status {
                200..=299 => Fate::Delivered,
                408 | 425 | 429 => Fate::Failed,
                500..=599 => Fate::Failed,
                _ => Fate::Rejected,
            };
            assert_eq!(read(Answer::Received(status)).fate, expected, "{status}");
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
