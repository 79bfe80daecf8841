//! The store: messages in slots of shared memory. Every change of a message is one compare-and-set on its head.
//!
//! | operation | writes, in this order | a VM that dies before the next write leaves |
//! | --- | --- | --- |
//! | put | room, head `Filling`, (memory of its idempotency key, end of its line,) large part, head `Queued` (or `Opening`); its leader is told | a slot that the sweep gives up: no 202 was promised |
//! | put into a new slot, no such key | room, large part, head `Queued` (or `Opening`); its leader is told | a slot without a head: free, told again by the audit |
//! | complete | large part, head `Queued`, hint | an `Opening` slot, later a dead letter |
//! | claim | head `Sending` | an attempt that is never sent: tried again when its lease is over |
//! | settle: delivered | receipt over the large part, (memory: delivered,) head `Free`, room, hint | a slot that says it is settled: the sweep frees it |
//! | settle: again, parked, dead | head, (room) | nothing |
//!
//! Room is reserved first and released last; see [`crate::ledger`]. What is in brackets is written for messages with such a
//! key only; see [`crate::duplicates`] and [`crate::lines`]. Never reads a clock: `now` is an argument.

use crate::codec::Damage;
use crate::config::StoreLimits;
use crate::digest::LineKey;
use crate::duplicates::{Known, Recall};
use crate::hint::{self, ReadyHint};
use crate::keys::Keys;
use crate::ledger::{self, ReserveError, Seat};
use crate::lines::LineError;
use crate::memory::{Cas, Change, Conflict, Expect, SharedMemory, update_again};
use crate::message::{self, LargePart, Memo, Message, Ties};
use crate::neighbours::Hops;
pub use crate::slot::Ticket;
use crate::slot::{DeadReason, DestinationIndex, Epoch, Generation, Head, Place, RuleDigest, SlotIndex, SlotState};
use crate::units::{ByteCount, ClusterName, Millis, Monotonic, Wall};

/// What a slot costs beside its large part: two keys and a head in the host's map (PLATFORM section 0: 312 bytes for two
/// keys with a 64-byte head, above the payload). A head of 22 bytes costs 83 less, but it grows when its message is tried.
pub const SLOT_BYTES: ByteCount = ByteCount(312);
/// A VM that fills a slot is done within one callback, microseconds; after this long it must be dead.
pub const FILLING_MAX: Millis = Millis(10_000);
/// The routed form of a request without a body comes with the end of its stream: at once after a 202, after the last byte
/// of the failure with `reply: original`. No stream that still has an answer to send lasts longer.
pub const OPENING_MAX: Millis = Millis(300_000);
/// What the memory of idempotency keys takes for a message, in its bucket and in its record.
const FINGERPRINT_BYTES: ByteCount = ByteCount(57 + 32);
/// What a line takes for a message, in its bucket, its head and its record, if it is the only one of its line.
const LINE_BYTES: ByteCount = ByteCount(17 + 25 + 8);
/// Stale hints that a put passes over before it makes a new slot.
const STALE_HINTS_MAX: usize = 8;

/// The moment of a change, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For leases and due times.
    pub monotonic: Monotonic,
    /// For what people read, and for `ttl`.
    pub wall: Wall,
}

/// What a stored message waits for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstState {
    /// Its first redelivery, not before this.
    Queued(Monotonic),
    /// Its routed form, which must come before this.
    Opening(Monotonic),
}

impl FirstState {
    const fn state(self) -> SlotState {
        match self {
            Self::Queued(due) => SlotState::Queued { due },
            Self::Opening(until) => SlotState::Opening { until },
        }
    }
}

/// What a new message may take: of the whole store, and of its destination's part.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// For all messages together.
    pub whole: &'a StoreLimits,
    /// For those of its destination.
    pub destination: &'a StoreLimits,
}

