//! Tests of the store on a memory that behaves like the host's: budgets, hints, stale tickets, damage, and two VMs at once.
//!
//! What a VM leaves behind that dies in the middle is tested with the sweep that finds it, in `delivery/tests.rs`.

use super::*;
use crate::ledger::Ledger;
use crate::memory::double::{MemoryDouble, VmMemory};
use std::cell::RefCell;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

impl Store<'_> {
    /// Takes custody of `message`, as a VM that does not lead does.
    pub(crate) fn put(
        &self,
        message: &Message,
        destination: DestinationIndex,
        first: FirstState,
        limits: Limits<'_>,
        now: Now,
    ) -> Result<Ticket, PutError> {
        let placed = self.place(message, destination, first, limits, now)?;
        placed.hint.into_iter().for_each(|hint| self.hint_ready(destination, hint));
        Ok(placed.ticket)
    }
}

const HERE: DestinationIndex = DestinationIndex(0);
const TERM: Epoch = Epoch(7);
const TTL: Millis = Millis(1_000_000);
const DUE: Monotonic = Monotonic(10);
const UNTIL: Monotonic = Monotonic(20_000);
const AGAIN: Settlement = Settlement::Again { due: Monotonic(99), attempts: 1, status: 503 };
const DEAD: Settlement = Settlement::Dead { reason: DeadReason::Rejected, status: 400 };

fn now() -> Now {
    Now { monotonic: Monotonic(1_000), wall: Wall(5_000) }
}

/// A message that can be told from all others; number 0 to 255.
fn message(number: u8) -> Message {
    let envelope = crate::message::tests::message("/out").arrived;
    Message {
        id: message::MessageId([number; 16]),
        hops: crate::neighbours::Hops::FIRST,
        cluster: crate::units::ClusterName("orders".to_owned()),
        arrived: envelope,
        routed: None,
        body: vec![number; 40],
        ties: message::Ties::default(),
    }
}

struct Shelf {
    memory: MemoryDouble,
    keys: Keys,
    limits: StoreLimits,
}

fn shelf() -> Shelf {
    shelf_for(1_000)
}

fn shelf_for(messages_max: u32) -> Shelf {
    let limits = crate::config::parse(b"{}").unwrap().shared.store.clone();
    Shelf { memory: MemoryDouble::default(), keys: Keys::of(b"test"), limits: StoreLimits { messages_max, ..limits } }
}

impl Shelf {
    fn store(&self) -> Store<'_> {
        Store { memory: &self.memory, keys: &self.keys }
    }

    fn try_put(&self, number: u8) -> Result<Ticket, PutError> {
        self.store().put(&message(number), HERE, FirstState::Queued(DUE), Limits::shared(&self.limits), now())
    }

    fn put(&self, number: u8) -> Ticket {
        self.try_put(number).unwrap_or_else(|error| panic!("put {number}: {error:?}\n{}", self.state()))
    }

    fn claim(&self, ticket: Ticket) -> Claim {
        let claim = self.store().claim(ticket, TERM, UNTIL, TTL, now());
        claim.unwrap_or_else(|error| panic!("claim {ticket:?}: {error:?}\n{}", self.state()))
    }

    fn end(&self, ticket: Ticket, settlement: Settlement) {
        let large = self.claim(ticket).large;
        let settled = self.store().settle(ticket, TERM, large, settlement, Wall(6_000));
        assert!(settled.is_ok(), "{settlement:?}\n{}", self.state());
    }

    fn books(&self) -> Ledger {
        Ledger::read(&self.memory, &self.keys.ledger()).unwrap()
    }

    /// Messages, bytes, dead letters and their bytes: as booked, and as the heads say.
    fn booked_and_counted(&self) -> ([u64; 4], [u64; 4]) {
        let books = self.books();
        let heads = (0..books.slots).filter_map(|slot| self.store().head(SlotIndex(slot)).ok().flatten());
        let mut counted = [0; 4];
        for (head, _) in heads.filter(|(head, _)| head.state != SlotState::Free) {
            counted[0] += 1;
            counted[1] += head.charge.0;
            if matches!(head.state, SlotState::Dead { .. }) {
                counted[2] += 1;
                counted[3] += head.charge.0;
            }
        }
        ([u64::from(books.messages), books.bytes.0, u64::from(books.dead), books.dead_bytes.0], counted)
    }

    fn check_books(&self, story: &str) {
        let (booked, counted) = self.booked_and_counted();
        assert_eq!(booked, counted, "{story}: booked, counted\n{}", self.state());
    }

    fn state(&self) -> String {
        let books = self.books();
        let heads: Vec<String> =
            (0..books.slots).map(|slot| format!("  slot {slot}: {:?}\n", self.store().head(SlotIndex(slot)))).collect();
        format!("{books:?}\n{}", heads.concat())
    }

    fn swap(&self, one: &str, other: &str) {
        let (first, second) = (self.memory.bytes(one), self.memory.bytes(other));
        self.memory.overwrite(one, &second);
        self.memory.overwrite(other, &first);
    }
}

