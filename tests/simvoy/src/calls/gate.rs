//! The gate before and behind every host call: the fault hook, the trace, and the turns of other threads.

use crate::abi::{HostCall, Status};
use crate::chaos::{Point, Verdict};
use crate::trace::{self, Event};
use crate::vm::Guest;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use wasmtime::{Caller, Result, bail};

/// How a call got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Like any call.
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

/// Asks whether and how the call is made; lets other threads run first if so decided.
pub(super) async fn pass(caller: &mut Caller<'_, Guest>, call: HostCall, about: Span) -> Result<Passed> {
    match ask(caller, call, about) {
        Verdict::Proceed => Ok(Passed::Plainly),
        Verdict::Yield => {
            Turn::default().await;
            Ok(Passed::Plainly)
        }
        Verdict::Stall(span) => {
            stall(caller, span);
            Turn::default().await;
            Ok(Passed::Plainly)
        }
        Verdict::Trap => bail!("injected trap in place of {call:?}"),
        Verdict::TrapAfter => Ok(Passed::ThenTrap),
        Verdict::Conflict => Ok(Passed::IntoConflict),
        Verdict::Lose => Ok(Passed::IntoLoss),
    }
}

fn ask(caller: &mut Caller<'_, Guest>, call: HostCall, about: Span) -> Verdict {
    let Some(memory) = caller.data().memory else { return Verdict::Proceed };
    let (bytes, guest) = memory.data_and_store_mut(caller);
    let name = super::memory::slice(bytes, about).unwrap_or_default();
    let nth = guest.calls;
    guest.calls += 1;
    let mut shared = guest.shared.lock();
    let now = shared.clock.now;
    let numbers = [u64::from(guest.vm.0) << 32 | u64::from(guest.speaker().0), u64::from(nth), guest.callback as u64];
    shared.trace.feed(trace::kind_of_call(call), now, numbers, name);
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

/// The call is done; its status goes to the guest, unless the guest traps now.
pub(super) fn finish(caller: &mut Caller<'_, Guest>, call: HostCall, passed: Passed, status: Status) -> Result<u32> {
    let guest = caller.data();
    let mut shared = guest.shared.lock();
    let now = shared.clock.now;
    shared.trace.feed(trace::kind_of_call(call), now, [status as u64, 0, 0], &[]);
    if shared.trace.keeps() {
        let place = Some((guest.thread, guest.vm, guest.speaker()));
        let text = format!("{:?}#{} {call:?} -> {status:?}", guest.callback, guest.calls.saturating_sub(1));
        shared.trace.keep(Event { at: now, place, text });
    }
    if passed == Passed::ThenTrap {
        bail!("injected trap after {call:?}");
    }
    Ok(status as u32)
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
