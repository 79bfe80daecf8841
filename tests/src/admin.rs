//! Envoy's admin port: the filter's metrics, the health of clusters, and what an operator can switch there.
//!
//! It blocks, because Envoy is another process and answers within milliseconds, and because a failing test reads its
//! evidence while it unwinds. It never caches: each call is one look.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The admin port answers from the main thread, which compiles new VMs too: generous, still a hang if reached.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The admin port of one Envoy.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    port: u16,
}

impl Admin {
    /// The admin interface on `port` of the loopback interface.
    pub fn new(port: u16) -> Admin {
        Admin { port }
    }

    /// `GET path`: the body of a 200.
    pub fn get(&self, path: &str) -> io::Result<String> {
        self.call("GET", path)
    }

    /// `POST path`: the body of a 200.
    pub fn post(&self, path: &str) -> io::Result<String> {
        self.call("POST", path)
    }

    /// One stat by its full name; 0 if Envoy has not made it yet, as Envoy makes many on first use.
    pub fn stat(&self, name: &str) -> u64 {
        let text = self.get(&format!("/stats?filter=^{}$", name.replace('.', "\\."))).expect("the admin port answers");
        text.lines().find_map(|line| line.split_once(": ")?.1.parse().ok()).unwrap_or_default()
    }

    /// Every metric of the filter, now.
    pub fn metrics(&self) -> Metrics {
        self.try_metrics().expect("the admin port answers")
    }

    /// As `metrics`, for those who must not panic.
    pub fn try_metrics(&self) -> io::Result<Metrics> {
        Ok(Metrics::parse(&self.get("/stats?filter=^wasmcustom\\.redeliver_")?))
    }

    fn call(&self, method: &str, path: &str) -> io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(format!("{method} {path}: {head}: {body}")));
        }
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            dechunk(body)
        } else {
            Ok(body.to_owned())
        }
    }
}

fn dechunk(mut body: &str) -> io::Result<String> {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        if size == 0 {
            break;
        }
        whole.push_str(rest.get(..size).ok_or(ErrorKind::UnexpectedEof)?);
        body = rest.get(size + 2..).ok_or(ErrorKind::UnexpectedEof)?;
    }
    Ok(whole)
}

/// The filter's metrics at one moment, by their names in CONTRACT section 9 without the prefix.
#[derive(Clone, Default)]
pub struct Metrics {
    values: BTreeMap<String, u64>,
    histograms: BTreeMap<String, String>,
}

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident = $stat:literal;)*) => {
        /// Counters and gauges that the contract names.
        pub const NUMBERS: &[&str] = &[$($stat),*];
        impl Metrics {
            $($(#[$doc])* pub fn $name(&self) -> u64 { self.value($stat) })*
        }
    };
}

readers! {
    /// Requests that the match rule chose.
    protected = "protected_total";
    /// Messages taken into custody.
    stored = "stored_total";
    /// Failed protected requests that were not stored.
    not_stored = "not_stored_total";
    /// Messages whose redelivery was answered 2xx.
    delivered = "delivered_total";
    /// Redelivery attempts.
    attempts = "attempts_total";
    /// Redelivery attempts that failed.
    attempt_failures = "attempt_failures_total";
    /// Messages that became dead letters.
    dead_lettered = "dead_lettered_total";
    /// Of these, because their time to live was over.
    expired = "expired_total";
    /// Dead letters removed because their own time was over.
    dead_expired = "dead_expired_total";
    /// Messages removed by an operator.
    removed = "removed_total";
    /// Requests joined to a stored message by their key.
    duplicates_joined = "duplicates_joined_total";
    /// Records that could not be read back.
    corrupt = "corrupt_total";
    /// Messages waiting or in flight.
    queued = "queued";
    /// Bytes they take.
    queued_bytes = "queued_bytes";
    /// Dead letters kept.
    dead = "dead";
    /// Redeliveries without an answer yet.
    in_flight = "in_flight";
    /// Age of the oldest waiting message, in milliseconds.
    oldest_age_ms = "oldest_age_ms";
    /// Destinations in state down.
    destinations_down = "destinations_down";
    /// 1 when hold was asked and stream is running.
    capture_degraded = "capture_degraded";
}

/// The histogram that the contract names.
pub const HISTOGRAM: &str = "delivery_delay_ms";

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for (name, value) in
            text.lines().filter_map(|line| line.strip_prefix("wasmcustom.redeliver_")?.split_once(": "))
        {
            match value.parse() {
                Ok(number) => drop(metrics.values.insert(name.to_owned(), number)),
                Err(_) => drop(metrics.histograms.insert(name.to_owned(), value.to_owned())),
            }
        }
        metrics
    }

    fn value(&self, name: &str) -> u64 {
        self.values.get(name).copied().unwrap_or_default()
    }

    /// The names of all metrics that exist, histograms included.
    pub fn names(&self) -> Vec<&str> {
        self.values.keys().chain(self.histograms.keys()).map(String::as_str).collect()
    }

    /// Whether nothing is on its way and every stored message is accounted for (CONTRACT section 9: stored =
    /// delivered + dead + dead_expired + removed + queued). Gauges may lag behind counters by a tick, so neither alone is enough.
    pub fn at_rest(&self) -> bool {
        let settled = self.delivered() + self.dead() + self.dead_expired() + self.removed();
        self.queued() == 0 && self.in_flight() == 0 && self.stored() == settled
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers =
            self.values.iter().filter(|(_, value)| **value != 0).map(|(name, value)| format!("{name} {value}"));
        write!(f, "[{}]", numbers.collect::<Vec<_>>().join(", "))
    }
}
