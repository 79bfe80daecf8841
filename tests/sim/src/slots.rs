//! A look into shared memory: what each slot holds. Read with the product's own decoders, from a host that is not its own.

use crate::retries::TRY;
use redeliver_core::cells::{Leadership, PublishedState, decode_destinations};
use redeliver_core::keys::Keys;
use redeliver_core::ledger::Ledger;
use redeliver_core::memory::{Cas, Conflict, Expect, SharedMemory, Versioned};
use redeliver_core::message::{self, LargePart};
use redeliver_core::slot::{DeadReason, DestinationIndex, Head, SlotIndex, SlotState};
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
    /// It waits, for its due time or for another configuration.
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
            SlotState::Queued { .. } | SlotState::Parked { .. } => Self::Queued,
            SlotState::Sending { .. } => Self::Sending,
            SlotState::Dead { .. } => Self::Dead,
        }
    }
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub index: SlotIndex,
    /// Its head; `None`: damaged.
    pub head: Option<Head>,
    /// What its large part says.
    pub large: Large,
}

impl Slot {
    /// It holds the message with this id.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        matches!(&self.large, Large::Message(found, _) if found == id)
    }

    /// The path of the message in it, if it holds one that can be read.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match &self.large {
            Large::Message(_, path) => Some(path),
            Large::Settled | Large::Unreadable => None,
        }
    }
}

/// What a large part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Large {
    /// A message: its id, as senders and receivers see it, and its path with the number that it has here.
    Message(String, String),
    /// The receipt of one.
    Settled,
    /// Nothing that can be read.
    Unreadable,
}

/// All slots, and the books.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In order.
    pub slots: Vec<Slot>,
    /// `None`: damaged.
    pub ledger: Option<Ledger>,
    /// Destinations, and what their leaders say.
    pub leaders: Vec<(String, Option<Leadership>)>,
}

/// A VM that dies between taking a number and writing there leaves a gap; so many numbers without a slot are the end.
pub(crate) const GAP_MAX: u32 = 64;

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
        process.with_data(Self::of)
    }

    /// Reads them all; [`crate::mirror::Mirror`] is for who looks often.
    #[must_use]
    pub fn of(data: &SharedData) -> Self {
        let keys = keys();
        let mut slots = Vec::new();
        let mut missing = 0;
        for index in (0..).map(SlotIndex) {
            match read_slot(data, &keys, index) {
                Some(slot) => slots.push(slot),
                None if missing < GAP_MAX => missing += 1,
                None => break,
            }
        }
        Self { slots, ledger: read_ledger(data, &keys), leaders: read_leaders(data, &keys) }
    }

    /// Slots with a message in them.
    pub fn used(&self) -> impl Iterator<Item = (&Slot, &Head)> {
        let with_head = self.slots.iter().filter_map(|slot| Some((slot, slot.head.as_ref()?)));
        with_head.filter(|(_, head)| head.state != SlotState::Free)
    }
}

/// The books; `None`: damaged.
pub(crate) fn read_ledger(data: &SharedData, keys: &Keys) -> Option<Ledger> {
    Ledger::read(&View(data), &keys.ledger()).ok()
}

/// Who leads which destination; empty if the table of destinations is damaged.
pub(crate) fn read_leaders(data: &SharedData, keys: &Keys) -> Vec<(String, Option<Leadership>)> {
    let view = View(data);
    let table = view.get(&keys.destinations());
    let names = table.and_then(|table| decode_destinations(&table.bytes).ok()).unwrap_or_default();
    let leader = |place| {
        let cell = view.get(&keys.leadership(DestinationIndex(u16::try_from(place).ok()?)))?;
        Leadership::decode(&cell.bytes).ok()
    };
    names.into_iter().enumerate().map(|(place, name)| (name.0, leader(place))).collect()
}

