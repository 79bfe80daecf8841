//! How long a message waits after a failed attempt: exponential, capped, spread by jitter.
//!
//! A receiver may ask for a longer wait ([`wait_as_asked`]): then jitter only adds, or else we would be back too early.
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

/// What a receiver's wish for a wait is worth: at most `max`, so that no answer puts a message off for longer than we ever
/// wait by ourselves.
#[must_use]
pub fn granted(backoff: &Backoff, asked: Millis) -> Millis {
    asked.min(backoff.max)
}

/// The wait after failed attempt number `attempts` whose answer asked for one: the later of that wish, as far as it is
/// [`granted`], and our own [`wait`]. Jitter moves the wish only upward, even above `max`: messages that were all asked to
/// wait until one moment must not all come back in it.
#[must_use]
pub fn wait_as_asked(backoff: &Backoff, attempts: u16, asked: Millis, random: &mut Random) -> Millis {
    let ours = wait(backoff, attempts, random);
    let theirs = granted(backoff, asked);
    if theirs == Millis::ZERO {
        return ours;
    }
    ours.max(theirs.plus(Millis(random.up_to(backoff.jitter.of(theirs.0)))))
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
    fn a_wish_moves_the_wait_up_and_never_down() {
        let mut random = Random::seeded(3);
        for _ in 0..1_000 {
            let later = wait_as_asked(&backoff(200), 1, Millis(60_000), &mut random);
            assert!((60_000..=72_000).contains(&later.0), "{later}");
            let capped = wait_as_asked(&backoff(200), 1, Millis(u64::MAX), &mut random);
            assert!((300_000..=360_000).contains(&capped.0), "{capped}");
            let sooner = wait_as_asked(&backoff(200), 9, Millis(1_000), &mut random);
            assert!((256_000 * 8 / 10..=300_000).contains(&sooner.0), "{sooner}: ours is the later one");
        }
    }

    #[test]
    fn without_a_wish_the_wait_is_ours() {
        let (mut one, mut other) = (Random::seeded(4), Random::seeded(4));
        for attempts in 1..20 {
            let asked = wait_as_asked(&backoff(200), attempts, Millis::ZERO, &mut one);
            assert_eq!(asked, wait(&backoff(200), attempts, &mut other));
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
