//! The success path: what a request costs that needs nothing of us.

use redeliver_tests::ports::free_port;
use serde_json::json;

use super::turns::{Contender, cpu_per_request, requests_in_all};
use super::{Size, ours};
use crate::bootstrap::{Candidate, Health, proxy, receiver};
use crate::envoy::{Envoy, Workers};
use crate::failure::Failure;
use crate::load::Load;
use crate::options::{Options, Row};
use crate::report::{Bar, Line};

/// A protected POST in hold mode.
pub async fn post(options: &Options) -> Result<Vec<Line>, Failure> {
    let what = ["1 KiB POST, protected: ours / do-nothing filter", "1 KiB POST: do-nothing filter / no filter"];
    three(options, Row::Post, &Load::post(200), what, Bar::Ratio { bar: 1.12, aim: 1.00 }).await
}

/// A GET that is not protected.
pub async fn get(options: &Options) -> Result<Vec<Line>, Failure> {
    let what = ["GET, not protected: ours / do-nothing filter", "GET: do-nothing filter / no filter"];
    three(options, Row::Get, &Load::get(200), what, Bar::Ratio { bar: 1.08, aim: 1.00 }).await
}

async fn three(
    options: &Options,
    row: Row,
    load: &Load,
    what: [&'static str; 2],
    bar: Bar,
) -> Result<Vec<Line>, Failure> {
    let upstream = free_port();
    let serving = |_: &_| receiver(upstream, free_port());
    let _receiver = Envoy::start("receiver", &options.envoy, Workers(1), serving).await?;
    let nothing = Candidate::Wasm { module: &options.yardstick, config: json!({}) };
    let candidates =
        [("no filter", Candidate::Alone), ("do-nothing", nothing), ("ours", ours(&options.wasm, json!({})))];
    let mut contenders = Vec::new();
    for (name, candidate) in &candidates {
        let port = free_port();
        let document = |_: &_| proxy(port, candidate, upstream, &Health::Unchecked);
        let envoy = Envoy::start(name, &options.envoy, Workers(1), document).await?;
        contenders.push(Contender { name, envoy, port, load: load.clone() });
    }
    let size = Size::of(row, options.extent);
    let figures = cpu_per_request(row.name(), &contenders, &size).await?;
    // A filter that sleeps would be the fastest of all.
    let protected = if row == Row::Post { requests_in_all(&size) } else { 0 };
    contenders[2].envoy.wait_stat("wasmcustom.redeliver_protected_total", protected).await?;
    let line = |what, ours: usize, yardstick: usize, bar| Line {
        row: row.name(),
        what,
        unit: "us",
        ours: figures[ours].clone(),
        yardstick: Some(figures[yardstick].clone()),
        bar,
    };
    let [first, second] = what;
    Ok(vec![line(first, 2, 1, bar), line(second, 1, 0, Bar::None)])
}
