//! Sending and settling: claim, dispatch, answer, settle, and the next one at once.

use super::{CallToken, Delivery, note};
use crate::answer::{self, Answer, Contact, EnvoyReply, Fate};
use crate::config::{KeyOrder, OnDeadHead, Order};
use crate::courier::{held_up, judge, spot_of};
use crate::effect::{Attempt, Call, Counter, Dispatch, Effect, Level};
use crate::headers::HeaderList;
use crate::memory::SharedMemory;
use crate::slot::{DeadReason, DestinationIndex, Head, SlotState, Spot};
use crate::store::{Claim, ClaimError, Now, ReadyHint, Settlement, Ticket};
use crate::units::Millis;

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
            (Ok(token), call) => {
                self.calls.insert(token, call);
            }
            (Err(answer), Call::Attempt(attempt) | Call::LapsedAttempt(attempt)) => {
                self.settle(memory, &attempt, answer, now, &mut effects)
            }
            (Err(_), Call::HealthCheck(_) | Call::AdminStats) => {
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
            Some(Call::Attempt(attempt)) => self.settle(memory, &attempt, read_reply(reply), now, &mut effects),
            Some(Call::LapsedAttempt(attempt)) => {
                self.settle_late(memory, &attempt, read_reply(reply), now, &mut effects)
            }
            Some(Call::HealthCheck(destination)) => {
                self.health_checked(memory, destination, reply, now.monotonic, &mut effects)
            }
            Some(Call::AdminStats) => self.admin_answered(memory, reply, now.monotonic, &mut effects),
        }
        effects
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
            let Some(ticket) = self.couriers.get(&destination).and_then(|courier| courier.next(now.monotonic)) else {
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
        let until = now.monotonic.after(self.config.redelivery.timeout).after(LATE_MAX);
        let ttl = self.config.store.ttl;
        match self.store(memory).claim(ticket, epoch, until, ttl, now) {
            Ok(claim) if self.name(destination) != Some(&claim.message.cluster) => {
                self.bury_misplaced(memory, destination, ticket, &claim, now, effects);
            }
            Ok(claim) => {
                let courier = self.couriers.get_mut(&destination)?;
                courier.out(ticket, claim.head.stored_at, spot_of(&claim.head, &self.config.redelivery), epoch, until);
                let attempt = Attempt {
                    destination,
                    ticket,
                    epoch,
                    large: claim.large,
                    head: claim.head,
                    sent_at: now.monotonic,
                };
                effects.push(Effect::Count(Counter::Attempts, 1));
                effects.push(self.dispatch_of(attempt, claim)?);
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
        let on_dead_head = self.on_dead_head()?;
        let is_ordered = self.couriers.get(&destination).is_some_and(|courier| courier.is_ordered(ticket));
        if is_ordered { self.store(memory).ahead_of(ticket, on_dead_head, now.monotonic) } else { None }
    }

    /// What a dead letter does to its line; `None` if messages are not ordered.
    pub(super) fn on_dead_head(&self) -> Option<OnDeadHead> {
        match &self.config.redelivery.order {
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
        self.sweep_slot(memory, ahead.slot, now, effects);
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

    fn dispatch_of(&self, attempt: Attempt, claim: Claim) -> Option<Effect> {
        let cluster = self.name(attempt.destination)?.clone();
        let authority = self.config.destinations.get(&cluster).and_then(|found| found.authority.as_deref());
        let headers = claim.message.request(claim.head.sends, &self.config.idempotency.header, authority);
        let timeout = self.config.redelivery.timeout;
        let call = Call::Attempt(attempt);
        Some(Effect::Dispatch(Box::new(Dispatch { call, cluster, headers, body: claim.message.body, timeout })))
    }

    pub(super) fn forget(&mut self, destination: DestinationIndex, ticket: Ticket) {
        if let Some(courier) = self.couriers.get_mut(&destination) {
            courier.forget(ticket);
        }
    }

    /// The message was buried, by this VM or another: nobody waits for it any more, unless dead letters hold others up.
    pub(super) fn leave_dead(&mut self, memory: &dyn SharedMemory, destination: DestinationIndex, ticket: Ticket) {
        let held_up = match self.on_dead_head() {
            None | Some(OnDeadHead::Release) => None,
            Some(OnDeadHead::Block) => self.blocks(memory, ticket),
        };
        match (self.couriers.get_mut(&destination), held_up) {
            (Some(courier), Some(spot)) => courier.block(ticket, spot),
            (Some(courier), None) => courier.forget(ticket),
            (None, _) => {}
        }
    }

    /// Where a dead letter holds others up, as its head says.
    fn blocks(&self, memory: &dyn SharedMemory, ticket: Ticket) -> Option<Spot> {
        let (head, _) = self.store(memory).head(ticket.slot).ok().flatten()?;
        let is_dead = head.generation == ticket.generation && matches!(head.state, SlotState::Dead { .. });
        if is_dead { held_up(&head, &self.config.redelivery) } else { None }
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
        answer: Answer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let reading = answer::read(answer);
        let config = self.config.clone();
        let redelivery = &config.redelivery;
        let leads = self.couriers.get_mut(&attempt.destination);
        let settlement = match leads {
            Some(courier) => courier.judge(attempt, reading, redelivery, &mut self.random, now.monotonic),
            None => judge(attempt, reading, None, redelivery, &mut self.random, now.monotonic),
        };
        let outcome = self.store(memory).settle(attempt.ticket, attempt.epoch, attempt.large, settlement, now.wall);
        if settlement != Settlement::Delivered {
            effects.push(Effect::Count(Counter::AttemptFailures, 1));
        }
        if outcome.is_ok() {
            self.tell_of_end(attempt, settlement, now, effects);
        }
        let is_ours = outcome.is_ok();
        let Some(courier) = self.couriers.get_mut(&attempt.destination) else {
            if let (true, Settlement::Again { due, .. }) = (is_ours, settlement) {
                let spot = attempt.head.place.map(|place| place.spot);
                let hint = ReadyHint { ticket: attempt.ticket, due, stored_at: attempt.head.stored_at, spot };
                self.store(memory).hint_ready(attempt.destination, hint);
            }
            return;
        };
        let change = courier.settled(attempt, reading.contact, settlement, &config, now.monotonic);
        if !is_ours {
            courier.forget(attempt.ticket);
        }
        if let Some(change) = change {
            self.tell(memory, attempt.destination, change, now.monotonic, effects);
        }
        match reading.contact {
            // Refused on the spot: the next tick is soon enough, and bounds what one callback does.
            Contact::NotAsked | Contact::Unknown => {}
            Contact::Answered | Contact::Overloaded | Contact::Trouble | Contact::NotReached | Contact::Nothing => {
                self.send_due(memory, attempt.destination, now, effects);
            }
        }
    }

    /// The answer to an attempt that was given up: it arrived after all, or there is nothing to say.
    fn settle_late(
        &mut self,
        memory: &dyn SharedMemory,
        attempt: &Attempt,
        answer: Answer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if answer::read(answer).fate != Fate::Delivered {
            return;
        }
        let end = Settlement::Delivered;
        // Gone: the receipt stands all the same, and whoever claims the message next finds it.
        if self.store(memory).settle(attempt.ticket, attempt.epoch, attempt.large, end, now.wall).is_ok() {
            self.tell_of_end(attempt, end, now, effects);
        }
    }

    fn tell_of_end(&self, attempt: &Attempt, settlement: Settlement, now: Now, effects: &mut Vec<Effect>) {
        match settlement {
            Settlement::Delivered => {
                effects.push(Effect::Count(Counter::Delivered, 1));
                effects.push(Effect::DeliveryDelay(now.wall.since(attempt.head.stored_at)));
            }
            Settlement::Again { .. } => {}
            Settlement::Dead { reason, status } => {
                let attempts = match reason {
                    DeadReason::Attempts => attempt.head.attempts.saturating_add(1),
                    DeadReason::Expired | DeadReason::Rejected | DeadReason::Corrupt | DeadReason::Unstorable => {
                        attempt.head.attempts
                    }
                };
                let head = Head { attempts, last_status: status, ..attempt.head };
                self.tell_of_death(&head, reason, effects);
            }
        }
    }
}

/// Turns of one call of `send_due`: the largest window, and as many messages that turn out to be gone.
const SEND_TURNS_MAX: usize = 2_000;

fn read_reply(reply: &Reply<'_>) -> Answer {
    let status = reply.headers.first(":status").and_then(|text| std::str::from_utf8(text).ok()?.parse::<u16>().ok());
    match status {
        None => Answer::BrokenOff,
        Some(status) if reply.headers.first("x-envoy-upstream-service-time").is_some() => Answer::Received(status),
        // Envoy makes only these by itself; whatever else lacks the header is an answer all the same.
        Some(status @ (502..=504)) => Answer::Envoy(EnvoyReply::read(status, &(reply.body)())),
        Some(status) => Answer::Received(status),
    }
}