impl<'a> Limits<'a> {
    /// The limits of a destination that has none of its own.
    #[must_use]
    pub const fn shared(whole: &'a StoreLimits) -> Self {
        Self { whole, destination: whole }
    }
}

/// A message that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Placed {
    /// Where.
    pub ticket: Ticket,
    /// What its leader is to be told; `None` while its routed form is still to come.
    pub hint: Option<ReadyHint>,
}

/// Why nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// `store.max_messages` or `store.max_bytes` is reached, of the whole store or of the destination.
    Full,
    /// Other VMs kept interfering, or the books are damaged.
    Busy,
    /// A message with its idempotency key is held already, or was delivered not long ago.
    Known(Known),
}

/// What has become of one use of a slot, as far as other messages must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A VM that may live writes it, and has promised nothing.
    Filling,
    /// A message that is still to be delivered.
    Held,
    /// A dead letter.
    Dead,
    /// The slot is free, has another use, or will never be filled.
    Over,
    /// The head is damaged: the housekeeper mends it soon.
    Unreadable,
}

/// What a claimer knows of the large part; only its reader may put the receipt over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeMark {
    /// Its number.
    pub cas: Cas,
    /// What is remembered if the message is delivered.
    pub memo: Option<Memo>,
}

/// A message that was claimed for an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What to send.
    pub message: Message,
    /// The head as it now stands: `Sending`.
    pub head: Head,
    /// The large part as it was read.
    pub large: LargeMark,
}

/// Why a message could not be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// It is not waiting any more, or the slot has another use.
    Gone,
    /// It had already been delivered; the slot was freed now.
    Settled,
    /// Its bytes are damaged.
    Corrupt,
    /// Older than `store.ttl`.
    Expired,
    /// Another VM interfered; try later.
    Busy,
}

/// The end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The receiver took it.
    Delivered,
    /// Another attempt, not before `due`.
    Again {
        /// When.
        due: Monotonic,
        /// Genuine attempts that failed, this one included if it was one.
        attempts: u16,
        /// The status of the answer; 0 without one.
        status: u16,
    },
    /// No further attempt before another configuration rules.
    Parked {
        /// The one that rules now.
        rule: RuleDigest,
        /// The status of the answer.
        status: u16,
    },
    /// No further attempt.
    Dead {
        /// Why.
        reason: DeadReason,
        /// The status of the answer; 0 without one.
        status: u16,
    },
}

/// A change came too late: the slot has another epoch, state or use. The message's state was not changed; but a delivery
/// is a fact whoever reports it, so the receipt of one stands, and the message is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The store of one `root_id`.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    /// Where everything is.
    pub memory: &'a dyn SharedMemory,
    /// What it is called.
    pub keys: &'a Keys,
}

