//! The head of a slot: 60 bytes that say what its message is waiting for; 77 and more if it stands in a line. The truth
//! about every message stands here.
//!
//! ```text
//!            put                    routed form known          claim by the leader
//!   Free ---------> Filling ------> Opening --------> Queued <--------------------> Sending
//!    ^                 |  `--------------------------->  |      try again later        |
//!    |                 | lease over      lease over:     | ttl, attempts, answer       |
//!    |                 v                 dead letter     v                             |
//!    +-------------- (gave up) <------ ttl of the ----- Dead                           |
//!    +---------------------------- dead letter ------------------- delivered ----------+
//!
//!   Sending ---> Parked (401 or 403, with on_unauthorized: park) ---> Queued, by another configuration
//! ```
//! Each arrow is one compare-and-set. A generation counts the slot's uses, so a stale hint or a late answer finds
//! another generation and changes nothing.

use crate::codec::{Damage, Format, Reader, Writer};
use crate::digest::LineKey;
use crate::units::{ByteCount, Millis, Monotonic, Wall};
use std::fmt;

/// A slot's number, from 0; its keys are made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(pub u32);

/// How many times the slot has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// The next use of the slot.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this is a later use of the slot than `other`; the count wraps.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        let uses = self.0.wrapping_sub(other.0);
        uses != 0 && uses < 1 << 31
    }
}

/// One use of one slot: names a message until it is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// The slot.
    pub slot: SlotIndex,
    /// Its use.
    pub generation: Generation,
}

/// Where a message stands in the line of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The line.
    pub line: LineKey,
    /// When it was accepted: later ones have higher numbers.
    pub number: u64,
}

/// Messages that one can stand directly behind: the last one that was stored, and those that other VMs were storing at
/// that very moment. More than three of these at once have not been seen with eight VMs.
pub const AHEAD_MAX: usize = 4;

/// A message's place in its line, as its head says it: it is not sent before those ahead have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it stands.
    pub spot: Spot,
    /// Whom it stands directly behind; these stand behind all others.
    pub ahead: [Option<Ticket>; AHEAD_MAX],
}

/// A destination's place in the shared table of destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationIndex(pub u16);

/// A term of leadership: a fence. Whoever leads next has a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// The checksum of a configuration's text: which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleDigest(pub u32);

/// Why a message is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// `store.ttl` went by.
    Expired,
    /// The receiver answered that it will never take it.
    Rejected,
    /// `redelivery.max_attempts` genuine failures.
    Attempts,
    /// Its bytes in shared memory were damaged.
    Corrupt,
    /// Its routed form never became known, or Envoy refuses to send it.
    Unstorable,
}

impl DeadReason {
    const ALL: [Self; 5] = [Self::Expired, Self::Rejected, Self::Attempts, Self::Corrupt, Self::Unstorable];

    /// Whether it was an attempt's failure that ended the message: then that attempt counts too.
    #[must_use]
    pub const fn ends_an_attempt(self) -> bool {
        match self {
            Self::Rejected | Self::Attempts => true,
            Self::Expired | Self::Corrupt | Self::Unstorable => false,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::Rejected => 2,
            Self::Attempts => 3,
            Self::Corrupt => 4,
            Self::Unstorable => 5,
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Attempts => "attempts",
            Self::Corrupt => "corrupt",
            Self::Unstorable => "unstorable",
        })
    }
}

/// What a slot's message is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing: the slot is empty.
    Free,
    /// A VM writes the large part and has not promised anything yet.
    Filling {
        /// When that VM must be dead.
        until: Monotonic,
    },
    /// The sender has (or will at once have) its 202; the routed form comes with the end of its stream.
    Opening {
        /// When that stream's VM must be dead.
        until: Monotonic,
    },
    /// Its next attempt.
    Queued {
        /// Not before this.
        due: Monotonic,
    },
    /// An attempt is out.
    Sending {
        /// The term of the leader that sent it; only it may settle before `until`.
        epoch: Epoch,
        /// When its outcome can no longer come.
        until: Monotonic,
    },
    /// Another configuration than this one: the receiver did not accept who sends it.
    Parked {
        /// The configuration that ruled when it was parked.
        rule: RuleDigest,
    },
    /// Nothing more: it is kept for people.
    Dead {
        /// Why.
        reason: DeadReason,
    },
}

/// The head of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it waits for.
    pub state: SlotState,
    /// The slot's use.
    pub generation: Generation,
    /// Where it goes.
    pub destination: DestinationIndex,
    /// Genuine attempts that failed.
    pub attempts: u16,
    /// Redeliveries sent, the current one included: the number that the receiver sees.
    pub sends: u16,
    /// When custody was taken.
    pub stored_at: Wall,
    /// When the state last changed for a reason that people ask for (attempt, death).
    pub changed_at: Wall,
    /// What it costs of `store.max_bytes`.
    pub charge: ByteCount,
    /// The status of the last answer; 0 if there was none.
    pub last_status: u16,
    /// Its place in the line of its key; `None` for messages that are not ordered.
    pub place: Option<Place>,
    /// How long it was parked, in whole seconds: that time does not count for `store.ttl`. Four bytes that stand in
    /// memory only if there are any.
    pub parked_secs: u32,
}

