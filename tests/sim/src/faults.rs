//! The kinds of faults, how often each strikes, and how often each has met a record in each state.

use crate::slots::RecordState;
use std::collections::BTreeMap;

/// What can go wrong. The first ones strike at a host call, the others from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A VM traps in place of a host call.
    Trap,
    /// A VM traps right after a host call.
    TrapAfter,
    /// A thread stands still for a moment.
    Stall,
    /// A thread stands still for a second or more, so that what it believed may be over.
    LongStall,
    /// A compare-and-set meets another writer.
    Conflict,
    /// A hint is lost.
    LostHint,
    /// A bit of a value flips.
    FlippedBit,
    /// A value is cut short.
    CutValue,
    /// A value gets under another key.
    SwappedValue,
    /// A configuration is pushed.
    Push,
    /// The wall clock jumps.
    ClockJump,
    /// Envoy's view of a destination's health changes.
    Health,
    /// A receiver changes its mood for the worse.
    Outage,
    /// A cluster is removed, and comes back.
    ClusterGone,
    /// A circuit breaker is nearly closed.
    Breaker,
    /// Envoy fails its own health checks.
    Leaving,
    /// The health source is silent, or lies.
    Source,
    /// A thread's ticks are late.
    LateTicks,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Trap,
        Self::TrapAfter,
        Self::Stall,
        Self::LongStall,
        Self::Conflict,
        Self::LostHint,
        Self::FlippedBit,
        Self::CutValue,
        Self::SwappedValue,
        Self::Push,
        Self::ClockJump,
        Self::Health,
        Self::Outage,
        Self::ClusterGone,
        Self::Breaker,
        Self::Leaving,
        Self::Source,
        Self::LateTicks,
    ];
}

/// How often each fault strikes, per million host calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// A turn for other threads: no fault, but the ground for most.
    pub turn: u32,
    /// See [`Fault`].
    pub trap: u32,
    /// See [`Fault`].
    pub trap_after: u32,
    /// See [`Fault`].
    pub stall: u32,
    /// See [`Fault`].
    pub long_stall: u32,
    /// See [`Fault`]; of sets with a cas only.
    pub conflict: u32,
    /// See [`Fault`]; of queue calls only.
    pub lost_hint: u32,
}

/// How often each fault has struck, and what it met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By fault.
    pub struck: BTreeMap<Fault, u64>,
    /// By fault and the state of a record that it met.
    pub met: BTreeMap<(Fault, RecordState), u64>,
}

impl Coverage {
    /// A fault struck.
    pub fn struck(&mut self, fault: Fault) {
        *self.struck.entry(fault).or_default() += 1;
    }

    /// It met a record in this state.
    pub fn met(&mut self, fault: Fault, state: RecordState) {
        *self.met.entry((fault, state)).or_default() += 1;
    }

    /// Together with another history's.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.struck {
            *self.struck.entry(*fault).or_default() += count;
        }
        for (pair, count) in &other.met {
            *self.met.entry(*pair).or_default() += count;
        }
    }
}