impl Store<'_> {
    /// Takes custody of `message`. When this answers `Ok`, the message is complete in memory and will be found: soon if its
    /// leader is told what it answers.
    ///
    /// # Errors
    /// [`PutError`]; nothing is left behind then.
    pub fn place(
        &self,
        message: &Message,
        destination: DestinationIndex,
        first: FirstState,
        limits: Limits<'_>,
        now: Now,
    ) -> Result<Placed, PutError> {
        let charge = charge_of(message, first);
        let seat = self.take_room(destination, charge, limits)?;
        let head = Head { destination, stored_at: now.wall, changed_at: now.wall, charge, ..Head::free(Generation(0)) };
        if let (Seat::Made(slot), Ties { fingerprint: None, line: None }) = (seat, message.ties) {
            return self.put_into_new(slot, message, head, first);
        }
        let Ok((ticket, large)) = self.take_slot(seat.slot(), head, now) else {
            self.give_back_room(destination, charge);
            return Err(PutError::Busy);
        };
        let filled = self.tie(message, ticket, now).and_then(|place| {
            self.fill(message, ticket, large, first, place).map_err(|Conflict| PutError::Busy).map(|()| place)
        });
        let place = filled.map_err(|error| {
            // Whoever frees the slot gives the room back: this VM, or the sweep, if this VM stood still for too long.
            match self.free(ticket, is_filling) {
                Ok(_) | Err(Gone) => error,
            }
        })?;
        Ok(Placed { ticket, hint: ready(ticket, &Head { place, ..head.with(first.state()) }) })
    }

    /// A slot that was made for this message, which has to do with no other: nobody looks at it before its head is there, so
    /// the head need not say first that it is being filled. The audit may have taken it for lost after a long pause and given
    /// it away: then one of the two writes finds something there, and nothing was promised.
    fn put_into_new(
        &self,
        slot: SlotIndex,
        message: &Message,
        head: Head,
        first: FirstState,
    ) -> Result<Placed, PutError> {
        let ticket = Ticket { slot, generation: Generation(0).next() };
        let head = Head { generation: ticket.generation, ..head.with(first.state()) };
        let bytes = message.encode(slot, ticket.generation);
        let written = self.memory.set(&self.keys.large(slot), &bytes, Expect::Absent);
        written.and_then(|()| self.memory.set(&self.keys.head(slot), &head.encode(slot), Expect::Absent)).map_err(
            |Conflict| {
                self.give_back_room(head.destination, head.charge);
                PutError::Busy
            },
        )?;
        Ok(Placed { ticket, hint: ready(ticket, &head) })
    }

    /// Writes down what the message in `ticket`, which is being filled, has to do with others. A slot that is given up
    /// afterwards leaves entries that nobody believes.
    fn tie(&self, message: &Message, ticket: Ticket, now: Now) -> Result<Option<Place>, PutError> {
        if let Some(memo) = message.memo() {
            self.remember(memo, ticket, now).map_err(|recall| match recall {
                Recall::Known(known) => PutError::Known(known),
                Recall::New | Recall::BeingStored => PutError::Busy,
            })?;
        }
        let join = |line: LineKey| self.join_line(line, ticket, now.monotonic);
        message.ties.line.map(join).transpose().map_err(|error| match error {
            LineError::Full => PutError::Full,
            LineError::Busy => PutError::Busy,
        })
    }

    fn fill(
        &self,
        message: &Message,
        ticket: Ticket,
        large: Expect,
        first: FirstState,
        place: Option<Place>,
    ) -> Result<(), Conflict> {
        let bytes = message.encode(ticket.slot, ticket.generation);
        self.memory.set(&self.keys.large(ticket.slot), &bytes, large)?;
        let filled =
            self.change_head(ticket, |found| is_filling(found).then_some(Head { place, ..found.with(first.state()) }));
        filled.map(|_| ()).map_err(|Gone| Conflict)
    }

    /// Marks a free slot as `Filling`: the one that was named, or another one if that is not free. The number of its large
    /// part is read before its head, so that a VM which stalls for longer than its lease cannot write into the slot's next
    /// use.
    fn take_slot(&self, named: SlotIndex, head: Head, now: Now) -> Result<(Ticket, Expect), Conflict> {
        let filling = head.with(SlotState::Filling { until: now.monotonic.after(FILLING_MAX) });
        let others = std::iter::from_fn(|| self.next_free()).take(STALE_HINTS_MAX);
        for slot in std::iter::once(named).chain(others) {
            if let Some(taken) = self.take_if_free(slot, filling)? {
                return Ok(taken);
            }
        }
        let slot = ledger::new_slot(self.memory, &self.keys.ledger())?;
        self.take_if_free(slot, filling)?.ok_or(Conflict)
    }

    fn take_if_free(&self, slot: SlotIndex, filling: Head) -> Result<Option<(Ticket, Expect)>, Conflict> {
        let large = self.memory.get(&self.keys.large(slot)).map_or(Expect::Absent, |value| Expect::Version(value.cas));
        update_again(self.memory, &self.keys.head(slot), |bytes| {
            let last = match bytes.map(|bytes| Head::decode(bytes, slot)) {
                None => Generation(0),
                Some(Ok(Head { state: SlotState::Free, generation, .. })) => generation,
                Some(Ok(_) | Err(_)) => return Change::Keep(None),
            };
            let filling = Head { generation: last.next(), ..filling };
            let ticket = Ticket { slot, generation: filling.generation };
            Change::Write(filling.encode(slot), Some((ticket, large)))
        })
    }

    /// Gives an `Opening` message its routed form and queues it.
    ///
    /// # Errors
    /// [`Gone`] if it is not opening any more.
    pub fn complete(&self, ticket: Ticket, message: &Message, due: Monotonic) -> Result<(), Gone> {
        let large =
            self.memory.get(&self.keys.large(ticket.slot)).map_or(Expect::Absent, |value| Expect::Version(value.cas));
        let (head, cas) = self.head(ticket.slot).ok().flatten().ok_or(Gone)?;
        if head.generation != ticket.generation || !is_opening(&head) {
            return Err(Gone);
        }
        let bytes = message.encode(ticket.slot, ticket.generation);
        self.memory.set(&self.keys.large(ticket.slot), &bytes, large).map_err(|Conflict| Gone)?;
        let queued = head.with(SlotState::Queued { due });
        let key = self.keys.head(ticket.slot);
        let written = self.memory.set(&key, &queued.encode(ticket.slot), Expect::Version(cas));
        // Somebody else wrote there: only what it says now tells whether the message is still to be completed.
        let queued = written.map(|()| queued).or_else(|Conflict| {
            self.change_head(ticket, |found| is_opening(found).then_some(found.with(SlotState::Queued { due })))
        })?;
        ready(ticket, &queued).into_iter().for_each(|hint| self.hint_ready(queued.destination, hint));
        Ok(())
    }

    /// Takes a waiting message for an attempt that ends by `until`.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn claim(
        &self,
        ticket: Ticket,
        epoch: Epoch,
        until: Monotonic,
        ttl: Millis,
        now: Now,
    ) -> Result<Claim, ClaimError> {
        let (head, cas) = self.head(ticket.slot).map_err(|_| ClaimError::Corrupt)?.ok_or(ClaimError::Gone)?;
        if head.generation != ticket.generation || !matches!(head.state, SlotState::Queued { .. }) {
            return Err(ClaimError::Gone);
        }
        if head.age(now.wall) > ttl {
            return Err(ClaimError::Expired);
        }
        let large = self.memory.get(&self.keys.large(ticket.slot)).ok_or(ClaimError::Corrupt)?;
        let message = match message::decode(&large.bytes, ticket.slot, ticket.generation) {
            Ok(LargePart::Message(message)) => *message,
            Ok(LargePart::Settled(memo)) => {
                self.remember_if_keyed(memo.as_ref(), ticket, now.wall);
                return Err(if self.free(ticket, |_| true).is_ok() { ClaimError::Settled } else { ClaimError::Gone });
            }
            Err(Damage::Later) => return Err(ClaimError::Gone), // for this build; the one that wrote it sends it
            Err(_) => return Err(ClaimError::Corrupt),
        };
        let sending = Head { sends: head.sends.saturating_add(1), ..head.with(SlotState::Sending { epoch, until }) };
        let (key, bytes) = (self.keys.head(ticket.slot), sending.encode(ticket.slot));
        self.memory.set(&key, &bytes, Expect::Version(cas)).map_err(|Conflict| ClaimError::Busy)?;
        // The next change is this VM's too: it settles the attempt.
        if let Some(recent) = self.memory.recent() {
            recent.keep(&key, bytes);
        }
        Ok(Claim { large: LargeMark { cas: large.cas, memo: message.memo() }, message, head: sending })
    }

    /// Ends an attempt of term `epoch`.
    ///
    /// # Errors
    /// [`Gone`] if the attempt is not this one's any more.
    pub fn settle(
        &self,
        ticket: Ticket,
        epoch: Epoch,
        large: LargeMark,
        settlement: Settlement,
        wall: Wall,
    ) -> Result<Head, Gone> {
        let mine = |head: &Head| matches!(head.state, SlotState::Sending { epoch: found, .. } if found == epoch);
        match settlement {
            Settlement::Delivered => {
                let receipt = message::encode_receipt(ticket.generation, large.memo.as_ref());
                let written = self.memory.set(&self.keys.large(ticket.slot), &receipt, Expect::Version(large.cas));
                // On a conflict another term may have delivered it too, and its receipt stands there.
                if written.is_err() && !self.is_settled(ticket) {
                    return Err(Gone);
                }
                self.remember_if_keyed(large.memo.as_ref(), ticket, wall);
                self.free(ticket, mine)
            }
            Settlement::Again { due, attempts, status } => self.requeue(ticket, due, attempts, status, wall, mine),
            Settlement::Parked { rule, status } => self.change_head(ticket, |head| {
                let parked = Head { last_status: status, changed_at: wall, ..*head };
                mine(head).then_some(parked.with(SlotState::Parked { rule }))
            }),
            Settlement::Dead { reason, status } => self.bury(ticket, reason, status, wall, mine),
        }
    }

    /// Queues the message again if `allowed` says so of its head.
    ///
    /// # Errors
    /// [`Gone`] if it does not, or the slot has another use.
    pub fn requeue(
        &self,
        ticket: Ticket,
        due: Monotonic,
        attempts: u16,
        status: u16,
        wall: Wall,
        allowed: impl Fn(&Head) -> bool,
    ) -> Result<Head, Gone> {
        self.change_head(ticket, |head| {
            let again = Head { attempts, last_status: status, changed_at: wall, ..*head };
            allowed(head).then_some(again.with(SlotState::Queued { due }))
        })
    }

    /// Queues a parked message again, due at once.
    ///
    /// # Errors
    /// [`Gone`] if it is not as it was seen, or the slot has another use.
    pub fn release(&self, ticket: Ticket, seen: &Head, now: Now) -> Result<Head, Gone> {
        self.change_head(ticket, |head| (head == seen).then_some(head.released(now.monotonic, now.wall)))
    }

    /// Makes the message a dead letter if `allowed` says so of its head.
    ///
    /// # Errors
    /// [`Gone`] if it does not, or the slot has another use.
    pub fn bury(
        &self,
        ticket: Ticket,
        reason: DeadReason,
        status: u16,
        wall: Wall,
        allowed: impl Fn(&Head) -> bool,
    ) -> Result<Head, Gone> {
        let head = self.change_head(ticket, |head| {
            let attempts = head.attempts.saturating_add(u16::from(reason.ends_an_attempt()));
            let dead = Head { attempts, last_status: status, changed_at: wall, ..*head };
            allowed(head).then_some(dead.with(SlotState::Dead { reason }))
        })?;
        // A difference in the books is the audit's to mend; the letter itself stands.
        self.book(head.destination, head.charge, ledger::bury);
        Ok(head)
    }

    /// Frees the slot of a message that is settled or given up, if `allowed` says so of its head. Answers with the head
    /// as it was.
    ///
    /// # Errors
    /// [`Gone`] if it does not, or the slot has another use.
    pub fn free(&self, ticket: Ticket, allowed: impl Fn(&Head) -> bool) -> Result<Head, Gone> {
        let mut was = None;
        self.change_head(ticket, |head| {
            was = Some(*head);
            (allowed(head) && head.state != SlotState::Free).then_some(Head::free(head.generation))
        })?;
        let was = was.ok_or(Gone)?;
        match was.state {
            SlotState::Dead { .. } => {
                self.book(was.destination, was.charge, ledger::release_dead);
            }
            SlotState::Free
            | SlotState::Filling { .. }
            | SlotState::Opening { .. }
            | SlotState::Queued { .. }
            | SlotState::Sending { .. }
            | SlotState::Parked { .. } => self.give_back_room(was.destination, was.charge),
        }
        self.hint_free(ticket.slot);
        Ok(was)
    }

    /// Frees a slot whose message ended without a receipt (given up, or a dead letter whose time is over).
    ///
    /// # Errors
    /// As [`Store::free`].
    pub fn discard(&self, ticket: Ticket, allowed: impl Fn(&Head) -> bool) -> Result<Head, Gone> {
        let (head, _) = self.head(ticket.slot).ok().flatten().ok_or(Gone)?;
        let Some(large) = self.memory.get(&self.keys.large(ticket.slot)) else { return self.free(ticket, allowed) };
        if head.generation != ticket.generation || !allowed(&head) {
            return Err(Gone);
        }
        let receipt = message::encode_receipt(ticket.generation, None);
        self.memory
            .set(&self.keys.large(ticket.slot), &receipt, Expect::Version(large.cas))
            .map_err(|Conflict| Gone)?;
        self.free(ticket, allowed)
    }

    /// Frees the slot of a message whose receipt says that it was delivered, if `allowed` says so of its head.
    ///
    /// # Errors
    /// As [`Store::free`].
    pub fn free_settled(&self, ticket: Ticket, wall: Wall, allowed: impl Fn(&Head) -> bool) -> Result<Head, Gone> {
        self.remember_if_keyed(self.receipt(ticket).flatten().as_ref(), ticket, wall);
        self.free(ticket, allowed)
    }

    fn remember_if_keyed(&self, memo: Option<&Memo>, ticket: Ticket, at: Wall) {
        if let Some(memo) = memo {
            self.remember_delivered(memo, ticket, at);
        }
    }

    /// What has become of `ticket`.
    #[must_use]
    pub fn standing(&self, ticket: Ticket, now: Monotonic) -> Standing {
        match self.head(ticket.slot).map(|found| found.map(|(head, _)| head)) {
            Err(_) => Standing::Unreadable,
            Ok(Some(head)) if head.generation == ticket.generation => match head.state {
                SlotState::Filling { until } if until >= now => Standing::Filling,
                SlotState::Filling { .. } | SlotState::Free => Standing::Over,
                SlotState::Opening { .. }
                | SlotState::Queued { .. }
                | SlotState::Sending { .. }
                | SlotState::Parked { .. } => Standing::Held,
                SlotState::Dead { .. } => Standing::Dead,
            },
            Ok(Some(_) | None) => Standing::Over,
        }
    }

    /// The head of `slot`; `None` if the slot was never written.
    ///
    /// # Errors
    /// What is wrong with its bytes.
    pub fn head(&self, slot: SlotIndex) -> Result<Option<(Head, Cas)>, Damage> {
        let Some(value) = self.memory.get(&self.keys.head(slot)) else { return Ok(None) };
        Head::decode(&value.bytes, slot).map(|head| Some((head, value.cas)))
    }

    /// Where the message in a slot goes: its destination's place, and the cluster that it names itself if it can be read.
    #[must_use]
    pub fn destination_of(&self, slot: SlotIndex) -> Option<(DestinationIndex, Option<ClusterName>)> {
        let (head, _) = self.head(slot).ok().flatten()?;
        if head.state == SlotState::Free {
            return None;
        }
        let large = self.memory.get(&self.keys.large(slot));
        match large.map(|large| message::decode(&large.bytes, slot, head.generation)) {
            Some(Ok(LargePart::Message(message))) => Some((head.destination, Some(message.cluster))),
            Some(Ok(LargePart::Settled(_)) | Err(_)) | None => Some((head.destination, None)),
        }
    }

    /// What redeliveries of the message in `ticket` say of their hops, if it can be read.
    #[must_use]
    pub fn hops_of(&self, ticket: Ticket) -> Option<Hops> {
        let large = self.memory.get(&self.keys.large(ticket.slot))?;
        match message::decode(&large.bytes, ticket.slot, ticket.generation) {
            Ok(LargePart::Message(message)) => Some(message.hops),
            Ok(LargePart::Settled(_)) | Err(_) => None,
        }
    }

    /// Whether the large part says that the message was settled.
    #[must_use]
    pub fn is_settled(&self, ticket: Ticket) -> bool {
        self.receipt(ticket).is_some()
    }

    /// The receipt in the large part, if there is one, and what it remembers.
    fn receipt(&self, ticket: Ticket) -> Option<Option<Memo>> {
        let large = self.memory.get(&self.keys.large(ticket.slot))?;
        match message::decode(&large.bytes, ticket.slot, ticket.generation) {
            Ok(LargePart::Settled(memo)) => Some(memo),
            Ok(LargePart::Message(_)) | Err(_) => None,
        }
    }

    /// Puts a slot with a damaged head right: a dead letter if its large part holds anything, free otherwise. Answers
    /// whether a dead letter was made. The head of a later build is left to it.
    ///
    /// # Errors
    /// [`Gone`] if another VM interfered, or there is nothing to mend.
    pub fn repair_head(&self, slot: SlotIndex, wall: Wall) -> Result<Repair, Gone> {
        let key = self.keys.head(slot);
        let is_damaged = |bytes: &[u8]| !matches!(Head::decode(bytes, slot), Ok(_) | Err(Damage::Later));
        let damaged = self.memory.get(&key).filter(|value| is_damaged(&value.bytes)).ok_or(Gone)?;
        let large = self.memory.get(&self.keys.large(slot)).map(|value| value.bytes).unwrap_or_default();
        // The generation is lost with the head; one that is far from any in use keeps stale hints out.
        let fresh = Head::free(Generation(crate::codec::crc32(&damaged.bytes) | 0x8000_0000));
        let is_letter = large.first() == Some(&b'M');
        let charge = ByteCount::of(&large).plus(SLOT_BYTES);
        let head = if is_letter {
            Head {
                charge,
                stored_at: wall,
                changed_at: wall,
                ..fresh.with(SlotState::Dead { reason: DeadReason::Corrupt })
            }
        } else {
            fresh
        };
        self.memory.set(&key, &head.encode(slot), Expect::Version(damaged.cas)).map_err(|Conflict| Gone)?;
        if is_letter {
            // Its destination is lost with the head: that one's books are the audit's to mend.
            ledger::bury(self.memory, &self.keys.ledger(), charge).unwrap_or_default();
            return Ok(Repair::DeadLetter);
        }
        self.hint_free(slot);
        Ok(Repair::Freed)
    }

    fn change_head(&self, ticket: Ticket, change: impl FnMut(&Head) -> Option<Head>) -> Result<Head, Gone> {
        let mut change = change;
        let outcome = update_again(self.memory, &self.keys.head(ticket.slot), |bytes| {
            let found = bytes.and_then(|bytes| Head::decode(bytes, ticket.slot).ok());
            match found.filter(|head| head.generation == ticket.generation).and_then(|head| change(&head)) {
                Some(next) => Change::Write(next.encode(ticket.slot), Ok(next)),
                None => Change::Keep(Err(Gone)),
            }
        });
        outcome.unwrap_or(Err(Gone))
    }

    /// Room in the destination's part first, then in the whole store, with a slot to write to; all or nothing. No slot is
    /// made or taken for a message that is refused.
    fn take_room(
        &self,
        destination: DestinationIndex,
        charge: ByteCount,
        limits: Limits<'_>,
    ) -> Result<Seat, PutError> {
        let refusal = |error| match error {
            ReserveError::Full => PutError::Full,
            ReserveError::Busy => PutError::Busy,
        };
        let (whole, part) = (self.keys.ledger(), self.keys.destination_ledger(destination));
        ledger::reserve(self.memory, &part, charge, limits.destination).map_err(refusal)?;
        let find = || self.next_free();
        ledger::reserve_slot(self.memory, &whole, charge, limits.whole, find).map_err(|(error, found)| {
            ledger::release(self.memory, &part, charge).unwrap_or_default();
            found.into_iter().for_each(|slot| self.hint_free(slot));
            refusal(error)
        })
    }

    fn give_back_room(&self, destination: DestinationIndex, charge: ByteCount) {
        self.book(destination, charge, ledger::release);
    }

    /// Changes the books of a destination and those of the whole. On a conflict they stay as they are: too high, never too
    /// low, until the audit mends them.
    fn book(
        &self,
        destination: DestinationIndex,
        charge: ByteCount,
        change: impl Fn(&dyn SharedMemory, &str, ByteCount) -> Result<(), Conflict>,
    ) {
        change(self.memory, &self.keys.destination_ledger(destination), charge).unwrap_or_default();
        change(self.memory, &self.keys.ledger(), charge).unwrap_or_default();
    }

    /// A slot that was free when somebody said so.
    fn next_free(&self) -> Option<SlotIndex> {
        self.memory.dequeue(&self.keys.free_slots()).and_then(|bytes| hint::decode_free(&bytes))
    }

    /// Tells takers of a free slot.
    pub fn hint_free(&self, slot: SlotIndex) {
        self.memory.enqueue(&self.keys.free_slots(), &hint::encode_free(slot));
    }

    /// Tells the leader of a queued message.
    pub fn hint_ready(&self, destination: DestinationIndex, hint: ReadyHint) {
        self.memory.enqueue(&self.keys.ready(destination), &hint.encode());
    }

    /// The next hint for the leader of `destination`.
    #[must_use]
    pub fn next_ready(&self, destination: DestinationIndex) -> Option<ReadyHint> {
        self.memory.dequeue(&self.keys.ready(destination)).and_then(|bytes| ReadyHint::decode(&bytes))
    }
}