const KIND_HEAD: u8 = b'H';

impl Head {
    /// An empty slot after its use number `generation`.
    #[must_use]
    pub const fn free(generation: Generation) -> Self {
        Self {
            state: SlotState::Free,
            generation,
            destination: DestinationIndex(0),
            attempts: 0,
            sends: 0,
            stored_at: Wall(0),
            changed_at: Wall(0),
            charge: ByteCount(0),
            last_status: 0,
            place: None,
            parked_secs: 0,
        }
    }

    /// How long the message has been waiting at `wall` to be delivered: what `store.ttl` is about.
    #[must_use]
    pub const fn age(&self, wall: Wall) -> Millis {
        let held = wall.since(self.stored_at).0;
        Millis(held.saturating_sub((self.parked_secs as u64).saturating_mul(1_000)))
    }

    /// The parked message, queued again; `changed_at` says since when it was parked.
    #[must_use]
    pub fn released(self, due: Monotonic, wall: Wall) -> Self {
        let parked = wall.since(self.changed_at).0.div_ceil(1_000);
        let parked_secs = self.parked_secs.saturating_add(u32::try_from(parked).unwrap_or(u32::MAX));
        Self { parked_secs, changed_at: wall, ..self.with(SlotState::Queued { due }) }
    }

    /// The same message in another state.
    #[must_use]
    pub const fn with(self, state: SlotState) -> Self {
        Self { state, ..self }
    }

    /// The cell of `slot`; the number stands inside, so a value that got under another key is found.
    #[must_use]
    pub fn encode(&self, slot: SlotIndex) -> Vec<u8> {
        let (code, detail, epoch, at) = match self.state {
            SlotState::Free => (0, 0, 0, 0),
            SlotState::Filling { until } => (1, 0, 0, until.0),
            SlotState::Opening { until } => (2, 0, 0, until.0),
            SlotState::Queued { due } => (3, 0, 0, due.0),
            SlotState::Sending { epoch, until } => (4, 0, epoch.0, until.0),
            SlotState::Dead { reason } => (5, reason.code(), 0, 0),
            SlotState::Parked { rule } => (6, 0, rule.0, 0),
        };
        let format = if self.place.is_some() { Format::Extended } else { Format::First };
        let mut writer = Writer::of(KIND_HEAD, format, 54);
        writer.u32(slot.0).u8(code).u8(detail).u32(epoch).u64(at);
        writer.u32(self.generation.0).u16(self.destination.0).u16(self.attempts).u16(self.sends);
        writer.u64(self.stored_at.0).u64(self.changed_at.0).u32(u32::try_from(self.charge.0).unwrap_or(u32::MAX));
        writer.u16(self.last_status);
        if let Some(place) = &self.place {
            place.write(&mut writer);
        }
        if self.parked_secs > 0 {
            writer.u32(self.parked_secs);
        }
        writer.finish()
    }

    /// Reads the head of `slot` back.
    ///
    /// # Errors
    /// What is wrong with the bytes; [`Damage::Field`] also when they belong to another slot.
    pub fn decode(bytes: &[u8], slot: SlotIndex) -> Result<Self, Damage> {
        let (mut reader, format) = Reader::open_either(bytes, KIND_HEAD)?;
        if reader.u32()? != slot.0 {
            return Err(Damage::Field);
        }
        let (code, detail) = (reader.u8()?, reader.u8()?);
        let (epoch, at) = (Epoch(reader.u32()?), Monotonic(reader.u64()?));
        let state = match code {
            0 => SlotState::Free,
            1 => SlotState::Filling { until: at },
            2 => SlotState::Opening { until: at },
            3 => SlotState::Queued { due: at },
            4 => SlotState::Sending { epoch, until: at },
            5 => SlotState::Dead {
                reason: DeadReason::ALL.into_iter().find(|reason| reason.code() == detail).ok_or(Damage::Field)?,
            },
            6 => SlotState::Parked { rule: RuleDigest(epoch.0) },
            _ => return Err(Damage::Field),
        };
        let head = Self {
            state,
            generation: Generation(reader.u32()?),
            destination: DestinationIndex(reader.u16()?),
            attempts: reader.u16()?,
            sends: reader.u16()?,
            stored_at: Wall(reader.u64()?),
            changed_at: Wall(reader.u64()?),
            charge: ByteCount(u64::from(reader.u32()?)),
            last_status: reader.u16()?,
            place: match format {
                Format::First => None,
                Format::Extended => Some(Place::read(&mut reader)?),
            },
            parked_secs: 0,
        };
        if !reader.has_more() {
            return Ok(head);
        }
        // No time at all is not written, so that a head has one form only.
        match (reader.u32()?, reader.has_more()) {
            (0, true | false) | (_, true) => Err(Damage::Trailing),
            (parked_secs, false) => Ok(Self { parked_secs, ..head }),
        }
    }
}

