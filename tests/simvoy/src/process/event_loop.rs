//! The event loop: whose turn it is, when time moves, and what happens on the wires.
//!
//! ```text
//!   step: some thread can run? ── yes ──> one of them, by chance, to its next turn
//!                │ no
//!                v
//!         the earliest timer or the end of a stall: time moves there
//! ```
//! Time moves only when no thread can run. A thread that was given a turn in the middle of a host call waits among those
//! that can run; one that stalls waits for its time.

use super::{Process, Seat, Step};
use crate::cluster::Upstream;
use crate::http::Request;
use crate::ids::{StreamId, ThreadId};
use crate::internal;
use crate::jobs::{Arrival, Job, Timer};
use crate::network::{Exchange, Origin, Receivers, with_service_time};
use crate::shared::{Shared, ThreadLife, ThreadShared};
use crate::time::Moment;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

impl Process {
    /// One step, at most up to `limit`.
    pub fn step(&mut self, receivers: &mut dyn Receivers, limit: Moment) -> Step {
        if let Some(thread) = self.choose() {
            self.run(thread);
            return Step::Ran(thread);
        }
        let next = self.next_moment();
        if next > limit || next == Moment::NEVER {
            // Time does not go to the end of all times for a process in which nothing is left to happen.
            if limit != Moment::NEVER {
                let mut shared = self.shared.lock();
                shared.clock.now = shared.clock.now.max(limit);
            }
            return Step::Until(next);
        }
        let timer = {
            let mut shared = self.shared.lock();
            shared.clock.now = shared.clock.now.max(next);
            let is_due = shared.timers.peek().is_some_and(|timed| timed.at <= next);
            if is_due { shared.timers.pop().map(|timed| timed.timer) } else { None }
        };
        match timer {
            Some(Timer::Job(thread, job)) => self.shared.lock().post(thread, job),
            Some(Timer::Exchange { origin, attempt, cluster, request, arrival }) => {
                self.exchange(receivers, origin, attempt, &cluster, &request, arrival);
            }
            // The end of a stall.
            None => {}
        }
        Step::Moved
    }

    /// Steps until nothing happens before `limit`.
    pub fn run_until(&mut self, receivers: &mut dyn Receivers, limit: Moment) {
        while !matches!(self.step(receivers, limit), Step::Until(_)) {}
    }

    /// Runs for a while.
    pub fn run_for(&mut self, receivers: &mut dyn Receivers, span: Duration) {
        let limit = self.now() + span;
        self.run_until(receivers, limit);
    }

    /// A thread that can run, by chance.
    fn choose(&self) -> Option<ThreadId> {
        let Shared { has_aborted, clock, threads, random, .. } = &mut *self.shared.lock();
        if *has_aborted {
            return None;
        }
        let can_run = |(seat, thread): (&Option<Seat>, &ThreadShared)| {
            has_work(seat, thread) && thread.stalled_until <= clock.now
        };
        let able = (0..).map(ThreadId).zip(self.seats.iter().zip(threads.iter())).filter(|(_, both)| can_run(*both));
        let chosen = match able.clone().count() {
            0 => return None,
            1 => 0,
            several => random.usize(..several),
        };
        able.map(|(id, _)| id).nth(chosen)
    }

    fn run(&mut self, thread: ThreadId) {
        let place = thread.0 as usize;
        let mut running = match self.seats[place].take() {
            Some(Seat::Busy(running)) => running,
            Some(Seat::Idle(idle)) => match self.shared.lock().thread_mut(thread).inbox.pop_front() {
                Some(job) => Box::pin(idle.run(job)),
                None => {
                    self.seats[place] = Some(Seat::Idle(idle));
                    return;
                }
            },
            None => return,
        };
        let mut context = Context::from_waker(Waker::noop());
        self.seats[place] = Some(match running.as_mut().poll(&mut context) {
            Poll::Ready(thread) => Seat::Idle(Box::new(thread)),
            Poll::Pending => Seat::Busy(running),
        });
    }

