//! The plugin configuration: JSON text in, a [`Config`] that cannot be wrong out, or every fault at once.
//!
//! Never accepts and ignores a key, never guesses, and does nothing but read: no value here acts. What an operator may
//! write, with defaults and bounds, is one table.
//!
//! ```text
//! text -> tree        tree.rs       JSON with duplicate keys still in it
//!      -> walk        walk.rs       unknown, twice, not built, no object      \
//!      -> draft       table.rs      each key by its reader (values.rs)         > faults (fault.rs), all of them
//!      -> relations   relations.rs  rules between keys                       |
//!      -> overrides   overrides.rs  the same for each destination's own keys /
//!      -> Config
//! table.rs -> reference.rs -> docs/configuration.md
//! ```

mod fault;
mod overrides;
mod reference;
mod relations;
mod table;
mod tree;
mod values;
mod walk;

#[cfg(test)]
mod tests;

pub use fault::{Fault, Faults, Problem};
pub use reference::{TABLE_BEGIN, TABLE_END, reference_table};

use crate::units::{ByteCount, ClusterName, Millis, Permille};
use litemap::LiteMap;
use std::rc::Rc;
use table::{Draft, Ordering, Source};
use tree::{Json, Object};

/// A configuration without faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which requests are protected.
    pub matching: Matching,
    /// How a request is seen and what of it is kept.
    pub capture: Capture,
    /// What the sender of a stored message gets.
    pub reply: Reply,
    /// What holds for every destination that has nothing of its own; [`Config::of`] tells what holds for one. The store's
    /// limits are those of the whole store.
    pub shared: Rc<Policy>,
    /// How two requests are known to be the same.
    pub idempotency: Idempotency,
    /// How long a dead letter is kept.
    pub dead_letter_ttl: Millis,
    /// Whose `x-redeliver-*` headers are believed.
    pub trust: Trusted,
    /// What differs for single destinations.
    pub destinations: LiteMap<ClusterName, DestinationOverride>,
    /// Whether any destination is held back: asked for every protected request, so it is known beforehand.
    pub any_hold_while_down: HoldWhileDown,
    /// The headers that have an ordering key for any destination: without one of them a request stands in no line.
    pub order_key_headers: Vec<String>,
}

/// What can differ from destination to destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which answers are failures to us.
    pub failure: Failure,
    /// Whether messages to a destination that is down are stored without asking the router.
    pub hold_while_down: HoldWhileDown,
    /// How much is kept, and how long.
    pub store: StoreLimits,
    /// How the state of a destination is known.
    pub health: Health,
    /// How messages are sent again.
    pub redelivery: Redelivery,
}

/// Which requests are protected: those that meet every condition given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// Starts of `:path`, each with a leading `/`; empty: any path.
    pub path_prefixes: Vec<String>,
    /// Empty: any cluster.
    pub clusters: Vec<ClusterName>,
    /// At least one, in upper case, never `CONNECT`.
    pub methods: Vec<String>,
    /// Whether the sender has to ask for it.
    pub prefer: Prefer,
    /// Whether the route has to ask for it.
    pub route_opt_in: RouteOptIn,
    /// Whether gRPC calls are among them.
    pub grpc: Grpc,
}

/// Whether gRPC calls are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grpc {
    /// None.
    Off,
    /// Those of one message.
    Unary,
}

/// What `Prefer: respond-async` (RFC 7240) has to do with protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// Nothing.
    Ignore,
    /// Only requests that carry it are protected.
    Required,
}

/// What route metadata `filter_metadata.redeliver.enabled: true` has to do with protection; `false` always excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteOptIn {
    /// Nothing.
    Off,
    /// Only routes that carry it are protected.
    Required,
}

/// How a request is seen and what of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Whether requests wait for the end of their body.
    pub mode: CaptureMode,
    /// Which form of a request is sent again.
    pub form: CaptureAs,
    /// Larger bodies pass unprotected.
    pub body_bytes_max: ByteCount,
    /// A held request goes on after this long without a new body byte.
    pub hold_max: Millis,
    /// Names in lower case, never stored.
    pub drop_headers: Vec<String>,
}

/// Whether requests wait for the end of their body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// They do; everything can be stored.
    Hold,
    /// They do not; failures before the end of the body cannot be stored.
    Stream,
}

/// Which form of a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureAs {
    /// What the router made of it.
    Routed,
    /// What the sender sent.
    Arrived,
}

/// Which answers are failures to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 400 to 599.
    pub statuses: Vec<u16>,
    /// 1 to 16.
    pub grpc_statuses: Vec<u16>,
    /// Whether a request is stored that may have been processed.
    pub unknown_outcome: UnknownOutcome,
}

