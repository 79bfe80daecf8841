//! All that one VM does for messages that are stored: leads destinations, sends, settles, sweeps, keeps house.
//!
//! ```text
//! tick ─┬─ rule: is my configuration the newest?          (this file)
//!       ├─ look around: destinations, leases, trouble     (leading)
//!       ├─ sweep: a few slots, round and round            (sweep)
//!       ├─ each destination that I lead: hints, state     (leading)  ──> send what is due   (sending)
//!       ├─ ask the health source, if I hold that lease    (polling)
//!       └─ housekeeping, if I hold its lease              (housekeeping)
//! answer ── settle, then send the next at once            (sending)
//! ```
//! Any VM may die at any host call; whatever it leaves is found by the next tick of another. Never logs, sends or counts
//! by itself: it answers with effects.

mod calls;
mod housekeeping;
mod leading;
pub mod looking;
mod polling;
pub mod sending;
mod sweep;
mod tenancy;

use crate::cells::{Evidence, Lease, PublishedState, Rule, VmId};
use crate::classify::Sign;
use crate::codec::Damage;
use crate::config::{Config, Policy};
use crate::courier::Courier;
use crate::destination::Backlog;
use crate::effect::{Call, Effect, Level};
use crate::keys::Keys;
use crate::live::{LiveCell, LiveRequest, LiveTraffic};
use crate::memory::{Cas, Change, Expect, SharedMemory, update};
use crate::random::Random;
use crate::slot::DestinationIndex;
use crate::store::{Now, Store};
use crate::units::{ClusterName, Millis, Monotonic};
use housekeeping::Housekeeping;
use litemap::LiteMap;
use polling::Polling;
use std::rc::Rc;
use sweep::Sweep;
use tenancy::{Applicant, Workers};

pub use leading::LEASE;

/// A rule that nobody has followed for this long gives way to any other configuration.
const RULE_FADES: Millis = Millis(10_000);
/// VMs that are configured within this time of each other with the same text belong together.
const ANNOUNCED_FOR: Millis = Millis(5_000);
/// How often a VM says that it is alive, for the rule and for the main thread to see.
const ALIVE_PERIOD: Millis = Millis(1_000);
/// How long a request that found no healthy host speaks for those that follow: some ticks, and less than anybody would wait
/// before a backlog drains.
const NO_HOST_STANDS: Millis = Millis(300);

/// What an operator reads who goes back to an older module: nothing that is stored is delivered then.
const RETIRED_BY_A_LATER_BUILD: &str = "a later build of the filter rules this store, and this one cannot read what that \
     one stores: it only finishes what is out; to go back to this build for good, restart Envoy";

/// A number that the host gave an outstanding call; unique within a VM only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallToken(pub u32);

/// Which thread a VM is on, as far as it can know: streams are created on workers only (measured).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// No stream has been seen: the main thread, or an idle worker.
    Unknown,
    /// A worker.
    Worker,
}

/// Whether this VM's configuration is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It rules.
    Ruling,
    /// Another one does: finish what is out, begin nothing.
    Retired,
    /// The root context is to go. Its timer runs on until it is gone (measured), so this is for good.
    Stopped,
}

/// What is known of a destination that others may lead.
#[derive(Clone, Copy, Debug)]
struct Outlook {
    state: PublishedState,
    backlog: Backlog,
    connect_failures: u32,
    /// Since when nobody leads it.
    vacant_since: Option<Monotonic>,
}

/// The delivery work of one root context.
pub struct Delivery {
    config: Rc<Config>,
    keys: Keys,
    vm: VmId,
    random: Random,
    configured_at: Monotonic,
    digest: u32,
    thread: Thread,
    standing: Standing,
    alive_at: Option<Monotonic>,
    names: Vec<ClusterName>,
    names_version: Option<Cas>,
    outlook: LiteMap<DestinationIndex, Outlook>,
    look_at: usize,
    couriers: LiteMap<DestinationIndex, Courier>,
    calls: LiteMap<CallToken, Call>,
    /// When a live request of this VM was last told that there is no healthy host.
    no_host: LiteMap<DestinationIndex, Monotonic>,
    live: LiveTraffic,
    /// Whether any destination has one, which is the first question for each live request.
    backlog: Backlog,
    sweep: Sweep,
    housekeeping: Housekeeping,
    polling: Polling,
}

