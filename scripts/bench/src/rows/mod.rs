//! The benchmarks. Each starts its own Envoys, measures in turns, and gives lines of the table; none judges.
//!
//! | row                   | module    | candidates                                 | what is read                   |
//! | --------------------- | --------- | ------------------------------------------ | ------------------------------ |
//! | `size`                | `size`    | ours                                       | the module's length            |
//! | `post`, `get`, `body` | `success` | ours, do-nothing or buffer filter          | processor time of each Envoy   |
//! | `latency`             | `latency` | ours, a do-nothing filter                  | when answers come              |
//! | `store`               | `outage`  | ours, ours holding back, the buffer filter | processor time of each Envoy   |
//! | `drain`               | `drain`   | ours with 1 worker and with 3, a bare loop | the receiver's count, and both |
//! | `first`               | `first`   | ours                                       | event log, the receiver        |
//! | `million`             | `million` | ours, a large backlog and small ones       | processor time, memory         |
//! | `guest`               | `guest`   | ours, in the simulator                     | what the simulator says        |
//! | `count`               | `count`   | those of post, get, body, store and drain  | instructions, by an emulator   |

mod count;
mod drain;
mod first;
mod guest;
mod latency;
mod million;
mod outage;
mod size;
mod success;
mod turns;

use std::path::Path;

use redeliver_tests::bootstrap::merge;
use serde_json::{Value, json};

use crate::bootstrap::Candidate;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::options::{Extent, Options};
use crate::report::Found;
use crate::row::Row;

/// Measures one row.
pub async fn measure(row: Row, options: &Options) -> Result<Found, Failure> {
    match row {
        Row::Size => size::measure(options),
        Row::Post => success::post(options, &Meter::Time).await,
        Row::Get => success::get(options, &Meter::Time).await,
        Row::Body => success::body(options, &Meter::Time).await,
        Row::Latency => latency::measure(options).await,
        Row::Store => outage::measure(options, &Meter::Time).await,
        Row::Drain => drain::measure(options).await,
        Row::First => first::measure(options).await,
        Row::Million => million::measure(options).await,
        Row::Guest => guest::measure(options).await,
        Row::Count => count::measure(options).await,
    }
}

/// How often and how long a row measures.
struct Size {
    /// How often the candidates are started anew. Where a process happens to lie in memory moves what it costs by some 5 %
    /// for as long as it lives: two of the same module differ by that, in as many turns as one likes. The rows that are not
    /// about a few microseconds have one life, or start an Envoy for each figure.
    lives: usize,
    /// Turns in one life: each candidate once.
    pairs: usize,
    /// Requests or messages of each candidate per turn.
    requests: u64,
}

impl Size {
    fn of(row: Row, extent: Extent) -> Size {
        // Long enough that a pause of the machine (some 10 ms) is lost in a batch, short enough that the machine is
        // much the same for all candidates of a turn. A million messages are measure enough for one pair.
        let (lives, pairs, requests) = match (row, extent) {
            (Row::Post | Row::Get | Row::Store, Extent::Whole) => (5, 7, 6_000),
            (Row::Post | Row::Get | Row::Store, Extent::Quick) => (2, 6, 3_000),
            (Row::Body, Extent::Whole) => (5, 7, 3_000),
            (Row::Body, Extent::Quick) => (2, 4, 1_500),
            (Row::Latency, Extent::Whole) => (1, 9, 20_000),
            (Row::Latency, Extent::Quick) => (1, 5, 8_000),
            (Row::Drain, Extent::Whole) => (1, 5, 100_000),
            (Row::Drain, Extent::Quick) => (1, 2, 10_000),
            (Row::First, Extent::Whole) => (1, 11, 10),
            (Row::First, Extent::Quick) => (1, 5, 10),
            (Row::Million | Row::Guest, Extent::Whole) => (1, 1, 1_000_000),
            (Row::Million | Row::Guest, Extent::Quick) => (1, 1, 50_000),
            // Exact but for what happens to fall between two looks, and slow.
            (Row::Count, Extent::Whole | Extent::Quick) => (1, 2, 3_000),
            (Row::Size, Extent::Whole | Extent::Quick) => (1, 1, 1),
        };
        Size { lives, pairs, requests }
    }
}

/// Our filter: protects everything but what its defaults leave out, and as `more` says.
fn ours<'a>(module: &'a Path, more: Value) -> Candidate<'a> {
    let mut config = json!({"match": {"path_prefixes": ["/"]}});
    merge(&mut config, more);
    Candidate::Wasm { module, config }
}

/// Asks Envoy's health checks five times a second, and lets a backlog be as large as a row makes it.
fn during_an_outage(meter: &Meter) -> Value {
    let mut config = json!({
        "health": {"source": "health_check_filter", "interval": "200ms", "stable_for": "0s"},
        "store": {"max_messages": 1_000_000, "max_bytes": "4GiB"},
        "redelivery": {"window": {"max": 64}},
    });
    merge(&mut config, slowed(meter));
    config
}

/// An emulated process is ten to twenty times slower than its clock: at its usual pace each request would meet so many
/// times its share of the timer's work.
fn slowed(meter: &Meter) -> Value {
    match meter {
        Meter::Time => json!({}),
        Meter::Instructions(_) => json!({"redelivery": {"tick": "1s"}, "health": {"interval": "2s"}}),
    }
}

/// Progress, for whoever waits.
fn say(line: &str) {
    eprintln!("{line}");
}
