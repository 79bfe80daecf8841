//! What a live answer means: the kind of failure, whether it is taken, and the sign that it gives.
//!
//! Input: status GS gRPC status, if any GS flags GS who answered GS attempts GS statuses GS policy GS method GS key.

use crate::input::Sections;
use redeliver_core::classify::{
    AnswerFacts, AnsweredBy, Custody, FailureKind, Repeatable, Sign, classify, custody, flag, repeatable, sign,
};
use redeliver_core::config::{Failure, UnknownOutcome};

const POLICIES: [UnknownOutcome; 3] = [UnknownOutcome::IfIdempotent, UnknownOutcome::Always, UnknownOutcome::Never];

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    let facts = AnswerFacts {
        status: sections.number() as u16,
        grpc_status: sections.items().first().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()),
        flags: sections.number(),
        answered_by: sections.choice(&[AnsweredBy::Receiver, AnsweredBy::Envoy]),
        attempts: sections.number(),
    };
    let statuses = sections.texts().iter().filter_map(|text| text.parse().ok()).collect();
    let unknown_outcome = sections.choice(&POLICIES);
    let failure = Failure { statuses, grpc_statuses: vec![14], unknown_outcome };
    let (method, key) = (sections.bytes(), sections.items());

    let kind = classify(&facts, &failure);
    check_kind(kind, &facts, &failure);
    check_sign(sign(&facts), &facts);
    check_custody(kind, unknown_outcome, repeatable(method, key.first().copied()), method, key.first().copied());
}

fn check_kind(kind: FailureKind, facts: &AnswerFacts, failure: &Failure) {
    let is_listed = failure.statuses.contains(&facts.status);
    let is_listed_grpc = facts.grpc_status.is_some_and(|status| failure.grpc_statuses.contains(&status));
    let was_sent = facts.flags & flag::IN_DOUBT != 0 || facts.attempts > 1;
    let allowed = match kind {
        // The only kind that is taken whatever may have happened, so nothing may have gone out.
        FailureKind::NeverReached => {
            facts.answered_by == AnsweredBy::Envoy && facts.flags & flag::NOT_REACHED != 0 && !was_sent
        }
        FailureKind::Refused => facts.answered_by == AnsweredBy::Receiver && (is_listed || is_listed_grpc),
        FailureKind::OutcomeUnknown => match facts.answered_by {
            AnsweredBy::Envoy => was_sent,
            AnsweredBy::Receiver => is_listed && [502, 504].contains(&facts.status),
        },
        FailureKind::NoFailure => match facts.answered_by {
            AnsweredBy::Envoy => facts.flags & (flag::IN_DOUBT | flag::NOT_REACHED) == 0,
            AnsweredBy::Receiver => !is_listed && !is_listed_grpc,
        },
    };
    assert!(allowed, "{kind:?} of {facts:?} with {failure:?}");
}

/// Envoy's own answer never shows that the receiver lives, and a success is the receiver's.
fn check_sign(sign: Sign, facts: &AnswerFacts) {
    let is_receivers = matches!(sign, Sign::Success | Sign::Answered);
    assert_eq!(is_receivers, facts.answered_by == AnsweredBy::Receiver, "{sign:?} of {facts:?}");
    assert!(sign != Sign::Success || facts.status < 500, "{facts:?}");
}

fn check_custody(kind: FailureKind, policy: UnknownOutcome, repeatable: Repeatable, method: &[u8], key: Option<&[u8]>) {
    let is_harmless = method == b"PUT" || method == b"DELETE" || !key.unwrap_or_default().is_empty();
    assert_eq!(repeatable == Repeatable::Yes, is_harmless, "{method:?} {key:?}");
    let taken = custody(kind, policy, repeatable);
    assert_eq!(taken == Custody::Pass, kind == FailureKind::NoFailure, "{kind:?}");
    let is_dangerous = kind == FailureKind::OutcomeUnknown && policy != UnknownOutcome::Always && !is_harmless;
    assert!(taken != Custody::Take || !is_dangerous, "{kind:?} {policy:?}");
}
