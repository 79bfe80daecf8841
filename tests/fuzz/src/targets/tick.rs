//! One VM at work on a memory that holds anything: whatever stands in any cell, a turn of the timer does not panic, sends
//! only what is one request, and ends.
//!
//! Input: entries, each `what (1) | length (2, little-endian) | bytes`. `what` is a row of [`Place`], plus 16 times the
//! slot or destination, plus 128 for bytes that stay as they are; others get the kind, version, checksum and slot that
//! belong there, so that their fields are read.

use crate::cell::{is_compact, sealed};
use crate::memory::Memory;
use crate::wire;
use redeliver_core::answer::Answer;
use redeliver_core::codec::Seal;
use redeliver_core::config::{Config, parse};
use redeliver_core::delivery::sending::Reply;
use redeliver_core::delivery::{CallToken, Delivery};
use redeliver_core::effect::{Call, Dispatch, Effect};
use redeliver_core::headers::HeaderList;
use redeliver_core::keys::{Keys, Name};
use redeliver_core::memory::SharedMemory;
use redeliver_core::slot::{DestinationIndex, Head, SlotIndex, SlotState};
use redeliver_core::store::Now;
use redeliver_core::units::{Monotonic, Wall};
use std::rc::Rc;

/// What an entry is for, in the order of its number.
#[derive(Clone, Copy)]
enum Place {
    Head,
    Large,
    ReadyHint,
    FreeHint,
    Leadership,
    Evidence,
    Verdict,
    Ledger,
    Destinations,
    Rule,
    Polling,
    Housekeeping,
    WorkerAlive,
    Notice,
    /// The answer to the next call: status in two bytes, then whose it is, then its body.
    Answer,
    /// The health source.
    Source,
}

const PLACES: [Place; 16] = [
    Place::Head,
    Place::Large,
    Place::ReadyHint,
    Place::FreeHint,
    Place::Leadership,
    Place::Evidence,
    Place::Verdict,
    Place::Ledger,
    Place::Destinations,
    Place::Rule,
    Place::Polling,
    Place::Housekeeping,
    Place::WorkerAlive,
    Place::Notice,
    Place::Answer,
    Place::Source,
];

const SOURCES: [&str; 3] = ["passive", "admin", "health_check_filter"];
/// When the VM is configured; earlier times in cells are the past.
const START: u64 = 1_000_000;
/// The turns: at once, a tick later, after the waits of the first attempts, when leases have ended, when deadlines have,
/// when probes are due, when messages are too old.
const TURNS: [u64; 8] = [0, 100, 1_300, 4_000, 8_000, 30_000, 45_000, 25 * 3_600_000];
/// The upper three bytes of the number of slots in the cell of the books.
const SLOTS_COUNTED: std::ops::Range<usize> = 31..34;
/// Calls in one turn: far more than an input has slots, far less than a loop without end.
const CALLS_MAX: usize = 1_000;

pub(super) fn target(bytes: &[u8]) {
    let mut world = World::of(bytes);
    for later in TURNS {
        world.turn(Now { monotonic: Monotonic(START + later), wall: Wall(START + later) });
    }
    world.delivery.stop(&world.memory, Monotonic(u64::MAX));
}

/// The VM, its memory, and the answers that it will get.
struct World<'a> {
    delivery: Delivery,
    memory: Memory,
    keys: Keys,
    answers: std::vec::IntoIter<&'a [u8]>,
    calls: u32,
}

impl<'a> World<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let (memory, keys) = (Memory::default(), Keys::of(b"fuzz"));
        let (mut answers, mut source) = (Vec::new(), SOURCES[0]);
        for (what, content) in entries(bytes) {
            match PLACES[usize::from(what & 15)] {
                Place::Answer => answers.push(content),
                Place::Source => source = SOURCES[content.len() % SOURCES.len()],
                place => fill(&memory, &keys, place, what, content),
            }
        }
        let mut delivery = Delivery::new(configuration(source), keys.clone(), 1, 7, Monotonic(START));
        delivery.saw_stream();
        Self { delivery, memory, keys, answers: answers.into_iter(), calls: 0 }
    }

    /// One turn of the timer, and whatever comes of it.
    fn turn(&mut self, now: Now) {
        let mut effects = self.delivery.tick(&self.memory, now);
        let mut calls = 0;
        while let Some(effect) = effects.pop() {
            if let Effect::Dispatch(dispatch) = effect {
                calls += 1;
                assert!(calls < CALLS_MAX, "calls without end");
                effects.extend(self.call(&dispatch, now));
            }
        }
    }

    /// A call goes out, and its answer comes at once; without one it is refused on the spot.
    fn call(&mut self, dispatch: &Dispatch, now: Now) -> Vec<Effect> {
        assert!(dispatch.timeout.0 > 0, "no timeout at all");
        if let Call::Attempt(attempt) = dispatch.call {
            wire::assert_is_one_request(&dispatch.headers);
            let head = Head::decode(&self.memory.bytes(&self.keys.head(attempt.ticket.slot)), attempt.ticket.slot);
            let is_sending = |head: &Head| matches!(head.state, SlotState::Sending { .. });
            assert!(head.is_ok_and(|head| is_sending(&head) && head == attempt.head), "{head:?} for {attempt:?}");
        }
        let Some(answer) = self.answers.next() else {
            return self.delivery.dispatched(&self.memory, dispatch.call, Err(Answer::RefusedLocally), now);
        };
        self.calls += 1;
        let token = CallToken(self.calls);
        let mut effects = self.delivery.dispatched(&self.memory, dispatch.call, Ok(token), now);
        let (headers, body) = reply(answer);
        let body = || body.to_vec();
        effects.extend(self.delivery.answered(
            &self.memory,
            token,
            &Reply { headers, body: &body, trailers: &HeaderList::default },
            now,
        ));
        effects
    }
}

