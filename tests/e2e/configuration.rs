//! Configurations that are refused (CONTRACT, section 3): every fault is named, and a running Envoy keeps the old one.

use redeliver_tests::bootstrap::Wrapping;
use redeliver_tests::envoy::Push;
use redeliver_tests::{Bootstrap, Envoy, Filter, Receiver, Request};
use serde_json::{Value, json};

/// A faulty configuration and the paths that the log must name.
type Fault = (Value, &'static [&'static str]);

fn faults() -> Vec<Fault> {
    vec![
        (json!({"mach": {}}), &["mach:"]),
        (json!({"capture": {"max_bdy": "1KiB"}}), &["capture.max_bdy:"]),
        (json!({"match": {"methods": "POST"}}), &["match.methods:"]),
        (json!({"match": {"path_prefixes": ["/a", 1]}}), &["match.path_prefixes[1]:"]),
        (json!({"match": {"prefer": "sometimes"}}), &["match.prefer:"]),
        (json!({"match": {"route_opt_in": "yes"}}), &["match.route_opt_in:"]),
        (json!({"capture": {"mode": "keep"}}), &["capture.mode:"]),
        (json!({"capture": {"as": "both"}}), &["capture.as:"]),
        (json!({"redelivery": {"order": "by_key"}}), &["redelivery.order:"]),
        (json!({"idempotency": {"header": "connection"}}), &["idempotency.header:"]),
        (json!({"capture": {"max_body": "12 apples"}}), &["capture.max_body:"]),
        (json!({"capture": {"max_hold": "soon"}}), &["capture.max_hold:"]),
        (json!({"capture": {"max_hold": 2}}), &["capture.max_hold:"]),
        (json!({"failure": {"statuses": ["503"]}}), &["failure.statuses[0]:"]),
        (json!({"failure": {"statuses": [99999]}}), &["failure.statuses[0]:"]),
        (json!({"failure": {"unknown_outcome": "perhaps"}}), &["failure.unknown_outcome:"]),
        (json!({"reply": "maybe"}), &["reply:"]),
        (json!({"hold_while_down": true}), &["hold_while_down:"]),
        (json!({"store": {"max_messages": -1}}), &["store.max_messages:"]),
        (json!({"store": {"max_bytes": "64Mib"}}), &["store.max_bytes:"]),
        (json!({"store": {"ttl": "tomorrow"}}), &["store.ttl:"]),
        (json!({"store": {"accept": "true"}}), &["store.accept:"]),
        (json!({"health": {"source": "guess"}}), &["health.source:"]),
        (json!({"health": {"min_healthy_percent": 101}}), &["health.min_healthy_percent:"]),
        (json!({"health": {"interval": "0s"}}), &["health.interval:"]),
        (json!({"redelivery": {"tick": "0ms"}}), &["redelivery.tick:"]),
        (json!({"redelivery": {"timeout": "0s"}}), &["redelivery.timeout:"]),
        (json!({"redelivery": {"max_attempts": 0}}), &["redelivery.max_attempts:"]),
        (json!({"redelivery": {"backoff": {"initial": "1s", "max": "0s"}}}), &["redelivery.backoff.max:"]),
        (json!({"redelivery": {"backoff": {"multiplier": 0.5}}}), &["redelivery.backoff.multiplier:"]),
        (json!({"redelivery": {"backoff": {"jitter": 2}}}), &["redelivery.backoff.jitter:"]),
        (json!({"redelivery": {"window": {"initial": 0}}}), &["redelivery.window.initial:"]),
        (json!({"redelivery": {"window": {"initial": 9, "max": 8}}}), &["redelivery.window."]),
        (json!({"redelivery": {"rate": -1}}), &["redelivery.rate:"]),
        (json!({"redelivery": {"on_unauthorized": "pray"}}), &["redelivery.on_unauthorized:"]),
        (json!({"dead_letter": {"ttl": "0s"}}), &["dead_letter.ttl:"]),
        (
            json!({"destinations": {"orders": {
                "hold_while_down": true,
                "failure": {"statuses": [200]},
                "store": {"ttl": "tomorrow"},
                "health": {"source": "guess"},
                "redelivery": {"backoff": {"max": "0s"}},
            }}}),
            &[
                "destinations.orders.hold_while_down:",
                "destinations.orders.failure.statuses[0]:",
                "destinations.orders.store.ttl:",
                "destinations.orders.health.source:",
                "destinations.orders.redelivery.backoff.max:",
            ],
        ),
        (json!({"match": {"grpc": "streaming"}}), &["match.grpc:"]),
        (json!({"redelivery": {"through": 5}}), &["redelivery.through:"]),
        (json!({"idempotency": {"inject": "yes"}}), &["idempotency.inject:"]),
        (
            json!({"destinations": {"orders": {"redelivery": {"order": "by_key"}}}}),
            &["destinations.orders.redelivery.order: by_key needs capture.as: arrived"],
        ),
        (json!({"trust": {"from_senders": "yes"}}), &["trust.from_senders:"]),
        (json!({"trust": {"from_receivers": 1}}), &["trust.from_receivers:"]),
        (json!({"destinations": {"orders": {"authority": 5}}}), &["destinations.orders.authority:"]),
        (json!({"destinations": {"orders": {"autority": "a"}}}), &["destinations.orders.autority:"]),
        (
            json!({
                "mach": 1,
                "capture": {"max_body": true},
                "redelivery": {"backoff": {"initial": "2s", "max": "1s"}, "window": {"max": "many"}},
                "health": {"source": "stars"},
            }),
            &["mach:", "capture.max_body:", "redelivery.backoff.max:", "redelivery.window.max:", "health.source:"],
        ),
    ]
}

