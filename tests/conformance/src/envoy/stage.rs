//! The steps of a case on a running Envoy.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use redeliver_probe::trace::Line;
use redeliver_tests::envoy::Push as Pushed;
use redeliver_tests::sender::{Connection, Request as Sent, Response};
use redeliver_tests::wire::chunk;
use redeliver_tests::{Envoy, SOON};

use super::receivers::{Receivers, end_of_chunks};
use super::setup::bootstrap;
use crate::arm::Problem;
use crate::case::{Case, Ends, Receiver};
use crate::observation::{Host, Message, Observation, Outcome, Thread, Traced, no_callback_runs, streams_are_gone};
use crate::step::{Framing, Push, Request, SendUntil, Step, Verdict, Wanted};

/// Time between two looks at the log.
const LOOK_EVERY: Duration = Duration::from_millis(10);

struct Stage {
    /// As it is now: a push changes it.
    case: Case,
    envoy: Envoy,
    receivers: Receivers,
    /// Opened requests that are not answered yet.
    open: BTreeMap<String, Connection>,
    answers: Vec<(String, Outcome)>,
    host: Host,
}

/// Runs a case.
pub async fn run(case: &Case) -> Result<Observation, Problem> {
    let receivers = Receivers::start(case).await?;
    let envoy = match bootstrap(case, &receivers).try_start().await {
        Ok(envoy) => envoy,
        Err(ending) => return Err(Problem::NotStarted(ending.log)),
    };
    for (name, cluster) in &case.clusters {
        if cluster.receiver == Receiver::Unhealthy {
            envoy.wait_healthy(name, 0).await;
        }
    }
    let (case, host) = (case.clone(), Host::Runs);
    let steps = case.steps.clone();
    let mut stage = Stage { case, envoy, receivers, open: BTreeMap::new(), answers: Vec::new(), host };
    for step in &steps {
        stage.step(step).await?;
    }
    stage.end().await
}

impl Stage {
    async fn step(&mut self, step: &Step) -> Result<(), Problem> {
        match step {
            Step::Send(request) => self.send(request).await?,
            Step::SendUntil(SendUntil { status, request }) => self.send_until(*status, request).await?,
            Step::Open(request) => self.open(request).await,
            Step::More(piece) => {
                let bytes = chunk(&piece.bytes.0);
                self.connection(&piece.of)?.write(&bytes).await;
            }
            Step::End(end) => {
                let bytes = end_of_chunks(&end.trailers);
                self.connection(&end.of)?.write(&bytes).await;
            }
            Step::Answer(name) => {
                let mut connection = self.taken(name)?;
                let answer = connection.read_response().await;
                let outcome = self.outcome(name, answer)?;
                self.note(name, outcome);
            }
            Step::HangUp(name) => drop(self.taken(name)?),
            Step::Trace(wanted) => self.traced(wanted).await?,
            Step::Received(count) => {
                let until = format!("{} requests at {}", count.count, count.cluster);
                self.until(&until, |stage| Ok(stage.receivers.count(&count.cluster)? >= count.count)).await?;
            }
            Step::Receiver(change) => self.receivers.behave(&change.cluster, &change.does).await?,
            Step::Release(cluster) => self.receivers.release(cluster)?,
            Step::Push(push) => self.push(push).await?,
            Step::OldConfigurationIsGone => self.old_one_is_gone().await,
            Step::RemoveListener => self.listener(Pushed::Taken, |bootstrap| bootstrap.without_main()).await?,
            Step::AddListener => self.listener(Pushed::Taken, |bootstrap| bootstrap).await?,
            Step::Terminate => {
                self.envoy.terminate().await;
                self.host = Host::Ended;
            }
        }
        Ok(())
    }

    async fn send(&mut self, request: &Request) -> Result<(), Problem> {
        let mut connection = Connection::open(self.envoy.port()).await;
        let answer = connection.send(&sent(request)).await;
        let outcome = self.outcome(request.called(), answer)?;
        self.answers.push((request.called().to_owned(), outcome));
        Ok(())
    }

