//! Redelivery: a backlog, then the receiver comes. What counts is between the first delivery and the last.
//!
//! ```text
//!   ours, 1 worker   ┐
//!   ours, 3 workers  ├ in turns, each a process of its own, before a receiver of its own
//!   a bare loop      ┘ dispatches as many requests, as many at a time, from one VM
//! ```
//! The receiver is started when the backlog is complete, and counts for itself; its admin port is read every few
//! milliseconds, ours not at all meanwhile. Rate and processor time are taken between the same two looks.

use std::path::Path;
use std::time::Duration;

use redeliver_tests::ports::free_port;
use serde_json::json;
use tokio::time::Instant;

use super::{Size, during_an_outage, ours, say};
use crate::bootstrap::{CLUSTER, Candidate, Health, RECEIVER_STAT, proxy, receiver};
use crate::envoy::{Envoy, Workers, until};
use crate::failure::Failure;
use crate::figures::{Figures, Short};
use crate::goal::{Goal, Mark, Of};
use crate::line::Line;
use crate::load::{Load, ONE_KIB};
use crate::meter::Meter;
use crate::options::Options;
use crate::report::Found;
use crate::row::Row;

/// At 300 messages a second it would still end in time.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);

/// How many redeliveries are counted in instructions, after as many that are not: V8 compiles a hot function anew after
/// some thousand calls.
const COUNTED: u64 = 6_000;

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// Our filter, what it has stored.
    Ours(Workers),
    /// The yardstick.
    BareLoop,
}

const ONE: Sender = Sender::Ours(Workers(1));
const THREE: Sender = Sender::Ours(Workers(3));

/// Four lines: the rate, and what more workers do to it and to the price of a message.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let size = Size::of(Row::Drain, options.extent);
    let mut runs = [ONE, Sender::BareLoop, THREE].map(|sender| (sender, Samples::default()));
    for turn in 0..size.pairs {
        // As everywhere: the first of one turn is the last of the next.
        if turn > 0 {
            runs.reverse();
        }
        for (sender, samples) in &mut runs {
            samples.push(&drain(options, &Meter::Time, *sender, size.requests).await?);
            let (name, last, turn) = (sender.name(), samples.last(), turn + 1);
            say(&format!("drain: turn {turn} of {}: {name} {last}", size.pairs));
        }
    }
    let [one, bare, three] = [ONE, Sender::BareLoop, THREE].map(|sender| {
        let found = runs.iter().find(|(other, _)| *other == sender);
        found.map(|(_, samples)| samples.clone()).unwrap_or_default()
    });
    let line = |what: &str, unit: &str, ours: &Figures, yardstick: &Figures, goal| Line {
        row: Row::Drain,
        what: what.to_owned(),
        unit: unit.to_owned(),
        ours: ours.clone(),
        yardstick: Some(yardstick.clone()),
        goal,
    };
    let fast = Mark::at_least(Of::Ratio, 0.80, 0.90).unless_shrunk(options.extent);
    let cheap = Mark::at_most(Of::Ratio, 1.25, 1.10).unless_shrunk(options.extent);
    Ok(vec![
        line("redelivery rate, 1 worker: ours / bare loop", "msg/s", &one.per_second, &bare.per_second, fast),
        line("redelivery rate: 3 workers / 1", "msg/s", &three.per_second, &one.per_second, Goal::None),
        line("per redelivered message: 3 workers / 1", "us", &three.cpu_micros, &one.cpu_micros, cheap),
        line("per redelivered message: ours / bare loop", "us", &one.cpu_micros, &bare.cpu_micros, Goal::None),
    ]
    .into())
}

/// What a redelivery costs in instructions, against the yardstick.
pub async fn count(options: &Options, meter: &Meter) -> Result<Found, Failure> {
    let messages = COUNTED * 2;
    let mut counted = [ONE, Sender::BareLoop].map(|sender| (sender, Figures::default()));
    for (sender, figures) in &mut counted {
        let drained = drain(options, meter, *sender, messages).await?;
        figures.0.push(drained.cost);
        say(&format!("drain: {} {} {}", sender.name(), Short(drained.cost), meter.unit()));
    }
    let [(_, ours), (_, yardstick)] = counted;
    Ok(vec![Line {
        row: meter.row(Row::Drain),
        what: "redelivered message: ours / bare loop".to_owned(),
        unit: meter.unit().to_owned(),
        ours,
        yardstick: Some(yardstick),
        goal: Goal::None,
    }]
    .into())
}

