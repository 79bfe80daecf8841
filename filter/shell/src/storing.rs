//! Custody of one request: from what was captured of it to a message in the store, or the reason why not.

use crate::host;
use crate::vm::Vm;
use redeliver_core::backoff;
use redeliver_core::capture::{Capture, HasBody};
use redeliver_core::config::{CaptureAs, CaptureMode, Intake, Policy};
use redeliver_core::duplicates::Retry;
use redeliver_core::effect::Counter;
use redeliver_core::headers::{Envelope, HeaderList, Unsendable};
use redeliver_core::message::{Message, MessageId, Ties};
use redeliver_core::neighbours::Origin;
use redeliver_core::reply::NotStored;
use redeliver_core::store::{FirstState, Limits, Now, OPENING_MAX, Placed, PutError, Ticket};
use redeliver_core::units::{ClusterName, Monotonic};

/// A message in the store.
pub struct Stored {
    /// What its sender is told.
    pub id: MessageId,
    /// Set while its routed form is still to come.
    pub opening: Option<(Ticket, Message)>,
}

/// Why a request is stored: it decides when it is due, and what is known of its routed form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// It failed.
    Failure,
    /// Its destination is down; the router was not asked.
    Down,
    /// Messages of its ordering key are stored; the router was not asked.
    Behind,
}

/// Why a request is not in the store as a message of its own.
pub enum Untaken {
    /// It is not stored at all.
    NotStored(NotStored),
    /// It is a retry of this message.
    Joins(MessageId),
    /// Its idempotency key belongs to another request.
    ReusesKey,
}

impl From<NotStored> for Untaken {
    fn from(reason: NotStored) -> Self {
        Self::NotStored(reason)
    }
}

/// Stores what was captured, at `now`. `injected` is the idempotency key that the first attempt got from us.
///
/// # Errors
/// [`Untaken`]; the capture is used up all the same.
pub fn store(
    vm: &mut Vm,
    capture: &mut Capture,
    cluster: Option<ClusterName>,
    trigger: Trigger,
    injected: Option<MessageId>,
    now: Now,
) -> Result<Stored, Untaken> {
    let cluster = cluster.ok_or(NotStored::Unstorable)?;
    let config = vm.config.clone();
    let policy = config.of(&cluster);
    match policy.store.intake {
        Intake::Open => {}
        Intake::Closed => return Err(Untaken::NotStored(NotStored::Closed)),
    }
    let origin = Origin::read(&capture.arrived, vm.config.trust.senders)?;
    let body = capture.take_body()?;
    let arrived = Envelope::capture(&capture.arrived, &config.capture.drop_headers).map_err(unstorable)?;
    let routed_form = routed_form(vm, capture, &arrived, trigger)?;
    let destination = vm.delivery.find_or_register(&vm.memory, &cluster).ok_or(NotStored::Full)?;
    let mut queued = || FirstState::Queued(first_due(vm, policy, trigger, now.monotonic));
    let (routed, first) = match routed_form {
        RoutedForm::NotWanted => (None, queued()),
        RoutedForm::Known(routed) => (routed, queued()),
        RoutedForm::StillToCome => (None, FirstState::Opening(now.monotonic.after(OPENING_MAX))),
    };
    let ties = vm.delivery.ties(&capture.arrived, &cluster, &body);
    // One that came with an id had it injected, if any was.
    let id = origin.id.or(injected).unwrap_or_else(|| vm.new_id());
    let message = Message { id, hops: origin.hops, cluster, arrived, routed, body, ties };
    let limits = Limits { whole: &config.shared.store, destination: &policy.store };
    let Placed { ticket, hint } = vm
        .delivery
        .store(&vm.memory)
        .place(&message, destination, first, limits, now)
        .map_err(|error| untaken(vm, error, &capture.arrived, message.ties))?;
    if let Some(hint) = hint {
        vm.delivery.tell_leader(&vm.memory, destination, hint, host::monotonic);
    }
    vm.count(Counter::Stored, 1);
    let opening = hint.is_none().then_some((ticket, message));
    Ok(Stored { id, opening })
}

/// What a refused put means to the sender. A key that became known while the request was on its way is a retry all the
/// same.
fn untaken(vm: &Vm, error: PutError, arrived: &HeaderList, ties: Ties) -> Untaken {
    match error {
        PutError::Full | PutError::Busy => Untaken::NotStored(NotStored::Full),
        // Its store is this one: custody stays where it is.
        PutError::Known(known) if vm.delivery.is_its_redelivery(&vm.memory, &known, arrived) => {
            Untaken::NotStored(NotStored::Unstorable)
        }
        PutError::Known(known) => match ties.fingerprint.map(|fingerprint| known.judge(fingerprint.content)) {
            Some(Retry::Joins(id)) => Untaken::Joins(id),
            Some(Retry::Reuses) | None => Untaken::ReusesKey,
        },
    }
}

/// What is known of the form that the router gave the request.
enum RoutedForm {
    /// `capture.as: arrived`, or the router was not asked.
    NotWanted,
    /// This; `None` if it is as it arrived.
    Known(Option<Envelope>),
    /// The host has let go of the headers; the log shows them.
    StillToCome,
}

fn routed_form(vm: &Vm, capture: &Capture, arrived: &Envelope, trigger: Trigger) -> Result<RoutedForm, NotStored> {
    match (vm.config.capture.form, trigger) {
        (CaptureAs::Arrived, Trigger::Failure | Trigger::Down | Trigger::Behind)
        | (CaptureAs::Routed, Trigger::Down | Trigger::Behind) => Ok(RoutedForm::NotWanted),
        (CaptureAs::Routed, Trigger::Failure) => {
            let headers = match (capture.has_body, vm.regime.mode) {
                (HasBody::Yes, CaptureMode::Hold) => host::request_headers(),
                (HasBody::No, CaptureMode::Hold) | (HasBody::Yes | HasBody::No, CaptureMode::Stream) => {
                    return Ok(RoutedForm::StillToCome);
                }
            };
            if headers.is_empty() {
                return Ok(RoutedForm::StillToCome);
            }
            let routed = arrived.other(&headers, &vm.config.capture.drop_headers);
            routed.map(RoutedForm::Known).map_err(unstorable)
        }
    }
}

const fn unstorable(_: Unsendable) -> NotStored {
    NotStored::Unstorable
}

/// The first redelivery waits like one after a first failed attempt: the destination has just failed. One that only waits
/// for its turn is due when that comes.
fn first_due(vm: &mut Vm, policy: &Policy, trigger: Trigger, now: Monotonic) -> Monotonic {
    match trigger {
        Trigger::Behind => now,
        Trigger::Failure | Trigger::Down => {
            now.after(backoff::wait(&policy.redelivery.backoff, 1, vm.delivery.random()))
        }
    }
}

/// The end of the stream of a stored request without a body: it shows the routed form, and the message waits for its first
/// redelivery from now on. Without a routed form the slot stays as it is and becomes a dead letter, seen and counted.
pub fn complete(vm: &mut Vm, ticket: Ticket, message: Message) {
    let dropped = &vm.config.capture.drop_headers;
    let Ok(routed) = message.arrived.other(&host::request_headers(), dropped) else { return };
    let policy = vm.config.of(&message.cluster).clone();
    let due = first_due(vm, &policy, Trigger::Failure, host::monotonic());
    let completed = vm.delivery.store(&vm.memory).complete(ticket, &Message { routed, ..message }, due);
    // Gone: the lease was over before the stream was, and the sweep has spoken.
    completed.unwrap_or(());
}
