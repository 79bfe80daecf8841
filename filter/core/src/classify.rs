//! What a failed request means for custody: the table of CONTRACT section 5, as data.
//!
//! | answered by | sign | kind |
//! | --- | --- | --- |
//! | the receiver | a listed 502 or 504 | outcome unknown: a gateway speaks for somebody else |
//! | the receiver | another listed status, or a listed gRPC status before any message | refused |
//! | the receiver | anything else | no failure to us |
//! | Envoy | timeout, reset, connection cut, protocol error | outcome unknown |
//! | Envoy | no healthy host, connection failure, overflow, after one attempt | never reached |
//! | Envoy | the same after more than one attempt: an earlier one may have been processed | outcome unknown |
//! | Envoy | none of these: another filter, no route, a limit | no failure to us |
//!
//! Flags are a bit set: a route retry leaves several bits (reset, then refused, reads 0x8020). Never looks at the status
//! alone: a local-reply mapper may have changed it.

use crate::answer::{Answer, Contact, Fate, read};
use crate::config::{Failure, UnknownOutcome};

/// What Envoy tells about an answer, read after the fact (`response.*` and `upstream.*` attributes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerFacts {
    /// `:status`.
    pub status: u16,
    /// `grpc-status`, of the headers or, if no message came before them, of the trailers.
    pub grpc_status: Option<u16>,
    /// `response.flags`, a bit set ([`flag`]).
    pub flags: u64,
    /// Whose answer it is: `response.code_details` is `via_upstream` for the receiver's.
    pub answered_by: AnsweredBy,
    /// `upstream.request_attempt_count`, which includes an attempt that found no host; 0 if no attempt found one.
    pub attempts: u64,
}

/// Who made an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The receiver.
    Receiver,
    /// Envoy itself, or a filter in it.
    Envoy,
}

/// Envoy's response flags, as `response.flags` shows them (CoreResponseFlag in Envoy's stream_info.h, bit = ordinal).
pub mod flag {
    /// UH.
    pub const NO_HEALTHY_HOST: u64 = 1 << 1;
    /// UT.
    pub const TIMEOUT: u64 = 1 << 2;
    /// LR.
    pub const LOCAL_RESET: u64 = 1 << 3;
    /// UR.
    pub const REMOTE_RESET: u64 = 1 << 4;
    /// UF.
    pub const CONNECTION_FAILURE: u64 = 1 << 5;
    /// UC.
    pub const CONNECTION_TERMINATION: u64 = 1 << 6;
    /// UO.
    pub const OVERFLOW: u64 = 1 << 7;
    /// UMSDR.
    pub const MAX_STREAM_DURATION: u64 = 1 << 19;
    /// UPE.
    pub const PROTOCOL_ERROR: u64 = 1 << 23;
    /// The request did not get to a host.
    pub const NOT_REACHED: u64 = NO_HEALTHY_HOST | CONNECTION_FAILURE | OVERFLOW;
    /// The request went out, and nobody knows what became of it.
    pub const IN_DOUBT: u64 =
        TIMEOUT | LOCAL_RESET | REMOTE_RESET | CONNECTION_TERMINATION | MAX_STREAM_DURATION | PROTOCOL_ERROR;
}

/// The kinds of CONTRACT section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No host saw the request.
    NeverReached,
    /// The receiver said "not now".
    Refused,
    /// A host may have processed it.
    OutcomeUnknown,
    /// Not ours to judge.
    NoFailure,
}

/// The kind of an answer, by the table above.
#[must_use]
pub fn classify(facts: &AnswerFacts, failure: &Failure) -> FailureKind {
    match facts.answered_by {
        AnsweredBy::Receiver => classify_receivers(facts, failure),
        AnsweredBy::Envoy if facts.flags & flag::IN_DOUBT != 0 => FailureKind::OutcomeUnknown,
        AnsweredBy::Envoy if facts.flags & flag::NOT_REACHED == 0 => FailureKind::NoFailure,
        AnsweredBy::Envoy if facts.attempts > 1 => FailureKind::OutcomeUnknown,
        AnsweredBy::Envoy => FailureKind::NeverReached,
    }
}

fn classify_receivers(facts: &AnswerFacts, failure: &Failure) -> FailureKind {
    let is_listed = failure.statuses.contains(&facts.status);
    match facts.status {
        502 | 504 if is_listed => FailureKind::OutcomeUnknown,
        _ if is_listed || facts.grpc_status.is_some_and(|status| failure.grpc_statuses.contains(&status)) => {
            FailureKind::Refused
        }
        _ => FailureKind::NoFailure,
    }
}

