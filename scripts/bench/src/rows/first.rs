//! From Envoy calling the cluster healthy to the first redelivery: half of it is asking Envoy, the rest is ours.
//!
//! ```text
//!   receiver listens ──> health check ──> Envoy's event log: healthy ══ measured ══> first redelivery arrives
//! ```
//!
//! Both ends are wall-clock times of this machine: the one that Envoy wrote, and the one at which the receiver had read
//! the whole request.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redeliver_tests::Receiver;
use redeliver_tests::ports::free_port;
use tokio::time::sleep;

use super::{Size, during_an_outage, ours, say};
use crate::bootstrap::{CLUSTER, Health, proxy};
use crate::envoy::{Envoy, SOON, Workers, until};
use crate::failure::Failure;
use crate::figures::{Figures, Short};
use crate::goal::{Goal, Mark, Of};
use crate::line::Line;
use crate::load::{Load, ONE_KIB};
use crate::meter::Meter;
use crate::options::Options;
use crate::report::Found;
use crate::row::Row;

const EVENTS: &str = "health.log";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the outage goes on once the filter knows of it.
#[derive(Clone, Copy)]
enum Outage {
    /// The receiver is back at once: whatever the filter began at the start of the outage is still under way.
    Short,
    /// Longer than the first wait that the filter imposes on itself (`redelivery.backoff.initial`, 1 s by default, and
    /// its jitter).
    Long,
}

impl Outage {
    const fn goes_on_for(self) -> Duration {
        match self {
            Outage::Short => Duration::ZERO,
            Outage::Long => Duration::from_millis(2_500),
        }
    }
}

/// Two lines; they have no yardstick, and stand for themselves.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let long = measured(options, Outage::Long).await?;
    let short = measured(options, Outage::Short).await?;
    let line = |what: &str, ours, goal| Line {
        row: Row::First,
        what: what.to_owned(),
        unit: "ms".to_owned(),
        ours,
        yardstick: None,
        goal,
    };
    let goal = Goal::Judged(Mark::at_most(Of::Ours, 500.0, 300.0));
    Ok(vec![
        line("from healthy to the first redelivery", long, goal),
        line("the same after less than a second of outage", short, Goal::None),
    ]
    .into())
}

async fn measured(options: &Options, outage: Outage) -> Result<Figures, Failure> {
    let size = Size::of(Row::First, options.extent);
    let (receiver, port) = (Receiver::absent().await, free_port());
    let candidate = ours(&options.wasm, during_an_outage(&Meter::Time));
    let document = |folder: &Path| {
        let health = Health::Checked { port: receiver.port(), events: &folder.join(EVENTS) };
        proxy(port, &candidate, receiver.port(), &health)
    };
    let envoy = Envoy::start("ours", &options.envoy, Workers(1), document).await?;
    let scene = Scene { envoy, port, receiver, outage, messages: size.requests };
    let mut millis = Figures::default();
    for round in 1..=size.pairs {
        let delay = scene.one_outage(round).await?.as_secs_f64() * 1e3;
        millis.0.push(delay);
        say(&format!("first: outage {round} of {}: {} ms", size.pairs, Short(delay)));
    }
    Ok(millis)
}

/// What one outage after the other happens to.
struct Scene {
    envoy: Envoy,
    port: u16,
    receiver: Receiver,
    outage: Outage,
    messages: u64,
}

impl Scene {
    async fn one_outage(&self, round: usize) -> Result<Duration, Failure> {
        let Scene { envoy, port, receiver, outage, messages } = self;
        receiver.refuse().await;
        envoy.wait_stat(&format!("cluster.{CLUSTER}.membership_healthy"), 0).await?;
        Load::post(ONE_KIB, 202).run(*port, *messages).await?;
        // The filter must know of the outage, or it would not have to find out that it is over.
        envoy.wait_stat("wasmcustom.redeliver_destinations_down", 1).await?;
        sleep(outage.goes_on_for()).await;
        let before = receiver.received().len();
        receiver.come_back().await;
        let look = || receiver.received().get(before).map(|one| one.at).ok_or("nothing".to_owned());
        let first = time_of_day(until("the receiver gets its first message", SOON, look).await?);
        let events = envoy.file(EVENTS);
        let healthy = until("Envoy logs that the cluster is healthy", SOON, || nth_healthy(&events, round)).await?;
        envoy.wait_delivered(messages * round as u64).await?;
        // Midnight may lie between them.
        Ok(if first >= healthy { first - healthy } else { first + DAY - healthy })
    }
}

fn time_of_day(at: Instant) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() - at.elapsed();
    Duration::from_nanos((now.as_nanos() % DAY.as_nanos()) as u64)
}

/// When Envoy called the host healthy for the `n`th time, as time of day; what is in the log if it has not.
fn nth_healthy(events: &Path, n: usize) -> Result<Duration, String> {
    let log = fs::read_to_string(events).map_err(|error| error.to_string())?;
    let healthy = log.lines().filter(|line| line.contains("\"add_healthy_event\"")).nth(n - 1);
    healthy.and_then(logged_at).ok_or_else(|| log.lines().last().unwrap_or("an empty log").to_owned())
}

/// The time of day in `"timestamp":"2025-11-23T14:02:07.123Z"`.
fn logged_at(line: &str) -> Option<Duration> {
    let (_, timestamp) = line.split_once("\"timestamp\":\"")?;
    let (_, time) = timestamp.split_once('Z')?.0.split_once('T')?;
    let mut parts = time.splitn(3, ':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs((hours * 60 + minutes) * 60) + Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_event_is_read_from_its_line() {
        let line = r#"{"cluster_name":"orders","timestamp":"2025-11-23T01:02:03.250Z","add_healthy_event":{}}"#;
        assert_eq!(logged_at(line), Some(Duration::from_millis(3_723_250)));
        assert_eq!(logged_at("{}"), None);
    }
}
