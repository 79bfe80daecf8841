//! How long a message may wait once everything is well: I12 and I13 before the history ends.
//!
//! A destination is sound while its receiver takes everything and Envoy knows it. Then nothing may be left after the rules'
//! patience; what disturbs the whole process (a dead VM, damage, a clock, a push) starts the wait anew. Time in which
//! redelivery has as many out as live traffic leaves to it does not count: such a backlog takes as long as it takes.

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
    /// It serves live traffic, and redelivery has as many out as it may have beside that.
    pub is_at_its_share: bool,
    /// What its leader says.
    pub state: Option<PublishedState>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Moment,
    sound_since: Moment,
    free_since: Moment,
    up_since: Moment,
    state: Option<PublishedState>,
    is_at_its_share: bool,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Patience {
    seen: BTreeMap<Destination, Seen>,
    /// The times between two looks that both saw redelivery at its share: when they ended, and how long all of them were
    /// together by then.
    at_its_share: BTreeMap<Destination, Vec<(Moment, Duration)>>,
    disturbed_at: Moment,
}

/// No sign from before may take a destination down after so long.
const SOUND_MIN: Duration = Duration::from_secs(10);

impl Patience {
    /// Something that no destination is to blame for, until this moment.
    pub fn disturbed(&mut self, until: Moment) {
        self.disturbed_at = self.disturbed_at.max(until);
    }

    /// The destination is not sound at this moment, whether or not somebody looks just then.
    pub fn unsound(&mut self, destination: Destination, now: Moment) {
        if let Some(seen) = self.seen.get_mut(&destination) {
            (seen.sound_since, seen.free_since) = (now, now);
        }
    }

    /// One more look. I6: a destination that is sound does not go down, whatever its circuit breaker does.
    pub fn look(&mut self, destination: Destination, sight: Sight, now: Moment) -> Option<Violation> {
        let before = self.seen.get(&destination).copied().unwrap_or(Seen {
            at: now,
            sound_since: now,
            free_since: now,
            up_since: now,
            state: None,
            is_at_its_share: false,
        });
        let sound_since = if sight.is_sound { before.sound_since } else { now };
        let free_since = if sight.is_sound && sight.is_free { before.free_since } else { now };
        let is_up = matches!(sight.state, Some(PublishedState::Up | PublishedState::Ramping));
        let up_since = if is_up { before.up_since } else { now };
        let (state, is_at_its_share) = (sight.state, sight.is_at_its_share);
        self.seen.insert(destination, Seen { at: now, sound_since, free_since, up_since, state, is_at_its_share });
        if before.is_at_its_share && is_at_its_share {
            let spans = self.at_its_share.entry(destination).or_default();
            let sum = spans.last().map_or(Duration::ZERO, |(_, sum)| *sum);
            spans.push((now, sum + (now - before.at)));
        }
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

    /// How long a message of this destination that came then has waited for nothing: since nothing has been in its way, and
    /// without the time in which live traffic left no more to redelivery than was out.
    #[must_use]
    pub fn waits_for_nothing(&self, destination: Destination, came: Moment, now: Moment) -> Duration {
        let Some(seen) = self.seen.get(&destination) else { return Duration::ZERO };
        let since = came.max(seen.free_since).max(self.disturbed_at);
        (now - since).saturating_sub(self.at_its_share_since(destination, since))
    }

    fn at_its_share_since(&self, destination: Destination, since: Moment) -> Duration {
        let Some(spans) = self.at_its_share.get(&destination) else { return Duration::ZERO };
        let sum_at = |count: usize| count.checked_sub(1).map_or(Duration::ZERO, |last| spans[last].1);
        sum_at(spans.len()) - sum_at(spans.partition_point(|(ended, _)| *ended <= since))
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

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Destination = Destination(0);

    /// Looks every 100 ms for ten seconds, at a destination that is well; at some of them redelivery is at its share.
    fn looked(is_at_its_share: impl Fn(u64) -> bool) -> Patience {
        let mut patience = Patience::default();
        for nth in 0..=100 {
            let state = Some(PublishedState::Ramping);
            let is_at_its_share = is_at_its_share(nth);
            let sight = Sight { is_sound: true, is_undisputed: true, is_free: true, is_at_its_share, state };
            assert_eq!(patience.look(PLACE, sight, Moment::millis(nth * 100)), None);
        }
        patience
    }

    #[test]
    fn time_at_the_share_is_no_wait_and_all_other_time_is() {
        let end = Moment::millis(10_000);
        let check = |is_at_its_share: fn(u64) -> bool, came, expected| {
            let waited = looked(is_at_its_share).waits_for_nothing(PLACE, Moment::millis(came), end);
            assert_eq!(waited, Duration::from_millis(expected), "came at {came} ms");
        };
        check(|_| false, 0, 10_000);
        check(|_| true, 0, 0);
        check(|nth| nth >= 30, 0, 3_000);
        check(|nth| nth < 30, 2_000, 7_100);
        // Seen there now and then is not seen to stay there.
        check(|nth| nth % 2 == 0, 0, 10_000);
    }
}
