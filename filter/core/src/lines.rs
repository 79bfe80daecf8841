//! Lines: messages with the same ordering key and destination, delivered in the order in which they were accepted.
//!
//! ```text
//! cell of a bucket:   line ──> the last message (and those that are being stored at this moment)
//!                               |
//! head of a message:  Place {number, ahead} ──> head of the one before ──> ... ──> the first, which may be sent
//! ```
//! | one ahead is | `on_dead_head: release` | `on_dead_head: block` |
//! | --- | --- | --- |
//! | held: `Opening`, `Queued`, `Sending`, `Parked` | wait | wait |
//! | `Filling`, and its VM may live | wait | wait |
//! | unreadable: it is mended soon | wait | wait |
//! | a dead letter | go on | wait |
//! | freed, or in another use | go on | go on |
//!
//! A message is sent only when all those ahead of it have ended, as their heads say at that moment: no hint, no leader's
//! memory and no lease has to be right for that. A new request may pass its line only if the last message has ended, which
//! ends after all others: what is not sent in turn does not end out of turn either (see `store.ttl` in the sweep).
//!
//! Nothing is written when a message ends: an entry whose messages have ended is stale, and is taken out when it is met.
//! A damaged cell reads as if it were empty; numbers go with the clock, so they rise all the same.

use crate::codec::{self, Damage, Later, Reader, Writer};
use crate::config::OnDeadHead;
use crate::digest::LineKey;
use crate::keys::Bucket;
use crate::memory::{Change, update};
use crate::slot::{AHEAD_MAX, Generation, Place, SlotIndex, Spot, Ticket};
use crate::store::{Standing, Store};
use crate::units::Monotonic;

/// Lines that one bucket holds: four times what it holds on average when the store is as full as one can be and each
/// message has a key of its own. Beyond it a message of a new line is not stored.
const LINES_MAX: usize = 256;
/// Numbers per millisecond before they run ahead of the clock; more messages than a process can accept.
const NUMBERS_PER_MILLI: u64 = 1 << 16;

/// Whether a line has messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It has none: a request may pass.
    Empty,
    /// It has: a request is stored behind them.
    Waiting,
}

/// Why a message cannot stand in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// Its bucket has [`LINES_MAX`] other lines.
    Full,
    /// Too many VMs are storing messages of this line at this moment.
    Busy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    line: LineKey,
    /// The last message, and those that were being stored when the last one came.
    last: Vec<Ticket>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lines {
    /// The highest number given.
    number: u64,
    entries: Vec<Entry>,
}

