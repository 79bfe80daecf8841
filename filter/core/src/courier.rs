//! The leader's memory of one destination: what waits, what is out, how many may be out, and the destination's state.
//!
//! Chooses what to send next and learns from each answer. Never sends and never touches shared memory: the truth is in
//! the slots, and a VM that takes over builds a courier anew from them.

use crate::answer::{Contact, Fate, Reading};
use crate::backoff;
use crate::cells::{Evidence, Observation, PublishedState};
use crate::config::{KeyOrder, OnDeadHead, OnUnauthorized, Order, Policy, Redelivery};
use crate::destination::{Backlog, Destination, Signs, State, Transition};
use crate::effect::Attempt;
use crate::hint::ReadyHint;
use crate::live::share;
use crate::random::Random;
use crate::rate::Bucket;
use crate::schedule::{Schedule, Stopped};
use crate::slot::{DeadReason, Epoch, Head, RuleDigest, SlotIndex, SlotState, Spot};
use crate::store::{Settlement, Ticket};
use crate::units::{Monotonic, Wall};
use crate::window::Window;
use litemap::LiteMap;

/// An attempt that is out.
#[derive(Clone, Copy, Debug)]
struct Out {
    ticket: Ticket,
    /// The term in which it was sent.
    epoch: Epoch,
    /// When it must have ended.
    until: Monotonic,
}

/// The courier of one destination.
#[derive(Clone, Debug)]
pub struct Courier {
    /// The term of leadership.
    pub epoch: Epoch,
    /// When the lease ends unless it is renewed.
    pub lease_until: Monotonic,
    /// The destination's state.
    destination: Destination,
    schedule: Schedule,
    window: Window,
    window_max: u32,
    /// What may be out beside live traffic; `None`: there is none.
    share: Option<u32>,
    bucket: Bucket,
    /// Attempts that are out, a predecessor's too.
    in_flight: LiteMap<SlotIndex, Out>,
    /// When the receiver last answered one of our attempts.
    answered_at: Option<Monotonic>,
    /// What the world looked like at the last tick.
    signs: Signs,
    /// Figures that others were told last: attempts out, oldest message.
    told: (usize, Option<Wall>),
}

impl Courier {
    /// A courier for a term that begins.
    #[must_use]
    pub fn new(
        epoch: Epoch,
        lease_until: Monotonic,
        published: Option<PublishedState>,
        redelivery: &Redelivery,
        now: Monotonic,
    ) -> Self {
        Self {
            epoch,
            lease_until,
            destination: Destination::taken_over(published, now),
            schedule: Schedule::default(),
            window: Window::initial(&redelivery.window),
            window_max: redelivery.window.max,
            share: None,
            bucket: Bucket::new(redelivery.rate, redelivery.tick, now),
            in_flight: LiteMap::new(),
            answered_at: None,
            signs: Signs { verdict: None, evidence: Evidence::default(), backlog: Backlog::Empty },
            told: (0, None),
        }
    }

