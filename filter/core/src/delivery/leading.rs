//! Leadership of destinations: one courier per destination in the whole process, by an expiring lease with an epoch.
//!
//! | who | takes a destination that nobody leads |
//! | --- | --- |
//! | a worker | at once; the more it leads already, the later, so that destinations spread |
//! | a VM that never saw a stream | after a second, and only while no worker lives |
//!
//! A leader that finds another's term in the cell drops its courier: what it has out is settled under its old epoch or
//! not at all.

use super::{Delivery, Outlook, Standing, Thread, note};
use crate::cells::{
    DESTINATIONS_MAX, Evidence, Leadership, Observation, PublishedState, decode_destinations, encode_destinations,
};
use crate::codec::Damage;
use crate::config::HealthSource;
use crate::courier::Courier;
use crate::destination::{Backlog, standing};
use crate::effect::{Effect, Level};
use crate::hint::ReadyHint;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::live::LiveCell;
use crate::memory::{Cas, Change, Expect, SharedMemory, update};
use crate::slot::{DestinationIndex, Epoch, SlotIndex, SlotState};
use crate::store::Now;
use crate::units::{ClusterName, Millis, Monotonic};

/// How long a leader stays one without a renewal. A dead VM's destinations wait this long; a live one renews each
/// second, and a tick that is late by two is rare.
pub const LEASE: Millis = Millis(3_000);
/// A lease is renewed when less than this is left.
const RENEW_BELOW: Millis = Millis(2_000);
/// How long a VM that never saw a stream leaves a vacancy to the workers.
const IDLE_WAIT: Millis = Millis(1_000);
/// Each destination that a worker leads makes it wait so much longer for the next.
const SPREAD_STEP: Millis = Millis(50);
/// Destinations that one tick looks at: bounds the cost of a tick when a proxy has thousands.
const LOOK_MAX: usize = 64;
/// A VM that never knew the table of destinations waits so long for one that does: they look at it each tick.
const NAMES_UNKNOWN_MAX: Millis = Millis(3_000);
/// Messages that one tick looks at, of those that are not to be sent: a hundred are seen each second.
const STOPPED_LOOKS: usize = 10;
/// Hints that one tick takes per destination; what is left comes with the next.
const HINTS_MAX: usize = 2_000;

impl Delivery {
    pub(super) fn refresh_names(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        let Some(value) = memory.get(&self.keys.destinations()) else { return };
        if self.names_version == Some(value.cas) {
            return;
        }
        match decode_destinations(&value.bytes) {
            // Places are never given up: a table that is shorter than a known one was mended by a VM that knew less.
            Ok(names) if names.len() < self.names.len() && self.names.starts_with(&names) => {
                self.rewrite_names(memory, value.cas);
            }
            Ok(names) => {
                self.names = names;
                self.names_version = Some(value.cas);
            }
            // What a later build knows of it, it knows better.
            Err(Damage::Later) => {}
            // Whoever still knows the table writes it anew.
            Err(_) if !self.names.is_empty() => self.rewrite_names(memory, value.cas),
            // A VM that is new leaves it to the others for a moment, and then asks the messages where they go.
            Err(_) if now.since(self.configured_at) > NAMES_UNKNOWN_MAX => {
                self.names = self.names_in_slots(memory);
                self.rewrite_names(memory, value.cas);
            }
            Err(_) => {}
        }
    }

    fn rewrite_names(&self, memory: &dyn SharedMemory, damaged: Cas) {
        let table = encode_destinations(&self.names);
        // After a conflict another one has written it.
        memory.set(&self.keys.destinations(), &table, Expect::Version(damaged)).unwrap_or_default();
    }

    /// The table as the stored messages tell it: a place of which none can be read has an empty name and may be taken
    /// again; somebody leads it all the same, and finds what is unreadable there. Reads all slots in one go, which is
    /// bounded by nothing but their number: until then nothing can be stored.
    fn names_in_slots(&self, memory: &dyn SharedMemory) -> Vec<ClusterName> {
        let slots = Ledger::read(memory, &self.keys.ledger()).map_or(0, |ledger| ledger.slots);
        let mut names: Vec<ClusterName> = Vec::new();
        for (place, cluster) in (0..slots).filter_map(|slot| self.store(memory).destination_of(SlotIndex(slot))) {
            let place = usize::from(place.0);
            if names.len() <= place {
                names.resize(place.saturating_add(1), ClusterName(String::new()));
            }
            if let (Some(name), Some(cluster)) = (names.get_mut(place), cluster) {
                *name = cluster;
            }
        }
        names
    }

