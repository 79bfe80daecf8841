//! Sending and settling: claim, dispatch, answer, settle, and the next one at once.

use super::calls::{read_call, wait_of_call};
use super::{CallToken, Delivery, note};
use crate::answer::{self, Answer, Contact, EnvoyReply, Fate, Reading};
use crate::config::{KeyOrder, OnDeadHead, Order, Trust};
use crate::courier::{self, judge, spot_of, stopped};
use crate::effect::{Attempt, Call, Counter, Dispatch, Effect, Level};
use crate::grpc::Protocol;
use crate::headers::HeaderList;
use crate::hint::ReadyHint;
use crate::memory::SharedMemory;
use crate::message::{Road, Terms};
use crate::neighbours::has_custody;
use crate::pass::Pass;
use crate::retry_after::asked_wait;
use crate::schedule::Stopped;
use crate::slot::{DeadReason, DestinationIndex, Head, RuleDigest, SlotState};
use crate::store::{Claim, ClaimError, Now, Settlement, Ticket};
use crate::units::{ClusterName, Millis, Wall};

/// An answer later than its timeout by this much cannot come any more: the dispatch's own timer has long ended it.
const LATE_MAX: Millis = Millis(2_000);

/// A message that has to wait for one that this VM did not know is looked at again after this long, if the other's end
/// does not wake it: the other one may still be being stored.
const LOOK_AGAIN: Millis = Millis(500);

/// What came back for a call: headers (empty: the answer broke off) and, if it is asked for, the body.
pub struct Reply<'a> {
    /// The answer's headers.
    pub headers: HeaderList,
    /// Reads the body from the host; only Envoy's own replies and the admin port's answers are read.
    pub body: &'a dyn Fn() -> Vec<u8>,
    /// Reads the trailers from the host; only a gRPC call's are read.
    pub trailers: &'a dyn Fn() -> HeaderList,
}

impl Delivery {
    /// A dispatch went out, or the host refused it on the spot.
    pub fn dispatched(
        &mut self,
        memory: &dyn SharedMemory,
        call: Call,
        outcome: Result<CallToken, Answer>,
        now: Now,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match (outcome, call) {
            // This VM may have stood still since it chose to send: what the receiver answered before is no sign that it
            // answers now.
            (Ok(token), Call::Attempt(attempt)) => {
                self.calls.insert(token, Call::Attempt(Attempt { sent_at: now.monotonic, ..attempt }));
            }
            (Ok(token), call @ (Call::LapsedAttempt(_) | Call::HealthCheck(_) | Call::AdminStats(_))) => {
                self.calls.insert(token, call);
            }
            (Err(answer), Call::Attempt(attempt) | Call::LapsedAttempt(attempt)) => {
                self.settle(memory, &attempt, answer::read(answer), now, &mut effects)
            }
            (Err(_), Call::HealthCheck(_) | Call::AdminStats(_)) => {
                self.poll_failed(memory, call, now.monotonic, &mut effects)
            }
        }
        effects
    }

    /// The answer to a call.
    pub fn answered(
        &mut self,
        memory: &dyn SharedMemory,
        token: CallToken,
        reply: &Reply<'_>,
        now: Now,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match self.calls.remove(&token) {
            None => {}
            Some(Call::Attempt(attempt)) => {
                let reading = self.read(&attempt, reply, now.wall);
                self.settle(memory, &attempt, reading, now, &mut effects);
            }
            Some(Call::LapsedAttempt(attempt)) => {
                let reading = self.read(&attempt, reply, now.wall);
                self.settle_late(memory, &attempt, reading, now, &mut effects);
            }
            Some(Call::HealthCheck(destination)) => {
                self.health_checked(memory, destination, reply, now.monotonic, &mut effects)
            }
            Some(Call::AdminStats(destination)) => {
                self.admin_answered(memory, destination, reply, now.monotonic, &mut effects)
            }
        }
        effects
    }

    /// What an answer means, and how long it asks us at `wall` to wait with the next attempt, if there will be one.
    fn read(&self, attempt: &Attempt, reply: &Reply<'_>, wall: Wall) -> Reading {
        let policy = self.policy(attempt.destination);
        let way = Way { receivers: self.config.trust.receivers, through: policy.redelivery.through.as_ref() };
        let reading = answer::read(match attempt.protocol {
            Protocol::Http => read_reply(reply, way),
            Protocol::Grpc => read_call(reply, way),
        });
        let asked_wait = match reading.fate {
            Fate::Failed | Fate::NotReached => match attempt.protocol {
                Protocol::Http => asked_wait(&reply.headers, wall),
                Protocol::Grpc => wait_of_call(reply, wall),
            },
            Fate::Delivered | Fate::Unauthorized | Fate::Rejected | Fate::Unsendable => Millis::ZERO,
        };
        Reading { asked_wait, ..reading }
    }

