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
use crate::meter::Meter;
use crate::options::{Extent, Options};
use crate::pace::{Rate, latencies, percentile};
use crate::report::Found;
use crate::row::Row;

/// The share of requests that the figure speaks for.
const SHARE: f64 = 0.9;

/// One line.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let upstream = free_port();
    let serving = |_: &_| receiver(upstream, free_port());
    let _receiver = Envoy::start("receiver", &options.envoy, Workers(1), serving).await?;
    let load = Load::post(ONE_KIB, 200);
    let nothing = Candidate::Wasm { module: &options.yardstick, config: json!({}) };
    let nothing = contender(options, &Meter::Time, "do-nothing", &nothing, upstream, &load).await?;
    let ours = contender(options, &Meter::Time, "ours", &ours(&options.wasm, json!({})), upstream, &load).await?;
    let [nothing, ours] = in_turns(options, [&nothing, &ours]).await?;
    Ok(vec![Line {
        row: Row::Latency,
        what: "90th percentile of latency at half the rate of saturation: ours - do-nothing filter".to_owned(),
        unit: "ms".to_owned(),
        ours,
        yardstick: Some(nothing),
        goal: Goal::Reported(Mark::at_most(Of::Difference, 0.3, 0.1)),
    }]
    .into())
}

/// The percentile of each in milliseconds, one sample per turn.
async fn in_turns(options: &Options, contenders: [&Contender; 2]) -> Result<[Figures; 2], Failure> {
    let size = Size::of(Row::Latency, options.extent);
    let rate = half_of_saturation(contenders, size.requests).await?;
    say(&format!("latency: at {} requests a second", Short(rate.0)));
    let mut seen = [Figures::default(), Figures::default()];
    for turn in 0..size.pairs {
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for place in order {
            let Contender { name, port, load, .. } = contenders[place];
            let sorted = latencies(load, *port, rate, span(options.extent)).await?;
            let millis = percentile(&sorted, SHARE).as_secs_f64() * 1e3;
            seen[place].0.push(millis);
            say(&format!("latency: turn {} of {}: {name} {} ms", turn + 1, size.pairs, Short(millis)));
        }
    }
    Ok(seen)
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
