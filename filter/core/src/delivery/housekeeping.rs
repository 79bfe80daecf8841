//! Housekeeping: what only one VM of the process does for the store. Sets the gauges, audits the books, repairs heads.
//!
//! Held by a lease. Nothing is lost when the house stands empty for a moment: gauges stand still. An audit is a round of the
//! sweep: it counts the heads that are read there anyway, and reads none itself.

use super::sweep::Round;
use super::tenancy::Tenancy;
use super::{Delivery, note};
use crate::cells::{Leadership, PublishedState};
use crate::codec::Damage;
use crate::effect::{Effect, Gauge, Level};
use crate::keys::Name;
use crate::ledger::{self, Ledger};
use crate::memory::SharedMemory;
use crate::slot::{DestinationIndex, Head, SlotIndex, SlotState};
use crate::store::Now;
use crate::units::{Millis, Monotonic};
use litemap::LiteMap;

/// How often the gauges are set.
const GAUGE_PERIOD: Millis = Millis(250);
/// The books must have been quiet for so long before they are audited: no callback lasts longer.
const QUIET: Millis = Millis(5_000);
/// How often gauges are shown although they have not changed.
const SHOW_AGAIN: Millis = Millis(10_000);
/// Destinations whose books are looked at per tick, whether they are damaged.
const PARTS_PER_TICK: usize = 16;
/// Free slots whose hints an audit writes anew; with more of them the lost ones do not matter.
const HINTS_MAX: usize = 10_000;
/// Slots in a row that were never written, behind which no further one is looked for: each is a VM that died between
/// taking a number and writing there.
const GAP_MAX: u32 = 64;

/// What the housekeeper remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Housekeeping {
    tenancy: Tenancy,
    gauges_at: Option<Monotonic>,
    shown: LiteMap<Gauge, u64>,
    shown_at: Option<Monotonic>,
    audit: Audit,
    /// The destination whose books were looked at last.
    part: usize,
}

#[derive(Clone, Debug, Default)]
struct Audit {
    /// The books as last seen, and since when they have been like that.
    seen: Option<(Ledger, Monotonic)>,
    /// The `changes` of the books that were audited last.
    done_for: Option<u32>,
    progress: Progress,
    counted: Counts,
    free: Vec<SlotIndex>,
    /// What the count before found, if the books were found wrong.
    doubt: Option<Counts>,
}

/// How much of the slots an audit has counted.
#[derive(Clone, Copy, Debug, Default)]
enum Progress {
    /// None: the books must be quiet first.
    #[default]
    NotBegun,
    /// This round of the sweep shows the rest of them.
    Counting(Round),
    /// All.
    Done,
}

/// What the slots hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    whole: Ledger,
    /// Of each destination, by its place; those behind the last have none.
    parts: Vec<Ledger>,
}

impl Counts {
    fn part(&self, place: usize) -> Ledger {
        self.parts.get(place).copied().unwrap_or_default()
    }
}

impl Housekeeping {
    pub(super) const fn is_held(&self) -> bool {
        self.tenancy.is_held()
    }

    /// A slot was mended, which does not show in the books: they are counted again although they have not changed.
    pub(super) fn audit_again(&mut self) {
        self.audit = Audit::default();
    }

    #[cfg(test)]
    pub(super) const fn is_counting(&self) -> bool {
        matches!(self.audit.progress, Progress::Counting(_))
    }

    /// The sweep has read a slot, and comes to `next` after it.
    pub(super) fn see(&mut self, slot: SlotIndex, head: Option<Head>, next: u32) {
        match self.audit.progress {
            Progress::NotBegun | Progress::Done => {}
            Progress::Counting(round) => {
                self.audit.count(slot, head);
                self.audit.progress = round.after(next).map_or(Progress::Done, Progress::Counting);
            }
        }
    }
}

impl Delivery {
    pub(super) fn keep_house(&mut self, memory: &dyn SharedMemory, now: Now, effects: &mut Vec<Effect>) {
        if !self.hold_house(memory, now.monotonic) {
            return;
        }
        self.set_gauges(memory, now, effects);
        self.rebuild_parts(memory, effects);
        self.audit(memory, now.monotonic, effects);
    }

    /// Takes or renews the house's lease.
    fn hold_house(&mut self, memory: &dyn SharedMemory, now: Monotonic) -> bool {
        let applicant = self.applicant(memory, now);
        let is_held = self.housekeeping.tenancy.hold(memory, &self.keys.housekeeping(), applicant, now);
        if !is_held {
            let tenancy = std::mem::take(&mut self.housekeeping.tenancy);
            self.housekeeping = Housekeeping { tenancy, ..Housekeeping::default() };
        }
        is_held
    }

