//! Tests of the memory of idempotency keys: what is known, what is not believed, how long and how much is remembered, and
//! what two VMs and a VM that dies make of it.

use super::*;
use crate::digest::Content;
use crate::keys::{Keys, Name};
use crate::memory::double::{MemoryDouble, VmMemory};
use crate::memory::{Expect, SharedMemory};
use crate::message::tests::{fingerprint, message};
use crate::message::{Message, Ties};
use crate::slot::{DeadReason, DestinationIndex, Epoch, Head, SlotState};
use crate::store::{FILLING_MAX, FirstState, Limits, PutError, Settlement};
use crate::units::Monotonic;
use std::cell::RefCell;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TERM: Epoch = Epoch(7);
const HERE: DestinationIndex = DestinationIndex(0);

fn at(moment: u64) -> Now {
    Now { monotonic: Monotonic(moment), wall: Wall(1_000_000 + moment) }
}

/// A message with a key of its own; number 0 to 255.
fn keyed(number: u8) -> Message {
    let ties = Ties { fingerprint: Some(fingerprint(number)), line: None };
    Message { id: MessageId([number; 16]), ties, ..message("/out") }
}

/// The same key, other content.
fn reused(number: u8) -> Message {
    let fingerprint = Fingerprint { content: Content([99; 16]), ..fingerprint(number) };
    Message { ties: Ties { fingerprint: Some(fingerprint), line: None }, ..keyed(number) }
}

struct Shelf {
    memory: MemoryDouble,
    keys: Keys,
}

fn shelf() -> Shelf {
    Shelf { memory: MemoryDouble::default(), keys: Keys::of(b"test") }
}

fn put(store: Store<'_>, message: &Message, now: Now) -> Result<Ticket, PutError> {
    let limits = crate::config::parse(b"{}").unwrap().shared.store.clone();
    store.put(message, HERE, FirstState::Queued(now.monotonic), Limits::shared(&limits), now)
}

impl Shelf {
    fn store(&self) -> Store<'_> {
        Store { memory: &self.memory, keys: &self.keys }
    }

    fn put(&self, number: u8, now: Now) -> Ticket {
        put(self.store(), &keyed(number), now).unwrap()
    }

    fn end(&self, ticket: Ticket, settlement: Settlement, now: Now) {
        let until = now.monotonic.after(Millis(10));
        let claim = self.store().claim(ticket, TERM, until, Millis(u64::MAX), now).unwrap();
        self.store().settle(ticket, TERM, claim.large, settlement, now.wall).unwrap();
    }

    /// What is known of a key; where its message is, only puts are asked for.
    fn recall(&self, number: u8, now: Now) -> Recall {
        match self.store().recall(fingerprint(number).identity, now) {
            Recall::Known(known) => Recall::Known(Known { held: None, ..known }),
            other @ (Recall::New | Recall::BeingStored) => other,
        }
    }

    fn bucket(&self, number: u8) -> Name {
        self.keys.duplicates(bucket_of(fingerprint(number).identity))
    }

    fn entries(&self, number: u8) -> usize {
        decode(Some(&self.memory.bytes(&self.bucket(number)))).unwrap().len()
    }
}

fn first(number: u8, held: Option<Ticket>) -> Known {
    Known { id: MessageId([number; 16]), content: fingerprint(number).content, held }
}

fn known(number: u8) -> Recall {
    Recall::Known(first(number, None))
}

#[test]
fn a_key_is_known_while_its_message_is_held_and_for_an_hour_after_its_delivery() {
    let shelf = shelf();
    assert_eq!(shelf.recall(1, at(0)), Recall::New);
    let ticket = shelf.put(1, at(0));
    assert_eq!(shelf.recall(1, at(1)), known(1));
    shelf.end(ticket, Settlement::Again { due: Monotonic(5), attempts: 1, status: 500 }, at(2));
    assert_eq!(shelf.recall(1, at(99_999_999)), known(1), "held is held, however long");
    shelf.end(ticket, Settlement::Delivered, at(100));
    assert_eq!(shelf.put(2, at(101)).slot, ticket.slot, "another message has the slot");
    assert_eq!(shelf.recall(1, at(100 + REMEMBERED.0)), known(1));
    assert_eq!(shelf.recall(1, at(101 + REMEMBERED.0)), Recall::New);
    assert_eq!(shelf.entries(1), 0, "what has lapsed is taken out when it is met");
}