/// What was made of a slot with a damaged head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Its large part held something: kept as a dead letter.
    DeadLetter,
    /// It held nothing.
    Freed,
}

/// What the leader is told of a message that waits for nothing but its time.
fn ready(ticket: Ticket, head: &Head) -> Option<ReadyHint> {
    match head.state {
        SlotState::Queued { due } => {
            let spot = head.place.map(|place| place.spot);
            Some(ReadyHint { ticket, due, stored_at: head.stored_at, spot })
        }
        SlotState::Free
        | SlotState::Filling { .. }
        | SlotState::Opening { .. }
        | SlotState::Sending { .. }
        | SlotState::Parked { .. }
        | SlotState::Dead { .. } => None,
    }
}

fn is_opening(head: &Head) -> bool {
    matches!(head.state, SlotState::Opening { .. })
}

fn is_filling(head: &Head) -> bool {
    matches!(head.state, SlotState::Filling { .. })
}

/// What `message` costs of `store.max_bytes`: its bytes and the book-keeping. One that still waits for its routed form
/// is charged for it in advance, as much as for the arrived one.
fn charge_of(message: &Message, first: FirstState) -> ByteCount {
    let arrived = message.arrived.byte_count();
    let routed = match (&message.routed, first) {
        (Some(routed), FirstState::Queued(_) | FirstState::Opening(_)) => routed.byte_count(),
        (None, FirstState::Opening(_)) => arrived,
        (None, FirstState::Queued(_)) => 0,
    };
    let bytes = arrived.saturating_add(routed).saturating_add(message.body.len());
    let fingerprint = message.ties.fingerprint.map_or(ByteCount(0), |_| FINGERPRINT_BYTES);
    let line = message.ties.line.map_or(ByteCount(0), |_| LINE_BYTES);
    ByteCount(u64::try_from(bytes).unwrap_or(u64::MAX)).plus(SLOT_BYTES).plus(fingerprint).plus(line)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
