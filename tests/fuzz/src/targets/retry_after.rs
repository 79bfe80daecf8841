//! The wait that an answer asks for: `Retry-After` in seconds or as a date, and `grpc-retry-pushback-ms`.
//!
//! Input: wall clock in ms GS value.

use crate::input::Sections;
use redeliver_core::config::Backoff;
use redeliver_core::headers::HeaderList;
use redeliver_core::random::Random;
use redeliver_core::retry_after::{ASKED_MAX, asked_wait, http_date, pushback, retry_after};
use redeliver_core::units::{Millis, Permille, Wall};

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    let (wall, value) = (Wall(sections.number() % (1 << 48)), sections.bytes());
    let wait = retry_after(value, wall);
    if let Some(wait) = wait {
        assert!(Millis::ZERO < wait && wait <= ASKED_MAX, "{wait} is no wait that is meant");
    }
    assert_eq!(wait.unwrap_or_default(), second_reading(value, wall), "{}", value.escape_ascii());
    assert_eq!(pushback(value), second_pushback(value), "{}", value.escape_ascii());
    let headers = HeaderList::of(&[(b"retry-after", value)]);
    assert_eq!(asked_wait(&headers, wall), wait.unwrap_or_default());
    check_due(wait.unwrap_or_default(), wall.0);
    check_date(wall);
}

/// Digits are seconds; a date is what a calendar of another making says.
fn second_reading(value: &[u8], wall: Wall) -> Millis {
    let text = String::from_utf8_lossy(value);
    let text = text.trim_ascii();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if value.len() > 64 || std::str::from_utf8(value).is_err() {
        0
    } else if is_number {
        text.parse::<u128>().unwrap_or(u128::MAX).saturating_mul(1_000)
    } else {
        date(text, wall).map_or(0, |at| u128::from(at.saturating_sub(wall.0)))
    };
    if wait <= u128::from(ASKED_MAX.0) { Millis(wait as u64) } else { Millis::ZERO }
}

/// Milliseconds; anything negative is for ever.
fn second_pushback(value: &[u8]) -> Option<Millis> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= 64)?.trim_ascii();
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())??;
    match sign {
        "-" => Some(Millis(u64::MAX)),
        _ => Some(Millis(number)).filter(|wait| *wait <= ASKED_MAX),
    }
}

/// A date by its separators, and the days before it by Hinnant's formula.
fn date(text: &str, wall: Wall) -> Option<u64> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let by_place = |places: [usize; 5]| places.map(|place| words[place]);
    let [weekday, day, month, year, time] = match words.len() {
        6 if words[5] == "GMT" => by_place([0, 1, 2, 3, 4]),
        5 => by_place([0, 2, 1, 4, 3]),
        _ => return None,
    };
    const DAYS: &str = "|Mon|Tue|Wed|Thu|Fri|Sat|Sun|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|";
    let is_day = !weekday.contains('|') && DAYS.contains(&format!("|{weekday}|"));
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = (0..12).find(|nth| &months[nth * 3..nth * 3 + 3] == month)? as i64 + 1;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let (day, year) = (number(day)?, full_year(year, number(year)?, wall)?);
    let clock: Vec<&str> = time.split(':').collect();
    let [hours, minutes, seconds] = clock.as_slice() else { return None };
    let two = |text: &str| number(text).filter(|_| text.len() == 2);
    let (hours, minutes, seconds) = (two(hours)?, two(minutes)?, two(seconds)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
    let is_real = is_day && (1..=last).contains(&day) && hours < 24 && minutes < 60 && seconds <= 60;
    let days = is_real.then(|| days_from_civil(year, month, day))?;
    u64::try_from(((days * 24 + hours) * 60 + minutes) * 60 + seconds).ok().map(|seconds| seconds * 1_000)
}

fn full_year(text: &str, year: i64, wall: Wall) -> Option<i64> {
    let this = 1970 + (wall.0 / 31_556_952_000) as i64;
    let year = match text.len() {
        4 => year,
        2 if this / 100 * 100 + year > this + 50 => this / 100 * 100 + year - 100,
        2 => this / 100 * 100 + year,
        _ => return None,
    };
    (1970..=9999).contains(&year).then_some(year)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let of_era = year - era * 400;
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Whatever is asked, the wait is never shorter than it (up to the cap) nor than our own, and bounded.
fn check_due(asked: Millis, seed: u64) {
    let backoff =
        Backoff { initial: Millis(1_000), max: Millis(60_000), multiplier: Permille(2_000), jitter: Permille(200) };
    let wait = redeliver_core::backoff::wait_as_asked(&backoff, 1, asked, &mut Random::seeded(seed));
    assert!(wait >= asked.min(backoff.max) && wait >= Millis(800), "{wait} after {asked} was asked");
    assert!(wait <= Millis(72_000), "{wait} after {asked} was asked");
}

/// Every moment reads back from the text that it is written as.
fn check_date(wall: Wall) {
    let days = (wall.0 / 86_400_000) as i64;
    let mut year = 1970 + days / 366;
    while days_from_civil(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_from_civil(year, *month, 1) <= days).unwrap_or(1);
    let day = days - days_from_civil(year, month, 1) + 1;
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1];
    let seconds = wall.0 / 1_000 % 86_400;
    let time = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let whole = Wall(wall.0 / 1_000 * 1_000);
    assert_eq!(http_date(&format!("Mon, {day:02} {name} {year} {time} GMT"), wall), (year <= 9999).then_some(whole));
    assert_eq!(http_date(&format!("Mon {name} {day:>2} {time} {year}"), wall), (year <= 9999).then_some(whole));
}
