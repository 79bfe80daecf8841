//! Random numbers for jitter and for message ids, from a seed that the shell draws once per VM.
//!
//! Never a source of secrets: ids are made from the host's own random bytes by the shell, this generator only spreads
//! load. SplitMix64 (Steele, Lea, Flood 2014): ten lines, no state to get wrong, equal on every platform.

use crate::units::{Millis, Permille};

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` (both included).
    pub fn up_to(&mut self, bound: u64) -> u64 {
        let draw = u128::from(self.next());
        u64::try_from(draw.saturating_mul(u128::from(bound).saturating_add(1)) >> 64).unwrap_or(bound)
    }

    /// `span` moved by at most `share` of itself, up or down.
    pub fn spread(&mut self, span: Millis, share: Permille) -> Millis {
        let reach = share.of(span.0);
        Millis(span.0.saturating_sub(reach).saturating_add(self.up_to(reach.saturating_mul(2))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn spread_stays_within_its_share_and_reaches_both_ends() {
        let mut random = Random::seeded(1);
        let draws: Vec<u64> = (0..10_000).map(|_| random.spread(Millis(10), Permille(200)).0).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&8), Some(&12)));
    }

    #[test]
    fn no_share_means_no_spread() {
        assert_eq!(Random::seeded(9).spread(Millis(u64::MAX), Permille(0)), Millis(u64::MAX));
    }
}
