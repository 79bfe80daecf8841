//! How long an answer asks us to wait: `Retry-After` (RFC 9110 10.2.3) and `grpc-retry-pushback-ms` (gRPC proposal A6).
//!
//! | value | wait |
//! | --- | --- |
//! | `Retry-After: 120` | 120 s |
//! | `Retry-After: Sun, 06 Nov 1994 08:49:37 GMT`, or one of the two obsolete forms of a date | until then, by the wall clock |
//! | zero, a moment in the past, negative, fractions, longer than [`ASKED_MAX`], anything else | none: our own backoff |
//! | `grpc-retry-pushback-ms: 1500` | 1.5 s |
//! | `grpc-retry-pushback-ms: -1` ("do not retry") | as long as we ever wait: who has custody cannot give up |
//!
//! Only reads: [`crate::backoff`] caps the wait and makes a due time of it. Total and bounded: a value that is longer than
//! any that means something is not looked at.

use crate::headers::HeaderList;
use crate::units::{Millis, Wall};

/// The longest wait that a receiver can ask for and mean: as long as the longest `store.ttl`, behind which no message is
/// left to be sent. More is a mistake of its clock or its units.
pub const ASKED_MAX: Millis = Millis(365 * 24 * 3_600 * 1_000);
/// "Do not retry": the longest wait there is; the cap makes it `backoff.max`.
const NEVER: Millis = Millis(u64::MAX);
/// The longest form of a date, `Wednesday, 09-Nov-94 08:49:37 GMT`, has 34 bytes.
const VALUE_BYTES_MAX: usize = 64;

/// The wait that these headers of an answer ask for at `wall`; zero if they ask for none. With both, the longer one.
#[must_use]
pub fn asked_wait(headers: &HeaderList, wall: Wall) -> Millis {
    let by_http = headers.first("retry-after").and_then(|value| retry_after(value, wall));
    let by_grpc = headers.first("grpc-retry-pushback-ms").and_then(pushback);
    by_http.max(by_grpc).unwrap_or_default()
}

/// Reads `Retry-After`; nothing if it asks for no wait that is meant.
#[must_use]
pub fn retry_after(value: &[u8], wall: Wall) -> Option<Millis> {
    let text = short_text(value)?;
    let wait = match digits(text) {
        Some(seconds) => Millis(seconds).times(1_000),
        None => http_date(text, wall)?.since(wall),
    };
    (Millis::ZERO < wait && wait <= ASKED_MAX).then_some(wait)
}

/// Reads `grpc-retry-pushback-ms`. gRPC takes garbage for "do not retry" too; here it is nothing, as with `Retry-After`.
#[must_use]
pub fn pushback(value: &[u8]) -> Option<Millis> {
    let text = short_text(value)?;
    if text.strip_prefix('-').and_then(digits).is_some() {
        return Some(NEVER);
    }
    digits(text).map(Millis).filter(|wait| *wait <= ASKED_MAX)
}

fn short_text(value: &[u8]) -> Option<&str> {
    if value.len() > VALUE_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(value).ok().map(str::trim_ascii)
}

/// A number of digits and nothing else (`parse` alone takes a sign too), if it has at most 64 bits.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

// --- dates --------------------------------------------------------------------------------------------------------

const SECOND: u64 = 1_000;
const DAY: u64 = 24 * 3_600 * SECOND;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Reads a date of RFC 9110 5.6.7 in any of its three forms; `wall` tells the century of a year with two digits. The day
/// of the week must be one, but need not be that date's.
#[must_use]
pub fn http_date(text: &str, wall: Wall) -> Option<Wall> {
    let parts: Vec<&str> = text.split([' ', ',', '-']).filter(|part| !part.is_empty()).collect();
    let (weekday, day, month, year, time) = match parts.as_slice() {
        [weekday, day, month, year, time, "GMT"] => (*weekday, *day, *month, *year, *time),
        [weekday, month, day, time, year] => (*weekday, *day, *month, *year, *time),
        _ => return None,
    };
    let is_weekday = WEEKDAYS.iter().any(|name| *name == weekday || name.get(..3) == Some(weekday));
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == month).map(|(number, _)| number)?;
    let date = Date { year: full_year(year, wall)?, month, day: digits(day)? };
    is_weekday.then_some(())?;
    Some(Wall(date.days_since_1970()?.checked_mul(DAY)?.checked_add(time_of_day(time)?)?))
}

