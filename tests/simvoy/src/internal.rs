//! What Envoy itself answers: the listener of the health check filter, and the admin port.

use crate::calls::envoys_reply;
use crate::cluster::{HealthChecks, Upstream};
use crate::http::{Request, Response};
use crate::ids::ThreadId;
use crate::network::Exchange;
use crate::shared::Shared;
use std::time::Duration;

/// The answer of one of Envoy's own listeners to a call from `thread`.
pub(crate) fn answer(shared: &Shared, upstream: Upstream, thread: ThreadId, request: &Request) -> Exchange {
    let answer = |response| Exchange::Answer { after: Duration::ZERO, response };
    match upstream {
        // Not reachable from the main thread (PLATFORM 0).
        Upstream::HealthListener if thread == ThreadId::MAIN => Exchange::Refused,
        Upstream::HealthListener => answer(health_answer(shared, request.headers.text(":path").unwrap_or("/"))),
        Upstream::Admin => answer(Response::status(200).header("content-type", "text/plain").body(stats(shared))),
        Upstream::Receiver => Exchange::Silence,
    }
}

fn health_answer(shared: &Shared, path: &str) -> Response {
    // Whatever was asked for (PLATFORM 0, row "healthcheck/fail").
    match shared.clusters.health_checks {
        HealthChecks::Failed => return Response::status(503).header("x-envoy-immediate-health-check-fail", "true"),
        HealthChecks::Answered => {}
    }
    let name = percent_decode(path.trim_start_matches('/'));
    let Some(cluster) = shared.clusters.get(&name) else { return Response::status(404) };
    if cluster.healthy > 0 { Response::status(200) } else { envoys_reply(503, "", &[]) }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let code = text.get(place + 1..place + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[place], code) {
            (b'%', Some(code)) => {
                decoded.push(code);
                place += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn stats(shared: &Shared) -> String {
    let clusters = shared.clusters.iter();
    clusters
        .map(|(name, cluster)| {
            let name = name.replace(':', "_");
            format!(
                "cluster.{name}.membership_healthy: {}\ncluster.{name}.membership_total: {}\n",
                cluster.healthy, cluster.hosts
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cluster, Settings};

    #[test]
    fn the_health_listener_answers_for_each_cluster_until_health_checks_fail() {
        let mut shared = Shared::new(2, &Settings::default());
        shared.clusters.set("orders:80", Cluster::default());
        shared.clusters.set("down", Cluster { healthy: 0, ..Cluster::default() });
        let cases = [("/orders%3a80", 200, 503), ("/down", 503, 503), ("/nobody", 404, 503), ("/%", 404, 503)];
        for (path, answered, failed) in cases {
            shared.clusters.health_checks = HealthChecks::Answered;
            assert_eq!(health_answer(&shared, path).code(), answered, "{path}");
            shared.clusters.health_checks = HealthChecks::Failed;
            let answer = health_answer(&shared, path);
            assert_eq!(answer.code(), failed, "{path}");
            assert_eq!(answer.headers.text("x-envoy-immediate-health-check-fail"), Some("true"), "{path}");
        }
    }
}
