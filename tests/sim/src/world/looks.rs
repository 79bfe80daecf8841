//! What is looked at while a history runs: records behind answers, states of destinations, everything each so often, and
//! the rest at the end.

use super::{SAMPLE, World};
use crate::audit;
use crate::faults::Fault;
use crate::message::{Destination, Message, Number, Poison};
use crate::oracle::{Failure, Knowledge, Room, View};
use crate::patience::Sight;
use crate::slots::{self, Table};
use crate::town::{Remedy, SourceMood};
use crate::violation::{Invariant, Violation};
use redeliver_core::cells::PublishedState;
use redeliver_core::units::{Monotonic, Wall};
use simvoy::{Moment, REQUESTS_MAX, SharedQueues, ThreadId};
use std::time::Duration;

/// A destination that is down is asked by one probe at a time, each after a backoff; who believes it up asks for as many as
/// its window allows at first, and again after a moment. More than this in a second is a loop.
const STORM_MAX: usize = 16;

/// What is due goes out with the next tick, and what a lost hint hides with the next sweep.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// What a message is charged beside its body, generously.
const OVERHEAD_MAX: u64 = 4 << 10;

/// Conflicts per million sets from which on a store may fail by them alone.
const CONFLICTS_MANY: u32 = 200_000;

/// Everything that many threads may have to do at one moment, many times over.
const STEPS_AT_ONCE_MAX: u64 = 50_000;

/// The word of a source that lied has no weight any more after so long: three intervals and a look.
const SOURCE_AGES: Duration = Duration::from_secs(6);

impl World {
    /// I11: at the moment of the 202 the record is there, or the message has arrived already.
    pub(super) fn check_record(&mut self, number: Number) {
        self.follow();
        let record = &self.town.oracle.records[&number];
        let Some((id, _)) = &record.acknowledged else { return };
        let has_arrived = record.attempts.iter().any(|attempt| attempt.said.is_some());
        if !has_arrived && !record.is_damaged && self.mirror.find(id).is_none() {
            let text = format!("acknowledged as {id}, and no slot can be read that holds it");
            self.town.oracle.violated(Violation::of(Invariant::Acknowledged, number, text));
        }
    }

    pub(super) fn audit(&mut self) {
        self.audited_at = self.steps;
        self.town.oracle.looked_at = self.process.now();
        self.follow();
        let table = self.process.with_data(|data| self.mirror.table(data));
        self.refresh_circumstances(&table);
        audit::look(&mut self.town.oracle, &table, &self.circumstances);
    }

    /// Brings the mirror up to date.
    pub(super) fn follow(&mut self) {
        let mirror = &mut self.mirror;
        self.process.with_data(|data| mirror.follow(data));
    }

    /// What an answer to a sender may say.
    pub(super) fn view(&mut self, number: Number) -> View {
        self.follow();
        let record = &self.town.oracle.records[&number];
        let (destination, thread, sent) = (record.message.destination, record.thread, record.sent);
        let cluster = destination.cluster();
        let is_as_usual = self.process.cluster(&cluster).is_some()
            && !self.is_memory_in_doubt()
            && self.town.oracle.is_untroubled(thread, sent);
        let failure = if is_as_usual { Failure::Judged } else { Failure::Forgiven };
        let room = if self.town.oracle.is_contested(number) { Room::Unsure } else { self.room(destination) };
        View { room, failure }
    }

    /// Whether the store takes one more message, though every worker takes one just now.
    fn room(&self, destination: Destination) -> Room {
        let rules = &self.history.rules;
        let ledger = self.process.with_data(|data| slots::read_ledger(data, &slots::keys()));
        let Some(ledger) = ledger else { return Room::Unsure };
        let others = self.history.workers + 1;
        let messages = ledger.messages.max(self.mirror.used_count() as u32) + others;
        let bytes = ledger.bytes.0 + u64::from(others) * (rules.body_max as u64 + OVERHEAD_MAX);
        // A destination has a part of it, which is full without the others being so.
        let part = self.mirror.used_by(destination) as u32 + others;
        let is_enough = messages <= self.messages_max && bytes <= rules.bytes_max && part <= rules.part(destination);
        // Who meets another writer again and again gives up.
        let is_contended = self.board.lock().rates.conflict > CONFLICTS_MANY;
        if is_enough && !is_contended { Room::Enough } else { Room::Unsure }
    }

    /// Whether books, tables or leases may still be wrong, since a value was damaged.
    pub(super) fn is_memory_in_doubt(&self) -> bool {
        self.process.now() < self.town.oracle.doubt_until
    }

