//! A million messages in one store: what each costs, what it takes, and what all of them cost while they wait.
//!
//! ```text
//!   large  ── fill ─────────── idle ── ........... ── drain ── ...........
//!   small  ── 1,000 in, out ── idle ── 1,000 in, out ........ 1,000 in, out      again and again
//! ```
//! Both are whole Envoys with a receiver of their own, whose health checks are switched by its admin port. What a message
//! costs is processor time from before it is sent until all are delivered, less what the empty store costs in as much
//! time. The small store's rounds lie before, between and after the large one's two halves: whatever else the machine
//! does, it does to both. Our admin port is not read while time is measured, since that costs time too.

use std::path::Path;
use std::time::Duration;

use redeliver_tests::ports::free_port;
use tokio::time::{Instant, sleep};

use super::{Size, during_an_outage, ours, say};
use crate::bootstrap::{CLUSTER, Health, RECEIVER_STAT, proxy, receiver};
use crate::envoy::{Envoy, Workers, until};
use crate::failure::Failure;
use crate::figures::{Figures, Short};
use crate::goal::{Mark, Of};
use crate::growth::{Growth, Point};
use crate::line::Line;
use crate::load::{BodyBytes, Load};
use crate::options::{Extent, Options};
use crate::report::Found;
use crate::row::Row;

/// The issue's size for this row: small, so that what is kept beside it shows.
const BODY: BodyBytes = BodyBytes(256);
/// What a backlog is large in comparison to.
const SMALL_BACKLOG: u64 = 1_000;
/// Before, between and after the halves of the large store's run.
const ROUNDS: u64 = 10;
/// Points of a curve.
const STRETCHES: u64 = 20;
/// A million messages at 800 a second.
const DRAINED_WITHIN: Duration = Duration::from_secs(1_200);
/// Three ticks: the last answers are settled by then.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// More than all periods of the filter but the long ones of its audit: what storing began has ended by then.
const QUIET_AFTER: Duration = Duration::from_secs(5);

/// Three lines and a curve.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let size = Size::of(Row::Million, options.extent);
    let (mut small, mut large) = (Store::start(options, "small").await?, Store::start(options, "large").await?);
    // Both are as warm as each other, and memory is measured from here.
    small.rounds(ROUNDS).await?;
    large.rounds(ROUNDS).await?;
    let empty_bytes = large.envoy.resident()?;

    let mut rounds = small.rounds(ROUNDS).await?;
    let (mut spent, store) = large.fill(size.requests).await?;
    sleep(QUIET_AFTER).await;
    let [idle, idle_empty] = idle_shares([&large, &small], idle_for(options.extent)).await?;
    let full_bytes = large.envoy.resident()?;
    rounds.add(&small.rounds(ROUNDS).await?);
    let (spent_on_delivery, deliver) = large.drain(size.requests).await?;
    spent.add(&spent_on_delivery);
    rounds.add(&small.rounds(ROUNDS).await?);

    let in_rounds = 3 * ROUNDS * SMALL_BACKLOG;
    let cost = [(spent, size.requests), (rounds, in_rounds)]
        .map(|(spent, messages)| Figures(vec![spent.for_each_of(messages, idle_empty)]));
    let memory = (full_bytes - empty_bytes) / size.requests as f64 - large.load.message_bytes() as f64;
    let lines = Measured { messages: size.requests, cost, memory, idle, idle_empty }.lines(options.extent);
    Ok(Found { lines, growth: Some(Growth { store, deliver }) })
}

const fn idle_for(extent: Extent) -> Duration {
    match extent {
        // 600 ticks: longer than any period of the filter but a whole round of its slow sweep.
        Extent::Whole => Duration::from_secs(60),
        Extent::Quick => Duration::from_secs(5),
    }
}

/// The figures of all lines.
struct Measured {
    messages: u64,
    /// Of a message, in microseconds: large, small.
    cost: [Figures; 2],
    memory: f64,
    idle: f64,
    idle_empty: f64,
}

