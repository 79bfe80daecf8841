//! What senders and their operator have in mind about keys, in the history of a seed: an order, retries, both, or neither.
//!
//! Drawn from a source of its own, so that a history without keys is what it would be if there were none at all.

use crate::drills;
use crate::history::{Action, Listener, Phase};
use crate::keys::{DeadHead, Inject, KeyRules, Order, Scope};
use crate::retries::{Pick, Twist};
use crate::rules::Rules;

/// Which seeds have an order, and which have retries: a quarter each, half of them both. By remainders and not by lot, so
/// that a history without keys stays what it is whatever is changed here.
const fn has_order(seed: u64) -> bool {
    seed % 4 == 2
}

const fn has_retries(seed: u64) -> bool {
    matches!(seed % 8, 3 | 6)
}

/// Just less and just more than a delivery is remembered for (README: one hour), in milliseconds.
const NEAR_MEMORYS_END: [i64; 2] = [3_590_000, 3_610_000];

/// The habits of one history.
#[derive(Debug, Default, PartialEq)]
pub struct Habits {
    /// What the configuration says.
    pub rules: KeyRules,
    /// What senders send again, by milliseconds, and clocks that jump beside that.
    pub actions: Vec<(u64, Action)>,
}

impl Habits {
    /// The habits of `seed`. A drill brings its own.
    #[must_use]
    pub fn of(seed: u64, phase: Phase, span: u64) -> Self {
        if drills::has_one(seed) {
            return Self::default();
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6861_6269_7473 ^ u64::from(phase == Phase::Liveness));
        let mut rules = KeyRules::default();
        if has_order(seed) {
            rules.order = Order::ByKey(if random.bool() { DeadHead::Release } else { DeadHead::Block });
            rules.ordering_keys = random.u32(1..5);
        }
        let mut actions = Vec::new();
        if has_retries(seed) {
            rules.inject = if random.u32(..3) == 0 { Inject::On } else { Inject::Off };
            rules.scope = if random.u32(..4) == 0 { Scope::Everybody } else { Scope::Credential };
            actions = retries(&mut random, span);
        }
        Self { rules, actions }
    }

    /// Brings them into the rest of a history.
    pub fn enter(self, rules: &mut Rules, actions: &mut Vec<(u64, Action)>) {
        rules.keys = self.rules;
        actions.extend(self.actions);
    }
}

/// Retries at any time, each of a message in some state; in one history of three the clock jumps to where the memory of a
/// delivery ends, and retries follow.
fn retries(random: &mut fastrand::Rng, span: u64) -> Vec<(u64, Action)> {
    let mut actions: Vec<_> = (0..random.u32(20..80)).map(|_| (random.u64(..span), retry(random))).collect();
    if random.u32(..3) == 0 {
        let at = random.u64(span / 4..span);
        actions.push((at, Action::Jump(NEAR_MEMORYS_END[random.usize(..2)])));
        let after = (0..10).map(|_| (at + random.u64(100..8_000), retry_of(random, Pick::Delivered)));
        actions.extend(after.collect::<Vec<_>>());
    }
    actions
}

fn retry(random: &mut fastrand::Rng) -> Action {
    let pick = Pick::ALL[random.usize(..Pick::ALL.len())];
    retry_of(random, pick)
}

/// Half of them are what they say they are.
fn retry_of(random: &mut fastrand::Rng, pick: Pick) -> Action {
    let twist = if random.bool() { Twist::None } else { Twist::ALL[random.usize(..Twist::ALL.len())] };
    Action::Retry { pick, which: random.u32(..), twist, worker: random.u32(..64), listener: Listener::Newest }
}
