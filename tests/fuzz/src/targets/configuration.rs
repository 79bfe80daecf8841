//! The configuration parser: any bytes become a configuration that obeys its own bounds, or faults that can be read.
//!
//! Input: the text of a configuration.

use redeliver_core::config::{
    Capture, CaptureAs, CaptureMode, Config, Faults, Health, HealthSource, HoldWhileDown, Intake, OnUnauthorized,
    Order, Policy, Prefer, Rate, Redelivery, Reply, RouteOptIn, UnknownOutcome, parse,
};
use redeliver_core::units::{Millis, Permille};
use serde_json::{Value, json};

pub(super) fn target(bytes: &[u8]) {
    match parse(bytes) {
        Ok(config) => {
            assert!(bytes.trim_ascii().is_empty() || is_json_object(bytes), "accepted, and no JSON object");
            check_bounds(&config);
            check_relations(&config);
            for policy in config.policies() {
                check_policy_bounds(policy);
                check_policy_relations(policy, &config.capture);
            }
            assert!(is_one_line(&config.summary()), "{}", config.summary());
            assert_eq!(parse(written(&config).to_string().as_bytes()), Ok(config), "written and read");
        }
        Err(faults) => check_faults(&faults, bytes.len()),
    }
}

fn is_json_object(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|value| value.is_object())
}

fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Each fault has a place and one line that a log can take; there are no more of them than the text has places for.
fn check_faults(faults: &Faults, text_bytes: usize) {
    const RULES_BETWEEN_KEYS: usize = 8;
    const LINE_BYTES_MAX: usize = 4_096;
    assert!(!faults.0.is_empty(), "refused without a fault");
    assert!(faults.0.len() <= text_bytes + RULES_BETWEEN_KEYS, "{} faults", faults.0.len());
    for fault in &faults.0 {
        let line = fault.to_string();
        assert!(!fault.path.is_empty() && line.len() > fault.path.len() + 2, "{line:?}");
        assert!(is_one_line(&line), "{line:?}");
        assert!(line.len() <= LINE_BYTES_MAX, "{} bytes: {line:?}", line.len());
    }
}

/// The bounds that the types of `config/mod.rs` promise.
fn check_bounds(config: &Config) {
    assert!(config.matching.methods.iter().all(|method| method != "CONNECT" && !method.is_empty()), "{config:?}");
    assert!(
        !config.matching.methods.is_empty() && config.matching.path_prefixes.iter().all(|path| path.starts_with('/'))
    );
    assert!(config.capture.drop_headers.iter().all(|name| *name == name.to_ascii_lowercase()), "{config:?}");
}

/// The same for what can differ from destination to destination.
fn check_policy_bounds(policy: &Policy) {
    let (failure, store, redelivery) = (&policy.failure, &policy.store, &policy.redelivery);
    assert!(failure.statuses.iter().all(|status| (400..=599).contains(status)), "{failure:?}");
    assert!(failure.grpc_statuses.iter().all(|status| (1..=16).contains(status)), "{failure:?}");
    assert!((1..=1_000_000).contains(&store.messages_max) && store.bytes_max.0 >= 1, "{store:?}");
    assert!((1..=100).contains(&policy.health.healthy_percent_min), "{policy:?}");
    assert!((Millis(1)..=Millis(1_000)).contains(&redelivery.tick), "{redelivery:?}");
    assert!((Millis(1)..=Millis(i32::MAX as u64)).contains(&redelivery.timeout), "{redelivery:?}");
    assert!(redelivery.backoff.multiplier >= Permille(1_000) && redelivery.backoff.jitter <= Permille(1_000));
    assert!(redelivery.attempts_max >= 1 && redelivery.window.initial >= 1, "{redelivery:?}");
    assert!(redelivery.rate != Rate::PerSecond(Permille(0)), "{redelivery:?}");
}

/// The rules between keys.
fn check_relations(config: &Config) {
    let needed = ["host", config.idempotency.header.as_str()];
    assert!(!config.capture.drop_headers.iter().any(|name| needed.contains(&name.as_str())), "{config:?}");
}

fn check_policy_relations(policy: &Policy, capture: &Capture) {
    let (redelivery, health) = (&policy.redelivery, &policy.health);
    assert!(redelivery.backoff.initial <= redelivery.backoff.max, "{redelivery:?}");
    assert!(redelivery.window.initial <= redelivery.window.max, "{redelivery:?}");
    assert!(policy.hold_while_down == HoldWhileDown::Off || capture.form == CaptureAs::Arrived, "{policy:?}");
    assert!(redelivery.order == Order::None || capture.form == CaptureAs::Arrived, "{policy:?}");
    assert!(health.source != HealthSource::HealthCheckFilter || health.path.contains("{cluster}"), "{health:?}");
}

/// The configuration as an operator would write it, every key that can be set.
fn written(config: &Config) -> Value {
    let (matching, capture) = (&config.matching, &config.capture);
    let clusters: Vec<&str> = matching.clusters.iter().map(|name| name.0.as_str()).collect();
    let mut value = written_policy(&config.shared);
    value["match"] = json!({
        "path_prefixes": matching.path_prefixes,
        "clusters": clusters,
        "methods": matching.methods,
        "prefer": match matching.prefer { Prefer::Ignore => "ignore", Prefer::Required => "required" },
        "route_opt_in": matching.route_opt_in == RouteOptIn::Required,
    });
    value["capture"] = json!({
        "mode": match capture.mode { CaptureMode::Hold => "hold", CaptureMode::Stream => "stream" },
        "as": match capture.form { CaptureAs::Routed => "routed", CaptureAs::Arrived => "arrived" },
        "max_body": capture.body_bytes_max.to_string(),
        "max_hold": capture.hold_max.to_string(),
        "drop_headers": capture.drop_headers,
    });
    value["reply"] = json!(match config.reply {
        Reply::Accepted => "accepted",
        Reply::Original => "original",
    });
    value["dead_letter"] = json!({"ttl": config.dead_letter_ttl.to_string()});
    value["destinations"] = written_destinations(config);
    value
}