/// Whether a request is stored that may have been processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownOutcome {
    /// If processing it twice does no harm: PUT, DELETE, or with the sender's idempotency key.
    IfIdempotent,
    /// Yes.
    Always,
    /// No; the method and the key make no difference.
    Never,
}

/// What the sender of a stored message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 202.
    Accepted,
    /// The failure as it was, plus our headers.
    Original,
}

/// Whether messages to a destination that is down are stored without asking the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldWhileDown {
    /// No.
    Off,
    /// Yes; [`Capture::form`] is then [`CaptureAs::Arrived`].
    On,
}

/// Whether new messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Yes.
    Open,
    /// No; what is stored is still delivered.
    Closed,
}

/// How much is kept, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// 1 to 1,000,000, dead letters included.
    pub messages_max: u32,
    /// Bodies, headers and book-keeping; at least 1.
    pub bytes_max: ByteCount,
    /// Then a message is a dead letter.
    pub ttl: Millis,
    /// Whether new messages are taken.
    pub intake: Intake,
}

/// How the state of a destination is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Who says so.
    pub source: HealthSource,
    /// The cluster that is asked; active sources only.
    pub cluster: ClusterName,
    /// What is asked; contains `{cluster}` if the source is the health check filter.
    pub path: String,
    /// Between two questions.
    pub interval: Millis,
    /// 1 to 100; admin source only.
    pub healthy_percent_min: u32,
    /// Healthy this long before the first probe; may be zero.
    pub stable_for: Millis,
    /// The longest wait between two probes without an active source.
    pub probe_max: Millis,
    /// Unhealthy this long: probe anyway.
    pub suspect_after: Millis,
}

/// Who says whether a destination is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSource {
    /// An internal listener with Envoy's health check filter.
    HealthCheckFilter,
    /// `/stats` of the admin port.
    Admin,
    /// Nobody: the answers to messages have to tell.
    Passive,
}

/// How two requests are known to be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The header with the sender's key, in lower case.
    pub header: String,
    /// Whether a first attempt without a key gets one.
    pub inject: Inject,
    /// Headers, in lower case, whose values must be equal too.
    pub scope_headers: Vec<String>,
}

/// Whether a first attempt without an idempotency key gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inject {
    /// No: only redeliveries carry ours.
    Off,
    /// Yes, the id that the message will have if it is stored.
    On,
}

/// Whether messages wait for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// None does.
    None,
    /// Those with the same key do; [`Capture::form`] is then [`CaptureAs::Arrived`].
    ByKey(KeyOrder),
}

/// How messages with the same key wait for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOrder {
    /// The header with the key, in lower case.
    pub header: String,
    /// What a dead letter does to those behind it.
    pub on_dead_head: OnDeadHead,
}

/// What a dead letter does to the messages behind it in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeadHead {
    /// Nothing: the next one is sent.
    Release,
    /// They wait until it is gone.
    Block,
}

/// How messages are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redelivery {
    /// The period of all timed work; at most a second.
    pub tick: Millis,
    /// For one attempt; 1 ms to 2^31 - 1 ms, which is Envoy's limit.
    pub timeout: Millis,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// At least 1.
    pub attempts_max: u32,
    /// How many attempts run at once.
    pub window: Window,
    /// How many begin per second.
    pub rate: Rate,
    /// What 401 and 403 do to a message.
    pub on_unauthorized: OnUnauthorized,
    /// The cluster that redeliveries go to in place of their destinations.
    pub through: Option<ClusterName>,
    /// Whether messages wait for each other.
    pub order: Order,
}

/// What becomes of a message whose sender the receiver does not accept (401, 403).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnauthorized {
    /// A dead letter.
    Dead,
    /// It is held until another configuration rules.
    Park,
}

/// How many attempts begin per second, per destination and Envoy process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As many as the window allows.
    Unlimited,
    /// So many, in thousandths; never zero.
    PerSecond(Permille),
}

/// The waits between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first; at least 1 ms.
    pub initial: Millis,
    /// The longest; not below `initial`.
    pub max: Millis,
    /// From one wait to the next; at least 1.0.
    pub multiplier: Permille,
    /// The random share of a wait; at most 1.0.
    pub jitter: Permille,
}

/// How many attempts run at once, per destination and Envoy process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// When a destination comes back; at least 1.
    pub initial: u32,
    /// Not below `initial`.
    pub max: u32,
}