impl Place {
    fn write(&self, writer: &mut Writer) {
        let count = self.ahead.iter().flatten().count();
        writer.u64(self.spot.line.0).u64(self.spot.number).u8(u8::try_from(count).unwrap_or(u8::MAX));
        for ticket in self.ahead.iter().flatten() {
            writer.u32(ticket.slot.0).u32(ticket.generation.0);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Damage> {
        let spot = Spot { line: LineKey(reader.u64()?), number: reader.u64()? };
        let count = usize::from(reader.u8()?);
        let mut ahead = [None; AHEAD_MAX];
        for place in ahead.get_mut(..count).ok_or(Damage::Field)? {
            *place = Some(Ticket { slot: SlotIndex(reader.u32()?), generation: Generation(reader.u32()?) });
        }
        Ok(Self { spot, ahead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_state_reads_back_as_written() {
        let at = Monotonic(1 << 40);
        let dead = DeadReason::ALL.map(|reason| SlotState::Dead { reason });
        let live = [
            SlotState::Free,
            SlotState::Filling { until: at },
            SlotState::Opening { until: at },
            SlotState::Queued { due: at },
            SlotState::Sending { epoch: Epoch(9), until: at },
            SlotState::Parked { rule: RuleDigest(u32::MAX) },
        ];
        for state in live.into_iter().chain(dead) {
            let head =
                Head { attempts: 3, sends: 4, charge: ByteCount(5), last_status: 503, ..Head::free(Generation(6)) };
            for head in [head.with(state), Head { parked_secs: 9, ..head.with(state) }] {
                assert_eq!(Head::decode(&head.encode(SlotIndex(7)), SlotIndex(7)), Ok(head));
                assert_eq!(Head::decode(&head.encode(SlotIndex(7)), SlotIndex(8)), Err(Damage::Field));
            }
        }
    }

    #[test]
    fn time_in_which_a_message_was_parked_does_not_make_it_older() {
        let stored = Head { stored_at: Wall(1_000), changed_at: Wall(11_000), ..Head::free(Generation(1)) };
        assert_eq!(stored.age(Wall(11_000)), Millis(10_000));
        let once = stored.released(Monotonic(5), Wall(71_000));
        assert_eq!((once.age(Wall(71_000)), once.parked_secs), (Millis(10_000), 60));
        assert_eq!(once.state, SlotState::Queued { due: Monotonic(5) });
        let twice = Head { changed_at: Wall(72_000), ..once }.released(Monotonic(6), Wall(72_001));
        assert_eq!((twice.age(Wall(72_001)), twice.parked_secs), (Millis(10_001), 61), "a part of a second is one");
        assert_eq!(stored.released(Monotonic(5), Wall(0)).parked_secs, 0, "a clock that jumped back");
    }

    #[test]
    fn a_place_in_a_line_reads_back_as_written() {
        let ticket = |number| Ticket { slot: SlotIndex(number), generation: Generation(number + 1) };
        for count in 0..=AHEAD_MAX {
            let mut ahead = [None; AHEAD_MAX];
            (0..count).for_each(|place| ahead[place] = Some(ticket(place as u32)));
            let place = Place { spot: Spot { line: LineKey(u64::MAX), number: 1 << 50 }, ahead };
            let head = Head { place: Some(place), ..Head::free(Generation(6)) };
            for head in [head, Head { parked_secs: 9, ..head }] {
                assert_eq!(Head::decode(&head.encode(SlotIndex(7)), SlotIndex(7)), Ok(head), "{count} ahead");
            }
        }
    }

    #[test]
    fn a_head_of_the_format_before_is_read_and_written_as_it_was() {
        // Written by the first build: queued, due at 9, generation 3, destination 2, charge 400.
        let mut first = b"H\x01....\x07\0\0\0\x03\0\0\0\0\0\x09\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0\0\x01\0".to_vec();
        first.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0x90, 1, 0, 0, 0xf7, 1]);
        let checksum = crate::codec::crc32(&first[6..]).to_le_bytes();
        first[2..6].copy_from_slice(&checksum);
        let head = Head {
            destination: DestinationIndex(2),
            sends: 1,
            stored_at: Wall(5),
            changed_at: Wall(6),
            charge: ByteCount(400),
            last_status: 503,
            ..Head::free(Generation(3)).with(SlotState::Queued { due: Monotonic(9) })
        };
        assert_eq!(Head::decode(&first, SlotIndex(7)), Ok(head));
        assert_eq!(head.encode(SlotIndex(7)), first);
    }

    /// What a head takes that was never parked and stands in no line.
    const HEAD_BYTES: usize = 56;

    #[test]
    fn a_head_stays_small() {
        let head = Head::free(Generation(0));
        assert_eq!(head.encode(SlotIndex(0)).len(), HEAD_BYTES, "1,000,000 heads must fit beside their messages");
        assert!(Head { parked_secs: 1, ..head }.encode(SlotIndex(0)).len() <= 64);
    }
}
