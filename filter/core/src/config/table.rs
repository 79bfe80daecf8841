//! The table of keys: path, default, area, bounds and meaning of every key, in the order of the reference. It is the
//! only place of each of these: the parser, the defaults and the reference (docs/configuration.md) are made from it.
//!
//! Never compares two keys ([`super::relations`]), and knows no JSON but the defaults. A row whose name starts with `_`
//! has no value that anything reads: its area is not built, or it is a group that [`super::overrides`] reads key by key.

use super::fault::Faults;
use super::tree::{Json, Object};
use super::values::{
    Authorities, Choice, Decimal, Duration, KeyByKey, Later, List, One, PerSecond, Reads, Size, Switch, Unread,
    WhenEmpty, Whole, cluster_name, cluster_name_if_any, failure_status, grpc_failure_status, header_name, health_path,
    method, path_prefix, sent_header_name,
};
use super::{CaptureAs, CaptureMode, Grpc, HealthSource, HoldWhileDown, Inject, Intake, OnDeadHead, OnUnauthorized};
use super::{Prefer, Rate, Reply, RouteOptIn, Trust, UnknownOutcome, walk};
use crate::units::{ByteCount, ClusterName, Millis, Permille};
use litemap::LiteMap;

/// Who delivers a key. Keys of other areas than [`Area::Filter`] are known, and refused as not built; a key of theirs that
/// is built has moved to [`Area::Filter`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Area {
    Filter,
    Operations,
    Durable,
}

/// What `redelivery.order` says by itself; with its header it becomes [`super::Order`].
#[derive(Clone, Copy)]
pub(super) enum Ordering {
    None,
    ByKey,
}

/// One key for the reference.
pub(super) struct Row {
    pub path: &'static str,
    pub default: &'static str,
    pub area: Area,
    /// What belongs there, with its bounds.
    pub form: String,
    /// What it does, in lines.
    pub doc: &'static [&'static str],
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $path:literal, $default:literal, $area:ident, $reader:expr;)+) => {
        /// Every key with its area.
        pub(super) const KEYS: &[(&str, Area)] = &[$(($path, Area::$area)),+];

        /// The path of each key, for faults between keys.
        #[allow(non_upper_case_globals, dead_code, reason = "one for each row, named as the row")]
        pub(super) mod path {
            $(pub(in super::super) const $name: &str = $path;)+
        }

        /// What was read: a value where the key was right or absent, nothing where it had a fault.
        pub(super) struct Draft {
            $($(#[doc = $doc])+ pub $name: Option<$kind>,)+
        }

        impl Draft {
            /// Reads every key from `source`.
            pub(super) fn read(source: &Source<'_>, faults: &mut Faults) -> Self {
                Self { $($name: read_key(
                    &Key { path: $path, default: $default, area: Area::$area },
                    &$reader,
                    source,
                    |draft| &draft.$name,
                    faults,
                ),)+ }
            }
        }

        /// The whole table, for the reference.
        pub(super) fn rows() -> Vec<Row> {
            vec![$(Row {
                path: $path, default: $default, area: Area::$area, form: $reader.form(), doc: &[$($doc),+],
            }),+]
        }
    };
}

/// Where the values come from.
pub(super) enum Source<'a> {
    /// The object, and the default of every key that it does not give.
    Shared(&'a Object),
    /// The keys of one cluster, and the shared value of every key that it does not give.
    OneCluster(&'a Overlay<'a>),
}

/// The keys of one cluster.
pub(super) struct Overlay<'a> {
    pub keys: &'a Object,
    /// Their path, for faults: `destinations.orders`.
    pub place: &'a str,
    /// The keys and groups that may be given there.
    pub groups: &'a [&'static str],
    pub shared: &'a Draft,
}

/// What of a row decides where its value comes from.
struct Key {
    path: &'static str,
    default: &'static str,
    area: Area,
}

