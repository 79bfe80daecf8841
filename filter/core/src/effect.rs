//! What the core wants done outside: values that the shell carries out after the core has returned, never inside.

use crate::grpc::Protocol;
use crate::headers::HeaderList;
use crate::slot::{DestinationIndex, Epoch, Head};
use crate::store::{LargeMark, Ticket};
use crate::units::{ClusterName, Millis, Monotonic};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a request; tell the core the token, or that it was refused on the spot.
    Dispatch(Box<Dispatch>),
    /// Add to a counter.
    Count(Counter, u64),
    /// Set a gauge.
    Gauge(Gauge, u64),
    /// Record a delivery delay.
    DeliveryDelay(Millis),
    /// Write a line to Envoy's log.
    Note(Level, String),
}

/// A request to send from the root context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// What it is for.
    pub call: Call,
    /// Where to.
    pub cluster: ClusterName,
    /// Pseudo headers included.
    pub headers: HeaderList,
    /// The whole body.
    pub body: Vec<u8>,
    /// When Envoy gives up; never zero.
    pub timeout: Millis,
}

/// What an outstanding call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A redelivery.
    Attempt(Attempt),
    /// A redelivery whose time was over before its answer came: only good news of it counts still.
    LapsedAttempt(Attempt),
    /// A question to the health listener about one destination.
    HealthCheck(DestinationIndex),
    /// A question to the admin port of one destination's source, about all destinations that share it.
    AdminStats(DestinationIndex),
}

/// A redelivery that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where to.
    pub destination: DestinationIndex,
    /// Which message.
    pub ticket: Ticket,
    /// What it speaks: its answer is read so.
    pub protocol: Protocol,
    /// The term in which it was sent.
    pub epoch: Epoch,
    /// Its large part.
    pub large: LargeMark,
    /// Its head while it is out.
    pub head: Head,
    /// When it was sent.
    pub sent_at: Monotonic,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something an operator wants to see go by.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something an operator must change.
    Error,
}

/// The counters of CONTRACT section 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Requests that the match rule chose.
    Protected,
    /// Messages taken into custody.
    Stored,
    /// Failed protected requests that were not stored.
    NotStored,
    /// Messages that arrived.
    Delivered,
    /// Redeliveries sent.
    Attempts,
    /// Redeliveries that did not arrive.
    AttemptFailures,
    /// Messages that became dead letters.
    DeadLettered,
    /// Those among them that were too old.
    Expired,
    /// Dead letters whose time was over.
    DeadExpired,
    /// Messages removed by an operator.
    Removed,
    /// Requests that joined a stored message of the same key.
    DuplicatesJoined,
    /// Records that were found damaged.
    Corrupt,
}

impl Counter {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 12] = [
        Self::Protected,
        Self::Stored,
        Self::NotStored,
        Self::Delivered,
        Self::Attempts,
        Self::AttemptFailures,
        Self::DeadLettered,
        Self::Expired,
        Self::DeadExpired,
        Self::Removed,
        Self::DuplicatesJoined,
        Self::Corrupt,
    ];

    /// The stat's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protected => "redeliver_protected_total",
            Self::Stored => "redeliver_stored_total",
            Self::NotStored => "redeliver_not_stored_total",
            Self::Delivered => "redeliver_delivered_total",
            Self::Attempts => "redeliver_attempts_total",
            Self::AttemptFailures => "redeliver_attempt_failures_total",
            Self::DeadLettered => "redeliver_dead_lettered_total",
            Self::Expired => "redeliver_expired_total",
            Self::DeadExpired => "redeliver_dead_expired_total",
            Self::Removed => "redeliver_removed_total",
            Self::DuplicatesJoined => "redeliver_duplicates_joined_total",
            Self::Corrupt => "redeliver_corrupt_total",
        }
    }
}

/// The gauges of CONTRACT section 9. One VM sets them, the housekeeper, from what all VMs wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gauge {
    /// Messages held that are not dead letters.
    Queued,
    /// Their bytes.
    QueuedBytes,
    /// Dead letters.
    Dead,
    /// Redeliveries that are out.
    InFlight,
    /// Age of the oldest message that is not a dead letter, from the beginning of the second in which it was stored.
    OldestAgeMs,
    /// Destinations that are down.
    DestinationsDown,
    /// 1 when hold was asked for and stream is running.
    CaptureDegraded,
}

impl Gauge {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::QueuedBytes,
        Self::Dead,
        Self::InFlight,
        Self::OldestAgeMs,
        Self::DestinationsDown,
        Self::CaptureDegraded,
    ];

    /// The stat's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "redeliver_queued",
            Self::QueuedBytes => "redeliver_queued_bytes",
            Self::Dead => "redeliver_dead",
            Self::InFlight => "redeliver_in_flight",
            Self::OldestAgeMs => "redeliver_oldest_age_ms",
            Self::DestinationsDown => "redeliver_destinations_down",
            Self::CaptureDegraded => "redeliver_capture_degraded",
        }
    }
}

/// The name of the histogram of [`Effect::DeliveryDelay`].
pub const DELIVERY_DELAY: &str = "redeliver_delivery_delay_ms";