/// Whose `x-redeliver-*` headers are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Those of requests.
    pub senders: Trust,
    /// Those of answers.
    pub receivers: Trust,
}

/// Whether a neighbour is an Envoy with this filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Anybody may be there.
    Withheld,
    /// It is.
    Given,
}

/// What differs for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationOverride {
    /// The authority of redeliveries, a host or host:port.
    pub authority: Option<String>,
    /// What holds for it: its own keys over the shared ones.
    pub policy: Rc<Policy>,
}

/// Reads a configuration. No text at all (what Istio sends without `pluginConfig`) means all defaults.
///
/// # Errors
/// Every fault that the text has, at least one. Text that is no JSON object has that one fault, at `configuration`.
pub fn parse(text: &[u8]) -> Result<Config, Faults> {
    let object =
        object_of(text).map_err(|problem| Faults(vec![Fault { path: "configuration".to_owned(), problem }]))?;
    let mut faults = Faults::default();
    walk::check(&object, &mut faults);
    let draft = Draft::read(&Source::Shared(&object), &mut faults);
    relations::check(&draft, &mut faults);
    let destinations = overrides::read(&object, &draft, &mut faults);
    match Config::complete(draft, destinations) {
        Some(config) if faults.0.is_empty() => Ok(config),
        Some(_) | None => Err(faults),
    }
}

/// The object that the text is.
fn object_of(text: &[u8]) -> Result<Object, Problem> {
    if text.trim_ascii().is_empty() {
        return Ok(Object::new());
    }
    let text = readable(text)?;
    match Json::parse(text) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(other) => Err(other.is_not("a JSON object")),
        Err(problem) if text.trim_ascii_start().starts_with('{') => Err(problem),
        Err(_) => Err(Problem::NotJsonObjectText),
    }
}

/// The text, unless it is what Envoy makes of a `Struct`: protobuf starts with 0x0A, a line end to JSON, but it is not
/// UTF-8 or has control characters (0x12 before each value), which JSON text never has.
fn readable(bytes: &[u8]) -> Result<&str, Problem> {
    let has_control = bytes.iter().any(|byte| *byte < b' ' && !b"\t\n\r".contains(byte));
    match str::from_utf8(bytes) {
        Ok(text) if !has_control => Ok(text),
        Ok(_) | Err(_) => Err(Problem::RawProtobuf),
    }
}

impl Matching {
    /// Whether any request can be protected: custody has to be chosen by one of these four.
    #[must_use]
    pub fn protects_anything(&self) -> bool {
        !self.path_prefixes.is_empty()
            || !self.clusters.is_empty()
            || self.prefer == Prefer::Required
            || self.route_opt_in == RouteOptIn::Required
    }

    /// The conditions as a phrase.
    fn summary(&self) -> String {
        let mut phrase = self.methods.join(", ");
        if !self.path_prefixes.is_empty() {
            phrase.push_str(&format!(" with path prefix {}", self.path_prefixes.join(" or ")));
        }
        if !self.clusters.is_empty() {
            let names: Vec<&str> = self.clusters.iter().map(|name| name.0.as_str()).collect();
            phrase.push_str(&format!(" to cluster {}", names.join(" or ")));
        }
        match self.prefer {
            Prefer::Ignore => {}
            Prefer::Required => phrase.push_str(" that prefer respond-async"),
        }
        match self.route_opt_in {
            RouteOptIn::Off => {}
            RouteOptIn::Required => phrase.push_str(" on routes that opt in"),
        }
        match self.grpc {
            Grpc::Off => {}
            Grpc::Unary => phrase.push_str(", unary gRPC calls too"),
        }
        phrase
    }
}

impl Config {
    /// What holds for `cluster`.
    #[must_use]
    pub fn of(&self, cluster: &ClusterName) -> &Rc<Policy> {
        self.destinations.get(cluster).map_or(&self.shared, |found| &found.policy)
    }