/// One instance for each kind of value and not one for each key: inlined, the table is 80 KB of Wasm.
#[inline(never)]
fn read_key<R: Reads>(
    key: &Key,
    reader: &R,
    source: &Source<'_>,
    shared: fn(&Draft) -> &Option<R::Value>,
    faults: &mut Faults,
) -> Option<R::Value>
where
    R::Value: Clone,
{
    let built = |object| match key.area {
        Area::Filter => walk::find(object, key.path),
        Area::Operations | Area::Durable => None, // refused by `walk::check` where it is given
    };
    match source {
        Source::Shared(object) => match built(object) {
            Some(json) => reader.read(key.path, json, faults),
            None => reader.read(key.path, &faults.keep(key.path, Json::parse(key.default))?, faults),
        },
        Source::OneCluster(overlay) => {
            let is_own = overlay.groups.iter().any(|group| walk::is_in(key.path, group));
            match if is_own { built(overlay.keys) } else { None } {
                Some(json) => reader.read(&format!("{}.{}", overlay.place, key.path), json, faults),
                // Of the rest, what the rules between keys need: a copy of all would be one of every name of a cluster.
                None if is_own || key.path == path::capture_form => shared(overlay.shared).clone(),
                None => None,
            }
        }
    }
}

// --- bounds that are not plain common sense -------------------------------------------------------------------------

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// Nothing waits for no time at all: the host's own grain is a millisecond.
const INSTANT: Millis = Millis(1);
/// Above this, Envoy refuses a dispatch (BadArgument); 0 would mean "no timeout" to it.
const DISPATCH_TIMEOUT_MAX: Millis = Millis(2_147_483_647);
/// The tick is also the watchdog of held requests, which are released within a second when bodies do not come.
const TICK_MAX: Millis = Millis(SECOND);
/// A VM has 1 GiB, and a body is in it more than once while it is captured and stored: 64 MiB leaves room for a few.
const BODY_BYTES_MAX: ByteCount = ByteCount(64 << 20);
/// The largest store whose cost was measured: a million messages take 229 to 312 MB of the host besides their bytes.
const MESSAGES_MAX: u32 = 1_000_000;
/// Shared data has no limit of its own and ends in the kernel's hands; beyond 64 GiB a unit was mistyped.
const STORE_BYTES_MAX: ByteCount = ByteCount(64 << 30);
/// What one cluster admits at once by default (its circuit breaker), live requests included.
const WINDOW_MAX: u32 = 1_024;
/// A bare dispatch loop of one VM does 12,000 a second (measured); beyond a million a unit was mistyped.
const RATE_MAX: Permille = Permille(1_000_000_000);
/// What a slot's head can count. At the default backoff so many attempts take seven months.
const ATTEMPTS_MAX: u32 = 65_535;
/// Ten questions a second for each destination are more than any health check behind them answers anew.
const INTERVAL_MIN: Millis = Millis(10);

const fn span(least: Millis, most: u64) -> Duration {
    Duration { least, most: Millis(most) }
}

const TRUE_OR_FALSE: Later = Later("`false`, `true`");

