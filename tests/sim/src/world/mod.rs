//! Runs a history: moves the process, does what the history says, shows the oracle what there is to see.
//!
//! Nothing in here decides what is right; it only brings together who acts and who judges.

mod actions;
mod damage;
mod endings;
mod keys;
mod looks;
mod rulers;
mod senders;
mod windows;

use crate::audit::Circumstances;
use crate::faults::Coverage;
use crate::generate::BEGIN;
use crate::history::{Configuration, History, Phase};
use crate::hook::{Boards, Hook, Work};
use crate::message::{Destination, Number};
use crate::mirror::Mirror;
use crate::oracle::{Counts, Delay, Oracle, Record};
use crate::patience::Patience;
use crate::receiving::calls::plain;
use crate::receiving::through::LISTENER;
use crate::slots::Table;
use crate::town::Town;
use crate::violation::{Invariant, Violation};
use rulers::{Rule, Rulers};
use senders::Later;
use simvoy::{Cluster, Event, Generation, Happening, Module, Moment, Process, Settings, Step, StreamId, Upstream};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use windows::Windows;

pub use windows::LATELY;

/// How a history ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first thing that went wrong.
    pub violation: Option<Violation>,
    /// The hash of everything that happened.
    pub hash: u64,
    /// How many events that is.
    pub events: u64,
    /// How long it lasted, simulated.
    pub simulated: Duration,
    /// Which faults struck, and what they met.
    pub coverage: Coverage,
    /// Messages.
    pub counts: Counts,
    /// How long redelivered messages took, by destination.
    pub delays: BTreeMap<Destination, Delay>,
    /// Traps that were injected.
    pub traps: u64,
    /// The largest guest's memory, in bytes.
    pub guest_bytes_max: usize,
    /// All messages, with what became of them.
    pub records: BTreeMap<Number, Record>,
    /// What was stored when it ended.
    pub table: Table,
    /// The last events, if they were kept.
    pub last_events: Vec<Event>,
    /// Warnings and errors of the filter's log.
    pub log: Vec<String>,
    /// What the history had of what not all have, by name.
    pub uses: Vec<&'static str>,
}

/// What a history is run with.
#[derive(Clone, Debug, Default)]
pub struct Means {
    /// The bug that a module with planted bugs is to have.
    pub planted: Option<String>,
    /// How many of the last events are kept in words.
    pub keep_events: usize,
    /// A trap at one host call.
    pub cut: Option<crate::hook::Cut>,
}

/// A full look at everything each so many events.
const AUDIT_EVERY: u64 = 1_000;
/// How often the states of destinations are looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// One run.
pub struct World {
    process: Process,
    mirror: Mirror,
    town: Town,
    board: Boards,
    history: History,
    next_action: usize,
    newest: Option<Generation>,
    draining: Option<(Generation, Moment)>,
    senders: BTreeMap<StreamId, Number>,
    later: BTreeMap<(Moment, u64), Later>,
    laters: u64,
    numbers: u32,
    /// The smallest `store.max_messages` that was ever pushed.
    messages_max: u32,
    coverage: Coverage,
    circumstances: Circumstances,
    planted: Option<String>,
    /// Somebody will read the log.
    is_read: bool,
    next_sample: Moment,
    sampled_wall_millis: u64,
    steps: u64,
    audited_at: u64,
    /// The last moment at which time went on, and the number of that step.
    moved: (Moment, u64),
    down_since: BTreeMap<Destination, Moment>,
    patience: Patience,
    windows: Windows,
    next_patience: Moment,
    /// The second listener, while it is there.
    beside: Option<Generation>,
    /// All second listeners that there ever were: a main thread that stands still takes one that is gone already.
    besides: BTreeSet<Generation>,
    source_since: Moment,
    log: Vec<String>,
    /// Configurations that have ruled, and when one last did that had not before.
    ruled: BTreeSet<String>,
    ruled_at: Moment,
    /// Which one does.
    rulers: Rulers,
}

