//! One request through Envoy: headers, body, answer, log. Turns each callback into a call of the core.
//!
//! ```text
//! request headers: protected? ── no ──> not touched again
//!        | hold
//! body: copied piece by piece ──> look: a retry, or behind others? ── yes ──> answered at once
//!                                   | no
//!                                 goes on ──> answer: failure? ── no ──> handed on
//!                                           | yes
//!                                         stored ──> 202 (or the failure with our headers)
//!                                           | routed form of a request without a body: only on_log sees it
//!                                         on_log: completes the record, before the 202's bytes leave
//! ```
//! The answer of a gRPC call has its status in the headers, or in the trailers; our word goes where the status is.

use crate::abi::Action;
use crate::facts::{Route, answer_facts};
use crate::host::{self, Part};
use crate::storing::{self, Stored, Trigger, Untaken};
use crate::vm::{Held, Vm};
use redeliver_core::capture::{Announced, BodySeen, BodyStep, Capture, EndOfStream, HasBody, Hold, Start};
use redeliver_core::classify::{AnswerFacts, Custody, Sign, classify, custody, repeatable, sign};
use redeliver_core::config::{HoldWhileDown, Inject, Reply, Trust};
use redeliver_core::delivery::looking::Look;
use redeliver_core::effect::Counter;
use redeliver_core::glance::Glance;
use redeliver_core::grpc::{GRPC_STATUS, Protocol};
use redeliver_core::headers::{HEADER_PASS, HeaderList, forged};
use redeliver_core::live::LiveRequest;
use redeliver_core::message::{Message, MessageId};
use redeliver_core::neighbours::{Origin, has_custody, unbelieved};
use redeliver_core::pass::Pass;
use redeliver_core::protect::{Protection, RouteFacts, prefers_async, protection};
use redeliver_core::reply::{self, AskedAsync, NotStored};
use redeliver_core::store::Ticket;
use redeliver_core::units::{ByteCount, ClusterName, Monotonic};
use std::cell::RefCell;
use std::rc::Rc;

/// A body of this length fits into any sensible buffer; for a longer one it is worth a host call to know at once what
/// another worker learned of the listener's buffer.
const SURELY_BUFFERED: ByteCount = ByteCount(16 * 1024);

/// One stream.
pub struct Stream {
    vm: Rc<RefCell<Option<Vm>>>,
    context: u32,
    stage: Stage,
    /// What this stream's copy of the body takes of [`Vm::copies`].
    copied: ByteCount,
    /// Counts it as live traffic since it went to the router, while there is a backlog to be delivered beside it.
    live: Option<LiveRequest>,
    /// The idempotency key that the first attempt got from us; the message's id, if it is stored.
    injected: Option<MessageId>,
}

/// Where a request goes that nothing stands in the way of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Onward {
    /// To the router.
    Router,
    /// Into the store: its destination is down.
    Store,
}

/// How far the stream has got.
enum Stage {
    /// Not ours, or nothing more to do.
    Pass,
    /// Protected; its answer is awaited.
    Captured(Box<Capture>),
    /// A gRPC call whose answer has begun; its status comes in the trailers.
    Answering(Box<Capture>),
    /// Its destination is down: it is stored as soon as its body is whole, without asking the router.
    Diverted(Box<Capture>),
    /// Stored; the routed form comes with the log.
    Opening(Box<(Ticket, Message)>),
}

impl Stream {
    /// The stream `context` of the root context that owns `vm`.
    pub const fn new(vm: Rc<RefCell<Option<Vm>>>, context: u32) -> Self {
        Self { vm, context, stage: Stage::Pass, copied: ByteCount(0), live: None, injected: None }
    }

    fn with_vm<T>(&mut self, otherwise: T, run: impl FnOnce(&mut Self, &mut Vm) -> T) -> T {
        let shared = self.vm.clone();
        match shared.try_borrow_mut() {
            Ok(mut vm) => match vm.as_mut() {
                Some(vm) => run(self, vm),
                None => otherwise,
            },
            Err(_) => otherwise,
        }
    }