impl Delivery {
    /// The work of a root context that was configured at `now` with `config`, whose text has the checksum `digest`.
    /// `seed` is random and makes this VM's identity.
    #[must_use]
    pub fn new(config: Rc<Config>, keys: Keys, digest: u32, seed: u64, now: Monotonic) -> Self {
        let mut random = Random::seeded(seed);
        Self {
            config,
            keys,
            vm: VmId(random.next().max(1)),
            random,
            configured_at: now,
            digest,
            thread: Thread::Unknown,
            standing: Standing::Ruling,
            alive_at: None,
            names: Vec::new(),
            names_version: None,
            outlook: LiteMap::new(),
            look_at: 0,
            couriers: LiteMap::new(),
            calls: LiteMap::new(),
            no_host: LiteMap::new(),
            live: LiveTraffic::default(),
            backlog: Backlog::Empty,
            sweep: Sweep::default(),
            housekeeping: Housekeeping::default(),
            polling: Polling::default(),
        }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Rc<Config> {
        &self.config
    }

    /// The names of the shared cells.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// When this root context was configured.
    #[must_use]
    pub const fn configured_at(&self) -> Monotonic {
        self.configured_at
    }

    /// The generator for jitter.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A stream was created here: this is a worker's VM.
    pub const fn saw_stream(&mut self) {
        self.thread = Thread::Worker;
    }

    /// Whether no stream was ever created here.
    #[must_use]
    pub fn never_saw_a_stream(&self) -> bool {
        self.thread == Thread::Unknown
    }

    /// One turn of the timer.
    pub fn tick(&mut self, memory: &dyn SharedMemory, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.standing == Standing::Stopped {
            return effects;
        }
        self.follow_rule(memory, now.monotonic, &mut effects);
        self.refresh_names(memory, now.monotonic);
        self.no_host.retain(|_, at| now.monotonic.since(*at) < NO_HOST_STANDS);
        self.tell_live(memory, now.monotonic);
        match self.standing {
            Standing::Ruling => {
                self.register_configured(memory, &mut effects);
                self.say_alive(memory, now.monotonic);
                self.look_around(memory, now.monotonic);
                self.sweep_some(memory, now, &mut effects);
                self.lead(memory, now, &mut effects);
                self.poll(memory, now.monotonic, &mut effects);
                self.keep_house(memory, now, &mut effects);
            }
            Standing::Retired | Standing::Stopped => {
                // The streams of a listener that drains are live traffic all the same.
                self.look_around(memory, now.monotonic);
                self.resign_all(memory, now.monotonic);
            }
        }
        effects
    }

    /// The root context is going away: give up every lease. Answers whether calls are still out.
    pub fn stop(&mut self, memory: &dyn SharedMemory, now: Monotonic) -> bool {
        self.standing = Standing::Stopped;
        self.resign_all(memory, now);
        self.give_back_rule(memory);
        self.has_calls()
    }

    /// A configuration that goes makes room at once for one that was there before it: Envoy does not configure a root
    /// context again when a listener returns to its earlier configuration.
    fn give_back_rule(&self, memory: &dyn SharedMemory) {
        let outcome =
            update(memory, &self.keys.rule(), |bytes| match bytes.and_then(|bytes| Rule::decode(bytes).ok()) {
                Some(rule) if rule.digest == self.digest => {
                    Change::Write(Rule { seen_at: Monotonic(0), ..rule }.encode(), ())
                }
                Some(_) | None => Change::Keep(()),
            });
        // If it cannot be given back, it fades.
        outcome.unwrap_or_default();
    }

    /// Whether redeliveries are still out from here.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.calls.values().any(|call| matches!(call, Call::Attempt(_) | Call::LapsedAttempt(_)))
    }

    /// The newest configuration rules; an older one retires, and comes back if the newer one is gone. A build that changes
    /// the format of what is stored changes that of this cell too, so that those before it retire, for good.
    fn follow_rule(&mut self, memory: &dyn SharedMemory, now: Monotonic, effects: &mut Vec<Effect>) {
        let mine = Rule { digest: self.digest, since: self.configured_at, seen_at: now };
        let mut retirement = (Level::Info, "a newer configuration rules: this one only finishes what is out");
        let outcome = update(memory, &self.keys.rule(), |bytes| {
            let found = match bytes.map(Rule::decode) {
                Some(Ok(rule)) => Some(rule),
                // What it stores can only be read by its like, for as long as this process runs.
                Some(Err(Damage::Later)) => {
                    retirement = (Level::Warn, RETIRED_BY_A_LATER_BUILD);
                    return Change::Keep(Standing::Retired);
                }
                Some(Err(_)) | None => None,
            };
            match found {
                Some(rule) if rule.digest == self.digest && now.since(rule.seen_at) < ALIVE_PERIOD => {
                    Change::Keep(Standing::Ruling)
                }
                Some(rule) if rule.digest == self.digest => {
                    Change::Write(Rule { seen_at: now, ..rule }.encode(), Standing::Ruling)
                }
                // Two of the same moment (two listeners at start) are told apart by their text.
                Some(rule)
                    if (rule.since, rule.digest) > (self.configured_at, self.digest)
                        && now.since(rule.seen_at) < RULE_FADES =>
                {
                    Change::Keep(Standing::Retired)
                }
                Some(_) | None => Change::Write(mine.encode(), Standing::Ruling),
            }
        });
        // After a conflict the next tick sees what the others wrote.
        let standing = outcome.unwrap_or(self.standing);
        if standing == Standing::Retired && self.standing == Standing::Ruling {
            effects.push(note(retirement.0, retirement.1));
        }
        self.standing = standing;
    }

