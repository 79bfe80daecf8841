//! What receivers say when they refuse a redelivery: any status of the contract's table, and a wait that they ask for in
//! every form that is one, and in many that are none.
//!
//! A [`Wish`] is what was meant; the text on the wire is made from it here, and read by nobody but the filter.

use super::Receiving;
use simvoy::{Exchange, Response};
use std::time::Duration;

/// How long a receiver wants to be left alone with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// It did not say, or nothing that means anything.
    #[default]
    None,
    /// So long, from its answer on.
    For(Duration),
    /// Until this moment of the wall clock, in milliseconds; it may be past, or absurdly far.
    Until(u64),
}

/// A wait beyond a year is a mistake: no message is kept so long (`store.ttl` is a year at most).
const MEANT_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

impl Wish {
    /// The wait that it asks for at this moment of the wall clock; `None`: our own backoff.
    #[must_use]
    pub fn wait(self, wall_millis: u64) -> Option<Duration> {
        let wait = match self {
            Self::None => Duration::ZERO,
            Self::For(wait) => wait,
            Self::Until(millis) => Duration::from_millis(millis.saturating_sub(wall_millis)),
        };
        (wait > Duration::ZERO && wait <= MEANT_MAX).then_some(wait)
    }
}

/// Statuses by what becomes of a message: tried again, or not. Successes are the receiver's own to say.
const STATUSES: [u16; 26] = [
    408, 425, 429, 429, 500, 501, 502, 503, 503, 504, 505, 507, 599, 300, 301, 304, 307, 400, 404, 409, 410, 422, 451,
    401, 401, 403,
];

/// What means nothing: our own backoff counts.
const GARBAGE: [&str; 12] = [
    "-5",
    "+5",
    "1.5",
    "soon",
    "5s",
    "0",
    "31536001",
    "99999999999999999999999",
    "Sun, 31 Feb 2027 00:00:00 GMT",
    "Someday, 06 Nov 2094 08:49:37 GMT",
    "Sun, 06 Nov 2094 25:49:37 GMT",
    "\u{fffd}\u{fffd}",
];

/// The words of all receivers of a history.
#[derive(Debug)]
pub struct Speech {
    receiving: Receiving,
    random: fastrand::Rng,
}

impl Speech {
    /// Says nothing special unless `receiving` says so.
    #[must_use]
    pub fn new(receiving: Receiving, seed: u64) -> Self {
        Self { receiving, random: fastrand::Rng::with_seed(seed ^ 0x7370_6565_6368) }
    }

    /// A refusal in other words, and the wait that it asks for. Everything else stays as it is.
    pub fn reword(&mut self, exchange: Exchange, wall_millis: u64) -> (Exchange, Wish) {
        match exchange {
            Exchange::Answer { after, response } if response.code() >= 300 => {
                let (response, wish) = self.refusal(response, wall_millis);
                (Exchange::Answer { after, response }, wish)
            }
            Exchange::Answer { .. }
            | Exchange::Refused
            | Exchange::ConnectTimeout { .. }
            | Exchange::CutBeforeHeaders { .. }
            | Exchange::CutAfterHeaders { .. }
            | Exchange::Garbage { .. }
            | Exchange::Silence => (exchange, Wish::None),
        }
    }

    fn refusal(&mut self, mut response: Response, wall_millis: u64) -> (Response, Wish) {
        if self.receiving.says_anything && self.random.u32(..3) == 0 {
            let status = STATUSES[self.random.usize(..STATUSES.len())];
            response.headers.set(":status", status.to_string());
        }
        if !self.receiving.asks || self.random.u32(..3) == 0 {
            return (response, Wish::None);
        }
        let (text, wish) = self.wish(wall_millis);
        (response.header("retry-after", &text), wish)
    }

    fn wish(&mut self, wall_millis: u64) -> (String, Wish) {
        let seconds = [self.random.u64(1..5), self.random.u64(5..40), 3_600, 31_536_000][self.random.usize(..4)];
        match self.random.u32(..8) {
            0..3 => (seconds.to_string(), Wish::For(Duration::from_secs(seconds))),
            3..6 => self.date(wall_millis / 1_000 + seconds),
            // A past moment, and one beyond all sense.
            6 => {
                let moment =
                    if self.random.bool() { (wall_millis / 1_000).saturating_sub(seconds) } else { 253_000_000_000 };
                self.date(moment)
            }
            _ => (GARBAGE[self.random.usize(..GARBAGE.len())].to_owned(), Wish::None),
        }
    }

    /// A moment of the wall clock, in whole seconds, in one of the forms of RFC 9110 5.6.7 that name the whole year.
    fn date(&mut self, seconds: u64) -> (String, Wish) {
        let date = Date::of(seconds);
        let text = if self.random.bool() { date.by_rfc_9110() } else { date.by_asctime() };
        (text, Wish::Until(seconds * 1_000))
    }
}

/// A moment, taken apart.
struct Date {
    weekday: usize,
    day: u64,
    month: usize,
    year: u64,
    second_of_day: u64,
}

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: u64 = 86_400;

impl Date {
    /// 1 January 1970 was a Thursday. Years are counted off one by one: there are few.
    fn of(seconds: u64) -> Self {
        let days = seconds / DAY;
        let (mut year, mut day) = (1970, days);
        while day >= year_days(year) {
            day -= year_days(year);
            year += 1;
        }
        let mut month = 0;
        while day >= month_days(year, month) {
            day -= month_days(year, month);
            month += 1;
        }
        Self { weekday: (days % 7) as usize, day: day + 1, month, year, second_of_day: seconds % DAY }
    }

    fn time(&self) -> String {
        let seconds = self.second_of_day;
        format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
    }

    fn by_rfc_9110(&self) -> String {
        let (weekday, month) = (WEEKDAYS[self.weekday], MONTHS[self.month]);
        format!("{weekday}, {:02} {month} {:04} {} GMT", self.day, self.year, self.time())
    }

    fn by_asctime(&self) -> String {
        let (weekday, month) = (WEEKDAYS[self.weekday], MONTHS[self.month]);
        format!("{weekday} {month} {:2} {} {:04}", self.day, self.time(), self.year)
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn year_days(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

const fn month_days(year: u64, month: usize) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_rfc_writes_them() {
        let date = Date::of(784_111_777);
        assert_eq!(date.by_rfc_9110(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.by_asctime(), "Sun Nov  6 08:49:37 1994");
        assert_eq!(Date::of(951_782_400).by_rfc_9110(), "Tue, 29 Feb 2000 00:00:00 GMT");
    }

    #[test]
    fn a_wish_is_a_wait_by_the_clock_of_who_hears_it() {
        let day = Duration::from_secs(DAY);
        assert_eq!(Wish::For(day).wait(7), Some(day));
        assert_eq!(Wish::Until(10_000).wait(4_000), Some(Duration::from_secs(6)));
        assert_eq!(Wish::Until(10_000).wait(10_000), None, "past");
        assert_eq!(Wish::For(day * 366).wait(7), None, "a mistake");
        assert_eq!(Wish::None.wait(7), None);
    }
}
