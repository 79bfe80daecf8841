//! Housekeeping: what only one VM of the process does. Asks the active health source, sets the gauges, audits the books.
//!
//! Held by a lease of its own, because its holder must reach the health listener, and the main thread cannot (measured):
//! a holder whose polls do not get through hands over and stays away for a while. Nothing is lost when the house stands
//! empty: gauges stand still, and verdicts grow old.

use super::{Delivery, Thread, note};
use crate::cells::{Leadership, Lease, Observation, PublishedState};
use crate::config::HealthSource;
use crate::delivery::sending::Reply;
use crate::effect::{Call, Dispatch, Effect, Gauge, Level};
use crate::health::{self, Poll};
use crate::ledger::{self, Ledger};
use crate::memory::{Change, Expect, SharedMemory, update};
use crate::slot::{DestinationIndex, Head, SlotIndex, SlotState};
use crate::store::Now;
use crate::units::{ByteCount, Millis, Monotonic};
use std::collections::{BTreeMap, BTreeSet};

/// How long the house is held without a renewal.
const LEASE: Millis = Millis(1_000);
/// How long a VM stays away after its polls did not get through.
const STAY_AWAY: Millis = Millis(10_000);
/// Polls in a row that must fail before the house is handed over: one may be bad luck.
const FAILED_POLLS_MAX: u32 = 2;
/// How long a VM that never saw a stream leaves the house to the workers.
const IDLE_WAIT: Millis = Millis(1_500);
/// How often the gauges are set.
const GAUGE_PERIOD: Millis = Millis(250);
/// The books must have been quiet for so long before they are audited: no callback lasts longer.
const QUIET: Millis = Millis(5_000);
/// Heads that an audit reads per tick.
const AUDIT_STEP: u32 = 2_000;
/// Free slots whose hints an audit writes anew; with more of them the lost ones do not matter.
const HINTS_MAX: usize = 10_000;
/// Slots in a row that were never written, behind which no further one is looked for: each is a VM that died between
/// taking a number and writing there.
const GAP_MAX: u32 = 64;

/// What the housekeeper remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Housekeeping {
    held_until: Option<Monotonic>,
    vacant_since: Option<Monotonic>,
    away_until: Monotonic,
    polled_at: Option<Monotonic>,
    asked: BTreeSet<DestinationIndex>,
    asked_admin: bool,
    failed_polls: u32,
    gauges_at: Option<Monotonic>,
    shown: BTreeMap<Gauge, u64>,
    audit: Audit,
}

#[derive(Clone, Debug, Default)]
struct Audit {
    /// The books as last seen, and since when they have been like that.
    seen: Option<(Ledger, Monotonic)>,
    /// The `changes` of the books that were audited last.
    done_for: Option<u32>,
    next: u32,
    counted: Ledger,
    free: Vec<SlotIndex>,
    /// What the count before found, if the books were found wrong.
    doubt: Option<Ledger>,
}

impl Housekeeping {
    pub(super) const fn is_held(&self) -> bool {
        self.held_until.is_some()
    }
}

impl Delivery {
    pub(super) fn keep_house(&mut self, memory: &dyn SharedMemory, now: Now, effects: &mut Vec<Effect>) {
        if !self.hold_house(memory, now.monotonic) {
            return;
        }
        self.poll(now.monotonic, effects);
        self.set_gauges(memory, now, effects);
        self.audit(memory, now.monotonic, effects);
    }

    /// Takes or renews the house's lease.
    fn hold_house(&mut self, memory: &dyn SharedMemory, now: Monotonic) -> bool {
        let is_ours = self.housekeeping.held_until.is_some();
        let must_yield = self.thread == Thread::Unknown && self.a_worker_lives(memory, now);
        if now < self.housekeeping.away_until || must_yield {
            self.leave_house(memory, now);
            return false;
        }
        if self.housekeeping.held_until.is_some_and(|until| until > now.after(Millis(LEASE.0 / 2))) {
            return true;
        }
        let wait = if is_ours || self.thread == Thread::Worker { Millis::ZERO } else { IDLE_WAIT };
        let has_waited = self.housekeeping.vacant_since.is_some_and(|since| now.since(since) >= wait);
        let (vm, until) = (self.vm, now.after(LEASE));
        let outcome = update(memory, &self.keys.housekeeping(), |bytes| {
            let found = bytes.and_then(|bytes| Lease::decode(bytes).ok()).filter(|lease| lease.until > now);
            match found {
                Some(lease) if lease.holder != vm => Change::Keep(Tenure::Others),
                None if !is_ours && !has_waited => Change::Keep(Tenure::Vacant),
                Some(_) | None => Change::Write(Lease { holder: vm, until }.encode(), Tenure::Mine),
            }
        });
        self.housekeeping.held_until = (outcome == Ok(Tenure::Mine)).then_some(until);
        self.housekeeping.vacant_since = match outcome {
            Ok(Tenure::Vacant) => self.housekeeping.vacant_since.or(Some(now)),
            Ok(Tenure::Mine | Tenure::Others) | Err(_) => None,
        };
        if self.housekeeping.held_until.is_none() {
            self.forget_house_work();
        }
        self.housekeeping.held_until.is_some()
    }