/// A day of the calendar.
#[derive(Clone, Copy)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// Nothing for a day that does not exist, and for years that are not ours to wait for.
    fn days_since_1970(self) -> Option<u64> {
        let is_real = (1970..=9999).contains(&self.year) && (1..=self.month_days()).contains(&self.day);
        is_real.then_some(())?;
        let years: u64 = (1970..self.year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
        let months: u64 = (1..self.month).map(|month| Self { month, ..self }.month_days()).sum();
        years.checked_add(months)?.checked_add(self.day)?.checked_sub(1)
    }

    const fn month_days(self) -> u64 {
        match self.month {
            2 if is_leap(self.year) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// A year of four digits, or of two: then the one that is at most 50 years ahead (RFC 9110 5.6.7).
fn full_year(text: &str, wall: Wall) -> Option<u64> {
    const YEAR: u64 = 31_556_952 * SECOND; // the mean one: it is off by a day at most
    let year = digits(text)?;
    match text.len() {
        4 => Some(year),
        2 => {
            let this = (wall.0 / YEAR).checked_add(1970)?;
            let in_this_century = (this / 100).checked_mul(100)?.checked_add(year)?;
            let is_far = in_this_century > this.checked_add(50)?;
            if is_far { in_this_century.checked_sub(100) } else { Some(in_this_century) }
        }
        _ => None,
    }
}

/// `08:49:37` in milliseconds; a leap second is one more.
fn time_of_day(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(|part| digits(part).filter(|_| part.len() == 2));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let is_time = hours < 24 && minutes < 60 && seconds <= 60 && parts.next().is_none();
    is_time.then_some(())?;
    hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(60)?.checked_add(seconds)?.checked_mul(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110.
    const RFC: Wall = Wall(784_111_777_000);

    fn check(cases: &[(&str, Option<u64>)], read: impl Fn(&[u8]) -> Option<Millis>) {
        for (value, expected) in cases {
            assert_eq!(read(value.as_bytes()), expected.map(Millis), "{value:?}");
        }
    }

    #[test]
    fn seconds_are_a_wait_and_everything_that_is_not_meant_is_none() {
        let year = ASKED_MAX.0 / 1_000;
        check(
            &[
                ("1", Some(1_000)),
                (" 120 ", Some(120_000)),
                ("007", Some(7_000)),
                (&year.to_string(), Some(ASKED_MAX.0)),
                (&(year + 1).to_string(), None),
                ("0", None),
                ("-1", None),
                ("+1", None),
                ("1.5", None),
                ("1s", None),
                ("1, 2", None),
                ("", None),
                ("soon", None),
                ("18446744073709551615", None),
                ("99999999999999999999999999", None),
                (&"9".repeat(10_000), None),
                (&format!("{}1", "0".repeat(100)), None),
            ],
            |value| retry_after(value, RFC),
        );
        assert_eq!(retry_after(b"\xff\xfe", RFC), None);
    }

    #[test]
    fn a_date_is_a_wait_until_then_in_each_of_its_three_forms() {
        let ahead = |ms: u64| Wall(RFC.0 - ms);
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(http_date(date, RFC), Some(RFC), "{date}");
            assert_eq!(retry_after(date.as_bytes(), ahead(1_500)), Some(Millis(1_500)), "{date}");
            assert_eq!(retry_after(date.as_bytes(), RFC), None, "{date}: now is no wait");
            assert_eq!(retry_after(date.as_bytes(), RFC.after(Millis(1))), None, "{date}: past");
            assert_eq!(retry_after(date.as_bytes(), ahead(ASKED_MAX.0 + 1)), None, "{date}: too far ahead");
        }
    }

    #[test]
    fn a_day_or_a_time_that_does_not_exist_is_no_date() {
        let date = |text| http_date(text, RFC).is_some();
        assert!(date("Thu, 29 Feb 1996 00:00:00 GMT") && date("Sat, 31 Dec 2016 23:59:60 GMT"));
        for text in [
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 29 Feb 1995 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 06 Nov 0094 08:49:37 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 06 Nov 18446744073709551615 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert!(!date(text), "{text}");
        }
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_50_years_ahead() {
        let in_2026 = Wall(1_780_000_000_000);
        let year = |text: &str| http_date(&format!("Sunday, 01-Jan-{text} 00:00:00 GMT"), in_2026).map(|at| at.0 / DAY);
        assert_eq!(year("76"), http_date("Sun, 01 Jan 2076 00:00:00 GMT", in_2026).map(|at| at.0 / DAY));
        assert_eq!(year("77"), http_date("Sun, 01 Jan 1977 00:00:00 GMT", in_2026).map(|at| at.0 / DAY));
    }

    #[test]
    fn a_pushback_is_in_milliseconds_and_a_negative_one_is_the_longest_wait() {
        check(
            &[
                ("0", Some(0)),
                ("1500", Some(1_500)),
                ("-1", Some(u64::MAX)),
                ("-9223372036854775808", Some(u64::MAX)),
                ("--1", None),
                ("-", None),
                ("1e3", None),
                ("", None),
                ("18446744073709551615", None),
            ],
            pushback,
        );
    }

    #[test]
    fn of_two_waits_the_longer_one_is_asked_for() {
        let headers = |pairs: &[(&str, &str)]| pairs.iter().copied().collect();
        let both = headers(&[("retry-after", "2"), ("grpc-retry-pushback-ms", "500")]);
        assert_eq!(asked_wait(&both, RFC), Millis(2_000));
        assert_eq!(asked_wait(&headers(&[("retry-after", "x"), ("grpc-retry-pushback-ms", "9")]), RFC), Millis(9));
        assert_eq!(asked_wait(&headers(&[]), RFC), Millis::ZERO);
    }
}
