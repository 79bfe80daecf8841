//! What happened: a running hash of everything, always; and the last events in words, if somebody wants to read them.
//!
//! | an event is | and the hash is over |
//! | --- | --- |
//! | a callback | VM, context, the first arguments |
//! | a host call | VM, context, callback, the key or name it is about, and what the call before it has given |
//! | a shared value, the body of a call | the bytes |
//! | an answer that a guest is shown | headers, body, trailers |
//! | a line of the log | VM, level, text |
//! | something that the test hears of | which, its ids, status, headers and body |
//!
//! Different hashes mean different runs. So a run is never stored: it is repeated, and equal hashes say that nothing that
//! is looked at here was different. How a test polls the process is no part of it.

use crate::abi::{Callback, HostCall};
use crate::ids::{ContextId, ThreadId, VmId};
use crate::time::Moment;
use std::collections::VecDeque;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One event in words.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Moment,
    /// Where; `None` for what happens outside of all VMs.
    pub place: Option<(ThreadId, VmId, ContextId)>,
    /// What.
    pub text: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((thread, vm, context)) => {
                write!(f, "{} thread {} vm {} ctx {}: {}", self.at, thread.0, vm.0, context.0, self.text)
            }
            None => write!(f, "{} {}", self.at, self.text),
        }
    }
}

/// The trace of one process.
pub struct Trace {
    hash: u64,
    events: u64,
    kept: VecDeque<Event>,
    keep_max: usize,
}

impl Trace {
    pub(crate) fn new(keep_max: usize) -> Self {
        Self { hash: 0, events: 0, kept: VecDeque::new(), keep_max }
    }

    /// The hash of all that happened so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.events
    }

    /// The last events, oldest first; empty if none are kept.
    pub fn kept(&self) -> impl Iterator<Item = &Event> {
        self.kept.iter()
    }

    /// Whether words are wanted: they cost.
    pub(crate) const fn keeps(&self) -> bool {
        self.keep_max > 0
    }

    /// One more event. What was before is the seed of its hash, which is quick for so few bytes at once.
    pub(crate) fn feed(&mut self, kind: Kind, at: Moment, numbers: [u64; 3], bytes: &[u8]) {
        self.events += 1;
        let [first, second, third] = numbers;
        let mut head = [0; 40];
        for (place, word) in [u64::from(kind.number()), at.0, first, second, third].into_iter().enumerate() {
            head[place * 8..place * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        self.hash = xxh3_64_with_seed(bytes, xxh3_64_with_seed(&head, self.hash));
    }

    pub(crate) fn keep(&mut self, event: Event) {
        if self.kept.len() >= self.keep_max {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call(HostCall),
    Callback(Callback),
    SharedValue,
    CallBody,
    /// The answer that the next callback is about.
    Shown,
    LogLine,
    Answered,
    Reset,
    Called,
    Told,
    Heard,
    Trapped,
    NotMade,
    Started,
    Configured,
    Taken,
    Refused,
    Gone,
    DataGone,
    Aborted,
}

impl Kind {
    /// Its number in the hash: one for each kind.
    const fn number(self) -> u16 {
        match self {
            Self::Call(call) => call as u16,
            Self::Callback(callback) => 0x100 + callback as u16,
            Self::SharedValue => 0x200,
            Self::CallBody => 0x201,
            Self::Shown => 0x202,
            Self::LogLine => 0x203,
            Self::Answered => 0x300,
            Self::Reset => 0x301,
            Self::Called => 0x302,
            Self::Told => 0x303,
            Self::Heard => 0x304,
            Self::Trapped => 0x305,
            Self::NotMade => 0x306,
            Self::Started => 0x307,
            Self::Taken => 0x308,
            Self::Refused => 0x309,
            Self::Gone => 0x30a,
            Self::DataGone => 0x30b,
            Self::Aborted => 0x30c,
            Self::Configured => 0x30d,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Cluster, End, Exchange, Headers, Origin, Plugin, Process, Receivers, Request, Response, Route, Settings, Step,
        ThreadId, tiny,
    };
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// Answers everything with this.
    struct Echo(Response);

    impl Receivers for Echo {
        fn exchange(&mut self, _: &str, _: Origin, _: &Request, _: Moment) -> Exchange {
            Exchange::Answer { after: Duration::from_millis(5), response: self.0.clone() }
        }
    }

    /// How a test looks at a process that it runs.
    #[derive(Clone, Copy)]
    enum Polling {
        AfterEachStep,
        Never,
    }

    fn hash(polling: Polling, path: &str, answer: Response) -> u64 {
        let mut process = Process::new(&tiny::module(), Settings::default());
        process.set_cluster("orders", Cluster::default());
        process.set_routes(vec![Route::new("/", "orders")]);
        process.push(Some(Plugin::new("v", "")));
        let mut echo = Echo(answer);
        for path in [path, "/last"] {
            let head = Headers::of(&[(":method", "GET"), (":path", path), (":authority", "shop"), (":scheme", "http")]);
            process.open(ThreadId(1), None, head, End::Last);
            while !matches!(process.step(&mut echo, Moment::NEVER), Step::Until(_)) {
                match polling {
                    Polling::AfterEachStep => drop((process.take_happenings(), process.take_log())),
                    Polling::Never => {}
                }
            }
        }
        process.trace_hash()
    }

    #[test]
    fn a_run_has_one_hash_however_it_is_polled_and_another_if_one_byte_of_it_is_another() {
        let answer = |body: &str, name: &str| Response::status(200).header(name, "1").body(body);
        let first = hash(Polling::Never, "/a", answer("fine", "x"));
        assert_eq!(hash(Polling::AfterEachStep, "/a", answer("fine", "x")), first);
        assert_ne!(hash(Polling::Never, "/a", answer("fina", "x")), first, "one byte of a body");
        assert_ne!(hash(Polling::Never, "/a", answer("fine", "y")), first, "one byte of a header");
        assert_ne!(hash(Polling::Never, "/a", Response::status(201).header("x", "1").body("fine")), first, "a status");
    }

    #[test]
    fn each_kind_of_event_has_a_number_of_its_own() {
        let calls = HostCall::ALL.iter().map(|call| Kind::Call(*call));
        let callbacks = Callback::ALL.into_iter().map(Kind::Callback);
        let others = [
            Kind::SharedValue,
            Kind::CallBody,
            Kind::Shown,
            Kind::LogLine,
            Kind::Answered,
            Kind::Reset,
            Kind::Called,
            Kind::Told,
            Kind::Heard,
            Kind::Trapped,
            Kind::NotMade,
            Kind::Started,
            Kind::Configured,
            Kind::Taken,
            Kind::Refused,
            Kind::Gone,
            Kind::DataGone,
            Kind::Aborted,
        ];
        let numbers: Vec<u16> = calls.chain(callbacks).chain(others).map(Kind::number).collect();
        let different: BTreeSet<u16> = numbers.iter().copied().collect();
        assert_eq!(different.len(), numbers.len());
    }
}
