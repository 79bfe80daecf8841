//! Runs a history: moves the process, does what the history says, shows the oracle what there is to see.
//!
//! Nothing in here decides what is right; it only brings together who acts and who judges.

use crate::audit::{self, Circumstances};
use crate::faults::{Boards, Coverage, Fault, Hook, Rates};
use crate::generate::BEGIN;
use crate::history::{Action, Configuration, Damage, HealthView, History, Leaving, Listener, Phase};
use crate::message::{Destination, Entry, Manner, Message, Number, Poison};
use crate::mirror::Mirror;
use crate::oracle::{Counts, Oracle, Record};
use crate::patience::{Patience, Sight};
use crate::rules::HOLD_MAX;
use crate::slots::{self, RecordState, Table, VM_ID};
use crate::town::{Mood, Remedy, SourceMood, Town};
use crate::violation::{Invariant, Violation};
use redeliver_core::cells::PublishedState;
use redeliver_core::units::Wall;
use simvoy::{
    Cluster, End, Event, Generation, Happening, Headers, Module, Moment, Plugin, Process, REQUESTS_MAX, Settings, Step,
    StreamId, ThreadId, Upstream,
};
use std::collections::BTreeMap;
use std::time::Duration;

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
    /// Traps that were injected.
    pub traps: u64,
    /// The largest guest's memory, in bytes.
    pub guest_bytes_max: usize,
    /// The message that the violation is about.
    pub concerned: Option<Record>,
    /// What was stored when it ended.
    pub table: Table,
    /// The last events, if they were kept.
    pub last_events: Vec<Event>,
    /// Warnings and errors of the filter's log.
    pub log: Vec<String>,
}

/// What a history is run with.
#[derive(Clone, Debug, Default)]
pub struct Means {
    /// The bug that a module with planted bugs is to have.
    pub planted: Option<String>,
    /// How many of the last events are kept in words.
    pub keep_events: usize,
    /// A trap at one host call.
    pub cut: Option<crate::faults::Cut>,
}

