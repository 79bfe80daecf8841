//! The router: route, rewrite, host, attempt, answer, retry.

use super::Thread;
use crate::calls::{OVERFLOW, envoys_overflow, envoys_reply};
use crate::cluster::Admission;
use crate::http::{Headers, Request, Response};
use crate::ids::StreamId;
use crate::jobs::{Arrival, Job, Timer};
use crate::network::{EXPECTED_TIMEOUT, Failure, Origin, Outcome, Tries, VIA_UPSTREAM, flag};
use crate::route::Route;
use crate::stream::{End, Outgoing, Part, Stream};
use crate::time::Moment;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

impl Thread {
    /// The headers have reached the router: it chooses, rewrites, and looks for a host at once (PLATFORM 0, row "With no
    /// healthy host the router rewrites").
    pub(super) async fn router_headers(&mut self, stream: StreamId, end: End) {
        if self.stream(stream, Stream::is_over) != Some(false) {
            return;
        }
        let route = self.rewrite(stream);
        let Some(route) = route else {
            self.change(stream, |stream| stream.info.flags |= flag::NO_ROUTE);
            self.local_reply(stream, envoys_reply(404, "", &[]), "route_not_found".to_owned()).await;
            return;
        };
        if let Some(status) = route.direct_status {
            self.local_reply(stream, envoys_reply(status, "", &[]), "direct_response".to_owned()).await;
            return;
        }
        let admission = self.shared.lock().clusters.admit(&route.cluster, self.id);
        if admission != Admission::Unknown {
            self.change(stream, |stream| stream.info.attempts = 1);
        }
        self.change(stream, |stream| stream.info.has_host = has_host(admission));
        match admission {
            Admission::Out => self.go_out(stream, &route, end),
            Admission::Unknown => {
                self.change(stream, |stream| stream.info.flags |= flag::NO_CLUSTER);
                self.local_reply(stream, envoys_reply(503, "", &[]), "cluster_not_found".to_owned()).await;
            }
            Admission::NoHealthyHost => self.no_host(stream).await,
            Admission::Overflow => self.overflow(stream).await,
            Admission::OverflowLater => self.overflow_later(stream, &route),
        }
    }

    async fn no_host(&mut self, stream: StreamId) {
        self.change(stream, |stream| stream.info.flags |= flag::NO_HEALTHY_HOST);
        let reply = envoys_reply(503, "no healthy upstream", &[]);
        self.local_reply(stream, reply, "no_healthy_upstream".to_owned()).await;
    }

    async fn overflow(&mut self, stream: StreamId) {
        self.change(stream, |stream| stream.info.flags |= flag::OVERFLOW);
        self.local_reply(stream, envoys_overflow(), OVERFLOW.to_owned()).await;
    }

    /// The new connection is there after the pieces that have already come.
    fn overflow_later(&self, stream: StreamId, route: &Route) {
        self.change(stream, |stream| {
            stream.outgoing = Some(Outgoing {
                cluster: route.cluster.clone(),
                attempt: 1,
                is_out: true,
                is_refused: true,
                ..Outgoing::default()
            });
        });
        let mut shared = self.shared.lock();
        shared.clusters.take(&route.cluster);
        let outcome = Outcome::Replied { reply: envoys_overflow(), details: OVERFLOW, flags: flag::OVERFLOW };
        shared.later(Duration::ZERO, Timer::Job(self.id, Job::Upstream(stream, 1, outcome)));
    }

    /// Chooses the route anew, since the filter may have changed what it hangs on, and makes the outgoing headers.
    fn rewrite(&self, stream: StreamId) -> Option<Arc<Route>> {
        let mut shared = self.shared.lock();
        shared.choose_route(stream);
        let found = shared.streams.get_mut(&stream)?;
        let route = found.info.route.clone()?;
        if !route.timeout.is_zero() {
            found.request.add(EXPECTED_TIMEOUT, route.timeout.as_millis().to_string());
        }
        route.rewrite(&mut found.request);
        Some(route)
    }

    fn go_out(&self, stream: StreamId, route: &Route, end: End) {
        self.change(stream, |stream| {
            stream.outgoing =
                Some(Outgoing { cluster: route.cluster.clone(), attempt: 1, is_out: true, ..Outgoing::default() });
        });
        match end {
            End::Last => self.send_whole(stream),
            End::More => self.send_attempt(stream, Arrival::Head),
        }
    }

