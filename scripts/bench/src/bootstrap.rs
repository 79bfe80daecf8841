//! The Envoys of the benchmarks, as JSON: a proxy with one candidate in front of its router, and a receiver that is
//! fast.
//!
//! ```text
//!   load ──> proxy: [candidate] router ──> receiver: direct_response
//!              └── internal listener "health" and cluster redeliver_health, if the filter is to ask for health
//! ```
//!
//! The harness of the tests has a builder too. It is not used here, because every one of its listeners writes an access
//! log, which costs each candidate the same and so would move every ratio towards 1, and because it has no receiver.
//! This one never adds what a row does not need.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

/// The cluster that everything is routed to.
pub const CLUSTER: &str = "orders";
/// What Envoy's admin port calls the receiver's own traffic.
pub const RECEIVER_STAT: &str = "http.receiver.downstream_rq_2xx";
/// The listener that requests come to.
const PROXY: &str = "proxy";
/// The file that Envoy watches for it.
const LISTENERS: &str = "listeners.json";
/// Where the receiver is asked whether it lives.
const HEALTH_PATH: &str = "/healthz";

/// What stands in front of the router.
pub enum Candidate<'a> {
    /// Nothing.
    Alone,
    /// A filter of the SDK.
    Wasm {
        /// The module.
        module: &'a Path,
        /// Its plugin configuration.
        config: Value,
    },
    /// Envoy's own buffer filter: waits for the whole body as we do, in native code.
    Buffer,
}

impl Candidate<'_> {
    fn filter(&self) -> Option<Value> {
        match self {
            Candidate::Alone => None,
            Candidate::Wasm { module, config } => Some(wasm_filter(module, config)),
            Candidate::Buffer => Some(buffer_filter()),
        }
    }
}

/// How the proxy learns whether the receiver lives.
pub enum Health<'a> {
    /// It is always taken for healthy.
    Unchecked,
    /// It is asked on a port of its own, so that checks are not counted as traffic.
    Checked {
        /// That port.
        port: u16,
        /// Where Envoy writes when it calls a host healthy or not.
        events: &'a Path,
    },
}

/// A proxy that listens on `port` and sends everything to `receiver`.
pub fn proxy(port: u16, candidate: &Candidate<'_>, receiver: u16, health: &Health<'_>) -> Value {
    let filters: Vec<Value> = candidate.filter().into_iter().collect();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": CLUSTER}}]);
    let mut listeners = vec![listener(PROXY, port, &filters, &routes)];
    let mut clusters = vec![cluster(receiver, health)];
    if let Health::Checked { .. } = health {
        listeners.push(health_listener());
        clusters.push(health_cluster());
    }
    json!({
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        }}],
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// The same proxy with its own listener in a file of `folder` that Envoy watches, so that it can be pushed again.
pub fn watched(mut document: Value, folder: &Path) -> Value {
    if let Some(listeners) = document["static_resources"]["listeners"].as_array_mut() {
        listeners.retain(|listener| listener["name"] != PROXY);
    }
    document["dynamic_resources"] = json!({"lds_config": {
        "resource_api_version": "V3", "path_config_source": {"path": folder.join(LISTENERS)},
    }});
    document
}

/// Writes that file, or another version of it: Envoy reads it when a name moves over it.
pub fn push(document: &Value, folder: &Path) -> io::Result<()> {
    let listeners = document["static_resources"]["listeners"].as_array().into_iter().flatten();
    let proxy = listeners.filter(|listener| listener["name"] == PROXY).cloned().map(|mut listener| {
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        listener
    });
    let next = folder.join("listeners.next");
    fs::write(&next, json!({"resources": proxy.collect::<Vec<_>>()}).to_string())?;
    fs::rename(next, folder.join(LISTENERS))
}