    fn request_headers(&mut self, vm: &mut Vm, has_body: HasBody) -> Action {
        if !vm.config.protects_anything() {
            return self.go_to_router(vm);
        }
        let headers = host::request_headers();
        #[cfg(feature = "trap")]
        trap_if_told(&headers, vm);
        let glance = Glance::at(&headers);
        if glance.own.is_some() && is_our_own(vm, &headers) {
            // No live traffic: redelivery would be held back by itself.
            return Action::Continue;
        }
        if protection(&vm.config.matching, &headers, &glance, &Route) == Protection::Unprotected {
            return self.go_to_router(vm);
        }
        if glance.own.is_some() {
            unbelieved(&headers, vm.config.trust.senders).for_each(host::remove_request_header);
        }
        vm.protected = vm.protected.saturating_add(1);
        let announced = Announced::by(&glance, has_body);
        let is_diverted = self.is_diverted(vm, announced.protocol);
        if has_body == HasBody::Yes && announced.length.is_none_or(|length| length > SURELY_BUFFERED) {
            vm.read_notice();
        }
        self.inject(vm, &headers);
        let (capture, start) = Capture::begin(headers, announced, vm.regime);
        match (is_diverted, start) {
            (true, Start::Continue) if has_body == HasBody::No => self.go_on(vm, capture, Onward::Store),
            (true | false, Start::Continue) => self.go_on(vm, capture, Onward::Router),
            (true, Start::Hold) => {
                self.hold(vm, &capture);
                self.stage = Stage::Diverted(Box::new(capture));
                Action::Pause
            }
            (false, Start::Hold) => {
                self.hold(vm, &capture);
                self.stage = Stage::Captured(Box::new(capture));
                Action::Pause
            }
        }
    }

    /// The request is live traffic from now on: while its sender takes its time over the body, its destination sees nothing.
    fn go_to_router(&mut self, vm: &mut Vm) -> Action {
        begin_live(&mut self.live, vm);
        Action::Continue
    }

    /// The first attempt gets the key that redeliveries will carry, if the sender sent none and the operator wants it.
    fn inject(&mut self, vm: &mut Vm, arrived: &HeaderList) {
        let config = vm.config.clone();
        let idempotency = &config.idempotency;
        match idempotency.inject {
            Inject::On if arrived.first(&idempotency.header).is_none() => {
                let origin = Origin::read(arrived, vm.config.trust.senders).ok().and_then(|origin| origin.id);
                let id = origin.unwrap_or_else(|| vm.new_id());
                host::add_request_header(&idempotency.header, &id.to_string());
                self.injected = Some(id);
            }
            Inject::On | Inject::Off => {}
        }
    }

    /// The request has waited for as much of its body as it could, and goes on unless something stored stands in its way.
    fn go_on(&mut self, vm: &mut Vm, capture: Capture, onward: Onward) -> Action {
        let body = capture.whole_body().ok();
        match (vm.delivery.look_before(&vm.memory, &capture.arrived, body, &Route, &host::now), onward) {
            (Look::Joins(id), _) => self.join(vm, id, &capture),
            (Look::ReusesKey, _) => self.refuse_key(&capture),
            (Look::MustWait, _) => self.queue(vm, capture),
            (Look::Passes, Onward::Store) => self.divert(vm, capture),
            (Look::Passes, Onward::Router) => {
                self.stage = Stage::Captured(Box::new(capture));
                self.go_to_router(vm)
            }
        }
    }

    /// The sender is told what it was told before.
    fn join(&mut self, vm: &Vm, id: MessageId, capture: &Capture) -> Action {
        vm.count(Counter::DuplicatesJoined, 1);
        host::reply(&reply::duplicate(id, asked_async(&capture.arrived)), capture.protocol);
        self.stage = Stage::Pass;
        Action::Pause
    }