#[test]
fn what_was_put_is_claimed_as_it_was() {
    let shelf = shelf();
    let tickets: Vec<Ticket> = (0..20).map(|number| shelf.put(number)).collect();
    for (number, ticket) in (0..20).zip(tickets) {
        let claim = shelf.claim(ticket);
        assert_eq!(claim.message, message(number));
        assert_eq!((claim.head.sends, claim.head.attempts, claim.head.destination), (1, 0, HERE));
    }
}

#[test]
fn every_message_is_hinted_to_its_leader_once() {
    let shelf = shelf();
    let tickets: Vec<Ticket> = (0..3).map(|number| shelf.put(number)).collect();
    for ticket in tickets {
        assert_eq!(
            shelf.store().next_ready(HERE),
            Some(ReadyHint { ticket, due: DUE, stored_at: now().wall, spot: None })
        );
    }
    assert_eq!(shelf.store().next_ready(HERE), None);
}

#[test]
fn the_books_follow_every_kind_of_end() {
    let cases: [(&str, &[Settlement], u64, u64); 4] = [
        ("delivered", &[Settlement::Delivered], 0, 0),
        ("tried again", &[AGAIN, AGAIN], 1, 0),
        ("dead", &[DEAD], 1, 1),
        ("dead after a second try", &[AGAIN, DEAD], 1, 1),
    ];
    for (story, ends, messages, dead) in cases {
        let shelf = shelf();
        let ticket = shelf.put(1);
        ends.iter().for_each(|end| shelf.end(ticket, *end));
        shelf.check_books(story);
        let (booked, _) = shelf.booked_and_counted();
        assert_eq!((booked[0], booked[2]), (messages, dead), "{story}");
        if dead == 1 {
            shelf.store().discard(ticket, |head| matches!(head.state, SlotState::Dead { .. })).unwrap();
            assert_eq!(shelf.booked_and_counted(), ([0; 4], [0; 4]), "{story}, then removed");
        }
    }
}

#[test]
fn an_opening_message_is_sent_only_in_its_completed_form() {
    let shelf = shelf();
    let opening = FirstState::Opening(Monotonic(9_000));
    let ticket = shelf.store().put(&message(1), HERE, opening, Limits::shared(&shelf.limits), now()).unwrap();
    assert_eq!(shelf.store().claim(ticket, TERM, UNTIL, TTL, now()), Err(ClaimError::Gone));
    assert_eq!(shelf.store().next_ready(HERE), None);
    let routed = Message { routed: Some(crate::message::tests::message("/routed").arrived), ..message(1) };
    shelf.store().complete(ticket, &routed, DUE).unwrap();
    assert_eq!(shelf.store().complete(ticket, &message(1), DUE), Err(Gone), "only once");
    assert_eq!(shelf.claim(ticket).message, routed);
    shelf.check_books("completed");
}