    fn next_moment(&self) -> Moment {
        let shared = self.shared.lock();
        if shared.is_over() {
            return Moment::NEVER;
        }
        let now = shared.clock.now;
        let timer = shared.timers.peek().map_or(Moment::NEVER, |timed| timed.at);
        let seats = self.seats.iter().zip(&shared.threads);
        let stalls = seats.filter(|(seat, thread)| thread.stalled_until > now && has_work(seat, thread));
        stalls.map(|(_, thread)| thread.stalled_until).min().unwrap_or(Moment::NEVER).min(timer)
    }

    fn exchange(
        &mut self,
        receivers: &mut dyn Receivers,
        origin: Origin,
        attempt: u64,
        cluster: &str,
        request: &Request,
        arrival: Arrival,
    ) {
        let Some(thread) = self.thread_of(origin) else { return };
        let upstream = self.shared.lock().clusters.get(cluster).map(|cluster| cluster.upstream);
        let now = self.now();
        let sender = self.sender(origin);
        let exchange = match (upstream, arrival) {
            (Some(Upstream::Receiver), Arrival::Whole) => Some(receivers.exchange(cluster, sender, request, now)),
            (Some(Upstream::Receiver), Arrival::Head) => receivers.early(cluster, sender, request, now),
            (Some(Upstream::Listener(chain)), Arrival::Whole) => {
                internal::enter(&mut self.shared.lock(), chain, thread, (origin, attempt), request)
            }
            (Some(upstream), Arrival::Whole) => Some(internal::answer(&self.shared.lock(), upstream, thread, request)),
            (Some(_), Arrival::Head) => None,
            // The cluster went away while the request was on its way.
            (None, _) => Some(Exchange::CutBeforeHeaders { after: Duration::ZERO }),
        };
        if let Some(exchange) = exchange {
            self.ends(origin, attempt, exchange);
        }
    }

    pub(super) fn ends(&self, origin: Origin, attempt: u64, exchange: Exchange) {
        let Some(thread) = self.thread_of(origin) else { return };
        let Some((after, outcome)) = exchange.outcome() else { return };
        let job = match origin {
            // An answer that overtakes its request carries none (`stream::early_answer`).
            Origin::Live(stream) if !self.is_sent(stream) => Job::Upstream(stream, attempt, outcome),
            Origin::Live(stream) => Job::Upstream(stream, attempt, with_service_time(outcome, after)),
            Origin::Dispatch(vm, token) => Job::Called(vm, token, with_service_time(outcome, after)),
            // Whose wire it is, is a stream or a call.
            Origin::Through(..) => return,
        };
        self.shared.lock().later(after, Timer::Job(thread, job));
    }

    /// Who sends a request, as a receiver is told: of a stream on an internal listener, the call behind it.
    fn sender(&self, origin: Origin) -> Origin {
        let Origin::Live(stream) = origin else { return origin };
        let caller = self.shared.lock().streams.get(&stream).and_then(|stream| stream.caller);
        match caller.map(|caller| caller.origin) {
            Some(Origin::Dispatch(vm, token)) => Origin::Through(stream, vm, token),
            Some(Origin::Live(_) | Origin::Through(..)) | None => origin,
        }
    }

    fn is_sent(&self, stream: StreamId) -> bool {
        self.shared.lock().streams.get(&stream).is_some_and(|stream| stream.request_complete)
    }

    fn thread_of(&self, origin: Origin) -> Option<ThreadId> {
        let shared = self.shared.lock();
        match origin {
            Origin::Live(stream) | Origin::Through(stream, ..) => {
                shared.streams.get(&stream).map(|stream| stream.thread)
            }
            // A call that was cancelled before it went out never goes out (`grpc::cancelled`).
            Origin::Dispatch(vm, token) => shared.vm(vm).filter(|vm| vm.has_call(token)).map(|vm| vm.thread),
        }
    }
}

fn has_work(seat: &Option<Seat>, thread: &ThreadShared) -> bool {
    matches!(seat, Some(Seat::Busy(_))) || (thread.life == ThreadLife::Runs && !thread.inbox.is_empty())
}
