//! How fast redeliveries follow each other, and how many may be out beside live traffic: `redelivery.rate`, and the share
//! that the contract leaves to redelivery while a destination serves others (section 6, and the windows of issue 4).
//!
//! Both are judged when one more goes out, by what its receiver sees. The filter learns of live traffic at a tick of each
//! VM, and of a backlog in the same way: so it must have been there for a while ([`SERVING`]).

use super::{Knowledge, Oracle, Sighting};
use crate::message::Destination;
use crate::violation::{Invariant, Violation};
use crate::world::LATELY;
use simvoy::{Moment, ThreadId, VmId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What is remembered of each destination.
#[derive(Debug, Default)]
pub(super) struct Pace {
    sent: BTreeMap<Destination, VecDeque<Sent>>,
    live: BTreeMap<Destination, VecDeque<Live>>,
}

/// A redelivery.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Moment,
    vm: VmId,
    is_refused: bool,
}

/// A live request at its receiver.
#[derive(Clone, Copy, Debug)]
struct Live {
    thread: ThreadId,
    from: Moment,
    until: Moment,
    notice: Notice,
}

/// Whether the filter counts a live request: it does if there was a backlog for a destination that was up, as its VM knew
/// when it began. (What began before may be counted too; leaders change most while a destination is down.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// For certain.
    Taken,
    /// Nobody can say.
    Unsure,
}

/// Live traffic is there if each [`SLICE`] of so long had some: a VM says its figure each tick, and it stands for a second
/// at least.
const SERVING: Duration = Duration::from_secs(4);
const SLICE: Duration = Duration::from_millis(500);
/// A rate is judged by the second.
const SECOND: Duration = Duration::from_secs(1);
/// A fifth of live traffic, and never less than three (Envoy's retry budget).
const SHARE_DIVISOR: usize = 5;
const SHARE_MIN: usize = 3;
/// No history pushes a configuration whose tick is longer than so many of its own.
const TICKS: u32 = 3;

impl Pace {
    /// A live request is at its receiver until then.
    pub(super) fn serves(
        &mut self,
        destination: Destination,
        thread: ThreadId,
        notice: Notice,
        (from, until): (Moment, Moment),
    ) {
        let lately = self.live.entry(destination).or_default();
        lately.push_back(Live { thread, from, until, notice });
        while lately.front().is_some_and(|live| from - live.from > Duration::from_secs(20)) {
            lately.pop_front();
        }
    }

    /// The most that may be out beside the live traffic of now; `None`: there is none to speak of.
    fn share(&self, destination: Destination, now: Moment) -> Option<usize> {
        let live = self.live.get(&destination)?;
        let slices = SERVING.as_nanos() / SLICE.as_nanos();
        let has_any = |nth: u32| {
            let (begin, end) = (ago(now, SLICE * (nth + 1)), ago(now, SLICE * nth));
            live.iter().any(|live| live.notice == Notice::Taken && live.from < end && live.until > begin)
        };
        if !(0..slices as u32).all(has_any) {
            return None;
        }
        self.share_at_most(destination, now)
    }

    /// The same if any was there lately, be it too little to count on: the filter may count it.
    fn share_at_most(&self, destination: Destination, now: Moment) -> Option<usize> {
        let live = self.live.get(&destination)?;
        let lately: Vec<&Live> = live.iter().filter(|live| live.until > ago(now, SERVING)).collect();
        if lately.is_empty() {
            return None;
        }
        // Each VM says the most that it had at once; they need not have had it at the same time.
        let threads: BTreeSet<ThreadId> = lately.iter().map(|live| live.thread).collect();
        let peak = |thread: ThreadId| {
            let of_thread = || lately.iter().filter(move |live| live.thread == thread);
            let at = |moment: Moment| of_thread().filter(|live| live.from <= moment && live.until >= moment).count();
            of_thread().map(|live| at(live.from)).max().unwrap_or(0)
        };
        Some((threads.into_iter().map(peak).sum::<usize>() / SHARE_DIVISOR).max(SHARE_MIN))
    }
}

fn ago(now: Moment, span: Duration) -> Moment {
    Moment(now.0.saturating_sub(span.as_nanos() as u64))
}

impl Oracle {
    /// What the filter could know of this destination when a live request began.
    pub(super) fn notice(&self, destination: Destination, began: Moment) -> Notice {
        let was_up = self.trouble.get(&destination).is_none_or(|at| *at + SECOND < began);
        let had_backlog = self.backlog_since.get(&destination).is_some_and(|since| *since + SECOND * 2 < began);
        if was_up && had_backlog { Notice::Taken } else { Notice::Unsure }
    }

