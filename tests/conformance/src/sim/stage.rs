//! The steps of a case on a simulated process.
//!
//! A step is over when what it waits for is there, looked for after each of the process's own steps. Nothing is waited
//! for longer than `WAIT_MAX` of virtual time; time never moves unless nothing else can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redeliver_probe::trace::Line;
use simvoy::{End, Generation, Happening, Headers, Module, Process, StreamId, ThreadId};

use super::setup::{plugin, process};
use super::town::Town;
use super::wire;
use crate::arm::Problem;
use crate::case::{Case, Ends};
use crate::observation::{Host, Observation, Outcome, Thread, Traced, no_callback_runs, streams_are_gone};
use crate::step::{Framing, Push, Request, SendUntil, Step, Verdict, Wanted};

/// Longer than the longest timeout that a case waits out: Envoy's 15 s.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two tries of `send_until`.
const TRY_EVERY: Duration = Duration::from_millis(10);

struct Stage {
    /// As it is now: a push changes it.
    case: Case,
    process: Process,
    town: Town,
    /// The listener that takes connections.
    listener: Option<Generation>,
    /// Listeners that were replaced and may still be there.
    replaced: BTreeSet<Generation>,
    /// Requests begun: each has the next worker.
    begun: u32,
    /// Opened requests that are not answered yet.
    open: BTreeMap<String, StreamId>,
    trace: Vec<Traced>,
    happenings: Vec<Happening>,
    answers: Vec<(String, Outcome)>,
    host: Host,
}

/// Runs a case.
pub fn run(probe: &Module, case: &Case) -> Result<Observation, Problem> {
    let mut stage = Stage {
        case: case.clone(),
        process: process(probe, case)?,
        town: Town::new(case),
        listener: None,
        replaced: BTreeSet::new(),
        begun: 0,
        open: BTreeMap::new(),
        trace: Vec::new(),
        happenings: Vec::new(),
        answers: Vec::new(),
        host: Host::Runs,
    };
    stage.load(Verdict::Taken)?;
    for step in &case.steps {
        stage.step(step)?;
        stage.settle();
    }
    stage.end()
}

impl Stage {
    fn step(&mut self, step: &Step) -> Result<(), Problem> {
        match step {
            Step::Send(request) => self.send(request)?,
            Step::SendUntil(SendUntil { status, request }) => self.send_until(*status, request)?,
            Step::Open(request) => {
                let stream = self.begin(request, Sent::Head);
                self.open.insert(request.called().to_owned(), stream);
                self.answers.push((request.called().to_owned(), Outcome::Unread));
            }
            Step::More(piece) => {
                let stream = self.opened(&piece.of)?;
                self.process.send_body(stream, piece.bytes.0.clone(), End::More);
            }
            Step::End(end) => {
                let stream = self.opened(&end.of)?;
                if end.trailers.is_empty() {
                    self.process.send_body(stream, Vec::new(), End::Last);
                } else {
                    let pairs = end.trailers.iter().map(|(name, value)| (name.clone(), value.0.clone()));
                    self.process.send_trailers(stream, Headers(pairs.collect()));
                }
            }
            Step::Answer(name) => {
                let stream = self.taken(name)?;
                let outcome = self.outcome(name, stream)?;
                self.note(name, outcome);
            }
            Step::HangUp(name) => {
                let stream = self.taken(name)?;
                self.process.disconnect(stream);
            }
            Step::Trace(wanted) => self.traced(wanted)?,
            Step::Received(count) => {
                let until = format!("{} requests at {}", count.count, count.cluster);
                self.until(&until, |stage| stage.town.count(&count.cluster) >= count.count)?;
            }
            Step::Receiver(change) => self.town.behave(&change.cluster, &change.does)?,
            Step::Release(cluster) => {
                if let Some((origin, exchange)) = self.town.release(cluster)? {
                    self.process.answer(origin, exchange);
                }
            }
            Step::Push(push) => self.push(push)?,
            Step::OldConfigurationIsGone => self.old_one_is_gone()?,
            Step::RemoveListener => {
                self.process.push(None);
                self.replaced.extend(self.listener.take());
                self.old_one_is_gone()?;
            }
            Step::AddListener => self.load(Verdict::Taken)?,
            Step::Terminate => {
                self.process.terminate();
                // Beyond every timeout: what came in that time would be a process that has not ended.
                self.process.run_for(&mut self.town, WAIT_MAX);
                self.look();
                self.host = Host::Ended;
            }
        }
        Ok(())
    }

