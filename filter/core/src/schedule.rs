//! The messages that a leader knows of one destination, by due time, by age and by line.
//!
//! ```text
//! by due time   those that may be sent: messages without an ordering key, and the first of each line
//! lines         key ──> first, second, third ...      the second is due as soon as the first has ended
//! ```
//! The leader's memory only: the truth is in the slots, and a successor rebuilds this from them. Every operation costs
//! the logarithm of what is stored; what is due is found without looking at what is not.

use crate::digest::LineKey;
use crate::slot::{Generation, SlotIndex, Spot, Ticket};
use crate::units::{Monotonic, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

#[derive(Clone, Copy, Debug)]
struct Entry {
    generation: Generation,
    stored_at: Wall,
    /// `None` while an attempt is out.
    due: Option<Monotonic>,
    /// Not even a probe goes before this: the receiver asked for it.
    earliest: Monotonic,
    /// `None` if it is not ordered.
    spot: Option<Spot>,
}

/// A message that is not to be sent until somebody has done something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A dead letter that holds its line up: no message that waits, so it has no age.
    DeadHead(Spot),
    /// Parked: it waits for another configuration, and holds its line up if it has one.
    Parked {
        /// Since when it is held.
        stored_at: Wall,
        /// `None` if it is not ordered.
        spot: Option<Spot>,
    },
}

impl Stopped {
    const fn spot(self) -> Option<Spot> {
        match self {
            Self::DeadHead(spot) => Some(spot),
            Self::Parked { spot, .. } => spot,
        }
    }

    const fn waits_since(self) -> Option<Wall> {
        match self {
            Self::DeadHead(_) => None,
            Self::Parked { stored_at, .. } => Some(stored_at),
        }
    }

    fn entry(self, generation: Generation) -> Entry {
        let stored_at = self.waits_since().unwrap_or_default();
        Entry { generation, stored_at, due: None, earliest: Monotonic(0), spot: self.spot() }
    }
}

/// Messages in line that are looked at for a probe: one that may not go yet is due no sooner than it may go, so only a
/// backlog that was asked to wait as a whole has so many of them in front, and then the next due one is the probe.
const PROBE_LOOK_MAX: usize = 100;

/// Slots by a number that is a moment of a clock, or a place in a line. One type for all three: each type of tree is 5 KB of
/// code in the module.
type SlotsBy = BTreeSet<(u64, SlotIndex)>;

/// Waiting and outstanding messages of one destination.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<SlotIndex, Entry>,
    /// By [`Monotonic`].
    by_due: SlotsBy,
    /// By [`Wall`].
    by_age: SlotsBy,
    /// Messages in the order in which they were accepted, and those that hold their line up: dead letters and parked ones.
    lines: BTreeMap<LineKey, SlotsBy>,
    /// [`Stopped`] as entries that wait for nothing: of one type with the others for the same reason.
    stopped: BTreeMap<SlotIndex, Entry>,
    /// The one of those that was asked about last.
    asked_about: Option<SlotIndex>,
    /// The time that was last told.
    latest: Monotonic,
}

