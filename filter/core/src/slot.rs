//! The head of a slot: some 22 bytes that say what its message is waiting for; 17 more and up if it stands in a line. The
//! truth about every message stands here.
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
//!
//! ```text
//! head = 'H' cell, sealed with its slot: what (1) | [reason] | [term] | [time] | generation | destination
//!      | [attempts | sends] | stored at | [changed at - stored at] | charge | [last status] | [place] | [seconds parked]
//! what = state (3 bits) | it was tried: four fields more | it stands in a line | it was parked
//! ```
//! 22 bytes are what the host's map keeps inside of its node (as of a name, see [`crate::keys`]): a waiting message that was
//! never tried fits, if it is below 16 KiB and its slot has not been used more than 127 times, which saves the host a piece of memory for each and a cache miss for each look. Heads of fixed size, as
//! they were written before, are read.

use crate::codec::{Damage, Format, Reader, Seal, Writer};
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
    /// How long it was parked, in whole seconds: that time does not count for `store.ttl`.
    pub parked_secs: u32,
}

const KIND_HEAD: u8 = b'H';
/// The bits of a state.
const STATE: u8 = 7;
const FLAG_TRIES: u8 = 8;
const FLAG_PLACE: u8 = 16;
const FLAG_PARKED: u8 = 32;

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

    /// The cell of `slot`. It is sealed with the number, so a value that got under another key is found.
    #[must_use]
    pub fn encode(&self, slot: SlotIndex) -> Vec<u8> {
        let (code, reason, term, at) = match self.state {
            SlotState::Free => (0, 0, 0, 0),
            SlotState::Filling { until } => (1, 0, 0, until.0),
            SlotState::Opening { until } => (2, 0, 0, until.0),
            SlotState::Queued { due } => (3, 0, 0, due.0),
            SlotState::Sending { epoch, until } => (4, 0, epoch.0, until.0),
            SlotState::Dead { reason } => (5, reason.code(), 0, 0),
            SlotState::Parked { rule } => (6, 0, rule.0, 0),
        };
        let flags = self.flags();
        let mut writer = Writer::of(KIND_HEAD, Format::Compact, 64);
        writer.u8(code | flags);
        if has_reason(code) {
            writer.u8(reason);
        }
        if has_term(code) {
            writer.number(term.into());
        }
        if has_time(code) {
            writer.number(at);
        }
        writer.number(self.generation.0.into()).number(self.destination.0.into());
        let has_tries = flags & FLAG_TRIES != 0;
        if has_tries {
            writer.number(self.attempts.into()).number(self.sends.into());
        }
        writer.number(self.stored_at.0);
        if has_tries {
            // Wrapping: the wall clock can jump back.
            writer.number(self.changed_at.0.wrapping_sub(self.stored_at.0));
        }
        writer.number(u32::try_from(self.charge.0).unwrap_or(u32::MAX).into());
        if has_tries {
            writer.number(self.last_status.into());
        }
        if let Some(place) = &self.place {
            place.write(&mut writer);
        }
        if self.parked_secs > 0 {
            writer.number(self.parked_secs.into());
        }
        writer.sealed(Seal(slot.0))
    }

    /// What is written beside the parts that each head has.
    fn flags(&self) -> u8 {
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        let has_tries = (self.attempts, self.sends, self.last_status, self.changed_at) != (0, 0, 0, self.stored_at);
        flag(has_tries, FLAG_TRIES) | flag(self.place.is_some(), FLAG_PLACE) | flag(self.parked_secs > 0, FLAG_PARKED)
    }

    /// Reads the head of `slot` back.
    ///
    /// # Errors
    /// What is wrong with the bytes; they are damaged also if they belong to another slot.
    pub fn decode(bytes: &[u8], slot: SlotIndex) -> Result<Self, Damage> {
        let (mut reader, format) = Reader::open_any(bytes, KIND_HEAD, Seal(slot.0))?;
        // In the formats before, the slot's number comes first, and each part is there whether or not it says anything.
        let is_fixed = format != Format::Compact;
        if is_fixed && reader.u32()? != slot.0 {
            return Err(Damage::Field);
        }
        let what = reader.u8()?;
        let (code, flags) = match format {
            Format::First => (what, FLAG_TRIES),
            Format::Extended => (what, FLAG_TRIES | FLAG_PLACE),
            Format::Compact => (what & STATE, what & !STATE),
        };
        let has_tries = flags & FLAG_TRIES != 0;
        let reason = if is_fixed || has_reason(code) { reader.u8()? } else { 0 };
        let term = if is_fixed || has_term(code) { reader.word()? } else { 0 };
        let at = if is_fixed || has_time(code) { reader.long()? } else { 0 };
        let mut head = Self { state: state_of(code, reason, term, at)?, ..Self::free(Generation(reader.word()?)) };
        head.destination = DestinationIndex(reader.short()?);
        if has_tries {
            (head.attempts, head.sends) = (reader.short()?, reader.short()?);
        }
        head.stored_at = Wall(reader.long()?);
        let changed = if has_tries { reader.long()? } else { 0 };
        head.changed_at = if is_fixed { Wall(changed) } else { Wall(head.stored_at.0.wrapping_add(changed)) };
        head.charge = ByteCount(reader.word()?.into());
        if has_tries {
            head.last_status = reader.short()?;
        }
        if flags & FLAG_PLACE != 0 {
            head.place = Some(Place::read(&mut reader)?);
        }
        let is_parked = flags & FLAG_PARKED != 0 || (is_fixed && reader.has_more());
        if is_parked {
            head.parked_secs = reader.word()?;
        }
        reader.close()?;
        // What says nothing is not written, so that a head has one form only.
        let is_right = if is_fixed { is_parked == (head.parked_secs > 0) } else { flags == head.flags() };
        if is_right { Ok(head) } else { Err(Damage::Field) }
    }
}