    /// One line per configuration says what is protected: from the first of the VMs that are all configured at once.
    #[must_use]
    pub fn announce(&self, memory: &dyn SharedMemory, now: Monotonic) -> Option<Effect> {
        let mine = Rule { digest: self.digest, since: now, seen_at: now };
        let is_first = update(memory, &self.keys.announced(), |bytes| {
            let last = bytes.and_then(|bytes| Rule::decode(bytes).ok());
            match last {
                Some(last) if last.digest == self.digest && now.since(last.since) < ANNOUNCED_FOR => {
                    Change::Keep(false)
                }
                Some(_) | None => Change::Write(mine.encode(), true),
            }
        });
        let level = if self.config.protects_anything() { Level::Info } else { Level::Warn };
        is_first.unwrap_or(true).then(|| note(level, self.config.summary()))
    }

    /// A worker says that it lives, so that the main thread's VM leaves the work to it.
    fn say_alive(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        let is_time = self.alive_at.is_none_or(|at| now.since(at) >= ALIVE_PERIOD);
        if self.thread == Thread::Worker && is_time {
            self.alive_at = Some(now);
            let word = Lease { holder: self.vm, until: now.after(LEASE) };
            // Any worker's word will do, so there is nothing to conflict with.
            memory.set(&self.keys.worker_alive(), &word.encode(), Expect::Anything).unwrap_or_default();
        }
    }

    /// This VM as it applies for a duty.
    fn applicant(&self, memory: &dyn SharedMemory, now: Monotonic) -> Applicant {
        let workers = if self.a_worker_lives(memory, now) { Workers::Live } else { Workers::Silent };
        Applicant { vm: self.vm, thread: self.thread, workers }
    }

    /// Whether some worker was alive lately.
    fn a_worker_lives(&self, memory: &dyn SharedMemory, now: Monotonic) -> bool {
        let said = memory.get(&self.keys.worker_alive()).and_then(|value| Lease::decode(&value.bytes).ok());
        said.is_some_and(|word| word.until > now)
    }

    /// What a live answer says about its destination is written down, if it changes anything.
    pub fn witness(&mut self, memory: &dyn SharedMemory, cluster: &ClusterName, sign: Sign, now: Monotonic) {
        match sign {
            Sign::Nothing => {}
            Sign::Success | Sign::Answered => {
                let Some(destination) = self.find(cluster) else { return };
                self.no_host.remove(&destination);
                let is_troubled = self.outlook.get(&destination).is_some_and(is_trouble);
                if is_troubled {
                    self.write_evidence(memory, destination, sign, now);
                    if let Some(outlook) = self.outlook.get_mut(&destination) {
                        outlook.connect_failures = 0;
                    }
                }
            }
            Sign::NoHealthyHost | Sign::ConnectionFailure => {
                let Some(destination) = self.find_or_register(memory, cluster) else { return };
                // One word per 100 ms says it all; a flood of failures need not fight over the cell.
                let last = self.no_host.get(&destination).copied().unwrap_or_default();
                if sign == Sign::ConnectionFailure || now.since(last) >= Millis(100) {
                    self.write_evidence(memory, destination, sign, now);
                }
                if sign == Sign::NoHealthyHost {
                    self.no_host.insert(destination, now);
                } else if let Some(outlook) = self.outlook.get_mut(&destination) {
                    // Seen at once, not at the next tick: a success in between ends the row.
                    outlook.connect_failures = outlook.connect_failures.saturating_add(1);
                }
            }
        }
    }

    /// Whether successes are worth a word: some destination is in trouble. Cheap, asked for each success.
    #[must_use]
    pub fn is_in_trouble(&self) -> bool {
        !self.no_host.is_empty() || self.outlook.values().any(is_trouble)
    }