    /// Gives the house back: its lease ends now.
    pub(super) fn leave_house(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        self.housekeeping.tenancy.leave(memory, &self.keys.housekeeping(), self.vm, now);
    }

    fn set_gauges(&mut self, memory: &dyn SharedMemory, now: Now, effects: &mut Vec<Effect>) {
        if self.housekeeping.gauges_at.is_some_and(|at| now.monotonic.since(at) < GAUGE_PERIOD) {
            return;
        }
        self.housekeeping.gauges_at = Some(now.monotonic);
        // A VM that stood still in the middle of this may have shown an old value since.
        if self.housekeeping.shown_at.is_none_or(|at| now.monotonic.since(at) > SHOW_AGAIN) {
            self.housekeeping.shown.clear();
            self.housekeeping.shown_at = Some(now.monotonic);
        }
        let Ok(ledger) = Ledger::read(memory, &self.keys.ledger()) else { return };
        let leaders: Vec<Leadership> = (0..self.names.len())
            .filter_map(|place| self.leadership(memory, DestinationIndex(u16::try_from(place).ok()?)))
            .collect();
        let down = leaders.iter().filter(|found| found.state == PublishedState::Down).count();
        let oldest = leaders.iter().map(|found| found.oldest_stored_at).filter(|at| *at > 0).min();
        let queued = ledger.messages.saturating_sub(ledger.dead);
        let values = [
            (Gauge::Queued, u64::from(queued)),
            (Gauge::QueuedBytes, ledger.bytes.0.saturating_sub(ledger.dead_bytes.0)),
            (Gauge::Dead, u64::from(ledger.dead)),
            (Gauge::InFlight, leaders.iter().map(|found| u64::from(found.in_flight)).sum()),
            (Gauge::OldestAgeMs, if queued == 0 { 0 } else { oldest.map_or(0, |at| now.wall.0.saturating_sub(at)) }),
            (Gauge::DestinationsDown, u64::try_from(down).unwrap_or(u64::MAX)),
        ];
        for (gauge, value) in values {
            if self.housekeeping.shown.insert(gauge, value) != Some(value) {
                effects.push(Effect::Gauge(gauge, value));
            }
        }
    }

    /// Has all slots counted when the books have been quiet, and mends the books if they are wrong.
    fn audit(&mut self, memory: &dyn SharedMemory, now: Monotonic, effects: &mut Vec<Effect>) {
        let key = self.keys.ledger();
        let books = match Ledger::read(memory, &key) {
            Ok(books) => books,
            Err(Damage::Later) => return,
            Err(_) => return self.rebuild_books(memory, effects),
        };
        let audit = &mut self.housekeeping.audit;
        let (seen, since) = audit.seen.filter(|(seen, _)| *seen == books).unwrap_or((books, now));
        if audit.seen != Some((seen, since)) {
            *audit = Audit { seen: Some((seen, since)), done_for: audit.done_for, ..Audit::default() };
        }
        if now.since(since) < QUIET || audit.done_for == Some(books.changes) {
            return;
        }
        match audit.progress {
            Progress::NotBegun if books.slots > 0 => {
                audit.progress = Progress::Counting(self.sweep.round());
                return;
            }
            Progress::Counting(_) => return,
            Progress::NotBegun | Progress::Done => {}
        }
        let audit = std::mem::take(&mut self.housekeeping.audit);
        let whole = Ledger { slots: books.slots, changes: books.changes, ..audit.counted.whole };
        let counts = Counts { whole, ..audit.counted };
        let wrong_parts = self.wrong_parts(memory, &counts);
        let is_wrong = whole != books || !wrong_parts.is_empty();
        if is_wrong && audit.doubt.as_ref() != Some(&counts) {
            // A VM may be between a slot and the books just now: only what a second count finds again is mended.
            let seen = Some((books, now));
            self.housekeeping.audit = Audit { seen, doubt: Some(counts), ..Audit::default() };
            return;
        }
        self.housekeeping.audit.done_for = Some(books.changes);
        for (key, booked, counted) in wrong_parts {
            // Changed since: not quiet after all, and what changed the part changes the whole too.
            ledger::mend(memory, &key, &booked, counted).unwrap_or_default();
        }
        if whole != books && ledger::mend(memory, &key, &books, whole).is_ok() {
            let text = format!(
                "books mended: {} messages counted, {} booked (a VM died between two writes)",
                whole.messages, books.messages
            );
            effects.push(note(Level::Warn, text));
            self.housekeeping.audit.done_for = None;
        }
        self.renew_free_hints(memory, &audit.free);
    }