    /// Clusters that the configuration names are watched from the start, before anything fails.
    pub(super) fn register_configured(&mut self, memory: &dyn SharedMemory, effects: &mut Vec<Effect>) {
        let config = self.config.clone();
        for cluster in config.matching.clusters.iter().chain(config.destinations.keys()) {
            if self.find(cluster).is_none() && self.find_or_register(memory, cluster).is_none() {
                effects
                    .push(note(Level::Error, format!("destination {cluster}: no room in the table of destinations")));
            }
        }
    }

    /// Reads who leads what, and what live traffic showed, for a bounded number of destinations.
    pub(super) fn look_around(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        let count = self.names.len();
        for _ in 0..count.min(LOOK_MAX) {
            self.look_at = self.look_at.saturating_add(1).checked_rem(count).unwrap_or_default();
            if let Ok(place) = u16::try_from(self.look_at) {
                self.look(memory, DestinationIndex(place), now);
            }
        }
        let has_any = self.outlook.values().any(|outlook| outlook.backlog == Backlog::Some);
        self.backlog = if has_any { Backlog::Some } else { Backlog::Empty };
    }

    fn look(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex, now: Monotonic) {
        let found = memory.get(&self.keys.leadership(destination));
        let is_damaged = found.as_ref().is_some_and(|value| Leadership::decode(&value.bytes).is_err());
        let leadership = found.and_then(|value| Leadership::decode(&value.bytes).ok());
        let is_led = leadership.is_some_and(|found| found.until > now);
        let before = self.outlook.get(&destination).and_then(|outlook| outlook.vacant_since);
        let has_backlog = leadership.is_some_and(|found| found.in_flight > 0 || found.oldest_stored_at > 0);
        let outlook = Outlook {
            backlog: if has_backlog { Backlog::Some } else { Backlog::Empty },
            state: leadership.map_or(PublishedState::Up, |found| found.state),
            connect_failures: self.evidence(memory, destination).connect_failures,
            vacant_since: if is_led { None } else { before.or(Some(now)) },
        };
        self.outlook.insert(destination, outlook);
        // Nobody knows whose lease stood in a damaged cell: its leader writes it anew, or its time goes by.
        let is_vacant = !is_damaged || outlook.vacant_since.is_some_and(|since| now.since(since) >= LEASE);
        let may_lead = self.standing == Standing::Ruling && !self.couriers.contains_key(&destination);
        if !is_led && is_vacant && may_lead {
            self.apply_for(memory, destination, outlook, now);
        }
    }

    fn apply_for(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        outlook: Outlook,
        now: Monotonic,
    ) {
        let led = u64::try_from(self.couriers.len()).unwrap_or(u64::MAX);
        let wait = match self.thread {
            Thread::Worker => SPREAD_STEP.times(led).min(IDLE_WAIT),
            Thread::Unknown if self.a_worker_lives(memory, now) => return,
            Thread::Unknown => IDLE_WAIT,
        };
        if outlook.vacant_since.is_some_and(|since| now.since(since) >= wait) {
            self.take_lease(memory, destination, now);
        }
    }

    fn take_lease(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex, now: Monotonic) {
        let until = now.after(LEASE);
        let outcome = update(memory, &self.keys.leadership(destination), |bytes| {
            let before = bytes.and_then(|bytes| Leadership::decode(bytes).ok());
            if before.is_some_and(|found| found.until > now) {
                return Change::Keep(None);
            }
            let is_first = bytes.is_none();
            let epoch = Epoch(before.map_or(0, |found| found.epoch.0).wrapping_add(1));
            let state = before.map_or(PublishedState::Up, |found| found.state);
            let mine = Leadership { leader: self.vm, epoch, until, state, in_flight: 0, oldest_stored_at: 0 };
            Change::Write(mine.encode(), Some((epoch, before.map(|found| found.state), is_first)))
        });
        if let Ok(Some((epoch, published, is_first))) = outcome {
            let policy = self.policy(destination);
            let courier = Courier::new(epoch, until, published, &policy.redelivery, now);
            self.couriers.insert(destination, courier);
            if !is_first {
                self.sweep.start_over(destination);
            }
        }
    }

    /// Everything that a leader does in a tick.
    pub(super) fn lead(&mut self, memory: &dyn SharedMemory, now: Now, effects: &mut Vec<Effect>) {
        let must_yield = self.thread == Thread::Unknown && self.a_worker_lives(memory, now.monotonic);
        let led: Vec<DestinationIndex> = self.couriers.keys().copied().collect();
        for destination in led {
            if must_yield {
                self.resign(memory, destination, now.monotonic);
            } else {
                self.lead_one(memory, destination, now, effects);
            }
        }
    }

