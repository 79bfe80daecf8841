//! Redelivery: a backlog, then the receiver comes. What counts is between the first delivery and the last.
//!
//! The receiver is started when the backlog is complete, and counts for itself; its admin port is read every few
//! milliseconds, ours not at all meanwhile. Rate and processor time are taken between the same two looks.

use std::time::Duration;

use redeliver_tests::ports::free_port;
use tokio::time::Instant;

use super::{Size, during_an_outage, ours, say};
use crate::bootstrap::{CLUSTER, Health, RECEIVER_STAT, proxy, receiver};
use crate::envoy::{CpuMicros, Envoy, Workers, until};
use crate::failure::Failure;
use crate::figures::{Figures, Short};
use crate::load::Load;
use crate::options::{Options, Row};
use crate::report::{Bar, Line};

/// At 200 messages a second it would still end in time.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);

const ONE: Workers = Workers(1);
const THREE: Workers = Workers(3);

/// Three lines: the rate, and what more workers do to it and to the price of a message.
pub async fn measure(options: &Options) -> Result<Vec<Line>, Failure> {
    let size = Size::of(Row::Drain, options.extent);
    let (mut one, mut three) = (Samples::default(), Samples::default());
    for turn in 0..size.pairs {
        // As everywhere: the first of one turn is the second of the next.
        if turn % 2 == 0 {
            one.push(&drain(options, ONE, size.requests).await?);
            three.push(&drain(options, THREE, size.requests).await?);
        } else {
            three.push(&drain(options, THREE, size.requests).await?);
            one.push(&drain(options, ONE, size.requests).await?);
        }
        say(&format!(
            "drain: turn {} of {}: 1 worker {}, 3 workers {}",
            turn + 1,
            size.pairs,
            one.last(),
            three.last()
        ));
    }
    let line = |what, unit, ours, yardstick, bar| Line { row: Row::Drain.name(), what, unit, ours, yardstick, bar };
    let bar = Bar::Ratio { bar: 1.25, aim: 1.10 };
    Ok(vec![
        line("redelivery rate, 1 worker", "msg/s", one.per_second.clone(), None, Bar::None),
        line("redelivery rate: 3 workers / 1", "msg/s", three.per_second, Some(one.per_second), Bar::None),
        line("per redelivered message: 3 workers / 1", "us", three.cpu_micros, Some(one.cpu_micros), bar),
    ])
}

#[derive(Default)]
struct Samples {
    per_second: Figures,
    cpu_micros: Figures,
}

impl Samples {
    fn push(&mut self, drained: &Drained) {
        self.per_second.0.push(drained.per_second);
        self.cpu_micros.0.push(drained.cpu_micros);
    }

    fn last(&self) -> String {
        let last = |figures: &Figures| figures.0.last().copied().unwrap_or(f64::NAN);
        format!("{} msg/s at {} us", Short(last(&self.per_second)), Short(last(&self.cpu_micros)))
    }
}

/// One backlog, gone.
struct Drained {
    per_second: f64,
    /// Processor time of our Envoy per message.
    cpu_micros: f64,
}

async fn drain(options: &Options, workers: Workers, messages: u64) -> Result<Drained, Failure> {
    let (port, upstream, checks) = (free_port(), free_port(), free_port());
    let candidate = ours(&options.wasm, during_an_outage());
    let document = |folder: &std::path::Path| {
        let events = folder.join("health.log");
        proxy(port, &candidate, upstream, &Health::Checked { port: checks, events: &events })
    };
    let envoy = Envoy::start("ours", &options.envoy, workers, document).await?;
    envoy.wait_stat(&format!("cluster.{CLUSTER}.membership_healthy"), 0).await?;
    Load::post(202).run(port, messages).await?;
    let receiving = Envoy::start("receiver", &options.envoy, ONE, |_| receiver(upstream, checks)).await?;
    let first = look_when(&envoy, &receiving, 1).await?;
    let last = look_when(&envoy, &receiving, messages).await?;
    envoy.wait_delivered(messages).await?;
    let count = (last.received - first.received) as f64;
    Ok(Drained {
        per_second: count / (last.at - first.at).as_secs_f64(),
        cpu_micros: (last.cpu.0 - first.cpu.0) / count,
    })
}

/// What was seen at one moment.
struct Look {
    at: Instant,
    received: u64,
    cpu: CpuMicros,
}

async fn look_when(envoy: &Envoy, receiving: &Envoy, at_least: u64) -> Result<Look, Failure> {
    let what = format!("the receiver has {at_least} messages");
    let seen = until(&what, DRAINED_WITHIN, || match receiving.stat(RECEIVER_STAT)? {
        received if received >= at_least => Ok((Instant::now(), received)),
        received => Err(format!("{received} messages")),
    });
    let (at, received) = seen.await?;
    Ok(Look { at, received, cpu: envoy.cpu()? })
}
