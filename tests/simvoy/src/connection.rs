//! What a connection manager does to heads before the filters see a request and after they have let go of a response.
//!
//! | on the way in | on the way out |
//! | --- | --- |
//! | hop-by-hop headers and those that `connection` names go | the same go |
//! | `x-envoy-` headers that steer Envoy go: the sender is a stranger | `date` and `server` come |
//! | `x-forwarded-proto` and `x-request-id` come, in this order, at the end | `connection: close` comes if this is the last answer |
//!
//! Source: PLATFORM 1.11 and 1.8; their order: `stream::ingress_headers`. Framing is a codec's business and not modelled.

use crate::http::Headers;

/// Headers for the next hop only.
const HOP_BY_HOP: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Headers of a stranger that would steer Envoy (mutateRequestHeaders and cleanupInternalHeaders).
const STEERING: [&str; 16] = [
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-ms",
];

/// Whether the sender says that this is its last request on the connection.
pub(crate) fn wants_close(head: &Headers) -> bool {
    ["connection", "proxy-connection"].iter().any(|name| head.text(name).is_some_and(|value| value == "close"))
}

/// A request's head as the filters see it.
pub(crate) fn enter(mut head: Headers, random: &mut fastrand::Rng) -> Headers {
    if let Some(named) = head.text("connection").map(str::to_owned) {
        named.split(',').for_each(|name| head.remove(&name.trim().to_ascii_lowercase()));
    }
    let trailers_only = head.text("te") == Some("trailers");
    head.0.retain(|(name, _)| {
        let name = name.as_str();
        !HOP_BY_HOP.contains(&name) && !STEERING.contains(&name) && (name != "te" || trailers_only)
    });
    if head.first("x-forwarded-proto").is_none() {
        head.add("x-forwarded-proto", "http");
    }
    if head.first("x-request-id").is_none() {
        head.add("x-request-id", request_id(random));
    }
    head
}

/// A UUID: its length counts in the sizes that a guest can ask for.
fn request_id(random: &mut fastrand::Rng) -> String {
    let digits = format!("{:032x}", random.u128(..));
    let (parts, last) = digits.split_at(20);
    format!("{}-{}-{}-{}-{last}", &parts[..8], &parts[8..12], &parts[12..16], &parts[16..])
}

/// What becomes of the sender's connection behind a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    KeepAlive,
    Close,
}

/// A response's head as it goes to the codec.
pub(crate) fn leave(head: &mut Headers, wall_nanos: u64, then: Then) {
    head.0.retain(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()));
    if head.first("date").is_none() {
        head.add("date", date(wall_nanos));
    }
    head.set("server", "envoy");
    match then {
        Then::Close => head.add("connection", "close"),
        Then::KeepAlive => {}
    }
}

/// RFC 9110, section 5.6.7.
fn date(wall_nanos: u64) -> String {
    let seconds = wall_nanos / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month and day of a day after 1970-01-01 (the proleptic Gregorian calendar).
fn civil(days: u64) -> (u64, &'static str, u64) {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let months = [
        ("Jan", 31),
        ("Feb", 28 + u64::from(is_leap(year))),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
    ];
    for (month, length) in months {
        if left < length {
            return (year, month, left + 1);
        }
        left -= length;
    }
    (year, "Dec", left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_http_wants_it() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_208_000, "Thu, 29 Feb 2024 12:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
        ] {
            assert_eq!(date(seconds * 1_000_000_000), text);
        }
    }
}