    fn refresh_circumstances(&mut self, table: &Table) {
        let used = table.used().count();
        let is_in_doubt = self.is_memory_in_doubt();
        let mut buckets = (0, 0);
        self.circumstances.keys = self.process.with_data(|data| {
            let keys = data.entries(slots::VM_ID).map(|(key, _)| key);
            let is_other = |key: &&[u8]| {
                buckets.0 += usize::from(slots::is_bucket_of(key, b'd'));
                buckets.1 += usize::from(slots::is_bucket_of(key, b'o'));
                !slots::is_bucket(key)
            };
            keys.filter(is_other).count()
        });
        self.circumstances.buckets = buckets;
        // Where dequeuing finds nothing though there is something, nobody can empty a queue.
        let are_hints_safe = !self.coverage.struck.contains_key(&Fault::LostHint);
        let longest = |queues: &SharedQueues| queues.entries().map(|(_, queue)| queue.len()).max().unwrap_or(0);
        self.circumstances.queue_max = if are_hints_safe { self.process.with_queues(longest) } else { 0 };
        let board = self.board.lock();
        self.circumstances.is_memory_in_doubt = is_in_doubt;
        self.circumstances.traps = board.traps;
        self.circumstances.long_stalls = self.coverage.struck.get(&Fault::LongStall).copied().unwrap_or(0);
        self.circumstances.poison_works = self.town.remedy == Remedy::None;
        let struck = |fault| self.coverage.struck.get(&fault).copied().unwrap_or(0);
        self.circumstances.damages = struck(Fault::FlippedBit) + struck(Fault::CutValue);
        self.circumstances.slots_lost =
            board.traps + [Fault::LostHint, Fault::Stall, Fault::LongStall].into_iter().map(struck).sum::<u64>();
        self.circumstances.used_max = self.circumstances.used_max.max(used);
    }

    /// Whether any VM can send anything again. The main thread's does not reach a listener.
    pub(super) fn can_deliver(&self) -> bool {
        let live = self.process.live_vms();
        let is_able = |thread: ThreadId| thread != ThreadId::MAIN || self.history.rules.receiving.through.is_none();
        live.into_iter().any(|(thread, _)| is_able(thread))
    }

    /// What is looked at ten times a second: states of destinations, and whether anybody is stormed.
    pub(super) fn sample(&mut self, now: Moment) {
        if self.history.rules.receiving.through.is_some() && !self.can_deliver() {
            self.disturbed(now);
        }
        for n in 0..self.history.rules.destinations {
            let destination = Destination(n);
            let state = slots::published(&self.process, &destination.cluster());
            if matches!(state, Some(PublishedState::Down | PublishedState::Probing)) {
                self.town.oracle.troubled(destination, now);
            }
            self.check_storm(destination, now);
            let mood = self.town.mood(destination);
            let cluster = self.process.cluster(&destination.cluster());
            let not_reached = self.town.oracle.not_reached.get(&destination);
            let is_reached = not_reached.is_none_or(|at| now - *at > SAMPLE * 2);
            let sight = Sight {
                is_undisputed: self.town.source != SourceMood::Gloomy && now - self.source_since > SOURCE_AGES,
                is_sound: is_reached && mood.is_well() && cluster.as_ref().is_some_and(|cluster| cluster.healthy > 0),
                is_free: cluster.is_some_and(|cluster| cluster.requests_max >= REQUESTS_MAX),
                is_at_its_share: self.town.oracle.is_at_its_share(destination, now),
                state,
            };
            if let Some(violation) = self.patience.look(destination, sight, now) {
                self.town.oracle.violated(violation);
            }
        }
        if self.next_patience <= now {
            self.next_patience = now + Duration::from_secs(1);
            self.follow();
            self.check_patience(now);
            self.check_idleness(now);
            self.check_parked(now);
            self.note_backlogs(now);
        }
        self.follow();
        (0..self.history.rules.destinations)
            .map(Destination)
            .for_each(|destination| self.note_hidden(destination, now));
        self.note_parked();
        self.look_at_windows(now);
        self.circumstances.used_max = self.circumstances.used_max.max(self.mirror.used_count());
    }

    /// I12, I13: what waits longer than its destination's trouble explains.
    pub(super) fn check_patience(&mut self, now: Moment) {
        let mut patience = self.history.rules.patience();
        if self.town.source == SourceMood::Gloomy {
            patience += self.history.rules.suspect_after;
        }
        if now - self.source_since < patience {
            return;
        }
        let free: Vec<Destination> = (0..self.history.rules.destinations)
            .map(Destination)
            .filter(|destination| self.patience.free_for(*destination, now) > patience)
            .collect();
        if free.is_empty() || self.is_memory_in_doubt() || !self.can_deliver() {
            return;
        }
        let before = Wall((self.process.wall() / 1_000_000).saturating_sub(patience.as_millis() as u64));
        self.follow();
        let patient = self.patient_since(patience, now);
        let is_waiting_in_vain = |path: &str| {
            let number = Message::number_of(path)?;
            let record = self.town.oracle.records.get(&number)?;
            let (destination, poison) = (record.message.destination, record.message.poison);
            // A source that calls it unhealthy lets one message through each `suspect_after`, and no more.
            let last = self.town.oracle.last_attempt_at(destination);
            let is_probed = last.is_some_and(|at| now - at < patience) && self.town.source == SourceMood::Gloomy;
            let is_well = poison == Poison::None && !record.is_damaged && !is_probed;
            let is_well = is_well && self.patience.waits_for_nothing(destination, record.sent, now) > patience;
            (is_well && free.contains(&destination) && !patient.contains(&number)).then_some((number, destination))
        };
        let in_vain = self.mirror.waiting_since(before).find_map(is_waiting_in_vain);
        if let Some((number, destination)) = in_vain {
            let invariant = self.patience.invariant(destination, now);
            let text = format!("still waits though {} has been well for {patience:?}", destination.cluster());
            self.town.oracle.violated(Violation::of(invariant, number, text));
        }
    }