/// A receiver that answers 200 on `port`, and health checks on `health_port`: 200, or 503 after its admin port was told
/// `POST /healthcheck/fail`.
///
/// The buffer filter is there because Envoy closes a connection whose request it answers before it has read the body.
pub fn receiver(port: u16, health_port: u16) -> Value {
    let routes =
        json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}]);
    let traffic = listener("receiver", port, &[buffer_filter()], &routes);
    let checks = listener("checks", health_port, &[health_filter(HEALTH_PATH, &json!({}))], &routes);
    json!({"static_resources": {"listeners": [traffic, checks]}})
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn listener(name: &str, port: u16, filters: &[Value], routes: &Value) -> Value {
    json!({"name": name, "address": address(port), "filter_chains": [{"filters": [manager(name, filters, routes)]}]})
}

const MANAGER_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

fn manager(name: &str, filters: &[Value], routes: &Value) -> Value {
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
    }});
    let filters: Vec<&Value> = filters.iter().chain([&router]).collect();
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": MANAGER_TYPE,
        "stat_prefix": name,
        "http_filters": filters,
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
    }})
}

fn wasm_filter(module: &Path, config: &Value) -> Value {
    json!({"name": "envoy.filters.http.wasm", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": "candidate",
            "root_id": "redeliver",
            "failure_policy": "FAIL_RELOAD",
            "allow_on_headers_stop_iteration": true,
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue", "value": config.to_string(),
            },
            "vm_config": {
                "vm_id": "redeliver",
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": module}},
            },
        },
    }})
}

fn buffer_filter() -> Value {
    json!({"name": "envoy.filters.http.buffer", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
        "max_request_bytes": 1_048_576,
    }})
}

/// Answers itself at this path, by the health of these clusters and of the process.
fn health_filter(path: &str, clusters: &Value) -> Value {
    json!({"name": "health", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": path}}],
        "cluster_min_healthy_percentages": clusters,
    }})
}

fn cluster(port: u16, health: &Health<'_>) -> Value {
    let mut endpoint = json!({"address": address(port)});
    let mut checks = Vec::new();
    if let Health::Checked { port, events } = health {
        endpoint["health_check_config"] = json!({"port_value": port});
        checks.push(health_check(events));
    }
    json!({
        "name": CLUSTER, "type": "STATIC", "connect_timeout": "0.5s",
        // Without it, a cluster whose only host is unhealthy would be used all the same.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "health_checks": checks,
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    })
}

/// Every 200 ms (issue table, last row but two); one failure or success decides.
fn health_check(events: &Path) -> Value {
    json!({
        "timeout": "1s", "interval": "0.2s", "no_traffic_interval": "0.2s", "no_traffic_healthy_interval": "0.2s",
        "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": {"path": HEALTH_PATH},
        "event_logger": [{"name": "envoy.health_check.event_sink.file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
            "event_log_path": events,
        }}],
    })
}

/// Answers from Envoy's own view of the cluster, to callers inside this process only.
fn health_listener() -> Value {
    let filter = health_filter(&format!("/{CLUSTER}"), &json!({CLUSTER: {"value": 1}}));
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 404}}]);
    json!({
        "name": "health", "internal_listener": {},
        "filter_chains": [{"filters": [manager("health", &[filter], &routes)]}],
    })
}

fn health_cluster() -> Value {
    json!({
        "name": "redeliver_health", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "redeliver_health", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": "health"}}}},
        ]}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_proxy_has_its_listener_in_the_file_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("health.log");
        let document = proxy(1, &Candidate::Alone, 2, &Health::Checked { port: 3, events: &events });
        push(&document, folder.path()).unwrap();
        let watched = watched(document, folder.path());
        let file = watched["dynamic_resources"]["lds_config"]["path_config_source"]["path"].as_str().unwrap();
        let pushed: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let names = |listeners: &Value| -> Vec<String> {
            let name = |listener: &Value| listener["name"].as_str().unwrap().to_owned();
            listeners.as_array().unwrap().iter().map(name).collect()
        };
        assert_eq!(names(&pushed["resources"]), [PROXY]);
        assert_eq!(names(&watched["static_resources"]["listeners"]), ["health"]);
    }
}
