//! The memory of idempotency keys: a sender's retry of a stored message is known before it goes out.
//!
//! | the entry says | its slot says | so the request is |
//! | --- | --- | --- |
//! | nothing is known of this key | - | new |
//! | stored in this use of this slot | `Opening`, `Queued`, `Sending`, `Parked`, `Dead` | known |
//! | stored in this use of this slot | `Filling`, and its VM may live | being stored at this moment |
//! | stored in this use of this slot | anything else | new: the entry is stale |
//! | delivered at T, not longer ago than [`REMEMBERED`] | not asked | known |
//! | delivered earlier | not asked | new |
//!
//! A known request with the same content joins the first one; with other content it is refused. The entry carries whole
//! digests, so neither a collision nor another use of the slot can join or refuse a stranger.
//!
//! One cell per bucket, and a fixed number of buckets: no key is ever made for a message. An entry is written before its
//! message is promised, and becomes one of a delivery before its slot is freed; so a VM that dies leaves a stale entry or
//! a memory that is right. A damaged cell reads as if it were empty: then a retry is a new message.

use crate::codec::{self, Damage, Later, Reader, Writer};
use crate::digest::{Content, Fingerprint, Identity};
use crate::keys::Bucket;
use crate::memory::{Change, update};
use crate::message::{Memo, MessageId};
use crate::slot::{Generation, SlotIndex, Ticket};
use crate::store::{Now, Standing, Store};
use crate::units::{Millis, Wall};

/// How long a delivery is remembered: a sender that retries gives up sooner (SQS remembers 5 minutes, Outpost an hour).
pub const REMEMBERED: Millis = Millis(3_600_000);
/// Deliveries that one bucket remembers; with all buckets full that is 131,072 of 57 bytes each.
const DELIVERED_MAX: usize = 8;
/// Stored messages that one bucket remembers: four times what it holds on average when the store is as full as one can
/// be. Beyond it the oldest is forgotten, and a retry of that message is a new one.
const STORED_MAX: usize = 256;

/// Looks at a message that another VM is storing: each costs two reads, together some 100 us, and a slot is filled in less
/// than 10.
const LOOKS_MAX: usize = 64;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// Nothing.
    New,
    /// Another VM is storing a message with it, and has promised nothing yet.
    BeingStored,
    /// A message with it is held, or was delivered not long ago.
    Known(Known),
}

/// A message that an idempotency key was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What its sender was told.
    pub id: MessageId,
    /// What it asked for.
    pub content: Content,
    /// Where it is, if it is still held.
    pub held: Option<Ticket>,
}

/// What is done about a request with a known key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request: it is told the first id.
    Joins(MessageId),
    /// Another request under the same key.
    Reuses,
}

impl Known {
    /// What a request with this key and `content` is.
    #[must_use]
    pub fn judge(&self, content: Content) -> Retry {
        if self.content == content { Retry::Joins(self.id) } else { Retry::Reuses }
    }
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    memo: Memo,
    state: EntryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Stored(Ticket),
    Delivered(Wall),
}

