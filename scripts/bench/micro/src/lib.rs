//! What the micro-benchmarks work on: requests as a gateway sees them, and the host's memory as a hash map.
//!
//! It measures nothing (`benches/core.rs` does) and knows no host: what a call of the host costs is what
//! `scripts/bench.sh` measures, on a real Envoy.

use redeliver_core::headers::{Envelope, HeaderList};
use redeliver_core::memory::{Cas, Conflict, Expect, SharedMemory, Versioned};
use redeliver_core::message::{Message, MessageId, Ties};
use redeliver_core::neighbours::Hops;
use redeliver_core::recent::Recent;
use redeliver_core::units::ClusterName;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

/// A POST with the headers that browsers, tracing and Envoy itself bring: 20 of them.
#[must_use]
pub fn request() -> HeaderList {
    let pairs = [
        (":authority", "orders.internal"),
        (":path", "/orders/2025/17?expand=lines"),
        (":method", "POST"),
        (":scheme", "https"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
        ("authorization", "Bearer 5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592"),
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("connection", "keep-alive"),
        ("cookie", "session=5d41402abc4b2a76b9719d911017c592; theme=dark; consent=yes"),
        ("idempotency-key", "0191f1a4-7c1e-7d6a-9a3e-3a9f5d7c1b42"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "4f1d2c3b-8a7e-4c5d-9b6f-1a2b3c4d5e6f"),
        ("x-envoy-external-address", "203.0.113.9"),
        ("x-tenant", "acme"),
    ];
    pairs.into_iter().collect()
}

/// What is stored of that request, with a body of this size.
///
/// # Panics
/// Never: the request above can be sent again.
#[must_use]
pub fn message(body_bytes: usize) -> Message {
    let arrived = Envelope::capture(&request(), &[]).expect("the sample can be sent again");
    Message {
        id: MessageId([7; 16]),
        hops: Hops::FIRST,
        cluster: ClusterName("orders".to_owned()),
        arrived,
        routed: None,
        body: vec![b'x'; body_bytes],
        ties: Ties::default(),
    }
}

/// Shared data and queues of one process with one VM: the host's rules, without its locks.
#[derive(Default)]
pub struct HostMap {
    values: RefCell<HashMap<String, Versioned>>,
    queues: RefCell<HashMap<String, VecDeque<Vec<u8>>>>,
    issued: Cell<u32>,
    recent: Recent,
}

impl SharedMemory for HostMap {
    fn get(&self, key: &str) -> Option<Versioned> {
        let found = self.values.borrow().get(key).cloned();
        found.iter().for_each(|found| self.recent.read(found.cas));
        found
    }

    fn set(&self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        let mut values = self.values.borrow_mut();
        let holds = match (expect, values.get(key)) {
            (Expect::Anything, _) | (_, None) => true,
            (Expect::Version(cas), Some(found)) => found.cas == cas,
            (Expect::Absent, Some(_)) => false,
        };
        if !holds {
            return Err(Conflict);
        }
        self.issued.set(self.issued.get().wrapping_add(1));
        values.insert(key.to_owned(), Versioned { bytes: value.to_vec(), cas: Cas(self.issued.get()) });
        self.recent.wrote();
        Ok(())
    }

    fn enqueue(&self, queue: &str, hint: &[u8]) {
        self.queues.borrow_mut().entry(queue.to_owned()).or_default().push_back(hint.to_vec());
    }

    fn dequeue(&self, queue: &str) -> Option<Vec<u8>> {
        self.queues.borrow_mut().get_mut(queue)?.pop_front()
    }

    fn recent(&self) -> Option<&Recent> {
        Some(&self.recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_by_a_number_that_is_old_changes_nothing() {
        let map = HostMap::default();
        assert_eq!(map.set("key", b"1", Expect::Absent), Ok(()));
        let first = map.get("key").unwrap();
        assert_eq!(map.set("key", b"2", Expect::Version(first.cas)), Ok(()));
        assert_eq!(map.set("key", b"3", Expect::Version(first.cas)), Err(Conflict));
        assert_eq!(map.set("key", b"3", Expect::Absent), Err(Conflict));
        assert_eq!(map.get("key").unwrap().bytes, b"2");
    }
}
