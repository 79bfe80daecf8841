//! A look into shared memory: what each slot holds. Read with the product's own decoders, from a host that is not its own.

use redeliver_core::cells::{Leadership, PublishedState, decode_destinations};
use redeliver_core::keys::Keys;
use redeliver_core::ledger::Ledger;
use redeliver_core::memory::{Cas, Conflict, Expect, SharedMemory, Versioned};
use redeliver_core::message::{self, LargePart, MessageId};
use redeliver_core::slot::{DeadReason, DestinationIndex, Head, SlotIndex, SlotState};
use redeliver_core::units::Wall;
use simvoy::{Process, SharedData};
use std::fmt;

/// The plugin's `vm_id` and `root_id` in every history.
pub const VM_ID: &str = "redeliver";

/// A slot's state without what it carries: what a fault can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordState {
    /// No message.
    Free,
    /// A VM writes it.
    Filling,
    /// Its routed form is to come.
    Opening,
    /// It waits.
    Queued,
    /// An attempt is out.
    Sending,
    /// A dead letter.
    Dead,
}

impl RecordState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Free, Self::Filling, Self::Opening, Self::Queued, Self::Sending, Self::Dead];

    /// The state of a head.
    #[must_use]
    pub const fn of(state: SlotState) -> Self {
        match state {
            SlotState::Free => Self::Free,
            SlotState::Filling { .. } => Self::Filling,
            SlotState::Opening { .. } => Self::Opening,
            SlotState::Queued { .. } => Self::Queued,
            SlotState::Sending { .. } => Self::Sending,
            SlotState::Dead { .. } => Self::Dead,
        }
    }
}

/// One slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its number.
    pub index: SlotIndex,
    /// Its head; `None`: damaged.
    pub head: Option<Head>,
    /// What its large part says.
    pub large: Large,
}

/// What a large part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Large {
    /// A message.
    Message(MessageId, String),
    /// The receipt of one.
    Settled,
    /// Nothing that can be read.
    Unreadable,
}

/// All slots, and the books.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// In order.
    pub slots: Vec<Slot>,
    /// `None`: damaged.
    pub ledger: Option<Ledger>,
}

const GAP_MAX: u32 = 64;

struct View<'a>(&'a SharedData);

impl SharedMemory for View<'_> {
    fn get(&self, key: &str) -> Option<Versioned> {
        self.0.get(VM_ID, key.as_bytes()).map(|value| Versioned { bytes: value.bytes.clone(), cas: Cas(value.cas) })
    }

    fn set(&self, _: &str, _: &[u8], _: Expect) -> Result<(), Conflict> {
        Err(Conflict)
    }

    fn enqueue(&self, _: &str, _: &[u8]) {}

    fn dequeue(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
}

/// The names of the cells.
#[must_use]
pub fn keys() -> Keys {
    Keys::of(VM_ID.as_bytes())
}

impl Table {
    /// Reads them all.
    #[must_use]
    pub fn read(process: &Process) -> Self {
        process.with_data(|data| {
            let (view, keys) = (View(data), keys());
            let ledger = Ledger::read(&view, &keys.ledger()).ok();
            let mut slots = Vec::new();
            let mut missing = 0;
            for index in (0..).map(SlotIndex) {
                match view.get(&keys.head(index)) {
                    Some(head) => slots.push(read_slot(&view, &keys, index, &head.bytes)),
                    // A VM that dies between taking a number and writing there leaves a gap.
                    None if missing < GAP_MAX => missing += 1,
                    None => break,
                }
            }
            Self { slots, ledger }
        })
    }

    /// Slots with a message in them.
    pub fn used(&self) -> impl Iterator<Item = (&Slot, &Head)> {
        let with_head = self.slots.iter().filter_map(|slot| Some((slot, slot.head.as_ref()?)));
        with_head.filter(|(_, head)| head.state != SlotState::Free)
    }

    /// The slot that holds a message.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Slot> {
        let is_it = |slot: &&Slot| matches!(&slot.large, Large::Message(found, _) if found.to_string() == id);
        self.slots.iter().find(is_it)
    }

    /// How many are in a state.
    #[must_use]
    pub fn count(&self, state: RecordState) -> usize {
        self.slots.iter().filter_map(|slot| slot.head).filter(|head| RecordState::of(head.state) == state).count()
    }
}

fn read_slot(view: &View<'_>, keys: &Keys, index: SlotIndex, head: &[u8]) -> Slot {
    let head = Head::decode(head, index).ok();
    let large = head.map_or(Large::Unreadable, |head| read_large(view, keys, index, &head));
    Slot { index, head, large }
}

