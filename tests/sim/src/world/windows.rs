//! Whether redelivery takes what a receiver can give, and no more: looked at ten times a second while a receiver takes a
//! few at a time, or fails only messages of one kind.
//!
//! | receiver | redelivery, once it has settled |
//! | --- | --- |
//! | takes K at a time, more get a 503 | at least K / 2 are out; at most a fifth is refused |
//! | fails some messages with 500 | is not throttled: at least half of `window.initial` are out |
//!
//! Settled: the receiver has been like that, and led undisturbed and called up, for [`SETTLED`]; more is due than it takes.

use super::{SAMPLE, World};
use crate::message::{Destination, Message};
use crate::town::Mood;
use crate::violation::{Invariant, Violation};
use simvoy::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A window grows or shrinks by one per windowful.
const SETTLED: Duration = Duration::from_secs(8);
/// What is looked at together.
pub const LATELY: Duration = Duration::from_secs(5);
/// One refused attempt of so many, at most (deliverable 2 of the delivery semantics: 20 %).
const REFUSED_DIVISOR: usize = 5;
/// Fewer attempts say nothing about a share.
const ATTEMPTS_MIN: usize = 40;

/// What has been seen of a destination, ten times a second.
#[derive(Debug, Default)]
pub(super) struct Windows(BTreeMap<Destination, Seen>);

#[derive(Debug)]
struct Seen {
    mood: Mood,
    since: Moment,
    out: VecDeque<usize>,
}

impl Seen {
    /// What is seen together says something when there is enough of it.
    fn mean(&self) -> Option<f64> {
        let wanted = (LATELY.as_millis() / SAMPLE.as_millis()) as usize;
        (self.out.len() >= wanted).then(|| self.out.iter().sum::<usize>() as f64 / self.out.len() as f64)
    }
}

impl World {
    pub(super) fn look_at_windows(&mut self, now: Moment) {
        for destination in (0..self.history.rules.destinations).map(Destination) {
            let least = match self.town.mood(destination) {
                Mood::Takes(most, _) => most,
                Mood::Picky(..) => self.history.rules.window.0.min(self.history.rules.window.1),
                Mood::Well(_)
                | Mood::Refusing
                | Mood::Hanging
                | Mood::Slow(_)
                | Mood::Says(_)
                | Mood::Cutting
                | Mood::Crashing
                | Mood::CuttingAfter
                | Mood::Garbage
                | Mood::Flaky
                | Mood::Hasty => {
                    self.windows.0.remove(&destination);
                    continue;
                }
            };
            self.look_at_window(destination, least as usize, now);
        }
    }

    fn look_at_window(&mut self, destination: Destination, least: usize, now: Moment) {
        let mood = self.town.mood(destination);
        let seen = self.windows.0.entry(destination).or_insert(Seen { mood, since: now, out: VecDeque::new() });
        if seen.mood != mood {
            *seen = Seen { mood, since: now, out: VecDeque::new() };
        }
        let is_settled = now - seen.since.max(self.town.oracle.disturbed_at) > SETTLED
            && self.patience.up_for(destination, now) > SETTLED
            && !self.town.oracle.is_paced_otherwise(destination, now);
        let is_due =
            |path: &&str| Message::number_of(path).is_some() && Destination::of_path(path) == Some(destination);
        let due = self.mirror.due_before(redeliver_core::units::Monotonic(now.as_millis())).filter(is_due).count();
        if is_settled {
            self.look_at_refusals(destination, now);
        }
        let Some(seen) = self.windows.0.get_mut(&destination) else { return };
        if !is_settled || due < least {
            seen.out.clear();
            return;
        }
        seen.out.push_back(self.town.oracle.out_at(destination, now));
        if seen.out.len() > (LATELY.as_millis() / SAMPLE.as_millis()) as usize {
            seen.out.pop_front();
        }
        let Some(mean) = seen.mean() else { return };
        if mean * 2.0 < least as f64 {
            let cluster = destination.cluster();
            let text =
                format!("{mean:.1} redeliveries are at {cluster} on average; it takes {least}, and {due} are due");
            self.town.oracle.violated(Violation::whole(Invariant::Paced, text));
        }
    }

    fn look_at_refusals(&mut self, destination: Destination, now: Moment) {
        let (attempts, refused) = self.town.oracle.refused_lately(destination, now);
        if attempts >= ATTEMPTS_MIN && refused * REFUSED_DIVISOR > attempts {
            let cluster = destination.cluster();
            let text = format!("{cluster} refused {refused} of {attempts} redeliveries within {LATELY:?}");
            self.town.oracle.violated(Violation::whole(Invariant::Paced, text));
        }
    }
}