impl Measured {
    fn lines(self, extent: Extent) -> Vec<Line> {
        let Measured { messages, cost: [large, small], memory, idle, idle_empty } = self;
        let line = |what: String, unit: &str, ours, yardstick, mark: Mark| Line {
            row: Row::Million,
            what,
            unit: unit.to_owned(),
            ours,
            yardstick,
            goal: mark.unless_shrunk(extent),
        };
        let one = |figure: f64| Figures(vec![figure]);
        vec![
            line(
                format!("stored and delivered: backlog of {messages} / of {SMALL_BACKLOG}"),
                "us",
                large,
                Some(small),
                Mark::at_most(Of::Ratio, 1.2, 1.05),
            ),
            line(
                format!("memory per message above its headers and body, {messages} stored"),
                "B",
                one(memory),
                None,
                Mark::at_most(Of::Ours, 400.0, 300.0),
            ),
            line(
                format!("processor share, {messages} stored and none due; beside it an empty store"),
                "%",
                one(idle * 100.0),
                Some(one(idle_empty * 100.0)),
                Mark::at_most(Of::Ours, 1.0, 0.5),
            ),
        ]
    }
}

/// Processor time and time of some stretch of work.
#[derive(Clone, Copy, Default)]
struct Spent {
    cpu_micros: f64,
    elapsed: Duration,
}

impl Spent {
    fn add(&mut self, other: &Spent) {
        self.cpu_micros += other.cpu_micros;
        self.elapsed += other.elapsed;
    }

    /// For each of so many messages, less what an idle process takes.
    fn for_each_of(&self, messages: u64, idle_share: f64) -> f64 {
        (self.cpu_micros - idle_share * self.elapsed.as_secs_f64() * 1e6) / messages as f64
    }
}

/// The share of a processor that each takes while nothing happens.
async fn idle_shares(stores: [&Store; 2], span: Duration) -> Result<[f64; 2], Failure> {
    say(&format!("million: idle for {} s", span.as_secs()));
    let cpu = |place: usize| stores[place].envoy.cpu();
    let (start, before) = (Instant::now(), [cpu(0)?, cpu(1)?]);
    sleep(span).await;
    let (elapsed, after) = (start.elapsed(), [cpu(0)?, cpu(1)?]);
    Ok([0, 1].map(|place: usize| (after[place].0 - before[place].0) / (elapsed.as_secs_f64() * 1e6)))
}

/// One Envoy with the filter, and its receiver.
struct Store {
    name: &'static str,
    envoy: Envoy,
    receiving: Envoy,
    port: u16,
    load: Load,
    /// Delivered so far.
    delivered: u64,
}

impl Store {
    async fn start(options: &Options, name: &'static str) -> Result<Store, Failure> {
        let (port, upstream, checks) = (free_port(), free_port(), free_port());
        let candidate = ours(&options.wasm, during_an_outage());
        let document = |folder: &Path| {
            let events = folder.join("health.log");
            proxy(port, &candidate, upstream, &Health::Checked { port: checks, events: &events })
        };
        let receiving = Envoy::start("receiver", &options.envoy, Workers(1), |_| receiver(upstream, checks)).await?;
        let envoy = Envoy::start(name, &options.envoy, Workers(1), document).await?;
        Ok(Store { name, envoy, receiving, port, load: Load::post(BODY, 202), delivered: 0 })
    }

    /// The receiver is called unhealthy, and everything is stored from now on.
    async fn go_down(&self) -> Result<(), Failure> {
        self.receiving.tell("/healthcheck/fail")?;
        self.envoy.wait_stat(&format!("cluster.{CLUSTER}.membership_healthy"), 0).await
    }

