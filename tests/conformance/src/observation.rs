//! What an arm saw, unfiltered. Times, random ids and the like are still in it; `transcript.rs` takes them out.

use std::collections::BTreeMap;

use redeliver_probe::trace::{END, Line, TRAP};

use crate::transcript::is_new_stream;

/// Everything that can be seen of one run.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The lines of the probe, in the order in which the host wrote them.
    pub trace: Vec<Traced>,
    /// What each sender got, in the order in which the requests began.
    pub answers: Vec<(String, Outcome)>,
    /// What each receiver read to its end, in order, by cluster.
    pub received: BTreeMap<String, Vec<Message>>,
    /// How the host itself is at the end.
    pub host: Host,
}

/// A line and the thread that wrote it.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The thread.
    pub thread: Thread,
    /// The line.
    pub line: Line,
}

/// A thread of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thread {
    /// The one that reads configurations.
    Main,
    /// One that serves connections; the number only tells them apart.
    Worker(u64),
}

/// What a sender got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer.
    Answered(Message),
    /// The connection ended without one.
    Closed,
    /// The sender did not wait, or hung up.
    Unread,
}

impl Outcome {
    /// Whether it is an answer with this status.
    #[must_use]
    pub fn has_status(&self, status: u16) -> bool {
        match self {
            Outcome::Answered(answer) => answer.start == status.to_string(),
            Outcome::Closed | Outcome::Unread => false,
        }
    }
}

/// A request or an answer on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Method and path, or the status code.
    pub start: String,
    /// The headers in wire order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body without its framing.
    pub body: Vec<u8>,
}

/// The state of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// It runs.
    #[default]
    Runs,
    /// It ended because it was told to.
    Ended,
    /// It aborted.
    Aborted,
}

/// Whether every stream of a VM that has not trapped is deleted.
pub fn streams_are_gone(trace: &[Traced]) -> bool {
    let trapped: Vec<&str> =
        trace.iter().filter(|traced| traced.line.text == TRAP).map(|traced| traced.line.vm.as_str()).collect();
    let living = || trace.iter().map(|traced| &traced.line).filter(|line| !trapped.contains(&line.vm.as_str()));
    let streams: Vec<_> =
        living().filter(|line| is_new_stream(&line.text)).map(|line| (&line.vm, line.context)).collect();
    let deleted = living().filter(|line| line.text == "on_delete" && streams.contains(&(&line.vm, line.context)));
    deleted.count() == streams.len() && no_callback_runs(trace)
}

/// Whether each VM's last callback has returned, or trapped.
pub fn no_callback_runs(trace: &[Traced]) -> bool {
    let last: BTreeMap<&str, &str> =
        trace.iter().map(|traced| (traced.line.vm.as_str(), traced.line.text.as_str())).collect();
    last.values().all(|text| [END, TRAP].contains(text))
}