    /// A live request begins: it is counted until what this answers with is dropped. `cluster` asks the host, and is asked
    /// only while something is stored for a destination that may serve it: not for one that had no healthy host for a request
    /// of this VM just now.
    pub fn begin_live(&mut self, cluster: impl FnOnce() -> Option<ClusterName>) -> Option<LiveRequest> {
        if self.backlog == Backlog::Empty || !self.outlook.iter().any(|(place, found)| self.may_share(*place, found)) {
            return None;
        }
        let destination = self.find(&cluster()?)?;
        let outlook = self.outlook.get(&destination)?;
        self.may_share(destination, outlook).then(|| self.live.begin(destination))
    }

    /// Whether redeliveries and live requests may be at its receiver at the same time.
    fn may_share(&self, destination: DestinationIndex, outlook: &Outlook) -> bool {
        outlook.backlog == Backlog::Some && !self.no_host.contains_key(&destination)
    }

    /// Writes down how much live traffic this VM has, where it changed.
    fn tell_live(&mut self, memory: &dyn SharedMemory, now: Monotonic) {
        for (destination, in_flight) in self.live.news(now) {
            let outcome = update(memory, &self.keys.live(destination), |bytes| {
                let before = bytes.and_then(|bytes| LiveCell::decode(bytes).ok()).unwrap_or_default();
                let after = before.with(self.vm, in_flight, now);
                if after == before { Change::Keep(()) } else { Change::Write(after.encode(), ()) }
            });
            // A lost word is said again within a second, or fades.
            outcome.unwrap_or_default();
        }
    }

    fn write_evidence(&self, memory: &dyn SharedMemory, destination: DestinationIndex, sign: Sign, now: Monotonic) {
        let outcome = update(memory, &self.keys.evidence(destination), |bytes| {
            let before = bytes.and_then(|bytes| Evidence::decode(bytes).ok()).unwrap_or_default();
            let after = match sign {
                Sign::NoHealthyHost => Evidence { no_host_at: now, ..before },
                Sign::ConnectionFailure => {
                    Evidence { connect_failures: before.connect_failures.saturating_add(1), ..before }
                }
                Sign::Answered => Evidence { connect_failures: 0, ..before },
                Sign::Success => Evidence { connect_failures: 0, success_at: now, ..before },
                Sign::Nothing => before,
            };
            if after == before { Change::Keep(()) } else { Change::Write(after.encode(), ()) }
        });
        // A lost sign is repeated by the next request.
        outcome.unwrap_or_default();
    }

    /// Whether `cluster` is down right now, for `hold_while_down`: the leader's word, as long as its lease stands.
    #[must_use]
    pub fn is_down(&self, memory: &dyn SharedMemory, cluster: &ClusterName, now: Monotonic) -> bool {
        let leadership = self.find(cluster).and_then(|destination| self.leadership(memory, destination));
        leadership.is_some_and(|found| found.state == PublishedState::Down && found.until > now)
    }

    /// The place of `cluster` in the table, entered there if it is new.
    pub fn find_or_register(&mut self, memory: &dyn SharedMemory, cluster: &ClusterName) -> Option<DestinationIndex> {
        if self.find(cluster).is_none() {
            leading::register(memory, &self.keys, cluster);
            // Not the moment to mend a table: a sender waits.
            self.refresh_names(memory, self.configured_at);
        }
        self.find(cluster)
    }

    fn find(&self, cluster: &ClusterName) -> Option<DestinationIndex> {
        let place = self.names.iter().position(|name| name == cluster)?;
        u16::try_from(place).ok().map(DestinationIndex)
    }

    fn name(&self, destination: DestinationIndex) -> Option<&ClusterName> {
        self.names.get(usize::from(destination.0))
    }

    /// What holds for a destination; for one whose name is lost, what all share.
    fn policy(&self, destination: DestinationIndex) -> Rc<Policy> {
        self.name(destination).map_or(&self.config.shared, |name| self.config.of(name)).clone()
    }

    /// The store that this VM shares with all others of its `root_id`.
    #[must_use]
    pub const fn store<'a>(&'a self, memory: &'a dyn SharedMemory) -> Store<'a> {
        Store { memory, keys: &self.keys }
    }
}

fn is_trouble(outlook: &Outlook) -> bool {
    outlook.state != PublishedState::Up || outlook.connect_failures > 0
}

fn note(level: Level, text: impl Into<String>) -> Effect {
    Effect::Note(level, text.into())
}

#[cfg(test)]
mod tests;