impl Store<'_> {
    /// What is known of a key. One read if that is nothing.
    #[must_use]
    pub fn recall(&self, identity: Identity, now: Now) -> Recall {
        let bytes = self.memory.get(&self.keys.duplicates(bucket_of(identity))).map(|value| value.bytes);
        // What a later build remembers, this one cannot ask: as if it were nothing.
        let entries = decode(bytes.as_deref()).unwrap_or_default();
        let recalled = find(&entries, identity).map(|entry| (entry, self.recall_of(&entry, now)));
        match recalled {
            // The next request with this key need not look at the slot.
            Some((entry, Recall::New)) => self.forget_stale(&entry),
            Some((_, Recall::BeingStored | Recall::Known(_))) | None => {}
        }
        recalled.map_or(Recall::New, |(_, recall)| recall)
    }

    fn recall_of(&self, entry: &Entry, now: Now) -> Recall {
        let (id, content) = (entry.memo.id, entry.memo.fingerprint.content);
        match entry.state {
            EntryState::Delivered(at) if is_remembered(at, now.wall) => {
                Recall::Known(Known { id, content, held: None })
            }
            EntryState::Delivered(_) => Recall::New,
            EntryState::Stored(ticket) => match self.standing(ticket, now.monotonic) {
                Standing::Held | Standing::Dead => Recall::Known(Known { id, content, held: Some(ticket) }),
                Standing::Filling => Recall::BeingStored,
                Standing::Over | Standing::Unreadable => Recall::New,
            },
        }
    }

    /// Writes down that the message in `ticket` has this key, unless another one has it. Waits for a moment for one that is
    /// being stored: then this one is its retry, and its sender need not be refused.
    ///
    /// # Errors
    /// What is known of the key; nothing was written then.
    pub(crate) fn remember(&self, memo: Memo, ticket: Ticket, now: Now) -> Result<(), Recall> {
        for _ in 0..LOOKS_MAX {
            match self.try_remember(memo, ticket, now) {
                Err(Recall::BeingStored) => {}
                other @ (Ok(()) | Err(Recall::New | Recall::Known(_))) => return other,
            }
        }
        Err(Recall::BeingStored)
    }

    fn try_remember(&self, memo: Memo, ticket: Ticket, now: Now) -> Result<(), Recall> {
        let identity = memo.fingerprint.identity;
        let outcome = update(self.memory, &self.keys.duplicates(bucket_of(identity)), |bytes| {
            let Ok(mut entries) = decode(bytes) else { return Change::Keep(Err(Recall::BeingStored)) };
            let found = find(&entries, identity).map_or(Recall::New, |entry| self.recall_of(&entry, now));
            match found {
                Recall::New => {}
                Recall::BeingStored | Recall::Known(_) => return Change::Keep(Err(found)),
            }
            self.make_room(&mut entries, identity, now);
            entries.push(Entry { memo, state: EntryState::Stored(ticket) });
            Change::Write(encode(&entries), Ok(()))
        });
        // Too many VMs wrote at once: as if one of them were storing this very message.
        outcome.unwrap_or(Err(Recall::BeingStored))
    }

    /// Takes out what has lapsed, and looks at one more stored message: as fast as entries come, stale ones go.
    fn make_room(&self, entries: &mut Vec<Entry>, identity: Identity, now: Now) {
        entries.retain(|entry| entry.memo.fingerprint.identity != identity && !has_lapsed(entry, now.wall));
        if let Some(place) = entries.iter().position(is_stored) {
            let eldest = entries.remove(place);
            let is_full = entries.iter().filter(|entry| is_stored(entry)).count() >= STORED_MAX.saturating_sub(1);
            match self.recall_of(&eldest, now) {
                Recall::New => {}
                Recall::BeingStored | Recall::Known(_) if is_full => {}
                Recall::BeingStored | Recall::Known(_) => entries.push(eldest),
            }
        }
    }

    /// The message in `ticket` was delivered: remembered for [`REMEMBERED`], whatever becomes of its slot.
    pub(crate) fn remember_delivered(&self, memo: &Memo, ticket: Ticket, at: Wall) {
        let identity = memo.fingerprint.identity;
        let outcome = update(self.memory, &self.keys.duplicates(bucket_of(identity)), |bytes| {
            let Ok(mut entries) = decode(bytes) else { return Change::Keep(()) };
            match find(&entries, identity).map(|entry| entry.state) {
                // The key belongs to another message by now, or this one is remembered already.
                Some(EntryState::Stored(other)) if other != ticket => return Change::Keep(()),
                Some(EntryState::Delivered(_)) => return Change::Keep(()),
                Some(EntryState::Stored(_)) | None => {}
            }
            entries.retain(|entry| entry.memo.fingerprint.identity != identity && !has_lapsed(entry, at));
            forget_oldest_delivery(&mut entries);
            entries.push(Entry { memo: *memo, state: EntryState::Delivered(at) });
            Change::Write(encode(&entries), ())
        });
        // After too many conflicts a late retry is a new message: the receiver sees the same key again.
        outcome.unwrap_or_default();
    }

    fn forget_stale(&self, stale: &Entry) {
        let key = self.keys.duplicates(bucket_of(stale.memo.fingerprint.identity));
        let outcome = update(self.memory, &key, |bytes| {
            let Ok(mut entries) = decode(bytes) else { return Change::Keep(()) };
            let before = entries.len();
            entries.retain(|entry| entry != stale);
            if entries.len() == before { Change::Keep(()) } else { Change::Write(encode(&entries), ()) }
        });
        // It costs the next one a look at the slot.
        outcome.unwrap_or_default();
    }
}

