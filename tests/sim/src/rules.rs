//! The configuration of a history: what the filter reads, and the same as numbers for the oracle.

use crate::keys::{KeyRules, Order};
use crate::message::{CREDENTIAL, Destination};
use crate::receiving::Receiving;
use crate::receiving::own::OWNER;
use serde_json::{Value, json};
use simvoy::{Chain, Route};
use std::time::Duration;

/// `capture.as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the router made it.
    Routed,
    /// As the sender sent it.
    Arrived,
}

/// `failure.unknown_outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownOutcome {
    /// Only if a repeat does no harm.
    IfIdempotent,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl UnknownOutcome {
    /// As a configuration says it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::IfIdempotent => "if_idempotent",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// `health.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The internal listener.
    HealthCheckFilter,
    /// The admin port.
    Admin,
    /// None.
    Passive,
}

/// `capture.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bodies wait.
    Hold,
    /// Nothing waits.
    Stream,
}

/// The authority that a rewriting route sends.
pub const REWRITTEN_HOST: &str = "inside.example";
/// What the route that changes requests adds to them.
const ROUTED_BY: (&str, &str) = ("x-routed-by", "envoy");

/// The rules of one history.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Clusters `d0`, `d1`, ...
    pub destinations: u8,
    /// `capture.as`.
    pub form: Form,
    /// `capture.mode`.
    pub mode: Mode,
    /// `capture.max_body`, in bytes.
    pub body_max: usize,
    /// Whether `capture.drop_headers` names the credential.
    pub drops_credential: bool,
    /// `failure.unknown_outcome`.
    pub unknown_outcome: UnknownOutcome,
    /// Whether the sender of a stored request gets a 202 or the failure.
    pub answers_202: bool,
    /// `hold_while_down`.
    pub holds_while_down: bool,
    /// `store.max_messages`.
    pub messages_max: u32,
    /// `store.max_bytes`.
    pub bytes_max: u64,
    /// `store.ttl`.
    pub ttl: Duration,
    /// `health.source`.
    pub source: Source,
    /// `health.stable_for`.
    pub stable_for: Duration,
    /// `health.suspect_after`.
    pub suspect_after: Duration,
    /// `redelivery.tick`.
    pub tick: Duration,
    /// `redelivery.timeout`.
    pub timeout: Duration,
    /// `redelivery.backoff.initial`.
    pub backoff_initial: Duration,
    /// `redelivery.backoff.max`.
    pub backoff_max: Duration,
    /// `redelivery.max_attempts`.
    pub attempts_max: u32,
    /// `redelivery.window`.
    pub window: (u32, u32),
    /// The first destination's route changes requests: [`Rules::rewrites_line`], [`Rules::routed_by`].
    pub rewrites: bool,
    /// Retries of the routes.
    pub retries: u32,
    /// What receivers say, and what is said of them, beyond this.
    pub receiving: Receiving,
    /// `redelivery.order` and `idempotency`.
    pub keys: KeyRules,
}

const JITTER: f64 = 0.2;
/// More than a history of chance stores at once.
const BACKLOG_MESSAGES: u32 = 500;
/// `redelivery.backoff.multiplier`: the default.
const MULTIPLIER: f64 = 2.0;
/// `capture.max_hold`.
pub const HOLD_MAX: Duration = Duration::from_secs(2);
/// `timeout` of every route.
pub const ROUTE_TIMEOUT: Duration = Duration::from_secs(5);
/// `health.interval`.
const INTERVAL: Duration = Duration::from_secs(1);
/// `health.probe_max`.
const PROBE_MAX: Duration = Duration::from_secs(5);

impl Default for Rules {
    fn default() -> Self {
        Self {
            destinations: 1,
            form: Form::Routed,
            mode: Mode::Hold,
            body_max: 8 << 10,
            drops_credential: false,
            unknown_outcome: UnknownOutcome::IfIdempotent,
            answers_202: true,
            holds_while_down: false,
            messages_max: 10_000,
            bytes_max: 64 << 20,
            ttl: Duration::from_secs(24 * 3_600),
            source: Source::HealthCheckFilter,
            stable_for: Duration::from_millis(500),
            suspect_after: Duration::from_secs(300),
            tick: Duration::from_millis(100),
            timeout: Duration::from_secs(3),
            backoff_initial: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
            attempts_max: 20,
            window: (5, 64),
            rewrites: false,
            retries: 0,
            receiving: Receiving::default(),
            keys: KeyRules::default(),
        }
        .settled()
    }
}

