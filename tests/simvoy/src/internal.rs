//! What Envoy itself answers: the listener of the health check filter, and the admin port. And the way into a listener with
//! everybody's routes, whose answer is whatever the stream there ends with.

use crate::calls::envoys_reply;
use crate::cluster::{Chain, HealthChecks, Upstream};
use crate::connection;
use crate::happening::Happening;
use crate::http::{Request, Response};
use crate::ids::ThreadId;
use crate::jobs::{Job, Timer};
use crate::network::{Exchange, Failure, Origin, Outcome, with_service_time};
use crate::shared::Shared;
use crate::stream::{Caller, End, Piece, Stream};
use std::time::Duration;

/// The answer of one of Envoy's own listeners to a call from `thread`.
pub(crate) fn answer(shared: &Shared, upstream: Upstream, thread: ThreadId, request: &Request) -> Exchange {
    let answer = |response| Exchange::Answer { after: Duration::ZERO, response };
    match upstream {
        // Not reachable from the main thread (PLATFORM 0).
        Upstream::HealthListener if thread == ThreadId::MAIN => Exchange::Refused,
        Upstream::HealthListener => answer(health_answer(shared, request.headers.text(":path").unwrap_or("/"))),
        Upstream::Admin => answer(Response::status(200).header("content-type", "text/plain").body(stats(shared))),
        Upstream::Receiver | Upstream::Listener(_) => Exchange::Silence,
    }
}

/// A request enters an internal listener on its own thread; `Some`: it does not get there. The connection is one of HTTP/1
/// like any other (ActiveInternalListener; the main thread has no manager of internal listeners).
pub(crate) fn enter(
    shared: &mut Shared,
    chain: Chain,
    thread: ThreadId,
    (origin, attempt): (Origin, u64),
    request: &Request,
) -> Option<Exchange> {
    if thread == ThreadId::MAIN {
        return Some(Exchange::Refused);
    }
    let generation = match chain {
        Chain::Router => None,
        Chain::Plugin => shared.plugin_of(thread),
    };
    let plugin = generation.and_then(|generation| shared.plugins.get(&generation).cloned());
    let is_whole = request.body.is_empty() && request.trailers.0.is_empty();
    let head = connection::enter(request.headers.clone(), &mut shared.random);
    let stream = shared.next_stream();
    let mut opened = Stream::new(thread, plugin, head, if is_whole { End::Last } else { End::More });
    opened.caller = Some(Caller { origin, attempt, since: shared.clock.now });
    shared.streams.insert(stream, opened);
    shared.inner.insert((origin, attempt), stream);
    shared.post(thread, Job::Open(stream, generation));
    let has_trailers = !request.trailers.0.is_empty();
    if !request.body.is_empty() {
        let end = if has_trailers { End::More } else { End::Last };
        shared.post(thread, Job::Piece(stream, Piece::Data(request.body.clone(), end)));
    }
    if has_trailers {
        shared.post(thread, Job::Piece(stream, Piece::Trailers(request.trailers.clone())));
    }
    None
}

impl Shared {
    /// A stream on an internal listener has ended: with its answer, or with a connection that is closed.
    pub(crate) fn answer_caller(&mut self, caller: Caller, ended: Stream, happening: Happening) {
        // Nobody waits if the caller has hung up.
        let Some(_) = self.inner.remove(&(caller.origin, caller.attempt)) else { return };
        let outcome = if let Happening::Answered { response, .. } = happening {
            Outcome::Answer(response)
        } else if ended.response_headers_continued {
            Outcome::Broken(ended.response)
        } else {
            Outcome::Failed(Failure::Cut)
        };
        let outcome = with_service_time(outcome, self.clock.now - caller.since);
        let job = match caller.origin {
            Origin::Live(stream) => Job::Upstream(stream, caller.attempt, outcome),
            Origin::Dispatch(vm, token) | Origin::Through(_, vm, token) => Job::Called(vm, token, outcome),
        };
        self.later(Duration::ZERO, Timer::Job(ended.thread, job));
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
