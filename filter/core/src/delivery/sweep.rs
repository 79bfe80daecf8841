//! The sweep: every slot is looked at again and again, so that no lost hint and no dead VM loses a message.
//!
//! | head | found by | done |
//! | --- | --- | --- |
//! | damaged | the housekeeper, or who has to wait for it | dead letter (corrupt), or freed if it held nothing |
//! | `Filling`, lease over | its leader | freed: nothing was promised |
//! | `Opening`, lease over | its leader | dead letter (unstorable): the routed form never came |
//! | `Queued` | its leader | scheduled, if no hint said so; dead letter if it is older than `store.ttl` |
//! | `Sending`, lease over | its leader | freed if its receipt is there; else queued again, the attempt counts |
//! | `Sending` | a new leader | counted as out, so that the window holds |
//! | `Parked` by another configuration | its leader | queued again, due at once |
//! | `Parked` | its leader | counted as waiting; holds its line up, if it has one |
//! | `Dead` | its leader | holds its line up, if it does |
//! | `Dead` for longer than `dead_letter.ttl` | its leader | removed, counted |
//!
//! A bounded number of heads per tick; more while a new leader takes over. The housekeeper's audit counts what its sweep
//! reads, so that no head is read twice for the two of them.

use super::{Delivery, note};
use crate::codec::Damage;
use crate::config::OnDeadHead;
use crate::courier::{spot_of, stopped};
use crate::effect::{Call, Counter, Effect, Level};
use crate::hint::ReadyHint;
use crate::ledger::Ledger;
use crate::memory::{Cas, SharedMemory};
use crate::slot::{DeadReason, DestinationIndex, Epoch, Head, SlotIndex, SlotState};
use crate::store::{Gone, Now, Repair, Ticket};
use crate::units::Monotonic;
use litemap::LiteMap;

/// Heads per tick in the long run: at ten ticks a second 10,000 slots are seen, and counted by an audit, in 20 seconds and
/// 1,000,000 in 34 minutes, for about a thousandth of a processor (a head of so many costs 2 us, most of them cache misses).
const SLOW_STEP: u32 = 50;
/// Heads per tick while a new leader takes over: a few milliseconds.
const FAST_STEP: u32 = 5_000;

/// Where the sweep stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    next: u32,
    /// Destinations taken over whose slots have not all been seen yet.
    unseen: LiteMap<DestinationIndex, Round>,
}

/// One look at every slot, from wherever the sweep was. Its end is a place and no count: slots are made meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    start: u32,
    half: Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// From the start to the last slot.
    ToTheEnd,
    /// From slot 0 to the start.
    ToTheStart,
}

impl Round {
    /// After one more slot, with `next` to come: the rest of the round, or `None` at its end.
    pub(super) fn after(self, next: u32) -> Option<Self> {
        match (self.half, next) {
            (Half::ToTheEnd, 0) if self.start > 0 => Some(Self { half: Half::ToTheStart, ..self }),
            (Half::ToTheEnd, 0) => None,
            (Half::ToTheEnd, _) => Some(self),
            // The last slot again: the start is gone, since damaged books were counted anew.
            (Half::ToTheStart, 0) => None,
            (Half::ToTheStart, next) => (next < self.start).then_some(self),
        }
    }
}

impl Sweep {
    /// A destination was taken over from another leader: all slots must be seen once, fast, from wherever the sweep is.
    pub(super) fn start_over(&mut self, destination: DestinationIndex) {
        self.unseen.insert(destination, self.round());
    }

    /// A round that begins with the next slot.
    pub(super) const fn round(&self) -> Round {
        Round { start: self.next, half: Half::ToTheEnd }
    }

    /// The slot to look at now, of `slots`.
    fn step(&mut self, slots: u32) -> SlotIndex {
        let slot = self.next.checked_rem(slots).unwrap_or_default();
        let next = slot.saturating_add(1).checked_rem(slots).unwrap_or_default();
        self.next = next;
        for (place, round) in &std::mem::take(&mut self.unseen) {
            if let Some(rest) = round.after(next) {
                self.unseen.insert(*place, rest);
            }
        }
        SlotIndex(slot)
    }

    /// Whether its leader has seen all slots once: before, it knows neither the backlog nor what its predecessor has out.
    pub(super) fn has_seen_all(&self, destination: DestinationIndex) -> bool {
        !self.unseen.contains_key(&destination)
    }
}

impl Delivery {
    /// Only whoever leads or keeps house can do anything about what it finds.
    pub(super) fn sweep_some(&mut self, memory: &dyn SharedMemory, now: Now, effects: &mut Vec<Effect>) {
        if self.couriers.is_empty() && !self.housekeeping.is_held() {
            return;
        }
        // Damaged books are the housekeeper's to mend; until then nobody knows how many slots there are.
        let Ok(Ledger { slots, .. }) = Ledger::read(memory, &self.keys.ledger()) else { return };
        let step = if self.sweep.unseen.is_empty() { SLOW_STEP } else { FAST_STEP };
        for _ in 0..step.min(slots) {
            let slot = self.sweep.step(slots);
            let found = self.store(memory).head(slot);
            self.housekeeping.see(slot, found.ok().flatten().map(|(head, _)| head), self.sweep.next);
            self.sweep_found(memory, slot, found, now, effects);
        }
        if slots == 0 {
            self.sweep.unseen.clear();
        }
    }

