//! Storing under outage: no healthy host, and every POST is stored. The yardstick waits for the whole body too and then
//! lets Envoy say 503: the least that any way of keeping the connection costs.

use redeliver_tests::ports::free_port;

use super::turns::{Contender, cpu_per_request, requests_in_all};
use super::{Size, during_an_outage, ours};
use crate::bootstrap::{CLUSTER, Candidate, Health, proxy};
use crate::envoy::{Envoy, Workers};
use crate::failure::Failure;
use crate::goal::{Goal, Mark, Of};
use crate::line::Line;
use crate::load::{Load, ONE_KIB};
use crate::options::Options;
use crate::report::Found;
use crate::row::Row;

/// One line.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let stored = ours(&options.wasm, during_an_outage());
    let candidates = [("ours, 202", stored, 202), ("buffer filter, 503", Candidate::Buffer, 503)];
    let begin = async || {
        let mut contenders = Vec::new();
        for (name, candidate, answer) in &candidates {
            contenders.push(contender(options, name, candidate, *answer).await?);
        }
        Ok(contenders)
    };
    let size = Size::of(Row::Store, options.extent);
    // What was answered 202 by anybody else would not be a stored message.
    let stored = requests_in_all(&size);
    let check = async |contenders: &[Contender]| {
        contenders[0].envoy.wait_stat("wasmcustom.redeliver_stored_total", stored).await
    };
    let figures = cpu_per_request(Row::Store.name(), &size, begin, check).await?;
    let [ours, yardstick] = [figures[0].clone(), figures[1].clone()];
    Ok(vec![Line {
        row: Row::Store,
        what: "1 KiB POST, no healthy host: ours 202 / buffer filter 503".to_owned(),
        unit: "us".to_owned(),
        ours,
        yardstick: Some(yardstick),
        goal: Goal::Judged(Mark::at_most(Of::Ratio, 2.3, 1.8)),
    }]
    .into())
}

/// An Envoy with one candidate and a cluster in which nobody ever listens.
async fn contender(
    options: &Options,
    name: &'static str,
    candidate: &Candidate<'_>,
    answer: u16,
) -> Result<Contender, Failure> {
    let (port, absent) = (free_port(), free_port());
    let document = |folder: &std::path::Path| {
        let events = folder.join("health.log");
        proxy(port, candidate, absent, &Health::Checked { port: absent, events: &events })
    };
    let envoy = Envoy::start(name, &options.envoy, Workers(1), document).await?;
    envoy.wait_stat(&format!("cluster.{CLUSTER}.membership_healthy"), 0).await?;
    Ok(Contender { name, envoy, port, load: Load::post(ONE_KIB, answer) })
}
