//! The rules of one destination's own (`destinations.<cluster>`): the others keep those that all share.

use crate::message::Destination;
use crate::rules::{Form, Rules, UnknownOutcome};
use serde_json::{Value, json};
use std::time::Duration;

/// Which destination has rules of its own.
pub const OWNER: Destination = Destination(1);

/// They.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    /// `failure.unknown_outcome`.
    pub unknown_outcome: UnknownOutcome,
    /// `hold_while_down`, where the form that is stored allows it.
    pub holds_while_down: bool,
    /// `store.max_messages`: what its messages may take of the whole.
    pub messages_max: u32,
    /// `store.ttl`.
    pub ttl: Duration,
    /// `redelivery.timeout`.
    pub timeout: Duration,
    /// `redelivery.backoff.initial` and `.max`.
    pub backoff: (Duration, Duration),
    /// `redelivery.max_attempts`.
    pub attempts_max: u32,
    /// `redelivery.window`.
    pub window: (u32, u32),
    /// `redelivery.on_unauthorized: park`.
    pub parks: bool,
}

impl Own {
    /// Chosen by a seed.
    #[must_use]
    pub fn random(random: &mut fastrand::Rng) -> Self {
        let seconds = Duration::from_secs;
        let mut pick = |values: [u64; 3]| values[random.usize(..3)];
        Self {
            attempts_max: pick([2, 6, 20]) as u32,
            messages_max: pick([3, 12, 10_000]) as u32,
            ttl: seconds(pick([15, 30, 86_400])),
            timeout: seconds(pick([1, 2, 4])),
            backoff: [
                (Duration::from_millis(100), seconds(1)),
                (Duration::from_millis(700), seconds(5)),
                (seconds(3), seconds(20)),
            ][pick([0, 1, 2]) as usize],
            window: [(1, 2), (3, 8), (2, 3)][pick([0, 1, 2]) as usize],
            unknown_outcome: [UnknownOutcome::Always, UnknownOutcome::Never, UnknownOutcome::IfIdempotent]
                [pick([0, 1, 2]) as usize],
            holds_while_down: pick([0, 0, 1]) == 1,
            parks: pick([0, 1, 1]) == 1,
        }
    }

    /// What they say, in a configuration whose shared rules are these.
    #[must_use]
    pub fn configuration(&self, shared: &Rules) -> Value {
        let text = |span: Duration| format!("{}ms", span.as_millis());
        json!({
            "failure": {"unknown_outcome": self.unknown_outcome.word()},
            "hold_while_down": self.holds_while_down && shared.form == Form::Arrived,
            "store": {"max_messages": self.messages_max, "ttl": text(self.ttl)},
            "redelivery": {
                "timeout": text(self.timeout), "max_attempts": self.attempts_max,
                "backoff": {"initial": text(self.backoff.0), "max": text(self.backoff.1)},
                "window": {"initial": self.window.0, "max": self.window.1},
                "on_unauthorized": if self.parks { "park" } else { "dead" },
            },
        })
    }

    /// All rules of its destination.
    #[must_use]
    pub fn over(&self, shared: &Rules) -> Rules {
        let mut rules = Rules {
            unknown_outcome: self.unknown_outcome,
            ttl: self.ttl,
            timeout: self.timeout,
            backoff_initial: self.backoff.0,
            backoff_max: self.backoff.1,
            attempts_max: self.attempts_max,
            window: self.window,
            ..shared.clone()
        };
        rules.receiving.parks = self.parks;
        rules
    }
}
