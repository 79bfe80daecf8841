//! A case's set-up as a `Bootstrap` of the harness.

use redeliver_tests::bootstrap::{Module, foreign_filter_of};
use redeliver_tests::{Bootstrap, Destination, Route};
use serde_json::{Value, json};
use std::time::Duration;

use super::receivers::Receivers;
use crate::case::{self, Case, FailurePolicy, Hosts, Setup, StopIteration};

/// What an Envoy is started with, or gets pushed.
pub fn bootstrap(case: &Case, receivers: &Receivers) -> Bootstrap {
    let setup = &case.setup;
    let mut bootstrap = Bootstrap::new()
        .workers(setup.workers.get())
        .drain_time(Duration::from_secs(setup.drain_time_seconds))
        .trailers()
        .http_filter(foreign_filter_of(plugin(case), Module::Probe));
    if let Some(bytes) = setup.buffer_limit_bytes {
        bootstrap = bootstrap.buffer_limit(bytes);
    }
    for (name, cluster) in &case.clusters {
        bootstrap = bootstrap.destination(destination(name, cluster, receivers.port(name)));
    }
    case.routes.iter().fold(bootstrap, |bootstrap, route| bootstrap.route(self::route(route)))
}

fn plugin(case: &Case) -> Value {
    let Setup { failure_policy, reload_after_ms, headers_stop_iteration, vm_id, root_id, .. } = &case.setup;
    let mut plugin = json!({
        "name": "probe", "root_id": root_id,
        "vm_config": {"vm_id": vm_id, "runtime": "envoy.wasm.runtime.v8"},
    });
    if !case.script.is_null() {
        plugin["configuration"] = string(&case.configuration());
    }
    if !case.vm_script.is_null() {
        plugin["vm_config"]["configuration"] = string(&case.vm_configuration());
    }
    match failure_policy {
        FailurePolicy::Unspecified => {}
        FailurePolicy::FailClosed => plugin["failure_policy"] = json!("FAIL_CLOSED"),
        FailurePolicy::FailOpen => plugin["failure_policy"] = json!("FAIL_OPEN"),
        FailurePolicy::FailReload => plugin["failure_policy"] = json!("FAIL_RELOAD"),
    }
    if let Some(milliseconds) = reload_after_ms {
        plugin["reload_config"] = json!({"backoff": {"base_interval": seconds(u64::from(*milliseconds))}});
    }
    if *headers_stop_iteration == StopIteration::Given {
        plugin["allow_on_headers_stop_iteration"] = json!(true);
    }
    plugin
}

/// A duration as protobuf's JSON has it.
fn seconds(milliseconds: u64) -> String {
    format!("{:.3}s", Duration::from_millis(milliseconds).as_secs_f64())
}

fn string(text: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text})
}

fn destination(name: &str, cluster: &case::Cluster, port: u16) -> Destination {
    let (options, values) = if cluster.receiver.speaks_http_2() {
        ("http2_protocol_options", json!({}))
    } else {
        ("http_protocol_options", json!({"enable_trailers": true}))
    };
    let mut destination = Destination::new(name, port).with(options, values);
    if let Some(requests) = cluster.max_requests {
        destination = destination.with("circuit_breakers", json!({"thresholds": [{"max_requests": requests}]}));
    }
    match cluster.receiver.hosts() {
        Hosts::Healthy => destination,
        Hosts::Unhealthy => destination.checked(),
        Hosts::None => destination.with("load_assignment", json!({"cluster_name": name})),
    }
}

fn route(route: &case::Route) -> Route {
    let mut made = Route::new(&route.prefix, &route.cluster);
    if let Some(status) = route.direct_status {
        return Route::direct(&route.prefix, status);
    }
    if let Some(milliseconds) = route.timeout_ms {
        made = made.action("timeout", json!(seconds(milliseconds)));
    }
    if let Some((on, count)) = &route.retry {
        // Without a pause between attempts, which would only make the case longer.
        let pause = json!({"base_interval": "0.001s", "max_interval": "0.002s"});
        made = made.action("retry_policy", json!({"retry_on": on, "num_retries": count, "retry_back_off": pause}));
    }
    if let Some(prefix) = &route.rewrite_prefix {
        made = made.action("prefix_rewrite", json!(prefix));
    }
    if let Some(host) = &route.rewrite_host {
        made = made.action("host_rewrite_literal", json!(host));
    }
    match &route.metadata {
        Some(metadata) => made.field("metadata", json!({"filter_metadata": metadata})),
        None => made,
    }
}