    fn refuse_key(&mut self, capture: &Capture) -> Action {
        host::reply(&reply::key_reused(), capture.protocol);
        self.stage = Stage::Pass;
        Action::Pause
    }

    /// Stores a request behind earlier messages of its key; if that cannot be, it must not overtake them either.
    fn queue(&mut self, vm: &mut Vm, mut capture: Capture) -> Action {
        self.stage = Stage::Pass;
        match storing::store(vm, &mut capture, Route.cluster(), Trigger::Behind, self.injected, host::now()) {
            Ok(stored) => {
                host::reply(&reply::accepted(stored.id, asked_async(&capture.arrived)), capture.protocol);
            }
            Err(Untaken::NotStored(reason)) => vm.refuse_to_overtake(reason, capture.protocol),
            Err(Untaken::Joins(id)) => return self.join(vm, id, &capture),
            Err(Untaken::ReusesKey) => return self.refuse_key(&capture),
        }
        Action::Pause
    }

    /// Whether `hold_while_down` applies: the destination is down right now. Its name is worth a host call only if some
    /// destination is held back. A gRPC call gets its original status, which only the router can say.
    fn is_diverted(&self, vm: &Vm, protocol: Protocol) -> bool {
        vm.config.any_hold_while_down == HoldWhileDown::On
            && protocol == Protocol::Http
            && Route.cluster().is_some_and(|cluster| match vm.config.of(&cluster).hold_while_down {
                HoldWhileDown::Off => false,
                HoldWhileDown::On => vm.delivery.is_down(&vm.memory, &cluster, host::monotonic()),
            })
    }

    fn hold(&self, vm: &mut Vm, capture: &Capture) {
        // The size is needed only until the first body callback has shown that the option is there.
        let total = match vm.body_seen {
            BodySeen::No => host::number_property("request\0total_size").unwrap_or_default(),
            BodySeen::Yes => 0,
        };
        let line = vm.delivery.line_of(&capture.arrived, &Route);
        let (hold, protocol) = (Hold::new(total), capture.protocol);
        vm.held.insert(self.context, Held::Waiting { hold, line, protocol });
    }

    /// Stores a request for a destination that is down, or lets it go on if it cannot be stored.
    fn divert(&mut self, vm: &mut Vm, capture: Capture) -> Action {
        let mut tried = capture.clone();
        match storing::store(vm, &mut tried, Route.cluster(), Trigger::Down, self.injected, host::now()) {
            Ok(stored) => {
                host::reply(&reply::accepted(stored.id, asked_async(&tried.arrived)), tried.protocol);
                self.stage = Stage::Pass;
                Action::Pause
            }
            Err(Untaken::Joins(id)) => self.join(vm, id, &tried),
            Err(Untaken::ReusesKey) => self.refuse_key(&tried),
            Err(Untaken::NotStored(_)) => {
                // The router is asked after all: its answer decides, and says why if it is not stored again.
                self.stage = Stage::Captured(Box::new(capture));
                self.go_to_router(vm)
            }
        }
    }

    fn request_body(&mut self, vm: &mut Vm, size: usize, end: EndOfStream) -> Action {
        let (Stage::Captured(capture) | Stage::Diverted(capture)) = &mut self.stage else { return Action::Continue };
        match vm.held.get(&self.context) {
            None => {}
            Some(Held::Waiting { .. }) => vm.body_seen = BodySeen::Yes,
            Some(Held::Answered) => return Action::Pause,
            Some(Held::Released { .. }) => {
                capture.let_go();
                vm.went_on(self.context);
                begin_live(&mut self.live, vm);
            }
        }
        let size_bytes = host::byte_count(size);
        let start = match capture.body(size_bytes, vm.regime.body_bytes_max, vm.copies) {
            BodyStep::Copy => {
                vm.copies = vm.copies.plus(size_bytes);
                self.copied = self.copied.plus(size_bytes);
                capture.copied(host::request_body(size), size_bytes, end)
            }
            BodyStep::Continue => Start::Continue,
        };
        let (has_copy, received) = (capture.has_copy(), capture.held_bytes().unwrap_or_default());
        if !has_copy {
            self.give_back(vm);
        }
        match start {
            Start::Continue => self.body_done(vm),
            Start::Hold => {
                if let Some(Held::Waiting { hold, .. }) = vm.held.get_mut(&self.context) {
                    hold.progress(received);
                }
                Action::Pause
            }
        }
    }