#[test]
fn a_full_store_refuses_and_keeps_all_that_it_has() {
    let bytes_of_three = charge_of(&message(0), FirstState::Queued(DUE)).0 * 3;
    let unlimited = shelf().limits;
    let by_count = StoreLimits { messages_max: 3, ..unlimited.clone() };
    let by_bytes = StoreLimits { bytes_max: ByteCount(bytes_of_three), ..unlimited.clone() };
    let one_byte_more = StoreLimits { bytes_max: ByteCount(bytes_of_three + 1), ..unlimited };
    for limits in [by_count, by_bytes, one_byte_more] {
        let shelf = Shelf { limits, ..shelf() };
        let tickets: Vec<Ticket> = (0..3).map(|number| shelf.put(number)).collect();
        let before = shelf.memory.snapshot();
        for number in 3..9 {
            assert_eq!(shelf.try_put(number), Err(PutError::Full), "{:?}\n{}", shelf.limits, shelf.state());
        }
        assert_eq!(before, shelf.memory.snapshot(), "a refused put leaves nothing behind");
        shelf.end(tickets[1], Settlement::Delivered);
        let new = shelf.put(9);
        assert_eq!(shelf.try_put(10), Err(PutError::Full), "room for one only");
        for (ticket, number) in [(tickets[0], 0), (new, 9), (tickets[2], 2)] {
            assert_eq!(shelf.claim(ticket).message, message(number));
        }
    }
}

#[test]
fn a_smaller_limit_drops_nothing() {
    let mut shelf = shelf_for(5);
    let tickets: Vec<Ticket> = (0..5).map(|number| shelf.put(number)).collect();
    shelf.limits.messages_max = 2;
    for (number, ticket) in (0..5).zip(tickets) {
        assert_eq!(shelf.try_put(77), Err(PutError::Full));
        assert_eq!(shelf.claim(ticket).message, message(number));
    }
}

#[test]
fn dead_letters_hold_their_room_until_they_are_removed() {
    let shelf = shelf_for(1);
    let ticket = shelf.put(1);
    shelf.end(ticket, DEAD);
    assert_eq!(shelf.try_put(2), Err(PutError::Full));
    shelf.store().discard(ticket, |_| true).unwrap();
    shelf.put(3);
}

#[test]
fn wrong_free_hints_never_give_a_slot_away_twice() {
    let shelf = shelf();
    let tickets: Vec<Ticket> = (0..4).map(|number| shelf.put(number)).collect();
    shelf.end(tickets[3], Settlement::Delivered);
    for slot in [0, 1, 3, 3, 3, 2, 0] {
        shelf.store().hint_free(SlotIndex(slot));
    }
    shelf.memory.enqueue(&shelf.keys.free_slots(), b"no slot at all");
    let more: Vec<Ticket> = (10..20).map(|number| shelf.put(number)).collect();
    let used: std::collections::BTreeSet<SlotIndex> = tickets[..3].iter().chain(&more).map(|t| t.slot).collect();
    assert_eq!(used.len(), 13, "{}", shelf.state());
    for (number, ticket) in (0..3).zip(tickets).chain((10..20).zip(more)) {
        assert_eq!(shelf.claim(ticket).message, message(number));
    }
    shelf.check_books("wrong hints");
}

#[test]
fn a_put_that_finds_only_stale_hints_makes_a_new_slot() {
    let shelf = shelf();
    let ticket = shelf.put(0);
    for _ in 0..100 {
        shelf.store().hint_free(ticket.slot);
    }
    assert_eq!(shelf.put(1).slot, SlotIndex(1));
    shelf.check_books("stale hints");
}

/// The simulator's safety seed 2548: each refusal made a slot, and the hint that told of it was lost.
#[test]
fn a_message_that_is_refused_makes_no_slot() {
    for is_part in [true, false] {
        let shelf = shelf();
        let one = StoreLimits { messages_max: 1, ..shelf.limits.clone() };
        let (whole, destination) = if is_part { (&shelf.limits, &one) } else { (&one, &shelf.limits) };
        let limits = Limits { whole, destination };
        let put = |number| shelf.store().put(&message(number), HERE, FirstState::Queued(DUE), limits, now());
        put(0).unwrap();
        for number in 1..9 {
            assert_eq!(put(number), Err(PutError::Full));
            while shelf.memory.dequeue(&shelf.keys.free_slots()).is_some() {}
        }
        assert_eq!((shelf.books().slots, shelf.books().messages), (1, 1), "{}", shelf.state());
        shelf.check_books("refusals");
    }
}

