//! Many messages stored and delivered, a thousand at a time, and how much a guest has grown: Envoy does not show a VM's
//! memory, and this host can.
//!
//! ```text
//!   unhealthy: 1,000 requests, each answered 202  ──>  healthy: all are delivered  ──>  again
//! ```
//! No faults and no oracle, so that a million messages take minutes; what must hold of a message is judged in `world`.

use crate::rules::Rules;
use crate::slots::VM_ID;
use serde_json::{Value, json};
use simvoy::{
    Cluster, End, Exchange, Generation, Happening, Headers, Module, Moment, Origin, Plugin, Process, Receivers,
    Request, Response, Settings, ThreadId, Upstream,
};
use std::time::Duration;

/// As large as a guest's share of a short outage.
const PER_CYCLE: u64 = 1_000;
const WORKERS: u32 = 2;
/// As the messages of the benchmarks.
const BODY: [u8; 1024] = [b'x'; 1024];
const CLUSTER: &str = "d0";
/// Of simulated time; a cycle takes some seconds of it.
const CYCLE_WITHIN: Duration = Duration::from_secs(120);
/// How often it is looked whether a cycle has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycled {
    /// Messages stored and delivered.
    pub delivered: u64,
    /// The largest guest's memory when everything was configured and nothing had happened.
    pub guest_bytes_start: usize,
    /// The same at the end.
    pub guest_bytes_end: usize,
}

impl Cycled {
    /// One line.
    #[must_use]
    pub fn to_json(self) -> Value {
        let Self { delivered, guest_bytes_start, guest_bytes_end } = self;
        json!({"delivered": delivered, "guest_bytes_start": guest_bytes_start, "guest_bytes_end": guest_bytes_end})
    }
}

/// Stores and delivers at least so many messages.
///
/// # Errors
/// A sentence, if a request was not stored or a message not delivered.
pub fn run(module: &Module, messages: u64) -> Result<Cycled, String> {
    let mut cycles = Cycles::new(module);
    let guest_bytes_start = cycles.process.memory_bytes_max();
    while cycles.delivered < messages {
        cycles.one()?;
    }
    let guest_bytes_end = cycles.process.memory_bytes_max();
    Ok(Cycled { delivered: cycles.delivered, guest_bytes_start, guest_bytes_end })
}

/// A receiver that takes everything.
struct Well;

impl Receivers for Well {
    fn exchange(&mut self, _: &str, _: Origin, _: &Request, _: Moment) -> Exchange {
        Exchange::Answer { after: Duration::from_millis(2), response: Response::status(200) }
    }
}

struct Cycles {
    process: Process,
    listener: Generation,
    delivered: u64,
}

impl Cycles {
    fn new(module: &Module) -> Self {
        let mut process = Process::new(module, Settings { workers: WORKERS, ..Settings::default() });
        let rules = Rules::default();
        process.set_cluster("redeliver_health", Cluster::internal(Upstream::HealthListener));
        process.set_cluster(CLUSTER, Cluster::default());
        process.set_routes(rules.routes());
        let listener = process.push(Some(Plugin::new(VM_ID, rules.configuration())));
        let mut cycles = Self { process, listener, delivered: 0 };
        cycles.process.run_for(&mut Well, LOOK_EVERY);
        cycles
    }

    fn one(&mut self) -> Result<(), String> {
        self.set_healthy(0);
        for number in 0..PER_CYCLE {
            let worker = ThreadId(1 + (number % u64::from(WORKERS)) as u32);
            let stream = self.process.open(worker, Some(self.listener), head(), End::More);
            self.process.send_body(stream, BODY.to_vec(), End::Last);
        }
        self.process.run_for(&mut Well, LOOK_EVERY);
        let answered =
            |happening: &Happening| matches!(happening, Happening::Answered { response, .. } if response.code() == 202);
        let stored = self.process.take_happenings().iter().filter(|happening| answered(happening)).count() as u64;
        if stored != PER_CYCLE {
            return Err(format!(
                "{stored} of {PER_CYCLE} requests were answered 202: {:?}",
                self.process.take_log().last()
            ));
        }
        self.set_healthy(1);
        self.deliver()
    }

    fn deliver(&mut self) -> Result<(), String> {
        let (due, limit) = (self.delivered + PER_CYCLE, self.process.now() + CYCLE_WITHIN);
        while self.process.metric("redeliver_delivered_total") < due {
            if self.process.now() > limit {
                let delivered = self.process.metric("redeliver_delivered_total");
                return Err(format!("after {CYCLE_WITHIN:?} {delivered} of {due} messages were delivered"));
            }
            self.process.run_for(&mut Well, LOOK_EVERY);
        }
        self.delivered = due;
        // What nobody takes is kept.
        drop((self.process.take_happenings(), self.process.take_log()));
        Ok(())
    }

    fn set_healthy(&mut self, healthy: u32) {
        self.process.with_cluster(CLUSTER, |cluster| cluster.healthy = healthy);
    }
}

fn head() -> Headers {
    let (path, length) = (format!("/{CLUSTER}/orders"), BODY.len().to_string());
    Headers::of(&[
        (":method", "POST"),
        (":path", &path),
        (":authority", "orders.example"),
        (":scheme", "http"),
        ("content-length", &length),
        ("content-type", "application/octet-stream"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_line_with_its_three_numbers() {
        let cycled = Cycled { delivered: 2_000, guest_bytes_start: 1, guest_bytes_end: 2 };
        assert_eq!(cycled.to_json().to_string(), r#"{"delivered":2000,"guest_bytes_end":2,"guest_bytes_start":1}"#);
    }
}