    /// The copy of the body is not needed any more, or has gone into the store.
    fn give_back(&mut self, vm: &mut Vm) {
        let copied = std::mem::take(&mut self.copied);
        vm.copies = ByteCount(vm.copies.0.saturating_sub(copied.0));
    }

    /// The body goes on: it is whole, passing by, or too long. What has been held until now is looked at before.
    fn body_done(&mut self, vm: &mut Vm) -> Action {
        let was_held = matches!(vm.held.remove(&self.context), Some(Held::Waiting { .. }));
        match std::mem::replace(&mut self.stage, Stage::Pass) {
            Stage::Diverted(capture) if was_held => self.go_on(vm, *capture, Onward::Store),
            Stage::Captured(capture) if was_held => self.go_on(vm, *capture, Onward::Router),
            Stage::Diverted(capture) => self.divert(vm, *capture),
            stage @ (Stage::Captured(_) | Stage::Answering(_) | Stage::Pass | Stage::Opening(_)) => {
                self.stage = stage;
                Action::Continue
            }
        }
    }

    fn request_trailers(&mut self, vm: &mut Vm) -> Action {
        if let Stage::Captured(capture) | Stage::Diverted(capture) = &mut self.stage {
            capture.trailers();
        }
        match vm.held.get(&self.context) {
            Some(Held::Answered) => Action::Pause,
            // A request with trailers is not stored: it goes on, even if its destination is down.
            Some(Held::Waiting { .. }) | None => self.body_done(vm),
            Some(Held::Released { .. }) => {
                self.go_to_router(vm);
                self.body_done(vm)
            }
        }
    }

    fn response_headers(&mut self, vm: &mut Vm, end: EndOfStream) -> Action {
        let stage = std::mem::replace(&mut self.stage, Stage::Pass);
        let (Stage::Captured(capture) | Stage::Diverted(capture)) = stage else {
            self.stage = stage;
            return Action::Continue;
        };
        match vm.held.remove(&self.context) {
            // This is our own answer.
            Some(Held::Answered) => {
                self.give_back(vm);
                return Action::Continue;
            }
            Some(Held::Waiting { .. } | Held::Released { .. }) | None => {}
        }
        let headers = host::response_headers();
        let glance = Glance::at(&headers);
        if glance.own.is_some() {
            unbelieved(&headers, vm.config.trust.receivers).for_each(|name| Part::Headers.remove(name));
        }
        let status = glance.status_code().unwrap_or_default();
        let is_unsaid = glance.grpc_status.is_none();
        match (capture.protocol, status, end) {
            (Protocol::Grpc, 200, EndOfStream::No) if is_unsaid => {
                self.stage = Stage::Answering(capture);
                Action::Continue
            }
            (Protocol::Http | Protocol::Grpc, _, EndOfStream::Yes | EndOfStream::No) => {
                let is_success = status < 400 && (is_unsaid || glance.grpc_status == Some(b"0"));
                self.answered(vm, *capture, status, Answered { part: Part::Headers, headers, is_success })
            }
        }
    }