impl Schedule {
    /// All messages, those that are out included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages that wait for nothing but their due time.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.by_due.len()
    }

    /// When the oldest message was stored, parked ones included.
    #[must_use]
    pub fn oldest(&self) -> Option<Wall> {
        self.by_age.first().map(|(at, _)| Wall(*at))
    }

    /// Whether this use of the slot is known.
    #[must_use]
    pub fn knows(&self, ticket: Ticket) -> bool {
        self.entries.get(&ticket.slot).is_some_and(|entry| entry.generation == ticket.generation)
    }

    /// Whether this message stands in a line.
    #[must_use]
    pub fn is_ordered(&self, ticket: Ticket) -> bool {
        self.knows(ticket) && self.entries.get(&ticket.slot).is_some_and(|entry| entry.spot.is_some())
    }

    /// It is `now`: a message whose turn comes is due from now on.
    pub fn tell(&mut self, now: Monotonic) {
        self.latest = now;
    }

    /// The message waits until `due`, and for its turn. A message that is known keeps its first due time unless it is
    /// out. A word about an earlier use of the slot is stale.
    pub fn wait(&mut self, ticket: Ticket, due: Monotonic, stored_at: Wall, spot: Option<Spot>) {
        if self.entries.get(&ticket.slot).is_some_and(|entry| entry.generation.is_after(ticket.generation)) {
            return;
        }
        self.forget_other_use(ticket);
        let known = self.entries.get(&ticket.slot).and_then(|entry| entry.due);
        if known.is_some() {
            return;
        }
        self.by_age.insert((stored_at.0, ticket.slot));
        let entry = Entry { generation: ticket.generation, stored_at, due: Some(due), earliest: Monotonic(0), spot };
        self.entries.insert(ticket.slot, entry);
        self.stand_in_line(ticket.slot, spot);
        self.show(ticket.slot);
    }

    /// The receiver asked not to be sent this message before `earliest`, not even as a probe.
    pub fn keep_back(&mut self, ticket: Ticket, earliest: Monotonic) {
        if let Some(entry) = self.entries.get_mut(&ticket.slot).filter(|entry| entry.generation == ticket.generation) {
            entry.earliest = earliest;
        }
    }

    /// An attempt of the message is out, perhaps a predecessor's.
    pub fn out(&mut self, ticket: Ticket, stored_at: Wall, spot: Option<Spot>) {
        self.forget_other_use(ticket);
        self.hide(ticket.slot);
        self.by_age.insert((stored_at.0, ticket.slot));
        let entry = Entry { generation: ticket.generation, stored_at, due: None, earliest: Monotonic(0), spot };
        self.entries.insert(ticket.slot, entry);
        self.stand_in_line(ticket.slot, spot);
    }

    /// The message cannot be sent yet, for a reason that only the slots know: look again at `due`.
    pub fn postpone(&mut self, ticket: Ticket, due: Monotonic) {
        if self.knows(ticket) {
            self.hide(ticket.slot);
            if let Some(entry) = self.entries.get_mut(&ticket.slot).filter(|entry| entry.due.is_some()) {
                entry.due = Some(due);
            }
            self.show(ticket.slot);
        }
    }

    /// The message is settled, or is no longer this destination's. The next in its line is due.
    pub fn forget(&mut self, ticket: Ticket) {
        if self.knows(ticket) {
            self.remove(ticket.slot);
        }
        if self.stopped.get(&ticket.slot).is_some_and(|entry| entry.generation == ticket.generation) {
            self.go_on_without(ticket.slot);
        }
    }

    /// The message is not to be sent, and holds up those behind it.
    pub fn stop(&mut self, ticket: Ticket, stopped: Stopped) {
        self.go_on_without(ticket.slot);
        self.stopped.insert(ticket.slot, stopped.entry(ticket.generation));
        self.stand_in_line(ticket.slot, stopped.spot());
        if let Some(entry) = self.entries.remove(&ticket.slot) {
            self.by_age.remove(&(entry.stored_at.0, ticket.slot));
            self.by_due.remove(&(entry.due.unwrap_or_default().0, ticket.slot));
            if stopped.spot().is_none()
                && let Some(spot) = entry.spot
            {
                self.leave_line(ticket.slot, spot);
            }
        }
        if let Some(since) = stopped.waits_since() {
            self.by_age.insert((since.0, ticket.slot));
        }
    }

    /// The next of those that are stopped, round and round: somebody else may have removed it.
    pub fn next_stopped(&mut self) -> Option<Ticket> {
        let rest = self.asked_about.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.stopped.range((rest, Bound::Unbounded)).next().or_else(|| self.stopped.iter().next());
        let ticket = next.map(|(slot, entry)| Ticket { slot: *slot, generation: entry.generation });
        self.asked_about = ticket.map(|ticket| ticket.slot);
        ticket
    }

    fn remove(&mut self, slot: SlotIndex) {
        self.hide(slot);
        if let Some(entry) = self.entries.remove(&slot) {
            self.by_age.remove(&(entry.stored_at.0, slot));
            if let Some(spot) = entry.spot {
                self.leave_line(slot, spot);
            }
        }
    }

    fn go_on_without(&mut self, slot: SlotIndex) {
        let Some(stopped) = self.stopped.remove(&slot) else { return };
        self.by_age.remove(&(stopped.stored_at.0, slot)); // a dead letter is not there
        if let Some(spot) = stopped.spot {
            self.leave_line(slot, spot);
        }
    }

    /// Enters the line; whoever stood first there and does no longer has to wait.
    fn stand_in_line(&mut self, slot: SlotIndex, spot: Option<Spot>) {
        let Some(spot) = spot else { return };
        let line = self.lines.entry(spot.line).or_default();
        let first = line.first().map(|(_, first)| *first);
        line.insert((spot.number, slot));
        if let Some(first) = first.filter(|_| line.first() == Some(&(spot.number, slot))) {
            self.hide(first);
        }
    }

    /// Leaves the line; whoever stands first there now is due from now on, or when the receiver wants it.
    fn leave_line(&mut self, slot: SlotIndex, spot: Spot) {
        let Some(line) = self.lines.get_mut(&spot.line) else { return };
        let was_first = line.first() == Some(&(spot.number, slot));
        line.remove(&(spot.number, slot));
        let Some((_, next)) = line.first().copied() else {
            self.lines.remove(&spot.line);
            return;
        };
        if was_first {
            // Not by its own due time: that of a long line is long past, and others are due too.
            let latest = self.latest;
            if let Some(entry) = self.entries.get_mut(&next) {
                entry.due = entry.due.map(|_| latest.max(entry.earliest));
            }
            self.show(next);
        }
    }

    /// Whether it is this one's turn.
    fn is_first(&self, slot: SlotIndex, spot: Option<Spot>) -> bool {
        spot.is_none_or(|spot| {
            self.lines.get(&spot.line).and_then(BTreeSet::first).is_some_and(|(_, first)| *first == slot)
        })
    }

    /// May be sent when it is due, if it waits and it is its turn.
    fn show(&mut self, slot: SlotIndex) {
        if let Some(Entry { due: Some(due), spot, .. }) = self.entries.get(&slot).copied()
            && self.is_first(slot, spot)
        {
            self.by_due.insert((due.0, slot));
        }
    }

    fn hide(&mut self, slot: SlotIndex) {
        if let Some(Entry { due: Some(due), .. }) = self.entries.get(&slot).copied() {
            self.by_due.remove(&(due.0, slot));
        }
    }

    /// The message that is due first, if it is due at `now`.
    #[must_use]
    pub fn due(&self, now: Monotonic) -> Option<Ticket> {
        self.by_due.first().filter(|(due, _)| *due <= now.0).and_then(|(_, slot)| self.ticket(*slot))
    }

    /// The first in line for a probe at `now`, due or not; another than `last` if there is another.
    #[must_use]
    pub fn probe(&self, last: Option<Ticket>, now: Monotonic) -> Option<Ticket> {
        let may_go = |slot: &SlotIndex| self.entries.get(slot).is_some_and(|entry| entry.earliest <= now);
        let in_line = self.by_due.iter().take(PROBE_LOOK_MAX).map(|(_, slot)| *slot);
        let mut line = in_line.filter(may_go).filter_map(|slot| self.ticket(slot));
        let first = line.next()?;
        if Some(first) == last { line.next().or(Some(first)) } else { Some(first) }
    }

    fn ticket(&self, slot: SlotIndex) -> Option<Ticket> {
        self.entries.get(&slot).map(|entry| Ticket { slot, generation: entry.generation })
    }

    fn forget_other_use(&mut self, ticket: Ticket) {
        if self.entries.get(&ticket.slot).is_some_and(|entry| entry.generation != ticket.generation) {
            self.remove(ticket.slot);
        }
        // A slot that has another use, or waits again, holds nobody up.
        self.go_on_without(ticket.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn ticket(slot: u32) -> Ticket {
        Ticket { slot: SlotIndex(slot), generation: Generation(1) }
    }

    fn filled() -> Schedule {
        let mut schedule = Schedule::default();
        for (slot, due, stored_at) in [(1, 30, 3), (2, 10, 2), (3, 20, 1)] {
            schedule.wait(ticket(slot), Monotonic(due), Wall(stored_at), None);
        }
        schedule
    }

    #[test]
    fn the_earliest_due_comes_first_and_only_once_it_is_due() {
        let mut schedule = filled();
        assert_eq!(schedule.due(Monotonic(9)), None);
        assert_eq!(schedule.due(Monotonic(25)), Some(ticket(2)));
        schedule.out(ticket(2), Wall(2), None);
        assert_eq!(schedule.due(Monotonic(25)), Some(ticket(3)));
    }

    #[test]
    fn the_oldest_is_told_until_it_is_settled() {
        let mut schedule = filled();
        schedule.out(ticket(3), Wall(1), None);
        assert_eq!(schedule.oldest(), Some(Wall(1)));
        schedule.forget(ticket(3));
        assert_eq!(schedule.oldest(), Some(Wall(2)));
        assert_eq!((schedule.len(), schedule.waiting()), (2, 2));
    }

    #[test]
    fn the_next_probe_is_another_message_if_there_is_one() {
        let mut schedule = filled();
        let probe = |schedule: &Schedule, last| schedule.probe(last, Monotonic(0));
        assert_eq!(probe(&schedule, None), Some(ticket(2)));
        assert_eq!(probe(&schedule, Some(ticket(2))), Some(ticket(3)));
        schedule.forget(ticket(1));
        schedule.forget(ticket(3));
        assert_eq!(probe(&schedule, Some(ticket(2))), Some(ticket(2)));
    }

    #[test]
    fn a_message_that_the_receiver_wants_later_is_no_probe_before_that() {
        let mut schedule = filled();
        schedule.keep_back(ticket(2), Monotonic(10));
        schedule.keep_back(Ticket { generation: Generation(2), ..ticket(3) }, Monotonic(10));
        assert_eq!(schedule.probe(None, Monotonic(9)), Some(ticket(3)), "another use of that slot was kept back");
        assert_eq!(schedule.probe(None, Monotonic(10)), Some(ticket(2)));
        for slot in [1, 3] {
            schedule.keep_back(ticket(slot), Monotonic(30));
        }
        schedule.forget(ticket(2));
        assert_eq!(schedule.probe(None, Monotonic(29)), None);
    }

    #[test]
    fn a_repeated_hint_and_a_reused_slot_leave_one_entry() {
        let mut schedule = filled();
        schedule.wait(ticket(2), Monotonic(99), Wall(2), None);
        assert_eq!(schedule.due(Monotonic(10)), Some(ticket(2)), "the first due time stands");
        let reused = Ticket { generation: Generation(2), ..ticket(2) };
        schedule.wait(reused, Monotonic(50), Wall(9), None);
        assert_eq!((schedule.len(), schedule.waiting()), (3, 3));
        assert!(schedule.knows(reused) && !schedule.knows(ticket(2)));
        schedule.wait(ticket(2), Monotonic(1), Wall(1), None);
        schedule.forget(ticket(2));
        assert!(schedule.knows(reused), "a word about the earlier use comes too late");
    }

    fn spot(line: u64, number: u64) -> Option<Spot> {
        Some(Spot { line: LineKey(line), number })
    }

    fn dead_head(line: u64, number: u64) -> Stopped {
        Stopped::DeadHead(Spot { line: LineKey(line), number })
    }

    /// Lines 1 (slots 1, 2, 3 in this order) and 2 (slot 4), and slot 5 without a key; all due at 10.
    fn lined_up() -> Schedule {
        let mut schedule = Schedule::default();
        // Hints may come in any order.
        for (slot, spot) in [(3, spot(1, 30)), (2, spot(1, 20)), (1, spot(1, 10)), (4, spot(2, 15)), (5, None)] {
            schedule.wait(ticket(slot), Monotonic(10), Wall(slot.into()), spot);
        }
        schedule
    }

    fn all_due(schedule: &mut Schedule, now: u64) -> Vec<u32> {
        schedule.tell(Monotonic(now));
        let mut slots = Vec::new();
        while let Some(ticket) = schedule.due(Monotonic(now)) {
            let entry = schedule.entries[&ticket.slot];
            schedule.out(ticket, entry.stored_at, entry.spot);
            slots.push(ticket.slot.0);
        }
        slots
    }

    #[test]
    fn only_the_first_of_a_line_is_due_and_no_line_waits_for_another() {
        let mut schedule = lined_up();
        assert_eq!(schedule.waiting(), 3);
        assert_eq!(all_due(&mut schedule, 10), [1, 4, 5]);
        schedule.forget(ticket(4));
        assert_eq!(all_due(&mut schedule, 11), [0; 0], "the other line's end is none of line 1's business");
        schedule.forget(ticket(1));
        assert_eq!(all_due(&mut schedule, 11), [2]);
        schedule.wait(ticket(2), Monotonic(50), Wall(2), spot(1, 20));
        assert_eq!(
            all_due(&mut schedule, 49),
            [0; 0],
            "the first waits for its next attempt, and the second for the first"
        );
        assert_eq!(all_due(&mut schedule, 50), [2]);
        schedule.forget(ticket(2));
        assert_eq!(all_due(&mut schedule, 50), [3]);
        schedule.forget(ticket(3));
        assert!(schedule.lines.is_empty() && schedule.len() == 1, "{schedule:?}");
    }

    #[test]
    fn the_next_in_line_is_due_when_the_one_before_ends_and_not_before_others_that_are_due() {
        for own_due in [1, 900] {
            let mut schedule = Schedule::default();
            schedule.wait(ticket(1), Monotonic(10), Wall(1), spot(1, 1));
            schedule.wait(ticket(2), Monotonic(own_due), Wall(2), spot(1, 2));
            schedule.wait(ticket(3), Monotonic(11), Wall(3), None);
            schedule.out(ticket(1), Wall(1), spot(1, 1));
            schedule.tell(Monotonic(20));
            schedule.forget(ticket(1));
            assert_eq!(all_due(&mut schedule, 20), [3, 2], "own due time {own_due}");
        }
    }

    #[test]
    fn the_next_in_line_waits_as_long_as_the_receiver_asked() {
        let mut schedule = lined_up();
        schedule.keep_back(ticket(2), Monotonic(40));
        assert_eq!(all_due(&mut schedule, 10), [1, 4, 5]);
        schedule.tell(Monotonic(20));
        schedule.forget(ticket(1));
        assert_eq!(all_due(&mut schedule, 39), [0; 0]);
        assert_eq!(all_due(&mut schedule, 40), [2]);
    }

    #[test]
    fn a_dead_letter_that_blocks_holds_its_line_up_until_it_is_gone() {
        let mut schedule = lined_up();
        assert_eq!(all_due(&mut schedule, 10), [1, 4, 5]);
        schedule.stop(ticket(1), dead_head(1, 10));
        assert_eq!(all_due(&mut schedule, 99), [0; 0]);
        assert_eq!(schedule.oldest(), Some(Wall(2)), "a dead letter is no message that waits");
        schedule.forget(ticket(1));
        assert_eq!(all_due(&mut schedule, 99), [2]);
        let mut redriven = lined_up();
        redriven.stop(ticket(1), dead_head(1, 10));
        redriven.wait(ticket(1), Monotonic(5), Wall(1), spot(1, 10));
        assert_eq!(all_due(&mut redriven, 99), [1, 4, 5]);
    }

    #[test]
    fn dead_letters_that_block_are_asked_about_in_turn() {
        let mut schedule = lined_up();
        assert_eq!(schedule.next_stopped(), None);
        schedule.stop(ticket(1), dead_head(1, 10));
        schedule.stop(ticket(4), dead_head(2, 15));
        let asked: Vec<_> = (0..4).map(|_| schedule.next_stopped()).collect();
        assert_eq!(asked, [Some(ticket(1)), Some(ticket(4)), Some(ticket(1)), Some(ticket(4))]);
    }

    #[test]
    fn a_parked_message_keeps_its_age_and_holds_up_only_its_own_line() {
        for (spot, due) in [(None, vec![1, 4, 5]), (spot(1, 5), vec![4, 5])] {
            let mut schedule = lined_up();
            schedule.wait(ticket(6), Monotonic(10), Wall(0), spot);
            schedule.out(ticket(6), Wall(0), spot);
            schedule.stop(ticket(6), Stopped::Parked { stored_at: Wall(0), spot });
            assert_eq!((all_due(&mut schedule, 99), schedule.oldest()), (due, Some(Wall(0))), "{spot:?}");
            // Released: it waits like any other. Gone: nothing is left of it.
            schedule.wait(ticket(6), Monotonic(99), Wall(0), spot);
            assert_eq!(all_due(&mut schedule, 99), [6], "{spot:?}");
            schedule.forget(ticket(6));
            assert_eq!((schedule.oldest(), schedule.next_stopped()), (Some(Wall(1)), None), "{spot:?}");
        }
    }

    #[test]
    fn a_message_that_must_wait_for_the_slots_is_looked_at_again() {
        let mut schedule = lined_up();
        schedule.postpone(ticket(1), Monotonic(70));
        assert_eq!(all_due(&mut schedule, 69), [4, 5]);
        assert_eq!(all_due(&mut schedule, 70), [1]);
    }
}