#[test]
fn lost_free_hints_cost_one_slot_each_and_no_message() {
    let shelf = shelf_for(3);
    for round in 0..5 {
        let ticket = shelf.put(round);
        shelf.end(ticket, Settlement::Delivered);
        while shelf.memory.dequeue(&shelf.keys.free_slots()).is_some() {}
    }
    assert_eq!(shelf.books().slots, 5);
    shelf.put(9);
    shelf.check_books("lost hints");
}

#[test]
fn a_store_that_runs_for_years_makes_no_new_key() {
    let shelf = shelf_for(5);
    let mut keys = 0;
    for round in 0..1_000_u32 {
        let number = u8::try_from(round % 200).unwrap();
        let tickets: Vec<Ticket> = (0..5).map(|more| shelf.put(number + more)).collect();
        for (ticket, end) in tickets.iter().zip([Settlement::Delivered, AGAIN, DEAD, Settlement::Delivered, DEAD]) {
            shelf.end(*ticket, end);
        }
        shelf.end(tickets[1], Settlement::Delivered);
        shelf.store().discard(tickets[2], |_| true).unwrap();
        shelf.store().discard(tickets[4], |_| true).unwrap();
        while shelf.store().next_ready(HERE).is_some() {}
        if round == 0 {
            keys = shelf.memory.key_count();
        }
        assert_eq!(shelf.memory.key_count(), keys, "round {round}\n{}", shelf.state());
        assert_eq!(shelf.memory.queue_length(&shelf.keys.free_slots()), 5, "round {round}: one hint per free slot");
    }
    assert_eq!(shelf.booked_and_counted(), ([0; 4], [0; 4]));
}

type IsRefused = Box<dyn Fn(&Shelf) -> bool>;

/// Every call that takes a ticket, as a story and whether it was refused.
fn calls_with(ticket: Ticket, large: LargeMark) -> Vec<(&'static str, IsRefused)> {
    let is_out = |head: &Head| matches!(head.state, SlotState::Sending { .. });
    let is_in_use = |head: &Head| head.state != SlotState::Free;
    let settle = move |end| move |s: &Shelf| s.store().settle(ticket, TERM, large, end, Wall(1)).is_err();
    vec![
        ("complete", Box::new(move |s| s.store().complete(ticket, &message(66), DUE).is_err())),
        ("claim", Box::new(move |s| s.store().claim(ticket, TERM, UNTIL, TTL, now()).is_err())),
        ("settle: delivered", Box::new(settle(Settlement::Delivered))),
        ("settle: again", Box::new(settle(AGAIN))),
        ("settle: dead", Box::new(settle(DEAD))),
        ("requeue", Box::new(move |s| s.store().requeue(ticket, DUE, 0, 0, Wall(1), is_out).is_err())),
        ("bury", Box::new(move |s| s.store().bury(ticket, DeadReason::Expired, 0, Wall(1), is_in_use).is_err())),
        ("discard", Box::new(move |s| s.store().discard(ticket, is_in_use).is_err())),
        ("free", Box::new(move |s| s.store().free(ticket, is_in_use).is_err())),
    ]
}

#[test]
fn a_ticket_of_an_earlier_use_changes_nothing() {
    type Prepare = fn(&Shelf);
    let next_uses: [(&str, Prepare); 4] = [
        ("free", |_| {}),
        ("queued", |shelf| {
            shelf.put(2);
        }),
        ("sending", |shelf| drop(shelf.claim(shelf.put(2)))),
        ("dead", |shelf| shelf.end(shelf.put(2), DEAD)),
    ];
    for (next_use, prepare) in next_uses {
        let shelf = shelf();
        let old = shelf.put(1);
        let large = shelf.claim(old).large;
        shelf.store().settle(old, TERM, large, Settlement::Delivered, Wall(1)).unwrap();
        prepare(&shelf);
        for (call, is_refused) in calls_with(old, large) {
            let before = shelf.memory.snapshot();
            assert!(is_refused(&shelf), "{call} on a slot that is {next_use} in its next use\n{}", shelf.state());
            assert_eq!(before, shelf.memory.snapshot(), "{call} wrote into a slot that is {next_use} again");
        }
    }
}

