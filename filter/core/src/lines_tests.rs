//! Tests of the lines: who stands behind whom, when a new request may pass, and what two VMs and a VM that dies make of it.

use super::*;
use crate::keys::Keys;
use crate::memory::double::{MemoryDouble, VmMemory};
use crate::message::tests::message;
use crate::message::{Message, Ties};
use crate::slot::{DeadReason, DestinationIndex, Epoch, Head, SlotState};
use crate::store::{FILLING_MAX, FirstState, Limits, Now, PutError, Settlement};
use crate::units::{Millis, Wall};
use std::cell::RefCell;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use OnDeadHead::{Block, Release};

const TERM: Epoch = Epoch(7);
const HERE: DestinationIndex = DestinationIndex(0);
const A: LineKey = LineKey(0xaaaa);
/// In the same bucket as `A`.
const B: LineKey = LineKey(0x1_0000_aaaa);

fn at(moment: u64) -> Now {
    Now { monotonic: Monotonic(moment), wall: Wall(1_000_000 + moment) }
}

fn ordered(line: LineKey) -> Message {
    Message { ties: Ties { fingerprint: None, line: Some(line) }, ..message("/out") }
}

struct Shelf {
    memory: MemoryDouble,
    keys: Keys,
}

fn shelf() -> Shelf {
    Shelf { memory: MemoryDouble::default(), keys: Keys::of(b"test") }
}

fn put(store: Store<'_>, line: LineKey, now: Now) -> Result<Ticket, PutError> {
    let limits = crate::config::parse(b"{}").unwrap().shared.store.clone();
    store.put(&ordered(line), HERE, FirstState::Queued(now.monotonic), Limits::shared(&limits), now)
}

impl Shelf {
    fn store(&self) -> Store<'_> {
        Store { memory: &self.memory, keys: &self.keys }
    }

    fn put(&self, line: LineKey, now: Now) -> Ticket {
        put(self.store(), line, now).unwrap()
    }

    fn end(&self, ticket: Ticket, settlement: Settlement) {
        let claim = self.store().claim(ticket, TERM, Monotonic(99), Millis(u64::MAX), at(1)).unwrap();
        self.store().settle(ticket, TERM, claim.large, settlement, at(1).wall).unwrap();
    }

    fn die(&self, ticket: Ticket) {
        self.end(ticket, Settlement::Dead { reason: DeadReason::Rejected, status: 400 });
    }

    fn place(&self, ticket: Ticket) -> Place {
        self.store().head(ticket.slot).unwrap().unwrap().0.place.unwrap()
    }

    fn line(&self, line: LineKey) -> Line {
        self.store().line(line, Release, Monotonic(1))
    }

    fn ahead_of(&self, ticket: Ticket) -> Option<Ticket> {
        self.store().ahead_of(ticket, Release, Monotonic(1))
    }

    fn entries(&self, line: LineKey) -> usize {
        decode(Some(&self.memory.bytes(&self.keys.lines(bucket_of(line))))).unwrap().entries.len()
    }
}

#[test]
fn each_stands_behind_the_one_before_and_is_free_when_that_has_ended() {
    let shelf = shelf();
    assert_eq!(shelf.line(A), Line::Empty);
    let tickets: Vec<Ticket> = (0..5).map(|_| shelf.put(A, at(1))).collect();
    assert_eq!(bucket_of(A), bucket_of(B));
    assert_eq!(shelf.line(B), Line::Empty, "no line waits for another");
    for pair in tickets.windows(2) {
        assert_eq!(shelf.line(A), Line::Waiting);
        assert_eq!((shelf.ahead_of(pair[0]), shelf.ahead_of(pair[1])), (None, Some(pair[0])));
        assert!(shelf.place(pair[0]).spot.number < shelf.place(pair[1]).spot.number);
        shelf.end(pair[0], Settlement::Again { due: Monotonic(5), attempts: 1, status: 500 });
        assert_eq!(shelf.ahead_of(pair[1]), Some(pair[0]), "one that is tried again has not ended");
        shelf.end(pair[0], Settlement::Delivered);
    }
    assert_eq!((shelf.ahead_of(tickets[4]), shelf.line(A)), (None, Line::Waiting));
    shelf.end(tickets[4], Settlement::Delivered);
    assert_eq!((shelf.line(A), shelf.entries(A)), (Line::Empty, 0), "an entry that has ended is taken out");
}