/// The entries of an input; what is left over at its end is none.
fn entries(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut rest, mut entries) = (bytes, Vec::new());
    while let Some((&[what, low, high], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (content, others) = behind.split_at(length);
        entries.push((what, content));
        rest = others;
    }
    entries
}

fn fill(memory: &Memory, keys: &Keys, place: Place, what: u8, content: &[u8]) {
    let number = what >> 4 & 7;
    let (slot, destination) = (SlotIndex(number.into()), DestinationIndex(number.into()));
    let put = |key: Name, kind: Option<u8>| {
        let is_raw = what & 128 != 0;
        let cell = if is_raw { None } else { belonging(content, place, kind, slot) };
        memory.put(&key, &cell.unwrap_or_else(|| content.to_vec()));
    };
    match place {
        Place::Head => put(keys.head(slot), Some(b'H')),
        Place::Large => put(keys.large(slot), None),
        Place::ReadyHint => memory.enqueue(&keys.ready(destination), content),
        Place::FreeHint => memory.enqueue(&keys.free_slots(), content),
        Place::Leadership => put(keys.leadership(destination), Some(b'L')),
        Place::Evidence => put(keys.evidence(destination), Some(b'E')),
        Place::Verdict => put(keys.verdict(destination), Some(b'V')),
        Place::Ledger => put(keys.ledger(), Some(b'B')),
        Place::Destinations => put(keys.destinations(), Some(b'D')),
        Place::Rule => put(keys.rule(), Some(b'C')),
        Place::Polling => put(keys.polling(), Some(b'K')),
        Place::Housekeeping => put(keys.housekeeping(), Some(b'K')),
        Place::WorkerAlive => memory.put(&keys.worker_alive(), content),
        Place::Notice => put(keys.capture_notice(), Some(b'N')),
        Place::Answer | Place::Source => {}
    }
}

/// `content` as a cell of this place; nothing if it is too short.
fn belonging(content: &[u8], place: Place, kind: Option<u8>, slot: SlotIndex) -> Option<Vec<u8>> {
    let mut cell = content.to_vec();
    if let Some(kind) = kind {
        *cell.first_mut()? = kind;
    }
    let is_of_slot = matches!(place, Place::Head) || cell.first() == Some(&b'M');
    match (is_of_slot, is_compact(&cell)) {
        (true, false) => cell.get_mut(6..10)?.copy_from_slice(&slot.0.to_le_bytes()),
        (true, true) if cell.first() == Some(&b'M') => *cell.get_mut(6)? = u8::try_from(slot.0).ok()?,
        (true | false, true | false) => {}
    }
    if matches!(place, Place::Ledger) {
        // More slots than an input can fill are only more of the same, and take their time.
        cell.get_mut(SLOTS_COUNTED)?.copy_from_slice(&[0; 3]);
    }
    sealed(&cell, if matches!(place, Place::Head) { Seal(slot.0) } else { Seal::NONE })
}

fn configuration(source: &str) -> Rc<Config> {
    let text = format!(r#"{{"match": {{"path_prefixes": ["/"]}}, "health": {{"source": "{source}"}}}}"#);
    Rc::new(parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}")))
}

/// The headers and the body of an answer. Behind its status, `!` makes it Envoy's own; a status of zero breaks off.
fn reply(answer: &[u8]) -> (HeaderList, &[u8]) {
    let (status, body) = answer.split_first_chunk().unwrap_or((&[0, 0], answer));
    let status = u16::from_le_bytes(*status).to_string();
    let (status, receivers) = ((":status", status.as_str()), ("x-envoy-upstream-service-time", "1"));
    match (answer, body.strip_prefix(b"!")) {
        ([0, 0, ..] | [_] | [], _) => (HeaderList::default(), body),
        (_, Some(text)) => ([status].into_iter().collect(), text),
        (_, None) => ([status, receivers].into_iter().collect(), body),
    }
}
