//! The other end of every wire: what receivers do, and what Envoy makes of it.
//!
//! | on the wire | a live request ends with | a dispatch is answered with |
//! | --- | --- | --- |
//! | an answer | the answer, `via_upstream` | the answer |
//! | connection refused | 503, flag UF | 503, "remote connection failure" |
//! | no connection in time | 503, flag UF | 503, "connection timeout" |
//! | closed before headers | 503, flag UC | 503, "connection termination" |
//! | closed after headers | the answer begins and is cut | no headers at all |
//! | garbage | 502, flag UPE | 502, "protocol error" |
//! | silence | 504 after the route's timeout, flag UT | 504, "upstream request timeout" |
//!
//! Source: PLATFORM 1.6 and the notes on flags in its section 0; the texts are Envoy's.

use crate::http::{Request, Response};
use crate::time::Moment;
use std::time::Duration;

/// What happens on the wire of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A whole answer.
    Answer {
        /// How long it takes.
        after: Duration,
        /// It.
        response: Response,
    },
    /// Nobody listens.
    Refused,
    /// Nobody says so.
    ConnectTimeout {
        /// The cluster's connect timeout.
        after: Duration,
    },
    /// The connection ends before an answer begins.
    CutBeforeHeaders {
        /// When.
        after: Duration,
    },
    /// The connection ends in the middle of the answer's body.
    CutAfterHeaders {
        /// When.
        after: Duration,
        /// What was sent of it.
        response: Response,
    },
    /// Bytes that are no HTTP.
    Garbage {
        /// When.
        after: Duration,
    },
    /// No answer, ever.
    Silence,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A sender's request, through the router.
    Live(crate::StreamId),
    /// A guest's call.
    Dispatch(crate::VmId, crate::CallToken),
    /// A guest's call by way of an internal listener: the stream that it is there, through that listener's router.
    Through(crate::StreamId, crate::VmId, crate::CallToken),
}

impl Origin {
    /// Whose wire it is: of a call that went through a listener, its stream's.
    pub(crate) const fn of_wire(self) -> Self {
        match self {
            Self::Through(stream, ..) => Self::Live(stream),
            Self::Live(_) | Self::Dispatch(..) => self,
        }
    }
}

/// All receivers of a test: they see whole requests, and say what the wire does.
pub trait Receivers: Send {
    /// A whole request arrives at `cluster`, or would.
    fn exchange(&mut self, cluster: &str, origin: Origin, request: &Request, now: Moment) -> Exchange;

    /// The head of a request arrives whose body is still to come. `Some`: the receiver does not wait for it.
    fn early(&mut self, cluster: &str, origin: Origin, head: &Request, now: Moment) -> Option<Exchange> {
        let _ = (cluster, origin, head, now);
        None
    }
}

/// `response.code_details` of an answer that is the receiver's own.
pub(crate) const VIA_UPSTREAM: &str = "via_upstream";

/// How long a receiver has for its answer, in milliseconds.
pub(crate) const EXPECTED_TIMEOUT: &str = "x-envoy-expected-rq-timeout-ms";

/// How one attempt of a request ended, as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(Response),
    /// An answer that is cut after its headers.
    Broken(Response),
    Failed(Failure),
    /// Envoy answers in the receiver's place, for a reason that it found on a new connection only.
    Replied {
        reply: Response,
        details: &'static str,
        flags: u64,
    },
}

/// The ways in which no answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused,
    ConnectTimeout,
    Cut,
    Garbage,
    Timeout,
}

/// How often a request had been sent when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tries {
    One,
    Several,
}

/// `response.flags` (CoreResponseFlag of Envoy's stream_info.h, bit = ordinal).
pub(crate) mod flag {
    /// UH.
    pub const NO_HEALTHY_HOST: u64 = 1 << 1;
    /// UT.
    pub const TIMEOUT: u64 = 1 << 2;
    /// UF.
    pub const CONNECTION_FAILURE: u64 = 1 << 5;
    /// UC.
    pub const CONNECTION_TERMINATION: u64 = 1 << 6;
    /// UO.
    pub const OVERFLOW: u64 = 1 << 7;
    /// NR.
    pub const NO_ROUTE: u64 = 1 << 8;
    /// DC.
    pub const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
    /// URX.
    pub const RETRY_LIMIT_EXCEEDED: u64 = 1 << 15;
    /// UPE.
    pub const PROTOCOL_ERROR: u64 = 1 << 23;
    /// NC.
    pub const NO_CLUSTER: u64 = 1 << 25;
}

impl Failure {
    /// The status of Envoy's own answer.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Refused | Self::ConnectTimeout | Self::Cut => 503,
            Self::Garbage => 502,
            Self::Timeout => 504,
        }
    }

    /// Its flag.
    pub(crate) const fn flags(self) -> u64 {
        match self {
            Self::Refused | Self::ConnectTimeout => flag::CONNECTION_FAILURE,
            Self::Cut => flag::CONNECTION_TERMINATION,
            Self::Garbage => flag::PROTOCOL_ERROR,
            Self::Timeout => flag::TIMEOUT,
        }
    }

    /// The reason in its text and in the details.
    const fn reason(self) -> &'static str {
        match self {
            Self::Refused => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Cut => "connection termination",
            Self::Garbage => "protocol error",
            Self::Timeout => "response timeout",
        }
    }

    /// Its text.
    pub(crate) fn text(self, tries: Tries) -> String {
        let reset = match tries {
            Tries::One => "reset reason",
            Tries::Several => "retried and the latest reset reason",
        };
        match self {
            Self::Refused | Self::ConnectTimeout | Self::Cut | Self::Garbage => {
                format!("upstream connect error or disconnect/reset before headers. {reset}: {}", self.reason())
            }
            Self::Timeout => "upstream request timeout".to_owned(),
        }
    }

    /// `response.code_details`.
    pub(crate) fn details(self) -> String {
        let more = match self {
            Self::Timeout => return "response_timeout".to_owned(),
            Self::Refused => "|delayed_connect_error:_Connection_refused",
            Self::ConnectTimeout | Self::Cut | Self::Garbage => "",
        };
        format!("upstream_reset_before_response_started{{{}{more}}}", self.reason().replace(' ', "_"))
    }
}

impl Exchange {
    /// How the attempt ends, and after how long; `None`: never.
    pub(crate) fn outcome(self) -> Option<(Duration, Outcome)> {
        Some(match self {
            Self::Answer { after, response } => (after, Outcome::Answer(response)),
            Self::Refused => (Duration::ZERO, Outcome::Failed(Failure::Refused)),
            Self::ConnectTimeout { after } => (after, Outcome::Failed(Failure::ConnectTimeout)),
            Self::CutBeforeHeaders { after } => (after, Outcome::Failed(Failure::Cut)),
            Self::CutAfterHeaders { after, response } => (after, Outcome::Broken(response)),
            Self::Garbage { after } => (after, Outcome::Failed(Failure::Garbage)),
            Self::Silence => return None,
        })
    }
}

/// Only answers of a receiver carry it (PLATFORM 1.6), and those of an internal listener.
pub(crate) fn with_service_time(outcome: Outcome, after: Duration) -> Outcome {
    let stamp = |mut response: Response| {
        response.headers.set("x-envoy-upstream-service-time", after.as_millis().to_string());
        response
    };
    match outcome {
        Outcome::Answer(response) => Outcome::Answer(stamp(response)),
        Outcome::Broken(response) => Outcome::Broken(stamp(response)),
        Outcome::Failed(_) | Outcome::Replied { .. } => outcome,
    }
}