#[test]
fn a_dead_letter_is_a_stored_message_until_it_is_removed() {
    let shelf = shelf();
    let ticket = shelf.put(1, at(0));
    shelf.end(ticket, Settlement::Dead { reason: DeadReason::Rejected, status: 400 }, at(1));
    assert_eq!(shelf.recall(1, at(2)), known(1));
    shelf.store().discard(ticket, |_| true).unwrap();
    assert_eq!(shelf.recall(1, at(3)), Recall::New);
}

/// The memory of a delivery goes by the wall clock: a jump ahead can only make a retry a new message under the same key.
#[test]
fn a_stored_messages_key_is_known_whatever_the_wall_clock_says() {
    let day = 24 * REMEMBERED.0;
    for (wall, is_remembered) in
        [(0, true), (100 * day, true), (100 * day + REMEMBERED.0 + 1, false), (5_000 * day, false)]
    {
        let shelf = shelf();
        let then = Now { wall: Wall(100 * day), ..at(0) };
        let ticket = shelf.put(1, then);
        let later = Now { wall: Wall(wall), ..at(1) };
        assert_eq!(shelf.recall(1, later), known(1), "stored, {wall}");
        shelf.end(ticket, Settlement::Delivered, then);
        assert_eq!(shelf.recall(1, later), if is_remembered { known(1) } else { Recall::New }, "delivered, {wall}");
    }
}

#[test]
fn the_same_content_joins_and_other_content_is_a_reuse() {
    let known = first(1, None);
    assert_eq!(known.judge(fingerprint(1).content), Retry::Joins(MessageId([1; 16])));
    assert_eq!(known.judge(fingerprint(2).content), Retry::Reuses);
}

#[test]
fn a_key_that_is_known_is_not_stored_twice_and_the_refused_put_leaves_nothing_behind() {
    for settlement in [None, Some(Settlement::Delivered)] {
        for second in [keyed(1), reused(1)] {
            let shelf = shelf();
            let ticket = shelf.put(1, at(0));
            settlement.into_iter().for_each(|settlement| shelf.end(ticket, settlement, at(1)));
            let held = settlement.is_none().then_some(ticket);
            assert_eq!(put(shelf.store(), &second, at(2)), Err(PutError::Known(first(1, held))));
            let books = crate::ledger::Ledger::read(&shelf.memory, &shelf.keys.ledger()).unwrap();
            assert_eq!(books.messages, u32::from(settlement.is_none()), "{books:?}");
        }
    }
}

#[test]
fn an_entry_that_its_slot_does_not_bear_out_is_not_believed() {
    type Spoil = fn(&Shelf, Ticket);
    let cases: [(&str, Spoil); 4] = [
        ("the slot is free", |shelf, ticket| {
            shelf.store().free(ticket, |_| true).unwrap();
        }),
        ("the slot has another use", |shelf, ticket| {
            shelf.store().free(ticket, |_| true).unwrap();
            assert_eq!(shelf.put(2, at(1)).slot, ticket.slot);
        }),
        ("its VM died while it stored", |shelf, ticket| {
            let filling = Head::free(ticket.generation).with(SlotState::Filling { until: Monotonic(10) });
            shelf.memory.overwrite(&shelf.keys.head(ticket.slot), &filling.encode(ticket.slot));
        }),
        ("the head is damaged", |shelf, ticket| shelf.memory.overwrite(&shelf.keys.head(ticket.slot), b"garbage")),
    ];
    for (story, spoil) in cases {
        let shelf = shelf();
        let ticket = shelf.put(1, at(0));
        spoil(&shelf, ticket);
        assert_eq!(shelf.recall(1, at(11)), Recall::New, "{story}");
        assert!(put(shelf.store(), &keyed(1), at(12)).is_ok(), "{story}");
        assert_eq!(shelf.recall(1, at(13)), known(1), "{story}");
    }
}