/// Runs a history to its end, or to the first violation.
#[must_use]
pub fn run(module: &Module, history: &History, means: &Means) -> Outcome {
    let mut world = World::new(module, history.clone(), means);
    world.run();
    world.outcome()
}

impl World {
    /// The world at the history's beginning, with everything configured.
    #[must_use]
    pub fn new(module: &Module, history: History, means: &Means) -> Self {
        let settings = Settings {
            workers: history.workers,
            seed: history.seed,
            drain_time: history.drain_time,
            keep_events: means.keep_events,
            ..Settings::default()
        };
        let mut process = Process::new(module, settings);
        let board = Boards::default();
        process.set_chaos(Box::new(Hook::new(board.clone(), history.seed)));
        process.set_cluster("redeliver_health", Cluster::internal(Upstream::HealthListener));
        process.set_cluster("admin_api", Cluster::internal(Upstream::Admin));
        for n in 0..history.rules.destinations {
            process.set_cluster(&Destination(n).cluster(), Cluster::default());
        }
        if let Some(through) = history.rules.receiving.through {
            process.set_cluster(LISTENER, Cluster::internal(Upstream::Listener(through.chain)));
        }
        process.set_routes(history.rules.routes());
        let town = Town::new(history.seed, history.rules.destinations, Oracle::new(history.rules.clone()));
        board.lock().cut = means.cut;
        let mut world = Self {
            process,
            mirror: Mirror::default(),
            town,
            board,
            next_action: 0,
            newest: None,
            draining: None,
            senders: BTreeMap::new(),
            later: BTreeMap::new(),
            laters: 0,
            numbers: 0,
            messages_max: history.rules.messages_max,
            coverage: Coverage::default(),
            circumstances: Circumstances::default(),
            planted: means.planted.clone(),
            is_read: means.keep_events > 0,
            next_sample: BEGIN,
            sampled_wall_millis: 0,
            steps: 0,
            audited_at: 0,
            moved: (Moment(0), 0),
            down_since: BTreeMap::new(),
            patience: Patience::default(),
            windows: Windows::default(),
            next_patience: BEGIN,
            beside: None,
            besides: BTreeSet::new(),
            source_since: Moment(0),
            log: Vec::new(),
            ruled: BTreeSet::new(),
            ruled_at: Moment(0),
            rulers: Rulers::default(),
            history,
        };
        world.push(Configuration::Own);
        world
    }

    fn run(&mut self) {
        let limit = self.history.end;
        while self.town.oracle.violation.is_none() && self.process.now() < limit {
            self.turn(limit);
        }
        if self.town.oracle.violation.is_none() {
            self.audit();
            if self.history.phase == Phase::Liveness {
                self.judge_rest();
            }
        }
    }

    /// One step of the process, and what is due before the next.
    fn turn(&mut self, limit: Moment) {
        let limit = limit.min(self.next_due());
        self.town.wall_millis = self.process.wall() / 1_000_000;
        let step = self.process.step(&mut self.town, limit);
        self.see();
        if let Step::Until(_) = step {
            self.act();
        }
        self.steps += 1;
        self.check_progress();
        if self.steps - self.audited_at >= AUDIT_EVERY {
            self.audit();
        }
    }

    fn next_due(&self) -> Moment {
        let action = self.history.actions.get(self.next_action).map_or(Moment::NEVER, |(at, _)| *at);
        let later = self.later.first_key_value().map_or(Moment::NEVER, |((at, _), _)| *at);
        action.min(later).min(self.next_sample)
    }