fn read_large(view: &View<'_>, keys: &Keys, index: SlotIndex, head: &Head) -> Large {
    if head.state == SlotState::Free {
        return Large::Unreadable;
    }
    let decoded = view.get(&keys.large(index)).map(|value| message::decode(&value.bytes, index, head.generation));
    match decoded {
        Some(Ok(LargePart::Message(message))) => {
            Large::Message(message.id, String::from_utf8_lossy(&message.arrived.path).into_owned())
        }
        Some(Ok(LargePart::Settled)) => Large::Settled,
        Some(Err(_)) | None => Large::Unreadable,
    }
}

/// What the leader of a destination says of it; `None` if nobody leads it yet.
#[must_use]
pub fn published(process: &Process, cluster: &str) -> Option<PublishedState> {
    process.with_data(|data| {
        let (view, keys) = (View(data), keys());
        let names = decode_destinations(&view.get(&keys.destinations())?.bytes).ok()?;
        let place = names.iter().position(|name| name.0 == cluster)?;
        let leadership = view.get(&keys.leadership(DestinationIndex(u16::try_from(place).ok()?)))?;
        Leadership::decode(&leadership.bytes).ok().map(|found| found.state)
    })
}

/// A message that waits, or is being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its destination's cluster.
    pub cluster: String,
    /// Its path, if its large part can be read.
    pub path: Option<String>,
}

/// Messages that were stored before this moment and are still to be delivered. (Those whose routed form is to come wait
/// for something else.)
#[must_use]
pub fn waiting_since(process: &Process, before: Wall) -> Vec<Waiting> {
    process.with_data(|data| {
        let (view, keys) = (View(data), keys());
        let names = view.get(&keys.destinations()).and_then(|value| decode_destinations(&value.bytes).ok());
        let waits = |head: &Head| {
            matches!(head.state, SlotState::Queued { .. } | SlotState::Sending { .. }) && head.stored_at < before
        };
        let found =
            data.entries(VM_ID).filter_map(|(key, value)| head_of(key, &value.bytes)).filter(|(_, head)| waits(head));
        found
            .filter_map(|(index, head)| {
                let cluster = names.as_ref()?.get(usize::from(head.destination.0))?.0.clone();
                let large = read_large(&view, &keys, index, &head);
                let path = if let Large::Message(_, path) = large { Some(path) } else { None };
                Some(Waiting { cluster, path })
            })
            .collect()
    })
}

/// How many slots are in use, without a look at what is in them.
#[must_use]
pub fn used_count(process: &Process) -> usize {
    process.with_data(|data| {
        let heads = data.entries(VM_ID).filter_map(|(key, value)| state_of(key, &value.bytes));
        heads.filter(|state| *state != RecordState::Free).count()
    })
}

/// The state that a head's bytes say.
#[must_use]
pub fn state_of(key: &[u8], bytes: &[u8]) -> Option<RecordState> {
    head_of(key, bytes).map(|(_, head)| RecordState::of(head.state))
}

fn head_of(key: &[u8], bytes: &[u8]) -> Option<(SlotIndex, Head)> {
    let digits = std::str::from_utf8(key).ok()?.rsplit_once(".h")?.1;
    let index = SlotIndex(u32::from_str_radix(digits, 16).ok()?);
    Some((index, Head::decode(bytes, index).ok()?))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ledger {:?}", self.ledger)?;
        writeln!(
            f,
            "{:>5} {:<34} {:>4} {:>3} {:>5} {:>6}  message",
            "slot", "state", "dest", "att", "sends", "status"
        )?;
        for slot in &self.slots {
            let Some(head) = slot.head else {
                writeln!(f, "{:>5} damaged", slot.index.0)?;
                continue;
            };
            let message = match &slot.large {
                Large::Message(id, path) => format!("{path} {id}"),
                Large::Settled => "settled".to_owned(),
                Large::Unreadable => String::new(),
            };
            writeln!(
                f,
                "{:>5} {:<34} {:>4} {:>3} {:>5} {:>6}  {message}",
                slot.index.0,
                state_text(head.state),
                head.destination.0,
                head.attempts,
                head.sends,
                head.last_status,
            )?;
        }
        Ok(())
    }
}

fn state_text(state: SlotState) -> String {
    match state {
        SlotState::Free => "free".to_owned(),
        SlotState::Filling { until } => format!("filling until {}", until.0),
        SlotState::Opening { until } => format!("opening until {}", until.0),
        SlotState::Queued { due } => format!("queued, due {}", due.0),
        SlotState::Sending { epoch, until } => format!("sending until {} epoch {}", until.0, epoch.0),
        SlotState::Dead { reason: DeadReason::Expired } => "dead (expired)".to_owned(),
        SlotState::Dead { reason } => format!("dead ({reason})"),
    }
}