/// Whether a state has a time.
const fn has_time(code: u8) -> bool {
    matches!(code, 1..=4)
}

/// Whether a state is one of a term or of a configuration.
const fn has_term(code: u8) -> bool {
    matches!(code, 4 | 6)
}

const fn has_reason(code: u8) -> bool {
    code == 5
}

fn state_of(code: u8, reason: u8, term: u32, at: u64) -> Result<SlotState, Damage> {
    let at = Monotonic(at);
    Ok(match code {
        0 => SlotState::Free,
        1 => SlotState::Filling { until: at },
        2 => SlotState::Opening { until: at },
        3 => SlotState::Queued { due: at },
        4 => SlotState::Sending { epoch: Epoch(term), until: at },
        5 => SlotState::Dead {
            reason: DeadReason::ALL.into_iter().find(|known| known.code() == reason).ok_or(Damage::Field)?,
        },
        6 => SlotState::Parked { rule: RuleDigest(term) },
        _ => return Err(Damage::Field),
    })
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
                assert_eq!(Head::decode(&head.encode(SlotIndex(7)), SlotIndex(8)), Err(Damage::Checksum));
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

    /// A head as the first build wrote it: queued, due at 9, generation 3, destination 2, charge 400; and what it says.
    fn fixed(version: u8, more: &[u8]) -> (Vec<u8>, Head) {
        let mut bytes = b"H.....\x07\0\0\0\x03\0\0\0\0\0\x09\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0\0\x01\0".to_vec();
        bytes.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0x90, 1, 0, 0, 0xf7, 1]);
        bytes.extend_from_slice(more);
        bytes[1] = version;
        let checksum = crate::codec::crc32(&bytes[6..]).to_le_bytes();
        bytes[2..6].copy_from_slice(&checksum);
        let head = Head {
            destination: DestinationIndex(2),
            sends: 1,
            stored_at: Wall(5),
            changed_at: Wall(6),
            charge: ByteCount(400),
            last_status: 503,
            ..Head::free(Generation(3)).with(SlotState::Queued { due: Monotonic(9) })
        };
        (bytes, head)
    }

    #[test]
    fn heads_of_the_formats_before_are_read() {
        let in_line = [&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1][..], &[4, 0, 0, 0, 5, 0, 0, 0]].concat();
        let ticket = Ticket { slot: SlotIndex(4), generation: Generation(5) };
        let spot = Spot { line: LineKey(1), number: 2 };
        let place = Some(Place { spot, ahead: [Some(ticket), None, None, None] });
        let parked = [9, 0, 0, 0];
        for (version, more, place, parked_secs) in [
            (1, &[][..], None, 0),
            (1, &parked[..], None, 9),
            (2, &in_line, place, 0),
            (2, &[&in_line[..], &parked].concat(), place, 9),
        ] {
            let (bytes, head) = fixed(version, more);
            let head = Head { place, parked_secs, ..head };
            assert_eq!(Head::decode(&bytes, SlotIndex(7)), Ok(head), "version {version}, {more:?}");
            assert_eq!(Head::decode(&bytes, SlotIndex(8)), Err(Damage::Field), "version {version}, {more:?}");
        }
        for (more, damage) in [(&[0, 0, 0, 0][..], Damage::Field), (&[9], Damage::Short), (&[9; 5], Damage::Trailing)] {
            assert_eq!(Head::decode(&fixed(1, more).0, SlotIndex(7)), Err(damage), "{more:?}");
        }
    }

    /// A head that is sealed although it says something that no head says.
    fn forged(what: u8, rest: &[u64]) -> Result<Head, Damage> {
        let mut writer = Writer::of(KIND_HEAD, Format::Compact, 0);
        writer.u8(what);
        for number in rest {
            writer.number(*number);
        }
        Head::decode(&writer.sealed(Seal(7)), SlotIndex(7))
    }

    #[test]
    fn a_head_has_one_form_and_nothing_else_is_guessed_at() {
        let free = [1, 0, 0, 0];
        let with = |more: &[u64]| [&free[..], more].concat();
        assert_eq!(forged(0, &free), Ok(Head::free(Generation(1))));
        for (story, what, rest, damage) in [
            ("a state that there is not", 7, with(&[]), Damage::Field),
            ("a flag that there is not", 64, with(&[]), Damage::Field),
            ("a reason that there is not", 5, vec![9, 1, 0, 0, 0], Damage::Field),
            ("no time", 3, with(&[]), Damage::Short),
            ("tries that say nothing", FLAG_TRIES, with(&[0; 4]), Damage::Field),
            ("parked for no time", FLAG_PARKED, with(&[0]), Damage::Field),
            ("a destination beyond all", 0, vec![1, 1 << 16, 0, 0], Damage::Field),
            ("something left over", 0, with(&[0]), Damage::Trailing),
        ] {
            assert_eq!(forged(what, &rest), Err(damage), "{story}");
        }
    }

    /// What the host's map keeps inside of its node (libc++'s string).
    const INLINE_BYTES_MAX: usize = 22;

    #[test]
    fn the_head_of_a_waiting_message_needs_no_memory_of_its_own() {
        let stored_at = Wall(4_000_000_000_000); // the year 2096
        let year = Monotonic(365 * 24 * 3_600_000);
        let waiting = Head {
            stored_at,
            changed_at: stored_at,
            destination: DestinationIndex(127),
            charge: ByteCount(16_000),
            ..Head::free(Generation(127)).with(SlotState::Queued { due: year })
        };
        for head in [waiting, waiting.with(SlotState::Opening { until: year }), Head::free(Generation(u32::MAX))] {
            assert!(head.encode(SlotIndex(999_999)).len() <= INLINE_BYTES_MAX, "{head:?}");
        }
    }
}