#[test]
fn a_dead_letter_releases_its_line_or_blocks_it() {
    for (policy, line, is_ahead) in [(Release, Line::Empty, false), (Block, Line::Waiting, true)] {
        let shelf = shelf();
        let dead = shelf.put(A, at(1));
        let next = shelf.put(A, at(1));
        shelf.die(dead);
        let ahead = shelf.store().ahead_of(next, policy, Monotonic(1));
        assert_eq!(ahead.is_some(), is_ahead, "{policy:?}");
        shelf.end(next, Settlement::Delivered);
        assert_eq!(shelf.store().line(A, policy, Monotonic(1)), line, "{policy:?}");
        shelf.store().discard(dead, |_| true).unwrap();
        assert_eq!(shelf.store().line(A, policy, Monotonic(1)), Line::Empty, "{policy:?}");
    }
}

#[test]
fn whoever_comes_after_a_dead_letter_still_waits_for_those_before_it() {
    let shelf = shelf();
    let first = shelf.put(A, at(1));
    let second = shelf.put(A, at(1));
    shelf.die(second);
    assert_eq!(shelf.line(A), Line::Waiting);
    let third = shelf.put(A, at(1));
    assert_eq!(shelf.ahead_of(third), Some(first), "the second died out of turn");
}

#[test]
fn numbers_rise_although_the_cell_was_lost() {
    let shelf = shelf();
    let before = shelf.put(A, at(1_000));
    shelf.memory.overwrite(&shelf.keys.lines(bucket_of(A)), b"garbage");
    let after = shelf.put(A, at(1_001));
    assert!(shelf.place(before).spot.number < shelf.place(after).spot.number);
    let mut last = shelf.place(after).spot.number;
    for now in [at(1_001), at(500), at(0)] {
        let number = shelf.place(shelf.put(A, now)).spot.number;
        assert!(number > last, "whatever a VM thinks the time is");
        last = number;
    }
}

#[test]
fn years_of_keys_make_no_new_cells_and_leave_no_entries() {
    let shelf = shelf();
    for round in 0..2_000_u64 {
        let line = LineKey(0xaaaa | round << 32);
        let ticket = shelf.put(line, at(round));
        shelf.end(ticket, Settlement::Delivered);
        assert!(shelf.entries(A) <= 2, "round {round}");
    }
    assert_eq!(shelf.memory.key_count(), 1 + 4, "a bucket, one slot and both books");
}

#[test]
fn a_bucket_that_is_full_of_lines_takes_no_new_one_and_forgets_none() {
    let shelf = shelf();
    let line = |number: u64| LineKey(0xaaaa | number << 32);
    let lines = u64::try_from(LINES_MAX).unwrap();
    let tickets: Vec<Ticket> = (0..lines).map(|number| shelf.put(line(number), at(1))).collect();
    assert_eq!(put(shelf.store(), line(lines), at(1)), Err(PutError::Full));
    assert!((0..lines).all(|number| shelf.line(line(number)) == Line::Waiting));
    shelf.put(line(3), at(1));
    shelf.end(tickets[200], Settlement::Delivered);
    shelf.put(line(lines), at(1));
}

#[test]
fn a_request_whose_key_has_no_messages_costs_one_read() {
    let shelf = shelf();
    let reads = || {
        let vm = VmMemory::immortal(&shelf.memory);
        assert_eq!(Store { memory: &vm, keys: &shelf.keys }.line(A, Release, Monotonic(9)), Line::Empty);
        vm.calls()
    };
    assert_eq!(reads(), 1);
    let ticket = shelf.put(A, at(1));
    shelf.end(ticket, Settlement::Delivered);
    assert!(reads() > 1);
    assert_eq!(reads(), 1, "a stale entry is met once");
}

/// Stops one VM before each of its calls in turn and lets another do `meanwhile`, until the first gets through without.
fn at_every_call(story: &str, run: impl Fn(u32) -> bool) {
    let calls = (0..200).take_while(|call| run(*call)).count();
    assert!((1..200).contains(&calls), "{story}: stopped at {calls} calls");
}

/// The order in which the slots let messages be sent: each is delivered as soon as nobody is ahead of it.
fn order_of(shelf: &Shelf, mut waiting: Vec<Ticket>) -> Vec<Ticket> {
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let free: Vec<Ticket> = waiting.iter().copied().filter(|ticket| shelf.ahead_of(*ticket).is_none()).collect();
        let [next] = free[..] else { panic!("{free:?} may be sent at once, of {waiting:?}") };
        shelf.end(next, Settlement::Delivered);
        waiting.retain(|ticket| *ticket != next);
        order.push(next);
    }
    order
}

