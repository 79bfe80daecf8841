//! Keys in the world: retries that are sent, lines that are watched, and what the oracle is shown of both.

use super::World;
use crate::history::Listener;
use crate::keys::Order;
use crate::message::{KEY, Message, Number, Poison};
use crate::oracle::{Failure, Glance, View, held_up};
use crate::receiving::own::OWNER;
use crate::retries::{self, Pick, Twist};
use crate::slots;
use crate::violation::{Invariant, Violation};
use redeliver_core::cells::PublishedState;
use redeliver_core::slot::{Head, SlotState};
use simvoy::{Moment, REQUESTS_MAX, Response};
use std::collections::BTreeSet;
use std::time::Duration;

/// Retries are of one of so many of the newest messages that there are to choose from.
const LATELY: usize = 12;
/// A destination that was seen to be well so long before a message came was well when it came.
const WELL_BEFORE: Duration = Duration::from_millis(300);
/// After a disturbance somebody leads each destination again, and knows its backlog, within this.
const SETTLED: Duration = Duration::from_secs(10);
/// What kept a destination from taking messages is forgotten after so long.
const FREE: Duration = Duration::from_secs(3);
/// Whoever leads a destination has read the hint at a message that was sent so long ago: two of the longest ticks.
const KNOWN: Duration = Duration::from_millis(1_500);

impl World {
    /// A sender sends something again; nothing, if there is nothing of that kind.
    pub(super) fn retry(&mut self, pick: Pick, which: u32, twist: Twist, worker: u32, listener: Listener) {
        let now = self.process.now();
        let newest = self.town.oracle.records.values().rev();
        // A store that fills with retries of poison is another story.
        let may_be_retried = |message: &Message| message.is_protected() && message.poison == Poison::None;
        let with_key =
            newest.filter(|record| may_be_retried(&record.message) && record.message.headers.first(KEY).is_some());
        let chosen: Vec<&Message> =
            with_key.filter(|record| pick.is_one(record, now)).map(|record| &record.message).take(LATELY).collect();
        let Some(first) = chosen.get(which as usize % chosen.len().max(1)) else { return };
        let message = retries::again(first, Number(self.numbers), twist);
        self.numbers += 1;
        self.town.oracle.counts.retries += 1;
        self.begin(message, worker, listener);
    }

    /// A sender has its answer.
    pub(super) fn judge_keys(&mut self, number: Number, response: &Response, view: View) {
        let (now, wall_millis) = (self.process.now(), self.process.wall() / 1_000_000);
        let mirror = &self.mirror;
        let holder = |id: &str| mirror.find(id).and_then(slots::Slot::path).and_then(Message::number_of);
        let glance = Glance { now, wall_millis, holder: &holder, is_judged: view.failure == Failure::Judged };
        self.town.oracle.judge_keys(number, response, &glance);
        self.judge_wait(number, now);
    }

    /// I15: only a message whose key has others stored is stored, or refused, without asking its receiver; one of another
    /// key, or of none, is not.
    fn judge_wait(&mut self, number: Number, now: Moment) {
        let record = &self.town.oracle.records[&number];
        let (destination, sent) = (record.message.destination, record.sent);
        let was_not_asked = record.live.is_empty() && (record.acknowledged.is_some() || record.answer == Some(503));
        let cluster = self.process.cluster(&destination.cluster());
        let is_well = cluster.is_some_and(|cluster| cluster.healthy > 0 && cluster.requests_max >= REQUESTS_MAX)
            && self.town.mood(destination).is_well()
            && self.patience.free_for(destination, now) > now - sent + WELL_BEFORE
            && self.town.oracle.is_untroubled(record.thread, sent)
            && record.message.poison == Poison::None;
        let rules = &self.history.rules;
        let own = rules.receiving.own.as_ref().filter(|_| destination == OWNER);
        let is_held_back = own.map_or(rules.holds_while_down, |own| own.holds_while_down);
        let is_idle_rule = is_held_back || rules.keys.order == Order::None;
        if was_not_asked && is_well && !is_idle_rule && !self.is_memory_in_doubt() && !self.town.oracle.may_wait(number)
        {
            let text = "stored or refused, and neither its receiver nor another message of its key stood in its way";
            self.town.oracle.violated(Violation::of(Invariant::InOrder, number, text));
        }
    }

