//! The messages that a leader knows of one destination, by due time, by line and by age.
//!
//! ```text
//! by due time   those that may be sent: messages without an ordering key, and the first of each line
//! lines         key ──> first, second, third ...      the second is due as soon as the first has ended
//! ages          second ──> how many are held since then, for the age of the oldest
//! ```
//! The leader's memory only: the truth is in the slots, and a successor rebuilds this from them. Every operation costs
//! the logarithm of what is stored; what is due is found without looking at what is not. There is an entry for each
//! message that is stored, so what only few have is kept apart, and ages are counts: as many as there are seconds, not as
//! there are messages.

use crate::digest::LineKey;
use crate::slot::{Generation, SlotIndex, Spot, Ticket};
use crate::units::{Monotonic, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Bound;

/// A 64-bit number that asks for no more alignment than the 32-bit ones beside it: in a tree of a million entries, that is
/// four bytes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Long {
    high: u32,
    low: u32,
}

impl Long {
    const MAX: Self = Self { high: u32::MAX, low: u32::MAX };

    const fn of(number: u64) -> Self {
        Self { high: (number >> 32) as u32, low: number as u32 }
    }
}

/// A second of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Second(NonZeroU32);

impl Second {
    /// The second in which `at` lies; the nearest that has a number, in the first second of 1970 and after 2106.
    fn of(at: Wall) -> Self {
        let number = u32::try_from(at.0 / 1_000).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
    }

    const fn start(self) -> Wall {
        Wall((self.0.get() as u64).saturating_mul(1_000))
    }
}

/// What is known of a message. 20 bytes in the module.
#[derive(Clone, Debug)]
struct Entry {
    generation: Generation,
    /// `None` for a dead letter: no message that waits, so it has no age.
    stored_at: Option<Second>,
    /// By [`Monotonic`]; [`Entry::NEVER`] while an attempt is out.
    due: Long,
    rare: Option<Box<Rare>>,
}

/// What only few messages have.
#[derive(Clone, Copy, Debug, Default)]
struct Rare {
    /// Not even a probe goes before this: the receiver asked for it.
    earliest: Monotonic,
    /// `None` if it is not ordered.
    spot: Option<Spot>,
}

impl Entry {
    const NEVER: Long = Long::MAX;

    fn new(generation: Generation, stored_at: Option<Second>, due: Long, spot: Option<Spot>) -> Self {
        let rare = spot.map(|spot| Box::new(Rare { spot: Some(spot), ..Rare::default() }));
        Self { generation, stored_at, due, rare }
    }

    fn waits(&self) -> bool {
        self.due != Self::NEVER
    }

    fn earliest(&self) -> Monotonic {
        self.rare.as_ref().map_or(Monotonic(0), |rare| rare.earliest)
    }

    fn spot(&self) -> Option<Spot> {
        self.rare.as_ref().and_then(|rare| rare.spot)
    }
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

    fn entry(self, generation: Generation) -> Entry {
        let stored_at = match self {
            Self::DeadHead(_) => None,
            Self::Parked { stored_at, .. } => Some(Second::of(stored_at)),
        };
        Entry::new(generation, stored_at, Entry::NEVER, self.spot())
    }
}

/// Messages in line that are looked at for a probe: one that may not go yet is due no sooner than it may go, so only a
/// backlog that was asked to wait as a whole has so many of them in front, and then the next due one is the probe.
const PROBE_LOOK_MAX: usize = 100;

/// In order of a number that is a moment of a clock or a place in a line: slots, or places in another number. One type
/// for all of these: each type of tree is 5 KB of code in the module.
type InOrder = BTreeSet<(Long, u32)>;

/// How many messages are held since each second: a binary number for each, whose ones are in the set. One more or one less
/// turns a few of them over, and needs nothing of a tree that the others do not need.
#[derive(Clone, Debug, Default)]
struct Ages {
    /// Each second with the place of a one in its count.
    ones: InOrder,
}

impl Ages {
    fn first(&self) -> Option<Second> {
        let (second, _) = self.ones.first()?;
        NonZeroU32::new(second.low).map(Second)
    }

    fn enter(&mut self, second: Second) {
        let second = Long::of(second.0.get().into());
        for place in 0..u32::BITS {
            if self.ones.insert((second, place)) {
                return;
            }
            self.ones.remove(&(second, place));
        }
    }

    fn leave(&mut self, second: Second) {
        let second = Long::of(second.0.get().into());
        for place in 0..u32::BITS {
            if self.ones.remove(&(second, place)) {
                return;
            }
            self.ones.insert((second, place));
        }
    }
}

