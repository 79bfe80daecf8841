//! What the host knows of the current stream beside its headers: the route that was chosen, and who made the answer. Each
//! fact is a host call, asked for when it matters.

use crate::host;
use redeliver_core::classify::{AnswerFacts, AnsweredBy, flag};
use redeliver_core::glance::Glance;
use redeliver_core::headers::HeaderList;
use redeliver_core::protect::{RouteFacts, RouteSwitch};
use redeliver_core::units::ClusterName;

/// What tells whether an answer is a failure, and whose: `headers` is the part of it that has its status.
pub fn answer_facts(status: u16, headers: &HeaderList) -> AnswerFacts {
    let flags = host::number_property("response\0flags").unwrap_or_default();
    // Only the router says that there is no healthy host, and with that it has answered.
    let is_receivers = flags & flag::NO_HEALTHY_HOST == 0
        && host::property("response\0code_details").as_deref() == Some(b"via_upstream");
    AnswerFacts {
        status,
        grpc_status: Glance::at(headers).grpc_status_code(),
        flags,
        answered_by: if is_receivers { AnsweredBy::Receiver } else { AnsweredBy::Envoy },
        attempts: attempts(flags),
    }
}

/// The router's count of attempts, which includes one that found no host; 0 if none ever found one. Where the last
/// found none, that is asked first: a property that is not there costs a third of one that is.
fn attempts(flags: u64) -> u64 {
    if flags & flag::NO_HEALTHY_HOST != 0 && host::property("upstream\0address").is_none() {
        return 0;
    }
    host::number_property("upstream\0request_attempt_count").unwrap_or_default()
}

/// The route that Envoy chose for the current stream.
pub struct Route;

impl RouteFacts for Route {
    fn cluster(&self) -> Option<ClusterName> {
        String::from_utf8(host::property("xds\0cluster_name")?).ok().filter(|name| !name.is_empty()).map(ClusterName)
    }

    fn switch(&self) -> RouteSwitch {
        const PATH: &str = "xds\0route_metadata\0filter_metadata\0redeliver\0enabled";
        match host::property(PATH).as_deref() {
            Some([1, ..] | b"true") => RouteSwitch::Enabled,
            Some([0, ..] | b"false") => RouteSwitch::Disabled,
            Some(_) | None => RouteSwitch::Unset,
        }
    }
}