    /// One more redelivery goes out, beside `out` others: whether that is too fast, or one too many.
    pub(super) fn pace(&mut self, sighting: &Sighting, knowledge: Knowledge, out: usize, said: Option<u16>) {
        let is_refused = matches!(said, Some(429 | 503));
        let lately = self.pace.sent.entry(sighting.destination).or_default();
        lately.push_back(Sent { at: sighting.now, vm: sighting.vm, is_refused });
        while lately.front().is_some_and(|sent| sighting.now - sent.at >= LATELY) {
            lately.pop_front();
        }
        let wrong = self.too_fast(sighting).or_else(|| self.too_many_beside(sighting, out));
        if let Some(text) = wrong.filter(|_| knowledge == Knowledge::Current && self.doubt_until <= sighting.now) {
            self.violated(Violation::whole(Invariant::Paced, text));
        }
    }

    /// Redeliveries that are at a receiver.
    #[must_use]
    pub fn out_at(&self, destination: Destination, now: Moment) -> usize {
        self.at_receiver.get(&destination).map_or(0, |out| out.values().filter(|ends| **ends > now).count())
    }

    /// Redeliveries of the last moments to a receiver, and how many of them it refused.
    #[must_use]
    pub fn refused_lately(&self, destination: Destination, now: Moment) -> (usize, usize) {
        let sent = self.pace.sent.get(&destination).into_iter().flatten().filter(|sent| now - sent.at < LATELY);
        sent.fold((0, 0), |(all, refused), sent| (all + 1, refused + usize::from(sent.is_refused)))
    }

    /// Whether something else than its window holds redelivery back: a rate, or live traffic.
    #[must_use]
    pub fn is_paced_otherwise(&self, destination: Destination, now: Moment) -> bool {
        let lately = ago(now, SERVING * 2);
        let live = self.pace.live.get(&destination);
        self.rules.receiving.rate > 0 || live.is_some_and(|all| all.iter().any(|live| live.until > lately))
    }

    /// Whether live traffic is all that holds redelivery back: what it leaves to it is in use.
    #[must_use]
    pub fn is_at_its_share(&self, destination: Destination, now: Moment) -> bool {
        let window = self.rules_of(destination).window.1 as usize;
        let share = self.pace.share_at_most(destination, now).map(|share| share.min(window));
        // Which traffic the filter counts is not certain, so as for windows half of the most will do; the least is.
        share.is_some_and(|share| self.out_at(destination, now) >= share.div_ceil(2).max(SHARE_MIN.min(window)))
    }

    /// A bucket holds what two ticks bring, and one more; each VM that leads has its own, which is nearly empty at first.
    fn too_fast(&self, sighting: &Sighting) -> Option<String> {
        let rate = self.rules.receiving.rate;
        let sent = self.pace.sent.get(&sighting.destination).filter(|_| rate > 0)?;
        let sent: Vec<&Sent> = sent.iter().filter(|sent| sighting.now - sent.at < SECOND).collect();
        let vms: BTreeSet<VmId> = sent.iter().map(|sent| sent.vm).collect();
        let bucket = 1.0 + (self.rules.tick * TICKS * 2).as_secs_f64() * f64::from(rate);
        // Whoever lost his lease and has it again begins with one token more.
        let again = usize::from(self.disturbed_at + SECOND > sighting.now);
        let most = f64::from(rate) + bucket * vms.len() as f64 + again as f64;
        (sent.len() as f64 > most).then(|| {
            format!("{} redeliveries within a second to {}; rate is {rate}", sent.len(), sighting.destination.cluster())
        })
    }

    /// A probe may always go; and nobody knows of anything if he has not been there for long.
    fn too_many_beside(&self, sighting: &Sighting, out: usize) -> Option<String> {
        let is_known = self.disturbed_at + SERVING * 2 < sighting.now
            && self.backlog_since.get(&sighting.destination).is_some_and(|since| *since + SERVING * 2 < sighting.now);
        let share = self.pace.share(sighting.destination, sighting.now).filter(|_| is_known)?;
        (out > share && !self.may_probe(sighting)).then(|| {
            format!(
                "{out} redeliveries are at {}, which serves live traffic: {share} may be",
                sighting.destination.cluster()
            )
        })
    }
}
