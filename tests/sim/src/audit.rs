//! What must hold for all messages at once: looked at each thousand events, and at the end.

use crate::message::{Destination, Message, Number, Poison};
use crate::oracle::{Oracle, Record, held_up};
use crate::receiving::own::OWNER;
use crate::rules::Rules;
use crate::slots::{Large, Slot, Table};
use crate::violation::{Invariant, Violation};
use redeliver_core::slot::{DeadReason, Head, SlotIndex, SlotState};
use simvoy::Moment;
use std::collections::BTreeSet;

/// Facts of the history that bear on what may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// Books or tables were damaged on purpose, and may not be mended yet.
    pub is_memory_in_doubt: bool,
    /// They once were: totals may be off for ever.
    pub was_memory_damaged: bool,
    /// Hints that were lost, and VMs that died or stood still with one in hand: each may have cost a slot.
    pub slots_lost: u64,
    /// The most slots that were ever in use.
    pub used_max: usize,
    /// Values that were damaged: a head among them may have left the books for a while, and another message its room.
    pub damages: u64,
    /// Threads that stood still for long: each may book what it stores or frees after somebody else has counted anew.
    pub long_stalls: u64,
    /// Keys of shared data other than the fixed number of buckets, and the longest queue.
    pub keys: usize,
    /// Buckets that were written: of idempotency keys, and of lines.
    pub buckets: (usize, usize),
    /// See `keys`.
    pub queue_max: usize,
    /// Poison still breaks its receivers.
    pub poison_works: bool,
    /// VMs that trapped: each may have died before it counted what it had done.
    pub traps: u64,
}

/// Everything that is wrong with what is stored.
pub fn look(oracle: &mut Oracle, table: &Table, circumstances: &Circumstances) {
    note_deaths(oracle, table);
    if let Some(lost) = lost(oracle, table) {
        oracle.violated(lost);
    }
    if let Some(broken) = beyond_budget(oracle, table, circumstances) {
        oracle.violated(broken);
    }
    if let Some(both) = dead_and_delivered(table, circumstances) {
        oracle.violated(both);
    }
}

/// I2: a dead letter with a receipt. Only the late answer to an attempt that somebody had to give up may leave one.
fn dead_and_delivered(table: &Table, circumstances: &Circumstances) -> Option<Violation> {
    if circumstances.was_memory_damaged {
        return None;
    }
    // Nobody has damaged it, so there is no excuse for burying a delivered message as corrupt.
    let is_calm = circumstances.traps + circumstances.long_stalls == 0;
    let is_corrupt = |head: &Head| matches!(head.state, SlotState::Dead { reason: DeadReason::Corrupt });
    let (slot, _) = table.used().find(|(slot, head)| is_both(slot, head) && (is_calm || is_corrupt(head)))?;
    let text = format!("slot {} is a dead letter, and its message was delivered", slot.index.0);
    Some(Violation::whole(Invariant::NothingUnexpected, text))
}

fn is_both(slot: &Slot, head: &Head) -> bool {
    matches!(head.state, SlotState::Dead { .. }) && slot.large == Large::Settled
}

/// Dead letters that are new, each with its reason.
fn note_deaths(oracle: &mut Oracle, table: &Table) {
    for (slot, head) in table.used() {
        let SlotState::Dead { reason } = head.state else { continue };
        let Large::Message(_, path) = &slot.large else { continue };
        if let Some(number) = Message::number_of(path) {
            oracle.died(number, reason, u32::from(head.sends), head.changed_at.0);
        }
    }
}

/// I1: an acknowledged message that is neither settled nor in a slot.
fn lost(oracle: &Oracle, table: &Table) -> Option<Violation> {
    let held: BTreeSet<&str> = table
        .slots
        .iter()
        .filter_map(|slot| match &slot.large {
            Large::Message(id, _) => Some(id.as_str()),
            Large::Settled | Large::Unreadable => None,
        })
        .collect();
    oracle.records.iter().find_map(|(number, record)| {
        let (id, _) = record.acknowledged.as_ref()?;
        let is_gone = !held.contains(id.as_str()) && !may_be_gone(oracle, record);
        is_gone.then(|| Violation::of(Invariant::NothingLost, *number, lost_text(record, id)))
    })
}