    fn send(&mut self, request: &Request) -> Result<(), Problem> {
        let stream = self.begin(request, Sent::Whole);
        let outcome = self.outcome(request.called(), stream)?;
        self.answers.push((request.called().to_owned(), outcome));
        Ok(())
    }

    fn send_until(&mut self, status: u16, request: &Request) -> Result<(), Problem> {
        let limit = self.process.now() + WAIT_MAX;
        loop {
            self.send(request)?;
            if matches!(self.answers.last(), Some((_, outcome)) if outcome.has_status(status)) {
                return Ok(());
            }
            if self.process.now() > limit {
                return Err(self.never_came(&format!("an answer {status}")));
            }
            self.answers.pop();
            self.process.run_for(&mut self.town, TRY_EVERY);
        }
    }

    /// A request begins, on a connection of its own.
    fn begin(&mut self, request: &Request, sent: Sent) -> StreamId {
        let worker = ThreadId(1 + self.begun % self.case.setup.workers.get());
        self.begun += 1;
        let body = request.body.as_ref().map(|body| body.0.clone()).unwrap_or_default();
        let is_bodiless = request.framing == Framing::Sized && body.is_empty();
        let end = if is_bodiless { End::Last } else { End::More };
        let stream = self.process.open(worker, self.listener, head(request), end);
        if end == End::More && sent == Sent::Whole {
            if !body.is_empty() {
                self.process.send_body(stream, body, End::More);
            }
            self.process.send_body(stream, Vec::new(), End::Last);
        }
        stream
    }

    /// An answer that does not come is no outcome: a case that means it opens the request and hangs up.
    fn outcome(&mut self, name: &str, stream: StreamId) -> Result<Outcome, Problem> {
        self.until(&format!("the answer to {name}"), |stage| stage.ended(stream).is_some() || stage.has_aborted())?;
        Ok(self.ended(stream).unwrap_or(Outcome::Closed))
    }

    fn ended(&self, wanted: StreamId) -> Option<Outcome> {
        self.happenings.iter().find_map(|happening| match happening {
            Happening::Answered { stream, response } if *stream == wanted => {
                Some(Outcome::Answered(wire::answer(response)))
            }
            Happening::Reset { stream } if *stream == wanted => Some(Outcome::Closed),
            Happening::Answered { .. }
            | Happening::Reset { .. }
            | Happening::Called { .. }
            | Happening::Told { .. }
            | Happening::Heard { .. }
            | Happening::Trapped { .. }
            | Happening::NotMade { .. }
            | Happening::Started { .. }
            | Happening::Configured { .. }
            | Happening::Taken(_)
            | Happening::Refused(_)
            | Happening::Gone { .. }
            | Happening::DataGone(_)
            | Happening::Aborted(_) => None,
        })
    }

    fn opened(&self, name: &str) -> Result<StreamId, Problem> {
        let open = self.open.get(name).copied();
        open.ok_or_else(|| Problem::not_open(name))
    }

    fn taken(&mut self, name: &str) -> Result<StreamId, Problem> {
        let open = self.open.remove(name);
        open.ok_or_else(|| Problem::not_open(name))
    }

    fn note(&mut self, name: &str, outcome: Outcome) {
        if let Some((_, noted)) = self.answers.iter_mut().rev().find(|(known, _)| known == name) {
            *noted = outcome;
        }
    }

    fn traced(&mut self, wanted: &Wanted) -> Result<(), Problem> {
        let until = format!("{} lines with {:?}", wanted.count, wanted.line);
        self.until(&until, |stage| {
            let lines = stage.trace.iter().filter(|traced| traced.line.text.contains(&wanted.line));
            lines.count() >= wanted.count && no_callback_runs(&stage.trace)
        })
    }

    fn push(&mut self, push: &Push) -> Result<(), Problem> {
        let before = self.case.clone();
        let Push { script, vm_script, vm_id, failure_policy, is } = push.clone();
        let setup = &mut self.case.setup;
        setup.vm_id = vm_id.unwrap_or_else(|| setup.vm_id.clone());
        setup.failure_policy = failure_policy.unwrap_or(setup.failure_policy);
        self.case.script = script.unwrap_or_else(|| self.case.script.clone());
        self.case.vm_script = vm_script.unwrap_or_else(|| self.case.vm_script.clone());
        self.load(is)?;
        if is == Verdict::Rejected {
            self.case = before;
        }
        Ok(())
    }

