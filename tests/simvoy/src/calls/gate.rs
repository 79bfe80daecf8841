//! The gate before and behind every host call: the fault hook, the trace, and the turns of other threads.

use crate::abi::{HostCall, Status};
use crate::chaos::{Point, Verdict};
use crate::trace::{Event, Kind};
use crate::turnstile::{self, TURN};
use crate::vm::Guest;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use wasmtime::{Caller, Linker, Result, bail};

/// The turnstile's own calls.
pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    linker.func_wrap_async(turnstile::MODULE, turnstile::TURN_FUNCTION, |_: Caller<'_, Guest>, (): ()| {
        Box::new(Turn::default())
    })?;
    linker.func_wrap(turnstile::MODULE, turnstile::DELIVER_FUNCTION, super::memory::deliver)?;
    Ok(())
}

/// How a call got through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Like any call.
    #[default]
    Plainly,
    /// The guest traps when it is done.
    ThenTrap,
    /// A compare-and-set finds another number than it expects.
    IntoConflict,
    /// A queue loses the item.
    IntoLoss,
}

/// A span of the guest's memory.
pub(super) type Span = (u32, u32);

/// A call that is about nothing in particular.
pub(super) const NOTHING: Span = (0, 0);

/// What the gate says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It is made, and how.
    Open(Passed),
    /// Other threads may run first; the turnstile comes back with the same call.
    Turn,
}

/// What a call has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is done.
    Done(Status),
    /// It is done when the guest has made room for so many bytes, more than none, which wait in its [`Parcel`].
    ///
    /// [`Parcel`]: super::memory::Parcel
    Room(u32),
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self::Done(status)
    }
}

/// Asks whether and how the call is made. A call that comes back after a turn is not asked about again.
pub(super) fn pass(caller: &mut Caller<'_, Guest>, call: HostCall, about: Span) -> Result<Gate> {
    if let Some(passed) = caller.data_mut().passed.take() {
        return Ok(Gate::Open(passed));
    }
    match ask(caller, call, about) {
        Verdict::Proceed => Ok(Gate::Open(Passed::Plainly)),
        Verdict::Yield => Ok(take_turn(caller)),
        Verdict::Stall(span) => {
            stall(caller, span);
            Ok(take_turn(caller))
        }
        Verdict::Trap => bail!("injected trap in place of {call:?}"),
        Verdict::TrapAfter => Ok(Gate::Open(Passed::ThenTrap)),
        Verdict::Conflict => Ok(Gate::Open(Passed::IntoConflict)),
        Verdict::Lose => Ok(Gate::Open(Passed::IntoLoss)),
    }
}

/// A whole call that is no part of the ABI: asked about, made, ended.
pub(super) fn gated<G: Given>(
    caller: &mut Caller<'_, Guest>,
    call: HostCall,
    make: impl FnOnce(&mut Caller<'_, Guest>) -> G,
) -> Result<i32> {
    match pass(caller, call, NOTHING)? {
        Gate::Turn => Ok(TURN),
        Gate::Open(passed) => {
            let given = make(caller);
            end(caller, call, passed, given)
        }
    }
}

/// Asks about a call that gives nothing back: the turnstile could not come back to it, so it takes no turn.
pub(super) fn pass_at_once(caller: &mut Caller<'_, Guest>, call: HostCall) -> Result<()> {
    match ask(caller, call, NOTHING) {
        Verdict::Trap | Verdict::TrapAfter => bail!("injected trap in place of {call:?}"),
        Verdict::Proceed | Verdict::Yield | Verdict::Stall(_) | Verdict::Conflict | Verdict::Lose => Ok(()),
    }
}

fn take_turn(caller: &mut Caller<'_, Guest>) -> Gate {
    caller.data_mut().passed = Some(Passed::Plainly);
    Gate::Turn
}

fn ask(caller: &mut Caller<'_, Guest>, call: HostCall, about: Span) -> Verdict {
    let Some(memory) = caller.data().memory else { return Verdict::Proceed };
    let (bytes, guest) = memory.data_and_store_mut(caller);
    let name = super::memory::slice(bytes, about).unwrap_or_default();
    let nth = guest.calls;
    guest.calls += 1;
    let mut shared = guest.shared.lock();
    let now = shared.clock.now;
    // What the call before this one has given goes along: one event for each call.
    let (callback, before) = (guest.callback as u64, u64::from(guest.last_given.unsigned_abs()));
    let numbers = [u64::from(guest.vm.0) << 32 | u64::from(guest.speaker().0), u64::from(nth), callback << 32 | before];
    shared.trace.feed(Kind::Call(call), now, numbers, name);
    shared.chaos.at(&Point {
        now,
        thread: guest.thread,
        vm: guest.vm,
        context: guest.context,
        callback: guest.callback,
        call,
        name,
        nth,
    })
}

fn stall(caller: &mut Caller<'_, Guest>, span: Duration) {
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    let until = shared.clock.now + span;
    shared.thread_mut(guest.thread).stalled_until = until;
}

/// What goes to the turnstile: a status, how much room is wanted, or that the call waits for its turn.
pub(super) fn finish(caller: &mut Caller<'_, Guest>, call: HostCall, passed: Passed, answer: Answer) -> Result<i32> {
    match answer {
        Answer::Done(status) => end(caller, call, passed, status),
        Answer::Room(length) => {
            caller.data_mut().parcel.belongs_to(call, passed);
            // No memory is large enough for bytes whose number is no i32.
            Ok(i32::try_from(length).map_or(TURN + 1, |length| -length))
        }
    }
}

/// What a guest is given for a call: a status of the ABI, an error number of WASI, a truth.
pub(super) trait Given: Copy + std::fmt::Debug {
    /// Never negative: what is negative goes to the turnstile.
    fn number(self) -> i32;
}

impl Given for Status {
    fn number(self) -> i32 {
        self as i32
    }
}

/// A truth, as C has it.
impl Given for bool {
    fn number(self) -> i32 {
        i32::from(self)
    }
}

/// The call is done; what it gives goes to the guest, unless the guest traps now.
pub(super) fn end(caller: &mut Caller<'_, Guest>, call: HostCall, passed: Passed, given: impl Given) -> Result<i32> {
    let guest = caller.data_mut();
    guest.last_given = given.number();
    if guest.keeps_events {
        keep(guest, call, given);
    }
    if passed == Passed::ThenTrap {
        bail!("injected trap after {call:?}");
    }
    Ok(given.number())
}

fn keep(guest: &Guest, call: HostCall, given: impl Given) {
    let mut shared = guest.shared.lock();
    let place = Some((guest.thread, guest.vm, guest.speaker()));
    let text = format!("{:?}#{} {call:?} -> {given:?}", guest.callback, guest.calls.saturating_sub(1));
    let event = Event { at: shared.clock.now, place, text };
    shared.trace.keep(event);
}

/// Lets the event loop give the turn to somebody else, once.
#[derive(Default)]
struct Turn {
    was_given: bool,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.was_given, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}