#[test]
fn an_attempt_of_an_earlier_term_neither_queues_nor_buries() {
    for settlement in [AGAIN, DEAD] {
        let shelf = shelf();
        let ticket = shelf.put(1);
        let large = shelf.claim(ticket).large;
        let before = shelf.memory.snapshot();
        assert_eq!(shelf.store().settle(ticket, Epoch(6), large, settlement, Wall(1)), Err(Gone));
        assert_eq!(before, shelf.memory.snapshot(), "{settlement:?}");
    }
}

#[test]
fn a_late_delivery_of_an_earlier_term_is_never_sent_again() {
    let shelf = shelf();
    let ticket = shelf.put(1);
    let large = shelf.claim(ticket).large;
    shelf.store().requeue(ticket, DUE, 1, 0, Wall(1), |_| true).unwrap();
    let later = shelf.store().claim(ticket, Epoch(8), UNTIL, TTL, now()).unwrap();
    assert_eq!(shelf.store().settle(ticket, TERM, large, Settlement::Delivered, Wall(1)), Err(Gone));
    let of_later = |settlement| shelf.store().settle(ticket, Epoch(8), later.large, settlement, Wall(1));
    of_later(AGAIN).unwrap();
    assert_eq!(shelf.store().claim(ticket, Epoch(8), UNTIL, TTL, now()), Err(ClaimError::Settled));
    assert_eq!(shelf.booked_and_counted(), ([0; 4], [0; 4]), "{}", shelf.state());
}

#[test]
fn two_terms_that_both_delivered_free_the_slot_at_once() {
    let shelf = shelf();
    let ticket = shelf.put(1);
    let large = shelf.claim(ticket).large;
    shelf.store().requeue(ticket, DUE, 1, 0, Wall(1), |_| true).unwrap();
    let later = shelf.store().claim(ticket, Epoch(8), UNTIL, TTL, now()).unwrap();
    let settle = |epoch, large| shelf.store().settle(ticket, epoch, large, Settlement::Delivered, Wall(1)).is_ok();
    assert_eq!((settle(TERM, large), settle(Epoch(8), later.large)), (false, true), "{}", shelf.state());
    assert_eq!(shelf.booked_and_counted(), ([0; 4], [0; 4]), "{}", shelf.state());
}

#[test]
fn only_one_of_two_claims_gets_the_message() {
    let shelf = shelf();
    let ticket = shelf.put(1);
    shelf.claim(ticket);
    assert_eq!(shelf.store().claim(ticket, Epoch(8), UNTIL, TTL, now()), Err(ClaimError::Gone));
}

#[test]
fn a_message_older_than_its_ttl_is_not_claimed() {
    let shelf = shelf();
    let ticket = shelf.put(1);
    let at = |wall| shelf.store().claim(ticket, TERM, UNTIL, Millis(100), Now { wall: Wall(wall), ..now() });
    assert_eq!(at(5_101), Err(ClaimError::Expired));
    assert!(at(5_100).is_ok());
}

#[test]
fn a_damaged_large_part_is_corrupt_wherever_it_is_damaged() {
    let shelf = shelf();
    let ticket = shelf.put(1);
    let key = shelf.keys.large(ticket.slot);
    let whole = shelf.memory.bytes(&key);
    let flipped = (0..whole.len() * 8).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    let longer = [whole.iter().copied().chain([0]).collect(), b"another plugin's bytes".to_vec()];
    for bytes in flipped.chain(cut).chain(longer) {
        shelf.memory.overwrite(&key, &bytes);
        let claim = shelf.store().claim(ticket, TERM, UNTIL, TTL, now());
        assert_eq!(claim, Err(ClaimError::Corrupt), "{bytes:?}");
    }
    shelf.store().bury(ticket, DeadReason::Corrupt, 0, Wall(1), |_| true).unwrap();
    shelf.check_books("corrupt");
    shelf.memory.overwrite(&key, &whole);
    assert_eq!(shelf.store().claim(ticket, TERM, UNTIL, TTL, now()), Err(ClaimError::Gone), "dead is dead");
}

