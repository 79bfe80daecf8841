//! Ambushes: a fault that waits for a certain kind of host call, in the middle of what must look like one step.

use crate::faults::Fault;
use crate::message::Destination;
use crate::receiving::through::LISTENER;
use crate::slots;
use simvoy::abi::Callback;
use simvoy::{Point, Verdict};
use std::time::Duration;

/// Where something may strike on purpose: in the middle of what must look like one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A large part is about to be written.
    LargeWrite,
    /// A head is.
    HeadWrite,
    /// Anything else is: books, leases, tables.
    CellWrite,
    /// A hint is about to be given.
    Hint,
    /// A redelivery is about to go out.
    Dispatch,
    /// An answer is about to be read.
    Answer,
    /// A stream has ended, and its log callback begins.
    Log,
    /// The routed form of a stored request is about to be written, in that callback.
    RoutedForm,
}

/// What strikes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The VM traps in place of the call.
    Trap,
    /// The VM traps after the call.
    TrapAfter,
    /// The thread stands still.
    Stall(Duration),
}

/// One blow at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambush {
    /// Where.
    pub site: Site,
    /// How many calls of this kind get by first.
    pub skip: u32,
    /// How many in a row are struck then.
    pub times: u32,
    /// What.
    pub blow: Blow,
}

impl Site {
    pub(crate) fn is_at(self, point: &Point<'_>) -> bool {
        use simvoy::abi::HostCall;
        let is_write = point.call == HostCall::SetSharedData;
        match self {
            Self::LargeWrite => is_write && slots::is_part(point.name, b'm'),
            Self::HeadWrite => is_write && slots::is_part(point.name, b'h'),
            Self::CellWrite => is_write && !slots::is_part(point.name, b'm') && !slots::is_part(point.name, b'h'),
            Self::Hint => point.call == HostCall::EnqueueQueue,
            Self::Dispatch => {
                let is_redelivery = destination_of(point.name).is_some() || point.name == LISTENER.as_bytes();
                point.call == HostCall::HttpCall && is_redelivery
            }
            Self::Answer => point.callback == Callback::CallResponse && point.nth == 0,
            Self::Log => point.callback == Callback::Log && point.nth == 0,
            Self::RoutedForm => point.callback == Callback::Log && is_write && slots::is_part(point.name, b'm'),
        }
    }
}

impl Blow {
    pub(crate) fn verdict(self) -> (Verdict, Fault) {
        match self {
            Self::Trap => (Verdict::Trap, Fault::Trap),
            Self::TrapAfter => (Verdict::TrapAfter, Fault::TrapAfter),
            Self::Stall(span) if span >= STALL_LONG => (Verdict::Stall(span), Fault::LongStall),
            Self::Stall(span) => (Verdict::Stall(span), Fault::Stall),
        }
    }
}

/// A stall from here on may outlive what a thread believes; a lease lasts longer than this.
pub(crate) const STALL_LONG: Duration = Duration::from_secs(1);

pub(crate) fn destination_of(cluster: &[u8]) -> Option<Destination> {
    std::str::from_utf8(cluster).ok().and_then(Destination::of)
}
