//! What an active health source says, and the question that it is asked.
//!
//! Input: cluster GS percent GS stats of the admin port GS headers of a health listener's answer GS template of the path.

use crate::input::Sections;
use redeliver_core::cells::Verdict;
use redeliver_core::config;
use redeliver_core::headers::HeaderList;
use redeliver_core::health::{
    Poll, health_check_path, percent_encode, read_admin_stats, read_health_check, request, timeout,
};
use redeliver_core::units::ClusterName;

/// Shares of larger numbers saturate; no Envoy has so many hosts.
const HOSTS_MAX: u64 = 1 << 56;

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    let cluster = ClusterName(sections.text());
    let percent = 1 + (sections.number() % 100) as u32;
    check_stats(sections.bytes(), &cluster, percent);
    check_health_check(&sections.headers());
    check_path(&sections.text(), &cluster);
}

fn check_stats(text: &[u8], cluster: &ClusterName, percent: u32) {
    let gauge = |name: &str| second_reading(text, &format!("cluster.{}.{name}", cluster.0.replace(':', "_")));
    let expected = match (gauge("membership_healthy"), gauge("membership_total")) {
        (Some(healthy), Some(total)) if healthy.max(total) > HOSTS_MAX => return,
        (Some(0), Some(_)) => Poll::Says(Verdict::Unhealthy),
        (Some(healthy), Some(total)) if healthy * 100 >= total * u64::from(percent) => Poll::Says(Verdict::Healthy),
        (Some(_), Some(_)) => Poll::Says(Verdict::Unhealthy),
        (None, _) | (_, None) => Poll::Unknown,
    };
    assert_eq!(read_admin_stats(text, cluster, percent), expected, "{cluster} {percent} %");
}

/// The number behind `name: ` on the first line that has it: digits, with white space around them at most. A sign in front
/// is Rust's habit and not Envoy's; it is read and does no harm.
fn second_reading(text: &[u8], name: &str) -> Option<u64> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(format!("{name}: ").as_bytes()))?;
    let digits = std::str::from_utf8(value).ok()?.trim();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// Only a 200, or a 503 that the health check filter made for a cluster, is an opinion.
fn check_health_check(headers: &HeaderList) {
    let is_there = |name: &str| headers.first(name).is_some();
    let status = headers.first(":status").unwrap_or_default();
    let is_filters = is_there("x-envoy-upstream-service-time") && !is_there("x-envoy-immediate-health-check-fail");
    let expected = match status {
        b"200" => Some(Verdict::Healthy),
        b"503" if is_filters => Some(Verdict::Unhealthy),
        _ => None,
    };
    let said = match read_health_check(headers) {
        Poll::Says(verdict) => Some(verdict),
        Poll::Unknown | Poll::Unreachable => None,
    };
    assert_eq!(said, expected, "{headers:?}");
}

/// A cluster's name gets into the path as unreserved characters, and comes out of it again.
fn check_path(template: &str, cluster: &ClusterName) {
    let encoded = percent_encode(&cluster.0);
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    assert!(encoded.bytes().all(|byte| byte == b'%' || is_unreserved(byte)), "{encoded}");
    assert_eq!(percent_decode(encoded.as_bytes()), cluster.0.as_bytes());

    let text = serde_json::json!({"health": {"source": "health_check_filter", "path": template}}).to_string();
    let Ok(config) = config::parse(text.as_bytes()) else { return };
    let path = health_check_path(&config.shared.health, cluster);
    assert_eq!(path, template.split("{cluster}").collect::<Vec<_>>().join(&encoded));
    assert!(crate::wire::is_part_of_line(path.as_bytes()), "{path}");
    assert_eq!(request(&config.shared.health, path.clone()).first(":path"), Some(path.as_bytes()));
    assert!(timeout(&config.shared.health).0 > 0);
}

fn percent_decode(mut text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    while let Some((first, rest)) = text.split_first() {
        let digits = if *first == b'%' { rest.get(..2) } else { None };
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        text = if byte.is_some() { &rest[2..] } else { rest };
    }
    decoded
}