#[test]
fn large_parts_that_changed_places_are_corrupt() {
    let shelf = shelf();
    let tickets = [shelf.put(1), shelf.put(2)];
    shelf.swap(&shelf.keys.large(tickets[0].slot), &shelf.keys.large(tickets[1].slot));
    for ticket in tickets {
        assert_eq!(shelf.store().claim(ticket, TERM, UNTIL, TTL, now()), Err(ClaimError::Corrupt));
    }
}

#[test]
fn heads_that_changed_places_send_nothing_to_the_wrong_destination() {
    let shelf = shelf();
    let put = |number, place| {
        let first = FirstState::Queued(DUE);
        shelf
            .store()
            .put(&message(number), DestinationIndex(place), first, Limits::shared(&shelf.limits), now())
            .unwrap()
    };
    let tickets = [put(1, 1), put(2, 2)];
    shelf.swap(&shelf.keys.head(tickets[0].slot), &shelf.keys.head(tickets[1].slot));
    for ticket in tickets {
        assert_eq!(shelf.store().claim(ticket, TERM, UNTIL, TTL, now()), Err(ClaimError::Corrupt));
    }
}

#[test]
fn a_damaged_head_becomes_a_dead_letter_and_no_use_of_the_slot_is_mixed_up() {
    let (reference, ticket) = (shelf(), Ticket { slot: SlotIndex(0), generation: Generation(1) });
    reference.put(1);
    let length = reference.memory.bytes(&reference.keys.head(ticket.slot)).len();
    for bit in 0..length * 8 {
        let shelf = shelf();
        assert_eq!(shelf.put(1), ticket);
        let key = shelf.keys.head(ticket.slot);
        let mut bytes = shelf.memory.bytes(&key);
        bytes[bit / 8] ^= 1 << (bit % 8);
        shelf.memory.overwrite(&key, &bytes);
        assert_eq!(shelf.store().claim(ticket, TERM, UNTIL, TTL, now()), Err(ClaimError::Corrupt), "bit {bit}");
        assert_eq!(shelf.try_put(2).map(|new| new.slot), Ok(SlotIndex(1)), "a damaged slot is no free slot");
        assert_eq!(shelf.store().repair_head(ticket.slot, Wall(9)), Ok(Repair::DeadLetter));
        assert_eq!(shelf.store().repair_head(ticket.slot, Wall(9)), Err(Gone), "once is enough");
        assert!(
            calls_with(ticket, LargeMark { cas: Cas(0), memo: None }).iter().all(|(_, is_refused)| is_refused(&shelf)),
            "the old ticket is stale"
        );
        assert_eq!((shelf.books().messages, shelf.books().dead), (2, 1));
    }
}

#[test]
fn a_damaged_head_of_an_empty_slot_is_freed_for_use() {
    let shelf = shelf();
    let ticket = shelf.put(1);
    shelf.end(ticket, Settlement::Delivered);
    for damage in [&b""[..], b"H", b"garbage of another plugin, longer than any head could ever be"] {
        while shelf.memory.dequeue(&shelf.keys.free_slots()).is_some() {}
        shelf.memory.overwrite(&shelf.keys.head(ticket.slot), damage);
        assert_eq!(shelf.store().repair_head(ticket.slot, Wall(9)), Ok(Repair::Freed));
        let again = shelf.put(2);
        assert_eq!(again.slot, ticket.slot);
        shelf.end(again, Settlement::Delivered);
        assert_eq!(shelf.booked_and_counted(), ([0; 4], [0; 4]));
    }
}

#[test]
fn damaged_books_refuse_new_messages_and_keep_the_old() {
    let shelf = shelf();
    let ticket = shelf.put(1);
    let whole = shelf.memory.bytes(&shelf.keys.ledger());
    shelf.memory.overwrite(&shelf.keys.ledger(), b"garbage");
    assert_eq!(shelf.try_put(2), Err(PutError::Busy));
    assert_eq!(shelf.claim(ticket).message, message(1));
    shelf.memory.overwrite(&shelf.keys.ledger(), &whole);
    shelf.put(3);
}

/// Stops one VM before each of its calls in turn and lets another do `meanwhile`, until the first gets through without.
fn at_every_call(story: &str, run: impl Fn(u32) -> bool) {
    let calls = (0..200).take_while(|call| run(*call)).count();
    assert!((1..200).contains(&calls), "{story}: stopped at {calls} calls");
}

