//! What a message's slot says when a redelivery goes out, and when its end has been heard: for the oracle to judge.

use super::World;
use crate::message::{Destination, Message};
use crate::oracle::{Seen, Writes};
use crate::slots;
use crate::violation::{Invariant, Violation};
use redeliver_core::units::Wall;
use simvoy::{CallToken, Headers, Moment, VmId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Heads that the filter's sweep looks at in a tick, and the longest tick that any history pushes, in ticks of its own.
const SWEEP_STEP: usize = 50;
const TICKS_MAX: u32 = 3;

impl World {
    /// A call goes out: if it is a redelivery, how many attempts had failed before.
    pub(super) fn note_claim(&mut self, call: (VmId, CallToken), head: &Headers) {
        let Some(id) = head.text("x-redeliver-id") else { return };
        self.follow();
        if let Some(head) = self.mirror.find(id).and_then(|slot| slot.head) {
            self.town.oracle.claimed(call, head.attempts);
        }
    }

    /// The filter has heard the end of a call: what it has made of it.
    pub(super) fn judge_ending(&mut self, call: (VmId, CallToken)) {
        let Some(id) = self.town.oracle.id_of(call) else { return };
        self.follow();
        let head = self.mirror.find(&id).and_then(|slot| slot.head);
        let writes = if self.board.lock().rates.conflict > 0 { Writes::Contended } else { Writes::Calm };
        self.town.oracle.ended(call, head.map_or(Seen::Gone, Seen::Slot), writes);
    }

    /// Since when each destination has had a backlog that its VMs can see.
    pub(super) fn note_backlogs(&mut self, now: Moment) {
        let wall = Wall(self.process.wall() / 1_000_000);
        let waits: BTreeSet<Destination> = self.mirror.waiting_since(wall).filter_map(Destination::of_path).collect();
        let since = &mut self.town.oracle.backlog_since;
        since.retain(|destination, _| waits.contains(destination));
        for destination in waits {
            since.entry(destination).or_insert(now);
        }
    }

    /// A message whose hint was lost is found by the sweep; until then its destination's leader may say that nothing waits.
    pub(super) fn note_hidden(&mut self, destination: Destination, now: Moment) {
        let steps = self.mirror.heads().count().div_ceil(SWEEP_STEP) as u32;
        let round = self.history.rules.tick * TICKS_MAX * steps.max(1) + Duration::from_secs(1);
        let may_hide = self.board.lock().hint_lost_at.is_some_and(|at| now - at < round);
        let says_none = || {
            let found = slots::leadership(&self.process, &destination.cluster());
            found.is_none_or(|found| found.in_flight == 0 && found.oldest_stored_at == 0)
        };
        if may_hide && says_none() {
            self.town.oracle.backlog_since.remove(&destination);
        }
    }

    /// What is parked at this look was so since the last one, by the wall clock, as its age is.
    pub(super) fn note_parked(&mut self) {
        let wall_millis = self.process.wall() / 1_000_000;
        let span = wall_millis.saturating_sub(std::mem::replace(&mut self.sampled_wall_millis, wall_millis));
        let parked: Vec<_> = self.mirror.parked().filter_map(Message::number_of).collect();
        self.town.oracle.parked(&parked, Duration::from_millis(span));
    }

    /// I12: what was parked under one configuration goes out again under the next one that says anything else. (Where
    /// several rule in turn, the one that parked it may be the next.)
    pub(super) fn check_parked(&mut self, now: Moment) {
        let calm = now - self.ruled_at.max(self.town.oracle.disturbed_at);
        let can_judge = self.besides.is_empty() && !self.is_memory_in_doubt() && self.can_deliver();
        if calm < self.history.rules.patience() || !can_judge {
            return;
        }
        let is_forgotten = |path: &str| {
            let number = Message::number_of(path)?;
            let record = self.town.oracle.records.get(&number)?;
            let parked = record.parked.filter(|parked| *parked < self.ruled_at)?;
            (!record.is_damaged).then_some((number, parked))
        };
        let forgotten = self.mirror.parked().find_map(is_forgotten);
        if let Some((number, parked)) = forgotten {
            let text =
                format!("parked at {parked}, and still is; another configuration has ruled since {}", self.ruled_at);
            self.town.oracle.violated(Violation::of(Invariant::Drains, number, text));
        }
    }
}