/// Why a message may have left: it arrived, it was damaged, or it was a dead letter for too long.
fn may_be_gone(oracle: &Oracle, record: &Record) -> bool {
    record.is_settled || record.has_arrived() || record.is_damaged || oracle.may_be_removed(record)
}

fn lost_text(record: &Record, id: &str) -> String {
    let attempts: Vec<String> = record
        .attempts
        .iter()
        .map(|attempt| format!("{} {:?} said {:?}", attempt.sent, attempt.contact, attempt.said))
        .collect();
    format!("acknowledged as {id}, in no slot, and never delivered; attempts: {attempts:?}")
}

/// I7: limits of the store, and slots that are made again and again.
fn beyond_budget(oracle: &Oracle, table: &Table, circumstances: &Circumstances) -> Option<Violation> {
    let rules = &oracle.rules;
    let (mut messages, mut bytes) = (0_u64, 0_u64);
    for (_, head) in table.used() {
        messages += 1;
        bytes += head.charge.0;
    }
    let bounded = |text: String| Some(Violation::whole(Invariant::Bounded, text));
    let late = circumstances.long_stalls + circumstances.damages;
    if !circumstances.is_memory_in_doubt && messages > u64::from(rules.messages_max) + late {
        return bounded(format!("{messages} slots in use; store.max_messages is {}", rules.messages_max));
    }
    let owners = table.used().filter(|(slot, _)| slot.path().and_then(Destination::of_path) == Some(OWNER)).count();
    if !circumstances.is_memory_in_doubt && owners as u64 > u64::from(rules.part(OWNER)) + late {
        return bounded(format!("{owners} slots in use for {}; it may have {}", OWNER.cluster(), rules.part(OWNER)));
    }
    // A head that was lost is charged by what its large part has.
    if !circumstances.was_memory_damaged && bytes > rules.bytes_max + late * LATE_BYTES {
        return bounded(format!("{bytes} bytes charged; store.max_bytes is {}", rules.bytes_max));
    }
    // Whoever dies, or stands still, while he writes all hints at free slots anew has them all in hand.
    let was_interrupted = circumstances.traps + circumstances.long_stalls > 0;
    let in_hand = if was_interrupted { circumstances.used_max as u64 } else { 0 };
    let slots_max = circumstances.used_max as u64 + in_hand + circumstances.slots_lost + SLOTS_SPARE;
    if !circumstances.is_memory_in_doubt && table.slots.len() as u64 > slots_max {
        let used = circumstances.used_max;
        return bounded(format!("{} slots exist; never more than {used} were in use", table.slots.len()));
    }
    let (keys_max, queue_max) = (table.slots.len() * 2 + CELLS_MAX, table.slots.len() * 2 + SLOTS_SPARE as usize);
    if circumstances.keys > keys_max || circumstances.queue_max > queue_max {
        let (keys, queue) = (circumstances.keys, circumstances.queue_max);
        return bounded(format!("{keys} keys, and {queue} hints in one queue, for {} slots", table.slots.len()));
    }
    let ((remembered, lines), (identities, keys)) = (circumstances.buckets, oracle.buckets_max());
    if remembered > identities || lines > keys {
        return bounded(format!(
            "{remembered} buckets of {identities} idempotency keys, {lines} of {keys} ordering keys"
        ));
    }
    None
}

/// Keys that are no slot's: books, tables, leases, and two for each destination. Slots behind a gap have some too.
const CELLS_MAX: usize = 256;

/// What one message may be charged, generously.
const LATE_BYTES: u64 = 64 << 10;

/// Slots that writers on several threads may have taken between two looks.
const SLOTS_SPARE: u64 = 64;