keys! {
    /// Only requests whose path starts with one of these; none given: any path.
    /// Nothing is protected unless at least one of `path_prefixes`, `clusters`, `prefer: required` and
    /// `route_opt_in: true` is chosen. All conditions given must hold.
    path_prefixes: Vec<String> = "match.path_prefixes", "[]", Filter,
        List { item: path_prefix, form: "path prefixes that start with `/`", empty: WhenEmpty::Allowed };
    /// Only requests that go to one of these clusters; none given: any cluster.
    clusters: Vec<ClusterName> = "match.clusters", "[]", Filter,
        List { item: cluster_name, form: "cluster names", empty: WhenEmpty::Allowed };
    /// Only requests with one of these methods. `CONNECT` is refused: a tunnel cannot be stored.
    methods: Vec<String> = "match.methods", r#"["POST", "PUT", "PATCH", "DELETE"]"#, Filter,
        List { item: method, form: "methods in upper case, at least one", empty: WhenEmpty::Refused("method") };
    /// `required`: only requests that say `Prefer: respond-async` (RFC 7240).
    prefer: Prefer = "match.prefer", r#""ignore""#, Filter,
        Choice(&[("ignore", Prefer::Ignore), ("required", Prefer::Required)]);
    /// `true`: only routes whose metadata says `filter_metadata.redeliver.enabled: true`. Metadata `enabled: false`
    /// always excludes a route that otherwise matches.
    route_opt_in: RouteOptIn = "match.route_opt_in", "false", Filter,
        Switch { off: RouteOptIn::Off, on: RouteOptIn::Required };
    /// `unary`: protect `application/grpc` requests too, if they are one message; calls that stream pass unprotected. The
    /// sender of a stored call gets its original `grpc-status`.
    grpc: Grpc = "match.grpc", r#""off""#, Filter, Choice(&[("off", Grpc::Off), ("unary", Grpc::Unary)]);

    /// `hold`: the request waits for the end of its body, so everything can be stored. `stream`: nothing waits, and
    /// only requests without a body and failures after the end of the body can be stored.
    capture_mode: CaptureMode = "capture.mode", r#""hold""#, Filter,
        Choice(&[("hold", CaptureMode::Hold), ("stream", CaptureMode::Stream)]);
    /// `routed`: store what the router made of the request (rewritten path, host, headers). `arrived`: store what the
    /// sender sent; right when routes rewrite nothing, and needed by `hold_while_down` and `redelivery.order: by_key`.
    capture_form: CaptureAs = "capture.as", r#""routed""#, Filter,
        Choice(&[("routed", CaptureAs::Routed), ("arrived", CaptureAs::Arrived)]);
    /// Larger requests pass through unprotected. Must stay below the listener's `per_connection_buffer_limit_bytes`.
    body_bytes_max: ByteCount = "capture.max_body", r#""256KiB""#, Filter,
        Size { least: ByteCount(1), most: BODY_BYTES_MAX };
    /// A held request without a new body byte for this long goes on, unprotected.
    hold_max: Millis = "capture.max_hold", r#""2s""#, Filter, span(INSTANT, HOUR);
    /// Headers that are never stored and never redelivered, such as `authorization`.
    drop_headers: Vec<String> = "capture.drop_headers", "[]", Filter,
        List { item: header_name, form: "header names", empty: WhenEmpty::Allowed };

    /// The receiver's own answers that mean "not now".
    statuses: Vec<u16> = "failure.statuses", "[503]", Filter,
        List { item: failure_status, form: "HTTP statuses, 400 to 599", empty: WhenEmpty::Allowed };
    /// The same for gRPC.
    grpc_statuses: Vec<u16> = "failure.grpc_statuses", "[14]", Filter,
        List { item: grpc_failure_status, form: "gRPC statuses, 1 to 16", empty: WhenEmpty::Allowed };
    /// Whether a request that may have been processed (timeout, reset) is stored. `if_idempotent`: PUT, DELETE, or
    /// with an idempotency key of the sender.
    unknown_outcome: UnknownOutcome = "failure.unknown_outcome", r#""if_idempotent""#, Filter,
        Choice(&[
            ("if_idempotent", UnknownOutcome::IfIdempotent),
            ("always", UnknownOutcome::Always),
            ("never", UnknownOutcome::Never),
        ]);

    /// What the sender of a stored request gets: `accepted`: 202. `original`: the failure, plus our headers.
    reply: Reply = "reply", r#""accepted""#, Filter,
        Choice(&[("accepted", Reply::Accepted), ("original", Reply::Original)]);
    /// `true`: while a destination is down, store at once without asking the router; such a message is always answered
    /// 202. Needs `capture.as: arrived`. Not for gRPC calls: only the router can say how they fail.
    hold_while_down: HoldWhileDown = "hold_while_down", "false", Filter,
        Switch { off: HoldWhileDown::Off, on: HoldWhileDown::On };

    /// How many messages are kept, dead letters included; exact over all workers.
    messages_max: u32 = "store.max_messages", "10000", Filter, Whole { least: 1, most: MESSAGES_MAX };
    /// Bodies, headers and book-keeping together.
    store_bytes_max: ByteCount = "store.max_bytes", r#""64MiB""#, Filter,
        Size { least: ByteCount(1), most: STORE_BYTES_MAX };
    /// After this a message becomes a dead letter, reason `expired`.
    ttl: Millis = "store.ttl", r#""24h""#, Filter, span(INSTANT, YEAR);
    /// `false`: take nothing new, go on delivering.
    intake: Intake = "store.accept", "true", Filter, Switch { off: Intake::Closed, on: Intake::Open };

    /// Who says that a destination is up. `health_check_filter`: an internal listener with Envoy's health check filter.
    /// `admin`: `/stats` of the admin port. `passive`: the answers themselves.
    health_source: HealthSource = "health.source", r#""passive""#, Filter,
        Choice(&[
            ("health_check_filter", HealthSource::HealthCheckFilter),
            ("admin", HealthSource::Admin),
            ("passive", HealthSource::Passive),
        ]);
    /// The cluster to ask; both active sources.
    health_cluster: ClusterName = "health.cluster", r#""redeliver_health""#, Filter,
        One { item: cluster_name, form: "cluster name" };
    /// The path to ask for, with `{cluster}` in the place of the percent-encoded name; `health_check_filter` only.
    health_path: String = "health.path", r#""/{cluster}""#, Filter,
        One { item: health_path, form: "path that starts with `/`" };
    /// How often an active source is asked.
    interval: Millis = "health.interval", r#""1s""#, Filter, span(INTERVAL_MIN, HOUR);
    /// How much of a cluster makes it healthy; `admin` only.
    healthy_percent_min: u32 = "health.min_healthy_percent", "1", Filter, Whole { least: 1, most: 100 };
    /// Healthy this long before the first probe.
    stable_for: Millis = "health.stable_for", r#""2s""#, Filter, span(Millis::ZERO, DAY);
    /// The longest wait between two probes; `passive` only.
    probe_max: Millis = "health.probe_max", r#""10s""#, Filter, span(INSTANT, DAY);
    /// Unhealthy this long by an active source: probe once anyway, and so on.
    suspect_after: Millis = "health.suspect_after", r#""5m""#, Filter, span(INSTANT, YEAR);

    /// How often due messages, leases and held requests are looked at.
    tick: Millis = "redelivery.tick", r#""100ms""#, Filter, Duration { least: INSTANT, most: TICK_MAX };
    /// How long one attempt may take.
    timeout: Millis = "redelivery.timeout", r#""15s""#, Filter,
        Duration { least: INSTANT, most: DISPATCH_TIMEOUT_MAX };
    /// The wait after the first failed attempt.
    backoff_initial: Millis = "redelivery.backoff.initial", r#""1s""#, Filter, span(INSTANT, DAY);
    /// The longest wait; not below `initial`.
    backoff_max: Millis = "redelivery.backoff.max", r#""5m""#, Filter, span(Millis::ZERO, 7 * DAY);
    /// Each wait is this many times the one before.
    multiplier: Permille = "redelivery.backoff.multiplier", "2.0", Filter,
        Decimal { least: Permille(1_000), most: Permille(100_000) };
    /// The share of a wait that is random.
    jitter: Permille = "redelivery.backoff.jitter", "0.2", Filter,
        Decimal { least: Permille(0), most: Permille(1_000) };
    /// Genuine failures before a message becomes a dead letter; a destination that is down costs none.
    attempts_max: u32 = "redelivery.max_attempts", "20", Filter, Whole { least: 1, most: ATTEMPTS_MAX };
    /// Concurrent redeliveries per destination in the whole Envoy process, all workers together, when a destination
    /// comes back; grows and shrinks with results.
    window_initial: u32 = "redelivery.window.initial", "5", Filter, Whole { least: 1, most: WINDOW_MAX };
    /// The most of them; not below `initial`.
    window_max: u32 = "redelivery.window.max", "64", Filter, Whole { least: 1, most: WINDOW_MAX };
    /// Redeliveries that begin per second and destination, probes included; 0: no limit. At most one
    /// and what two ticks bring begin at once.
    rate: Rate = "redelivery.rate", "0", Filter, PerSecond { most: RATE_MAX };
    /// A cluster to send redeliveries through instead of the destination itself, such as an internal listener with the
    /// same routes; carries the arrived request. State, window and health stay those of the destination.
    through: Option<ClusterName> = "redelivery.through", r#""""#, Filter,
        One { item: cluster_name_if_any, form: "cluster name" };
    /// What 401 and 403 on redelivery do to a message. `park`: it is held, without attempts and without growing old, and is
    /// counted in `queued`, until the configuration is pushed anew with another text; then it is tried again at once.
    on_unauthorized: OnUnauthorized = "redelivery.on_unauthorized", r#""dead""#, Filter,
        Choice(&[("dead", OnUnauthorized::Dead), ("park", OnUnauthorized::Park)]);
    /// `by_key`: messages with the same key and destination are delivered one after the other, in the order in which they
    /// were accepted, and a new request whose key has stored messages is stored behind them. Needs `capture.as: arrived`.
    order: Ordering = "redelivery.order", r#""none""#, Filter,
        Choice(&[("none", Ordering::None), ("by_key", Ordering::ByKey)]);
    /// The header with that key. Requests without it are not ordered.
    order_key_header: String = "redelivery.order_key_header", r#""x-ordering-key""#, Filter,
        One { item: header_name, form: "header name" };
    /// What a dead letter does to its key: `release`: the next message is sent. `block`: all others wait until the dead
    /// letter is gone.
    on_dead_head: OnDeadHead = "redelivery.on_dead_head", r#""release""#, Filter,
        Choice(&[("release", OnDeadHead::Release), ("block", OnDeadHead::Block)]);

    /// The header with the sender's idempotency key. A redelivery carries the sender's key, or the message's id.
    idempotency_header: String = "idempotency.header", r#""idempotency-key""#, Filter,
        One { item: sent_header_name, form: "name of a header that is sent again" };
    /// `true`: add the header to the first attempt too, when the sender sent none; wanted with
    /// `failure.unknown_outcome: always`.
    inject: Inject = "idempotency.inject", "false", Filter, Switch { off: Inject::Off, on: Inject::On };
    /// Headers whose values must also be equal for two keys to be the same: senders that differ in one of them never get
    /// at each other's messages.
    scope_headers: Vec<String> = "idempotency.scope_headers", r#"["authorization"]"#, Filter,
        List { item: header_name, form: "header names", empty: WhenEmpty::Allowed };

    /// A dead letter is removed and counted after this.
    dead_letter_ttl: Millis = "dead_letter.ttl", r#""168h""#, Filter, span(INSTANT, YEAR);

    /// Where the operator API is; without `operator` there is none.
    _operator_prefix: Unread = "operator.path_prefix", "null", Operations, Later("path prefix, such as `/_redeliver`");
    /// The SHA-256 of the operators' token.
    _operator_token: Unread = "operator.token_sha256", "null", Operations, Later("64 hex digits");
    /// Whether senders can ask what became of a message; only together with `operator`.
    _receipts: Unread = "receipts", "true", Operations, TRUE_OR_FALSE;
    /// `true`: every sender is an Envoy with this filter, or speaks through one. `x-redeliver-*` of the hop before are
    /// kept, its id included, and hops are counted on; what was stored three times is not stored again (`unstorable`).
    trust_senders: Trust = "trust.from_senders", "false", Filter, Switch { off: Trust::Withheld, on: Trust::Given };
    /// `true`: every receiver is one. `x-redeliver-*` of the hop after are kept; what it says it has stored is handed on
    /// as it says, and is not stored here too.
    trust_receivers: Trust = "trust.from_receivers", "false", Filter, Switch { off: Trust::Withheld, on: Trust::Given };
    /// The etcd to commit to before the 202; without `durable` messages are in memory only.
    _etcd_cluster: Unread = "durable.etcd.cluster", "null", Durable, Later("cluster name, such as `etcd`");
    /// The start of our keys there.
    _etcd_prefix: Unread = "durable.etcd.prefix", "null", Durable, Later("key prefix, such as `/redeliver/`");
    /// How long etcd may take.
    _etcd_timeout: Unread = "durable.etcd.timeout", "null", Durable, Later("duration, such as `2s`");
    /// How the destination is put into names of stats.
    _labels: Unread = "metrics.labels", r#""none""#, Operations, Later("`none`, `envoy`, `istio`");

    /// The authority that redeliveries to this cluster carry; routes with `auto_host_rewrite` need it.
    authorities: LiteMap<ClusterName, Option<String>> = "destinations.<cluster>.authority", "null", Filter,
        Authorities;
    /// Any key of `failure`, for this cluster.
    _destination_failure: Unread = "destinations.<cluster>.failure", "null", Filter, KeyByKey("object");
    /// `hold_while_down`, for this cluster.
    _destination_hold: Unread = "destinations.<cluster>.hold_while_down", "null", Filter,
        KeyByKey("`false`, `true`");
    /// Any key of `store`, for this cluster. `max_messages` and `max_bytes` are then what its messages may take of the whole
    /// store; the shared ones still hold for all destinations together.
    _destination_store: Unread = "destinations.<cluster>.store", "null", Filter, KeyByKey("object");
    /// Any key of `health`, for this cluster.
    _destination_health: Unread = "destinations.<cluster>.health", "null", Filter, KeyByKey("object");
    /// Any key of `redelivery`, for this cluster. There is one timer: it runs at the shortest `tick` that is given.
    _destination_redelivery: Unread = "destinations.<cluster>.redelivery", "null", Filter, KeyByKey("object");
}
