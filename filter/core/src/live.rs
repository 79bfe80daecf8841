//! Live requests in flight to a destination, over all VMs: beside them, redelivery takes a share and no more.
//!
//! | who | when | does |
//! | --- | --- | --- |
//! | a stream | it goes to the router, and its destination has a backlog | holds a [`LiveRequest`]; without any backlog nothing is counted, and nobody asks for its cluster |
//! | a stream | its destination had no healthy host for another one just now | nothing, as if it had no backlog: it will not be served either |
//! | a stream | its body is still to come, or it is a redelivery of our own | nothing: its destination is not serving it, or not as live traffic |
//! | each VM | at a tick | writes its [`Meter`]'s figure into the destination's cell, if it changed or would fade |
//! | the leader | at a tick, with a backlog | adds up what stands there: [`share`] |
//!
//! A figure is the most that was in flight in the last one to two seconds: a receiver that answers in a millisecond is
//! seldom caught with a request in flight, and yet is serving live traffic.

use crate::cells::VmId;
use crate::codec::{Damage, Reader, Writer};
use crate::slot::DestinationIndex;
use crate::units::{Millis, Monotonic};
use std::cell::Cell;
use std::rc::Rc;

/// How long a peak is remembered at least, and how often a figure is written although it has not changed.
const PERIOD: Millis = Millis(1_000);
/// How long a figure stands without being written again: a VM that died takes its traffic with it.
const STANDS: Millis = Millis(3_000);
/// VMs with traffic to one destination; Envoy has one worker per core by default.
const VMS_MAX: usize = 512;
/// The share of live traffic that redelivery may take (Envoy's retry budget, 20 %)...
const SHARE_DIVISOR: u32 = 5;
/// ...and what it may take beside ever so little (`min_retry_concurrency` there).
const SHARE_MIN: u32 = 3;

/// How many redeliveries may be out beside so many live requests; `None`: no live traffic, the window alone decides.
#[must_use]
pub fn share(live: u32) -> Option<u32> {
    let fifth = live.checked_div(SHARE_DIVISOR).unwrap_or_default();
    (live > 0).then(|| fifth.max(SHARE_MIN))
}

/// One VM's live requests to one destination.
#[derive(Debug, Default)]
struct Meter {
    in_flight: Cell<u32>,
    peak: Cell<u32>,
    peak_before: Cell<u32>,
    turned_at: Cell<Monotonic>,
    told: Cell<u32>,
    told_at: Cell<Monotonic>,
}

impl Meter {
    fn begin(&self) {
        self.in_flight.set(self.in_flight.get().saturating_add(1));
        self.peak.set(self.peak.get().max(self.in_flight.get()));
    }

    /// The most that was in flight lately.
    fn figure(&self, now: Monotonic) -> u32 {
        if now.since(self.turned_at.get()) >= PERIOD {
            self.turned_at.set(now);
            self.peak_before.set(self.peak.replace(self.in_flight.get()));
        }
        self.peak.get().max(self.peak_before.get())
    }

    /// The figure, if others have to hear of it at `now`; they are then taken to have heard.
    fn news(&self, now: Monotonic) -> Option<u32> {
        let figure = self.figure(now);
        let fades = figure > 0 && now.since(self.told_at.get()) >= PERIOD;
        let is_news = figure != self.told.get() || fades;
        is_news.then(|| {
            self.told.set(figure);
            self.told_at.set(now);
            figure
        })
    }
}

/// A live request that is counted until this is dropped.
#[derive(Debug)]
pub struct LiveRequest(Rc<Meter>);

impl Drop for LiveRequest {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

/// One VM's live requests, by destination. Few: only those with a backlog.
#[derive(Debug, Default)]
pub struct LiveTraffic(Vec<(DestinationIndex, Rc<Meter>)>);

impl LiveTraffic {
    /// A request to `destination` begins.
    pub fn begin(&mut self, destination: DestinationIndex) -> LiveRequest {
        let found = self.0.iter().find(|(place, _)| *place == destination);
        let meter = found.map(|(_, meter)| meter.clone()).unwrap_or_default();
        if Rc::strong_count(&meter) == 1 {
            self.0.push((destination, meter.clone()));
        }
        meter.begin();
        LiveRequest(meter)
    }