/// Waiting and outstanding messages of one destination.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<SlotIndex, Entry>,
    /// Slots by [`Monotonic`].
    by_due: InOrder,
    ages: Ages,
    /// Messages in the order in which they were accepted, and those that hold their line up: dead letters and parked ones.
    lines: BTreeMap<LineKey, InOrder>,
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

    /// The beginning of the second in which the oldest message was stored, parked ones included.
    #[must_use]
    pub fn oldest(&self) -> Option<Wall> {
        self.ages.first().map(Second::start)
    }

    /// Whether this use of the slot is known.
    #[must_use]
    pub fn knows(&self, ticket: Ticket) -> bool {
        self.entries.get(&ticket.slot).is_some_and(|entry| entry.generation == ticket.generation)
    }

    /// Whether this message stands in a line.
    #[must_use]
    pub fn is_ordered(&self, ticket: Ticket) -> bool {
        self.knows(ticket) && self.entries.get(&ticket.slot).is_some_and(|entry| entry.spot().is_some())
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
        if self.entries.get(&ticket.slot).is_some_and(Entry::waits) {
            return;
        }
        self.enter(ticket, stored_at, Long::of(due.0), spot);
        self.show(ticket.slot);
    }

    /// The receiver asked not to be sent this message before `earliest`, not even as a probe.
    pub fn keep_back(&mut self, ticket: Ticket, earliest: Monotonic) {
        if earliest > self.latest
            && let Some(entry) =
                self.entries.get_mut(&ticket.slot).filter(|entry| entry.generation == ticket.generation)
        {
            entry.rare.get_or_insert_default().earliest = earliest;
        }
    }

    /// An attempt of the message is out, perhaps a predecessor's.
    pub fn out(&mut self, ticket: Ticket, stored_at: Wall, spot: Option<Spot>) {
        self.forget_other_use(ticket);
        self.hide(ticket.slot);
        self.enter(ticket, stored_at, Entry::NEVER, spot);
    }

    /// The message cannot be sent yet, for a reason that only the slots know: look again at `due`.
    pub fn postpone(&mut self, ticket: Ticket, due: Monotonic) {
        if self.knows(ticket) {
            self.hide(ticket.slot);
            if let Some(entry) = self.entries.get_mut(&ticket.slot).filter(|entry| entry.waits()) {
                entry.due = Long::of(due.0);
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
        let entry = stopped.entry(ticket.generation);
        entry.stored_at.into_iter().for_each(|second| self.ages.enter(second));
        self.stopped.insert(ticket.slot, entry);
        self.stand_in_line(ticket.slot, stopped.spot());
        self.hide(ticket.slot);
        if let Some(entry) = self.entries.remove(&ticket.slot) {
            let spot = entry.spot().filter(|_| stopped.spot().is_none());
            self.let_go(ticket.slot, &entry, spot);
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

    /// The message is one of ours, with another due time if it was one before.
    fn enter(&mut self, ticket: Ticket, stored_at: Wall, due: Long, spot: Option<Spot>) {
        let second = Second::of(stored_at);
        self.ages.enter(second);
        let before = self.entries.insert(ticket.slot, Entry::new(ticket.generation, Some(second), due, spot));
        before.and_then(|entry| entry.stored_at).into_iter().for_each(|second| self.ages.leave(second));
        self.stand_in_line(ticket.slot, spot);
    }

    fn remove(&mut self, slot: SlotIndex) {
        self.hide(slot);
        if let Some(entry) = self.entries.remove(&slot) {
            self.let_go(slot, &entry, entry.spot());
        }
    }

    fn go_on_without(&mut self, slot: SlotIndex) {
        if let Some(stopped) = self.stopped.remove(&slot) {
            self.let_go(slot, &stopped, stopped.spot());
        }
    }

    /// The entry is gone: so are its age and its place at `spot`.
    fn let_go(&mut self, slot: SlotIndex, entry: &Entry, spot: Option<Spot>) {
        entry.stored_at.into_iter().for_each(|second| self.ages.leave(second));
        spot.into_iter().for_each(|spot| self.leave_line(slot, spot));
    }

    /// Enters the line; whoever stood first there and does no longer has to wait.
    fn stand_in_line(&mut self, slot: SlotIndex, spot: Option<Spot>) {
        let Some(spot) = spot else { return };
        let place = (Long::of(spot.number), slot.0);
        let line = self.lines.entry(spot.line).or_default();
        let first = line.first().copied();
        line.insert(place);
        if let Some((_, first)) = first.filter(|_| line.first() == Some(&place)) {
            self.hide(SlotIndex(first));
        }
    }

    /// Leaves the line; whoever stands first there now is due from now on, or when the receiver wants it.
    fn leave_line(&mut self, slot: SlotIndex, spot: Spot) {
        let Some(line) = self.lines.get_mut(&spot.line) else { return };
        let place = (Long::of(spot.number), slot.0);
        let was_first = line.first() == Some(&place);
        line.remove(&place);
        let Some((_, next)) = line.first().copied() else {
            self.lines.remove(&spot.line);
            return;
        };
        if was_first {
            // Not by its own due time: that of a long line is long past, and others are due too.
            let latest = self.latest;
            if let Some(entry) = self.entries.get_mut(&SlotIndex(next)).filter(|entry| entry.waits()) {
                entry.due = Long::of(latest.max(entry.earliest()).0);
            }
            self.show(SlotIndex(next));
        }
    }

    /// Whether it is this one's turn.
    fn is_first(&self, slot: SlotIndex, spot: Option<Spot>) -> bool {
        spot.is_none_or(|spot| {
            self.lines.get(&spot.line).and_then(BTreeSet::first).is_some_and(|(_, first)| *first == slot.0)
        })
    }

    /// May be sent when it is due, if it waits and it is its turn.
    fn show(&mut self, slot: SlotIndex) {
        if let Some(entry) = self.entries.get(&slot).filter(|entry| entry.waits())
            && self.is_first(slot, entry.spot())
        {
            self.by_due.insert((entry.due, slot.0));
        }
    }

    fn hide(&mut self, slot: SlotIndex) {
        if let Some(entry) = self.entries.get(&slot) {
            self.by_due.remove(&(entry.due, slot.0));
        }
    }

    /// The message that is due first, if it is due at `now`.
    #[must_use]
    pub fn due(&self, now: Monotonic) -> Option<Ticket> {
        let (due, slot) = *self.by_due.first()?;
        if due <= Long::of(now.0) { self.ticket(SlotIndex(slot)) } else { None }
    }

    /// The first in line for a probe at `now`, due or not; another than `last` if there is another.
    #[must_use]
    pub fn probe(&self, last: Option<Ticket>, now: Monotonic) -> Option<Ticket> {
        let may_go = |slot: &SlotIndex| self.entries.get(slot).is_some_and(|entry| entry.earliest() <= now);
        let in_line = self.by_due.iter().take(PROBE_LOOK_MAX).map(|(_, slot)| SlotIndex(*slot));
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
        for (slot, due, stored_at) in [(1, 30, 3_999), (2, 10, 2_000), (3, 20, 1_001)] {
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
        schedule.out(ticket(3), Wall(1_001), None);
        assert_eq!(schedule.oldest(), Some(Wall(1_000)));
        schedule.forget(ticket(3));
        assert_eq!(schedule.oldest(), Some(Wall(2_000)));
        assert_eq!((schedule.len(), schedule.waiting()), (2, 2));
    }

    #[test]
    fn messages_of_one_second_have_one_age_until_the_last_of_them_is_settled() {
        let mut schedule = Schedule::default();
        for slot in 0..100 {
            schedule.wait(ticket(slot), Monotonic(10), Wall(5_000 + u64::from(slot)), None);
        }
        assert_eq!(schedule.ages.ones.len(), 100_u32.count_ones() as usize);
        for slot in 0..100 {
            assert_eq!(schedule.oldest(), Some(Wall(5_000)), "slot {slot}");
            schedule.out(ticket(slot), Wall(5_000 + u64::from(slot)), None);
            schedule.wait(ticket(slot), Monotonic(20), Wall(5_000 + u64::from(slot)), None);
            schedule.forget(ticket(slot));
        }
        assert_eq!((schedule.oldest(), schedule.ages.ones.len()), (None, 0));
    }

    #[test]
    fn a_clock_at_its_ends_gives_an_age_all_the_same() {
        for (at, oldest) in [(0, 1_000), (999, 1_000), (u64::MAX, u64::from(u32::MAX) * 1_000)] {
            let mut schedule = Schedule::default();
            schedule.wait(ticket(1), Monotonic(u64::MAX), Wall(at), None);
            assert_eq!(schedule.oldest(), Some(Wall(oldest)), "{at}");
            schedule.forget(ticket(1));
            assert_eq!(schedule.oldest(), None, "{at}");
        }
    }

    #[test]
    fn an_entry_is_as_small_as_its_words() {
        let pointer = size_of::<usize>();
        assert_eq!(size_of::<Entry>(), 16 + pointer);
        assert_eq!(size_of::<(Long, u32)>(), 12);
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
            schedule.wait(ticket(slot), Monotonic(10), Wall(u64::from(slot) * 1_000), spot);
        }
        schedule
    }

    fn all_due(schedule: &mut Schedule, now: u64) -> Vec<u32> {
        schedule.tell(Monotonic(now));
        let mut slots = Vec::new();
        while let Some(ticket) = schedule.due(Monotonic(now)) {
            let entry = schedule.entries[&ticket.slot].clone();
            schedule.out(ticket, entry.stored_at.unwrap().start(), entry.spot());
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
        assert_eq!(schedule.oldest(), Some(Wall(2_000)), "a dead letter is no message that waits");
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
            let (mut schedule, stored_at) = (lined_up(), Wall(500));
            schedule.forget(ticket(1));
            schedule.wait(ticket(1), Monotonic(10), Wall(2_000), self::spot(1, 10));
            schedule.wait(ticket(6), Monotonic(10), stored_at, spot);
            schedule.out(ticket(6), stored_at, spot);
            schedule.stop(ticket(6), Stopped::Parked { stored_at, spot });
            assert_eq!((all_due(&mut schedule, 99), schedule.oldest()), (due, Some(Wall(1_000))), "{spot:?}");
            // Released: it waits like any other. Gone: nothing is left of it.
            schedule.wait(ticket(6), Monotonic(99), stored_at, spot);
            assert_eq!(all_due(&mut schedule, 99), [6], "{spot:?}");
            schedule.forget(ticket(6));
            assert_eq!((schedule.oldest(), schedule.next_stopped()), (Some(Wall(2_000)), None), "{spot:?}");
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
