//! What a sender is told of a failure, against the contract's sections 4 and 5: what must be stored is, and a reason for
//! not storing is true.

use super::record::{Contact, REFUSED, Record};
use crate::message::Manner;
use crate::receiving::neighbours::{REFUSAL, are_receivers_words, has_gone_round};
use crate::rules::{HOLD_MAX, Mode, Rules, UnknownOutcome};
use crate::town::FORGED_ID;
use simvoy::Response;

/// What the world knows about an answer to a sender.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Whether a store had room for it.
    pub room: Room,
    /// Whether a failure may be handed on without custody.
    pub failure: Failure,
}

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There was, whatever others stored just then.
    Enough,
    /// Nobody can say.
    Unsure,
}

/// What it means if a failure is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The rules decide.
    Judged,
    /// Something else than a receiver is behind it: a VM that died, a thread that stood still, a cluster that is gone.
    Forgiven,
}

const NOT_STORED: &str = "not-stored; reason=";

impl Record {
    /// What is wrong with what its sender was told, other than that it is stored.
    pub(super) fn wrong_word(&self, response: &Response, rules: &Rules, view: View) -> Option<String> {
        let word = response.headers.text("x-redeliver-status");
        let is_forged = response.headers.text("x-redeliver-id") == Some(FORGED_ID);
        let reason = word.and_then(|word| word.strip_prefix(NOT_STORED));
        match (word, reason) {
            (Some("stored" | "duplicate"), _) => None,
            (Some(word), _) if !self.message.is_protected() => {
                (!is_forged).then(|| format!("not protected, and its sender was told {word:?}"))
            }
            (Some(word), None) => Some(format!("its sender was told {word:?}")),
            // A neighbour's word about what is no failure to us.
            (Some(_), Some(REFUSAL))
                if are_receivers_words(&self.message, response, rules) && response.code() != REFUSED =>
            {
                None
            }
            (Some(word), Some(_)) if response.code() < 400 => {
                Some(format!("answered {}, and its sender was told {word:?}", response.code()))
            }
            (Some(word), Some(reason)) if view.failure == Failure::Judged && !self.is_reason(reason, rules, view) => {
                Some(format!("its sender was told {word:?}, which is not so"))
            }
            (Some(_), _) if is_forged && self.is_elsewhere => None,
            (None, _) if response.code() == REFUSED && view.failure == Failure::Judged => {
                self.message.is_protected().then(|| "its failure was handed on without a word about it".to_owned())
            }
            (Some(_) | None, _) => None,
        }
    }

    /// Whether this reason for not storing it is true.
    fn is_reason(&self, reason: &str, rules: &Rules, view: View) -> bool {
        match reason {
            "full" => view.room == Room::Unsure,
            "too-large" => self.message.body.len() > rules.body_max,
            "unknown-outcome" => !self.is_known(rules) && !self.may_be_repeated(rules),
            "incomplete-body" => !self.is_whole(rules),
            "unstorable" => {
                matches!(self.message.manner, Manner::Trailers(..))
                    || self.message.is_odd_call()
                    || has_gone_round(&self.message, rules)
            }
            _ => false,
        }
    }

    /// Whether everybody can know that it was not processed: it was refused, or no host has seen it. Where the route tries
    /// again by itself, an attempt that found no host leaves no trace at a receiver.
    fn is_known(&self, rules: &Rules) -> bool {
        let was_refused = self.live.last().is_some_and(|live| live.said == Some(REFUSED));
        let was_never_reached = self.live.iter().all(|live| live.contact == Contact::None);
        rules.retries == 0 && (was_refused || was_never_reached)
    }

    /// Whether a failure may be stored though the request may have been processed.
    pub(super) fn may_be_repeated(&self, rules: &Rules) -> bool {
        match rules.unknown_outcome {
            UnknownOutcome::Always => true,
            UnknownOutcome::IfIdempotent => self.message.is_repeatable(),
            UnknownOutcome::Never => false,
        }
    }

    /// Whether the filter must have seen all of its body before it let go of its head.
    pub(super) fn is_whole(&self, rules: &Rules) -> bool {
        let has_paused = match self.message.manner {
            Manner::Whole => false,
            Manner::Pieces(_, pause) | Manner::Trailers(_, pause) | Manner::HangsUp(_, pause) => pause >= HOLD_MAX,
        };
        let is_seen = rules.mode == Mode::Hold && !has_paused && !self.went_on;
        self.message.body.is_empty() || (self.is_sent_whole && is_seen)
    }
}