#[test]
fn neighbours_in_a_bucket_know_nothing_of_each_other() {
    let shelf = shelf();
    let mut neighbour = keyed(1);
    let mut identity = fingerprint(1).identity;
    identity.0[15] ^= 1;
    neighbour.ties.fingerprint = Some(Fingerprint { identity, content: fingerprint(1).content });
    shelf.put(1, at(0));
    assert_eq!(bucket_of(identity), bucket_of(fingerprint(1).identity));
    assert_eq!(shelf.store().recall(identity, at(1)), Recall::New);
    assert!(put(shelf.store(), &neighbour, at(1)).is_ok());
    assert_eq!(shelf.recall(1, at(2)), known(1));
}

/// Messages whose keys all fall into one bucket.
fn neighbour(number: u16) -> Message {
    let mut identity = Identity([7; 16]);
    identity.0[14..].copy_from_slice(&number.to_le_bytes());
    let fingerprint = Fingerprint { identity, content: Content([1; 16]) };
    Message { ties: Ties { fingerprint: Some(fingerprint), line: None }, ..message("/out") }
}

fn recall_of(shelf: &Shelf, message: &Message, now: Now) -> Recall {
    shelf.store().recall(message.ties.fingerprint.unwrap().identity, now)
}

#[test]
fn a_bucket_remembers_its_last_deliveries_and_no_more() {
    let shelf = shelf();
    for number in 0..20 {
        let ticket = put(shelf.store(), &neighbour(number), at(0)).unwrap();
        shelf.end(ticket, Settlement::Delivered, at(number.into()));
    }
    for number in 0..20 {
        let is_known = recall_of(&shelf, &neighbour(number), at(30)) != Recall::New;
        assert_eq!(is_known, number >= 20 - u16::try_from(DELIVERED_MAX).unwrap(), "{number}");
    }
}

#[test]
fn a_full_bucket_forgets_its_oldest_message_and_stores_the_new_one() {
    let shelf = shelf();
    let count = u16::try_from(STORED_MAX).unwrap() + 20;
    for number in 0..count {
        put(shelf.store(), &neighbour(number), at(0)).unwrap();
    }
    let known = (0..count).filter(|number| recall_of(&shelf, &neighbour(*number), at(1)) != Recall::New).count();
    assert_eq!(known, STORED_MAX);
    assert_ne!(recall_of(&shelf, &neighbour(count - 1), at(1)), Recall::New);
}

#[test]
fn years_of_keys_make_no_new_cells_and_leave_no_entries() {
    let shelf = shelf();
    for round in 0..200_u64 {
        for number in 0..=255 {
            let ticket = shelf.put(number, at(round * 10_000_000));
            shelf.end(ticket, Settlement::Delivered, at(round * 10_000_000));
        }
        assert_eq!(shelf.memory.key_count(), 256 + 4, "round {round}: buckets, one slot and both books");
    }
    assert!((0..=255).all(|number| shelf.entries(number) <= 2));
}

#[test]
fn a_damaged_cell_forgets_and_is_written_anew() {
    let shelf = shelf();
    let ticket = shelf.put(1, at(0));
    shelf.memory.overwrite(&shelf.bucket(1), b"garbage");
    assert_eq!(shelf.recall(1, at(1)), Recall::New);
    shelf.end(ticket, Settlement::Delivered, at(2));
    assert_eq!(shelf.recall(1, at(3)), known(1), "the receipt says what was delivered");
}

#[test]
fn a_request_without_an_entry_costs_one_read() {
    let shelf = shelf();
    let reads = |number| {
        let vm = VmMemory::immortal(&shelf.memory);
        let recall = Store { memory: &vm, keys: &shelf.keys }.recall(fingerprint(number).identity, at(9));
        assert_eq!(recall, Recall::New);
        vm.calls()
    };
    assert_eq!(reads(1), 1);
    let ticket = shelf.put(1, at(0));
    shelf.store().discard(ticket, |_| true).unwrap();
    assert!(reads(1) > 1);
    assert_eq!(reads(1), 1, "a stale entry is met once");
}

/// Stops one VM before each of its calls in turn and lets another do `meanwhile`, until the first gets through without.
fn at_every_call(story: &str, run: impl Fn(u32) -> bool) {
    let calls = (0..200).take_while(|call| run(*call)).count();
    assert!((1..200).contains(&calls), "{story}: stopped at {calls} calls");
}