    pub(super) fn sweep_slot(
        &mut self,
        memory: &dyn SharedMemory,
        slot: SlotIndex,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let found = self.store(memory).head(slot);
        self.sweep_found(memory, slot, found, now, effects);
    }

    fn sweep_found(
        &mut self,
        memory: &dyn SharedMemory,
        slot: SlotIndex,
        found: Result<Option<(Head, Cas)>, Damage>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let head = match found {
            Ok(None) => return,
            Ok(Some((head, _))) => head,
            Err(_) => return self.repair(memory, slot, now, effects),
        };
        if self.couriers.contains_key(&head.destination) {
            let ticket = Ticket { slot, generation: head.generation };
            self.sweep_led(memory, ticket, &head, now, effects);
        }
    }

    fn sweep_led(
        &mut self,
        memory: &dyn SharedMemory,
        ticket: Ticket,
        head: &Head,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let is_over = |until: Monotonic| until < now.monotonic;
        match head.state {
            SlotState::Free => {}
            SlotState::Filling { until } if is_over(until) => self.give_up(memory, ticket, head),
            SlotState::Opening { until } if is_over(until) => {
                self.bury_waiting(memory, head.destination, ticket, DeadReason::Unstorable, now, effects);
            }
            SlotState::Filling { .. } | SlotState::Opening { .. } => {}
            SlotState::Queued { due } => self.sweep_queued(memory, ticket, head, due, now, effects),
            SlotState::Sending { until, .. } if is_over(until) => self.reclaim(memory, ticket, head, now, effects),
            SlotState::Sending { epoch, until } => self.count_as_out(ticket, head, epoch, until),
            SlotState::Parked { rule } if rule.0 == self.digest => self.stop_message(ticket, head),
            SlotState::Parked { .. } => self.release(memory, ticket, head, now),
            SlotState::Dead { .. } => self.sweep_dead(memory, ticket, head, now, effects),
        }
    }

    fn give_up(&self, memory: &dyn SharedMemory, ticket: Ticket, head: &Head) {
        // Without a receipt: its filler may be slow and not dead, and what it wrote may yet be promised.
        match self.store(memory).free(ticket, |found| found == head) {
            // Gone: its filler was alive after all, or another VM gave it up.
            Ok(_) | Err(Gone) => {}
        }
    }

    fn sweep_queued(
        &mut self,
        memory: &dyn SharedMemory,
        ticket: Ticket,
        head: &Head,
        due: Monotonic,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if head.age(now.wall) > self.policy(head.destination).store.ttl {
            self.expire(memory, ticket, head, due, now, effects);
        } else {
            self.add_waiting(ticket, head, due);
        }
    }

    /// Too old. In a line whose dead letters release it, messages end one after the other: the last one to come must be
    /// the last to end, since new requests look at it. Those ahead are as old, so this one's turn comes with the sweep.
    fn expire(
        &mut self,
        memory: &dyn SharedMemory,
        ticket: Ticket,
        head: &Head,
        due: Monotonic,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let must_wait = match self.on_dead_head(head.destination) {
            None | Some(OnDeadHead::Block) => false,
            Some(release @ OnDeadHead::Release) => {
                self.store(memory).ahead_of(ticket, release, now.monotonic).is_some()
            }
        };
        if must_wait {
            self.add_waiting(ticket, head, due);
        } else {
            self.bury_waiting(memory, head.destination, ticket, DeadReason::Expired, now, effects);
        }
    }

    /// The message waits, whether or not a hint has said so.
    fn add_waiting(&mut self, ticket: Ticket, head: &Head, due: Monotonic) {
        let spot = spot_of(head, &self.policy(head.destination).redelivery);
        if let Some(courier) = self.couriers.get_mut(&head.destination) {
            courier.add(ReadyHint { ticket, due, stored_at: head.stored_at, spot });
        }
    }

    /// The configuration is another one than that under which the message was parked: what it was refused for may be
    /// mended.
    fn release(&mut self, memory: &dyn SharedMemory, ticket: Ticket, head: &Head, now: Now) {
        let spot = spot_of(head, &self.policy(head.destination).redelivery);
        if let Ok(released) = self.store(memory).release(ticket, head, now)
            && let Some(courier) = self.couriers.get_mut(&head.destination)
        {
            courier.add(ReadyHint { ticket, due: now.monotonic, stored_at: released.stored_at, spot });
        }
    }

    fn count_as_out(&mut self, ticket: Ticket, head: &Head, epoch: Epoch, until: Monotonic) {
        let spot = spot_of(head, &self.policy(head.destination).redelivery);
        if let Some(courier) = self.couriers.get_mut(&head.destination)
            && !courier.is_out(ticket)
        {
            courier.out(ticket, head.stored_at, spot, epoch, until);
        }
    }