    /// Sends what is due, as far as the destination's state and window allow. An answer may find the lease lapsed: then
    /// another VM may be sending already, and this one's next tick tells.
    pub(super) fn send_due(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let is_leading = self.couriers.get(&destination).is_some_and(|courier| courier.lease_until > now.monotonic);
        if !is_leading || !self.sweep.has_seen_all(destination) {
            return;
        }
        // Each turn sends one message or removes one from the schedule; a window's worth and some dead ones per call.
        for _ in 0..SEND_TURNS_MAX {
            let Some(ticket) = self.couriers.get_mut(&destination).and_then(|courier| courier.next(now.monotonic))
            else {
                return;
            };
            if self.send(memory, destination, ticket, now, effects).is_none() {
                return;
            }
        }
    }

    /// Claims and sends one message. `None`: another VM interferes, leave it for the next tick.
    fn send(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        ticket: Ticket,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<()> {
        if let Some(ahead) = self.ahead_of(memory, destination, ticket, now) {
            return self.wait_behind(memory, destination, ticket, ahead, now, effects);
        }
        let epoch = self.couriers.get(&destination)?.epoch;
        let policy = self.policy(destination);
        let until = now.monotonic.after(policy.redelivery.timeout).after(LATE_MAX);
        let ttl = policy.store.ttl;
        match self.store(memory).claim(ticket, epoch, until, ttl, now) {
            Ok(claim) if self.name(destination) != Some(&claim.message.cluster) => {
                self.bury_misplaced(memory, destination, ticket, &claim, now, effects);
            }
            Ok(claim) => {
                let courier = self.couriers.get_mut(&destination)?;
                courier.out(ticket, claim.head.stored_at, spot_of(&claim.head, &policy.redelivery), epoch, until);
                let attempt = Attempt {
                    destination,
                    ticket,
                    protocol: claim.message.protocol(),
                    epoch,
                    large: claim.large,
                    head: claim.head,
                    sent_at: now.monotonic,
                };
                effects.push(Effect::Count(Counter::Attempts, 1));
                effects.push(self.dispatch_of(memory, attempt, claim)?);
            }
            Err(ClaimError::Busy) => return None,
            Err(ClaimError::Gone) => self.forget(destination, ticket),
            Err(ClaimError::Settled) => {
                self.forget(destination, ticket);
                effects.push(Effect::Count(Counter::Delivered, 1));
            }
            Err(ClaimError::Corrupt) => {
                self.bury_waiting(memory, destination, ticket, DeadReason::Corrupt, now, effects)
            }
            Err(ClaimError::Expired) => {
                self.bury_waiting(memory, destination, ticket, DeadReason::Expired, now, effects)
            }
        }
        Some(())
    }

    /// The message that this one has to wait for, as the slots say it: what this VM remembers of the line may be less.
    fn ahead_of(
        &self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        ticket: Ticket,
        now: Now,
    ) -> Option<Ticket> {
        let on_dead_head = self.on_dead_head(destination)?;
        let is_ordered = self.couriers.get(&destination).is_some_and(|courier| courier.is_ordered(ticket));
        if is_ordered { self.store(memory).ahead_of(ticket, on_dead_head, now.monotonic) } else { None }
    }

    /// What a dead letter does to its line; `None` if messages to this destination are not ordered.
    pub(super) fn on_dead_head(&self, destination: DestinationIndex) -> Option<OnDeadHead> {
        match &self.policy(destination).redelivery.order {
            Order::None => None,
            Order::ByKey(KeyOrder { on_dead_head, .. }) => Some(*on_dead_head),
        }
    }

    /// Another message of the same line comes first, and this VM did not know: its hint was lost, or went elsewhere. `None`:
    /// this one is offered all the same (a probe does not go by due times), leave it for the next tick.
    fn wait_behind(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        ticket: Ticket,
        ahead: Ticket,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<()> {
        match self.store(memory).head(ahead.slot) {
            Ok(_) => self.sweep_slot(memory, ahead.slot, now, effects),
            Err(_) => self.mend(memory, ahead.slot, now, effects),
        }
        let courier = self.couriers.get_mut(&destination)?;
        courier.postpone(ticket, now.monotonic.after(LOOK_AGAIN));
        (courier.next(now.monotonic) != Some(ticket)).then_some(())
    }

    /// The table of destinations says another name than the message: it was damaged once. Better kept than sent there.
    fn bury_misplaced(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        ticket: Ticket,
        claim: &Claim,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let claimed = |head: &Head| *head == claim.head;
        if let Ok(head) = self.store(memory).bury(ticket, DeadReason::Corrupt, 0, now.wall, claimed) {
            self.tell_of_death(&head, DeadReason::Corrupt, effects);
        }
        self.leave_dead(memory, destination, ticket);
    }

    fn dispatch_of(&mut self, memory: &dyn SharedMemory, attempt: Attempt, claim: Claim) -> Option<Effect> {
        let config = self.config.clone();
        let destination = self.name(attempt.destination)?.clone();
        let redelivery = &config.of(&destination).redelivery;
        let timeout = redelivery.timeout;
        let (cluster, road) = match &redelivery.through {
            None => {
                let authority = config.destinations.get(&destination).and_then(|found| found.authority.as_deref());
                (destination, Road::Straight { authority })
            }
            Some(through) => (through.clone(), Road::Through(self.pass(memory))),
        };
        let terms = Terms { attempt: claim.head.sends, key_header: &config.idempotency.header, road, timeout };
        let headers = claim.message.request(&terms);
        let call = Call::Attempt(attempt);
        Some(Effect::Dispatch(Box::new(Dispatch { call, cluster, headers, body: claim.message.body, timeout })))
    }

    /// What a redelivery shows on its way through a listener. If it cannot be had just now, one that nobody knows: then a
    /// filter there takes the redelivery for a request, once.
    fn pass(&mut self, memory: &dyn SharedMemory) -> Pass {
        let [low, high] = [self.random.next(), self.random.next()].map(u64::to_le_bytes);
        let mut fresh = [0; 16];
        fresh.iter_mut().zip(low.into_iter().chain(high)).for_each(|(byte, random)| *byte = random);
        Pass::of_store(memory, &self.keys, Pass(fresh)).unwrap_or(Pass(fresh))
    }

    pub(super) fn forget(&mut self, destination: DestinationIndex, ticket: Ticket) {
        if let Some(courier) = self.couriers.get_mut(&destination) {
            courier.forget(ticket);
        }
    }

    /// The message was buried, by this VM or another: nobody waits for it any more, unless dead letters hold others up.
    pub(super) fn leave_dead(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex, ticket: Ticket) {
        let stopped = match self.on_dead_head(destination) {
            None | Some(OnDeadHead::Release) => None,
            Some(OnDeadHead::Block) => self.stopped(memory, ticket),
        };
        match (self.couriers.get_mut(&destination), stopped) {
            (Some(courier), Some(stopped)) => courier.stop(ticket, stopped),
            (Some(courier), None) => courier.forget(ticket),
            (None, _) => {}
        }
    }

    /// What a message that is not to be sent still is to others, as its head says.
    pub(super) fn stopped(&self, memory: &dyn SharedMemory, ticket: Ticket) -> Option<Stopped> {
        let (head, _) = self.store(memory).head(ticket.slot).ok().flatten()?;
        let is_it = head.generation == ticket.generation;
        if is_it { stopped(&head, &self.policy(head.destination).redelivery) } else { None }
    }

    /// Makes a waiting message a dead letter.
    pub(super) fn bury_waiting(
        &mut self,
        memory: &dyn SharedMemory,
        destination: DestinationIndex,
        ticket: Ticket,
        reason: DeadReason,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let is_waiting = |head: &Head| matches!(head.state, SlotState::Queued { .. } | SlotState::Opening { .. });
        let status = self.store(memory).head(ticket.slot).ok().flatten().map_or(0, |(head, _)| head.last_status);
        if let Ok(head) = self.store(memory).bury(ticket, reason, status, now.wall, is_waiting) {
            self.tell_of_death(&head, reason, effects);
        }
        self.leave_dead(memory, destination, ticket);
    }

    /// Counts and logs a new dead letter. Ids and client text stay out of the log.
    pub(super) fn tell_of_death(&self, head: &Head, reason: DeadReason, effects: &mut Vec<Effect>) {
        effects.push(Effect::Count(Counter::DeadLettered, 1));
        match reason {
            DeadReason::Expired => effects.push(Effect::Count(Counter::Expired, 1)),
            DeadReason::Corrupt => effects.push(Effect::Count(Counter::Corrupt, 1)),
            DeadReason::Rejected | DeadReason::Attempts | DeadReason::Unstorable => {}
        }
        let cluster = self.name(head.destination).map_or("?", |name| name.0.as_str());
        let text = format!(
            "destination {cluster}: dead letter ({reason}; {} attempts failed, last status {})",
            head.attempts, head.last_status
        );
        effects.push(note(Level::Warn, text));
    }

    /// Ends an attempt: the slot first, then what this VM remembers, then the next message.
    fn settle(
        &mut self,
        memory: &dyn SharedMemory,
        attempt: &Attempt,
        reading: Reading,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let policy = self.policy(attempt.destination);
        let terms = courier::Terms { redelivery: &policy.redelivery, rule: RuleDigest(self.digest) };
        let leads = self.couriers.get_mut(&attempt.destination);
        let settlement = match leads {
            Some(courier) => courier.judge(attempt, reading, terms, &mut self.random, now.monotonic),
            None => judge(attempt, reading, None, terms, &mut self.random, now.monotonic),
        };
        let outcome = self.store(memory).settle(attempt.ticket, attempt.epoch, attempt.large, settlement, now.wall);
        if settlement != Settlement::Delivered {
            effects.push(Effect::Count(Counter::AttemptFailures, 1));
        }
        if let Ok(head) = &outcome {
            self.tell_of_end(head, settlement, now, effects);
        }
        let is_ours = outcome.is_ok();
        let is_leading =
            self.couriers.get(&attempt.destination).is_some_and(|courier| courier.lease_until > now.monotonic);
        if let (true, false, Settlement::Again { due, .. }) = (is_ours, is_leading, settlement) {
            // Whoever leads now may have given the message up when it was out from here.
            let spot = attempt.head.place.map(|place| place.spot);
            let hint = ReadyHint { ticket: attempt.ticket, due, stored_at: attempt.head.stored_at, spot };
            self.store(memory).hint_ready(attempt.destination, hint);
        }
        let Some(courier) = self.couriers.get_mut(&attempt.destination) else { return };
        let change = courier.settled(attempt, reading, settlement, &policy, now.monotonic);
        if !is_ours {
            courier.forget(attempt.ticket);
        }
        if let Some(change) = change {
            self.tell(memory, attempt.destination, change, now.monotonic, effects);
        }
        match reading.contact {
            // Refused on the spot: the next tick is soon enough, and bounds what one callback does.
            Contact::NotAsked | Contact::Unknown => {}
            Contact::Answered
            | Contact::Overloaded
            | Contact::Gateway
            | Contact::Trouble
            | Contact::NotReached
            | Contact::Nothing => {
                self.send_due(memory, attempt.destination, now, effects);
            }
        }
    }

    /// The answer to an attempt that was given up: it arrived after all, or there is nothing to say.
    fn settle_late(
        &mut self,
        memory: &dyn SharedMemory,
        attempt: &Attempt,
        reading: Reading,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if reading.fate != Fate::Delivered {
            return;
        }
        let end = Settlement::Delivered;
        // Gone: the receipt stands all the same, and whoever claims the message next finds it.
        if let Ok(head) = self.store(memory).settle(attempt.ticket, attempt.epoch, attempt.large, end, now.wall) {
            self.tell_of_end(&head, end, now, effects);
        }
    }

    /// `head`: as the settlement left it, or as it was before it was freed.
    fn tell_of_end(&self, head: &Head, settlement: Settlement, now: Now, effects: &mut Vec<Effect>) {
        match settlement {
            Settlement::Delivered => {
                effects.push(Effect::Count(Counter::Delivered, 1));
                effects.push(Effect::DeliveryDelay(now.wall.since(head.stored_at)));
            }
            Settlement::Again { .. } => {}
            Settlement::Parked { status, .. } => {
                let cluster = self.name(head.destination).map_or("?", |name| name.0.as_str());
                let text =
                    format!("destination {cluster}: a message is parked ({status}) until the configuration changes");
                effects.push(note(Level::Warn, text));
            }
            Settlement::Dead { reason, .. } => self.tell_of_death(head, reason, effects),
        }
    }
}

/// Turns of one call of `send_due`: the largest window, and as many messages that turn out to be gone.
const SEND_TURNS_MAX: usize = 2_000;

/// Which way an answer came.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    /// Whether receivers may say that they have custody.
    pub receivers: Trust,
    /// The listener that the request went through.
    pub through: Option<&'a ClusterName>,
}

pub(super) fn read_reply(reply: &Reply<'_>, way: Way<'_>) -> Answer {
    let status = reply.headers.first(":status").and_then(|text| std::str::from_utf8(text).ok()?.parse::<u16>().ok());
    match status {
        None => Answer::BrokenOff,
        Some(status) if has_custody(&reply.headers, way.receivers) => Answer::TakenOver(status),
        Some(status) if reply.headers.first("x-envoy-upstream-service-time").is_some() => {
            received(status, way.through, reply.body)
        }
        // Envoy makes only these by itself; whatever else lacks the header is an answer all the same.
        Some(status @ (502..=504)) => Answer::Envoy(EnvoyReply::read(status, &(reply.body)())),
        Some(status) => Answer::Received(status),
    }
}

/// An answer that came from somebody. On the way through a listener that may be Envoy again: the listener's router, which
/// did not get to the destination. Its own answers then carry the header too, and only their text tells.
fn received(status: u16, through: Option<&ClusterName>, body: &dyn Fn() -> Vec<u8>) -> Answer {
    match (through, status) {
        (Some(_), 502..=504) => EnvoyReply::recognise(status, &body()).map_or(Answer::Received(status), Answer::Envoy),
        (Some(_) | None, _) => Answer::Received(status),
    }
}
