//! Reading the answer to a redelivered gRPC call. Its status is in the headers if nothing else came, otherwise in the
//! trailers.
//!
//! | the answer | is read as |
//! | --- | --- |
//! | HTTP 200 with a `grpc-status` of the receiver | that status |
//! | HTTP 200 with one of Envoy's own, its text in `grpc-message` (measured: 14 for all of its 503 and 504) | Envoy's reply |
//! | HTTP 2xx without any | UNKNOWN: whoever made it does not speak for the receiver |
//! | another HTTP status | as for any other message |
//!
//! How long to wait with the next attempt may stand beside the status: in either place.

use super::sending::{Reply, Way, read_reply};
use crate::answer::{Answer, EnvoyReply};
use crate::grpc::GRPC_STATUS;
use crate::headers::HeaderList;
use crate::neighbours::has_custody;
use crate::retry_after::asked_wait;
use crate::units::{Millis, Wall};

/// What a client makes of a call without a status ("Statuses and their use in gRPC").
const UNKNOWN: u16 = 2;
/// What Envoy makes of its 504 ("HTTP to gRPC Status Code Mapping" makes it UNAVAILABLE too), and of its 503.
const DEADLINE_EXCEEDED: u16 = 4;
const UNAVAILABLE: u16 = 14;

pub(super) fn read_call(reply: &Reply<'_>, way: Way<'_>) -> Answer {
    if reply.headers.first(":status") != Some(b"200") {
        return read_other(reply, way);
    }
    let end = End::of(reply);
    if [&reply.headers, &end.trailers].into_iter().any(|part| has_custody(part, way.receivers)) {
        return Answer::TakenOver(end.status);
    }
    envoys_word(reply, &end, way).map_or(Answer::ReceivedGrpc(end.status), Answer::Envoy)
}

/// The wait that a failed call asks for at `wall`, in its headers or its trailers; with both, the longer one.
pub(super) fn wait_of_call(reply: &Reply<'_>, wall: Wall) -> Millis {
    asked_wait(&reply.headers, wall).max(asked_wait(&(reply.trailers)(), wall))
}

fn read_other(reply: &Reply<'_>, way: Way<'_>) -> Answer {
    match read_reply(reply, way) {
        Answer::Received(200..=299) => Answer::ReceivedGrpc(UNKNOWN),
        answer @ (Answer::Received(_)
        | Answer::Envoy(_)
        | Answer::ReceivedGrpc(_)
        | Answer::TakenOver(_)
        | Answer::BrokenOff
        | Answer::RefusedLocally
        | Answer::UnknownCluster) => answer,
    }
}

/// How a call ended.
struct End {
    status: u16,
    message: Vec<u8>,
    /// Empty if the headers said it all.
    trailers: HeaderList,
}

impl End {
    fn of(reply: &Reply<'_>) -> Self {
        let is_said = reply.headers.first(GRPC_STATUS).is_some();
        let trailers = if is_said { HeaderList::default() } else { (reply.trailers)() };
        let find = |name: &str| reply.headers.first(name).or_else(|| trailers.first(name));
        let status = find(GRPC_STATUS).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(UNKNOWN);
        let message = find("grpc-message").unwrap_or_default().to_vec();
        Self { status, message, trailers }
    }
}