    fn lead_one(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let until = self.couriers.get(&destination).map_or(Monotonic(0), |courier| courier.lease_until);
        if until <= now.monotonic.after(RENEW_BELOW) && !self.publish(memory, destination, now.monotonic) {
            return;
        }
        self.take_hints(memory, destination);
        self.forget_ended(memory, destination, now, effects);
        self.forget_removed(memory, destination, now, effects);
        if self.sweep.has_seen_all(destination) {
            self.observe(memory, destination, now, effects);
            self.send_due(memory, destination, now, effects);
        }
        if self.couriers.get(&destination).is_some_and(Courier::has_news) {
            self.publish(memory, destination, now.monotonic);
        }
    }

    /// Attempts that somebody else settled, and those whose outcome can no longer come.
    fn forget_ended(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(courier) = self.couriers.get(&destination) else { return };
        let (overdue, inherited) = (courier.overdue(now.monotonic), courier.inherited());
        for ticket in overdue {
            self.forget(destination, ticket);
            self.sweep_slot(memory, ticket.slot, now, effects);
        }
        for ticket in inherited {
            let head = self.store(memory).head(ticket.slot).ok().flatten().map(|(head, _)| head);
            let is_out = head.is_some_and(|head| {
                head.generation == ticket.generation && matches!(head.state, SlotState::Sending { .. })
            });
            if !is_out {
                self.forget(destination, ticket);
                self.sweep_slot(memory, ticket.slot, now, effects);
            }
        }
    }

    /// Messages that were not to be sent, and are gone or are to be sent again, by the doing of whatever VM.
    fn forget_removed(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for _ in 0..STOPPED_LOOKS {
            let Some(ticket) = self.couriers.get_mut(&destination).and_then(Courier::next_stopped) else { return };
            if self.stopped(memory, ticket).is_none() {
                self.forget(destination, ticket);
                self.sweep_slot(memory, ticket.slot, now, effects);
            }
        }
    }

    fn take_hints(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex) {
        for _ in 0..HINTS_MAX {
            let Some(hint) = self.store(memory).next_ready(destination) else { return };
            self.take_hint(destination, hint);
        }
    }

    fn take_hint(&mut self, destination: DestinationIndex, hint: ReadyHint) {
        let spot = hint.spot.filter(|_| self.on_dead_head(destination).is_some());
        if let Some(courier) = self.couriers.get_mut(&destination) {
            courier.add(ReadyHint { spot, ..hint });
        }
    }

    /// Tells the leader of `destination` of a message that was stored: this VM itself, without the way through the queue, if
    /// it leads. `clock` is read after the message was written: if the lease holds now, whoever leads next begins later, and
    /// finds the message in its first round.
    pub fn tell_leader(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        hint: ReadyHint,
        clock: impl FnOnce() -> Monotonic,
    ) {
        match self.couriers.get(&destination) {
            Some(courier) if courier.lease_until > clock() => self.take_hint(destination, hint),
            Some(_) | None => self.store(memory).hint_ready(destination, hint),
        }
    }

    fn observe(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let policy = self.policy(destination);
        let verdict = match policy.health.source {
            HealthSource::Passive => None,
            HealthSource::HealthCheckFilter | HealthSource::Admin => {
                standing(self.observation(memory, destination), &policy.health, now.monotonic)
            }
        };
        let evidence = self.evidence(memory, destination);
        let has_backlog = self.couriers.get(&destination).is_some_and(|courier| courier.oldest().is_some());
        let live = if has_backlog { self.live_in_flight(memory, destination, now.monotonic) } else { 0 };
        let Some(courier) = self.couriers.get_mut(&destination) else { return };
        courier.serve_beside(live);
        let change = courier.observe(verdict, evidence, &policy, now.monotonic);
        if let Some(change) = change {
            self.tell(memory, destination, change, now.monotonic, effects);
        }
    }

    /// A change of state is published at once and logged.
    pub(super) fn tell(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        change: crate::destination::Transition,
        now: Monotonic,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(name) = self.name(destination) {
            effects.push(note(Level::Info, format!("destination {name}: {change}")));
        }
        if matches!(change.to, PublishedState::Up | PublishedState::Ramping) {
            // The failures that led here are over; the count starts again.
            self.write_evidence(memory, destination, crate::classify::Sign::Answered, now);
        }
        if let Some(outlook) = self.outlook.get_mut(&destination) {
            outlook.state = change.to;
        }
        self.publish(memory, destination, now);
    }

