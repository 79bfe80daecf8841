//! Storing under outage: no healthy host, and every POST is stored. The yardstick waits for the whole body too and then
//! lets Envoy say 503: the least that any way of keeping the connection costs.

use redeliver_tests::bootstrap::merge;
use redeliver_tests::ports::free_port;
use serde_json::json;

use super::turns::{Contender, WARM_UP_REQUESTS, cost_per_request, requests_in_all};
use super::{Size, during_an_outage, ours};
use crate::bootstrap::{CLUSTER, Candidate, Health, proxy};
use crate::envoy::{Envoy, SOON, Workers, until};
use crate::failure::Failure;
use crate::figures::Figures;
use crate::goal::{Goal, Mark, Of};
use crate::line::Line;
use crate::load::{Load, ONE_KIB};
use crate::meter::Meter;
use crate::options::Options;
use crate::report::Found;
use crate::row::Row;

/// Two lines: a message that was offered to the router first, and one that was not, since `hold_while_down` was asked for.
pub async fn measure(options: &Options, meter: &Meter) -> Result<Found, Failure> {
    let offered = during_an_outage(meter);
    let mut held_back = offered.clone();
    merge(&mut held_back, json!({"hold_while_down": true, "capture": {"as": "arrived"}}));
    let [offered, held_back] = [offered, held_back].map(|config| ours(&options.wasm, config));
    let candidates = [
        ("ours, 202", offered, 202),
        ("ours, held back, 202", held_back, 202),
        ("buffer filter, 503", Candidate::Buffer, 503),
    ];
    let begin = async || {
        let mut contenders = Vec::new();
        for (name, candidate, answer) in &candidates {
            contenders.push(contender(options, meter, name, candidate, *answer).await?);
        }
        Ok(contenders)
    };
    let size = Size::of(meter.row(Row::Store), options.extent);
    // What was answered 202 by anybody else would not be a stored message.
    let stored = requests_in_all(&size);
    let check = async |contenders: &[Contender]| {
        for ours in &contenders[..2] {
            ours.envoy.wait_stat("wasmcustom.redeliver_stored_total", stored).await?;
        }
        // Until the outage was seen, the router was asked by both.
        until("nothing is offered to the router any more", SOON, || {
            match contenders[1].envoy.stat(&format!("cluster.{CLUSTER}.upstream_cx_none_healthy"))? {
                offered if offered <= WARM_UP_REQUESTS => Ok(()),
                offered => Err(format!("{offered} messages were")),
            }
        })
        .await
    };
    let figures = cost_per_request(Row::Store.name(), meter, &size, begin, check).await?;
    let line = |what: &str, ours: &Figures, goal| Line {
        row: meter.row(Row::Store),
        what: format!("1 KiB POST, no healthy host{what}: ours 202 / buffer filter 503"),
        unit: meter.unit().to_owned(),
        ours: ours.clone(),
        yardstick: Some(figures[2].clone()),
        goal,
    };
    let goal = Mark::at_most(Of::Ratio, 2.3, 1.8);
    Ok(vec![
        line("", &figures[0], meter.goal(Goal::Judged(goal))),
        line(", hold_while_down", &figures[1], meter.goal(Goal::Reported(goal))),
    ]
    .into())
}

/// An Envoy with one candidate and a cluster in which nobody ever listens.
async fn contender(
    options: &Options,
    meter: &Meter,
    name: &'static str,
    candidate: &Candidate<'_>,
    answer: u16,
) -> Result<Contender, Failure> {
    let (port, absent) = (free_port(), free_port());
    let document = |folder: &std::path::Path| {
        let events = folder.join("health.log");
        proxy(port, candidate, absent, &Health::Checked { port: absent, events: &events })
    };
    let envoy = Envoy::start_for(meter, name, &options.envoy, Workers(1), document).await?;
    envoy.wait_stat(&format!("cluster.{CLUSTER}.membership_healthy"), 0).await?;
    Ok(Contender { name, envoy, port, load: Load::post(ONE_KIB, answer) })
}
