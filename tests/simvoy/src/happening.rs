//! What a test hears of: the ends of streams and calls, the lives of VMs and configurations, and the guests' log.

use crate::http::{Headers, Response};
use crate::ids::{CallToken, Generation, StreamId, ThreadId, VmId};
use crate::time::Moment;
use crate::trace::{Kind, Trace};
use std::fmt;

/// What a test hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The sender of a stream has its answer.
    Answered {
        /// Which.
        stream: StreamId,
        /// With what.
        response: Response,
    },
    /// The stream ended without a whole answer.
    Reset {
        /// Which.
        stream: StreamId,
    },
    /// A guest has made an HTTP call.
    Called {
        /// Which VM.
        vm: VmId,
        /// Which call.
        token: CallToken,
        /// Its headers as the guest gave them, before Envoy has rebuilt anything.
        head: Headers,
    },
    /// A guest is about to be told the end of one of its calls.
    Told {
        /// Which VM.
        vm: VmId,
        /// Which call.
        token: CallToken,
    },
    /// It was told, and took it without trapping.
    Heard {
        /// Which VM.
        vm: VmId,
        /// Which call.
        token: CallToken,
        /// The status that it was shown; `None`: an answer without headers.
        status: Option<u16>,
    },
    /// A VM trapped.
    Trapped {
        /// On which thread.
        thread: ThreadId,
        /// Which.
        vm: VmId,
        /// What the engine says.
        message: String,
    },
    /// A VM could not be made: the engine's own limit, not the guest's fault. A test that sees it has too many VMs.
    NotMade {
        /// On which thread.
        thread: ThreadId,
        /// What the engine says.
        message: String,
    },
    /// A thread has a new VM.
    Started {
        /// On which thread.
        thread: ThreadId,
        /// Which.
        vm: VmId,
    },
    /// A thread has made a root context for a push, or anew after a trap.
    Configured {
        /// On which thread.
        thread: ThreadId,
        /// Whose.
        generation: Generation,
    },
    /// A push was taken: the main thread's try went well.
    Taken(Generation),
    /// A push was refused.
    Refused(Generation),
    /// A root context is gone.
    Gone {
        /// On which thread.
        thread: ThreadId,
        /// Whose.
        generation: Generation,
    },
    /// The last VM of a `vm_id` is gone, and its shared data with it (PLATFORM 1.1).
    DataGone(String),
    /// A guest made a call on which Envoy aborts (PLATFORM H1).
    Aborted(String),
}

impl Happening {
    /// Everything in it goes into the hash of the run.
    pub(crate) fn feed(&self, trace: &mut Trace, at: Moment) {
        let mut feed = |kind, numbers, bytes: &[u8]| trace.feed(kind, at, numbers, bytes);
        let (thread_of, vm_of) = (|thread: &ThreadId| u64::from(thread.0), |vm: &VmId| u64::from(vm.0));
        match self {
            Self::Answered { stream, response: Response { headers, body, trailers } } => {
                feed(Kind::Answered, [stream.0, headers.digest(), trailers.digest()], body);
            }
            Self::Reset { stream } => feed(Kind::Reset, [stream.0, 0, 0], &[]),
            Self::Called { vm, token, head } => {
                feed(Kind::Called, [vm_of(vm), u64::from(token.0), head.digest()], &[]);
            }
            Self::Told { vm, token } => feed(Kind::Told, [vm_of(vm), u64::from(token.0), 0], &[]),
            Self::Heard { vm, token, status } => {
                // No status is a number beyond all of them.
                feed(Kind::Heard, [vm_of(vm), u64::from(token.0), status.map_or(u64::MAX, u64::from)], &[]);
            }
            Self::Trapped { thread, vm, message } => {
                feed(Kind::Trapped, [thread_of(thread), vm_of(vm), 0], message.as_bytes());
            }
            Self::NotMade { thread, message } => feed(Kind::NotMade, [thread_of(thread), 0, 0], message.as_bytes()),
            Self::Started { thread, vm } => feed(Kind::Started, [thread_of(thread), vm_of(vm), 0], &[]),
            Self::Configured { thread, generation } => {
                feed(Kind::Configured, [thread_of(thread), u64::from(generation.0), 0], &[]);
            }
            Self::Taken(generation) => feed(Kind::Taken, [u64::from(generation.0), 0, 0], &[]),
            Self::Refused(generation) => feed(Kind::Refused, [u64::from(generation.0), 0, 0], &[]),
            Self::Gone { thread, generation } => {
                feed(Kind::Gone, [thread_of(thread), u64::from(generation.0), 0], &[]);
            }
            Self::DataGone(vm_id) => feed(Kind::DataGone, [0; 3], vm_id.as_bytes()),
            Self::Aborted(why) => feed(Kind::Aborted, [0; 3], why.as_bytes()),
        }
    }
}

/// A line of a guest's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub at: Moment,
    /// On which thread.
    pub thread: ThreadId,
    /// By which VM.
    pub vm: VmId,
    /// 0 trace, 1 debug, 2 info, 3 warn, 4 error, 5 critical.
    pub level: u32,
    /// What.
    pub text: String,
}

/// In a few words, for the trace.
impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { stream, response } => write!(f, "stream {}: answered {}", stream.0, response.code()),
            Self::Reset { stream } => write!(f, "stream {}: reset", stream.0),
            Self::Called { vm, token, .. } => write!(f, "vm {}: call {} goes out", vm.0, token.0),
            Self::Told { vm, token } => write!(f, "vm {}: call {} ends", vm.0, token.0),
            Self::Heard { vm, token, status } => write!(f, "vm {}: call {} ended: {status:?}", vm.0, token.0),
            Self::Trapped { thread, vm, message } => {
                let first = message.lines().next().unwrap_or_default();
                write!(f, "thread {}: vm {} trapped: {first}", thread.0, vm.0)
            }
            Self::NotMade { thread, message } => write!(f, "thread {}: no VM could be made: {message}", thread.0),
            Self::Started { thread, vm } => write!(f, "thread {}: vm {} started", thread.0, vm.0),
            Self::Configured { thread, generation } => {
                write!(f, "thread {}: root context of push {} configured", thread.0, generation.0)
            }
            Self::Taken(generation) => write!(f, "push {} taken", generation.0),
            Self::Refused(generation) => write!(f, "push {} refused", generation.0),
            Self::Gone { thread, generation } => {
                write!(f, "thread {}: root context of push {} gone", thread.0, generation.0)
            }
            Self::DataGone(vm_id) => write!(f, "shared data of {vm_id} gone"),
            Self::Aborted(why) => write!(f, "Envoy aborts: {why}"),
        }
    }
}
