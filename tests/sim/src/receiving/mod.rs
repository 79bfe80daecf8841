//! What receivers say, and what a configuration says to them, beyond the plainest rules: waits that are asked for, every
//! status of the contract's table, parking, a rate, rules of one destination's own, gRPC, neighbours.
//!
//! | a history has | receivers | configuration |
//! | --- | --- | --- |
//! | `asks` | ask for a wait when they refuse a redelivery: see [`speech`] | |
//! | `says_anything` | refuse a redelivery with any status | |
//! | `parks` | | `redelivery.on_unauthorized: park` |
//! | `rate` | | `redelivery.rate` |
//! | `grpc` | speak gRPC to calls: see [`calls`] | `match.grpc: unary` |
//! | `trusts_senders`, `trusts_receivers` | say that a message is stored there: see [`neighbours`] | `trust` |
//! | `own` | | one destination has rules of its own: see [`own`] |
//! | `through` | | `redelivery.through`: see [`through`] |
//!
//! Drawn from a source of its own, and by a minority of seeds: the others stay the histories that they are.

pub mod calls;
pub mod drills;
pub mod neighbours;
pub mod own;
pub mod scenarios;
pub mod speech;
pub mod through;

use crate::rules::Rules;
use own::{OWNER, Own};
use serde_json::{Value, json};
use std::time::Duration;
use through::Through;

/// One history in so many has any of it.
const EVERY: u32 = 4;

/// See the table above.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receiving {
    /// Receivers ask for waits.
    pub asks: bool,
    /// They refuse with any status.
    pub says_anything: bool,
    /// 401 and 403 park a message.
    pub parks: bool,
    /// Redeliveries per second and destination; 0: as many as there is room for.
    pub rate: u32,
    /// One destination has rules of its own.
    pub own: Option<Own>,
    /// `match.grpc: unary`, and some messages are calls.
    pub grpc: bool,
    /// `trust.from_senders`, and some of them are neighbours.
    pub trusts_senders: bool,
    /// `trust.from_receivers`, and some of them are.
    pub trusts_receivers: bool,
    /// Some redeliveries go through a listener.
    pub through: Option<Through>,
}

impl Receiving {
    /// What the history of this seed has of it.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x7265_6365_6976_6572);
        if random.u32(..EVERY) > 0 {
            return Self::default();
        }
        let mut one_in = |n: u32| random.u32(..n) == 0;
        let (asks, says_anything, parks) = (one_in(2), one_in(2), one_in(2));
        let rate = if one_in(4) { [10, 50][random.usize(..2)] } else { 0 };
        let own = (random.u32(..3) == 0).then(|| Own::random(&mut random));
        let grpc = random.u32(..3) == 0;
        // A call has words of its own for a wait.
        let asks = asks || grpc;
        let (trusts_senders, trusts_receivers) = (random.u32(..4) == 0, random.u32(..4) == 0);
        Self { asks, says_anything, parks, rate, own, grpc, trusts_senders, trusts_receivers, through: None }
    }

    /// Without calls and neighbours: what those have of keys is judged in no history.
    pub fn speak_plainly(&mut self) {
        (self.grpc, self.trusts_senders, self.trusts_receivers) = (false, false, false);
    }

    /// The names of what it has, for the report.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let has = [
            (self.asks, "receivers that ask for a wait (`Retry-After`)"),
            (self.says_anything, "receivers that refuse with any status"),
            (self.parks, "`redelivery.on_unauthorized: park`"),
            (self.rate > 0, "`redelivery.rate`"),
            (self.grpc, "gRPC calls (`match.grpc: unary`)"),
            (self.trusts_senders, "senders with the same filter (`trust.from_senders`)"),
            (self.trusts_receivers, "receivers with the same filter (`trust.from_receivers`)"),
            (self.own.is_some(), "a destination with rules of its own"),
            (self.through.is_some(), "redelivery by way of a listener (`redelivery.through`)"),
        ];
        has.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
    }

    /// Adds what it says to a configuration.
    pub fn configure(&self, shared: &Rules, configuration: &mut Value) {
        if let Some(own) = &self.own {
            configuration["destinations"][OWNER.cluster()] = own.configuration(shared);
        }
        if let Some(through) = self.through {
            through.configure(configuration);
        }
        if self.grpc {
            configuration["match"]["grpc"] = json!("unary");
        }
        configuration["trust"] = json!({"from_senders": self.trusts_senders, "from_receivers": self.trusts_receivers});
        if self.parks {
            configuration["redelivery"]["on_unauthorized"] = json!("park");
        }
        if self.rate > 0 {
            configuration["redelivery"]["rate"] = json!(self.rate);
        }
    }

    /// How much longer a backlog of `messages` may take for its sake.
    #[must_use]
    pub fn patience(&self, messages: u32) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(u64::from(messages / rate)),
        }
    }
}