#[test]
fn two_puts_at_once_share_neither_a_slot_nor_the_last_room() {
    for messages_max in [1, 2] {
        at_every_call("put and put", |call| {
            let shelf = shelf_for(messages_max);
            let used = shelf.put(9);
            shelf.end(used, Settlement::Delivered);
            let other = RefCell::new(None);
            let vm = VmMemory::pausing_at(&shelf.memory, call, || *other.borrow_mut() = Some(shelf.try_put(2)));
            let store = Store { memory: &vm, keys: &shelf.keys };
            let one = store.put(&message(1), HERE, FirstState::Queued(DUE), Limits::shared(&shelf.limits), now());
            let Some(other) = other.take() else { return false };
            let stored = [one, other].iter().filter(|put| put.is_ok()).count();
            assert_eq!(stored, usize::try_from(messages_max).unwrap(), "call {call}\n{}", shelf.state());
            for (put, number) in [(one, 1), (other, 2)] {
                if let Ok(ticket) = put {
                    assert_eq!(shelf.claim(ticket).message, message(number), "call {call}");
                }
            }
            shelf.check_books(&format!("call {call}"));
            vm.has_paused()
        });
    }
}

#[test]
fn a_claim_that_is_overtaken_sends_nothing() {
    type Meanwhile = fn(&Shelf, Ticket);
    let cases: [(&str, Meanwhile); 4] = [
        ("claimed", |shelf, ticket| drop(shelf.claim(ticket))),
        ("delivered", |shelf, ticket| shelf.end(ticket, Settlement::Delivered)),
        ("buried", |shelf, ticket| shelf.end(ticket, DEAD)),
        ("delivered, and the slot used anew", |shelf, ticket| {
            shelf.end(ticket, Settlement::Delivered);
            shelf.put(2);
        }),
    ];
    for (story, meanwhile) in cases {
        at_every_call(story, |call| {
            let shelf = shelf();
            let ticket = shelf.put(1);
            let vm = VmMemory::pausing_at(&shelf.memory, call, || meanwhile(&shelf, ticket));
            let claim = Store { memory: &vm, keys: &shelf.keys }.claim(ticket, Epoch(8), UNTIL, TTL, now());
            if !vm.has_paused() {
                return false;
            }
            assert!(claim.is_err(), "{story} at call {call}: {claim:?}\n{}", shelf.state());
            shelf.check_books(&format!("{story} at call {call}"));
            true
        });
    }
}

#[test]
fn two_vms_that_find_the_same_receipt_give_its_room_back_once() {
    at_every_call("claim of a settled message", |call| {
        let shelf = shelf();
        shelf.put(7);
        let ticket = shelf.put(1);
        let large = shelf.claim(ticket).large;
        shelf.store().requeue(ticket, DUE, 1, 0, Wall(1), |_| true).unwrap();
        assert_eq!(shelf.store().settle(ticket, TERM, large, Settlement::Delivered, Wall(1)), Err(Gone));
        let claim_it =
            |memory: &dyn SharedMemory| Store { memory, keys: &shelf.keys }.claim(ticket, Epoch(8), UNTIL, TTL, now());
        let other = RefCell::new(None);
        let vm = VmMemory::pausing_at(&shelf.memory, call, || *other.borrow_mut() = Some(claim_it(&shelf.memory)));
        let one = claim_it(&vm);
        let Some(other) = other.take() else { return false };
        let told = [one, other].into_iter().filter(|claim| *claim == Err(ClaimError::Settled)).count();
        assert_eq!(told, 1, "one of them counts the delivery; paused at call {call}");
        shelf.check_books(&format!("call {call}"));
        true
    });
}

