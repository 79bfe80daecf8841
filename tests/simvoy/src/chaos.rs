//! Where faults come in: every host call of every guest asks first.

use crate::abi::{Callback, HostCall};
use crate::ids::{ContextId, ThreadId, VmId};
use crate::time::Moment;
use std::time::Duration;

/// A host call that is about to happen.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// When.
    pub now: Moment,
    /// On which thread.
    pub thread: ThreadId,
    /// In which VM.
    pub vm: VmId,
    /// For which context the callback runs.
    pub context: ContextId,
    /// In which callback.
    pub callback: Callback,
    /// Which call.
    pub call: HostCall,
    /// The key or name that it is about, if it has one: a shared key, a queue's token has none.
    pub name: &'a [u8],
    /// How many calls this callback has made before.
    pub nth: u32,
}

/// What happens at a host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call is made.
    Proceed,
    /// Other threads may run first; then the call is made.
    Yield,
    /// The thread stands still for so long; others run meanwhile. Then the call is made.
    Stall(Duration),
    /// The guest traps in place of the call.
    Trap,
    /// The call is made, and then the guest traps.
    TrapAfter,
    /// A set with a cas finds that somebody has just rewritten the same bytes. Other calls: as `Proceed`.
    Conflict,
    /// An enqueue is answered with Ok and lost; a dequeue takes the item and answers that the queue is empty. Other
    /// calls: as `Proceed`.
    Lose,
}

/// Decides about every host call. The first verdict that is not `Proceed` should be rare: a `Yield` costs a switch.
pub trait Chaos: Send {
    /// What happens at `point`.
    fn at(&mut self, point: &Point<'_>) -> Verdict;
}

/// Nothing ever happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Chaos for Calm {
    fn at(&mut self, _: &Point<'_>) -> Verdict {
        Verdict::Proceed
    }
}
