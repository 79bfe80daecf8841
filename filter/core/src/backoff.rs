//! How long a message waits after a failed attempt: exponential, capped, spread by jitter.
//!
//! Without jitter a backlog fires again together, once per longest wait (PEERS 3.2, Postfix's own words).

use crate::config::Backoff;
use crate::random::Random;
use crate::units::Millis;

/// The wait after failed attempt number `attempts` (1, 2, ...): `initial * multiplier^(attempts - 1)`, at most `max`,
/// moved by at most `jitter` of itself. Never more than `max`.
#[must_use]
pub fn wait(backoff: &Backoff, attempts: u16, random: &mut Random) -> Millis {
    let mut span = backoff.initial;
    for _ in 1..attempts {
        if span >= backoff.max {
            break;
        }
        span = Millis(backoff.multiplier.of(span.0)).max(span);
        if backoff.multiplier.0 <= 1_000 {
            break;
        }
    }
    random.spread(span.min(backoff.max), backoff.jitter).min(backoff.max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Permille;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn backoff(jitter: u32) -> Backoff {
        Backoff { initial: Millis(1_000), max: Millis(300_000), multiplier: Permille(2_000), jitter: Permille(jitter) }
    }

    #[test]
    fn it_doubles_up_to_the_cap_and_never_overflows() {
        let mut random = Random::seeded(1);
        let cases = [(1, 1_000), (2, 2_000), (5, 16_000), (9, 256_000), (10, 300_000), (u16::MAX, 300_000)];
        for (attempts, expected) in cases {
            assert_eq!(wait(&backoff(0), attempts, &mut random), Millis(expected), "after attempt {attempts}");
        }
    }

    #[test]
    fn jitter_stays_within_its_share_and_below_the_cap() {
        let mut random = Random::seeded(2);
        for attempts in 1..30 {
            let span = wait(&backoff(200), attempts, &mut random);
            let plain = wait(&backoff(0), attempts, &mut random);
            assert!(span.0 * 10 >= plain.0 * 8 && span.0 * 10 <= plain.0 * 12 && span <= Millis(300_000), "{span}");
        }
    }
}
