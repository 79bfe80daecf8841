//! The search: many seeds on all cores, one result each.

use crate::faults::Coverage;
use crate::generate;
use crate::history::Phase;
use crate::oracle::Counts;
use crate::violation::{Invariant, Violation};
use crate::world::{self, Means, Outcome};
use simvoy::Module;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What all histories of a search came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How many.
    pub histories: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Events.
    pub events: u64,
    /// Faults, and what they met.
    pub coverage: Coverage,
    /// Messages.
    pub counts: Counts,
    /// Histories in which senders sent something again.
    pub with_retries: u64,
    /// Histories in which messages of one ordering key were delivered in turn.
    pub with_lines: u64,
    /// Injected traps.
    pub traps: u64,
    /// The largest guest, in bytes.
    pub guest_bytes_max: usize,
    /// How many had what not all have, by name.
    pub uses: BTreeMap<&'static str, u64>,
    /// The seeds that failed, with the first thing that went wrong.
    pub failed: Vec<(u64, Phase, Violation)>,
}

impl Totals {
    /// Together with one more history.
    pub fn add(&mut self, seed: u64, phase: Phase, outcome: &Outcome) {
        self.histories += 1;
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.coverage.add(&outcome.coverage);
        self.counts.add(&outcome.counts);
        self.with_retries += u64::from(outcome.counts.retries > 0);
        self.with_lines += u64::from(outcome.counts.ordered > 0);
        self.traps += outcome.traps;
        self.guest_bytes_max = self.guest_bytes_max.max(outcome.guest_bytes_max);
        for name in &outcome.uses {
            *self.uses.entry(name).or_default() += 1;
        }
        if let Some(violation) = &outcome.violation {
            self.failed.push((seed, phase, violation.clone()));
        }
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.duplicated_unknown += other.duplicated_unknown;
        self.duplicated_lost += other.duplicated_lost;
        self.recovered += other.recovered;
        self.attempts += other.attempts;
        self.dead += other.dead;
        self.retries += other.retries;
        self.joined += other.joined;
        self.refused += other.refused;
        self.ordered += other.ordered;
    }
}

/// When a search ends before its last seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAt {
    /// Never.
    LastSeed,
    /// At the first failure.
    FirstFailure,
}

/// One history in so many is run twice: I14 wants a thousand of ten thousand. Odd, so that drills, which are each eighth,
/// have their turn.
const REPEAT_EVERY: u64 = 9;

fn difference(module: &Module, seed: u64, phase: Phase, means: &Means, outcome: &Outcome) -> Option<Violation> {
    let again = world::run(module, &generate::history(seed, phase), means);
    let text = format!("trace hash {:016x}, and {:016x} when run again", outcome.hash, again.hash);
    (again.hash != outcome.hash).then(|| Violation::whole(Invariant::Deterministic, text))
}

/// Runs the histories of `seeds`; `each` hears of every one as it ends, in no particular order.
pub fn search(
    module: &Module,
    seeds: Range<u64>,
    phase: Phase,
    means: &Means,
    stop: StopAt,
    each: impl Fn(u64, &Outcome) + Sync,
) -> Totals {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end.load(Ordering::SeqCst) {
                        break;
                    }
                    let mut outcome = world::run(module, &generate::history(seed, phase), means);
                    if seed.is_multiple_of(REPEAT_EVERY) && outcome.violation.is_none() {
                        outcome.violation = difference(module, seed, phase, means, &outcome);
                    }
                    each(seed, &outcome);
                    if stop == StopAt::FirstFailure && outcome.violation.is_some() {
                        end.fetch_min(seed, Ordering::SeqCst);
                    }
                    totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(seed, phase, &outcome);
                }
            });
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    totals.failed.sort_by_key(|(seed, _, _)| *seed);
    totals
}