    /// An attempt whose outcome never came: its VM died, or the answer was lost.
    fn reclaim(&mut self, memory: &dyn SharedMemory, ticket: Ticket, head: &Head, now: Now, effects: &mut Vec<Effect>) {
        let unchanged = |found: &Head| found == head;
        let attempts = head.attempts.saturating_add(1);
        self.let_lapse(ticket);
        if let Some(courier) = self.couriers.get_mut(&head.destination) {
            courier.forget(ticket);
        }
        if self.store(memory).is_settled(ticket) {
            if self.store(memory).free_settled(ticket, now.wall, unchanged).is_ok() {
                effects.push(Effect::Count(Counter::Delivered, 1));
            }
            return;
        }
        effects.push(Effect::Count(Counter::AttemptFailures, 1));
        if u32::from(attempts) >= self.policy(head.destination).redelivery.attempts_max {
            if let Ok(dead) = self.store(memory).bury(ticket, DeadReason::Attempts, 0, now.wall, unchanged) {
                self.tell_of_death(&dead, DeadReason::Attempts, effects);
                self.leave_dead(memory, head.destination, ticket);
            }
            return;
        }
        let due = now.monotonic;
        if self.store(memory).requeue(ticket, due, attempts, 0, now.wall, unchanged).is_ok() {
            self.add_waiting(ticket, head, due);
        }
    }

    /// Nothing but a 2xx is worth hearing of this VM's own attempt any more.
    fn let_lapse(&mut self, ticket: Ticket) {
        for (_, call) in self.calls.iter_mut() {
            if let Call::Attempt(attempt) = call
                && attempt.ticket == ticket
            {
                *call = Call::LapsedAttempt(*attempt);
            }
        }
    }

    fn sweep_dead(
        &mut self,
        memory: &dyn SharedMemory,
        ticket: Ticket,
        head: &Head,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let is_over = now.wall.since(head.changed_at) > self.config.dead_letter_ttl;
        if is_over && self.store(memory).discard(ticket, |found| found == head).is_ok() {
            effects.push(Effect::Count(Counter::DeadExpired, 1));
            effects.push(note(Level::Warn, "a dead letter was removed: its dead_letter.ttl is over"));
            self.forget(head.destination, ticket);
        } else {
            self.stop_message(ticket, head);
        }
    }

    /// The message is not to be sent: those behind it, and whoever asks for the oldest, may have to know.
    fn stop_message(&mut self, ticket: Ticket, head: &Head) {
        if let Some(stopped) = stopped(head, &self.policy(head.destination).redelivery)
            && let Some(courier) = self.couriers.get_mut(&head.destination)
        {
            courier.stop(ticket, stopped);
        }
    }

    /// A damaged head is the housekeeper's: it will count the books again, which may not show what was mended.
    fn repair(&mut self, memory: &dyn SharedMemory, slot: SlotIndex, now: Now, effects: &mut Vec<Effect>) {
        if self.housekeeping.is_held() {
            self.housekeeping.audit_again();
            self.mend(memory, slot, now, effects);
        }
    }

    /// Puts a damaged head right. Whoever has to wait for one does it too: the housekeeper's sweep may take its time.
    pub(super) fn mend(&self, memory: &dyn SharedMemory, slot: SlotIndex, now: Now, effects: &mut Vec<Effect>) {
        match self.store(memory).repair_head(slot, now.wall) {
            Ok(Repair::DeadLetter) => {
                effects.push(Effect::Count(Counter::Corrupt, 1));
                effects.push(Effect::Count(Counter::DeadLettered, 1));
                effects.push(note(
                    Level::Error,
                    format!("slot {}: damaged head; kept as a dead letter (corrupt)", slot.0),
                ));
            }
            Ok(Repair::Freed) => {
                effects.push(note(Level::Error, format!("slot {}: damaged head; the slot was empty", slot.0)));
            }
            Err(Gone) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PLACE: DestinationIndex = DestinationIndex(3);

    /// Steps until the round that begins at `start` is over, with `slots(step)` slots at each step.
    fn round(start: u32, slots: impl Fn(u32) -> u32) -> BTreeSet<u32> {
        let mut sweep = Sweep { next: start, ..Sweep::default() };
        sweep.start_over(PLACE);
        let mut seen = BTreeSet::new();
        for step in 0..1_000 {
            if sweep.has_seen_all(PLACE) {
                return seen;
            }
            seen.insert(sweep.step(slots(step)).0);
        }
        panic!("no end: {sweep:?}");
    }

    #[test]
    fn a_round_sees_every_slot_from_wherever_it_begins_while_slots_are_made() {
        for start in 0..12 {
            for every in [1, 2, 3, 100] {
                let seen = round(start, |step| 10 + (step / every).min(40));
                assert!((0..10).all(|slot| seen.contains(&slot)), "from {start}, one more per {every}: {seen:?}");
            }
        }
    }

    #[test]
    fn a_round_is_no_longer_than_it_must_be_and_ends_if_slots_go_away() {
        for start in 0..10 {
            assert_eq!(round(start, |_| 10).len(), 10);
            round(start, |step| if step < 3 { 10 } else { 2 });
        }
    }
}
