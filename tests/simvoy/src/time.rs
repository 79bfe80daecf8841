//! Virtual time: a monotonic clock that only the event loop moves, and a wall clock that a test may set.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since the process was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The last one there is.
    pub const NEVER: Self = Self(u64::MAX);

    /// So many milliseconds after the beginning.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// This moment. Starts an hour after boot: a real monotonic clock is never near zero.
    pub now: Moment,
    /// What the wall clock shows beyond the monotonic one, in nanoseconds.
    wall_offset: i128,
}

/// Midnight of 2026-01-01 UTC, in nanoseconds since the epoch: any date will do, and this one never changes.
const WALL_START: i128 = 1_767_225_600_000_000_000;

impl Default for Clock {
    fn default() -> Self {
        Self { now: Moment::millis(3_600_000), wall_offset: WALL_START }
    }
}

impl Clock {
    /// Nanoseconds since the epoch; never negative and never too many, as the type of the call demands.
    #[must_use]
    pub fn wall(&self) -> u64 {
        u64::try_from(self.wall_offset.saturating_add(i128::from(self.now.0)).max(0)).unwrap_or(u64::MAX)
    }

    /// Moves the wall clock, and not the monotonic one.
    pub fn jump_wall(&mut self, nanos: i128) {
        self.wall_offset = self.wall_offset.saturating_add(nanos);
    }
}
