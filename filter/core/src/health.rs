//! Envoy's own word about a cluster: what is asked, and what the answers mean (CONTRACT section 6).
//!
//! | source | asked | healthy | unhealthy | unknown |
//! | --- | --- | --- | --- | --- |
//! | `health_check_filter` | `GET <path>` of the health listener | 200 | 503 with `x-envoy-upstream-service-time` and without `x-envoy-immediate-health-check-fail` | all else |
//! | `admin` | `GET /stats` of the membership gauges | healthy share >= `min_healthy_percent` | below it | the cluster is not named, or no 200 |
//!
//! `unknown` is never an opinion about a destination: an Envoy that fails its own health check before it stops answers
//! 503 for every cluster, and an unreachable listener is Envoy's own 503.

use crate::cells::Verdict;
use crate::config::Health;
use crate::headers::HeaderList;
use crate::units::{ClusterName, Millis};

/// What a poll says about one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The source has an opinion.
    Says(Verdict),
    /// It has none, but it was reached.
    Unknown,
    /// It was not reached from this VM: another one may have more luck (the main thread cannot reach an internal
    /// listener, measured).
    Unreachable,
}

/// Reads an answer of the health listener.
#[must_use]
pub fn read_health_check(headers: &HeaderList) -> Poll {
    let is_proxied = headers.first("x-envoy-upstream-service-time").is_some();
    let is_leaving = headers.first("x-envoy-immediate-health-check-fail").is_some();
    match headers.first(":status") {
        Some(b"200") => Poll::Says(Verdict::Healthy),
        Some(b"503") if is_leaving => Poll::Unknown,
        Some(b"503") if is_proxied => Poll::Says(Verdict::Unhealthy),
        Some(b"503") | None => Poll::Unreachable,
        Some(_) => Poll::Unknown,
    }
}

/// Reads the admin port's stats for `cluster`.
#[must_use]
pub fn read_admin_stats(text: &[u8], cluster: &ClusterName, healthy_percent_min: u32) -> Poll {
    let healthy = gauge(text, cluster, "membership_healthy");
    let total = gauge(text, cluster, "membership_total");
    match (healthy, total) {
        (Some(healthy), Some(total)) => {
            let is_enough =
                healthy > 0 && healthy.saturating_mul(100) >= total.saturating_mul(u64::from(healthy_percent_min));
            Poll::Says(if is_enough { Verdict::Healthy } else { Verdict::Unhealthy })
        }
        (None, _) | (_, None) => Poll::Unknown,
    }
}

fn gauge(text: &[u8], cluster: &ClusterName, name: &str) -> Option<u64> {
    let wanted = format!("cluster.{}.{name}: ", stat_name(cluster));
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(wanted.as_bytes()))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// A cluster's name inside a stat's name: Envoy writes `:` as `_`.
fn stat_name(cluster: &ClusterName) -> String {
    cluster.0.replace(':', "_")
}

/// The path to ask for `cluster` on the health listener.
#[must_use]
pub fn health_check_path(health: &Health, cluster: &ClusterName) -> String {
    health.path.replace("{cluster}", &percent_encode(&cluster.0))
}

/// Unreserved characters of RFC 3986 2.3 stay, every other byte becomes `%XX`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// The query that names just the membership gauges: `filter` is a regular expression over stat names.
pub const ADMIN_PATH: &str = "/stats?filter=%5C.membership_(healthy%7Ctotal)$";

/// A `GET` of `path` for the health source.
#[must_use]
pub fn request(health: &Health, path: String) -> HeaderList {
    let pairs = [(":method", "GET".to_owned()), (":scheme", "http".to_owned()), (":path", path)];
    let authority = (":authority", health.cluster.0.clone());
    pairs.into_iter().chain([authority]).collect()
}

/// How long a poll may take: as long as the interval, so that polls never pile up; at most five seconds, so that a slow
/// interval does not hide a dead listener.
#[must_use]
pub fn timeout(health: &Health) -> Millis {
    health.interval.min(Millis(5_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn answer(status: &str, others: &[&str]) -> HeaderList {
        [(":status", status)].into_iter().chain(others.iter().map(|name| (*name, "1"))).collect()
    }

    #[test]
    fn only_a_proxied_503_of_a_staying_envoy_means_unhealthy() {
        const PROXIED: &str = "x-envoy-upstream-service-time";
        const LEAVING: &str = "x-envoy-immediate-health-check-fail";
        let cases = [
            (answer("200", &[PROXIED]), Poll::Says(Verdict::Healthy)),
            (answer("503", &[PROXIED]), Poll::Says(Verdict::Unhealthy)),
            (answer("503", &[PROXIED, LEAVING]), Poll::Unknown),
            (answer("503", &[]), Poll::Unreachable),
            (answer("404", &[PROXIED]), Poll::Unknown),
            (answer("504", &[]), Poll::Unknown),
            (HeaderList::default(), Poll::Unreachable),
        ];
        for (headers, expected) in cases {
            assert_eq!(read_health_check(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn membership_is_read_as_a_share() {
        let text =
            b"cluster.a.membership_healthy: 1\ncluster.a.membership_total: 4\ncluster.x_80.membership_healthy: 0\n\
                     cluster.x_80.membership_total: 0\ncluster.aa.membership_healthy: 9\n";
        let read = |cluster: &str, percent| read_admin_stats(text, &ClusterName(cluster.to_owned()), percent);
        assert_eq!(read("a", 25), Poll::Says(Verdict::Healthy));
        assert_eq!(read("a", 26), Poll::Says(Verdict::Unhealthy));
        assert_eq!(read("x:80", 1), Poll::Says(Verdict::Unhealthy), "no host at all");
        assert_eq!(read("aa", 1), Poll::Unknown, "half an answer");
        assert_eq!(read("missing", 1), Poll::Unknown);
    }

    #[test]
    fn a_clusters_name_is_percent_encoded_in_the_path() {
        let health =
            Health { path: "/c/{cluster}".to_owned(), ..crate::config::parse(b"{}").unwrap().shared.health.clone() };
        let name = ClusterName("outbound|80||a.b".to_owned());
        assert_eq!(health_check_path(&health, &name), "/c/outbound%7C80%7C%7Ca.b");
    }
}