impl Store<'_> {
    /// Whether a line has messages that have not ended. One read if it never had any.
    #[must_use]
    pub fn line(&self, line: LineKey, on_dead_head: OnDeadHead, now: Monotonic) -> Line {
        let bytes = self.memory.get(&self.keys.lines(bucket_of(line))).map(|value| value.bytes);
        // Who stands there, only a later build can say.
        let Ok(lines) = decode(bytes.as_deref()) else { return Line::Waiting };
        let Some(entry) = lines.entries.into_iter().find(|entry| entry.line == line) else { return Line::Empty };
        if entry.last.iter().any(|ticket| self.is_ahead(*ticket, on_dead_head, now)) {
            return Line::Waiting;
        }
        self.forget_ended(&entry);
        Line::Empty
    }

    /// The first of those ahead of a message that has not ended; `None` if the message may be sent.
    #[must_use]
    pub fn ahead_of(&self, ticket: Ticket, on_dead_head: OnDeadHead, now: Monotonic) -> Option<Ticket> {
        let (head, _) = self.head(ticket.slot).ok().flatten()?;
        let place = head.place.filter(|_| head.generation == ticket.generation)?;
        place.ahead.into_iter().flatten().find(|ahead| self.is_ahead(*ahead, on_dead_head, now))
    }

    fn is_ahead(&self, ticket: Ticket, on_dead_head: OnDeadHead, now: Monotonic) -> bool {
        match (self.standing(ticket, now), on_dead_head) {
            (Standing::Held | Standing::Filling | Standing::Unreadable, _) | (Standing::Dead, OnDeadHead::Block) => {
                true
            }
            (Standing::Over, _) | (Standing::Dead, OnDeadHead::Release) => false,
        }
    }

    /// Puts the message in `ticket`, which is still being filled, at the end of its line. Whatever happens to it then, the
    /// line goes on: a slot that is given up has ended.
    ///
    /// # Errors
    /// [`LineError`].
    pub(crate) fn join_line(&self, line: LineKey, ticket: Ticket, now: Monotonic) -> Result<Place, LineError> {
        let outcome = update(self.memory, &self.keys.lines(bucket_of(line)), |bytes| {
            let Ok(mut lines) = decode(bytes) else { return Change::Keep(Err(LineError::Busy)) };
            let entry = take(&mut lines.entries, line);
            let ahead = self.still_ahead(&entry, now);
            if ahead.len() > AHEAD_MAX {
                return Change::Keep(Err(LineError::Busy));
            }
            if let Err(error) = self.make_room_for_line(&mut lines.entries, now) {
                return Change::Keep(Err(error));
            }
            lines.number = lines.number.saturating_add(1).max(now.0.saturating_mul(NUMBERS_PER_MILLI));
            let place = Place { spot: Spot { line, number: lines.number }, ahead: places(&ahead) };
            let last = ahead.into_iter().chain([ticket]).collect();
            lines.entries.push(Entry { line, last });
            Change::Write(encode(&lines), Ok(place))
        });
        outcome.unwrap_or(Err(LineError::Busy))
    }

    /// Those that a new message stands directly behind: the last one that was stored, which stands behind all before it,
    /// and those that other VMs may yet store. A dead letter counts, whatever the configuration of the day says of it.
    fn still_ahead(&self, entry: &Entry, now: Monotonic) -> Vec<Ticket> {
        let standings = entry.last.iter().map(|ticket| (*ticket, self.standing(*ticket, now)));
        let open: Vec<_> = standings.filter(|(_, standing)| *standing != Standing::Over).collect();
        let last = |wanted| open.iter().rposition(|(_, standing)| *standing == wanted);
        let (held, dead) = (last(Standing::Held), last(Standing::Dead));
        let counts = |place: usize, standing| match standing {
            Standing::Held => Some(place) == held,
            Standing::Dead => Some(place) == dead && dead > held,
            Standing::Filling | Standing::Unreadable => true,
            Standing::Over => false,
        };
        let kept = open.iter().enumerate().filter(|(place, (_, standing))| counts(*place, *standing));
        kept.map(|(_, (ticket, _))| *ticket).collect()
    }

    /// Looks at one line that was not met for long: as fast as lines come, those that have ended go.
    fn make_room_for_line(&self, entries: &mut Vec<Entry>, now: Monotonic) -> Result<(), LineError> {
        if entries.is_empty() {
            return Ok(());
        }
        let eldest = entries.remove(0);
        if eldest.last.iter().any(|ticket| self.standing(*ticket, now) != Standing::Over) {
            entries.push(eldest);
        }
        if entries.len() >= LINES_MAX {
            entries.retain(|entry| entry.last.iter().any(|ticket| self.standing(*ticket, now) != Standing::Over));
        }
        if entries.len() < LINES_MAX { Ok(()) } else { Err(LineError::Full) }
    }

    fn forget_ended(&self, ended: &Entry) {
        let outcome = update(self.memory, &self.keys.lines(bucket_of(ended.line)), |bytes| {
            let Ok(mut lines) = decode(bytes) else { return Change::Keep(()) };
            let before = lines.entries.len();
            lines.entries.retain(|entry| entry != ended);
            if lines.entries.len() == before { Change::Keep(()) } else { Change::Write(encode(&lines), ()) }
        });
        // It costs the next one a look at the slot.
        outcome.unwrap_or_default();
    }
}

fn bucket_of(line: LineKey) -> Bucket {
    let [first, second, ..] = line.0.to_le_bytes();
    Bucket::of([first, second])
}

fn take(entries: &mut Vec<Entry>, line: LineKey) -> Entry {
    let place = entries.iter().position(|entry| entry.line == line);
    place.map_or(Entry { line, last: Vec::new() }, |place| entries.remove(place))
}

fn places(tickets: &[Ticket]) -> [Option<Ticket>; AHEAD_MAX] {
    let mut places = [None; AHEAD_MAX];
    for (place, ticket) in places.iter_mut().zip(tickets) {
        *place = Some(*ticket);
    }
    places
}

fn encode(lines: &Lines) -> Vec<u8> {
    let mut writer = Writer::new(b'O', lines.entries.len().saturating_mul(17).saturating_add(10));
    writer.u64(lines.number).u16(u16::try_from(lines.entries.len()).unwrap_or(u16::MAX));
    for entry in &lines.entries {
        writer.u64(entry.line.0).u8(u8::try_from(entry.last.len()).unwrap_or(u8::MAX));
        for ticket in &entry.last {
            writer.u32(ticket.slot.0).u32(ticket.generation.0);
        }
    }
    writer.finish()
}

/// What a cell says; nothing if it is damaged, and [`Later`] if a later build wrote it.
fn decode(bytes: Option<&[u8]>) -> Result<Lines, Later> {
    codec::read_or_nothing(bytes, read)
}

fn read(bytes: &[u8]) -> Result<Lines, Damage> {
    let mut reader = Reader::open(bytes, b'O')?;
    let (number, count) = (reader.u64()?, reader.u16()?);
    let entries = (0..count).map(|_| read_entry(&mut reader)).collect::<Result<_, _>>()?;
    reader.close()?;
    Ok(Lines { number, entries })
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, Damage> {
    let (line, count) = (LineKey(reader.u64()?), reader.u8()?);
    let mut ticket = || Ok(Ticket { slot: SlotIndex(reader.u32()?), generation: Generation(reader.u32()?) });
    let last = (0..count).map(|_| ticket()).collect::<Result<_, _>>()?;
    Ok(Entry { line, last })
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
