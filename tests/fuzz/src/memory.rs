//! Shared memory for one VM: the host's rules on two maps (`memory.rs` of the core lists them). Nobody interferes here;
//! what many VMs do to each other is the business of the core's own tests.

use redeliver_core::memory::{Cas, Conflict, Expect, SharedMemory, Versioned};
use redeliver_core::recent::Recent;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
pub(crate) struct Memory {
    values: RefCell<BTreeMap<String, Versioned>>,
    queues: RefCell<BTreeMap<String, VecDeque<Vec<u8>>>>,
    issued: Cell<u32>,
    recent: Recent,
}

impl Memory {
    /// A memory in which `key` holds `bytes`.
    pub(crate) fn with(key: &str, bytes: &[u8]) -> Self {
        let memory = Self::default();
        memory.put(key, bytes);
        memory
    }

    /// Writes `bytes` whatever is there.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.issued.set(self.issued.get() + 1);
        let value = Versioned { bytes: bytes.to_vec(), cas: Cas(self.issued.get()) };
        self.values.borrow_mut().insert(key.to_owned(), value);
    }

    /// The bytes of `key`, none if it was never written.
    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        self.get(key).map(|value| value.bytes).unwrap_or_default()
    }
}

impl SharedMemory for Memory {
    fn get(&self, key: &str) -> Option<Versioned> {
        let found = self.values.borrow().get(key).cloned();
        found.iter().for_each(|found| self.recent.read(found.cas));
        found
    }

    fn set(&self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        let holds = match (expect, self.get(key)) {
            (Expect::Anything, _) | (_, None) => true,
            (Expect::Version(cas), Some(found)) => found.cas == cas,
            (Expect::Absent, Some(_)) => false,
        };
        if !holds {
            return Err(Conflict);
        }
        self.put(key, value);
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