    /// So many small backlogs, one after the other.
    async fn rounds(&mut self, rounds: u64) -> Result<Spent, Failure> {
        let mut sum = Spent::default();
        for _ in 0..rounds {
            self.go_down().await?;
            let (start, before) = (Instant::now(), self.envoy.cpu()?);
            self.load.run(self.port, SMALL_BACKLOG).await?;
            self.receiving.tell("/healthcheck/ok")?;
            self.received(self.delivered + SMALL_BACKLOG).await?;
            sleep(SETTLED_AFTER).await;
            sum.cpu_micros += self.envoy.cpu()?.0 - before.0;
            sum.elapsed += start.elapsed();
            self.delivered += SMALL_BACKLOG;
            self.envoy.wait_delivered(self.delivered).await?;
        }
        let cost = sum.for_each_of(rounds * SMALL_BACKLOG, 0.0);
        say(&format!("million: {rounds} rounds of {}: {} us a message", self.name, Short(cost)));
        Ok(sum)
    }

    /// Stores a backlog, in stretches: the points of a curve.
    async fn fill(&mut self, messages: u64) -> Result<(Spent, Vec<Point>), Failure> {
        self.go_down().await?;
        let (mut sum, mut points) = (Spent::default(), Vec::new());
        let stretch = messages / STRETCHES;
        for number in 0..STRETCHES {
            let (start, before) = (Instant::now(), self.envoy.cpu()?);
            self.load.run(self.port, stretch).await?;
            let cpu_micros = self.envoy.cpu()?.0 - before.0;
            sum.add(&Spent { cpu_micros, elapsed: start.elapsed() });
            points.push(point(number * stretch + stretch / 2, cpu_micros, stretch));
            self.tell_progress("stored", (number + 1) * stretch, points.last());
        }
        Ok((sum, points))
    }

    /// Delivers it, in the same stretches.
    async fn drain(&mut self, messages: u64) -> Result<(Spent, Vec<Point>), Failure> {
        let stretch = messages / STRETCHES;
        let (start, before) = (Instant::now(), self.envoy.cpu()?);
        let (mut cpu, mut gone, mut points) = (before, 0, Vec::new());
        self.receiving.tell("/healthcheck/ok")?;
        for number in 0..STRETCHES {
            let now_gone = self.received(self.delivered + (number + 1) * stretch).await? - self.delivered;
            let now = self.envoy.cpu()?;
            points.push(point(messages - gone - stretch / 2, now.0 - cpu.0, now_gone - gone));
            self.tell_progress("delivered", now_gone, points.last());
            (cpu, gone) = (now, now_gone);
        }
        sleep(SETTLED_AFTER).await;
        let cpu_micros = self.envoy.cpu()?.0 - before.0;
        let spent = Spent { cpu_micros, elapsed: start.elapsed() };
        self.delivered += messages;
        self.envoy.wait_delivered(self.delivered).await?;
        Ok((spent, points))
    }

    /// Waits until the receiver has so many in all; how many it has.
    async fn received(&self, in_all: u64) -> Result<u64, Failure> {
        let what = format!("the receiver of the {} store has {in_all} messages", self.name);
        until(&what, DRAINED_WITHIN, || match self.receiving.stat(RECEIVER_STAT)? {
            seen if seen >= in_all => Ok(seen),
            seen => Err(format!("{seen} messages")),
        })
        .await
    }

    fn tell_progress(&self, what: &str, messages: u64, last: Option<&Point>) {
        let cost = last.map_or(f64::NAN, |point| point.cpu_micros);
        say(&format!("million: {messages} {what}, the last ones at {} us", Short(cost)));
    }
}

fn point(backlog: u64, cpu_micros: f64, messages: u64) -> Point {
    Point { backlog, cpu_micros: cpu_micros / messages.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_idle_process_takes_is_no_cost_of_a_message() {
        let half = Spent { cpu_micros: 500.0, elapsed: Duration::from_micros(100) };
        let mut whole = half;
        whole.add(&half);
        assert_eq!((whole.for_each_of(10, 0.0), whole.for_each_of(10, 0.5)), (100.0, 90.0));
    }
}