    fn forget_house_work(&mut self) {
        let away_until = self.housekeeping.away_until;
        let vacant_since = self.housekeeping.vacant_since;
        self.housekeeping = Housekeeping { away_until, vacant_since, ..Housekeeping::default() };
    }

    /// Gives the house back: its lease ends now.
    pub(super) fn leave_house(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        if self.housekeeping.held_until.is_none() {
            return;
        }
        self.forget_house_work();
        let vm = self.vm;
        let outcome = update(memory, &self.keys.housekeeping(), |bytes| {
            match bytes.and_then(|bytes| Lease::decode(bytes).ok()) {
                Some(lease) if lease.holder == vm => Change::Write(Lease { until: now, ..lease }.encode(), ()),
                Some(_) | None => Change::Keep(()),
            }
        });
        // If it cannot be given back, it runs out.
        outcome.unwrap_or_default();
    }

    /// Asks the active source once per interval; a question that is still out is not asked again.
    fn poll(&mut self, now: Monotonic, effects: &mut Vec<Effect>) {
        let health = &self.config.health;
        if self.housekeeping.polled_at.is_some_and(|at| now.since(at) < health.interval) {
            return;
        }
        self.housekeeping.polled_at = Some(now);
        match health.source {
            HealthSource::Passive => {}
            HealthSource::HealthCheckFilter => self.poll_health_checks(effects),
            HealthSource::Admin => {
                if !std::mem::replace(&mut self.housekeeping.asked_admin, true) {
                    effects.push(self.question(Call::AdminStats, health::ADMIN_PATH.to_owned()));
                }
            }
        }
    }

    fn poll_health_checks(&mut self, effects: &mut Vec<Effect>) {
        for (place, cluster) in self.names.iter().enumerate() {
            let Ok(place) = u16::try_from(place) else { return };
            let destination = DestinationIndex(place);
            if self.housekeeping.asked.insert(destination) {
                let path = health::health_check_path(&self.config.health, cluster);
                effects.push(self.question(Call::HealthCheck(destination), path));
            }
        }
    }

    fn question(&self, call: Call, path: String) -> Effect {
        let health = &self.config.health;
        Effect::Dispatch(Box::new(Dispatch {
            call,
            cluster: health.cluster.clone(),
            headers: health::request(health, path),
            body: Vec::new(),
            timeout: health::timeout(health),
        }))
    }

    /// A question could not even be sent.
    pub(super) fn poll_failed(&mut self, memory: &dyn SharedMemory, call: Call, now: Monotonic) {
        match call {
            Call::HealthCheck(destination) => {
                self.housekeeping.asked.remove(&destination);
            }
            Call::AdminStats => self.housekeeping.asked_admin = false,
            Call::Attempt(_) => {}
        }
        self.unreachable(memory, now);
    }

    fn unreachable(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        self.housekeeping.failed_polls = self.housekeeping.failed_polls.saturating_add(1);
        if self.housekeeping.failed_polls >= FAILED_POLLS_MAX {
            self.leave_house(memory, now);
            self.housekeeping.away_until = now.after(STAY_AWAY);
        }
    }

    pub(super) fn health_checked(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        reply: &Reply<'_>,
        now: Monotonic,
    ) {
        self.housekeeping.asked.remove(&destination);
        self.polled(memory, destination, health::read_health_check(&reply.headers), now);
    }

    pub(super) fn admin_answered(&mut self, memory: &dyn SharedMemory, reply: &Reply<'_>, now: Monotonic) {
        self.housekeeping.asked_admin = false;
        if reply.headers.first(":status") != Some(b"200") {
            return self.unreachable(memory, now);
        }
        let text = (reply.body)();
        let percent = self.config.health.healthy_percent_min;
        let polls: Vec<Poll> =
            self.names.iter().map(|cluster| health::read_admin_stats(&text, cluster, percent)).collect();
        for (place, poll) in (0..).zip(polls) {
            self.polled(memory, DestinationIndex(place), poll, now);
        }
    }