    /// All policies that there are, the shared one first.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        policies(&self.shared, &self.destinations)
    }

    /// The period of the timer: the shortest that any destination asks for.
    #[must_use]
    pub fn tick(&self) -> Millis {
        self.policies().map(|policy| policy.redelivery.tick).min().unwrap_or(self.shared.redelivery.tick)
    }

    /// Whether any request can be protected.
    #[must_use]
    pub fn protects_anything(&self) -> bool {
        self.matching.protects_anything()
    }

    /// The one line for the log: what is protected and with which limits; a warning if it is nothing
    /// ([`Config::protects_anything`] tells which).
    #[must_use]
    pub fn summary(&self) -> String {
        if !self.protects_anything() {
            return "nothing is protected: choose with match.path_prefixes, match.clusters, match.prefer: required or \
                    match.route_opt_in: true"
                .to_owned();
        }
        let capture = match self.capture.mode {
            CaptureMode::Hold => "held",
            CaptureMode::Stream => "streamed",
        };
        let intake = match self.shared.store.intake {
            Intake::Open => "",
            Intake::Closed => "; intake closed: nothing new is stored",
        };
        format!(
            "protects {}; {capture} bodies up to {}; keeps up to {} messages, {}, for {}{intake}",
            self.matching.summary(),
            self.capture.body_bytes_max,
            self.shared.store.messages_max,
            self.shared.store.bytes_max,
            self.shared.store.ttl,
        )
    }
}

impl Config {
    /// All of it, or nothing if a value is missing: then it had a fault.
    fn complete(draft: Draft, destinations: Option<LiteMap<ClusterName, DestinationOverride>>) -> Option<Self> {
        let (shared, destinations) = (Rc::new(Policy::of(&draft)?), destinations?);
        let mut order_key_headers = Vec::new();
        let mut any_hold_while_down = HoldWhileDown::Off;
        for policy in policies(&shared, &destinations) {
            match &policy.redelivery.order {
                Order::ByKey(order) if !order_key_headers.contains(&order.header) => {
                    order_key_headers.push(order.header.clone());
                }
                Order::ByKey(_) | Order::None => {}
            }
            if policy.hold_while_down == HoldWhileDown::On {
                any_hold_while_down = HoldWhileDown::On;
            }
        }
        Some(Self {
            shared,
            matching: Matching {
                path_prefixes: draft.path_prefixes?,
                clusters: draft.clusters?,
                methods: draft.methods?,
                prefer: draft.prefer?,
                route_opt_in: draft.route_opt_in?,
                grpc: draft.grpc?,
            },
            capture: Capture {
                mode: draft.capture_mode?,
                form: draft.capture_form?,
                body_bytes_max: draft.body_bytes_max?,
                hold_max: draft.hold_max?,
                drop_headers: draft.drop_headers?,
            },
            reply: draft.reply?,
            idempotency: Idempotency {
                header: draft.idempotency_header?,
                inject: draft.inject?,
                scope_headers: draft.scope_headers?,
            },
            dead_letter_ttl: draft.dead_letter_ttl?,
            trust: Trusted { senders: draft.trust_senders?, receivers: draft.trust_receivers? },
            destinations,
            any_hold_while_down,
            order_key_headers,
        })
    }
}

fn policies<'a>(
    shared: &'a Policy,
    destinations: &'a LiteMap<ClusterName, DestinationOverride>,
) -> impl Iterator<Item = &'a Policy> {
    std::iter::once(shared).chain(destinations.values().map(|found| found.policy.as_ref()))
}

impl Policy {
    /// All of it, or nothing if a value is missing.
    fn of(draft: &Draft) -> Option<Self> {
        Some(Self {
            failure: Failure {
                statuses: draft.statuses.clone()?,
                grpc_statuses: draft.grpc_statuses.clone()?,
                unknown_outcome: draft.unknown_outcome?,
            },
            hold_while_down: draft.hold_while_down?,
            store: StoreLimits {
                messages_max: draft.messages_max?,
                bytes_max: draft.store_bytes_max?,
                ttl: draft.ttl?,
                intake: draft.intake?,
            },
            health: Health {
                source: draft.health_source?,
                cluster: draft.health_cluster.clone()?,
                path: draft.health_path.clone()?,
                interval: draft.interval?,
                healthy_percent_min: draft.healthy_percent_min?,
                stable_for: draft.stable_for?,
                probe_max: draft.probe_max?,
                suspect_after: draft.suspect_after?,
            },
            redelivery: Redelivery {
                tick: draft.tick?,
                timeout: draft.timeout?,
                backoff: Backoff {
                    initial: draft.backoff_initial?,
                    max: draft.backoff_max?,
                    multiplier: draft.multiplier?,
                    jitter: draft.jitter?,
                },
                attempts_max: draft.attempts_max?,
                window: Window { initial: draft.window_initial?, max: draft.window_max? },
                rate: draft.rate?,
                on_unauthorized: draft.on_unauthorized?,
                through: draft.through.clone()?,
                order: match draft.order? {
                    Ordering::None => Order::None,
                    Ordering::ByKey => Order::ByKey(KeyOrder {
                        header: draft.order_key_header.clone()?,
                        on_dead_head: draft.on_dead_head?,
                    }),
                },
            },
        })
    }
}
