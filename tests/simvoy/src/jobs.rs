//! What threads have to do: at once, in the order in which it came, or later.

use crate::guest::Arming;
use crate::http::Request;
use crate::ids::{CallToken, ContextId, Generation, StreamId, ThreadId, VmId};
use crate::network::{Origin, Outcome};
use crate::plugin::Plugin;
use crate::stream::Piece;
use crate::time::Moment;
use std::sync::Arc;

/// What a thread has to do next.
#[derive(Debug)]
pub(crate) enum Job {
    /// Make the plugin's root context; the main thread tries it in a throw-away VM first.
    Load(Generation, Arc<Plugin>, Place),
    /// Try the plugin in a throw-away VM, and no more (`--mode validate`, or a push that is refused).
    TryOut(Arc<Plugin>),
    /// The listener of this generation takes no new connections any more.
    Remove(Generation),
    /// The listener of this generation has drained.
    Unload(Generation),
    /// Ignored if the timer was set or armed anew since.
    Tick(VmId, ContextId, Arming),
    QueueReady(VmId, ContextId, u32),
    Open(StreamId, Option<Generation>),
    Piece(StreamId, Piece),
    Disconnect(StreamId),
    Upstream(StreamId, u64, Outcome),
    /// The route's time is over.
    RouteTimeout(StreamId),
    Called(VmId, CallToken, Outcome),
    /// SIGTERM.
    Stop,
}

/// Where a new version of a listener goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It replaces the listener that takes new connections.
    Instead,
    /// It is another listener.
    Beside,
}

/// What happens later.
#[derive(Debug)]
pub(crate) enum Timer {
    Job(ThreadId, Job),
    /// A request reaches the other end of its wire.
    Exchange {
        origin: Origin,
        attempt: u64,
        cluster: String,
        request: Box<Request>,
        arrival: Arrival,
    },
}

/// How much of a request has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Head,
    Whole,
}

#[derive(Debug)]
pub(crate) struct Timed {
    pub at: Moment,
    /// Timers of the same moment run in the order in which they were set.
    pub order: u64,
    pub timer: Timer,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