    /// Gives the process the plugin as the case now has it, and waits for every thread.
    fn load(&mut self, verdict: Verdict) -> Result<(), Problem> {
        let generation = self.process.push(Some(plugin(&self.case)));
        match verdict {
            Verdict::Taken => {
                let threads: Vec<ThreadId> = (0..=self.case.setup.workers.get()).map(ThreadId).collect();
                self.until("a push that is taken", |stage| {
                    threads.iter().all(|thread| stage.process.is_loaded(*thread, generation)) || stage.has_aborted()
                })?;
                self.replaced.extend(self.listener.replace(generation));
                Ok(())
            }
            Verdict::Rejected => {
                self.until("a push that is refused", |stage| stage.happenings.contains(&Happening::Refused(generation)))
            }
        }
    }

    fn old_one_is_gone(&mut self) -> Result<(), Problem> {
        let replaced = std::mem::take(&mut self.replaced);
        let threads = self.case.setup.workers.get() as usize + 1;
        self.until("the end of what was replaced", |stage| {
            let gone = |old: &Generation| {
                let is_it = |happening: &&Happening| matches!(happening, Happening::Gone { generation, .. } if generation == old);
                stage.happenings.iter().filter(is_it).count() == threads
            };
            replaced.iter().all(gone)
        })
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Stage) -> bool) -> Result<(), Problem> {
        let limit = self.process.now() + WAIT_MAX;
        while !holds(self) {
            let step = self.process.step(&mut self.town, limit);
            self.look();
            if matches!(step, simvoy::Step::Until(_)) && !holds(self) {
                return Err(self.never_came(what));
            }
        }
        Ok(())
    }

    /// Everything that happens at this moment.
    fn settle(&mut self) {
        let now = self.process.now();
        self.process.run_until(&mut self.town, now);
        self.look();
    }

    /// Takes in what the process has told.
    fn look(&mut self) {
        self.happenings.extend(self.process.take_happenings());
        let lines = self.process.take_log().into_iter().filter_map(|logged| {
            let thread = match logged.thread {
                ThreadId::MAIN => Thread::Main,
                ThreadId(worker) => Thread::Worker(u64::from(worker)),
            };
            Some(Traced { thread, line: Line::find(&logged.text)? })
        });
        self.trace.extend(lines);
    }

    fn has_aborted(&self) -> bool {
        self.happenings.iter().any(|happening| matches!(happening, Happening::Aborted(_)))
    }

    fn never_came(&self, step: &str) -> Problem {
        let mut seen: Vec<String> = self.trace.iter().map(|traced| traced.line.to_string()).collect();
        seen.extend(self.answers.iter().map(|answer| format!("{answer:?}")));
        seen.extend(self.happenings.iter().map(|happening| format!("{happening:?}")));
        Problem::NeverCame { step: step.to_owned(), seen: seen.join("\n") }
    }

    /// Waits as the case says, and tells what was seen.
    fn end(mut self) -> Result<Observation, Problem> {
        match (self.case.ends, self.host) {
            (Ends::WhenStreamsAreGone, Host::Runs) => {
                self.until("every stream to be deleted", |stage| streams_are_gone(&stage.trace))?;
            }
            (Ends::AtOnce, Host::Runs) => {
                self.until("every callback to return", |stage| no_callback_runs(&stage.trace))?;
            }
            (Ends::WhenTheHostAborts, _) => {
                self.until("the host's abort", Stage::has_aborted)?;
                self.host = Host::Aborted;
            }
            (Ends::WhenStreamsAreGone | Ends::AtOnce, Host::Ended | Host::Aborted) => {}
        }
        let Stage { trace, answers, town, host, .. } = self;
        Ok(Observation { trace, answers, received: town.received(), host })
    }
}

/// How much of a request goes out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    Head,
}

/// A head as Envoy's codec hands it on: pseudo headers first, then what was on the wire.
fn head(request: &Request) -> Headers {
    let with_body = request.body.is_some() || request.framing == Framing::Chunked;
    let default = if with_body { "POST" } else { "GET" };
    let method = request.method.as_deref().unwrap_or(default);
    let mut head = Headers::of(&[
        (":authority", "shop.example"),
        (":path", &request.path),
        (":method", method),
        (":scheme", "http"),
    ]);
    for (name, value) in &request.headers {
        head.add(&name.to_ascii_lowercase(), value.0.clone());
    }
    match (&request.body, request.framing) {
        (Some(body), Framing::Sized) => head.add("content-length", body.0.len().to_string()),
        (None, Framing::Sized) => {}
        (_, Framing::Chunked) => head.add("transfer-encoding", "chunked"),
    }
    head
}