    fn response_trailers(&mut self, vm: &mut Vm) {
        let stage = std::mem::replace(&mut self.stage, Stage::Pass);
        let Stage::Answering(capture) = stage else {
            self.stage = stage;
            return;
        };
        let headers = host::response_trailers();
        unbelieved(&headers, vm.config.trust.receivers).for_each(|name| Part::Trailers.remove(name));
        // What ends badly after a message has given its sender a part of the answer: it was no unary call.
        let is_success = matches!(headers.first(GRPC_STATUS), None | Some(b"0"))
            || host::number_property("response\0size").is_some_and(|size| size > 0);
        self.answered(vm, *capture, 200, Answered { part: Part::Trailers, headers, is_success });
    }

    /// The answer is known: hands it on, or takes custody.
    fn answered(&mut self, vm: &mut Vm, mut capture: Capture, status: u16, answered: Answered) -> Action {
        let Answered { part, headers, is_success } = answered;
        self.give_back(vm);
        if is_success || has_custody(&headers, vm.config.trust.receivers) {
            if vm.delivery.is_in_trouble() {
                witness(vm, Route.cluster().as_ref(), Sign::Success, host::monotonic);
            }
            return Action::Continue;
        }
        let facts = answer_facts(status, &headers);
        let cluster = Route.cluster();
        let custody = decide(vm, cluster.as_ref(), &capture, &facts);
        let taken_at = (custody == Custody::Take).then(host::now);
        let clock = || taken_at.map_or_else(host::monotonic, |now| now.monotonic);
        witness(vm, cluster.as_ref(), sign(&facts), clock);
        if custody != Custody::Pass && vm.config.trust.receivers == Trust::Given {
            // A neighbour's word, if there is one: ours takes its place.
            forged(&headers).for_each(|name| part.remove(name));
        }
        match custody {
            Custody::Pass => Action::Continue,
            Custody::Decline => not_stored(vm, NotStored::UnknownOutcome, part),
            Custody::Take => match storing::store(
                vm,
                &mut capture,
                cluster,
                Trigger::Failure,
                self.injected,
                taken_at.unwrap_or_else(host::now),
            ) {
                Ok(stored) => self.stored(vm, stored, &capture, part),
                Err(Untaken::NotStored(reason)) => not_stored(vm, reason, part),
                Err(Untaken::Joins(id)) => self.join_failed(vm, id, &capture, part),
                Err(Untaken::ReusesKey) => self.refuse_key_of_failed(vm, &capture, part),
            },
        }
    }

    fn stored(&mut self, vm: &Vm, stored: Stored, capture: &Capture, part: Part) -> Action {
        if let Some(opening) = stored.opening {
            self.stage = Stage::Opening(Box::new(opening));
        }
        match (vm.config.reply, capture.protocol) {
            (Reply::Accepted, Protocol::Http) => {
                host::reply(&reply::accepted(stored.id, asked_async(&capture.arrived)), capture.protocol);
                Action::Pause
            }
            (Reply::Original, Protocol::Http | Protocol::Grpc) | (Reply::Accepted, Protocol::Grpc) => {
                for (name, value) in reply::stored_headers(stored.id) {
                    part.add(name, &value);
                }
                Action::Continue
            }
        }
    }

    /// The key became known while the request was on its way: its failure is nothing new. A call keeps its status.
    fn join_failed(&mut self, vm: &Vm, id: MessageId, capture: &Capture, part: Part) -> Action {
        match capture.protocol {
            Protocol::Http => self.join(vm, id, capture),
            Protocol::Grpc => {
                vm.count(Counter::DuplicatesJoined, 1);
                for (name, value) in reply::duplicate_headers(id) {
                    part.add(name, &value);
                }
                Action::Continue
            }
        }
    }

    fn refuse_key_of_failed(&mut self, vm: &Vm, capture: &Capture, part: Part) -> Action {
        match capture.protocol {
            Protocol::Http => self.refuse_key(capture),
            Protocol::Grpc => not_stored(vm, NotStored::Unstorable, part),
        }
    }