/// What Envoy said in the receiver's place: the one that sent it, or the router behind the listener that it went through.
fn envoys_word(reply: &Reply<'_>, end: &End, way: Way<'_>) -> Option<EnvoyReply> {
    let like = match end.status {
        DEADLINE_EXCEEDED => 504,
        UNAVAILABLE => 503,
        _ => return None,
    };
    let is_received = reply.headers.first("x-envoy-upstream-service-time").is_some();
    match (is_received, way.through) {
        (true, Some(_)) => EnvoyReply::recognise(like, &end.message),
        (true, None) => None,
        (false, Some(_) | None) => end.trailers.is_empty().then(|| EnvoyReply::read(like, &end.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const RECEIVED: (&str, &str) = ("x-envoy-upstream-service-time", "3");
    const REFUSED: &str =
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        fields.iter().copied().collect()
    }

    fn check(text: &str, headers: &[(&str, &str)], trailers: &[(&str, &str)]) -> Answer {
        let config = crate::config::parse(text.as_bytes()).unwrap();
        let trailers = || list(trailers);
        let way = Way { receivers: config.trust.receivers, through: config.shared.redelivery.through.as_ref() };
        read_call(&Reply { headers: list(headers), body: &Vec::new, trailers: &trailers }, way)
    }

    #[test]
    fn a_status_is_found_where_it_is() {
        let ok = (":status", "200");
        assert_eq!(check("", &[ok, RECEIVED], &[("grpc-status", "0")]), Answer::ReceivedGrpc(0));
        assert_eq!(check("", &[ok, RECEIVED, ("grpc-status", "5")], &[("grpc-status", "0")]), Answer::ReceivedGrpc(5));
        assert_eq!(check("", &[ok, RECEIVED], &[("grpc-status", "many")]), Answer::ReceivedGrpc(UNKNOWN));
        assert_eq!(check("", &[ok, RECEIVED], &[]), Answer::ReceivedGrpc(UNKNOWN));
        assert_eq!(check("", &[(":status", "204"), RECEIVED], &[]), Answer::ReceivedGrpc(UNKNOWN));
        assert_eq!(check("", &[(":status", "404"), RECEIVED], &[]), Answer::Received(404));
        assert_eq!(check("", &[], &[]), Answer::BrokenOff);
    }

    #[test]
    fn a_wish_to_wait_is_heard_in_the_headers_and_in_the_trailers() {
        let check = |headers: &[(&str, &str)], trailers: &[(&str, &str)]| {
            let (headers, trailers) = (list(headers), list(trailers));
            let reply = Reply { headers, body: &Vec::new, trailers: &|| trailers.clone() };
            wait_of_call(&reply, Wall(1_000))
        };
        let (ok, status) = ((":status", "200"), ("grpc-status", "14"));
        let pushback = |millis| ("grpc-retry-pushback-ms", millis);
        assert_eq!(check(&[ok, status, pushback("1500")], &[]), Millis(1_500), "trailers only");
        assert_eq!(check(&[ok], &[status, pushback("1500")]), Millis(1_500), "behind the headers");
        assert_eq!(check(&[ok, ("retry-after", "1")], &[status, pushback("1500")]), Millis(1_500), "the longer one");
        assert_eq!(check(&[ok], &[status, pushback("soon")]), Millis::ZERO);
        assert_eq!(check(&[ok], &[status]), Millis::ZERO);
    }

    #[test]
    fn envoys_own_word_is_told_from_the_receivers() {
        let unavailable = [(":status", "200"), ("grpc-status", "14"), ("grpc-message", REFUSED)];
        let received = [unavailable.as_slice(), &[RECEIVED]].concat();
        const THROUGH: &str = r#"{"redelivery": {"through": "again"}}"#;
        let not_reached = Answer::Envoy(EnvoyReply::NotReached);
        assert_eq!(check("", &unavailable, &[]), not_reached);
        assert_eq!(check(THROUGH, &unavailable, &[]), not_reached);
        assert_eq!(check("", &received, &[]), Answer::ReceivedGrpc(14), "a receiver may say what it likes");
        assert_eq!(check(THROUGH, &received, &[]), not_reached);
        let own = [(":status", "200"), ("grpc-status", "14"), ("grpc-message", "not now"), RECEIVED];
        assert_eq!(check(THROUGH, &own, &[]), Answer::ReceivedGrpc(14));
    }

    #[test]
    fn a_neighbours_word_is_found_beside_the_status() {
        const TRUSTING: &str = r#"{"trust": {"from_receivers": true}}"#;
        let stored = [("grpc-status", "14"), ("x-redeliver-status", "stored")];
        let headers = [(":status", "200"), RECEIVED];
        assert_eq!(check(TRUSTING, &headers, &stored), Answer::TakenOver(14));
        assert_eq!(check(TRUSTING, &[headers.as_slice(), &stored].concat(), &[]), Answer::TakenOver(14));
        assert_eq!(check("", &headers, &stored), Answer::ReceivedGrpc(14));
    }
}
