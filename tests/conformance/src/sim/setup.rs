//! A case's set-up in simvoy's terms.

use std::time::Duration;

use serde_json::Value;
use simvoy::{FailurePolicy, HeadersStop, Metadata, Module, Plugin, Process, RetryReason, Route, Settings};

use crate::arm::Problem;
use crate::case::{self, Case, Hosts, Setup, StopIteration};

/// The one seed of all runs: chance decides nothing that a case may show.
const SEED: u64 = 1;

/// A process with the case's clusters and routes, and no plugin yet.
pub fn process(probe: &Module, case: &Case) -> Result<Process, Problem> {
    let setup = &case.setup;
    let default = Settings::default();
    let settings = Settings {
        workers: setup.workers.get(),
        seed: SEED,
        buffer_limit: setup.buffer_limit_bytes.map_or(default.buffer_limit, |bytes| bytes as usize),
        drain_time: Duration::from_secs(setup.drain_time_seconds),
        ..default
    };
    let mut process = Process::new(probe, settings);
    for (name, cluster) in &case.clusters {
        process.set_cluster(name, self::cluster(cluster));
    }
    process.set_routes(case.routes.iter().map(route).collect::<Result<_, _>>()?);
    Ok(process)
}

fn cluster(cluster: &case::Cluster) -> simvoy::Cluster {
    let mut made = simvoy::Cluster::default();
    (made.hosts, made.healthy) = match cluster.receiver.hosts() {
        Hosts::Healthy => (1, 1),
        Hosts::Unhealthy => (1, 0),
        Hosts::None => (0, 0),
    };
    made.requests_max = cluster.max_requests.unwrap_or(made.requests_max);
    made
}

fn route(route: &case::Route) -> Result<Route, Problem> {
    let mut made = Route::new(&route.prefix, &route.cluster);
    made.direct_status = route.direct_status;
    if let Some(milliseconds) = route.timeout_ms {
        made.timeout = Duration::from_millis(milliseconds);
    }
    if let Some((words, count)) = &route.retry {
        made.retries = *count;
        made.retry_on = words.split(',').map(retry_reason).collect::<Result<_, _>>()?;
    }
    made.prefix_rewrite = route.rewrite_prefix.clone();
    made.host_rewrite = route.rewrite_host.clone();
    made.metadata = route.metadata.as_ref().map(namespaces).unwrap_or_default();
    Ok(made)
}

fn retry_reason(word: &str) -> Result<RetryReason, Problem> {
    RetryReason::of(word).ok_or_else(|| Problem::CannotDo(format!("retry on {word:?}")))
}

fn namespaces(metadata: &Value) -> Vec<(String, Metadata)> {
    let namespaces = metadata.as_object().into_iter().flatten();
    namespaces.map(|(namespace, fields)| (namespace.clone(), field(fields))).collect()
}

fn field(value: &Value) -> Metadata {
    match value {
        Value::Bool(value) => Metadata::Bool(*value),
        Value::Number(number) => Metadata::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => Metadata::Text(text.clone()),
        Value::Object(fields) => {
            Metadata::Fields(fields.iter().map(|(name, value)| (name.clone(), field(value))).collect())
        }
        Value::Null | Value::Array(_) => Metadata::Fields(Vec::new()),
    }
}

/// The case's plugin.
pub fn plugin(case: &Case) -> Plugin {
    let Setup { failure_policy, reload_after_ms, headers_stop_iteration, vm_id, root_id, .. } = &case.setup;
    let base = reload_after_ms.map(|milliseconds| Duration::from_millis(u64::from(milliseconds)));
    Plugin {
        name: "probe".to_owned(),
        root_id: root_id.clone(),
        vm_configuration: case.vm_configuration().into_bytes(),
        failure_policy: match failure_policy {
            case::FailurePolicy::Unspecified | case::FailurePolicy::FailClosed => FailurePolicy::Closed,
            case::FailurePolicy::FailOpen => FailurePolicy::Open,
            case::FailurePolicy::FailReload => {
                base.map_or(FailurePolicy::RELOAD, |base| FailurePolicy::Reload { base })
            }
        },
        headers_stop: match headers_stop_iteration {
            StopIteration::Given => HeadersStop::HeadersOnly,
            StopIteration::Missing => HeadersStop::Everything,
        },
        ..Plugin::new(vm_id, case.configuration())
    }
}