    /// The figures that others have to hear of at `now`. A destination without traffic is forgotten once they have.
    pub fn news(&mut self, now: Monotonic) -> Vec<(DestinationIndex, u32)> {
        let news = self.0.iter().filter_map(|(place, meter)| Some((*place, meter.news(now)?))).collect();
        self.0.retain(|(_, meter)| meter.told.get() > 0 || Rc::strong_count(meter) > 1);
        news
    }
}

/// What all VMs say of one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveCell(Vec<Word>);

/// What one VM says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    vm: VmId,
    in_flight: u32,
    said_at: Monotonic,
}

impl LiveCell {
    /// Live requests of all VMs whose word stands at `now`.
    #[must_use]
    pub fn total(&self, now: Monotonic) -> u32 {
        let standing = self.0.iter().filter(|word| now.since(word.said_at) < STANDS);
        standing.fold(0, |sum, word| sum.saturating_add(word.in_flight))
    }

    /// The cell after `vm` has said `in_flight`; words that have faded are gone.
    #[must_use]
    pub fn with(&self, vm: VmId, in_flight: u32, now: Monotonic) -> Self {
        let others = self.0.iter().filter(|word| word.vm != vm && now.since(word.said_at) < STANDS);
        let mine = (in_flight > 0).then_some(Word { vm, in_flight, said_at: now });
        Self(mine.into_iter().chain(others.copied()).take(VMS_MAX).collect())
    }

    /// The cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(b'I', self.0.len().saturating_mul(20).saturating_add(2));
        writer.u16(u16::try_from(self.0.len()).unwrap_or(u16::MAX));
        for word in &self.0 {
            writer.u64(word.vm.0).u32(word.in_flight).u64(word.said_at.0);
        }
        writer.finish()
    }

    /// Reads the cell.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'I')?;
        let count = reader.u16()?;
        let mut words = Vec::new();
        for _ in 0..count {
            let (vm, in_flight, said_at) = (VmId(reader.u64()?), reader.u32()?, Monotonic(reader.u64()?));
            words.push(Word { vm, in_flight, said_at });
        }
        reader.close()?;
        Ok(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PLACE: DestinationIndex = DestinationIndex(3);

    #[test]
    fn the_share_is_a_fifth_and_at_least_three() {
        for (live, expected) in [(0, None), (1, Some(3)), (15, Some(3)), (20, Some(4)), (500, Some(100))] {
            assert_eq!(share(live), expected, "{live}");
        }
    }

    #[test]
    fn a_peak_is_told_once_and_again_before_it_fades_and_then_its_end() {
        let mut traffic = LiveTraffic::default();
        let requests: Vec<LiveRequest> = (0..4).map(|_| traffic.begin(PLACE)).collect();
        assert_eq!(traffic.news(Monotonic(10_000)), [(PLACE, 4)]);
        drop(requests);
        for tick in 1..10 {
            assert_eq!(traffic.news(Monotonic(10_000 + tick * 100)), [], "nothing new");
        }
        assert_eq!(traffic.news(Monotonic(11_000)), [(PLACE, 4)], "the peak of the second before");
        assert_eq!(traffic.news(Monotonic(12_000)), [(PLACE, 0)]);
        assert_eq!(traffic.news(Monotonic(13_000)), []);
        assert!(traffic.0.is_empty(), "{traffic:?}");
    }

    #[test]
    fn what_vms_say_is_added_up_as_long_as_it_stands() {
        let cell = LiveCell::default().with(VmId(1), 10, Monotonic(100)).with(VmId(2), 5, Monotonic(200));
        assert_eq!(LiveCell::decode(&cell.encode()), Ok(cell.clone()));
        assert_eq!((cell.total(Monotonic(3_099)), cell.total(Monotonic(3_100))), (15, 5));
        let cell = cell.with(VmId(1), 7, Monotonic(300));
        assert_eq!(cell.total(Monotonic(300)), 12, "a VM's last word counts");
        assert_eq!(cell.with(VmId(2), 0, Monotonic(9_000)), LiveCell::default(), "nothing stays behind");
    }
}