#[test]
fn of_two_vms_that_store_the_same_request_at_once_one_stores_it() {
    for second in [keyed(1), reused(1)] {
        at_every_call("put and put", |call| {
            let shelf = shelf();
            let other = RefCell::new(None);
            let vm = VmMemory::pausing_at(&shelf.memory, call, || {
                *other.borrow_mut() = Some(put(shelf.store(), &second, at(1)));
            });
            let one = put(Store { memory: &vm, keys: &shelf.keys }, &keyed(1), at(1));
            let Some(other) = other.take() else { return false };
            assert_eq!([one, other].iter().filter(|put| put.is_ok()).count(), 1, "call {call}: {one:?}, {other:?}");
            assert!(matches!(shelf.recall(1, at(2)), Recall::Known(_)), "call {call}");
            let books = crate::ledger::Ledger::read(&shelf.memory, &shelf.keys.ledger()).unwrap();
            assert_eq!(books.messages, 1, "call {call}");
            vm.has_paused()
        });
    }
}

#[test]
fn a_vm_that_dies_while_it_stores_keeps_nobody_from_storing_the_retry() {
    let mut cut = 0;
    loop {
        let shelf = shelf();
        let vm = VmMemory::dying_after(&shelf.memory, cut);
        let promised = put(Store { memory: &vm, keys: &shelf.keys }, &keyed(1), at(0));
        let is_dead = vm.is_dead();
        let later = at(FILLING_MAX.0 + 1);
        match shelf.recall(1, later) {
            // Not promised, but complete: only the hint is missing, which the sweep makes up for.
            Recall::Known(_) => assert!(promised.is_ok(), "cut {cut}"),
            Recall::New => assert!(is_dead && put(shelf.store(), &keyed(1), later).is_ok(), "cut {cut}"),
            Recall::BeingStored => panic!("cut {cut}: a dead VM is waited for"),
        }
        assert_eq!(shelf.recall(1, later), known(1), "cut {cut}");
        if !is_dead {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 5, "{cut} changes");
}

#[test]
fn a_vm_that_dies_while_it_settles_leaves_a_delivery_that_is_remembered() {
    let mut cut = 0;
    loop {
        let shelf = shelf();
        let ticket = shelf.put(1, at(0));
        let claim = shelf.store().claim(ticket, TERM, Monotonic(9), Millis(u64::MAX), at(1)).unwrap();
        let vm = VmMemory::dying_after(&shelf.memory, cut);
        let dying = Store { memory: &vm, keys: &shelf.keys };
        let settled = dying.settle(ticket, TERM, claim.large, Settlement::Delivered, at(2).wall);
        let is_dead = vm.is_dead();
        assert_eq!(shelf.recall(1, at(3)), known(1), "cut {cut}");
        if is_dead && shelf.store().is_settled(ticket) {
            // What the sweep does when the attempt's time is over.
            shelf.store().free_settled(ticket, at(20).wall, |head| head.state != SlotState::Free).ok();
        }
        if shelf.store().is_settled(ticket) {
            assert_eq!(shelf.recall(1, at(30)), known(1), "cut {cut}");
        }
        shelf.memory.set(&shelf.keys.ledger(), b"", Expect::Anything).unwrap();
        if !is_dead {
            assert!(settled.is_ok());
            break;
        }
        cut += 1;
    }
    assert!(cut >= 4, "{cut} changes");
}

#[test]
fn a_bucket_of_a_later_build_is_written_by_nobody() {
    let shelf = shelf();
    let ticket = shelf.put(1, at(1));
    let key = shelf.keys.duplicates(bucket_of(fingerprint(1).identity));
    let mut bytes = shelf.memory.bytes(&key);
    bytes[1] = 7;
    shelf.memory.overwrite(&key, &bytes);
    assert_eq!(shelf.store().recall(fingerprint(1).identity, at(2)), Recall::New);
    assert_eq!(put(shelf.store(), &keyed(1), at(2)), Err(PutError::Busy));
    shelf.end(ticket, Settlement::Delivered, at(3));
    assert_eq!(shelf.memory.bytes(&key), bytes);
}