    /// Everything that is due at this moment.
    fn act(&mut self) {
        let now = self.process.now();
        while let Some((at, action)) = self.history.actions.get(self.next_action).cloned() {
            if at > now {
                break;
            }
            self.next_action += 1;
            self.perform(action);
        }
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let later = entry.remove();
            self.send_later(later);
        }
        if self.next_sample <= now {
            self.next_sample = now + SAMPLE;
            self.sample(now);
        }
    }

    /// Shows the oracle what has happened.
    fn see(&mut self) {
        let now = self.process.now();
        for happening in self.process.take_happenings() {
            self.show(happening, now);
        }
        self.judge_turns();
        self.judge_succession();
        for line in self.process.take_log() {
            // Who reads a history again wants its changes of state too.
            if line.level >= if self.is_read { 2 } else { 3 } {
                self.log.push(format!("{} thread {}: {}", line.at, line.thread.0, line.text));
            }
        }
        self.board.settle(&self.process, &mut self.coverage);
        let stalls = std::mem::take(&mut self.board.lock().stalls);
        for standstill in stalls {
            self.town.oracle.stalled(&standstill);
            if standstill.work == Work::Redelivery {
                self.town.oracle.interrupted();
            }
            self.disturbed(standstill.until);
        }
    }

    fn show(&mut self, happening: Happening, now: Moment) {
        let wall = self.process.wall() / 1_000_000;
        match happening {
            Happening::Answered { stream, response } => {
                if let Some(number) = self.senders.remove(&stream) {
                    let view = self.view(number);
                    let is_call = self.town.oracle.is_call(number);
                    let response = if is_call { plain(&response) } else { response };
                    self.town.oracle.answered(number, &response, wall, view);
                    self.judge_keys(number, &response, view);
                    self.check_record(number);
                }
            }
            Happening::Called { vm, token, head } => {
                self.town.oracle.called(&head);
                self.note_claim((vm, token), &head);
            }
            Happening::Reset { stream } => {
                self.senders.remove(&stream);
            }
            Happening::Told { vm, token } => self.town.oracle.told((vm, token), now, wall),
            Happening::Heard { vm, token, status } => {
                self.town.oracle.heard((vm, token), status, now);
                self.town.oracle.took((vm, token), wall);
                self.judge_ending((vm, token));
            }
            Happening::Trapped { message, thread, vm } => {
                self.town.oracle.trapped(vm, now);
                self.town.oracle.interrupted();
                self.disturbed(now);
                if !message.contains("injected trap") {
                    let (export, cause) = (message.lines().last().unwrap_or_default(), "wasm trap");
                    let text = format!("thread {}: {cause} ({})", thread.0, export.trim());
                    self.town.oracle.violated(Violation::whole(Invariant::NoTrap, text));
                }
            }
            Happening::DataGone(_) => {
                let text = "the shared data is gone though a listener has the filter";
                self.town.oracle.violated(Violation::whole(Invariant::NothingLost, text));
            }
            Happening::Aborted(why) | Happening::NotMade { message: why, .. } => {
                self.town.oracle.violated(Violation::whole(Invariant::NoTrap, why));
            }
            Happening::Taken(generation) if self.besides.contains(&generation) => {}
            Happening::Taken(generation) => {
                self.draining = self.newest.map(|old| (old, now + self.history.drain_time));
                self.newest = Some(generation);
            }
            Happening::Started { thread, vm } => {
                self.town.oracle.started(vm, thread);
                self.disturbed(now);
            }
            Happening::Configured { generation, .. } => self.note_rule(|rulers| rulers.configured(generation)),
            Happening::Gone { thread, generation } => self.note_rule(|rulers| rulers.gone(thread, generation)),
            Happening::Refused(_) => {}
        }
    }

    fn note_rule(&mut self, happens: impl FnOnce(&mut Rulers) -> Rule) {
        let oracle = &mut self.town.oracle;
        match happens(&mut self.rulers) {
            Rule::Changes => oracle.configured_at = oracle.configured_at.max(self.process.now()),
            Rule::Stays => {}
        }
    }

    fn outcome(self) -> Outcome {
        let violation = self.town.oracle.violation.clone();
        Outcome {
            violation,
            hash: self.process.trace_hash(),
            events: self.process.trace_count(),
            simulated: self.process.now() - BEGIN,
            counts: self.town.oracle.counts,
            delays: self.town.oracle.delays,
            records: self.town.oracle.records,
            traps: self.board.lock().traps,
            guest_bytes_max: self.process.memory_bytes_max(),
            table: Table::read(&self.process),
            last_events: self.process.last_events(),
            uses: self.history.rules.receiving.names(),
            coverage: self.coverage,
            log: self.log,
        }
    }
}