    /// I13: a destination that is up is not left alone with messages that are due.
    fn check_idleness(&mut self, now: Moment) {
        if self.is_memory_in_doubt() || !self.can_deliver() {
            return;
        }
        let is_left_alone = |destination: &Destination| {
            let is_up = self.patience.up_for(*destination, now) > IDLE_MAX;
            // What a VM that died had claimed counts as out for as long as it might be.
            let is_free =
                self.patience.free_for(*destination, now) > IDLE_MAX * 2 + self.history.rules.timeout_longest();
            is_up && is_free && self.town.oracle.is_idle(*destination, IDLE_MAX, now)
        };
        let alone: Vec<_> = (0..self.history.rules.destinations).map(Destination).filter(is_left_alone).collect();
        if alone.is_empty() {
            return;
        }
        let before = Monotonic((now.0 / 1_000_000).saturating_sub(IDLE_MAX.as_millis() as u64));
        let patient = self.patient_since(IDLE_MAX, now);
        let is_for_it = |path: &str| {
            let number = Message::number_of(path)?;
            let record = self.town.oracle.records.get(&number)?;
            // A VM that does not know that others lead now may send one more, and say when it is due again: for those who
            // lead and know the message, their own word stands, which may be later.
            let is_leaders_word = record.attempts.last().is_none_or(|last| last.knowledge == Knowledge::Current);
            let may_go = !record.is_damaged && !patient.contains(&number) && is_leaders_word;
            (alone.contains(&record.message.destination) && may_go).then_some(number)
        };
        if let Some(number) = self.mirror.due_before(before).find_map(is_for_it) {
            let text = format!("due for more than {IDLE_MAX:?}, and nothing goes to its destination, which is up");
            self.town.oracle.violated(Violation::of(Invariant::Fair, number, text));
        }
    }

    /// I6: whoever asks again as soon as he is refused stops the time.
    pub(super) fn check_progress(&mut self) {
        let now = self.process.now();
        if self.moved.0 != now {
            self.moved = (now, self.steps);
        } else if self.steps - self.moved.1 > STEPS_AT_ONCE_MAX {
            let text = format!("{STEPS_AT_ONCE_MAX} things happened at one moment, and more would");
            self.town.oracle.violated(Violation::whole(Invariant::Paced, text));
        }
    }

    /// I6: while Envoy has no healthy host for a cluster, the filter asks it a few times a second at most.
    pub(super) fn check_storm(&mut self, destination: Destination, now: Moment) {
        let Some(since) = self.down_since.get(&destination) else { return };
        let asked = self
            .board
            .lock()
            .dispatches
            .get(&destination)
            .map_or(0, |lately| lately.iter().filter(|at| now - **at <= Duration::from_secs(1)).count());
        // A thread that has just come back acts on what it knew.
        let is_known = now - self.town.oracle.disturbed_at > Duration::from_secs(1);
        if now - *since > Duration::from_secs(10) && asked > STORM_MAX && is_known {
            let text = format!(
                "{} was asked {asked} times within a second while it has no healthy host",
                destination.cluster()
            );
            self.town.oracle.violated(Violation::whole(Invariant::Paced, text));
        }
    }

    pub(super) fn judge_rest(&mut self) {
        let table = Table::read(&self.process);
        self.refresh_circumstances(&table);
        self.check_leftovers();
        let process = &self.process;
        audit::at_rest(&mut self.town.oracle, &table, &self.circumstances, |name| process.metric(name));
    }

    /// I8: a configuration that has drained leaves nothing behind in the VM that goes on.
    pub(super) fn check_leftovers(&mut self) {
        let rest = self.process.now() - self.history.healed_at().unwrap_or(self.process.now());
        if self.history.drain_time + Duration::from_secs(60) > rest {
            return;
        }
        let crowded = self.process.live_vms().into_iter().find(|(_, vm)| self.process.root_count(*vm) > 1);
        if let Some((thread, vm)) = crowded {
            let text = format!("vm {} on thread {} still has the root context of a drained listener", vm.0, thread.0);
            self.town.oracle.violated(Violation::whole(Invariant::GuestMemory, text));
        }
    }
}
