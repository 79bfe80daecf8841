//! How many redeliveries per second may begin at one destination: a token bucket in its leader's memory.
//!
//! | | |
//! | --- | --- |
//! | filled | by the clock, `redelivery.rate` tokens a second |
//! | holds | one token and what two ticks bring: less, and the rate could not be reached, since messages go out at a tick, a tick can be late, and a part of a token must be kept for the next; more, and a pause would end in a storm |
//! | at the start of a term | one token: leaders that follow each other quickly must not each bring a bucketful |
//!
//! A local refusal is no attempt: a message that waits for a token keeps its due time (PEERS 2, complaint 10).

use crate::config::Rate;
use crate::units::{Millis, Monotonic, Permille};

/// Thousandths of a redelivery per second times milliseconds: no rounding, however low the rate.
const TOKEN: u64 = 1_000_000;

/// The bucket of one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Without a limit.
    Bottomless,
    /// With one.
    Limited(Tokens),
}

/// The tokens of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    rate: Permille,
    held: u64,
    held_max: u64,
    filled_at: Monotonic,
}

impl Bucket {
    /// A bucket at the start of a term.
    #[must_use]
    pub fn new(rate: Rate, tick: Millis, now: Monotonic) -> Self {
        match rate {
            Rate::Unlimited => Self::Bottomless,
            Rate::PerSecond(rate) => {
                let held_max = gained(rate, tick.times(2)).saturating_add(TOKEN);
                Self::Limited(Tokens { rate, held: TOKEN, held_max, filled_at: now })
            }
        }
    }

    /// Time has passed.
    pub fn fill(&mut self, now: Monotonic) {
        match self {
            Self::Bottomless => {}
            Self::Limited(tokens) => {
                let more = gained(tokens.rate, now.since(tokens.filled_at));
                tokens.held = tokens.held.saturating_add(more).min(tokens.held_max);
                tokens.filled_at = tokens.filled_at.max(now);
            }
        }
    }

    /// Whether one more redelivery may begin.
    #[must_use]
    pub const fn has_token(&self) -> bool {
        match self {
            Self::Bottomless => true,
            Self::Limited(tokens) => tokens.held >= TOKEN,
        }
    }

    /// One began.
    pub const fn take(&mut self) {
        match self {
            Self::Bottomless => {}
            Self::Limited(tokens) => tokens.held = tokens.held.saturating_sub(TOKEN),
        }
    }
}

const fn gained(rate: Permille, span: Millis) -> u64 {
    (rate.0 as u64).saturating_mul(span.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const TICK: Millis = Millis(100);

    /// Redeliveries that begin in so many ticks, with a backlog that never ends.
    fn begun(rate: u32, ticks: u64, is_late: impl Fn(u64) -> u64) -> u64 {
        let mut bucket = Bucket::new(Rate::PerSecond(Permille(rate)), TICK, Monotonic(0));
        let mut begun = 0;
        for tick in 0..ticks {
            bucket.fill(Monotonic(tick * TICK.0 + is_late(tick)));
            while bucket.has_token() {
                bucket.take();
                begun += 1;
            }
        }
        begun
    }

    #[test]
    fn the_rate_is_reached_and_never_passed_by_more_than_the_bucket() {
        for (rate, seconds, expected) in [(10_000, 60, 600), (7_000, 60, 420), (500, 60, 30), (1, 10_000, 10)] {
            let begun = begun(rate, seconds * 10, |_| 0);
            assert!((expected - 1..=expected + 2).contains(&begun), "{begun} at {rate} thousandths");
        }
        let late = begun(50_000, 600, |tick| if tick % 2 == 0 { 0 } else { 90 });
        assert!((2_990..=3_011).contains(&late), "ticks that are late by nearly one lose nothing: {late}");
    }

    #[test]
    fn a_pause_ends_in_no_storm() {
        let mut bucket = Bucket::new(Rate::PerSecond(Permille(100_000)), TICK, Monotonic(0));
        bucket.fill(Monotonic(3_600_000));
        let mut burst = 0;
        while bucket.has_token() {
            bucket.take();
            burst += 1;
        }
        assert_eq!(burst, 21, "what two ticks bring, and one");
    }

    #[test]
    fn without_a_limit_there_is_always_a_token() {
        let mut bucket = Bucket::new(Rate::Unlimited, TICK, Monotonic(0));
        for _ in 0..1_000 {
            assert!(bucket.has_token());
            bucket.take();
        }
    }
}