    fn polled(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex, poll: Poll, now: Monotonic) {
        match poll {
            Poll::Says(verdict) => {
                self.housekeeping.failed_polls = 0;
                let before = self.observation(memory, destination);
                let observation = Observation::following(before, verdict, now);
                // The housekeeper is the only writer; a second one for a moment says the same.
                memory
                    .set(&self.keys.verdict(destination), &observation.encode(), Expect::Anything)
                    .unwrap_or_default();
            }
            Poll::Unknown => self.housekeeping.failed_polls = 0,
            Poll::Unreachable => self.unreachable(memory, now),
        }
    }

    fn set_gauges(&mut self, memory: &dyn SharedMemory, now: Now, effects: &mut Vec<Effect>) {
        if self.housekeeping.gauges_at.is_some_and(|at| now.monotonic.since(at) < GAUGE_PERIOD) {
            return;
        }
        self.housekeeping.gauges_at = Some(now.monotonic);
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

    /// Counts all slots when the books have been quiet, and mends the books if they are wrong.
    fn audit(&mut self, memory: &dyn SharedMemory, now: Monotonic, effects: &mut Vec<Effect>) {
        let key = self.keys.ledger();
        let Ok(books) = Ledger::read(memory, &key) else { return self.rebuild_books(memory, effects) };
        let audit = &mut self.housekeeping.audit;
        let (seen, since) = audit.seen.filter(|(seen, _)| *seen == books).unwrap_or((books, now));
        if audit.seen != Some((seen, since)) {
            *audit = Audit { seen: Some((seen, since)), done_for: audit.done_for, ..Audit::default() };
        }
        if now.since(since) < QUIET || audit.done_for == Some(books.changes) {
            return;
        }
        if !self.count_some(memory, books.slots) {
            return;
        }
        let audit = std::mem::take(&mut self.housekeeping.audit);
        let counted = Ledger { slots: books.slots, changes: books.changes, ..audit.counted };
        if counted != books && audit.doubt != Some(counted) {
            // A VM may be between a slot and the books just now: only what a second count finds again is mended.
            let seen = Some((books, now));
            self.housekeeping.audit = Audit { seen, doubt: Some(counted), ..Audit::default() };
            return;
        }
        self.housekeeping.audit.done_for = Some(books.changes);
        if counted != books && ledger::mend(memory, &key, &books, counted).is_ok() {
            let text = format!(
                "books mended: {} messages counted, {} booked (a VM died between two writes)",
                counted.messages, books.messages
            );
            effects.push(note(Level::Warn, text));
            self.housekeeping.audit.done_for = None;
        }
        self.renew_free_hints(memory, &audit.free);
    }

    /// A damaged ledger is counted anew at once: until then nothing is stored.
    fn rebuild_books(&mut self, memory: &dyn SharedMemory, effects: &mut Vec<Effect>) {
        let slots = self.slots_written(memory);
        self.housekeeping.audit = Audit::default();
        while !self.count_some(memory, slots) {}
        let counted = Ledger { slots, ..self.housekeeping.audit.counted };
        if ledger::rebuild(memory, &self.keys.ledger(), counted).is_ok() {
            effects.push(note(
                Level::Error,
                format!("the books were damaged: counted anew, {} messages", counted.messages),
            ));
        }
        self.housekeeping.audit = Audit::default();
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

    /// Counts a bounded number of slots. Answers whether all are counted.
    fn count_some(&mut self, memory: &dyn SharedMemory, slots: u32) -> bool {
        for _ in 0..AUDIT_STEP {
            let slot = SlotIndex(self.housekeeping.audit.next);
            if slot.0 >= slots {
                return true;
            }
            self.housekeeping.audit.next = slot.0.saturating_add(1);
            let head = self.store(memory).head(slot).ok().flatten().map(|(head, _)| head);
            self.housekeeping.audit.count(slot, head);
        }
        self.housekeeping.audit.next >= slots
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
        self.counted.messages = self.counted.messages.saturating_add(1);
        self.counted.bytes = self.counted.bytes.plus(head.charge);
        if matches!(head.state, SlotState::Dead { .. }) {
            self.counted.dead = self.counted.dead.saturating_add(1);
            self.counted.dead_bytes = ByteCount(self.counted.dead_bytes.0.saturating_add(head.charge.0));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tenure {
    Mine,
    Others,
    Vacant,
}