fn written_policy(policy: &Policy) -> Value {
    let (failure, store) = (&policy.failure, &policy.store);
    json!({
        "failure": {
            "statuses": failure.statuses,
            "grpc_statuses": failure.grpc_statuses,
            "unknown_outcome": match failure.unknown_outcome {
                UnknownOutcome::IfIdempotent => "if_idempotent",
                UnknownOutcome::Always => "always",
                UnknownOutcome::Never => "never",
            },
        },
        "hold_while_down": policy.hold_while_down == HoldWhileDown::On,
        "store": {
            "max_messages": store.messages_max,
            "max_bytes": store.bytes_max.0,
            "ttl": store.ttl.to_string(),
            "accept": store.intake == Intake::Open,
        },
        "health": written_health(&policy.health),
        "redelivery": written_redelivery(&policy.redelivery),
    })
}

fn written_health(health: &Health) -> Value {
    json!({
        "source": match health.source {
            HealthSource::HealthCheckFilter => "health_check_filter",
            HealthSource::Admin => "admin",
            HealthSource::Passive => "passive",
        },
        "cluster": health.cluster.0,
        "path": health.path,
        "interval": health.interval.to_string(),
        "min_healthy_percent": health.healthy_percent_min,
        "stable_for": health.stable_for.to_string(),
        "probe_max": health.probe_max.to_string(),
        "suspect_after": health.suspect_after.to_string(),
    })
}

fn written_redelivery(redelivery: &Redelivery) -> Value {
    let decimal = |number: Permille| serde_json::from_str::<Value>(&number.to_string()).unwrap_or_default();
    let rate = match redelivery.rate {
        Rate::Unlimited => Permille(0),
        Rate::PerSecond(rate) => rate,
    };
    json!({
        "tick": redelivery.tick.to_string(),
        "timeout": redelivery.timeout.to_string(),
        "backoff": {
            "initial": redelivery.backoff.initial.to_string(),
            "max": redelivery.backoff.max.to_string(),
            "multiplier": decimal(redelivery.backoff.multiplier),
            "jitter": decimal(redelivery.backoff.jitter),
        },
        "max_attempts": redelivery.attempts_max,
        "window": {"initial": redelivery.window.initial, "max": redelivery.window.max},
        "rate": decimal(rate),
        "on_unauthorized": match redelivery.on_unauthorized {
            OnUnauthorized::Dead => "dead",
            OnUnauthorized::Park => "park",
        },
    })
}

fn written_destinations(config: &Config) -> Value {
    let entries = config.destinations.iter().map(|(name, given)| {
        let mut keys = written_policy(&given.policy);
        if let Some(host) = &given.authority {
            keys["authority"] = json!(host);
        }
        (name.0.clone(), keys)
    });
    Value::Object(entries.collect())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    /// Far above what any of them takes in proportion to its length, far below what a square of it would take.
    const TIME_MAX: Duration = Duration::from_secs(10);
    const LENGTH: usize = 50_000;

    fn repeated(front: &str, part: impl Fn(usize) -> String, back: &str) -> String {
        let mut text = front.to_owned();
        for nth in 0.. {
            if text.len() >= LENGTH {
                break;
            }
            text.push_str(&part(nth));
        }
        text + back
    }

    #[test]
    fn no_text_takes_more_time_than_its_length_allows() {
        let texts = [
            ("nested lists", repeated("{\"match\":", |_| "[".to_owned(), "}")),
            ("nested objects", repeated("", |_| "{\"match\":".to_owned(), "}")),
            ("one key again and again", repeated("{", |_| "\"reply\":\"accepted\",".to_owned(), "\"reply\":0}")),
            ("unknown keys", repeated("{", |nth| format!("\"replay{nth}\":1,"), "\"reply\":\"accepted\"}")),
            (
                "near misses",
                repeated("{\"redelivery\":{", |nth| format!("\"tic{}\":1,", nth % 10), "\"tick\":\"1s\"}}"),
            ),
            ("a long key", repeated("{\"", |_| "a".to_owned(), "\":1}")),
            ("a long number", repeated("{\"store\":{\"max_messages\":", |_| "9".to_owned(), "}}")),
            ("a long fraction", repeated("{\"store\":{\"max_messages\":0.", |_| "0".to_owned(), "1e400}}")),
            ("a long duration", repeated("{\"store\":{\"ttl\":\"", |_| "9".to_owned(), "h\"}}")),
            ("many parts", repeated("{\"store\":{\"ttl\":\"", |_| "0h".to_owned(), "\"}}")),
            ("a long list", repeated("{\"match\":{\"methods\":[", |_| "\"x\",".to_owned(), "\"y\"]}}")),
            ("destinations", repeated("{\"destinations\":{", |nth| format!("\"c{nth}\":{{}},"), "\"c\":{}}}")),
            ("one destination", repeated("{\"destinations\":{", |_| "\"c\":{},".to_owned(), "\"c\":{}}}")),
            ("escapes", repeated("{\"", |_| "\\u0000".to_owned(), "\":1}")),
        ];
        for (story, text) in texts {
            let started = Instant::now();
            super::target(text.as_bytes());
            let took = started.elapsed();
            assert!(took < TIME_MAX, "{story}: {} bytes took {took:?}", text.len());
        }
    }
}