#[test]
fn two_vms_that_store_at_once_stand_in_one_line() {
    for others in 1..=3 {
        at_every_call("put and puts", |call| {
            let shelf = shelf();
            let first = shelf.put(A, at(1));
            let others_stored = RefCell::new(Vec::new());
            let vm = VmMemory::pausing_at(&shelf.memory, call, || {
                others_stored.borrow_mut().extend((0..others).map(|_| shelf.put(A, at(1))));
            });
            let one = put(Store { memory: &vm, keys: &shelf.keys }, A, at(1)).unwrap();
            let others_stored = others_stored.take();
            if others_stored.is_empty() {
                return false;
            }
            let last = shelf.put(A, at(1));
            let all: Vec<Ticket> = others_stored.iter().copied().chain([one, first, last]).collect();
            let order = order_of(&shelf, all);
            assert_eq!((order.first(), order.last()), (Some(&first), Some(&last)), "call {call}");
            let positions: Vec<_> =
                others_stored.iter().map(|ticket| order.iter().position(|found| found == ticket)).collect();
            assert!(positions.is_sorted(), "call {call}: {positions:?}");
            true
        });
    }
}

#[test]
fn a_vm_that_dies_while_it_stores_holds_nobody_up_and_breaks_no_line() {
    let mut cut = 0;
    loop {
        let shelf = shelf();
        let first = shelf.put(A, at(1));
        let vm = VmMemory::dying_after(&shelf.memory, cut);
        let stored = put(Store { memory: &vm, keys: &shelf.keys }, A, at(1));
        let is_dead = vm.is_dead();
        let last = shelf.put(A, at(2));
        // It may live: the last one waits for it, and for the first in any case.
        assert!(shelf.ahead_of(last).is_some() && shelf.line(A) == Line::Waiting, "cut {cut}");
        let later = Monotonic(FILLING_MAX.0 + 2);
        let filled = |ticket: &Ticket| {
            let (head, _) = shelf.store().head(ticket.slot).ok()??;
            (head.generation == ticket.generation && matches!(head.state, SlotState::Queued { .. })).then_some(*ticket)
        };
        // What a dead VM says of a slot that it never got may be true of the next one's.
        let between = stored.ok().filter(|ticket| *ticket != last).and_then(|ticket| filled(&ticket));
        for ticket in [Some(first), between].into_iter().flatten() {
            assert!(shelf.store().ahead_of(last, Release, later).is_some(), "cut {cut}");
            assert_eq!(shelf.store().ahead_of(ticket, Release, later), None, "cut {cut}");
            shelf.end(ticket, Settlement::Delivered);
        }
        assert_eq!(shelf.store().ahead_of(last, Release, later), None, "cut {cut}: a dead VM is waited for");
        shelf.end(last, Settlement::Delivered);
        assert_eq!(shelf.store().line(A, Release, later), Line::Empty, "cut {cut}");
        if !is_dead {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 5, "{cut} changes");
}

#[test]
fn a_damaged_head_is_waited_for_until_it_is_mended() {
    let shelf = shelf();
    let first = shelf.put(A, at(1));
    let next = shelf.put(A, at(1));
    shelf.memory.overwrite(&shelf.keys.head(first.slot), b"garbage");
    assert_eq!((shelf.ahead_of(next), shelf.line(A)), (Some(first), Line::Waiting));
    shelf.store().repair_head(first.slot, Wall(9)).unwrap();
    assert_eq!(shelf.ahead_of(next), None);
    let head: Head = shelf.store().head(next.slot).unwrap().unwrap().0;
    assert!(matches!(head.state, SlotState::Queued { .. }));
}

#[test]
fn a_bucket_of_a_later_build_is_overtaken_by_nobody_and_written_by_nobody() {
    let shelf = shelf();
    shelf.put(A, at(1));
    let key = shelf.keys.lines(bucket_of(A));
    let mut bytes = shelf.memory.bytes(&key);
    bytes[1] = 7;
    shelf.memory.overwrite(&key, &bytes);
    for line in [A, B] {
        assert_eq!(shelf.store().line(line, Release, at(2).monotonic), Line::Waiting, "{line:?}");
        assert_eq!(put(shelf.store(), line, at(2)), Err(PutError::Busy), "{line:?}");
    }
    assert_eq!(shelf.memory.bytes(&key), bytes);
}