/// I10 and I12 at rest, after everything was made well: nothing waits, and the books say so.
pub fn at_rest(oracle: &mut Oracle, table: &Table, circumstances: &Circumstances, metric: impl Fn(&str) -> u64) {
    if let Some(wrong) = unrest(oracle, table, circumstances, &metric) {
        oracle.violated(wrong);
    }
}

fn unrest(
    oracle: &Oracle,
    table: &Table,
    circumstances: &Circumstances,
    metric: &impl Fn(&str) -> u64,
) -> Option<Violation> {
    // Whom they wait for is judged.
    let held_up = held_up(table.used().map(|(slot, head)| (slot.index, head)), oracle.rules.keys.order);
    let in_line = table.used().filter(|(slot, _)| held_up.contains(&slot.index));
    let in_line: BTreeSet<Number> = in_line.filter_map(|(slot, _)| slot.path().and_then(Message::number_of)).collect();
    let may_wait = |number: Number| {
        let record = oracle.records.get(&number);
        let is_poison = record.is_some_and(|record| record.message.poison != Poison::None);
        in_line.contains(&number) || circumstances.poison_works && is_poison
    };
    let mut waiting: Vec<Number> = waiting(table, &oracle.rules, &held_up);
    waiting.retain(|number| !may_wait(*number));
    if !waiting.is_empty() {
        let text = format!("{} messages still wait: {:?}", waiting.len(), &waiting[..waiting.len().min(5)]);
        return Some(Violation::whole(Invariant::Drains, text));
    }
    let books =
        wrong_books(table, circumstances, metric).or_else(|| wrong_counters(oracle, table, circumstances, metric));
    if books.is_some() {
        return books;
    }
    let parked = numbers(table, &|_, head| matches!(head.state, SlotState::Parked { .. }));
    let unknown = oracle.records.values().filter(|record| record.acknowledged.is_some()).find(|record| {
        let has_ended = record.is_settled || record.is_dead || may_be_gone(oracle, record);
        let has_ended = has_ended || parked.contains(&record.message.number);
        !has_ended && !may_wait(record.message.number)
    })?;
    let text = "acknowledged, and neither delivered nor a dead letter";
    Some(Violation::of(Invariant::NothingLost, unknown.message.number, text))
}

/// What is neither parked by rule, nor a dead letter, nor held up by others of its line.
fn waiting(table: &Table, rules: &Rules, held_up: &BTreeSet<SlotIndex>) -> Vec<Number> {
    let rests = |state| match state {
        SlotState::Free | SlotState::Dead { .. } => true,
        SlotState::Parked { .. } => rules.receiving.parks || rules.of(OWNER).receiving.parks,
        SlotState::Filling { .. }
        | SlotState::Opening { .. }
        | SlotState::Queued { .. }
        | SlotState::Sending { .. } => false,
    };
    numbers(table, &|slot, head| !rests(head.state) && !held_up.contains(&slot.index))
}

/// The messages in some slots.
fn numbers(table: &Table, chosen: &dyn Fn(&Slot, &Head) -> bool) -> Vec<Number> {
    let slots = table.used().filter(|(slot, head)| chosen(slot, head));
    slots
        .map(|(slot, _)| match &slot.large {
            Large::Message(_, path) => Message::number_of(path).unwrap_or(Number(u32::MAX)),
            Large::Settled | Large::Unreadable => Number(u32::MAX),
        })
        .collect()
}