impl Rules {
    /// The rules of one destination.
    #[must_use]
    pub fn of(&self, destination: Destination) -> Self {
        match &self.receiving.own {
            Some(own) if destination == OWNER => own.over(self),
            Some(_) | None => self.clone(),
        }
    }

    /// What is on the listener that redeliveries to a destination go through; `None`: they go straight to it.
    #[must_use]
    pub fn through(&self, destination: Destination) -> Option<Chain> {
        self.receiving.through.filter(|through| through.leads_to(destination)).map(|through| through.chain)
    }

    /// The most messages that one destination may have in the store.
    #[must_use]
    pub fn part(&self, destination: Destination) -> u32 {
        let own = self.receiving.own.as_ref().filter(|_| destination == OWNER);
        own.map_or(self.messages_max, |own| own.messages_max)
    }

    /// The longest `redelivery.timeout` of any destination.
    #[must_use]
    pub fn timeout_longest(&self) -> Duration {
        self.of(OWNER).timeout.max(self.timeout)
    }

    /// With what follows from the rest.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.holds_while_down || self.keys.order != Order::None {
            self.form = Form::Arrived;
        }
        if self.receiving.through.is_some() {
            self.retries = 0;
        }
        self
    }

    /// Chosen by a seed: small limits are as likely as large ones, so that edges are met.
    #[must_use]
    pub fn random(random: &mut fastrand::Rng) -> Self {
        let millis = Duration::from_millis;
        let pick = |random: &mut fastrand::Rng, values: &[u64]| values[random.usize(..values.len())];
        let rules = Self {
            destinations: random.u8(1..5),
            form: if random.bool() { Form::Routed } else { Form::Arrived },
            mode: if random.u32(..12) == 0 { Mode::Stream } else { Mode::Hold },
            body_max: pick(random, &[1_000, 8_192, 40_000]) as usize,
            drops_credential: random.u32(..4) == 0,
            unknown_outcome: match random.u32(..6) {
                0 => UnknownOutcome::Always,
                1 => UnknownOutcome::Never,
                _ => UnknownOutcome::IfIdempotent,
            },
            answers_202: random.u32(..5) > 0,
            holds_while_down: random.u32(..4) == 0,
            messages_max: pick(random, &[5, 20, 10_000, 10_000, 10_000]) as u32,
            bytes_max: pick(random, &[20_000, 64 << 20, 64 << 20, 64 << 20]),
            ttl: millis(pick(random, &[20_000, 86_400_000, 86_400_000, 86_400_000])),
            source: match random.u32(..5) {
                0..2 => Source::HealthCheckFilter,
                2 => Source::Admin,
                _ => Source::Passive,
            },
            stable_for: millis(pick(random, &[0, 500, 2_000])),
            suspect_after: millis(pick(random, &[20_000, 300_000])),
            tick: millis(pick(random, &[50, 100, 100, 250])),
            timeout: millis(pick(random, &[1_000, 3_000, 6_000])),
            backoff_initial: millis(pick(random, &[200, 500, 1_000])),
            backoff_max: millis(pick(random, &[2_000, 10_000, 30_000])),
            attempts_max: pick(random, &[2, 5, 20, 20]) as u32,
            window: [(1, 1), (1, 4), (5, 64), (5, 64)][random.usize(..4)],
            rewrites: random.bool(),
            retries: pick(random, &[0, 0, 1]) as u32,
            receiving: Receiving::default(),
            keys: KeyRules::default(),
        };
        rules.settled()
    }

    /// How long a message may wait once its destination is well and nothing disturbs the process: until the last word of
    /// a silent source has aged (3 intervals), the destination is stable and probed, an attempt that hangs has run out
    /// and the message's own backoff is over. What is left is for the backlog itself.
    #[must_use]
    pub fn patience(&self) -> Duration {
        const BACKLOG: Duration = Duration::from_secs(12);
        let knows = INTERVAL * 4 + self.stable_for + PROBE_MAX;
        knows
            + self.timeout_longest() * 2
            + Self::jittered_up(self.of(OWNER).backoff_max.max(self.backoff_max))
            + self.receiving.patience(BACKLOG_MESSAGES)
            + BACKLOG
    }

    /// The shortest wait after so many failed attempts: what the multiplier has made of the initial one, less its jitter.
    #[must_use]
    pub fn backoff_min(&self, failures: usize) -> Duration {
        self.backoff_bounds(failures).0.saturating_sub(Duration::from_millis(1))
    }

    /// The shortest and the longest of those waits: jitter goes both ways, but not beyond `backoff.max`.
    #[must_use]
    pub fn backoff_bounds(&self, failures: usize) -> (Duration, Duration) {
        let grown = self.backoff_initial.as_secs_f64() * MULTIPLIER.powi(failures.saturating_sub(1) as i32);
        let span = Duration::from_secs_f64(grown.min(self.backoff_max.as_secs_f64()));
        (span.mul_f64(1.0 - JITTER), Self::jittered_up(span).min(self.backoff_max))
    }

    /// The longest that jitter makes of a wait.
    #[must_use]
    pub fn jittered_up(wait: Duration) -> Duration {
        wait.mul_f64(1.0 + JITTER)
    }

    /// The plugin configuration.
    #[must_use]
    pub fn configuration(&self) -> String {
        let mut value = self.configuration_value();
        self.receiving.configure(self, &mut value);
        self.keys.configure(&mut value);
        value.to_string()
    }

    fn configuration_value(&self) -> Value {
        let text = |span: Duration| format!("{}ms", span.as_millis());
        json!({
            "match": {"path_prefixes": ["/d"]},
            "capture": {
                "mode": match self.mode { Mode::Hold => "hold", Mode::Stream => "stream" },
                "as": match self.form { Form::Routed => "routed", Form::Arrived => "arrived" },
                "max_body": self.body_max,
                "max_hold": text(HOLD_MAX),
                "drop_headers": if self.drops_credential { vec![CREDENTIAL] } else { Vec::new() },
            },
            "failure": {"unknown_outcome": self.unknown_outcome.word()},
            "reply": if self.answers_202 { "accepted" } else { "original" },
            "hold_while_down": self.holds_while_down,
            "store": {"max_messages": self.messages_max, "max_bytes": self.bytes_max, "ttl": text(self.ttl)},
            "health": {
                "source": match self.source {
                    Source::HealthCheckFilter => "health_check_filter",
                    Source::Admin => "admin",
                    Source::Passive => "passive",
                },
                "cluster": match self.source { Source::Admin => "admin_api", _ => "redeliver_health" },
                "interval": text(INTERVAL), "stable_for": text(self.stable_for), "probe_max": text(PROBE_MAX),
                "suspect_after": text(self.suspect_after),
            },
            "redelivery": {
                "tick": text(self.tick), "timeout": text(self.timeout), "max_attempts": self.attempts_max,
                "backoff": {"initial": text(self.backoff_initial), "max": text(self.backoff_max), "jitter": JITTER},
                "window": {"initial": self.window.0, "max": self.window.1},
            },
        })
    }

    /// The routes.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        let route = |n: u8| {
            let destination = Destination(n);
            let mut route = Route::new(&format!("/d{n}/"), &destination.cluster());
            route.retries = self.retries;
            route.timeout = ROUTE_TIMEOUT;
            if self.is_rewritten(destination) {
                if self.rewrites_line() {
                    route.prefix_rewrite = Some("/inside/".to_owned());
                    route.host_rewrite = Some(REWRITTEN_HOST.to_owned());
                }
                let added = self.routed_by().into_iter();
                route.request_headers = added.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            }
            route
        };
        (0..self.destinations).map(route).collect()
    }

    /// Whether the route that changes requests rewrites path and host. It does that alone with one destination, adds a header
    /// alone with three, and does both otherwise: a form that differs in either must be told from the one that arrived.
    #[must_use]
    pub const fn rewrites_line(&self) -> bool {
        self.destinations != 3
    }

    /// The header that it adds.
    #[must_use]
    pub fn routed_by(&self) -> Option<(&'static str, &'static str)> {
        (self.destinations != 1).then_some(ROUTED_BY)
    }

    /// Whether the router changes requests to this destination.
    #[must_use]
    pub const fn is_rewritten(&self, destination: Destination) -> bool {
        self.rewrites && destination.0 == 0
    }

    /// What the rewriting route makes of a path.
    #[must_use]
    pub fn rewrite(&self, path: &str) -> String {
        path.strip_prefix("/d0/").map_or_else(|| path.to_owned(), |rest| format!("/inside/{rest}"))
    }
}