    /// Whether the figures differ from what others were told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.told != (self.in_flight(), self.oldest())
    }

    /// Others were told.
    pub fn told(&mut self) {
        self.told = (self.in_flight(), self.oldest());
    }

    /// The state as others see it.
    #[must_use]
    pub const fn published(&self) -> PublishedState {
        self.destination.published()
    }

    /// Attempts that are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The beginning of the second in which the oldest message that is not dead was stored.
    #[must_use]
    pub fn oldest(&self) -> Option<Wall> {
        self.schedule.oldest()
    }

    /// A message waits.
    pub fn add(&mut self, hint: ReadyHint) {
        if !self.is_out(hint.ticket) {
            self.schedule.wait(hint.ticket, hint.due, hint.stored_at, hint.spot);
        }
    }

    /// An attempt is out until `until` at the latest.
    pub fn out(&mut self, ticket: Ticket, stored_at: Wall, spot: Option<Spot>, epoch: Epoch, until: Monotonic) {
        self.schedule.out(ticket, stored_at, spot);
        self.in_flight.insert(ticket.slot, Out { ticket, epoch, until });
        if epoch == self.epoch {
            self.bucket.take();
            self.destination.probe_chosen(ticket);
        }
    }

    /// Whether an attempt of this message is known to be out.
    #[must_use]
    pub fn is_out(&self, ticket: Ticket) -> bool {
        self.in_flight.get(&ticket.slot).is_some_and(|out| out.ticket == ticket)
    }

    /// Attempts whose time is over: their outcome can no longer come.
    #[must_use]
    pub fn overdue(&self, now: Monotonic) -> Vec<Ticket> {
        self.in_flight.values().filter(|out| out.until < now).map(|out| out.ticket).collect()
    }

    /// Attempts of an earlier term: their answers go to another VM, or to none, and only their heads tell.
    #[must_use]
    pub fn inherited(&self) -> Vec<Ticket> {
        self.in_flight.values().filter(|out| out.epoch != self.epoch).map(|out| out.ticket).collect()
    }

    /// The message is gone from here: settled by another, dead, or of another use.
    pub fn forget(&mut self, ticket: Ticket) {
        self.land(ticket);
        self.schedule.forget(ticket);
        self.destination.probe_lost(ticket);
    }

    /// The message is not to be sent, and holds up those behind it: a dead letter, or one that is parked.
    pub fn stop(&mut self, ticket: Ticket, stopped: Stopped) {
        self.land(ticket);
        self.schedule.stop(ticket, stopped);
        self.destination.probe_lost(ticket);
    }

    /// The next of those that are not to be sent, to be looked at.
    pub fn next_stopped(&mut self) -> Option<Ticket> {
        self.schedule.next_stopped()
    }

    /// The message is not to be sent any more; it is remembered only if others must know.
    fn leave(&mut self, ticket: Ticket, stopped: Option<Stopped>) {
        match stopped {
            Some(stopped) => self.schedule.stop(ticket, stopped),
            None => self.schedule.forget(ticket),
        }
    }

    /// Whether this message stands in a line.
    #[must_use]
    pub fn is_ordered(&self, ticket: Ticket) -> bool {
        self.schedule.is_ordered(ticket)
    }

    /// The message cannot be sent yet; look again at `due`.
    pub fn postpone(&mut self, ticket: Ticket, due: Monotonic) {
        self.schedule.postpone(ticket, due);
    }

    /// An attempt of this message is not out any more; one of the slot's next use may be.
    fn land(&mut self, ticket: Ticket) {
        if self.is_out(ticket) {
            self.in_flight.remove(&ticket.slot);
        }
    }

    /// The next message to send at `now`, if the state, the window and the rate allow one. The caller claims it and answers
    /// with [`Courier::out`] or [`Courier::forget`].
    pub fn next(&mut self, now: Monotonic) -> Option<Ticket> {
        self.bucket.fill(now);
        if !self.bucket.has_token() {
            return None;
        }
        match self.destination.state() {
            State::Down { .. } | State::Probing { probe: Some(_) } => None,
            State::Probing { probe: None } if self.has_room_for_probe() => {
                self.schedule.probe(self.destination.last_probe(), now)
            }
            State::Probing { probe: None } => None,
            State::Up | State::Ramping if self.destination.is_held_off(now) => None,
            State::Up | State::Ramping if self.has_room() => self.schedule.due(now),
            State::Up | State::Ramping => None,
        }
    }

    /// Whether a probe may be out beside attempts from before the destination went down, which may hang until their
    /// timeout: as many as ever, since the window has shrunk by their failures and a probe must not wait for them.
    fn has_room_for_probe(&self) -> bool {
        u32::try_from(self.in_flight.len()).is_ok_and(|out| out < self.window_max)
    }

    /// The destination serves so many live requests at this moment.
    pub fn serve_beside(&mut self, live: u32) {
        self.share = share(live);
    }

    /// Whether one more attempt may be out: by the window, and by the share beside live traffic.
    fn has_room(&self) -> bool {
        let most = self.share.map_or(self.window.size(), |share| share.min(self.window.size()));
        u32::try_from(self.in_flight.len()).is_ok_and(|out| out < most)
    }

    /// The world at this tick.
    pub fn observe(
        &mut self,
        verdict: Option<Observation>,
        evidence: Evidence,
        policy: &Policy,
        now: Monotonic,
    ) -> Option<Transition> {
        self.schedule.tell(now);
        self.signs = Signs { verdict, evidence, backlog: self.backlog() };
        let change = self.destination.observe(&self.signs, &policy.health, &policy.redelivery.backoff, now);
        self.entered(change, &policy.redelivery)
    }

    /// What a dead letter holds up is no backlog: it cannot be sent, whatever the destination's state.
    fn backlog(&self) -> Backlog {
        if self.schedule.waiting() == 0 && self.in_flight.is_empty() { Backlog::Empty } else { Backlog::Some }
    }

    fn entered(&mut self, change: Option<Transition>, redelivery: &Redelivery) -> Option<Transition> {
        if change.is_some_and(|change| change.to == PublishedState::Ramping) {
            self.window = Window::initial(&redelivery.window);
        }
        change
    }

    /// How the attempt ends, from what its answer means. Remembers that the receiver answered.
    pub fn judge(
        &mut self,
        attempt: &Attempt,
        reading: Reading,
        terms: Terms<'_>,
        random: &mut Random,
        now: Monotonic,
    ) -> Settlement {
        let judged = judge(attempt, reading, self.answered_at, terms, random, now);
        if matches!(reading.contact, Contact::Answered | Contact::Overloaded | Contact::Gateway) {
            self.answered_at = Some(now);
        }
        judged
    }

    /// The attempt was settled like this.
    pub fn settled(
        &mut self,
        attempt: &Attempt,
        reading: Reading,
        settlement: Settlement,
        policy: &Policy,
        now: Monotonic,
    ) -> Option<Transition> {
        let (redelivery, health) = (&policy.redelivery, &policy.health);
        let (contact, asked) = (reading.contact, backoff::granted(&redelivery.backoff, reading.asked_wait));
        let out = u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX);
        self.land(attempt.ticket);
        self.schedule.tell(now);
        let (ticket, spot) = (attempt.ticket, spot_of(&attempt.head, redelivery));
        match settlement {
            Settlement::Delivered => self.schedule.forget(ticket),
            Settlement::Dead { .. } => self.leave(ticket, dead_head(&attempt.head, redelivery)),
            Settlement::Parked { .. } => self.leave(ticket, Some(parked(&attempt.head, redelivery))),
            Settlement::Again { due, .. } => {
                self.schedule.wait(ticket, due, attempt.head.stored_at, spot);
                self.schedule.keep_back(ticket, now.after(asked));
            }
        }
        match contact {
            Contact::Answered => self.window.success(out, &redelivery.window),
            Contact::Overloaded | Contact::Gateway | Contact::Trouble | Contact::NotReached | Contact::NotAsked => {
                self.window.refusal()
            }
            Contact::Unknown | Contact::Nothing => {}
        }
        self.signs.backlog = self.backlog();
        let change = self.destination.settled(attempt.ticket, contact, asked, &self.signs, now);
        if contact == Contact::NotAsked {
            self.destination.hold_off(health, &redelivery.backoff, now);
        }
        self.entered(change, redelivery)
    }
}

