//! Keys: which requests belong together by the contract, and what a configuration makes of that.
//!
//! | two requests | if they share |
//! | --- | --- |
//! | have one identity | the idempotency key, and the values of `idempotency.scope_headers` |
//! | are the same request | destination, authority, method, path, content-type and body |
//! | stand in one line | destination and ordering key, where `redelivery.order` is `by_key` |
//!
//! Written from the README, and not with the filter's digests. Never decides what is right: [`crate::oracle`] does.

use crate::message::{CREDENTIAL, Destination, KEY, Message};
use crate::rules::Rules;
use serde_json::{Value, json};

/// `redelivery.order_key_header`: the default.
pub const ORDERING_KEY: &str = "x-ordering-key";

/// `redelivery.order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No message waits for another.
    None,
    /// Messages of one key go one after the other.
    ByKey(DeadHead),
}

/// `redelivery.on_dead_head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadHead {
    /// The next one is sent.
    Release,
    /// All others wait until it is gone.
    Block,
}

/// `idempotency.inject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inject {
    /// The first attempt goes out as it came.
    Off,
    /// It gets a key, if it has none.
    On,
}

/// `idempotency.scope_headers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The credential: the default.
    Credential,
    /// None: all senders are one.
    Everybody,
}

/// What a configuration says about keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRules {
    /// `redelivery.order`.
    pub order: Order,
    /// `idempotency.inject`.
    pub inject: Inject,
    /// `idempotency.scope_headers`.
    pub scope: Scope,
    /// Different ordering keys that the messages of this history have; 0: none has one.
    pub ordering_keys: u32,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self { order: Order::None, inject: Inject::Off, scope: Scope::Credential, ordering_keys: 0 }
    }
}

impl KeyRules {
    /// Writes them into a plugin configuration. What is the default is left out.
    pub fn configure(&self, configuration: &mut Value) {
        match self.order {
            Order::None => {}
            Order::ByKey(dead_head) => {
                configuration["redelivery"]["order"] = json!("by_key");
                configuration["redelivery"]["on_dead_head"] = match dead_head {
                    DeadHead::Release => json!("release"),
                    DeadHead::Block => json!("block"),
                };
            }
        }
        match self.inject {
            Inject::Off => {}
            Inject::On => configuration["idempotency"]["inject"] = json!(true),
        }
        match self.scope {
            Scope::Credential => {}
            Scope::Everybody => configuration["idempotency"]["scope_headers"] = json!([]),
        }
    }

    /// Gives a message the ordering key that it has in the history of this seed, or none.
    pub fn dress(&self, seed: u64, message: &mut Message) {
        if self.ordering_keys == 0 {
            return;
        }
        let salt = seed ^ (u64::from(message.number.0) << 32) ^ 0x6c69_6e65;
        let mut random = fastrand::Rng::with_seed(salt);
        // One of four stands in no line.
        if random.u32(..4) > 0 {
            message.headers.add(ORDERING_KEY, format!("account-{}", random.u32(..self.ordering_keys)));
        }
    }
}

/// An idempotency key in its scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    key: Vec<u8>,
    scope: Option<Vec<u8>>,
}

impl Identity {
    /// The identity of a request; `None` if it is not protected, or has no key.
    #[must_use]
    pub fn of(message: &Message, rules: &KeyRules) -> Option<Self> {
        let key = message.headers.first(KEY).filter(|key| !key.is_empty() && message.is_protected())?;
        let scope = match rules.scope {
            Scope::Credential => message.headers.first(CREDENTIAL).map(<[u8]>::to_vec),
            Scope::Everybody => None,
        };
        Some(Self { key: key.to_vec(), scope })
    }
}

/// A line: the messages of one ordering key and destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Where they go.
    pub destination: Destination,
    key: Vec<u8>,
}

impl Line {
    /// The line of a request; `None` if it stands in none.
    #[must_use]
    pub fn of(message: &Message, rules: &Rules) -> Option<Self> {
        match rules.keys.order {
            Order::None => None,
            Order::ByKey(DeadHead::Release | DeadHead::Block) => {
                let key = message.headers.first(ORDERING_KEY).filter(|_| message.is_protected())?;
                Some(Self { destination: message.destination, key: key.to_vec() })
            }
        }
    }
}

/// Whether two requests ask for the same.
#[must_use]
pub fn is_same_request(one: &Message, other: &Message) -> bool {
    let is_same = |name| one.headers.first(name) == other.headers.first(name);
    one.destination == other.destination
        && [":authority", ":method", ":path", "content-type"].into_iter().all(is_same)
        && one.body == other.body
}
