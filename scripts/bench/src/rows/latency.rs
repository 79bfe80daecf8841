//! What a request waits longer because of us, when the proxy has half of the work that it can do.

use std::time::Duration;

use redeliver_tests::ports::free_port;
use serde_json::json;
use tokio::time::Instant;

use super::success::contender;
use super::turns::Contender;
use super::{Size, ours, say};
use crate::bootstrap::{Candidate, receiver};
use crate::envoy::{Envoy, Workers};
use crate::failure::Failure;
use crate::figures::{Figures, Short};
use crate::goal::{Goal, Mark, Of};
use crate::line::Line;
use crate::load::{Load, ONE_KIB};
use crate::options::{Extent, Options};
use crate::pace::{Rate, latencies, percentile};
use crate::report::Found;
use crate::row::Row;

/// Two lines: the percentile that counts, and the middle.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let upstream = free_port();
    let serving = |_: &_| receiver(upstream, free_port());
    let _receiver = Envoy::start("receiver", &options.envoy, Workers(1), serving).await?;
    let load = Load::post(ONE_KIB, 200);
    let nothing = Candidate::Wasm { module: &options.yardstick, config: json!({}) };
    let nothing = contender(options, "do-nothing", &nothing, upstream, &load).await?;
    let ours = contender(options, "ours", &ours(&options.wasm, json!({})), upstream, &load).await?;
    let size = Size::of(Row::Latency, options.extent);
    let rate = half_of_saturation([&nothing, &ours], size.requests).await?;
    say(&format!("latency: at {} requests a second", Short(rate.0)));
    let mut seen = [Latencies::default(), Latencies::default()];
    for turn in 0..size.pairs {
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for place in order {
            let contender = [&nothing, &ours][place];
            let sorted = latencies(&contender.load, contender.port, rate, span(options.extent)).await?;
            seen[place].push(&sorted);
        }
        say(&format!("latency: turn {} of {}: p90 do-nothing {}, ours {}", turn + 1, size.pairs, seen[0], seen[1]));
    }
    let [nothing, ours] = seen;
    let what = |which: &str| format!("{which} latency at half the rate of saturation: ours - do-nothing filter");
    let line = |which, ours, yardstick, (bar, aim)| Line {
        row: Row::Latency,
        what: what(which),
        unit: "ms".to_owned(),
        ours,
        yardstick: Some(yardstick),
        goal: Goal::Reported(Mark::at_most(Of::Difference, bar, aim)),
    };
    Ok(vec![line("90 %", ours.p90, nothing.p90, (0.3, 0.1))].into())
}

/// How long the load goes on: some thousand requests, so that the percentile is made of hundreds.
const fn span(extent: Extent) -> Duration {
    match extent {
        Extent::Whole => Duration::from_secs(4),
        Extent::Quick => Duration::from_millis(1_500),
    }
}

/// Of the slower one: both get the same rate.
async fn half_of_saturation(contenders: [&Contender; 2], requests: u64) -> Result<Rate, Failure> {
    let mut slowest = f64::INFINITY;
    for contender in contenders {
        // The first time is to warm up.
        contender.load.run(contender.port, requests).await?;
        let start = Instant::now();
        contender.load.run(contender.port, requests).await?;
        slowest = slowest.min(requests as f64 / start.elapsed().as_secs_f64());
    }
    Ok(Rate(slowest / 2.0))
}

/// One candidate's, in milliseconds, one sample per turn.
#[derive(Default)]
struct Latencies {
    p90: Figures,
}

impl Latencies {
    fn push(&mut self, sorted: &[Duration]) {
        self.p90.0.push(percentile(sorted, 0.9).as_secs_f64() * 1e3);
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms", Short(self.p90.0.last().copied().unwrap_or(f64::NAN)))
    }
}