/// What an attempt is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// How messages are sent again.
    pub redelivery: &'a Redelivery,
    /// Which configuration says so.
    pub rule: RuleDigest,
}

/// Where a message stands in a line; nowhere, if messages are not ordered.
#[must_use]
pub fn spot_of(head: &Head, redelivery: &Redelivery) -> Option<Spot> {
    match redelivery.order {
        Order::None => None,
        Order::ByKey(_) => head.place.map(|place| place.spot),
    }
}

/// What a message that is not to be sent still is to others: parked ones wait, and will be delivered before those behind
/// them; dead letters hold their line up if they block.
#[must_use]
pub fn stopped(head: &Head, redelivery: &Redelivery) -> Option<Stopped> {
    match head.state {
        SlotState::Parked { .. } => Some(parked(head, redelivery)),
        SlotState::Dead { .. } => dead_head(head, redelivery),
        SlotState::Free
        | SlotState::Filling { .. }
        | SlotState::Opening { .. }
        | SlotState::Queued { .. }
        | SlotState::Sending { .. } => None,
    }
}

fn parked(head: &Head, redelivery: &Redelivery) -> Stopped {
    Stopped::Parked { stored_at: head.stored_at, spot: spot_of(head, redelivery) }
}

fn dead_head(head: &Head, redelivery: &Redelivery) -> Option<Stopped> {
    match &redelivery.order {
        Order::ByKey(KeyOrder { on_dead_head: OnDeadHead::Block, .. }) => {
            spot_of(head, redelivery).map(Stopped::DeadHead)
        }
        Order::ByKey(KeyOrder { on_dead_head: OnDeadHead::Release, .. }) | Order::None => None,
    }
}

/// How an attempt ends. `answered_at`: when the receiver last answered one of our attempts.
///
/// An attempt that did not reach the receiver counts only if the receiver answered another one while this was out: then
/// the trouble is the message's, and it must not come back for ever. Being down costs none.
#[must_use]
pub fn judge(
    attempt: &Attempt,
    reading: Reading,
    answered_at: Option<Monotonic>,
    terms: Terms<'_>,
    random: &mut Random,
    now: Monotonic,
) -> Settlement {
    let (status, redelivery) = (reading.status, terms.redelivery);
    let attempts = match reading.fate {
        Fate::Delivered => return Settlement::Delivered,
        Fate::Rejected => return Settlement::Dead { reason: DeadReason::Rejected, status },
        Fate::Unauthorized => {
            return match redelivery.on_unauthorized {
                OnUnauthorized::Dead => Settlement::Dead { reason: DeadReason::Rejected, status },
                OnUnauthorized::Park => Settlement::Parked { rule: terms.rule, status },
            };
        }
        Fate::Unsendable => return Settlement::Dead { reason: DeadReason::Unstorable, status },
        Fate::Failed => attempt.head.attempts.saturating_add(1),
        Fate::NotReached if answered_at.is_some_and(|at| at > attempt.sent_at) => {
            attempt.head.attempts.saturating_add(1)
        }
        Fate::NotReached => attempt.head.attempts,
    };
    if u32::from(attempts) >= redelivery.attempts_max {
        return Settlement::Dead { reason: DeadReason::Attempts, status };
    }
    let wait = backoff::wait_as_asked(&redelivery.backoff, attempts.max(1), reading.asked_wait, random);
    let due = now.after(wait);
    Settlement::Again { due, attempts, status }
}