/// Whether sending a request twice does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// PUT or DELETE (idempotent by RFC 9110 9.2.2), or the sender sent an idempotency key.
    Yes,
    /// Nobody says so.
    No,
}

/// Whether a request of this method may be sent twice.
#[must_use]
pub fn repeatable(method: &[u8], key: Option<&[u8]>) -> Repeatable {
    if matches!(method, b"PUT" | b"DELETE") || key.is_some_and(|key| !key.is_empty()) {
        Repeatable::Yes
    } else {
        Repeatable::No
    }
}

/// What is done about a failed request, as far as the failure decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// Take it.
    Take,
    /// A failure, but too dangerous to send again.
    Decline,
    /// Not ours: hand the answer on as it is.
    Pass,
}

/// Whether a failure of `kind` is taken into custody.
#[must_use]
pub const fn custody(kind: FailureKind, unknown_outcome: UnknownOutcome, repeatable: Repeatable) -> Custody {
    match (kind, unknown_outcome, repeatable) {
        (FailureKind::NoFailure, _, _) => Custody::Pass,
        (FailureKind::NeverReached | FailureKind::Refused, _, _)
        | (FailureKind::OutcomeUnknown, UnknownOutcome::Always, _)
        | (FailureKind::OutcomeUnknown, UnknownOutcome::IfIdempotent, Repeatable::Yes) => Custody::Take,
        (FailureKind::OutcomeUnknown, UnknownOutcome::IfIdempotent, Repeatable::No)
        | (FailureKind::OutcomeUnknown, UnknownOutcome::Never, _) => Custody::Decline,
    }
}

/// What a live answer says about its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Envoy has no healthy host for it.
    NoHealthyHost,
    /// A connection could not be made.
    ConnectionFailure,
    /// The receiver answered, but with a failure.
    Answered,
    /// The receiver answered well.
    Success,
    /// Nothing (an overflow comes from a healthy receiver too).
    Nothing,
}

/// Whether this answer shows a receiver that is at work: by a status for which nothing would be sent again.
fn is_well(facts: &AnswerFacts) -> bool {
    match facts.grpc_status {
        Some(status) if facts.status == 200 => {
            let reading = read(Answer::ReceivedGrpc(status));
            reading.fate != Fate::Failed && reading.contact == Contact::Answered
        }
        Some(_) | None => facts.status < 500 && facts.status != 429,
    }
}

