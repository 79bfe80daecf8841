//! The messages that a leader knows of one destination, by due time and by age.
//!
//! The leader's memory only: the truth is in the slots, and a successor rebuilds this from them. Every operation costs
//! the logarithm of what is stored; what is due is found without looking at what is not.

use crate::slot::{Generation, SlotIndex};
use crate::store::Ticket;
use crate::units::{Monotonic, Wall};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
struct Entry {
    generation: Generation,
    stored_at: Wall,
    /// `None` while an attempt is out.
    due: Option<Monotonic>,
    /// Not even a probe goes before this: the receiver asked for it.
    earliest: Monotonic,
}

/// Messages in line that are looked at for a probe: one that may not go yet is due no sooner than it may go, so only a
/// backlog that was asked to wait as a whole has so many of them in front, and then the next due one is the probe.
const PROBE_LOOK_MAX: usize = 100;

/// Waiting and outstanding messages of one destination.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<SlotIndex, Entry>,
    by_due: BTreeSet<(Monotonic, SlotIndex)>,
    by_age: BTreeSet<(Wall, SlotIndex)>,
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

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.by_due.len()
    }

    /// When the oldest message was stored.
    #[must_use]
    pub fn oldest(&self) -> Option<Wall> {
        self.by_age.first().map(|(at, _)| *at)
    }

    /// Whether this use of the slot is known.
    #[must_use]
    pub fn knows(&self, ticket: Ticket) -> bool {
        self.entries.get(&ticket.slot).is_some_and(|entry| entry.generation == ticket.generation)
    }

    /// The message waits until `due`. A message that is known keeps its first due time unless it is out. A word about an
    /// earlier use of the slot is stale.
    pub fn wait(&mut self, ticket: Ticket, due: Monotonic, stored_at: Wall) {
        if self.entries.get(&ticket.slot).is_some_and(|entry| entry.generation.is_after(ticket.generation)) {
            return;
        }
        self.forget_other_use(ticket);
        let known = self.entries.get(&ticket.slot).and_then(|entry| entry.due);
        if known.is_some() {
            return;
        }
        self.by_due.insert((due, ticket.slot));
        self.by_age.insert((stored_at, ticket.slot));
        let entry = Entry { generation: ticket.generation, stored_at, due: Some(due), earliest: Monotonic(0) };
        self.entries.insert(ticket.slot, entry);
    }

    /// The receiver asked not to be sent this message before `earliest`, not even as a probe.
    pub fn keep_back(&mut self, ticket: Ticket, earliest: Monotonic) {
        if let Some(entry) = self.entries.get_mut(&ticket.slot).filter(|entry| entry.generation == ticket.generation) {
            entry.earliest = earliest;
        }
    }

    /// An attempt of the message is out, perhaps a predecessor's.
    pub fn out(&mut self, ticket: Ticket, stored_at: Wall) {
        self.forget_other_use(ticket);
        if let Some(Entry { due: Some(due), .. }) = self.entries.get(&ticket.slot).copied() {
            self.by_due.remove(&(due, ticket.slot));
        }
        self.by_age.insert((stored_at, ticket.slot));
        let entry = Entry { generation: ticket.generation, stored_at, due: None, earliest: Monotonic(0) };
        self.entries.insert(ticket.slot, entry);
    }

    /// The message is settled, or is no longer this destination's.
    pub fn forget(&mut self, ticket: Ticket) {
        if self.knows(ticket) {
            self.remove(ticket.slot);
        }
    }

    fn remove(&mut self, slot: SlotIndex) {
        if let Some(entry) = self.entries.remove(&slot) {
            self.by_age.remove(&(entry.stored_at, slot));
            if let Some(due) = entry.due {
                self.by_due.remove(&(due, slot));
            }
        }
    }

    /// The message that is due first, if it is due at `now`.
    #[must_use]
    pub fn due(&self, now: Monotonic) -> Option<Ticket> {
        self.by_due.first().filter(|(due, _)| *due <= now).and_then(|(_, slot)| self.ticket(*slot))
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
            schedule.wait(ticket(slot), Monotonic(due), Wall(stored_at));
        }
        schedule
    }

    #[test]
    fn the_earliest_due_comes_first_and_only_once_it_is_due() {
        let mut schedule = filled();
        assert_eq!(schedule.due(Monotonic(9)), None);
        assert_eq!(schedule.due(Monotonic(25)), Some(ticket(2)));
        schedule.out(ticket(2), Wall(2));
        assert_eq!(schedule.due(Monotonic(25)), Some(ticket(3)));
    }

    #[test]
    fn the_oldest_is_told_until_it_is_settled() {
        let mut schedule = filled();
        schedule.out(ticket(3), Wall(1));
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
        schedule.wait(ticket(2), Monotonic(99), Wall(2));
        assert_eq!(schedule.due(Monotonic(10)), Some(ticket(2)), "the first due time stands");
        let reused = Ticket { generation: Generation(2), ..ticket(2) };
        schedule.wait(reused, Monotonic(50), Wall(9));
        assert_eq!((schedule.len(), schedule.waiting()), (3, 3));
        assert!(schedule.knows(reused) && !schedule.knows(ticket(2)));
        schedule.wait(ticket(2), Monotonic(1), Wall(1));
        schedule.forget(ticket(2));
        assert!(schedule.knows(reused), "a word about the earlier use comes too late");
    }
}