    /// The end of the stream: the routed form of a request without a body shows only here.
    fn log(&mut self, vm: &mut Vm) {
        vm.held.remove(&self.context);
        self.live = None;
        self.give_back(vm);
        let Stage::Opening(opening) = std::mem::replace(&mut self.stage, Stage::Pass) else { return };
        let (ticket, message) = *opening;
        storing::complete(vm, ticket, message);
    }
}

/// The callbacks.
impl Stream {
    /// The request's headers have come.
    pub fn on_request_headers(&mut self, has_body: HasBody) -> Action {
        self.with_vm(Action::Continue, |stream, vm| stream.request_headers(vm, has_body))
    }

    /// A piece of the request's body has come, `size` bytes long.
    pub fn on_request_body(&mut self, size: usize, end: EndOfStream) -> Action {
        self.with_vm(Action::Continue, |stream, vm| stream.request_body(vm, size, end))
    }

    /// The request's trailers have come.
    pub fn on_request_trailers(&mut self) -> Action {
        self.with_vm(Action::Continue, Self::request_trailers)
    }

    /// The answer's headers have come.
    pub fn on_response_headers(&mut self, end: EndOfStream) -> Action {
        self.with_vm(Action::Continue, |stream, vm| stream.response_headers(vm, end))
    }

    /// The answer's trailers have come.
    pub fn on_response_trailers(&mut self) {
        self.with_vm((), Self::response_trailers);
    }

    /// The stream is over.
    pub fn on_log(&mut self) {
        self.with_vm((), Self::log);
    }
}

/// An answer whose status is known.
struct Answered {
    /// Where its status is.
    part: Part,
    /// That part.
    headers: HeaderList,
    /// Whether it is no failure at first sight.
    is_success: bool,
}

/// Counts a stream as live traffic, once whichever way it comes.
fn begin_live(live: &mut Option<LiveRequest>, vm: &mut Vm) {
    *live = None;
    *live = vm.delivery.begin_live(|| Route.cluster());
}

fn decide(vm: &Vm, cluster: Option<&ClusterName>, capture: &Capture, facts: &AnswerFacts) -> Custody {
    let failure = &cluster.map_or(&vm.config.shared, |cluster| vm.config.of(cluster)).failure;
    let method = capture.arrived.first(":method").unwrap_or_default();
    let key = capture.arrived.first(&vm.config.idempotency.header);
    custody(classify(facts, failure), failure.unknown_outcome, repeatable(method, key))
}

fn not_stored(vm: &Vm, reason: NotStored, part: Part) -> Action {
    vm.count(Counter::NotStored, 1);
    let (name, value) = reply::not_stored_header(reason);
    part.add(name, &value);
    Action::Continue
}

fn witness(vm: &mut Vm, cluster: Option<&ClusterName>, sign: Sign, clock: impl FnOnce() -> Monotonic) {
    if let (Some(cluster), true) = (cluster, sign != Sign::Nothing) {
        vm.delivery.witness(&vm.memory, cluster, sign, clock());
    }
}

/// Whether this is a redelivery of our own on its way through a listener: its message is in the store already.
fn is_our_own(vm: &Vm, headers: &HeaderList) -> bool {
    let shown = headers.first(HEADER_PASS);
    let is_ours = shown.is_some_and(|pass| Pass::is_shown(&vm.memory, vm.delivery.keys(), pass));
    if is_ours {
        host::remove_request_header(HEADER_PASS);
    }
    is_ours
}

fn asked_async(arrived: &HeaderList) -> AskedAsync {
    if prefers_async(arrived) { AskedAsync::Yes } else { AskedAsync::No }
}

#[cfg(feature = "trap")]
fn trap_if_told(headers: &HeaderList, vm: &mut Vm) {
    match headers.first("x-redeliver-trap") {
        Some(b"request") => crate::vm::trap(),
        Some(b"worker-tick") => vm.trap_at_tick = true,
        Some(b"main") => vm.tell_main_thread_to_trap(),
        Some(_) | None => {}
    }
}