    /// Writes the leader's cell and renews the lease. Answers whether the term still is this VM's; if not, the courier
    /// is gone.
    pub(super) fn publish(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex, now: Monotonic) -> bool {
        let vm = self.vm;
        let key = self.keys.leadership(destination);
        let Some(courier) = self.couriers.get_mut(&destination) else { return false };
        let mine = Leadership {
            leader: vm,
            epoch: courier.epoch,
            until: now.after(LEASE),
            state: courier.published(),
            in_flight: u32::try_from(courier.in_flight()).unwrap_or(u32::MAX),
            oldest_stored_at: courier.oldest().map_or(0, |at| at.0),
        };
        let lease_until = courier.lease_until;
        courier.told();
        let outcome = update(memory, &key, |bytes| match bytes.map(Leadership::decode) {
            Some(Ok(found)) if (found.leader, found.epoch) == (mine.leader, mine.epoch) => {
                Change::Write(mine.encode(), true)
            }
            Some(Err(_)) if lease_until > now => Change::Write(mine.encode(), true),
            Some(Ok(_) | Err(_)) | None => Change::Keep(false),
        });
        if outcome == Ok(true) {
            courier.lease_until = mine.until;
            return true;
        }
        self.couriers.remove(&destination);
        false
    }

    /// Gives the destination back: the lease ends now.
    pub(super) fn resign(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex, now: Monotonic) {
        let Some(courier) = self.couriers.remove(&destination) else { return };
        let (vm, epoch) = (self.vm, courier.epoch);
        let outcome = update(memory, &self.keys.leadership(destination), |bytes| {
            let found = bytes.and_then(|bytes| Leadership::decode(bytes).ok());
            match found {
                Some(found) if (found.leader, found.epoch) == (vm, epoch) => {
                    Change::Write(Leadership { until: now, ..found }.encode(), ())
                }
                Some(_) | None => Change::Keep(()),
            }
        });
        // If it cannot be given back, it runs out.
        outcome.unwrap_or_default();
    }

    pub(super) fn resign_all(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        let led: Vec<DestinationIndex> = self.couriers.keys().copied().collect();
        for destination in led {
            self.resign(memory, destination, now);
        }
        self.leave_house(memory, now);
        self.leave_polling(memory, now);
    }

    pub(super) fn leadership(&self, memory: &dyn SharedMemory, destination: DestinationIndex) -> Option<Leadership> {
        let value = memory.get(&self.keys.leadership(destination))?;
        Leadership::decode(&value.bytes).ok()
    }

    fn evidence(&self, memory: &dyn SharedMemory, destination: DestinationIndex) -> Evidence {
        let value = memory.get(&self.keys.evidence(destination));
        value.and_then(|value| Evidence::decode(&value.bytes).ok()).unwrap_or_default()
    }

    fn live_in_flight(&self, memory: &dyn SharedMemory, destination: DestinationIndex, now: Monotonic) -> u32 {
        let value = memory.get(&self.keys.live(destination));
        value.and_then(|value| LiveCell::decode(&value.bytes).ok()).map_or(0, |cell| cell.total(now))
    }

    pub(super) fn observation(&self, memory: &dyn SharedMemory, destination: DestinationIndex) -> Option<Observation> {
        let value = memory.get(&self.keys.verdict(destination))?;
        Observation::decode(&value.bytes).ok()
    }
}

/// Enters `cluster` into the table of destinations, if there is room and the table can be read.
pub(super) fn register(memory: &dyn SharedMemory, keys: &Keys, cluster: &ClusterName) {
    let outcome = update(memory, &keys.destinations(), |bytes| {
        let names = match bytes.map(decode_destinations) {
            None => Vec::new(),
            Some(Ok(names)) => names,
            Some(Err(_)) => return Change::Keep(()),
        };
        let has_room = names.len() < DESTINATIONS_MAX || names.iter().any(|name| name.0.is_empty());
        if names.contains(cluster) || !has_room {
            return Change::Keep(());
        }
        let mut names = names;
        match names.iter_mut().find(|name| name.0.is_empty()) {
            Some(place) => *place = cluster.clone(),
            None => names.push(cluster.clone()),
        }
        Change::Write(encode_destinations(&names), ())
    });
    // The caller looks the name up afterwards and sees whether it is there.
    outcome.unwrap_or_default();
}
