//! What a history does to the process, action by action.

use super::World;
use super::senders::Later;
use crate::faults::{Fault, Rates};
use crate::history::{Action, Configuration, HealthView, Leaving, Listener, Thread};
use crate::message::{Destination, Number};
use crate::rules::Source;
use crate::slots::VM_ID;
use crate::town::{Mood, Remedy, SourceMood};
use simvoy::{Cluster, HealthChecks, Moment, Plugin, ThreadId, Upstream};

/// `dead_letter.ttl`: 168 hours.
const LETTERS_TTL_MILLIS: i64 = 168 * 3_600_000;

impl World {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Send { destination, worker, listener } => self.send(destination, worker, listener),
            Action::Retry { pick, which, twist, worker, listener } => self.retry(pick, which, twist, worker, listener),
            Action::Mood(destination, mood) => {
                if !matches!(mood, Mood::Well(_)) {
                    self.strikes(Fault::Outage);
                }
                self.town.set_mood(destination, mood);
            }
            Action::Health(destination, view) => self.set_health(destination, view),
            Action::Rates(rates) => self.board.lock().rates = rates,
            Action::Doom(thread) => {
                let thread = self.thread(thread);
                self.board.lock().doomed.push(thread);
            }
            Action::DoomWorkers => {
                let workers = (1..=self.history.workers).map(ThreadId);
                self.board.lock().doomed.extend(workers);
            }
            Action::Ambush(ambush) => self.board.lock().ambush = Some(ambush),
            Action::LateTicks(thread, span) => {
                self.strikes(Fault::LateTicks);
                let now = self.process.now();
                let thread = self.thread(thread);
                self.disturbed(now + span);
                self.town.oracle.thread_troubled(thread, now + span);
                self.process.delay_ticks(thread, now + span);
            }
            Action::Source(mood) => self.set_source(mood),
            Action::Beside => self.push_beside(),
            Action::NotBeside => {
                if let Some(beside) = self.beside.take() {
                    self.strikes(Fault::Push);
                    let gone = self.process.now() + self.history.drain_time;
                    self.disturbed(gone);
                    self.town.oracle.configured_at = gone;
                    self.process.remove_beside(beside);
                }
            }
            Action::Freeze(thread, span) => {
                let thread = self.thread(thread);
                self.board.lock().frozen = Some((thread, span));
            }
            Action::Jump(millis) => self.jump(millis),
            Action::Damage(damage) => self.damage(damage),
            Action::Push(configuration) => {
                self.strikes(Fault::Push);
                self.push(configuration);
            }
            Action::Remove(destination) => {
                self.strikes(Fault::ClusterGone);
                self.process.remove_cluster(&destination.cluster());
                self.town.oracle.removed(destination);
                self.patience.unsound(destination, self.process.now());
            }
            Action::Restore(destination) => {
                self.down_since.remove(&destination);
                self.process.set_cluster(&destination.cluster(), Cluster::default());
                self.town.oracle.restored(destination, self.process.now());
            }
            Action::Breaker(destination, most) => {
                self.strikes(Fault::Breaker);
                self.process.with_cluster(&destination.cluster(), |cluster| cluster.requests_max = most);
            }
            Action::Leaving(leaving) => {
                self.strikes(Fault::Leaving);
                self.process.set_health_checks(if leaving == Leaving::Yes {
                    HealthChecks::Failed
                } else {
                    HealthChecks::Answered
                });
            }
            Action::Cure => self.town.remedy = Remedy::Found,
            Action::Heal => self.heal(),
        }
    }

    fn thread(&self, thread: Thread) -> ThreadId {
        match thread {
            Thread::Number(number) => ThreadId(number % (self.history.workers + 1)),
            Thread::Leader(destination) => self.town.oracle.last_sender(destination).unwrap_or(ThreadId(0)),
        }
    }

    /// A fault from outside strikes, and meets whatever is there.
    pub(super) fn strikes(&mut self, fault: Fault) {
        self.follow();
        self.coverage.struck(fault);
        for state in self.mirror.states() {
            self.coverage.met(fault, state);
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
                self.patience.unsound(destination, now);
                Some(*self.down_since.entry(destination).or_insert(now))
            }
        };
    }

    fn jump(&mut self, millis: i64) {
        self.strikes(Fault::ClockJump);
        self.disturbed(self.process.now());
        self.town.oracle.clock_jumps(millis, self.process.now(), self.process.wall() / 1_000_000);
        self.process.jump_wall(i128::from(millis) * 1_000_000);
        if millis >= LETTERS_TTL_MILLIS {
            self.town.oracle.letters_gone(Number(self.numbers));
        }
    }

    fn set_source(&mut self, mood: SourceMood) {
        // Who asks no source does not mind it.
        if self.history.rules.source == Source::Passive {
            return;
        }
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
        self.town.oracle.configured_at = self.process.now();
        let rules = crate::rules::Rules { tick: self.history.rules.tick * 3, ..self.history.rules.clone() };
        let text = rules.configuration();
        let plugin = self.plugin(text.clone());
        let beside = self.process.push_beside(plugin);
        self.rulers.pushed(beside, text);
        self.beside = Some(beside);
        self.besides.insert(beside);
    }

    fn plugin(&self, configuration: String) -> Plugin {
        let mut plugin = Plugin::new(VM_ID, configuration);
        plugin.environment.extend(self.planted.clone().map(|name| ("REDELIVER_PLANTED".to_owned(), name)));
        plugin
    }

    pub(super) fn push(&mut self, configuration: Configuration) {
        self.disturbed(self.process.now());
        self.town.oracle.configured_at = self.process.now();
        let rules = &self.history.rules;
        let text = match configuration {
            Configuration::Own => rules.configuration(),
            Configuration::Slower => {
                let slower = crate::rules::Rules { tick: rules.tick * 2, ..rules.clone() };
                slower.configuration()
            }
            Configuration::Smaller => {
                let smaller = crate::rules::Rules { messages_max: (rules.messages_max / 2).max(1), ..rules.clone() };
                self.messages_max = smaller.messages_max;
                smaller.configuration()
            }
            Configuration::Faulty => r#"{"redelivery": {"timeout": "0s"}}"#.to_owned(),
        };
        if configuration != Configuration::Faulty && self.ruled.insert(text.clone()) {
            self.ruled_at = self.process.now();
        }
        let plugin = self.plugin(text.clone());
        match configuration {
            // Envoy keeps the listener that it has; a real one would not even drain it.
            Configuration::Faulty => self.process.try_push(plugin),
            Configuration::Own | Configuration::Slower | Configuration::Smaller => {
                let generation = self.process.push(Some(plugin));
                self.rulers.pushed(generation, text);
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
        self.process.set_health_checks(HealthChecks::Answered);
        self.set_source(SourceMood::Honest);
        self.perform(Action::NotBeside);
        self.town.remedy = self.history.remedy;
        for n in 0..self.history.rules.destinations {
            let destination = Destination(n);
            self.process.set_cluster(&destination.cluster(), Cluster::default());
            self.town.oracle.restored(destination, self.process.now());
            self.town.set_mood(destination, Mood::WELL);
        }
        self.down_since.clear();
        self.later.retain(|_, later| !matches!(later, Later::HangUp(_)));
        let rest: Vec<_> = self
            .history
            .actions
            .drain(self.next_action..)
            .filter(|(_, action)| matches!(action, Action::Send { .. } | Action::Retry { .. }))
            .collect();
        self.history.actions.extend(rest);
        // A worker whose VM is dead gets it back with its next stream.
        for worker in 0..self.history.workers {
            for destination in 0..self.history.rules.destinations {
                self.send(Destination(destination), worker, Listener::Newest);
            }
        }
    }

    /// Something that no destination is to blame for, until this moment.
    pub(super) fn disturbed(&mut self, until: Moment) {
        self.patience.disturbed(until);
        self.town.oracle.disturbed_at = self.town.oracle.disturbed_at.max(until);
    }
}