    async fn send_until(&mut self, status: u16, request: &Request) -> Result<(), Problem> {
        let start = Instant::now();
        loop {
            self.send(request).await?;
            if matches!(self.answers.last(), Some((_, outcome)) if outcome.has_status(status)) {
                return Ok(());
            }
            if start.elapsed() > SOON {
                return Err(self.never_came(&format!("an answer {status}")));
            }
            self.answers.pop();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// An answer that does not come is no outcome: a case that means it opens the request and hangs up.
    fn outcome(&self, name: &str, answer: io::Result<Response>) -> Result<Outcome, Problem> {
        match answer {
            Ok(response) => Ok(Outcome::Answered(Message {
                start: response.status.to_string(),
                headers: response.headers.0,
                body: response.body,
            })),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(self.never_came(&format!("the answer to {name}"))),
            Err(_) => Ok(Outcome::Closed),
        }
    }

    async fn open(&mut self, request: &Request) {
        let mut connection = Connection::open(self.envoy.port()).await;
        connection.write(&sent(request).head().encode()).await;
        self.open.insert(request.called().to_owned(), connection);
        self.answers.push((request.called().to_owned(), Outcome::Unread));
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection, Problem> {
        let open = self.open.get_mut(name);
        open.ok_or_else(|| Problem::not_open(name))
    }

    fn taken(&mut self, name: &str) -> Result<Connection, Problem> {
        let open = self.open.remove(name);
        open.ok_or_else(|| Problem::not_open(name))
    }

    fn note(&mut self, name: &str, outcome: Outcome) {
        if let Some((_, noted)) = self.answers.iter_mut().rev().find(|(known, _)| known == name) {
            *noted = outcome;
        }
    }

    async fn traced(&mut self, wanted: &Wanted) -> Result<(), Problem> {
        let until = format!("{} lines with {:?}", wanted.count, wanted.line);
        self.until(&until, |stage| {
            let trace = stage.trace();
            let lines = trace.iter().filter(|traced| traced.line.text.contains(&wanted.line));
            Ok(lines.count() >= wanted.count && no_callback_runs(&trace))
        })
        .await
    }

    async fn push(&mut self, push: &Push) -> Result<(), Problem> {
        let before = self.case.clone();
        let Push { script, vm_script, vm_id, failure_policy, is } = push.clone();
        let setup = &mut self.case.setup;
        setup.vm_id = vm_id.unwrap_or_else(|| setup.vm_id.clone());
        setup.failure_policy = failure_policy.unwrap_or(setup.failure_policy);
        self.case.script = script.unwrap_or_else(|| self.case.script.clone());
        self.case.vm_script = vm_script.unwrap_or_else(|| self.case.vm_script.clone());
        match is {
            Verdict::Taken => self.listener(Pushed::Taken, |bootstrap| bootstrap).await,
            Verdict::Rejected => {
                self.listener(Pushed::Rejected, |bootstrap| bootstrap).await?;
                self.case = before;
                Ok(())
            }
        }
    }

    async fn listener(
        &mut self,
        wanted: Pushed,
        change: impl Fn(redeliver_tests::Bootstrap) -> redeliver_tests::Bootstrap,
    ) -> Result<(), Problem> {
        let next = change(bootstrap(&self.case, &self.receivers));
        match self.envoy.push(&next).await {
            verdict if verdict == wanted => Ok(()),
            verdict => Err(self.never_came(&format!("a push that is {wanted:?}, and it was {verdict:?}"))),
        }
    }

    async fn old_one_is_gone(&self) {
        self.envoy.wait_stat("listener_manager.total_filter_chains_draining", 0).await;
        self.envoy.wait_stat("listener_manager.total_listeners_draining", 0).await;
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&mut Stage) -> Result<bool, Problem>) -> Result<(), Problem> {
        let start = Instant::now();
        while !holds(self)? {
            if start.elapsed() > SOON || !self.envoy.runs() {
                return Err(self.never_came(what));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn never_came(&self, step: &str) -> Problem {
        let mut seen: Vec<String> = self.trace().iter().map(|traced| traced.line.to_string()).collect();
        seen.extend(self.answers.iter().map(|answer| format!("{answer:?}")));
        let complaints =
            ["[warning]", "[error]", "[critical]"].iter().flat_map(|level| self.envoy.log_lines_with(level));
        seen.extend(complaints);
        Problem::NeverCame { step: step.to_owned(), seen: seen.join("\n") }
    }

    fn trace(&self) -> Vec<Traced> {
        let main = self.envoy.process_id().to_string();
        let log = self.envoy.log();
        log.lines().filter_map(|line| Some(Traced { thread: thread(line, &main)?, line: Line::find(line)? })).collect()
    }

    async fn aborts(&mut self) -> Result<(), Problem> {
        let start = Instant::now();
        while self.envoy.runs() {
            if start.elapsed() > SOON {
                return Err(self.never_came("the host's abort"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.host = Host::Aborted;
        Ok(())
    }

    /// Waits as the case says, and tells what was seen.
    async fn end(mut self) -> Result<Observation, Problem> {
        match (self.case.ends, self.host) {
            (Ends::WhenStreamsAreGone, Host::Runs) => {
                self.until("every stream to be deleted", |stage| Ok(streams_are_gone(&stage.trace()))).await?;
            }
            (Ends::AtOnce, Host::Runs) => {
                self.until("every callback to return", |stage| Ok(no_callback_runs(&stage.trace()))).await?;
            }
            (Ends::WhenTheHostAborts, _) => self.aborts().await?,
            (Ends::WhenStreamsAreGone | Ends::AtOnce, Host::Ended | Host::Aborted) => {}
        }
        Ok(Observation {
            trace: self.trace(),
            received: self.receivers.received(),
            host: self.host,
            answers: self.answers,
        })
    }
}

/// Envoy's log lines begin with `[time][thread][level]`; the main thread's id is the process's.
fn thread(log_line: &str, main: &str) -> Option<Thread> {
    let id = log_line.split("][").nth(1)?;
    if id == main { Some(Thread::Main) } else { id.parse().ok().map(Thread::Worker) }
}

fn sent(request: &Request) -> Sent {
    let with_body = request.body.is_some() || request.framing == Framing::Chunked;
    let default = if with_body { "POST" } else { "GET" };
    let mut sent = Sent::new(request.method.as_deref().unwrap_or(default), &request.path);
    for (name, value) in &request.headers {
        sent = sent.header(name, &value.0);
    }
    match (&request.body, request.framing) {
        (None, Framing::Sized) => sent,
        (None, Framing::Chunked) => sent.chunked(Vec::new()),
        (Some(body), Framing::Sized) => sent.body(body.0.clone()),
        (Some(body), Framing::Chunked) => sent.chunked(vec![body.0.clone()]),
    }
}
