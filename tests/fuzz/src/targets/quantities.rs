//! Durations, sizes and decimal numbers of the configuration, against a second reading, and what they look like printed.
//!
//! Input: a text, tried as each kind of quantity.

use redeliver_core::config::{Config, parse};
use redeliver_core::units::{ByteCount, Millis, Permille};
use serde_json::{Value, json};

const YEAR: u128 = 365 * 24 * 3_600_000;
const STORE_BYTES_MAX: u128 = 64 << 30;

pub(super) fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    check_duration(&text);
    check_size(&text);
    check_decimal(&text);
}

fn accepted(group: &str, key: &str, value: &Value) -> Option<Config> {
    parse(json!({group: {key: value}}).to_string().as_bytes()).ok()
}

fn check_duration(text: &str) {
    let read = |text: &str| accepted("store", "ttl", &json!(text)).map(|config| config.shared.store.ttl);
    let span = read(text);
    let expected = second_reading(text, &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]);
    assert_eq!(span.map(|span| u128::from(span.0)), expected.filter(|ms| (1..=YEAR).contains(ms)), "{text:?}");
    let Some(span) = span else { return };
    assert_eq!(read(&span.to_string()), Some(span), "printed and read");
    assert_eq!(Millis(span.0).times(1).plus(Millis::ZERO), span);
}

fn check_size(text: &str) {
    let read = |value: Value| accepted("store", "max_bytes", &value).map(|config| config.shared.store.bytes_max);
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let is_one_part =
        text.trim_start_matches(|char: char| char.is_ascii_digit()).bytes().all(|byte| !byte.is_ascii_digit());
    let in_bounds = |bytes: &u128| (1..=STORE_BYTES_MAX).contains(bytes);
    let expected = second_reading(text, &units).filter(in_bounds).filter(|_| is_one_part);
    let size = read(json!(text));
    assert_eq!(size.map(|size| u128::from(size.0)), expected, "{text:?}");
    if let Some(size) = size {
        assert_eq!(read(json!(size.to_string())), Some(size), "printed and read");
        assert_eq!(read(json!(size.0)), Some(size), "as a number of bytes");
    }
    if let Ok(number) = text.parse::<u64>() {
        assert_eq!(read(json!(number)), Some(ByteCount(number)).filter(|size| in_bounds(&size.0.into())));
    }
}

/// Parts of digits and a unit, the units in this order and each at most once, at least one part.
fn second_reading(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let (mut rest, mut total, mut parts) = (text, 0_u128, 0);
    for (unit, size) in units {
        let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        let behind = rest[end..].strip_prefix(unit);
        let Some(behind) = behind.filter(|text| end > 0 && !text.starts_with(|char: char| !char.is_ascii_digit()))
        else {
            continue;
        };
        let digits = rest[..end].trim_start_matches('0');
        // Beyond 64 bits every part is beyond every bound; so is the sum then.
        let number: u128 = if digits.len() > 20 { u128::from(u64::MAX) + 1 } else { digits.parse().unwrap_or(0) };
        total += number * size;
        parts += 1;
        rest = behind;
    }
    (rest.is_empty() && parts > 0).then_some(total)
}

/// A multiplier is a number with three decimals at most, from 1 to 100.
fn check_decimal(text: &str) {
    let read = |text: &str| {
        let config = format!("{{\"redelivery\":{{\"backoff\":{{\"multiplier\":{text}}}}}}}");
        parse(config.as_bytes()).ok().map(|config| config.shared.redelivery.backoff.multiplier)
    };
    if serde_json::from_str::<Value>(text).is_err() {
        // It would be another text than a value between two braces.
        return;
    }
    let Some(multiplier) = read(text) else { return };
    assert!((1_000..=100_000).contains(&multiplier.0), "{text}");
    assert_eq!(read(&multiplier.to_string()), Some(multiplier), "printed and read");
    let number: f64 = text.trim().parse().unwrap_or(f64::NAN);
    assert!((number * 1_000.0 - f64::from(multiplier.0)).abs() < 1e-5, "{text} is not {multiplier}");
    assert_eq!(Permille(1_000).of(u64::from(multiplier.0)), u64::from(multiplier.0));
}