/// A full look at everything each so many events.
const AUDIT_EVERY: u64 = 1_000;
/// How often the states of destinations are looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// A body's next piece, or the end of it.
#[derive(Clone, Debug)]
enum Later {
    Piece(StreamId, Number, Vec<u8>, End),
    Trailers(StreamId, Number),
    HangUp(StreamId),
    /// The sender has paused for longer than it may be held.
    Overslept(StreamId, Number, Option<Generation>),
}

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
    coverage: Coverage,
    circumstances: Circumstances,
    planted: Option<String>,
    /// Somebody will read the log.
    is_read: bool,
    next_sample: Moment,
    steps: u64,
    audited_at: u64,
    down_since: BTreeMap<Destination, Moment>,
    patience: Patience,
    next_patience: Moment,
    beside: Option<Generation>,
    source_since: Moment,
    log: Vec<String>,
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
            coverage: Coverage::default(),
            circumstances: Circumstances::default(),
            planted: means.planted.clone(),
            is_read: means.keep_events > 0,
            next_sample: BEGIN,
            steps: 0,
            audited_at: 0,
            down_since: BTreeMap::new(),
            patience: Patience::default(),
            next_patience: BEGIN,
            beside: None,
            source_since: Moment(0),
            log: Vec::new(),
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
        for line in self.process.take_log() {
            // Who reads a history again wants its changes of state too.
            if line.level >= if self.is_read { 2 } else { 3 } {
                self.log.push(format!("{} thread {}: {}", line.at, line.thread.0, line.text));
            }
        }
        self.board.settle(&self.process, &mut self.coverage);
        let stalls = std::mem::take(&mut self.board.lock().stalls);
        for (thread, until) in stalls {
            self.town.oracle.stalled(thread, until);
            self.disturbed(until);
        }
    }

    fn show(&mut self, happening: Happening, now: Moment) {
        let wall = self.process.wall() / 1_000_000;
        match happening {
            Happening::Answered { stream, response } => {
                if let Some(number) = self.senders.remove(&stream) {
                    let is_forgiven = self.may_fail_silently(number);
                    self.town.oracle.answered(number, &response, wall, is_forgiven);
                    self.check_record(number);
                }
            }
            Happening::Called { head, .. } => self.town.oracle.called(&head),
            Happening::Reset { stream } => {
                self.senders.remove(&stream);
            }
            Happening::Told { vm, token } => self.town.oracle.told((vm, token)),
            Happening::Heard { vm, token, status } => self.town.oracle.heard((vm, token), status, now),
            Happening::Trapped { message, thread, vm } => {
                self.town.oracle.trapped(vm);
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
            Happening::Aborted(why) => self.town.oracle.violated(Violation::whole(Invariant::NoTrap, why)),
            Happening::Taken(generation) if Some(generation) == self.beside => {}
            Happening::Taken(generation) => {
                self.draining = self.newest.map(|old| (old, now + self.history.drain_time));
                self.newest = Some(generation);
            }
            Happening::Started { thread, vm } => {
                self.town.oracle.started(vm, thread);
                self.disturbed(now);
            }
            Happening::Refused(_) | Happening::Gone { .. } => {}
        }
    }

    /// A 503 of Envoy that is no failure of a receiver: there is no such cluster.
    fn may_fail_silently(&self, number: Number) -> bool {
        let cluster = self.town.oracle.records[&number].message.destination.cluster();
        self.process.cluster(&cluster).is_none() || self.circumstances.cells_were_damaged
    }

    /// I11: at the moment of the 202 the record is there, or the message has arrived already.
    fn check_record(&mut self, number: Number) {
        self.follow();
        let record = &self.town.oracle.records[&number];
        let Some((id, _)) = &record.acknowledged else { return };
        let has_arrived = !record.attempts.is_empty();
        if !has_arrived && !record.is_damaged && self.mirror.find(id).is_none() {
            let text = format!("acknowledged as {id}, and no slot can be read that holds it");
            self.town.oracle.violated(Violation::of(Invariant::Acknowledged, number, text));
        }
    }

    fn audit(&mut self) {
        self.audited_at = self.steps;
        self.follow();
        let table = self.process.with_data(|data| self.mirror.table(data));
        self.refresh_circumstances(&table);
        audit::look(&mut self.town.oracle, &table, &self.circumstances);
    }

    /// Brings the mirror up to date.
    fn follow(&mut self) {
        let mirror = &mut self.mirror;
        self.process.with_data(|data| mirror.follow(data));
    }

    fn refresh_circumstances(&mut self, table: &Table) {
        let used = table.used().count();
        let board = self.board.lock();
        self.circumstances.wall_millis = self.process.wall() / 1_000_000;
        self.circumstances.traps = board.traps;
        self.circumstances.long_stalls = self.coverage.struck.get(&Fault::LongStall).copied().unwrap_or(0);
        self.circumstances.poison_works = self.town.remedy == Remedy::None;
        self.circumstances.slots_lost = board.traps + self.coverage.struck.get(&Fault::LostHint).copied().unwrap_or(0);
        self.circumstances.used_max = self.circumstances.used_max.max(used);
    }

    /// What is looked at ten times a second: states of destinations, and whether anybody is stormed.
    fn sample(&mut self, now: Moment) {
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
                state,
            };
            if let Some(violation) = self.patience.look(destination, sight, now) {
                self.town.oracle.violated(violation);
            }
        }
        if self.next_patience <= now {
            self.next_patience = now + Duration::from_secs(1);
            self.check_patience(now);
        }
        self.follow();
        self.circumstances.used_max = self.circumstances.used_max.max(self.mirror.used_count());
    }

    /// I12, I13: what waits longer than its destination's trouble explains.
    fn check_patience(&mut self, now: Moment) {
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
        if free.is_empty() || self.circumstances.cells_were_damaged || self.process.live_vms().is_empty() {
            return;
        }
        let before = Wall((self.process.wall() / 1_000_000).saturating_sub(patience.as_millis() as u64));
        self.follow();
        let is_waiting_in_vain = |path: &str| {
            let number = Message::number_of(path)?;
            let record = self.town.oracle.records.get(&number)?;
            let (destination, poison) = (record.message.destination, record.message.poison);
            // A source that calls it unhealthy lets one message through each `suspect_after`, and no more.
            let last = self.town.oracle.last_attempts.get(&destination);
            let is_probed = last.is_some_and(|at| now - *at < patience) && self.town.source == SourceMood::Gloomy;
            let is_well = poison == Poison::None && !record.is_damaged && !is_probed;
            (is_well && free.contains(&destination)).then_some((number, destination))
        };
        let in_vain = self.mirror.waiting_since(before).find_map(is_waiting_in_vain);
        if let Some((number, destination)) = in_vain {
            let invariant = self.patience.invariant(destination, now);
            let text = format!("still waits though {} has been well for {patience:?}", destination.cluster());
            self.town.oracle.violated(Violation::of(invariant, number, text));
        }
    }

    /// I6: while Envoy has no healthy host for a cluster, the filter asks it a few times a second at most.
    fn check_storm(&mut self, destination: Destination, now: Moment) {
        let Some(since) = self.down_since.get(&destination) else { return };
        let asked = self
            .board
            .lock()
            .dispatches
            .get(&destination)
            .map_or(0, |lately| lately.iter().filter(|at| now - **at <= Duration::from_secs(1)).count());
        if now - *since > Duration::from_secs(10) && asked > STORM_MAX + self.history.rules.window.1 as usize {
            let text = format!(
                "{} was asked {asked} times within a second while it has no healthy host",
                destination.cluster()
            );
            self.town.oracle.violated(Violation::whole(Invariant::Paced, text));
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send { destination, worker, listener } => self.send(destination, worker, listener),
            Action::Mood(destination, mood) => {
                if !matches!(mood, Mood::Well(_)) {
                    self.strikes(Fault::Outage);
                }
                self.town.set_mood(destination, mood);
            }
            Action::Health(destination, view) => self.set_health(destination, view),
            Action::Rates(rates) => self.board.lock().rates = rates,
            Action::Doom(thread) => self.board.lock().doomed.push(self.thread(thread)),
            Action::DoomWorkers => {
                let workers = (1..=self.history.workers).map(ThreadId);
                self.board.lock().doomed.extend(workers);
            }
            Action::Ambush(ambush) => self.board.lock().ambush = Some(ambush),
            Action::LateTicks(thread, span) => {
                self.strikes(Fault::LateTicks);
                let now = self.process.now();
                self.disturbed(now + span);
                self.process.delay_ticks(self.thread(thread), now + span);
            }
            Action::Source(mood) => self.set_source(mood),
            Action::Beside => self.push_beside(),
            Action::NotBeside => {
                if let Some(beside) = self.beside.take() {
                    self.strikes(Fault::Push);
                    self.disturbed(self.process.now() + self.history.drain_time);
                    self.process.remove_beside(beside);
                }
            }
            Action::Freeze(thread, span) => self.board.lock().frozen = Some((self.thread(thread), span)),
            Action::Jump(millis) => self.jump(millis),
            Action::Damage(damage) => self.damage(damage),
            Action::Push(configuration) => {
                self.strikes(Fault::Push);
                self.push(configuration);
            }
            Action::Remove(destination) => {
                self.strikes(Fault::ClusterGone);
                self.process.remove_cluster(&destination.cluster());
            }
            Action::Restore(destination) => {
                self.down_since.remove(&destination);
                self.process.set_cluster(&destination.cluster(), Cluster::default());
            }
            Action::Breaker(destination, most) => {
                self.strikes(Fault::Breaker);
                self.process.with_cluster(&destination.cluster(), |cluster| cluster.requests_max = most);
            }
            Action::Leaving(leaving) => {
                self.strikes(Fault::Leaving);
                self.process.set_leaving(leaving == Leaving::Yes);
            }
            Action::Cure => self.town.remedy = Remedy::Found,
            Action::Heal => self.heal(),
        }
    }

    fn thread(&self, number: u32) -> ThreadId {
        ThreadId(number % (self.history.workers + 1))
    }

    /// A fault from outside strikes, and meets whatever is there.
    fn strikes(&mut self, fault: Fault) {
        self.coverage.struck(fault);
        let table = Table::read(&self.process);
        for state in RecordState::ALL {
            if table.count(state) > 0 {
                self.coverage.met(fault, state);
            }
        }
    }

    fn set_health(&mut self, destination: Destination, view: HealthView) {
        self.strikes(Fault::Health);
        let healthy = match view {
            HealthView::Healthy => 1,
            HealthView::Unhealthy => 0,
        };
        self.process.with_cluster(&destination.cluster(), |cluster| cluster.healthy = healthy);
        match view {
            HealthView::Healthy => self.down_since.remove(&destination),
            HealthView::Unhealthy => {
                let now = self.process.now();
                Some(*self.down_since.entry(destination).or_insert(now))
            }
        };
    }

    fn jump(&mut self, millis: i64) {
        self.strikes(Fault::ClockJump);
        self.disturbed(self.process.now());
        self.town.oracle.jumped_at = self.process.now();
        self.process.jump_wall(i128::from(millis) * 1_000_000);
        if millis >= LETTERS_TTL_MILLIS {
            self.circumstances.letters_may_be_gone = true;
        }
    }

    fn set_source(&mut self, mood: SourceMood) {
        if mood != SourceMood::Honest {
            self.strikes(Fault::Source);
        }
        // Silence is no word: only a source that lies, or did, starts the wait anew.
        if [mood, self.town.source].contains(&SourceMood::Gloomy) {
            self.source_since = self.process.now();
        }
        self.town.source = mood;
        let (listener, admin) = match mood {
            SourceMood::Honest => (Upstream::HealthListener, Upstream::Admin),
            SourceMood::Silent | SourceMood::Gloomy => (Upstream::Receiver, Upstream::Receiver),
        };
        self.process.set_cluster("redeliver_health", Cluster::internal(listener));
        self.process.set_cluster("admin_api", Cluster::internal(admin));
    }

    /// A second listener, with a configuration of its own: it rules while it is there.
    fn push_beside(&mut self) {
        if self.beside.is_some() {
            return;
        }
        self.strikes(Fault::Push);
        self.disturbed(self.process.now());
        let rules = crate::rules::Rules { tick: self.history.rules.tick * 3, ..self.history.rules.clone() };
        let plugin = self.plugin(rules.configuration());
        self.beside = Some(self.process.push_beside(plugin));
    }

    fn plugin(&self, configuration: String) -> Plugin {
        let mut plugin = Plugin::new(VM_ID, configuration);
        plugin.environment.extend(self.planted.clone().map(|name| ("REDELIVER_PLANTED".to_owned(), name)));
        plugin
    }

    fn push(&mut self, configuration: Configuration) {
        self.disturbed(self.process.now());
        let rules = &self.history.rules;
        let text = match configuration {
            Configuration::Own => rules.configuration(),
            Configuration::Slower => {
                let slower = crate::rules::Rules { tick: rules.tick * 2, ..rules.clone() };
                slower.configuration()
            }
            Configuration::Smaller => {
                let smaller = crate::rules::Rules { messages_max: (rules.messages_max / 2).max(1), ..rules.clone() };
                smaller.configuration()
            }
            Configuration::Faulty => r#"{"redelivery": {"timeout": "0s"}}"#.to_owned(),
        };
        let plugin = self.plugin(text);
        match configuration {
            // Envoy keeps the listener that it has; a real one would not even drain it.
            Configuration::Faulty => self.process.try_push(plugin),
            Configuration::Own | Configuration::Slower | Configuration::Smaller => {
                self.process.push(Some(plugin));
            }
        }
    }

    /// The rest of the history is calm.
    fn heal(&mut self) {
        self.board.lock().rates = Rates { turn: 10_000, ..Rates::default() };
        {
            let mut board = self.board.lock();
            board.doomed.clear();
            (board.frozen, board.ambush) = (None, None);
        }
        self.process.set_leaving(false);
        self.set_source(SourceMood::Honest);
        self.perform(Action::NotBeside);
        self.town.remedy = self.history.remedy;
        for n in 0..self.history.rules.destinations {
            let destination = Destination(n);
            self.process.set_cluster(&destination.cluster(), Cluster::default());
            self.town.set_mood(destination, Mood::Well(Duration::from_millis(5)));
        }
        self.down_since.clear();
        self.later.retain(|_, later| !matches!(later, Later::HangUp(_)));
        let rest: Vec<_> = self
            .history
            .actions
            .drain(self.next_action..)
            .filter(|(_, action)| matches!(action, Action::Send { .. }))
            .collect();
        self.history.actions.extend(rest);
        // A worker whose VM is dead gets it back with its next stream.
        for worker in 0..self.history.workers {
            for destination in 0..self.history.rules.destinations {
                self.send(Destination(destination), worker, Listener::Newest);
            }
        }
    }

    fn send(&mut self, destination: Destination, worker: u32, listener: Listener) {
        let now = self.process.now();
        let worker = ThreadId(1 + worker % self.history.workers);
        let number = Number(self.numbers);
        self.numbers += 1;
        let message = Message::new(self.history.seed, number, destination, self.history.rules.body_max);
        let old = self.draining.filter(|(_, drained)| *drained > now).map(|(old, _)| old);
        let generation = match listener {
            Listener::Draining => old.or(self.newest),
            Listener::Newest => self.newest,
        };
        let end = if message.body.is_empty() { End::Last } else { End::More };
        let stream = match message.entry {
            Entry::FromSender => self.process.open(worker, generation, message.headers.clone(), end),
            Entry::FromFilter => self.process.open_as_is(worker, generation, message.headers.clone(), end),
        };
        self.senders.insert(stream, number);
        self.plan_body(stream, generation, &message, now);
        let is_empty = message.body.is_empty();
        self.town.oracle.sends(message, self.process.wall() / 1_000_000);
        if is_empty {
            self.town.oracle.sent_whole(number);
        }
    }

    /// Pieces of a body, spread over time as the sender's manner is.
    fn plan_body(&mut self, stream: StreamId, generation: Option<Generation>, message: &Message, now: Moment) {
        if message.body.is_empty() {
            return;
        }
        let (count, pause) = match message.manner {
            Manner::Whole => (1, Duration::ZERO),
            Manner::Pieces(count, pause) | Manner::Trailers(count, pause) | Manner::HangsUp(count, pause) => {
                (count, pause)
            }
        };
        let size = message.body.len().div_ceil(count as usize).max(1);
        let chunks: Vec<Vec<u8>> = message.body.chunks(size).map(<[u8]>::to_vec).collect();
        let last = chunks.len() - 1;
        let mut at = now;
        for (place, bytes) in chunks.into_iter().enumerate() {
            let end =
                if place == last && !matches!(message.manner, Manner::Trailers(..)) { End::Last } else { End::More };
            let later = match message.manner {
                Manner::HangsUp(..) if place == last => Later::HangUp(stream),
                Manner::Whole | Manner::Pieces(..) | Manner::Trailers(..) | Manner::HangsUp(..) => {
                    Later::Piece(stream, message.number, bytes, end)
                }
            };
            self.add_later(at, later);
            at = at + pause;
            if place < last && pause > HOLD_MAX + Duration::from_millis(500) {
                // Before the next piece, which is of the same moment.
                self.add_later(at, Later::Overslept(stream, message.number, generation));
            }
        }
        if matches!(message.manner, Manner::Trailers(..)) {
            self.add_later(at, Later::Trailers(stream, message.number));
        }
    }

    fn add_later(&mut self, at: Moment, later: Later) {
        self.laters += 1;
        self.later.insert((at, self.laters), later);
    }

    fn send_later(&mut self, later: Later) {
        match later {
            Later::Piece(stream, number, bytes, end) => {
                if end == End::Last {
                    self.town.oracle.sent_whole(number);
                }
                self.process.send_body(stream, bytes, end);
            }
            Later::Trailers(stream, number) => {
                self.town.oracle.sent_whole(number);
                self.process.send_trailers(stream, Headers::of(&[("x-checksum", "1")]));
            }
            Later::Overslept(stream, number, generation) => {
                let is_excused = self.circumstances.cells_were_damaged
                    || self.town.oracle.has_stalled()
                    // Envoy closes the connections of a listener that has drained.
                    || generation != self.newest
                    || self.coverage.struck.contains_key(&Fault::LateTicks);
                if self.senders.contains_key(&stream) && !is_excused {
                    self.town.oracle.goes_on_after_pause(number);
                }
            }
            Later::HangUp(stream) => {
                self.senders.remove(&stream);
                self.process.disconnect(stream);
            }
        }
    }

    /// Damages a value of shared memory, and tells the oracle which message it was.
    fn damage(&mut self, damage: Damage) {
        let table = Table::read(&self.process);
        let keys = slots::keys();
        let (fault, which) = match damage {
            Damage::FlipCell(which) => return self.damage_cell(which),
            Damage::FutureWorker => return self.overwrite_cell(&keys.worker_alive(), &u64::MAX.to_le_bytes()),
            Damage::Destinations => return self.overwrite_cell(&keys.destinations(), b"garbage"),
            Damage::FlipHead(which) | Damage::FlipLarge(which) => (Fault::FlippedBit, which),
            Damage::CutHead(which) | Damage::CutLarge(which) => (Fault::CutValue, which),
            Damage::Swap(which) => (Fault::SwappedValue, which),
        };
        let slots = aims(&table, which);
        let Some((slot, state)) = slots.get(which as usize % slots.len().max(1)) else { return };
        let index = slot.index;
        self.coverage.struck(fault);
        self.coverage.met(fault, *state);
        let mut hit = vec![slot.large.clone()];
        let (key, other) = match damage {
            Damage::FlipHead(_) | Damage::CutHead(_) => (keys.head(index), None),
            Damage::FlipLarge(_)
            | Damage::CutLarge(_)
            | Damage::FlipCell(_)
            | Damage::FutureWorker
            | Damage::Destinations => (keys.large(index), None),
            Damage::Swap(_) => {
                let other = &table.slots[(which as usize + 1) % table.slots.len()];
                hit.push(other.large.clone());
                (keys.large(index), Some(keys.large(other.index)))
            }
        };
        self.excuse(&hit);
        self.spoil(&key, other.as_deref(), damage, which);
    }

    fn excuse(&mut self, hit: &[slots::Large]) {
        let paths: Vec<String> = hit
            .iter()
            .filter_map(|large| match large {
                slots::Large::Message(_, path) => Some(path.clone()),
                slots::Large::Settled | slots::Large::Unreadable => None,
            })
            .collect();
        for number in paths.iter().filter_map(|path| Message::number_of(path)) {
            if let Some(record) = self.town.oracle.records.get_mut(&number) {
                record.is_damaged = true;
            }
        }
        // A head that is lost may be anybody's: the books are counted anew.
        self.damaged();
    }

    fn spoil(&mut self, key: &str, other: Option<&str>, damage: Damage, which: u32) {
        let Some(mut value) = self.process.value(VM_ID, key.as_bytes()).map(|value| value.bytes) else { return };
        match (damage, other) {
            (Damage::Swap(_), Some(other)) => {
                let theirs = self.process.value(VM_ID, other.as_bytes()).map(|value| value.bytes).unwrap_or_default();
                self.process.overwrite(VM_ID, other.as_bytes(), &value);
                value = theirs;
            }
            (Damage::CutHead(_) | Damage::CutLarge(_), _) => value.truncate(which as usize % value.len().max(1)),
            (_, _) => flip(&mut value, which),
        }
        self.process.overwrite(VM_ID, key.as_bytes(), &value);
    }

    fn overwrite_cell(&mut self, key: &str, bytes: &[u8]) {
        self.strikes(Fault::FlippedBit);
        self.damaged();
        self.process.overwrite(VM_ID, key.as_bytes(), bytes);
    }

    /// Books, leases, tables: everything that is no slot.
    fn damage_cell(&mut self, which: u32) {
        let cells: Vec<Vec<u8>> = self.process.with_data(|data| {
            let is_cell = |key: &[u8]| !matches!(key.get(10), Some(b'h' | b'm')) || key.len() != 19;
            data.entries(VM_ID).map(|(key, _)| key.to_vec()).filter(|key| is_cell(key)).collect()
        });
        let Some(key) = cells.get(which as usize % cells.len().max(1)) else { return };
        self.strikes(Fault::FlippedBit);
        self.damaged();
        let Some(mut value) = self.process.value(VM_ID, key).map(|value| value.bytes) else { return };
        flip(&mut value, which);
        let key = key.clone();
        self.process.overwrite(VM_ID, &key, &value);
    }

    /// Something that no destination is to blame for, until this moment.
    fn disturbed(&mut self, until: Moment) {
        self.patience.disturbed(until);
        self.town.oracle.disturbed_at = until;
    }

    /// Books, tables or leases may be wrong from now on, until somebody counts anew.
    fn damaged(&mut self) {
        self.circumstances.cells_were_damaged = true;
        self.town.oracle.cells_were_damaged = true;
        self.disturbed(self.process.now());
    }

    fn judge_rest(&mut self) {
        let table = Table::read(&self.process);
        self.refresh_circumstances(&table);
        self.check_leftovers();
        let process = &self.process;
        audit::at_rest(&mut self.town.oracle, &table, &self.circumstances, |name| process.metric(name));
    }

    /// I8: a configuration that has drained leaves nothing behind in the VM that goes on.
    fn check_leftovers(&mut self) {
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

    fn outcome(self) -> Outcome {
        let violation = self.town.oracle.violation.clone();
        let number = violation.as_ref().and_then(|violation| violation.number);
        Outcome {
            concerned: number.and_then(|number| self.town.oracle.records.get(&number).cloned()),
            violation,
            hash: self.process.trace_hash(),
            events: self.process.trace_count(),
            simulated: self.process.now() - BEGIN,
            counts: self.town.oracle.counts,
            traps: self.board.lock().traps,
            guest_bytes_max: self.process.memory_bytes_max(),
            table: Table::read(&self.process),
            last_events: self.process.last_events(),
            coverage: self.coverage,
            log: self.log,
        }
    }
}

/// The word of a source that lied has no weight any more after so long: three intervals and a look.
const SOURCE_AGES: Duration = Duration::from_secs(6);

/// Slots that a fault of memory may be aimed at: all in one state, so that rare states are met too.
fn aims(table: &Table, which: u32) -> Vec<(&slots::Slot, RecordState)> {
    let all: Vec<_> = table.slots.iter().filter_map(|slot| Some((slot, RecordState::of(slot.head?.state)))).collect();
    let wanted = RecordState::ALL[which as usize / 7 % RecordState::ALL.len()];
    let chosen: Vec<_> = all.iter().copied().filter(|(_, state)| *state == wanted).collect();
    if chosen.is_empty() { all } else { chosen }
}

/// A destination that is down is asked by one probe at a time, each after a backoff; a lying health source may let a few
/// more through. More than this in a second is a loop.
const STORM_MAX: usize = 8;

/// `dead_letter.ttl`: 168 hours.
const LETTERS_TTL_MILLIS: i64 = 168 * 3_600_000;

fn flip(value: &mut [u8], which: u32) {
    let bits = value.len() * 8;
    if bits > 0 {
        let bit = which as usize % bits;
        value[bit / 8] ^= 1 << (bit % 8);
    }
}
