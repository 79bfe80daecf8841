//! Measuring in turns: A B C, C B A, A B C ... so that whatever else the machine does meets all candidates alike.

use super::{Size, say};
use crate::envoy::Envoy;
use crate::failure::Failure;
use crate::figures::{Figures, Short};
use crate::load::Load;
use crate::meter::Meter;

/// V8 compiles hot functions anew after some thousand calls; before that a filter costs a multiple.
pub const WARM_UP_REQUESTS: u64 = 10_000;

/// One candidate: an Envoy that is up, where it listens, and what to send.
pub struct Contender {
    /// For progress lines.
    pub name: &'static str,
    /// The process whose cost counts.
    pub envoy: Envoy,
    /// Where it listens.
    pub port: u16,
    /// What it gets.
    pub load: Load,
}

/// What one contender gets in one life.
pub const fn requests_in_all(size: &Size) -> u64 {
    WARM_UP_REQUESTS + size.requests * size.pairs as u64
}

/// What a request costs each contender by `meter`, one sample per turn, in as many lives as `size` says: `begin` starts all
/// contenders, and `check` looks at the end of each life whether they did what they were there for.
pub async fn cost_per_request(
    what: &str,
    meter: &Meter,
    size: &Size,
    begin: impl AsyncFn() -> Result<Vec<Contender>, Failure>,
    check: impl AsyncFn(&[Contender]) -> Result<(), Failure>,
) -> Result<Vec<Figures>, Failure> {
    let mut all = Vec::new();
    for life in 0..size.lives {
        let contenders = begin().await?;
        let samples =
            in_turns(&format!("{what}: life {} of {}", life + 1, size.lives), meter, &contenders, size).await?;
        check(&contenders).await?;
        all.resize(samples.len(), Figures::default());
        all.iter_mut().zip(samples).for_each(|(figures, more)| figures.0.extend(more.0));
    }
    Ok(all)
}

async fn in_turns(what: &str, meter: &Meter, contenders: &[Contender], size: &Size) -> Result<Vec<Figures>, Failure> {
    for contender in contenders {
        say(&format!("{what}: warming up, {}", contender.name));
        contender.load.run(contender.port, WARM_UP_REQUESTS).await?;
    }
    let mut samples = vec![Figures::default(); contenders.len()];
    for turn in 0..size.pairs {
        let mut order: Vec<_> = contenders.iter().zip(&mut samples).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for (contender, figures) in order {
            figures.0.push(one_batch(meter, contender, size.requests).await?);
        }
        let last = last_turn(meter.unit(), contenders, &samples);
        say(&format!("{what}: turn {} of {}: {last}", turn + 1, size.pairs));
    }
    Ok(samples)
}

async fn one_batch(meter: &Meter, contender: &Contender, requests: u64) -> Result<f64, Failure> {
    let before = meter.read(&contender.envoy)?;
    contender.load.run(contender.port, requests).await?;
    Ok((meter.read(&contender.envoy)? - before) / requests as f64)
}

fn last_turn(unit: &str, contenders: &[Contender], samples: &[Figures]) -> String {
    let figures = contenders.iter().zip(samples).map(|(contender, figures)| {
        let last = figures.0.last().copied().unwrap_or(f64::NAN);
        format!("{} {} {unit}", contender.name, Short(last))
    });
    figures.collect::<Vec<_>>().join(", ")
}
