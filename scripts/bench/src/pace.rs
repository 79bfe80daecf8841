//! The other load generator: requests at a fixed rate, and how long each took.
//!
//! ```text
//!   due       |0        |1        |2        |3        ...   request n is due at start + n / rate, whatever came before
//!   sent       0───────────>       2──>
//!                           1──>            3──>           1 waited for its connection: it counts from when it was due
//! ```
//! Latency counts from the moment a request was due, so a pause of the server counts for every request that it delays,
//! and not for one only. Blocking threads, one per connection: a thread wakes within a tenth of a millisecond, a timer
//! of the runtime only within one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::failure::Failure;
use crate::load::{CONNECTIONS, Load, whole_answer};

/// No answer takes a hundredth of it; a hang ends.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Requests per second.
#[derive(Clone, Copy, Debug)]
pub struct Rate(pub f64);

/// Sends `load` to `port` at `rate` for as long as `span`; how long each request took, the shortest first.
pub async fn latencies(load: &Load, port: u16, rate: Rate, span: Duration) -> Result<Vec<Duration>, Failure> {
    let load = load.clone();
    let joined = spawn_blocking(move || all_connections(&load, port, rate, span)).await;
    let mut latencies = joined.map_err(|error| Failure::Connection { error: io::Error::other(error) })??;
    latencies.sort_unstable();
    Ok(latencies)
}

/// The smallest latency that this share of all did not exceed.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

fn all_connections(load: &Load, port: u16, rate: Rate, span: Duration) -> Result<Vec<Duration>, Failure> {
    let start = Instant::now();
    thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                let due = due_times(first, rate, span).map(move |after| start + after);
                scope.spawn(move || one_connection(load, port, due))
            })
            .collect();
        let mut latencies = Vec::new();
        for connection in connections {
            let ended = connection.join().map_err(|_| io::Error::other("a thread of the load generator panicked"));
            latencies.extend(ended.map_err(|error| Failure::Connection { error })??);
        }
        Ok(latencies)
    })
}

/// When the requests of one connection are due: each one of [`CONNECTIONS`], from `first` on.
fn due_times(first: u64, Rate(rate): Rate, span: Duration) -> impl Iterator<Item = Duration> {
    let count = (rate * span.as_secs_f64()) as u64;
    (first..count).step_by(CONNECTIONS as usize).map(move |number| Duration::from_secs_f64(number as f64 / rate))
}

fn one_connection(load: &Load, port: u16, due: impl Iterator<Item = Instant>) -> Result<Vec<Duration>, Failure> {
    let lost = |error| Failure::Connection { error };
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(lost)?;
    stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(ANSWER_WITHIN))).map_err(lost)?;
    let mut latencies = Vec::new();
    for due in due {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        exchange(load, &mut stream)?;
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}

fn exchange(load: &Load, stream: &mut TcpStream) -> Result<(), Failure> {
    let lost = |error| Failure::Connection { error };
    stream.write_all(load.request()).map_err(lost)?;
    let (mut buffer, mut length) = ([0; 4096], 0);
    loop {
        match stream.read(&mut buffer[length..]).map_err(lost)? {
            0 => return Err(lost(ErrorKind::UnexpectedEof.into())),
            more => length += more,
        }
        if let Some(head_length) = whole_answer(&buffer[..length]).map_err(lost)? {
            return load.check(&buffer[..head_length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_share_all_due_times() {
        let span = Duration::from_millis(100);
        let mut all: Vec<_> = (0..CONNECTIONS).flat_map(|first| due_times(first, Rate(1000.0), span)).collect();
        all.sort();
        assert_eq!(all, (0..100).map(Duration::from_millis).collect::<Vec<_>>());
    }

    #[test]
    fn a_percentile_is_a_latency_that_was_seen() {
        let seen: Vec<_> = (1..=10).map(Duration::from_millis).collect();
        let cases = [(0.9, 9), (0.91, 10), (0.5, 5), (1.0, 10)];
        for (share, millis) in cases {
            assert_eq!(percentile(&seen, share), Duration::from_millis(millis), "{share}");
        }
        assert_eq!(percentile(&[], 0.9), Duration::ZERO);
    }
}
