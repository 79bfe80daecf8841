//! Shared data and shared queues of one process, with the host's rules (PLATFORM 1.1 and 1.2; shared_data.cc and
//! shared_queue.cc of proxy-wasm-cpp-host).
//!
//! | rule | row |
//! | --- | --- |
//! | a set with cas 0 asks nothing; on an absent key any cas writes | 1.1, H7 |
//! | every write draws a number from one counter of the process | 1.1 |
//! | no call deletes a key; the last VM of a `vm_id` takes them all along | 1.1, H5 |
//! | a dequeue removes at once; items outlive the VM that registered the queue | 1.2 |
//! | the last VM that registered a queue is the one that is told | 1.2 |

use crate::abi::Status;
use crate::ids::{ContextId, VmId};
use crate::space::Space;
use std::collections::{BTreeMap, VecDeque};

/// One value and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Changes with every write.
    pub cas: u32,
}

/// How far a reader has followed the shared data ([`SharedData::changed_since`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    cas: u32,
    spaces_gone: u32,
}

/// The shared data of all `vm_id`s.
#[derive(Debug, Default)]
pub struct SharedData {
    /// A handful; none is ever taken out, so a place stays what it is.
    spaces: Vec<(String, Space)>,
    last_cas: u32,
    spaces_gone: u32,
}

/// The place of a `vm_id` among all: a VM looks its own up once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceId(usize);

impl SharedData {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, vm_id: &str, key: &[u8]) -> Option<&Value> {
        self.space(vm_id)?.get(key)
    }

    /// Writes a value.
    pub fn set(&mut self, vm_id: &str, key: &[u8], bytes: &[u8], cas: u32) -> Status {
        let space = self.space_id(vm_id);
        self.set_in(space, key, bytes, cas)
    }

    fn space(&self, vm_id: &str) -> Option<&Space> {
        self.spaces.iter().find(|(name, _)| name == vm_id).map(|(_, space)| space)
    }

    /// The place of a `vm_id`, which is made if it is not there.
    pub(crate) fn space_id(&mut self, vm_id: &str) -> SpaceId {
        let found = self.spaces.iter().position(|(name, _)| name == vm_id);
        SpaceId(found.unwrap_or_else(|| {
            self.spaces.push((vm_id.to_owned(), Space::default()));
            self.spaces.len() - 1
        }))
    }

    pub(crate) fn get_in(&self, SpaceId(place): SpaceId, key: &[u8]) -> Option<&Value> {
        self.spaces[place].1.get(key)
    }

    pub(crate) fn set_in(&mut self, SpaceId(place): SpaceId, key: &[u8], bytes: &[u8], cas: u32) -> Status {
        let next = self.last_cas.wrapping_add(1);
        let status = self.spaces[place].1.set(key, bytes, cas, next);
        if status == Status::Ok {
            self.last_cas = next;
        }
        status
    }

    /// Somebody has just written what was there: only a key that exists can be rewritten.
    pub(crate) fn rewrite_in(&mut self, SpaceId(place): SpaceId, key: &[u8]) {
        let next = self.last_cas.wrapping_add(1);
        if self.spaces[place].1.touch(key, next).is_some() {
            self.last_cas = next;
        }
    }

    /// All keys and values of a `vm_id`, in the order of the keys.
    pub fn entries(&self, vm_id: &str) -> impl Iterator<Item = (&[u8], &Value)> {
        let mut entries: Vec<_> = self.space(vm_id).into_iter().flat_map(Space::entries).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.into_iter()
    }

    /// What was written up to now.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark { cas: self.last_cas, spaces_gone: self.spaces_gone }
    }

    /// Keys that were written since `mark` (one of this process), each once, with what they now hold; in no order that
    /// says anything. `None`: values have gone away meanwhile, and the reader begins anew with `Mark::default()`.
    pub fn changed_since(&self, vm_id: &str, mark: Mark) -> Option<impl Iterator<Item = (&[u8], &Value)>> {
        let begins = mark == Mark::default();
        let space = self.space(vm_id).filter(|_| mark.cas != self.last_cas);
        let changed = space.into_iter().flat_map(Space::entries).filter(move |(_, value)| value.cas > mark.cas);
        (begins || mark.spaces_gone == self.spaces_gone).then_some(changed)
    }

    /// The last VM of `vm_id` is gone.
    pub(crate) fn forget(&mut self, vm_id: &str) {
        let SpaceId(place) = self.space_id(vm_id);
        self.spaces[place].1 = Space::default();
        self.spaces_gone += 1;
    }
}

/// Whom an enqueue wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registrant {
    pub vm: VmId,
    pub root: ContextId,
}

#[derive(Debug)]
struct Queue {
    vm_id: String,
    name: Vec<u8>,
    registrant: Registrant,
    items: VecDeque<Vec<u8>>,
}

/// The shared queues of all `vm_id`s, by token.
#[derive(Debug, Default)]
pub struct SharedQueues {
    queues: BTreeMap<u32, Queue>,
    last_token: u32,
}