    /// A piece of the body has reached the router.
    pub(super) async fn router_data(&mut self, stream: StreamId, bytes: Vec<u8>, end: End) {
        let is_out = self.change(stream, |stream| match &mut stream.outgoing {
            Some(outgoing) if outgoing.is_out => {
                outgoing.body.extend_from_slice(&bytes);
                true
            }
            Some(_) | None => false,
        });
        if is_out == Some(true) && end == End::Last {
            self.send_whole(stream);
        }
    }

    pub(super) async fn router_trailers(&mut self, stream: StreamId) {
        self.send_whole(stream);
    }

    /// The whole request is there, for the first time: from now on the route's time counts (Filter::onRequestComplete;
    /// `failure::timeout_over_all_attempts`).
    fn send_whole(&self, stream: StreamId) {
        let now = self.shared.lock().clock.now;
        let timeout = self.change(stream, |stream| {
            let outgoing = stream.outgoing.as_mut().filter(|outgoing| outgoing.is_out && !outgoing.is_refused)?;
            outgoing.whole_at = Some(now);
            stream.info.route.as_ref().map(|route| route.timeout)
        });
        self.send_attempt(stream, Arrival::Whole);
        if let Some(timeout) = timeout.flatten().filter(|timeout| !timeout.is_zero()) {
            self.shared.lock().later(timeout, Timer::Job(self.id, Job::RouteTimeout(stream)));
        }
    }

    /// The attempt that is out has its request, or its head.
    fn send_attempt(&self, stream: StreamId, arrival: Arrival) {
        let mut shared = self.shared.lock();
        let Some(found) = shared.streams.get(&stream) else { return };
        let Some(outgoing) = found.outgoing.as_ref().filter(|outgoing| outgoing.is_out && !outgoing.is_refused) else {
            return;
        };
        let (attempt, cluster) = (outgoing.attempt, outgoing.cluster.clone());
        let request = Request {
            headers: found.request.clone(),
            body: outgoing.body.clone(),
            trailers: found.request_trailers.clone().unwrap_or_default(),
        };
        let origin = Origin::Live(stream);
        shared.later(Duration::ZERO, Timer::Exchange { origin, attempt, cluster, request: Box::new(request), arrival });
    }

    /// Whichever attempt is out has had its time.
    pub(super) async fn route_timeout(&mut self, stream: StreamId) {
        let out = self.stream(stream, |stream| {
            stream.outgoing.as_ref().filter(|outgoing| outgoing.is_out).map(|outgoing| outgoing.attempt)
        });
        if let Some(attempt) = out.flatten() {
            self.upstream(stream, attempt, Outcome::Failed(Failure::Timeout)).await;
        }
    }

    /// How an attempt ended.
    pub(super) async fn upstream(&mut self, stream: StreamId, attempt: u64, outcome: Outcome) {
        let cluster = self.change(stream, |stream| match &mut stream.outgoing {
            Some(outgoing) if outgoing.is_out && outgoing.attempt == attempt => {
                outgoing.is_out = false;
                Some(outgoing.cluster.clone())
            }
            // Too late: another attempt is out, or the stream has its answer.
            Some(_) | None => None,
        });
        let Some(cluster) = cluster.flatten() else { return };
        {
            let mut shared = self.shared.lock();
            shared.clusters.back(&cluster);
            shared.hang_up(Origin::Live(stream), attempt);
            if matches!(outcome, Outcome::Answer(_)) {
                shared.clusters.idles(&cluster, self.id);
            }
        }
        match self.retry_state(stream, attempt, &outcome) {
            Retry::Again => return self.retry(stream, &cluster, attempt).await,
            Retry::LimitReached => {
                self.change(stream, |stream| stream.info.flags |= flag::RETRY_LIMIT_EXCEEDED);
            }
            Retry::No => {}
        }
        match outcome {
            Outcome::Answer(response) => self.answered(stream, response, Ends::Well).await,
            Outcome::Broken(response) => self.answered(stream, response, Ends::Broken).await,
            Outcome::Failed(failure) => self.failed(stream, failure, attempt).await,
            Outcome::Replied { reply, details, flags } => {
                self.change(stream, |stream| stream.info.flags |= flags);
                self.local_reply(stream, reply, details.to_owned()).await;
            }
        }
    }