/// Keys whose areas later builds bring.
fn not_in_this_build() -> Vec<Fault> {
    vec![
        (json!({"operator": {"path_prefix": "/_redeliver", "token_sha256": "0".repeat(64)}}), &["operator"]),
        (json!({"receipts": true}), &["receipts:"]),
        (
            json!({
                "capture": {"drop_headers": []},
                "durable": {"etcd": {"cluster": "etcd", "prefix": "/r/", "timeout": "2s"}},
            }),
            &["durable"],
        ),
        (json!({"metrics": {"labels": "envoy"}}), &["metrics"]),
    ]
}

/// A base that protects, so that the filter's being there can be seen; `patch` on top.
fn base(patch: Value) -> Filter {
    Filter::new(json!({"match": {"path_prefixes": ["/kept"]}})).patched(patch)
}

/// Pushes one faulty filter to a running Envoy: it is refused, the log names what it must, the old one still works.
async fn refused(envoy: &Envoy, port: u16, filter: Filter, names: &[&str]) {
    let before = envoy.log().len();
    assert_eq!(envoy.push(&Bootstrap::orders(port, filter)).await, Push::Rejected, "taken, though faulty: {names:?}");
    let log = envoy.log().split_off(before);
    let ours: Vec<_> = log.lines().filter(|line| line.contains("][wasm]")).collect();
    for name in names {
        assert!(ours.iter().any(|line| line.contains(name)), "{name:?} is not named in {ours:#?}");
    }
}

#[tokio::test]
async fn a_faulty_push_is_refused_with_every_fault_named_and_the_old_one_stays() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), base(json!({}))).start().await;
    for (patch, names) in faults() {
        refused(&envoy, orders.port(), base(patch), names).await;
    }
    envoy.send(&Request::post("/kept")).await.stored_id();
    assert_eq!(envoy.send(&Request::post("/else")).await.status, 503);
}

#[tokio::test]
async fn a_key_of_an_area_that_is_not_built_is_refused_as_such() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), base(json!({}))).start().await;
    for (patch, names) in not_in_this_build() {
        let names: Vec<&str> = names.iter().copied().chain(["not in this build"]).collect();
        refused(&envoy, orders.port(), base(patch), &names).await;
    }
    envoy.send(&Request::post("/kept")).await.stored_id();
}

#[tokio::test]
async fn a_struct_instead_of_a_string_value_is_refused_with_the_cure() {
    let orders = Receiver::absent().await;
    let envoy = Bootstrap::orders(orders.port(), base(json!({}))).start().await;
    refused(&envoy, orders.port(), base(json!({})).wrapped(Wrapping::Struct), &["use StringValue"]).await;
    for text in ["match: {}", "{", "[]", "{} {}", "nonsense"] {
        refused(&envoy, orders.port(), Filter::text(text), &["configuration"]).await;
    }
    envoy.send(&Request::post("/kept")).await.stored_id();
}

#[tokio::test]
async fn an_envoy_with_a_faulty_configuration_does_not_start() {
    let orders = Receiver::absent().await;
    let filter = base(json!({"redelivery": {"backoff": {"initial": "1s", "max": "0s"}}, "rely": 1}));
    let Err(ending) = Bootstrap::orders(orders.port(), filter).static_listeners().try_start().await else {
        panic!("Envoy started with a faulty configuration");
    };
    assert!(ending.code.is_some_and(|code| code != 0), "{ending:?}");
    assert!(ending.log.contains("redelivery.backoff.max:") && ending.log.contains("rely:"), "{}", ending.log);
}

#[tokio::test]
async fn an_empty_configuration_is_valid_and_protects_nothing() {
    let orders = Receiver::absent().await;
    for text in ["", "{}", " \n {} "] {
        let envoy = Bootstrap::orders(orders.port(), Filter::text(text)).start().await;
        let answer = envoy.send(&Request::post("/a")).await;
        assert_eq!((answer.status, answer.header("x-redeliver-status")), (503, None), "{text:?}");
    }
}
