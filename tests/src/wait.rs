//! Waiting for something to become true: what, how long, and what was seen instead.
//!
//! This is the only place of the tests that sleeps between two looks; no test sleeps and then hopes.

use std::time::{Duration, Instant};

/// Time between two looks: short against every duration a test measures, long against one look at the admin port.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// For what takes well under a second on an idle machine; only a failing test waits that long.
pub const SOON: Duration = Duration::from_secs(10);

/// Looks until `look` returns a value, and returns it.
///
/// # Panics
/// After `within`, with `what` and the state that the last look reported.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > within => panic!("not within {within:?}: {what}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Watches for `during` that `look` never fails: for promises that something does *not* happen.
///
/// # Panics
/// At the first look that fails, with `what` and the state that it reported.
pub async fn throughout(what: &str, during: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while start.elapsed() < during {
        if let Err(seen) = look() {
            panic!("broken after {:?}: {what}; seen: {seen}", start.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