/// Reads the sign.
#[must_use]
pub fn sign(facts: &AnswerFacts) -> Sign {
    match facts.answered_by {
        AnsweredBy::Receiver if is_well(facts) => Sign::Success,
        AnsweredBy::Receiver => Sign::Answered,
        AnsweredBy::Envoy if facts.flags & flag::NO_HEALTHY_HOST != 0 => Sign::NoHealthyHost,
        AnsweredBy::Envoy if facts.flags & flag::CONNECTION_FAILURE != 0 => Sign::ConnectionFailure,
        AnsweredBy::Envoy => Sign::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const RECEIVER: AnsweredBy = AnsweredBy::Receiver;
    const ENVOY: AnsweredBy = AnsweredBy::Envoy;

    fn failure(statuses: &[u16]) -> Failure {
        Failure { statuses: statuses.to_vec(), grpc_statuses: vec![14], unknown_outcome: UnknownOutcome::IfIdempotent }
    }

    fn check(story: &str, by: AnsweredBy, status: u16, flags: u64, attempts: u64, expected: FailureKind) {
        let facts = AnswerFacts { status, grpc_status: None, flags, answered_by: by, attempts };
        assert_eq!(classify(&facts, &failure(&[503, 502, 504])), expected, "{story}");
    }

    #[test]
    fn each_kind_is_told_by_its_signs() {
        use FailureKind::{NeverReached, NoFailure, OutcomeUnknown, Refused};
        check("no healthy host", ENVOY, 503, flag::NO_HEALTHY_HOST, 0, NeverReached);
        check("connection refused", ENVOY, 503, flag::CONNECTION_FAILURE, 1, NeverReached);
        check("overflow", ENVOY, 503, flag::OVERFLOW, 1, NeverReached);
        check("processed, then refused", ENVOY, 503, 0x8020, 2, OutcomeUnknown);
        check("timeout", ENVOY, 504, flag::TIMEOUT, 1, OutcomeUnknown);
        check("reset", ENVOY, 503, flag::CONNECTION_TERMINATION, 1, OutcomeUnknown);
        check("reset and refused", ENVOY, 503, flag::REMOTE_RESET | flag::CONNECTION_FAILURE, 1, OutcomeUnknown);
        check("the receiver's 503", RECEIVER, 503, 0, 1, Refused);
        check("the receiver's listed 504", RECEIVER, 504, 0, 1, OutcomeUnknown);
        check("the receiver's 500", RECEIVER, 500, 0, 1, NoFailure);
        check("the receiver's 200", RECEIVER, 200, 0, 1, NoFailure);
        check("another filter's 503", ENVOY, 503, 1 << 10, 0, NoFailure);
        check("no route", ENVOY, 404, 1 << 8, 0, NoFailure);
        check("mapped to another status", ENVOY, 599, flag::NO_HEALTHY_HOST, 0, NeverReached);
    }

    #[test]
    fn a_listed_grpc_status_is_a_refusal() {
        let facts = AnswerFacts { status: 200, grpc_status: Some(14), flags: 0, answered_by: RECEIVER, attempts: 1 };
        assert_eq!(classify(&facts, &failure(&[503])), FailureKind::Refused);
    }

    /// The prose table again, row by row, as conditions: every combination must meet exactly one row, and that row's
    /// kind must be what the product says.
    #[test]
    fn every_combination_meets_exactly_one_row_of_the_table() {
        type Row = (fn(&AnswerFacts) -> bool, FailureKind);
        let rows: [Row; 7] = [
            (|f| f.answered_by == RECEIVER && matches!(f.status, 502 | 504), FailureKind::OutcomeUnknown),
            (|f| f.answered_by == RECEIVER && f.status == 503, FailureKind::Refused),
            (|f| f.answered_by == RECEIVER && !matches!(f.status, 502..=504), FailureKind::NoFailure),
            (|f| f.answered_by == ENVOY && f.flags & flag::IN_DOUBT != 0, FailureKind::OutcomeUnknown),
            (
                |f| {
                    f.answered_by == ENVOY
                        && f.flags & flag::IN_DOUBT == 0
                        && f.flags & flag::NOT_REACHED != 0
                        && f.attempts <= 1
                },
                FailureKind::NeverReached,
            ),
            (
                |f| {
                    f.answered_by == ENVOY
                        && f.flags & flag::IN_DOUBT == 0
                        && f.flags & flag::NOT_REACHED != 0
                        && f.attempts > 1
                },
                FailureKind::OutcomeUnknown,
            ),
            (|f| f.answered_by == ENVOY && f.flags & (flag::IN_DOUBT | flag::NOT_REACHED) == 0, FailureKind::NoFailure),
        ];
        for answered_by in [RECEIVER, ENVOY] {
            for status in [200, 202, 404, 429, 500, 502, 503, 504] {
                for flags in 0..=0x1_ffff {
                    for attempts in [0, 1, 2] {
                        let facts = AnswerFacts { status, grpc_status: None, flags, answered_by, attempts };
                        let mut met = rows.iter().filter(|(condition, _)| condition(&facts));
                        let kind = met.next().map(|(_, kind)| *kind);
                        assert!(met.next().is_none(), "two rows for {facts:?}");
                        assert_eq!(kind, Some(classify(&facts, &failure(&[502, 503, 504]))), "{facts:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_unknown_outcome_is_taken_only_when_a_repeat_is_harmless_or_allowed() {
        use UnknownOutcome::{Always, IfIdempotent, Never};
        let unknown = |policy, method: &[u8], key: Option<&[u8]>| {
            custody(FailureKind::OutcomeUnknown, policy, repeatable(method, key))
        };
        assert_eq!(unknown(IfIdempotent, b"PUT", None), Custody::Take);
        assert_eq!(unknown(IfIdempotent, b"DELETE", None), Custody::Take);
        assert_eq!(unknown(IfIdempotent, b"POST", None), Custody::Decline);
        assert_eq!(unknown(IfIdempotent, b"PATCH", Some(b"")), Custody::Decline);
        assert_eq!(unknown(IfIdempotent, b"POST", Some(b"k")), Custody::Take);
        assert_eq!(unknown(Never, b"PUT", Some(b"k")), Custody::Decline);
        assert_eq!(unknown(Always, b"POST", None), Custody::Take);
    }
}