/// The counters against each other and against the oracle. A VM that died between doing and counting leaves them one apart.
fn wrong_counters(
    oracle: &Oracle,
    table: &Table,
    circumstances: &Circumstances,
    metric: &impl Fn(&str) -> u64,
) -> Option<Violation> {
    if circumstances.was_memory_damaged {
        return None;
    }
    let differ = |one: u64, other: u64| one.abs_diff(other) > circumstances.traps;
    let wrong = |text: String| Some(Violation::whole(Invariant::BooksBalance, text));
    let total = |name: &str| metric(&format!("redeliver_{name}"));
    let ended = total("delivered_total") + total("dead") + total("dead_expired_total") + total("removed_total");
    let (stored, queued) = (total("stored_total"), total("queued"));
    if differ(stored, ended + queued) {
        let text = format!(
            "stored_total is {stored}; delivered, dead, dead_expired, removed and queued are {}",
            ended + queued
        );
        return wrong(text);
    }
    // Some are stored and their senders never hear of it; the other way round there is none.
    let known = oracle.counts.acknowledged;
    if stored + circumstances.traps < known {
        return wrong(format!("stored_total is {stored}, and {known} senders were told so"));
    }
    let (dead, died) = (total("dead_lettered_total"), oracle.counts.dead);
    // Whoever dies after he has buried what a jump of the clock has ended had all of that in hand.
    let in_hand = if oracle.jumped_at > Moment(0) { circumstances.used_max as u64 } else { 1 };
    if dead + circumstances.traps * in_hand < died {
        return wrong(format!("dead_lettered_total is {dead}; {died} dead letters were seen"));
    }
    let (expired, corrupt) = (total("expired_total"), total("corrupt_total"));
    if expired + corrupt > dead + circumstances.traps {
        return wrong(format!("expired_total and corrupt_total are {expired} and {corrupt}, of {dead} dead letters"));
    }
    let (attempts, seen) = (total("attempts_total"), oracle.counts.attempts);
    if attempts + circumstances.traps < seen {
        return wrong(format!("attempts_total is {attempts}; {seen} redeliveries were seen"));
    }
    // A late success of a message that has meanwhile become a dead letter stays one: with a receipt and without a name.
    let receipts = table.used().filter(|(slot, head)| is_both(slot, head)).count() as u64;
    let seen = oracle.records.values().filter(|record| record.is_settled && !record.is_dead).count() as u64;
    let (delivered, seen) = (total("delivered_total"), seen.saturating_sub(receipts));
    let text = format!("delivered_total is {delivered}; the oracle saw {seen} redeliveries end well");
    // A dead letter that was removed before anybody saw it may have had a receipt too.
    let is_wrong = delivered.abs_diff(seen) > circumstances.traps + receipts && !oracle.are_letters_gone();
    is_wrong.then(|| Violation::whole(Invariant::BooksBalance, text))
}

/// The ledger and the gauges against the slots.
fn wrong_books(table: &Table, circumstances: &Circumstances, metric: &impl Fn(&str) -> u64) -> Option<Violation> {
    let is_dead = |head: &Head| matches!(head.state, SlotState::Dead { .. });
    let sum = |chosen: &dyn Fn(&Head) -> bool| {
        let heads = table.used().map(|(_, head)| head).filter(|head| chosen(head));
        heads.fold((0, 0), |(count, bytes), head| (count + 1, bytes + head.charge.0))
    };
    let ((all, bytes), (dead, dead_bytes)) = (sum(&|_| true), sum(&is_dead));
    let wrong = |text: String| Some(Violation::whole(Invariant::BooksBalance, text));
    match table.ledger {
        None => return wrong("the ledger is damaged, and nobody has mended it".to_owned()),
        Some(ledger) => {
            let found = (u64::from(ledger.messages), u64::from(ledger.dead), ledger.bytes.0, ledger.dead_bytes.0);
            if found != (all, dead, bytes, dead_bytes) {
                return wrong(format!("{ledger:?}; there are {all} of {bytes} bytes, {dead} dead of {dead_bytes}"));
            }
        }
    }
    // Poison is tried again and again.
    if circumstances.poison_works {
        return None;
    }
    let gauges = ["redeliver_queued", "redeliver_queued_bytes", "redeliver_dead", "redeliver_in_flight"].map(metric);
    if gauges != [all - dead, bytes - dead_bytes, dead, 0] {
        let text = format!(
            "queued, queued_bytes, dead, in_flight are {gauges:?}; {dead} dead letters and {} other messages are there",
            all - dead
        );
        return wrong(text);
    }
    None
}
