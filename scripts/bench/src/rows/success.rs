//! The success path: what a request costs that needs nothing of us.

use redeliver_tests::ports::free_port;
use serde_json::json;

use super::turns::{Contender, cost_per_request, requests_in_all};
use super::{Size, ours, slowed};
use crate::bootstrap::{Candidate, Health, proxy, receiver};
use crate::envoy::{Envoy, Workers};
use crate::failure::Failure;
use crate::figures::Figures;
use crate::goal::{Goal, Mark, Of};
use crate::line::Line;
use crate::load::{BodyBytes, Load, ONE_KIB};
use crate::meter::Meter;
use crate::options::Options;
use crate::report::Found;
use crate::row::Row;

/// Larger than any piece in which Envoy hands on a body (16 KiB), and small enough to be stored by default.
const LARGE: BodyBytes = BodyBytes(64 * 1024);

/// A protected POST in hold mode.
pub async fn post(options: &Options, meter: &Meter) -> Result<Found, Failure> {
    against_nothing(options, meter, Row::Post, &Load::post(ONE_KIB, 200), "1 KiB POST, protected", 1.12).await
}

/// A GET that is not protected.
pub async fn get(options: &Options, meter: &Meter) -> Result<Found, Failure> {
    against_nothing(options, meter, Row::Get, &Load::get(200), "GET, not protected", 1.08).await
}

/// A protected POST with a large body.
pub async fn body(options: &Options, meter: &Meter) -> Result<Found, Failure> {
    let candidates = against(options, meter, [("buffer filter", Candidate::Buffer)]);
    let figures = measure(options, meter, Row::Body, &Load::post(LARGE, 200), &candidates).await?;
    let [yardstick, ours] = [figures[0].clone(), figures[1].clone()];
    let goal = Goal::Judged(Mark::at_most(Of::Ratio, 1.30, 1.20));
    Ok(vec![line(meter, Row::Body, "64 KiB POST, protected: ours / buffer filter", [ours, yardstick], goal)].into())
}

async fn against_nothing(
    options: &Options,
    meter: &Meter,
    row: Row,
    load: &Load,
    what: &str,
    bar: f64,
) -> Result<Found, Failure> {
    let nothing = Candidate::Wasm { module: &options.yardstick, config: json!({}) };
    let candidates = against(options, meter, [("no filter", Candidate::Alone), ("do-nothing", nothing)]);
    let figures = measure(options, meter, row, load, &candidates).await?;
    let [alone, nothing, ours] = [0, 1, 2].map(|candidate: usize| figures[candidate].clone());
    let goal = Goal::Judged(Mark::at_most(Of::Ratio, bar, 1.00));
    Ok(vec![
        line(meter, row, &format!("{what}: ours / do-nothing filter"), [ours, nothing.clone()], goal),
        line(meter, row, &format!("{what}: do-nothing filter / no filter"), [nothing, alone], Goal::None),
    ]
    .into())
}

/// The yardsticks, and us as the last.
fn against<'a, const N: usize>(
    options: &'a Options,
    meter: &Meter,
    yardsticks: [(&'static str, Candidate<'a>); N],
) -> Vec<(&'static str, Candidate<'a>)> {
    yardsticks.into_iter().chain([("ours", ours(&options.wasm, slowed(meter)))]).collect()
}

async fn measure(
    options: &Options,
    meter: &Meter,
    row: Row,
    load: &Load,
    candidates: &[(&'static str, Candidate<'_>)],
) -> Result<Vec<Figures>, Failure> {
    let upstream = free_port();
    let serving = |_: &_| receiver(upstream, free_port());
    let _receiver = Envoy::start("receiver", &options.envoy, Workers(1), serving).await?;
    let begin = async || {
        let mut contenders = Vec::new();
        for (name, candidate) in candidates {
            contenders.push(contender(options, meter, name, candidate, upstream, load).await?);
        }
        Ok(contenders)
    };
    let size = Size::of(meter.row(row), options.extent);
    // A filter that sleeps would be the fastest of all.
    let protected = if row == Row::Get { 0 } else { requests_in_all(&size) };
    let check = async |contenders: &[Contender]| match contenders.last() {
        Some(ours) => ours.envoy.wait_stat("wasmcustom.redeliver_protected_total", protected).await,
        None => Ok(()),
    };
    cost_per_request(row.name(), meter, &size, begin, check).await
}

/// An Envoy with one candidate in front of a receiver that always lives.
pub async fn contender(
    options: &Options,
    meter: &Meter,
    name: &'static str,
    candidate: &Candidate<'_>,
    upstream: u16,
    load: &Load,
) -> Result<Contender, Failure> {
    let port = free_port();
    let document = |_: &_| proxy(port, candidate, upstream, &Health::Unchecked);
    let envoy = Envoy::start_for(meter, name, &options.envoy, Workers(1), document).await?;
    Ok(Contender { name, envoy, port, load: load.clone() })
}

fn line(meter: &Meter, row: Row, what: &str, [ours, yardstick]: [Figures; 2], goal: Goal) -> Line {
    let (row, unit, goal) = (meter.row(row), meter.unit().to_owned(), meter.goal(goal));
    Line { row, what: what.to_owned(), unit, ours, yardstick: Some(yardstick), goal }
}