#[test]
fn a_settle_that_is_overtaken_harms_no_other_message() {
    for settlement in [Settlement::Delivered, AGAIN, DEAD] {
        at_every_call("settle", |call| {
            let shelf = shelf();
            let ticket = shelf.put(1);
            let large = shelf.claim(ticket).large;
            let next = RefCell::new(None);
            let vm = VmMemory::pausing_at(&shelf.memory, call, || {
                let overtaken = shelf.store().discard(ticket, |head| matches!(head.state, SlotState::Sending { .. }));
                if overtaken.is_ok() {
                    *next.borrow_mut() = Some(shelf.put(2));
                }
            });
            let settled = Store { memory: &vm, keys: &shelf.keys }.settle(ticket, TERM, large, settlement, Wall(1));
            let paused = vm.has_paused();
            if let Some(next) = next.take() {
                assert_eq!(settled, Err(Gone), "{settlement:?} at call {call}");
                assert_eq!(shelf.claim(next).message, message(2), "{settlement:?} at call {call}");
            }
            shelf.check_books(&format!("{settlement:?} at call {call}"));
            paused
        });
    }
}

#[test]
fn a_put_that_stands_still_beyond_its_lease_harms_no_other_message_and_no_books() {
    for uses_before in [0, 1] {
        at_every_call("put, given up", |call| {
            let shelf = shelf();
            for number in 0..uses_before {
                let ticket = shelf.put(number);
                shelf.end(ticket, Settlement::Delivered);
            }
            let next = RefCell::new(None);
            let vm = VmMemory::pausing_at(&shelf.memory, call, || {
                let generation = Generation(u32::from(uses_before) + 1);
                let ticket = Ticket { slot: SlotIndex(0), generation };
                let is_filling = |head: &Head| matches!(head.state, SlotState::Filling { .. });
                if shelf.store().discard(ticket, is_filling).is_ok() {
                    *next.borrow_mut() = Some(shelf.put(2));
                }
            });
            let store = Store { memory: &vm, keys: &shelf.keys };
            let put = store.put(&message(1), HERE, FirstState::Queued(DUE), Limits::shared(&shelf.limits), now());
            let paused = vm.has_paused();
            if let Some(next) = next.take() {
                assert_eq!(put, Err(PutError::Busy), "call {call}");
                assert_eq!(shelf.claim(next).message, message(2), "call {call}");
            }
            shelf.check_books(&format!("call {call}, {uses_before} uses before, put {put:?}"));
            paused
        });
    }
}

#[test]
fn a_completion_whose_head_was_written_anew_meanwhile_is_not_lost() {
    at_every_call("complete", |call| {
        let shelf = shelf();
        let opening = FirstState::Opening(Monotonic(9_000));
        let ticket = shelf.store().put(&message(1), HERE, opening, Limits::shared(&shelf.limits), now()).unwrap();
        let head = shelf.keys.head(ticket.slot);
        let vm = VmMemory::pausing_at(&shelf.memory, call, || {
            shelf.memory.overwrite(&head, &shelf.memory.bytes(&head));
        });
        Store { memory: &vm, keys: &shelf.keys }.complete(ticket, &message(1), DUE).unwrap();
        let (head, _) = shelf.store().head(ticket.slot).unwrap().unwrap();
        assert_eq!(head.state, SlotState::Queued { due: DUE }, "call {call}");
        vm.has_paused()
    });
}

#[test]
fn a_completion_that_is_overtaken_by_the_sweep_stays_a_dead_letter() {
    at_every_call("complete", |call| {
        let shelf = shelf();
        let opening = FirstState::Opening(Monotonic(9_000));
        let ticket = shelf.store().put(&message(1), HERE, opening, Limits::shared(&shelf.limits), now()).unwrap();
        let vm = VmMemory::pausing_at(&shelf.memory, call, || {
            let is_opening = |head: &Head| matches!(head.state, SlotState::Opening { .. });
            shelf
                .store()
                .bury(ticket, DeadReason::Unstorable, 0, Wall(1), is_opening)
                .unwrap_or(Head::free(Generation(0)));
        });
        let completed = Store { memory: &vm, keys: &shelf.keys }.complete(ticket, &message(1), DUE);
        let (head, _) = shelf.store().head(ticket.slot).unwrap().unwrap();
        match completed {
            Ok(()) => assert_eq!(head.state, SlotState::Queued { due: DUE }, "call {call}"),
            Err(Gone) => assert!(matches!(head.state, SlotState::Dead { .. }), "call {call}: {head:?}"),
        }
        shelf.check_books(&format!("call {call}"));
        vm.has_paused()
    });
}
