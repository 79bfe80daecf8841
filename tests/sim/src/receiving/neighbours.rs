//! Neighbours with the same filter: senders that have stored a message before (`trust.from_senders`), and receivers that
//! take custody (`trust.from_receivers`). Without trust the same words mean nothing, and reach nobody.

use crate::message::Message;
use crate::rules::Rules;
use crate::town::FORGED_ID;
use simvoy::{Exchange, Headers, Response};

const HOPS: &str = "x-redeliver-hops";
const STATUS: &str = "x-redeliver-status";
/// A message with so many hops is not stored again.
const HOPS_MAX: u32 = 3;

/// Every third message of such a history comes from a neighbour, or says so.
pub fn pass_on(message: &mut Message, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(message.number.0) << 20 ^ 0x686f_7073);
    if random.u32(..3) == 0 {
        message.headers.remove(HOPS);
        message.headers.add(HOPS, ["1", "1", "2", "3", "4", "soon"][random.usize(..6)]);
    }
}

/// How many filters have stored a message before, as far as the rules believe it.
#[must_use]
pub fn hops_before(message: &Message, rules: &Rules) -> u32 {
    let said = message.headers.text(HOPS).and_then(|text| text.parse().ok()).unwrap_or(0);
    if rules.receiving.trusts_senders { said } else { 0 }
}

/// Whether it was stored too often.
#[must_use]
pub fn has_gone_round(message: &Message, rules: &Rules) -> bool {
    hops_before(message, rules) >= HOPS_MAX
}

/// What a live request carries of our headers beyond what its rules allow.
#[must_use]
pub fn forged(message: &Message, got: &Headers, rules: &Rules) -> Option<String> {
    let is_stripped = message.is_protected() && !rules.receiving.trusts_senders;
    let found = got.0.iter().find(|(name, _)| name.starts_with("x-redeliver-"))?;
    is_stripped.then(|| format!("{} has reached the receiver with a live request", found.0))
}

/// What receivers that may be neighbours say.
#[derive(Debug)]
pub struct Neighbours(fastrand::Rng);

impl Neighbours {
    /// The same for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed ^ 0x6e65_6967_6862))
    }

    /// Every fourth failure says that the message is stored there.
    pub fn take_over(&mut self, exchange: Exchange) -> Exchange {
        match exchange {
            Exchange::Answer { after, response } if response.code() >= 500 && self.0.u32(..4) == 0 => {
                let response = response.header(STATUS, "stored").header("x-redeliver-id", FORGED_ID);
                Exchange::Answer { after, response }
            }
            Exchange::Answer { .. }
            | Exchange::Refused
            | Exchange::ConnectTimeout { .. }
            | Exchange::CutBeforeHeaders { .. }
            | Exchange::CutAfterHeaders { .. }
            | Exchange::Garbage { .. }
            | Exchange::Silence => exchange,
        }
    }
}

/// Whether this answer takes custody, by the rules.
#[must_use]
pub fn has_custody(response: &Response, rules: &Rules) -> bool {
    rules.receiving.trusts_receivers && response.headers.text(STATUS) == Some("stored")
}