fn bucket_of(identity: Identity) -> Bucket {
    let [first, second, ..] = identity.0;
    Bucket::of([first, second])
}

fn find(entries: &[Entry], identity: Identity) -> Option<Entry> {
    entries.iter().find(|entry| entry.memo.fingerprint.identity == identity).copied()
}

fn is_remembered(delivered_at: Wall, now: Wall) -> bool {
    now.since(delivered_at) <= REMEMBERED
}

const fn is_stored(entry: &Entry) -> bool {
    matches!(entry.state, EntryState::Stored(_))
}

fn has_lapsed(entry: &Entry, now: Wall) -> bool {
    match entry.state {
        EntryState::Stored(_) => false,
        EntryState::Delivered(at) => !is_remembered(at, now),
    }
}

/// Makes room for one more delivery. Entries stand in the order in which they were written.
fn forget_oldest_delivery(entries: &mut Vec<Entry>) {
    let deliveries = entries.iter().filter(|entry| !is_stored(entry)).count();
    if deliveries >= DELIVERED_MAX
        && let Some(place) = entries.iter().position(|entry| !is_stored(entry))
    {
        entries.remove(place);
    }
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(b'I', entries.len().saturating_mul(57).saturating_add(2));
    writer.u16(u16::try_from(entries.len()).unwrap_or(u16::MAX));
    for entry in entries {
        let (code, number) = match entry.state {
            EntryState::Stored(ticket) => (0, u64::from(ticket.slot.0) << 32 | u64::from(ticket.generation.0)),
            EntryState::Delivered(at) => (1, at.0),
        };
        let Fingerprint { identity, content } = entry.memo.fingerprint;
        writer.raw(&identity.0).raw(&content.0).raw(&entry.memo.id.0).u8(code).u64(number);
    }
    writer.finish()
}

/// The entries of a cell; none if it is damaged, and [`Later`] if a later build wrote it.
fn decode(bytes: Option<&[u8]>) -> Result<Vec<Entry>, Later> {
    codec::read_or_nothing(bytes, read)
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, Damage> {
    let mut reader = Reader::open(bytes, b'I')?;
    let count = reader.u16()?;
    let entries = (0..count).map(|_| read_entry(&mut reader)).collect::<Result<_, _>>()?;
    reader.close()?;
    Ok(entries)
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, Damage> {
    let fingerprint = Fingerprint { identity: Identity(reader.raw()?), content: Content(reader.raw()?) };
    let memo = Memo { fingerprint, id: MessageId(reader.raw()?) };
    let (code, low, high) = (reader.u8()?, reader.u32()?, reader.u32()?);
    let state = match code {
        0 => EntryState::Stored(Ticket { slot: SlotIndex(high), generation: Generation(low) }),
        1 => EntryState::Delivered(Wall(u64::from(high) << 32 | u64::from(low))),
        _ => return Err(Damage::Field),
    };
    Ok(Entry { memo, state })
}

#[cfg(test)]
#[path = "duplicates_tests.rs"]
mod tests;
