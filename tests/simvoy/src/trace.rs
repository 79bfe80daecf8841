//! What happened: a running hash of everything, always; and the last events in words, if somebody wants to read them.
//!
//! Two runs are the same run if and only if their hashes are equal, so a run is never stored: it is repeated.

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
    pub(crate) fn feed(&mut self, kind: u8, at: Moment, numbers: [u64; 3], bytes: &[u8]) {
        self.events += 1;
        let [first, second, third] = numbers;
        let mut head = [0; 40];
        for (place, word) in [u64::from(kind), at.0, first, second, third].into_iter().enumerate() {
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

/// The kinds of events in the hash: calls have their own numbers, callbacks follow, then the outside.
pub(crate) const fn kind_of_call(call: HostCall) -> u8 {
    call as u8
}

pub(crate) const fn kind_of_callback(callback: Callback) -> u8 {
    100 + callback as u8
}

pub(crate) const KIND_OUTSIDE: u8 = 200;
