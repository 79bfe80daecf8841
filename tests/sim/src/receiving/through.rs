//! `redelivery.through`: redeliveries by way of an internal listener with the same routes, with the filter on it or without.
//!
//! | | straight | by way of the listener |
//! | --- | --- | --- |
//! | what a receiver gets | as `capture.as` says | what the route makes of the request as it arrived |
//! | how long an attempt may take | `redelivery.timeout` | that, and the route's own timeout |
//! | `x-redeliver-pass` | none | taken out by the filter there, if it is there |
//!
//! All else is the same, and judged the same. Drawn from a source of its own; and the routes of these histories do not try
//! again by themselves, which would be several attempts under one number.

use crate::message::{Destination, Message};
use crate::rules::{ROUTE_TIMEOUT, Rules};
use serde_json::{Value, json};
use simvoy::{Chain, Headers};
use std::time::Duration;

/// The cluster that leads to the listener.
pub const LISTENER: &str = "again";
/// What a redelivery shows there.
pub const PASS: &str = "x-redeliver-pass";

/// Which seeds have it. By remainder, so that all others stay what they are; it meets every kind of history.
const EVERY: u64 = 11;
const PLACE: u64 = 9;

/// Whose redeliveries go through the listener, and what is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Through {
    /// Whose.
    pub whose: Whose,
    /// The filters there.
    pub chain: Chain,
}

/// Some destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All of them.
    All,
    /// This one.
    One(Destination),
}

impl Through {
    /// What the history of this seed has of it, if its rules have so many destinations.
    #[must_use]
    pub fn of(seed: u64, destinations: u8) -> Option<Self> {
        if seed % EVERY != PLACE {
            return None;
        }
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0074_6872_6f75_6768);
        let one = Destination(random.u8(..destinations));
        let whose = if random.u32(..3) == 0 { Whose::One(one) } else { Whose::All };
        let chain = if random.u32(..3) == 0 { Chain::Router } else { Chain::Plugin };
        Some(Self { whose, chain })
    }

    /// Whether the redeliveries of this destination go through it.
    #[must_use]
    pub fn leads_to(self, destination: Destination) -> bool {
        match self.whose {
            Whose::All => true,
            Whose::One(one) => one == destination,
        }
    }

    /// Adds it to a configuration.
    pub fn configure(self, configuration: &mut Value) {
        match self.whose {
            Whose::All => configuration["redelivery"]["through"] = json!(LISTENER),
            Whose::One(one) => {
                configuration["destinations"][one.cluster()]["redelivery"]["through"] = json!(LISTENER);
            }
        }
    }
}

/// Senders who have seen a pass, or made one up: in some of the messages of such a history.
pub fn pretend(message: &mut Message, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(message.number.0) << 28 ^ 0x7061_7373);
    if random.u32(..6) == 0 {
        message.headers.add(PASS, format!("{:032x}", random.u128(..)));
    }
}

/// What of a redelivery's pass a receiver sees that it should not, or does not that it should.
#[must_use]
pub fn wrong_pass(message: &Message, got: &Headers, rules: &Rules) -> Option<String> {
    let shown = got.first(PASS);
    let may_be_seen = rules.through(message.destination) == Some(Chain::Router);
    (shown.is_some() != may_be_seen).then(|| format!("{PASS} is {:?}", got.text(PASS)))
}

/// How long an attempt may take, all in all.
#[must_use]
pub fn allowed(rules: &Rules, destination: Destination) -> Duration {
    match rules.through(destination) {
        Some(Chain::Router | Chain::Plugin) => rules.timeout.min(ROUTE_TIMEOUT),
        None => rules.timeout,
    }
}
