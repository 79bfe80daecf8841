//! A small world: one process's VMs on one shared memory, virtual time, receivers and a health source that answer by
//! script. It carries out effects as the shell does, and after each step it checks what must always hold:
//!
//! | always | |
//! | --- | --- |
//! | one leader per destination | by valid lease |
//! | at most `redelivery.window.max` attempts out per destination, over all VMs, dead ones included | |
//! | the books never show less than the slots hold | room is reserved first and released last |
//!
//! Decides nothing about the product: what a VM does comes from its [`Delivery`].

use super::*;
use crate::answer::Answer;
use crate::delivery::sending::Reply;
use crate::digest::LineKey;
use crate::effect::{Counter, Dispatch, Gauge};
use crate::headers::{HEADER_ATTEMPT, HeaderList};
use crate::ledger::Ledger;
use crate::memory::double::{MemoryDouble, VmMemory};
use crate::message::{Message, MessageId, Ties};
use crate::recent::Recent;
use crate::slot::{Head, SlotIndex, SlotState};
use crate::store::{FILLING_MAX, FirstState, Limits, PutError, Ticket};
use crate::units::Wall;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// Small enough that answers come between ticks.
const STEP: u64 = 10;
/// Far from the monotonic clock, so that a mix-up shows.
const WALL_OFFSET: u64 = 1_700_000_000_000;

