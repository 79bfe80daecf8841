//! Neighbours with the same filter: senders that have stored a message before (`trust.from_senders`), and receivers that
//! take custody (`trust.from_receivers`). Without trust the same words mean nothing, and reach nobody: strangers say them
//! in every history.

use crate::message::Message;
use crate::rules::Rules;
use crate::town::FORGED_ID;
use simvoy::{Exchange, Headers, Response};

const HOPS: &str = "x-redeliver-hops";
const ID: &str = "x-redeliver-id";
const STATUS: &str = "x-redeliver-status";
/// A message with so many hops is not stored again.
const HOPS_MAX: u32 = 3;
/// Why a neighbour has not stored a failure. No filter of these histories has this reason itself.
pub const REFUSAL: &str = "closed";

/// Every third message of such a history comes from a neighbour, or says so.
pub fn pass_on(message: &mut Message, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(message.number.0) << 20 ^ 0x686f_7073);
    if random.u32(..3) == 0 {
        message.headers.remove(HOPS);
        message.headers.add(HOPS, ["1", "1", "2", "3", "4", "soon"][random.usize(..6)]);
        if random.bool() {
            message.headers.remove(ID);
            message.headers.add(ID, format!("{:032x}", random.u128(..)));
        }
    }
}

/// How many filters have stored a message before, as far as the rules believe it.
#[must_use]
pub fn hops_before(message: &Message, rules: &Rules) -> u32 {
    let said = message.headers.text(HOPS).and_then(|text| text.parse().ok()).unwrap_or(0);
    if rules.receiving.trusts_senders { said } else { 0 }
}

/// The id under which the hop before has a message, as far as the rules believe it.
#[must_use]
pub fn id_before<'a>(message: &'a Message, rules: &Rules) -> Option<&'a str> {
    let is_id = |id: &&str| id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    message.headers.text(ID).filter(|id| rules.receiving.trusts_senders && is_id(id))
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

    /// Every third failure says what has become of the message there: it is stored, or was before, or could not be.
    pub fn take_over(&mut self, exchange: Exchange) -> Exchange {
        match exchange {
            Exchange::Answer { after, response } if response.code() >= 500 => {
                let word = match self.0.u32(..12) {
                    0..2 => "stored",
                    2 => "duplicate",
                    3 => &format!("not-stored; reason={REFUSAL}"),
                    _ => return Exchange::Answer { after, response },
                };
                let response = response.header(STATUS, word).header(ID, FORGED_ID);
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

/// Our headers in an answer: they stand beside its status, wherever that is.
pub fn words(answer: &Headers) -> impl Iterator<Item = (String, Vec<u8>)> {
    answer.0.iter().filter(|(name, _)| name.starts_with("x-redeliver-")).cloned()
}

/// Whether this answer takes custody, by the rules.
#[must_use]
pub fn has_custody(response: &Response, rules: &Rules) -> bool {
    let word = response.headers.text(STATUS).or_else(|| response.trailers.text(STATUS));
    rules.receiving.trusts_receivers && matches!(word, Some("stored" | "duplicate"))
}

/// Whether what a sender was told are its receiver's words: of one that is trusted, or of a request that is none of ours.
#[must_use]
pub fn are_receivers_words(message: &Message, response: &Response, rules: &Rules) -> bool {
    let may_be_handed_on = !message.is_protected() || rules.receiving.trusts_receivers;
    may_be_handed_on && response.headers.text(ID) == Some(FORGED_ID)
}
