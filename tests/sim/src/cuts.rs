//! Cut points: a trap in front of every host call of every callback that stores or delivers, one run for each.
//!
//! A run whose cut was never reached ends the series: then every call has had its trap.

use crate::generate::at;
use crate::history::History;
use crate::hook::Cut;
use crate::rules::{Form, Rules};
use crate::scenario::{Script, ways_to_the_store};
use crate::violation::Violation;
use crate::world::{self, Means};
use simvoy::abi::Callback;
use simvoy::{Module, Moment};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One series: the trap moves through the calls of one callback.
#[derive(Clone, Debug)]
pub struct Series {
    /// The way to the store.
    pub way: &'static str,
    /// The callback that is cut.
    pub callback: Callback,
    /// Whether this callback has work on this way: only the routed form is read at the end of a stream.
    pub work: Work,
    /// How many calls were cut.
    pub cuts: u32,
    /// What went wrong, and at which call.
    pub failures: Vec<(u32, Violation)>,
}

/// Whether there must be something to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// There must.
    Some,
    /// There is nothing.
    None,
}

impl Series {
    /// It was cut nowhere though it should have been.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!((self.work, self.cuts), (Work::Some, 0))
    }
}

/// The callbacks in which something is stored, sent or settled.
pub const CALLBACKS: [Callback; 6] = [
    Callback::CallResponse,
    Callback::RequestHeaders,
    Callback::RequestBody,
    Callback::ResponseHeaders,
    Callback::Log,
    Callback::Tick,
];

const OUTAGE_FROM: u64 = 1_000;
const OUTAGE_TO: u64 = 8_000;
/// After this a slot whose VM died before its log has been given up.
const END: u64 = 345_000;

/// A small outage: eight messages, with and without bodies, on two workers; then a request on each, which makes dead VMs
/// anew.
#[must_use]
pub fn history(rules: &Rules) -> History {
    // Ticks are what costs: the long calm at the end needs few.
    let rules = Rules { tick: Duration::from_secs(1), ..rules.clone() };
    Script::new(rules, 2, END).outage(OUTAGE_FROM, OUTAGE_TO).send(2_000, 8, 500).send(12_000, 8, 100).done()
}

/// Cuts every call of every callback on every way to the store, on all cores; `each` hears of a series as it ends.
pub fn all(module: &Module, planted: Option<&str>, each: impl Fn(&Series) + Sync) {
    let ways = ways_to_the_store();
    let pairs: Vec<_> = CALLBACKS.iter().flat_map(|callback| ways.iter().map(move |way| (*callback, way))).collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((callback, (way, rules))) = pairs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    each(&one_series(module, way, &history(rules), *callback, planted));
                }
            });
        }
    });
}

fn one_series(
    module: &Module,
    way: &'static str,
    history: &History,
    callback: Callback,
    planted: Option<&str>,
) -> Series {
    let work = match (callback, history.rules.form) {
        (Callback::Log, Form::Arrived) => Work::None,
        (_, Form::Arrived | Form::Routed) => Work::Some,
    };
    let mut series = Series { way, callback, work, cuts: 0, failures: Vec::new() };
    let (from, until) = window(callback);
    loop {
        let cut = Cut { at: series.cuts, callback, from, until };
        let means = Means { planted: planted.map(str::to_owned), cut: Some(cut), ..Means::default() };
        let outcome = world::run(module, history, &means);
        // A history that fails before its cut is reached fails without one too.
        let was_cut = outcome.traps > 0;
        if let Some(violation) = outcome.violation {
            series.failures.push((series.cuts, violation));
        }
        if !was_cut {
            return series;
        }
        series.cuts += 1;
    }
}

/// When the callback does what matters: ticks go on for ever, and send only after the receiver is back.
#[must_use]
pub fn window(callback: Callback) -> (Moment, Moment) {
    match callback {
        Callback::Tick => (at(OUTAGE_TO), at(OUTAGE_TO + 4_000)),
        // Health is asked for ever too; the last of the eight messages has gone out by then.
        Callback::CallResponse => (at(OUTAGE_TO - 1_000), at(OUTAGE_TO + 8_000)),
        _ => (at(0), Moment::NEVER),
    }
}