/// One slot; `None`: nobody has ever written there.
pub(crate) fn read_slot(data: &SharedData, keys: &Keys, index: SlotIndex) -> Option<Slot> {
    let head = Head::decode(&data.get(VM_ID, keys.head(index).as_bytes())?.bytes, index).ok();
    let large = head
        .filter(|head| head.state != SlotState::Free)
        .and_then(|head| Some((head, data.get(VM_ID, keys.large(index).as_bytes())?)))
        .map(|(head, value)| message::decode(&value.bytes, index, head.generation));
    let large = match large {
        Some(Ok(LargePart::Message(message))) => Large::Message(message.id.to_string(), label(&message)),
        Some(Ok(LargePart::Settled(_))) => Large::Settled,
        Some(Err(_)) | None => Large::Unreadable,
    };
    Some(Slot { index, head, large })
}

/// The path of a message; that of a retry ends with its own number in the place of the first one's.
fn label(message: &message::Message) -> String {
    let path = String::from_utf8_lossy(&message.arrived.path).into_owned();
    match (message.arrived.field(TRY), path.rsplit_once('m')) {
        (Some(number), Some((rest, _))) => format!("{rest}m{}", String::from_utf8_lossy(number)),
        (_, _) => path,
    }
}

/// What a key is, and its number: `rd<version><six digits>.<kind><digits>`. The product's `keys` module lists the kinds.
fn numbered(key: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, digits) = key.get(10..).filter(|_| key.starts_with(b"rd"))?.split_first()?;
    digits.iter().all(u8::is_ascii_hexdigit).then_some((*kind, digits))
}

/// Whether a key is this part of a slot: `h`, its head, or `m`, its large part.
#[must_use]
pub fn is_part(key: &[u8], part: u8) -> bool {
    numbered(key).is_some_and(|(kind, digits)| kind == part && digits.len() == 8)
}

/// The slot that a key is a part of.
#[must_use]
pub fn slot_of(key: &[u8]) -> Option<SlotIndex> {
    let (_, digits) = numbered(key).filter(|_| is_part(key, b'h') || is_part(key, b'm'))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().map(SlotIndex)
}

/// Whether a key is a bucket of idempotency keys (`d`) or of lines (`o`): there is a fixed number of these
/// ([`redeliver_core::keys::BUCKETS`]), however much is stored.
#[must_use]
pub fn is_bucket(key: &[u8]) -> bool {
    is_bucket_of(key, b'd') || is_bucket_of(key, b'o')
}

/// Whether a key is a bucket of this kind.
#[must_use]
pub fn is_bucket_of(key: &[u8], kind: u8) -> bool {
    numbered(key).is_some_and(|(found, digits)| found == kind && digits.len() == 4)
}

/// The state that the leader of a destination says it is in; `None` if nobody leads it yet.
#[must_use]
pub fn published(process: &Process, cluster: &str) -> Option<PublishedState> {
    leadership(process, cluster).map(|found| found.state)
}

/// What the leader of a destination says of it; `None` if nobody leads it yet.
#[must_use]
pub fn leadership(process: &Process, cluster: &str) -> Option<Leadership> {
    process.with_data(|data| {
        let (view, keys) = (View(data), keys());
        let names = decode_destinations(&view.get(&keys.destinations())?.bytes).ok()?;
        let place = names.iter().position(|name| name.0 == cluster)?;
        let leadership = view.get(&keys.leadership(DestinationIndex(u16::try_from(place).ok()?)))?;
        Leadership::decode(&leadership.bytes).ok()
    })
}

/// The state that a head's bytes say.
#[must_use]
pub fn state_of(key: &[u8], bytes: &[u8]) -> Option<RecordState> {
    let index = slot_of(key)?;
    Some(RecordState::of(Head::decode(bytes, index).ok()?.state))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ledger {:?}", self.ledger)?;
        for (name, leader) in &self.leaders {
            writeln!(f, "{name}: {leader:?}")?;
        }
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
        SlotState::Parked { rule } => format!("parked by {:08x}", rule.0),
        SlotState::Dead { reason: DeadReason::Expired } => "dead (expired)".to_owned(),
        SlotState::Dead { reason } => format!("dead ({reason})"),
    }
}