    /// The books of single destinations that do not say what was counted: key, what stands there, what should.
    fn wrong_parts(&self, memory: &dyn SharedMemory, counts: &Counts) -> Vec<(Name, Ledger, Ledger)> {
        let places = self.names.len().max(counts.parts.len());
        let mut wrong = Vec::new();
        for place in 0..places {
            let key = self.keys.destination_ledger(DestinationIndex(u16::try_from(place).unwrap_or(u16::MAX)));
            // What is damaged is not the audit's.
            let Ok(booked) = Ledger::read(memory, &key) else { continue };
            let counted = Ledger { changes: booked.changes, ..counts.part(place) };
            if booked != counted {
                wrong.push((key, booked, counted));
            }
        }
        wrong
    }

    /// Damaged books of a destination are counted anew at once: until then nothing is stored for it. A bounded number of
    /// destinations is looked at per tick.
    fn rebuild_parts(&mut self, memory: &dyn SharedMemory, effects: &mut Vec<Effect>) {
        let count = self.names.len();
        for _ in 0..count.min(PARTS_PER_TICK) {
            self.housekeeping.part = self.housekeeping.part.saturating_add(1).checked_rem(count).unwrap_or_default();
            let Ok(place) = u16::try_from(self.housekeeping.part) else { return };
            let key = self.keys.destination_ledger(DestinationIndex(place));
            match Ledger::read(memory, &key) {
                Ok(_) | Err(Damage::Later) => continue,
                Err(_) => {}
            }
            let Ok(Ledger { slots, .. }) = Ledger::read(memory, &self.keys.ledger()) else { return };
            let counted = self.count_all(memory, slots).part(usize::from(place));
            if ledger::rebuild(memory, &key, counted).is_ok() {
                let text =
                    format!("the books of a destination were damaged: counted anew, {} messages", counted.messages);
                effects.push(note(Level::Error, text));
            }
        }
    }

    /// Counts all slots in one go.
    fn count_all(&mut self, memory: &dyn SharedMemory, slots: u32) -> Counts {
        self.housekeeping.audit_again();
        let mut audit = Audit::default();
        for slot in (0..slots).map(SlotIndex) {
            audit.count(slot, self.store(memory).head(slot).ok().flatten().map(|(head, _)| head));
        }
        audit.counted
    }

    /// A damaged ledger is counted anew at once: until then nothing is stored.
    fn rebuild_books(&mut self, memory: &dyn SharedMemory, effects: &mut Vec<Effect>) {
        let slots = self.slots_written(memory);
        let counted = Ledger { slots, ..self.count_all(memory, slots).whole };
        if ledger::rebuild(memory, &self.keys.ledger(), counted).is_ok() {
            effects.push(note(
                Level::Error,
                format!("the books were damaged: counted anew, {} messages", counted.messages),
            ));
        }
    }

    fn slots_written(&self, memory: &dyn SharedMemory) -> u32 {
        let (mut slots, mut slot) = (0_u32, 0_u32);
        while slot < slots.saturating_add(GAP_MAX) {
            let is_written = memory.get(&self.keys.head(SlotIndex(slot))).is_some();
            slot = slot.saturating_add(1);
            slots = if is_written { slot } else { slots };
        }
        slots
    }

    /// Writes the hints at free slots anew: a VM that died with one in hand lost it.
    fn renew_free_hints(&self, memory: &dyn SharedMemory, free: &[SlotIndex]) {
        if free.len() > HINTS_MAX {
            return;
        }
        for _ in 0..HINTS_MAX {
            if memory.dequeue(&self.keys.free_slots()).is_none() {
                break;
            }
        }
        for slot in free {
            self.store(memory).hint_free(*slot);
        }
    }
}

impl Audit {
    fn count(&mut self, slot: SlotIndex, head: Option<Head>) {
        let Some(head) = head.filter(|head| head.state != SlotState::Free) else {
            if self.free.len() <= HINTS_MAX {
                self.free.push(slot);
            }
            return;
        };
        let place = usize::from(head.destination.0);
        if self.counted.parts.len() <= place {
            self.counted.parts.resize(place.saturating_add(1), Ledger::default());
        }
        for counted in [Some(&mut self.counted.whole), self.counted.parts.get_mut(place)].into_iter().flatten() {
            counted.messages = counted.messages.saturating_add(1);
            counted.bytes = counted.bytes.plus(head.charge);
            if matches!(head.state, SlotState::Dead { .. }) {
                counted.dead = counted.dead.saturating_add(1);
                counted.dead_bytes = counted.dead_bytes.plus(head.charge);
            }
        }
    }
}
