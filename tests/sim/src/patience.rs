//! How long a message may wait once everything is well: I12 and I13 before the history ends.
//!
//! A destination is sound while its receiver takes everything and Envoy knows it. Then nothing may be left after the rules'
//! patience; what disturbs the whole process (a dead VM, damage, a clock, a push) starts the wait anew.

use crate::message::Destination;
use crate::violation::{Invariant, Violation};
use redeliver_core::cells::PublishedState;
use simvoy::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is seen of one destination.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Its receiver takes everything, and Envoy calls it healthy.
    pub is_sound: bool,
    /// Nobody says otherwise.
    pub is_undisputed: bool,
    /// Nothing else slows it: its circuit breaker is open wide.
    pub is_free: bool,
    /// What its leader says.
    pub state: Option<PublishedState>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    sound_since: Moment,
    free_since: Moment,
    up_since: Moment,
    state: Option<PublishedState>,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Patience {
    seen: BTreeMap<Destination, Seen>,
    disturbed_at: Moment,
}

/// No sign from before may take a destination down after so long.
const SOUND_MIN: Duration = Duration::from_secs(10);

impl Patience {
    /// Something that no destination is to blame for, until this moment.
    pub fn disturbed(&mut self, until: Moment) {
        self.disturbed_at = self.disturbed_at.max(until);
    }

    /// One more look. I6: a destination that is sound does not go down, whatever its circuit breaker does.
    pub fn look(&mut self, destination: Destination, sight: Sight, now: Moment) -> Option<Violation> {
        let before = self.seen.get(&destination).copied().unwrap_or(Seen {
            sound_since: now,
            free_since: now,
            up_since: now,
            state: None,
        });
        let sound_since = if sight.is_sound { before.sound_since } else { now };
        let free_since = if sight.is_sound && sight.is_free { before.free_since } else { now };
        let is_up = matches!(sight.state, Some(PublishedState::Up | PublishedState::Ramping));
        let up_since = if is_up { before.up_since } else { now };
        self.seen.insert(destination, Seen { sound_since, free_since, up_since, state: sight.state });
        let went_down = sight.is_undisputed
            && matches!(before.state, Some(PublishedState::Up | PublishedState::Ramping))
            && sight.state == Some(PublishedState::Down);
        let sound_for = now - sound_since.max(self.disturbed_at);
        (went_down && sound_for > SOUND_MIN).then(|| {
            let text = format!("{} went down; its receiver has been well for {sound_for:?}", destination.cluster());
            Violation::whole(Invariant::Paced, text)
        })
    }

    /// How long nothing has been in the way of this destination's messages.
    #[must_use]
    pub fn free_for(&self, destination: Destination, now: Moment) -> Duration {
        self.seen.get(&destination).map_or(Duration::ZERO, |seen| now - seen.free_since.max(self.disturbed_at))
    }

    /// How long this destination has been called up by who leads it.
    #[must_use]
    pub fn up_for(&self, destination: Destination, now: Moment) -> Duration {
        self.seen.get(&destination).map_or(Duration::ZERO, |seen| now - seen.up_since)
    }

    /// The invariant that a message breaks which waits too long: fairness, if another destination is not well.
    #[must_use]
    pub fn invariant(&self, destination: Destination, now: Moment) -> Invariant {
        let is_other_in_trouble =
            |(other, seen): (&Destination, &Seen)| *other != destination && seen.sound_since == now;
        if self.seen.iter().any(is_other_in_trouble) { Invariant::Fair } else { Invariant::Drains }
    }
}