/// What a receiver, the health source or Envoy makes of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answers {
    /// The receiver answers with this status.
    Status(u16),
    /// The receiver answers like this, with one more header.
    StatusWith(u16, &'static str),
    /// The receiver answers with this status and this `Retry-After`.
    RetryAfter(u16, &'static str),
    /// Envoy answers in its own name.
    Envoy(u16, &'static str),
    /// The admin port answers with this text.
    Text(&'static str),
    /// The answer breaks off.
    BreaksOff,
    /// The host refuses the call on the spot.
    Refused(Answer),
    /// No answer ever comes.
    Never,
}

pub(super) const REFUSED: Answers = Answers::Envoy(503, "reset reason: remote connection failure");

/// One request as it left the process.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub vm: usize,
    pub at: u64,
    pub cluster: String,
    pub path: String,
    /// The message's number; 0 for a question to the health source.
    pub number: u32,
    pub attempt: u16,
}

type Script = Box<dyn FnMut(&Asked) -> (Answers, u64)>;

struct Flight {
    lands_at: u64,
    vm: usize,
    token: CallToken,
    cluster: Option<String>,
    answers: Answers,
}

/// Whether a VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Neither ticks nor hears answers before this.
    StandsStill(u64),
    Dead,
}

pub(super) struct Vm {
    pub delivery: Delivery,
    pub life: Life,
    /// Changes of shared memory that it may still make.
    pub changes_left: Option<u32>,
    recent: Rc<Recent>,
    next_tick: u64,
    next_token: u32,
}

pub(super) struct World {
    pub memory: MemoryDouble,
    pub now: u64,
    /// The next VM that sends anything stands still for so long just before.
    pub pause_before_sending: u64,
    /// The next VM that stores anything stands still for so long just afterwards, before it tells the leader.
    pub pause_after_storing: u64,
    /// How far the wall clock has jumped.
    pub wall_ahead: i64,
    pub vms: Vec<Vm>,
    pub asked: Vec<Asked>,
    pub questions: Vec<Asked>,
    pub delivered: BTreeMap<u32, u32>,
    /// Messages in the order in which the receiver took them, repeats included.
    pub arrivals: Vec<u32>,
    /// The most calls of shared memory that one callback made.
    pub calls_max: u32,
    /// The line of a message by its number.
    pub line_of: fn(u32) -> Option<LineKey>,
    pub counters: BTreeMap<Counter, u64>,
    pub gauges: BTreeMap<Gauge, u64>,
    pub notes: Vec<String>,
    receiver: Script,
    health: Script,
    flights: Vec<Flight>,
    out: BTreeMap<String, usize>,
    keys: Keys,
}

pub(super) fn config(json: &str) -> Config {
    crate::config::parse(json.as_bytes()).unwrap_or_else(|faults| panic!("{faults}"))
}

pub(super) fn cluster(name: &str) -> ClusterName {
    ClusterName(name.to_owned())
}

fn message(number: u32, cluster: &str) -> Message {
    let envelope = crate::message::tests::message("/out").arrived;
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    Message {
        id: MessageId(id),
        hops: crate::neighbours::Hops::FIRST,
        cluster: self::cluster(cluster),
        arrived: envelope,
        routed: None,
        body: number.to_string().into_bytes(),
        ties: Ties::default(),
    }
}

impl World {
    /// A process with a main thread (VM 0) and `workers` workers that have seen streams. Receivers answer 200 at once.
    pub fn new(workers: usize, config: &Config) -> Self {
        let mut world = Self::without_vms();
        for worker in 0..=workers {
            let vm = world.start(config, 1);
            if worker > 0 {
                world.vms[vm].delivery.saw_stream();
            }
        }
        world
    }

    pub fn without_vms() -> Self {
        Self {
            memory: MemoryDouble::default(),
            now: 1_000,
            pause_before_sending: 0,
            pause_after_storing: 0,
            wall_ahead: 0,
            vms: Vec::new(),
            asked: Vec::new(),
            questions: Vec::new(),
            delivered: BTreeMap::new(),
            arrivals: Vec::new(),
            calls_max: 0,
            line_of: |_| None,
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
            notes: Vec::new(),
            receiver: Box::new(|_| (Answers::Status(200), 20)),
            health: Box::new(|_| (Answers::Status(404), 5)),
            flights: Vec::new(),
            out: BTreeMap::new(),
            keys: Keys::of(b"world"),
        }
    }

    /// A VM that is configured now. Answers with its number.
    pub fn start(&mut self, config: &Config, digest: u32) -> usize {
        let number = self.vms.len();
        let seed = 77 + u64::try_from(number).unwrap();
        let delivery = Delivery::new(Rc::new(config.clone()), self.keys.clone(), digest, seed, Monotonic(self.now));
        let next_tick = self.now + 100 + STEP * (u64::try_from(number).unwrap() % 10);
        self.vms.push(Vm {
            delivery,
            life: Life::Alive,
            changes_left: None,
            next_tick,
            next_token: 4,
            recent: Rc::default(),
        });
        number
    }

    pub fn receiver(&mut self, script: impl FnMut(&Asked) -> (Answers, u64) + 'static) {
        self.receiver = Box::new(script);
    }

    pub fn health(&mut self, script: impl FnMut(&Asked) -> (Answers, u64) + 'static) {
        self.health = Box::new(script);
    }

    pub fn moment(&self) -> Now {
        Now {
            monotonic: Monotonic(self.now),
            wall: Wall((WALL_OFFSET + self.now).saturating_add_signed(self.wall_ahead)),
        }
    }

    /// A VM's way to the memory, as far as it may still change it.
    fn enter<T>(&mut self, vm: usize, run: impl FnOnce(&mut Delivery, &dyn SharedMemory) -> T) -> Option<T> {
        let found = &mut self.vms[vm];
        let memory = match found.changes_left {
            None => VmMemory::immortal(&self.memory),
            Some(left) => VmMemory::dying_after(&self.memory, left),
        }
        .remembering(&found.recent);
        let result = run(&mut found.delivery, &memory);
        self.calls_max = self.calls_max.max(memory.calls());
        if found.changes_left.is_some() {
            found.changes_left = Some(memory.changes_left());
        }
        if memory.is_dead() {
            found.life = Life::Dead;
            return None;
        }
        Some(result)
    }

    /// A live request to `to` fails on `vm` and is stored as message `number`. `None`: the VM died before it could
    /// promise anything.
    pub fn try_store(&mut self, vm: usize, to: &str, number: u32) -> Option<Result<Ticket, PutError>> {
        let (now, line) = (self.moment(), (self.line_of)(number));
        self.now += std::mem::take(&mut self.pause_after_storing);
        let told_at = Monotonic(self.now);
        let put = self.enter(vm, |delivery, memory| {
            let destination = delivery.find_or_register(memory, &cluster(to)).ok_or(PutError::Full)?;
            let config = delivery.config().clone();
            let policy = config.of(&cluster(to));
            let first = FirstState::Queued(now.monotonic.after(policy.redelivery.backoff.initial));
            let limits = Limits { whole: &config.shared.store, destination: &policy.store };
            let message = Message { ties: Ties { line, ..Ties::default() }, ..message(number, to) };
            let placed = delivery.store(memory).place(&message, destination, first, limits, now)?;
            let tell = |hint| delivery.tell_leader(memory, destination, hint, || told_at);
            placed.hint.into_iter().for_each(tell);
            Ok(placed.ticket)
        })?;
        if put.is_ok() {
            self.count(Counter::Stored, 1);
        }
        Some(put)
    }

    /// The same, of which the routed form is still to come.
    pub fn try_open(&mut self, vm: usize, to: &str, number: u32) -> Option<Result<Ticket, PutError>> {
        let (now, line) = (self.moment(), (self.line_of)(number));
        let put = self.enter(vm, |delivery, memory| {
            let destination = delivery.find_or_register(memory, &cluster(to)).ok_or(PutError::Full)?;
            let config = delivery.config().clone();
            let first = FirstState::Opening(now.monotonic.after(FILLING_MAX));
            let limits = Limits { whole: &config.shared.store, destination: &config.of(&cluster(to)).store };
            let message = Message { ties: Ties { line, ..Ties::default() }, ..message(number, to) };
            delivery.store(memory).put(&message, destination, first, limits, now)
        })?;
        if put.is_ok() {
            self.count(Counter::Stored, 1);
        }
        Some(put)
    }

    /// The routed form of message `number` is there.
    pub fn try_complete(&mut self, vm: usize, ticket: Ticket, number: u32) -> Option<Result<(), crate::store::Gone>> {
        let due = Monotonic(self.now);
        self.enter(vm, |delivery, memory| {
            let head = delivery.store(memory).head(ticket.slot).ok().flatten().ok_or(crate::store::Gone)?.0;
            let to = delivery.name(head.destination).map_or("", |name| name.0.as_str());
            delivery.store(memory).complete(ticket, &message(number, to), due)
        })
    }

    pub fn store(&mut self, vm: usize, to: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let put = self.try_store(vm, to, number);
            assert!(matches!(put, Some(Ok(_))), "message {number}: {put:?}{}", self.state());
        }
    }

    /// A live answer on `vm`.
    pub fn witness(&mut self, vm: usize, of: &str, sign: Sign) {
        let now = Monotonic(self.now);
        self.enter(vm, |delivery, memory| delivery.witness(memory, &cluster(of), sign, now));
    }

    /// Live requests begin on `vm`; they are in flight until what this answers with is dropped.
    pub fn begin_live(&mut self, vm: usize, of: &str, count: usize) -> Vec<crate::live::LiveRequest> {
        (0..count).filter_map(|_| self.vms[vm].delivery.begin_live(|| Some(cluster(of)))).collect()
    }

    /// Attempts out to `of`.
    pub fn out(&self, of: &str) -> usize {
        self.out.get(of).copied().unwrap_or_default()
    }

    pub fn is_down(&mut self, vm: usize, of: &str) -> bool {
        let now = Monotonic(self.now);
        self.enter(vm, |delivery, memory| delivery.is_down(memory, &cluster(of), now)).unwrap()
    }

    /// The root context of `vm` is to go. Answers whether calls are still out.
    pub fn stop(&mut self, vm: usize) -> bool {
        let now = Monotonic(self.now);
        self.enter(vm, |delivery, memory| delivery.stop(memory, now)).unwrap_or(false)
    }

    pub fn kill(&mut self, vm: usize) {
        self.vms[vm].life = Life::Dead;
    }

    pub fn stand_still(&mut self, vm: usize, span: u64) {
        self.vms[vm].life = Life::StandsStill(self.now + span);
    }

    /// Lets `span` milliseconds pass.
    pub fn pass(&mut self, span: u64) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    /// Lets time pass until `is_so`, at most `span`; answers how long it took.
    pub fn pass_until(&mut self, span: u64, is_so: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !is_so(self) {
            assert!(self.now < start + span, "not so after {span} ms{}", self.state());
            self.step();
        }
        self.now - start
    }

    fn step(&mut self) {
        self.now += STEP;
        for vm in 0..self.vms.len() {
            match self.vms[vm].life {
                Life::StandsStill(until) if until <= self.now => self.vms[vm].life = Life::Alive,
                Life::Alive | Life::StandsStill(_) | Life::Dead => {}
            }
        }
        self.land();
        for vm in 0..self.vms.len() {
            if self.vms[vm].life == Life::Alive && self.vms[vm].next_tick <= self.now {
                self.vms[vm].next_tick = self.now + self.vms[vm].delivery.config().tick().0;
                let now = self.moment();
                let effects = self.enter(vm, |delivery, memory| delivery.tick(memory, now));
                self.run(vm, effects.unwrap_or_default());
            }
        }
        self.check_always();
    }

    /// Answers that are due reach their VMs, those of VMs that stand still wait.
    fn land(&mut self) {
        let (due, rest): (Vec<Flight>, Vec<Flight>) =
            std::mem::take(&mut self.flights).into_iter().partition(|flight| flight.lands_at <= self.now);
        self.flights = rest;
        for mut flight in due {
            if let Some(cluster) = flight.cluster.take() {
                *self.out.entry(cluster).or_default() -= 1;
            }
            match self.vms[flight.vm].life {
                Life::Alive => self.answer(flight.vm, flight.token, flight.answers),
                Life::StandsStill(_) => self.flights.push(flight),
                Life::Dead => {}
            }
        }
    }

    fn answer(&mut self, vm: usize, token: CallToken, answers: Answers) {
        let (headers, text) = on_the_wire(answers);
        let now = self.moment();
        let effects = self.enter(vm, |delivery, memory| {
            let body = || text.as_bytes().to_vec();
            delivery.answered(memory, token, &Reply { headers, body: &body, trailers: &HeaderList::default }, now)
        });
        self.run(vm, effects.unwrap_or_default());
    }

    /// What the shell does with effects.
    fn run(&mut self, vm: usize, effects: Vec<Effect>) {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Dispatch(dispatch) => {
                    self.now += std::mem::take(&mut self.pause_before_sending);
                    let outcome = self.dispatch(vm, &dispatch);
                    let now = self.moment();
                    let more =
                        self.enter(vm, |delivery, memory| delivery.dispatched(memory, dispatch.call, outcome, now));
                    queue.extend(more.unwrap_or_default());
                }
                Effect::Count(counter, by) => self.count(counter, by),
                Effect::Gauge(gauge, value) => drop(self.gauges.insert(gauge, value)),
                Effect::DeliveryDelay(delay) => {
                    let is_plausible = delay.0 < 100_000_000 || self.wall_ahead != 0;
                    assert!(is_plausible, "clocks are mixed up: {delay}");
                }
                Effect::Note(level, text) => self.notes.push(format!("{} vm {vm}: {level:?}: {text}", self.now)),
            }
        }
    }

    fn dispatch(&mut self, vm: usize, dispatch: &Dispatch) -> Result<CallToken, Answer> {
        let text = |name| String::from_utf8_lossy(dispatch.headers.first(name).unwrap_or_default()).into_owned();
        let is_attempt = matches!(dispatch.call, Call::Attempt(_));
        let asked = Asked {
            vm,
            at: self.now,
            cluster: dispatch.cluster.0.clone(),
            path: text(":path"),
            number: String::from_utf8_lossy(&dispatch.body).parse().unwrap_or_default(),
            attempt: text(HEADER_ATTEMPT).parse().unwrap_or_default(),
        };
        let (answers, after) = if is_attempt { (self.receiver)(&asked) } else { (self.health)(&asked) };
        if let (true, Answers::Status(200..=299)) = (is_attempt, answers) {
            *self.delivered.entry(asked.number).or_default() += 1;
            self.arrivals.push(asked.number);
        }
        let outcome = match answers {
            Answers::Refused(answer) => Err(answer),
            Answers::Status(_)
            | Answers::StatusWith(..)
            | Answers::RetryAfter(..)
            | Answers::Envoy(..)
            | Answers::Text(_)
            | Answers::BreaksOff
            | Answers::Never => Ok(self.take_off(vm, is_attempt.then(|| asked.cluster.clone()), answers, after)),
        };
        if is_attempt {
            self.asked.push(asked)
        } else {
            self.questions.push(asked)
        }
        outcome
    }

    fn take_off(&mut self, vm: usize, cluster: Option<String>, answers: Answers, after: u64) -> CallToken {
        let token = CallToken(self.vms[vm].next_token);
        self.vms[vm].next_token += 4;
        if let Answers::Never = answers {
            return token;
        }
        if let Some(cluster) = &cluster {
            *self.out.entry(cluster.clone()).or_default() += 1;
        }
        self.flights.push(Flight { lands_at: self.now + after, vm, token, cluster, answers });
        token
    }

    fn count(&mut self, counter: Counter, by: u64) {
        *self.counters.entry(counter).or_default() += by;
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or_default()
    }

    pub fn heads(&self) -> Vec<Result<Head, crate::codec::Damage>> {
        let slots = Ledger::read(&self.memory, &self.keys.ledger()).map_or(0, |ledger| ledger.slots);
        let store = Store { memory: &self.memory, keys: &self.keys };
        let heads = (0..slots).filter_map(|slot| store.head(SlotIndex(slot)).transpose());
        heads.map(|found| found.map(|(head, _)| head)).collect()
    }

    fn heads_in(&self, belongs: impl Fn(SlotState) -> bool) -> u64 {
        let heads = self.heads();
        u64::try_from(heads.iter().flatten().filter(|head| belongs(head.state)).count()).unwrap()
    }

    pub fn dead(&self) -> u64 {
        self.heads_in(|state| matches!(state, SlotState::Dead { .. }))
    }

    /// Messages that are neither dead nor gone.
    pub fn queued(&self) -> u64 {
        self.heads_in(|state| !matches!(state, SlotState::Free | SlotState::Dead { .. }))
    }

    /// The VMs that lead `of` by a lease that stands.
    pub fn leaders(&self, of: &str) -> Vec<usize> {
        let leads = |vm: &Vm| {
            let place = vm.delivery.find(&cluster(of));
            let courier = place.and_then(|place| vm.delivery.couriers.get(&place));
            vm.life != Life::Dead && courier.is_some_and(|courier| courier.lease_until.0 > self.now)
        };
        (0..self.vms.len()).filter(|vm| leads(&self.vms[*vm])).collect()
    }

    /// The state of `of`, by its leader.
    pub fn published(&self, of: &str) -> Option<PublishedState> {
        let vm = &self.vms[*self.leaders(of).first()?];
        vm.delivery.couriers.get(&vm.delivery.find(&cluster(of))?).map(Courier::published)
    }

    pub fn house_keepers(&self) -> Vec<usize> {
        let keeps = |vm: &Vm| vm.life == Life::Alive && vm.delivery.housekeeping.is_held();
        (0..self.vms.len()).filter(|vm| keeps(&self.vms[*vm])).collect()
    }

    fn check_always(&self) {
        for (cluster, out) in &self.out {
            let of = |vm: &Vm| vm.delivery.config().of(&self::cluster(cluster)).redelivery.window.max;
            let window = self.vms.iter().map(of).max().unwrap_or_default();
            assert!(*out <= usize::try_from(window).unwrap(), "{out} attempts out to {cluster}{}", self.state());
            let leaders = self.leaders(cluster);
            assert!(leaders.len() <= 1, "{leaders:?} lead {cluster}{}", self.state());
        }
        // A difference in the books stands for seconds; reading all heads at each step would be most of the tests' time.
        if !self.now.is_multiple_of(500) {
            return;
        }
        if let Ok(books) = Ledger::read(&self.memory, &self.keys.ledger()) {
            let heads = self.heads();
            let is_held = |head: &Head| head.state != SlotState::Free;
            let held = heads.iter().flatten().filter(|head| is_held(head)).count();
            let is_damaged = heads.iter().any(Result::is_err);
            let booked = usize::try_from(books.messages).unwrap();
            assert!(booked >= held || is_damaged, "{held} held, {books:?}{}", self.state());
        }
    }

    /// Nothing was lost and nothing came twice: the books of CONTRACT section 9.
    pub fn check_books(&self) {
        let sum = self.counter(Counter::Delivered)
            + self.dead()
            + self.counter(Counter::DeadExpired)
            + self.counter(Counter::Removed)
            + self.queued();
        assert_eq!(self.counter(Counter::Stored), sum, "stored, and where it went{}", self.state());
        self.check_ledger();
    }

    /// The books say what the slots hold.
    pub fn check_ledger(&self) {
        let books = Ledger::read(&self.memory, &self.keys.ledger()).unwrap();
        let held = (self.dead() + self.queued(), self.dead());
        assert_eq!((u64::from(books.messages), u64::from(books.dead)), held, "books, slots{}", self.state());
        let charges = |dead: bool| {
            let heads = self.heads().into_iter().flatten();
            let wanted = heads.filter(|head| !dead || matches!(head.state, SlotState::Dead { .. }));
            wanted.map(|head| head.charge.0).sum::<u64>()
        };
        assert_eq!((books.bytes.0, books.dead_bytes.0), (charges(false), charges(true)), "bytes{}", self.state());
        self.check_parts(&books);
    }

    /// The books of the destinations add up to those of the whole.
    fn check_parts(&self, whole: &Ledger) {
        let parts =
            (0..8).map(|place| Ledger::read(&self.memory, &self.keys.destination_ledger(DestinationIndex(place))));
        let sum = parts.map(Result::unwrap).fold([0; 4], |sum, part| {
            let figures = [u64::from(part.messages), part.bytes.0, u64::from(part.dead), part.dead_bytes.0];
            [0, 1, 2, 3].map(|nth| sum[nth] + figures[nth])
        });
        let figures = [u64::from(whole.messages), whole.bytes.0, u64::from(whole.dead), whole.dead_bytes.0];
        assert_eq!(sum, figures, "the parts, the whole{}", self.state());
    }

    pub fn check_delivered_once(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let times = self.delivered.get(&number).copied().unwrap_or_default();
            assert_eq!(times, 1, "times that message {number} was delivered{}", self.state());
        }
    }

    /// The arrivals of each line.
    pub fn arrivals_by_line(&self) -> BTreeMap<LineKey, Vec<u32>> {
        let mut lines = BTreeMap::<LineKey, Vec<u32>>::new();
        for number in &self.arrivals {
            if let Some(line) = (self.line_of)(*number) {
                lines.entry(line).or_default().push(*number);
            }
        }
        lines
    }

    /// Messages are numbered as they are stored, so each line must arrive in rising order; one that was out when its VM
    /// died may come twice, but not after a later one.
    pub fn check_order(&self, story: &str) {
        for (line, numbers) in self.arrivals_by_line() {
            assert!(numbers.is_sorted(), "{story}: {line:?} arrived as {numbers:?}{}", self.state());
        }
    }

    /// All that one wants to see of a world in which a test failed.
    pub fn state(&self) -> String {
        let mut text = format!("\n-- at {}: {:?}\n", self.now, self.counters);
        text += &format!("books {:?}\n", Ledger::read(&self.memory, &self.keys.ledger()));
        for (slot, head) in self
            .heads()
            .iter()
            .enumerate()
            .filter(|(_, head)| !matches!(head, Ok(found) if found.state == SlotState::Free))
            .take(20)
        {
            text += &format!("slot {slot}: {head:?}\n");
        }
        for (number, vm) in self.vms.iter().enumerate() {
            let led: Vec<_> = vm
                .delivery
                .couriers
                .iter()
                .map(|(place, found)| (place, found.published(), found.in_flight()))
                .collect();
            text +=
                &format!("vm {number}: {:?} {:?} {:?} {led:?}\n", vm.life, vm.delivery.thread, vm.delivery.standing);
        }
        let last = |count: usize| count.saturating_sub(25);
        text += &self.notes[last(self.notes.len())..].join("\n");
        text += &self.asked[last(self.asked.len())..].iter().map(|asked| format!("\n{asked:?}")).collect::<String>();
        text
    }
}

fn on_the_wire(answers: Answers) -> (HeaderList, &'static str) {
    let list = |status: u16, proxied: bool, more: Option<(&str, &str)>| {
        let proxied = proxied.then_some(("x-envoy-upstream-service-time", "1"));
        let status = status.to_string();
        [(":status", status.as_str())].into_iter().chain(proxied).chain(more).collect()
    };
    match answers {
        Answers::Status(status) => (list(status, true, None), ""),
        Answers::StatusWith(status, name) => (list(status, true, Some((name, "true"))), ""),
        Answers::RetryAfter(status, value) => (list(status, true, Some(("retry-after", value))), ""),
        Answers::Envoy(status, text) => (list(status, false, None), text),
        Answers::Text(text) => (list(200, true, None), text),
        Answers::BreaksOff | Answers::Refused(_) | Answers::Never => (HeaderList::default(), ""),
    }
}