impl Sender {
    const fn name(self) -> &'static str {
        match self {
            Sender::Ours(Workers(1)) => "1 worker",
            Sender::Ours(Workers(_)) => "3 workers",
            Sender::BareLoop => "bare loop",
        }
    }

    const fn workers(self) -> Workers {
        match self {
            Sender::Ours(workers) => workers,
            Sender::BareLoop => Workers(1),
        }
    }
}

#[derive(Clone, Default)]
struct Samples {
    per_second: Figures,
    cpu_micros: Figures,
}

impl Samples {
    fn push(&mut self, drained: &Drained) {
        self.per_second.0.push(drained.per_second);
        self.cpu_micros.0.push(drained.cost);
    }

    fn last(&self) -> String {
        let last = |figures: &Figures| figures.0.last().copied().unwrap_or(f64::NAN);
        format!("{} msg/s at {} us", Short(last(&self.per_second)), Short(last(&self.cpu_micros)))
    }
}

/// One backlog, gone.
struct Drained {
    per_second: f64,
    /// What a message cost the sending Envoy, by the meter.
    cost: f64,
}

async fn drain(options: &Options, meter: &Meter, sender: Sender, messages: u64) -> Result<Drained, Failure> {
    let (port, upstream, checks) = (free_port(), free_port(), free_port());
    let candidate = match sender {
        Sender::Ours(_) => ours(&options.wasm, during_an_outage(meter)),
        Sender::BareLoop => Candidate::Wasm { module: &options.bare_loop, config: json!({}) },
    };
    let document = |folder: &Path| {
        let events = folder.join("health.log");
        proxy(port, &candidate, upstream, &Health::Checked { port: checks, events: &events })
    };
    let envoy = Envoy::start_for(meter, sender.name(), &options.envoy, sender.workers(), document).await?;
    envoy.wait_stat(&healthy(), 0).await?;
    let serve = || Envoy::start("receiver", &options.envoy, Workers(1), |_| receiver(upstream, checks));
    let receiving = match sender {
        Sender::Ours(_) => {
            Load::post(ONE_KIB, 202).run(port, messages).await?;
            serve().await?
        }
        Sender::BareLoop => {
            let receiving = serve().await?;
            envoy.wait_stat(&healthy(), 1).await?;
            Load::get_from(&format!("/{CLUSTER}/{messages}"), 202).run(port, 1).await?;
            receiving
        }
    };
    let begin = match meter {
        Meter::Time => 1,
        Meter::Instructions(_) => messages - COUNTED,
    };
    let first = look_when(meter, &envoy, &receiving, begin).await?;
    let last = look_when(meter, &envoy, &receiving, messages).await?;
    match sender {
        Sender::Ours(_) => envoy.wait_delivered(messages).await?,
        // It has no books; the receiver's count is all there is.
        Sender::BareLoop => receiving.wait_stat(RECEIVER_STAT, messages).await?,
    }
    let count = (last.received - first.received) as f64;
    Ok(Drained { per_second: count / (last.at - first.at).as_secs_f64(), cost: (last.cost - first.cost) / count })
}

fn healthy() -> String {
    format!("cluster.{CLUSTER}.membership_healthy")
}

/// What was seen at one moment.
struct Look {
    at: Instant,
    received: u64,
    cost: f64,
}

async fn look_when(meter: &Meter, envoy: &Envoy, receiving: &Envoy, at_least: u64) -> Result<Look, Failure> {
    let what = format!("the receiver has {at_least} messages");
    let seen = until(&what, DRAINED_WITHIN, || match receiving.stat(RECEIVER_STAT)? {
        received if received >= at_least => Ok((Instant::now(), received)),
        received => Err(format!("{received} messages")),
    });
    let (at, received) = seen.await?;
    Ok(Look { at, received, cost: meter.read(envoy)? })
}