impl SharedQueues {
    pub(crate) fn register(&mut self, vm_id: &str, name: &[u8], registrant: Registrant) -> u32 {
        if let Some(token) = self.resolve(vm_id, name) {
            if let Some(queue) = self.queues.get_mut(&token) {
                queue.registrant = registrant;
            }
            return token;
        }
        self.last_token += 1;
        let queue = Queue { vm_id: vm_id.to_owned(), name: name.to_vec(), registrant, items: VecDeque::new() };
        self.queues.insert(self.last_token, queue);
        self.last_token
    }

    /// The token of a queue that was registered.
    #[must_use]
    pub fn resolve(&self, vm_id: &str, name: &[u8]) -> Option<u32> {
        self.queues.iter().find(|(_, queue)| queue.name == name && queue.vm_id == vm_id).map(|(token, _)| *token)
    }

    pub(crate) fn knows(&self, token: u32) -> bool {
        self.queues.contains_key(&token)
    }

    pub(crate) fn enqueue(&mut self, token: u32, item: &[u8]) -> Option<Registrant> {
        let queue = self.queues.get_mut(&token)?;
        queue.items.push_back(item.to_vec());
        Some(queue.registrant)
    }

    /// Takes the first item.
    ///
    /// # Errors
    /// `NotFound` for a wrong token, `Empty` for an empty queue.
    pub fn dequeue(&mut self, token: u32) -> Result<Vec<u8>, Status> {
        let queue = self.queues.get_mut(&token).ok_or(Status::NotFound)?;
        queue.items.pop_front().ok_or(Status::Empty)
    }

    /// All queues: name and items.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &VecDeque<Vec<u8>>)> {
        self.queues.values().map(|queue| (queue.name.as_slice(), &queue.items))
    }

    pub(crate) fn forget(&mut self, vm_id: &str) {
        self.queues.retain(|_, queue| queue.vm_id != vm_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compare_and_set_holds_only_for_keys_that_exist() {
        let mut data = SharedData::default();
        assert_eq!(data.set("v", b"k", b"1", 99), Status::Ok, "an absent key takes any number");
        let first = data.get("v", b"k").unwrap().cas;
        assert_eq!(data.set("v", b"k", b"2", u32::MAX), Status::CasMismatch);
        assert_eq!(data.set("v", b"k", b"2", first), Status::Ok);
        assert_eq!(data.set("v", b"k", b"3", first), Status::CasMismatch);
        assert_eq!(data.set("v", b"k", b"3", 0), Status::Ok, "zero asks nothing");
        assert_eq!(data.get("w", b"k"), None, "a vm_id is a namespace");
    }

    #[test]
    fn a_reader_that_follows_sees_each_change_once_and_begins_anew_when_values_are_gone() {
        let mut data = SharedData::default();
        let mut mark = data.mark();
        let mut changes = |data: &SharedData| {
            let changed = data.changed_since("v", mark)?;
            let keys: Vec<String> = changed.map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
            mark = data.mark();
            Some(keys.join(" "))
        };
        data.set("v", b"b", b"1", 0);
        data.set("v", b"a", b"1", 0);
        data.set("w", b"c", b"1", 0);
        assert_eq!(changes(&data).as_deref(), Some("b a"));
        assert_eq!(changes(&data).as_deref(), Some(""));
        data.set("v", b"a", b"2", 0);
        data.set("v", b"a", b"3", 0);
        data.set("v", b"b", b"2", u32::MAX);
        assert_eq!(changes(&data).as_deref(), Some("a"), "a set that is refused changes nothing");
        let space = data.space_id("v");
        data.rewrite_in(space, b"b");
        data.rewrite_in(space, b"absent");
        assert_eq!(changes(&data).as_deref(), Some("b"), "the same bytes again are a write, as the number says");
        data.forget("v");
        assert_eq!(changes(&data), None);
        assert_eq!(data.changed_since("v", Mark::default()).map(Iterator::count), Some(0));
    }

    #[test]
    fn entries_come_in_the_order_of_the_keys() {
        let mut data = SharedData::default();
        for key in ["b", "c", "a"] {
            data.set("v", key.as_bytes(), b"1", 0);
        }
        let keys: Vec<&[u8]> = data.entries("v").map(|(key, _)| key).collect();
        assert_eq!(keys, [b"a", b"b", b"c"]);
    }

    #[test]
    fn queues_tell_a_wrong_token_from_an_empty_queue() {
        let mut queues = SharedQueues::default();
        let registrant = |vm| Registrant { vm: VmId(vm), root: ContextId(1) };
        let token = queues.register("v", b"q", registrant(1));
        assert_eq!(queues.dequeue(token), Err(Status::Empty));
        assert_eq!(queues.dequeue(token + 1), Err(Status::NotFound));
        assert_eq!(queues.register("v", b"q", registrant(2)), token);
        assert_eq!(queues.enqueue(token, b"x"), Some(registrant(2)), "the last one that registered is told");
        assert_eq!(queues.dequeue(token), Ok(b"x".to_vec()));
    }
}
