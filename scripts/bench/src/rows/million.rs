//! A million messages in one store: what each costs, what it takes, and what all of them cost while they wait.
//!
//! ```text
//!   large  ── fill ─────────── idle ── takeover ── ........... ── drain ── ...........
//!   small  ── 1,000 in, out ── idle ────────────── 1,000 in, out ........ 1,000 in, out      again and again
//! ```
//! Both are whole Envoys with a receiver of their own, whose health checks are switched by its admin port. What a
//! message costs is processor time from before it is sent until all are delivered, less what the empty store costs in
//! as much time. The small store's rounds lie before, between and after the large one's two halves: whatever else the
//! machine does, it does to both. Our admin port is not read while time is measured, since that costs time too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redeliver_tests::ports::free_port;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Size, during_an_outage, ours, say};
use crate::bootstrap::{CLUSTER, Health, RECEIVER_STAT, proxy, push, receiver, watched};
use crate::envoy::{CpuMicros, Envoy, Workers, until};
use crate::failure::Failure;
use crate::figures::{Count, Figures, Short};
use crate::goal::{Goal, Mark, Of};
use crate::growth::{Growth, Point};
use crate::line::Line;
use crate::load::{BodyBytes, Load};
use crate::meter::Meter;
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

/// Four lines and a curve.
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
    let takeover = large.takeover(idle, idle_for(options.extent)).await?;
    rounds.add(&small.rounds(ROUNDS).await?);
    let (spent_on_delivery, deliver) = large.drain(size.requests).await?;
    spent.add(&spent_on_delivery);
    rounds.add(&small.rounds(ROUNDS).await?);

    let in_rounds = 3 * ROUNDS * SMALL_BACKLOG;
    let cost = [(spent, size.requests), (rounds, in_rounds)]
        .map(|(spent, messages)| Figures(vec![spent.for_each_of(messages, idle_empty)]));
    let memory = (full_bytes - empty_bytes) / size.requests as f64 - large.load.message_bytes() as f64;
    let lines = Measured { messages: size.requests, cost, memory, idle, idle_empty, takeover }.lines(options.extent);
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
    takeover: CpuMicros,
}

impl Measured {
    fn lines(self, extent: Extent) -> Vec<Line> {
        let Measured { messages, cost: [large, small], memory, idle, idle_empty, takeover } = self;
        let (messages, few) = (Count(messages), Count(SMALL_BACKLOG));
        let goal = |mark: Mark| mark.unless_shrunk(extent);
        let line = |what: String, unit: &str, ours, yardstick, goal| Line {
            row: Row::Million,
            what,
            unit: unit.to_owned(),
            ours,
            yardstick,
            goal,
        };
        let one = |figure: f64| Figures(vec![figure]);
        vec![
            line(
                format!("stored and delivered: backlog of {messages} / of {few}"),
                "us",
                large,
                Some(small),
                goal(Mark::at_most(Of::Ratio, 1.2, 1.05)),
            ),
            line(
                format!("memory per message above its headers and body, {messages} stored"),
                "B",
                one(memory),
                None,
                goal(Mark::at_most(Of::Ours, 400.0, 300.0)),
            ),
            line(
                format!("processor share, {messages} stored and none due; beside it an empty store"),
                "%",
                one(idle * 100.0),
                Some(one(idle_empty * 100.0)),
                goal(Mark::at_most(Of::Ours, 1.0, 0.5)),
            ),
            line(
                format!("processor time of a new leader that reads {messages} heads"),
                "ms",
                one(takeover.0 / 1e3),
                None,
                Goal::None,
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
    wasm: PathBuf,
    envoy: Envoy,
    receiving: Envoy,
    ports: Ports,
    load: Load,
    /// Delivered so far.
    delivered: u64,
}

#[derive(Clone, Copy)]
struct Ports {
    proxy: u16,
    receiver: u16,
    checks: u16,
}

/// `redelivery.max_attempts`, which no message comes near: two configurations that differ in it do the same.
#[derive(Clone, Copy)]
struct Version(u32);

impl Store {
    async fn start(options: &Options, name: &'static str) -> Result<Store, Failure> {
        let ports = Ports { proxy: free_port(), receiver: free_port(), checks: free_port() };
        let serve = |_: &_| receiver(ports.receiver, ports.checks);
        let receiving = Envoy::start("receiver", &options.envoy, Workers(1), serve).await?;
        let mut pushed = Ok(());
        let document = |folder: &Path| {
            let document = document(&options.wasm, ports, folder, Version(20));
            pushed = push(&document, folder);
            watched(document, folder)
        };
        let envoy = Envoy::start(name, &options.envoy, Workers(1), document).await;
        pushed.map_err(|error| Failure::Machine { what: PathBuf::from("the watched file"), error })?;
        let (wasm, load) = (options.wasm.clone(), Load::post(BODY, 202));
        Ok(Store { name, wasm, envoy: envoy?, receiving, ports, load, delivered: 0 })
    }

    /// Pushes another configuration; the processor time that this takes within `span` above what idling takes.
    async fn takeover(&self, idle_share: f64, span: Duration) -> Result<CpuMicros, Failure> {
        say(&format!("million: another configuration, and {} s", span.as_secs()));
        let (start, before) = (Instant::now(), self.envoy.cpu()?);
        let folder = self.envoy.folder();
        push(&document(&self.wasm, self.ports, folder, Version(21)), folder)
            .map_err(|error| Failure::Machine { what: folder.to_owned(), error })?;
        sleep(span).await;
        let cpu_micros = self.envoy.cpu()?.0 - before.0 - idle_share * start.elapsed().as_secs_f64() * 1e6;
        self.envoy.wait_stat("listener_manager.lds.update_success", 2).await?;
        Ok(CpuMicros(cpu_micros))
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
            self.load.run(self.ports.proxy, SMALL_BACKLOG).await?;
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
            self.load.run(self.ports.proxy, stretch).await?;
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
        say(&format!("million: {} {what}, the last ones at {} us", Count(messages), Short(cost)));
    }
}

fn document(wasm: &Path, ports: Ports, folder: &Path, Version(attempts): Version) -> Value {
    let mut more = during_an_outage(&Meter::Time);
    // The default: what the filter does while nothing happens is part of the figures here.
    more["health"]["interval"] = json!("1s");
    more["redelivery"]["max_attempts"] = json!(attempts);
    let events = folder.join("health.log");
    proxy(ports.proxy, &ours(wasm, more), ports.receiver, &Health::Checked { port: ports.checks, events: &events })
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