    fn retry_state(&self, stream: StreamId, attempt: u64, outcome: &Outcome) -> Retry {
        let route = self.stream(stream, |stream| stream.info.route.clone()).flatten();
        match route {
            Some(route) if !is_retriable(&route, outcome) => Retry::No,
            Some(route) if attempt <= u64::from(route.retries) => Retry::Again,
            Some(route) if route.retries > 0 => Retry::LimitReached,
            Some(_) | None => Retry::No,
        }
    }

    async fn retry(&mut self, stream: StreamId, cluster: &str, attempt: u64) {
        let admission = self.shared.lock().clusters.admit(cluster, self.id);
        self.change(stream, |stream| {
            stream.info.attempts = attempt + 1;
            stream.info.has_host |= has_host(admission);
        });
        match admission {
            Admission::Out => {
                let now = self.shared.lock().clock.now;
                self.change(stream, |stream| {
                    if let Some(outgoing) = &mut stream.outgoing {
                        (outgoing.attempt, outgoing.is_out, outgoing.is_refused) = (attempt + 1, true, false);
                    }
                    tell_time_left(stream, now);
                });
                self.send_attempt(stream, Arrival::Whole);
            }
            Admission::NoHealthyHost | Admission::Unknown => self.no_host(stream).await,
            Admission::Overflow | Admission::OverflowLater => self.overflow(stream).await,
        }
    }

    async fn failed(&mut self, stream: StreamId, failure: Failure, attempt: u64) {
        let tries = if attempt > 1 { Tries::Several } else { Tries::One };
        self.change(stream, |stream| stream.info.flags |= failure.flags());
        let reply = envoys_reply(failure.status(), &failure.text(tries), &[]);
        self.local_reply(stream, reply, failure.details()).await;
    }

    async fn answered(&mut self, stream: StreamId, mut response: Response, ends: Ends) {
        let parts = parts(std::mem::take(&mut response.body), &response.trailers, ends);
        self.change(stream, |stream| {
            stream.info.details = Some(VIA_UPSTREAM.to_owned());
            stream.info.code = Some(response.code());
            stream.response = response;
        });
        self.encode(stream, parts).await;
    }
}

/// Whether an attempt chose a host (`failure::the_host`).
const fn has_host(admission: Admission) -> bool {
    match admission {
        Admission::Out | Admission::Overflow | Admission::OverflowLater => true,
        Admission::NoHealthyHost | Admission::Unknown => false,
    }
}

/// How an answer that has begun ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Well,
    /// In the middle of its body.
    Broken,
}

/// A response in the pieces in which an HTTP/1 codec gives it: what has come, and its end
/// (`stream::sized_body`, `stream::trailers`, `failure::broken_off`).
fn parts(body: Vec<u8>, trailers: &Headers, ends: Ends) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    let has_body = !body.is_empty();
    if has_body {
        parts.push_back(Part::Data(body, End::More));
    }
    match ends {
        Ends::Broken => parts.push_back(Part::Cut),
        Ends::Well if !trailers.0.is_empty() => parts.push_back(Part::Trailers),
        Ends::Well if has_body => parts.push_back(Part::Data(Vec::new(), End::Last)),
        Ends::Well => {}
    }
    parts
}

/// Whether an attempt is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    Again,
    /// It would be, had it not been as often as the route allows.
    LimitReached,
    No,
}

fn is_retriable(route: &Route, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answer(response) => route.retry_on.iter().any(|reason| reason.is_answer(response.code())),
        Outcome::Failed(failure) => route.retry_on.iter().any(|reason| reason.is_failure(*failure)),
        Outcome::Broken(_) | Outcome::Replied { .. } => false,
    }
}

/// A later attempt has less time, and is told so (FilterUtility::setTimeoutHeaders; `failure::timeout_over_all_attempts`).
fn tell_time_left(stream: &mut Stream, now: Moment) {
    let timeout = stream.info.route.as_ref().map_or(Duration::ZERO, |route| route.timeout);
    let whole_at = stream.outgoing.as_ref().and_then(|outgoing| outgoing.whole_at);
    if let (Some(whole_at), false) = (whole_at, timeout.is_zero()) {
        let left = timeout.saturating_sub(now - whole_at);
        stream.request.set(EXPECTED_TIMEOUT, left.as_millis().to_string());
    }
}