    /// Requests that have come to receivers in this step, each in its turn or not.
    pub(super) fn judge_turns(&mut self) {
        let arrivals = self.town.oracle.take_arrivals();
        if arrivals.is_empty() {
            return;
        }
        self.follow();
        let states =
            self.mirror.heads().filter_map(|(path, head)| Some((Message::number_of(path?)?, head.state))).collect();
        let now = self.process.now();
        for (number, road) in arrivals {
            self.town.oracle.judge_turn(number, road, &states, now);
        }
    }

    /// I15: the next of a line goes out when the one before it has ended, and not with the next tick.
    pub(super) fn judge_succession(&mut self) {
        let delivered = self.town.oracle.take_deliveries();
        let now = self.process.now();
        let is_disturbed = now - self.town.oracle.disturbed_at < SETTLED || self.is_memory_in_doubt();
        let rates = self.board.lock().rates;
        // A hint that is lost, or a claim that meets another writer, is made good with time.
        let is_hindered = rates.conflict + rates.lost_hint > 0 || self.history.rules.receiving.rate > 0;
        if delivered.is_empty() || is_disturbed || is_hindered {
            return;
        }
        self.follow();
        let heads = self.mirror.heads().map(|(path, head)| (path.and_then(Message::number_of), head));
        let held_up = held_up(heads, self.history.rules.keys.order);
        let oracle = &self.town.oracle;
        let is_next = |first: Number, path: Option<&str>, head: &Head| {
            let number = path.and_then(Message::number_of)?;
            let record = oracle.records.get(&number)?;
            let is_waiting = matches!(head.state, SlotState::Queued { .. }) && head.sends == 0 && !record.is_damaged;
            let may_go = is_waiting && now - record.sent > KNOWN && !held_up.contains(&Some(number));
            (may_go && oracle.are_in_one_line(first, number)).then_some((number, head.destination))
        };
        let is_sending = |(_, head): (Option<&str>, &Head)| match head.state {
            SlotState::Sending { .. } => Some(head.destination),
            SlotState::Free
            | SlotState::Filling { .. }
            | SlotState::Opening { .. }
            | SlotState::Queued { .. }
            | SlotState::Parked { .. }
            | SlotState::Dead { .. } => None,
        };
        let busy: BTreeSet<_> = self.mirror.heads().filter_map(is_sending).collect();
        let is_up = |number: Number| {
            let destination = oracle.records[&number].message.destination;
            let state = slots::published(&self.process, &destination.cluster());
            // A dispatch that Envoy refused on the spot holds the next one off for a while, which only a probe does not
            // mind.
            !oracle.was_probe(number)
                && self.patience.free_for(destination, now) > FREE
                && matches!(state, Some(PublishedState::Up | PublishedState::Ramping))
        };
        let stuck = delivered.into_iter().find_map(|first| {
            let (next, destination) = self.mirror.heads().find_map(|(path, head)| is_next(first, path, head))?;
            (is_up(first) && !busy.contains(&destination)).then_some((first, next))
        });
        if let Some((first, next)) = stuck {
            let text =
                format!("does not go out though message {} before it has ended, and nothing else is out", first.0);
            self.town.oracle.violated(Violation::of(Invariant::InOrder, next, text));
        }
    }

    /// Messages that need not have gone on for so long: they wait for others of their lines, or did until lately.
    pub(super) fn patient_since(&mut self, span: Duration, now: Moment) -> BTreeSet<Number> {
        if self.history.rules.keys.order == Order::None {
            return BTreeSet::new();
        }
        // Deaths are seen by an audit; each of them lets a line go on.
        self.audit();
        let heads = self.mirror.heads().map(|(path, head)| (path.and_then(Message::number_of), head));
        let held_up = held_up(heads, self.history.rules.keys.order);
        let mut patient: BTreeSet<Number> = held_up.into_iter().flatten().collect();
        let oracle = &self.town.oracle;
        let moved_lately = |number: &Number| oracle.line_went_on(*number).is_some_and(|at| now - at < span);
        patient.extend(oracle.records.keys().copied().filter(moved_lately));
        patient
    }
}
