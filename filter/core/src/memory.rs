//! Shared memory as Envoy's Wasm host gives it: the one narrow door of the core to the outside.
//!
//! A compare-and-set loop is a conversation, so it is a trait and not an effect. The host's rules, which every
//! implementation keeps (PLATFORM 1.1 and 1.2):
//!
//! | rule | so |
//! | --- | --- |
//! | keys are never deleted | keys come from [`crate::keys`], a fixed and reused set |
//! | a compare-and-set on a key that never existed always succeeds | [`Expect::Absent`] sends a number that was never issued |
//! | an empty value is a value | absent and empty differ |
//! | dequeue removes at once, a queue loses items with its VM | queues carry hints only |

use crate::recent::Recent;

/// The number that the host gave a value; it changes with every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cas(pub u32);

impl Cas {
    /// Never issued by the host: on a missing key it creates, and the second writer conflicts (measured).
    pub const NEVER_ISSUED: Self = Self(u32::MAX);
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The value that was read with this number.
    Version(Cas),
    /// No value ever.
    Absent,
    /// Whatever is there: for cells with one writer.
    Anything,
}

/// Somebody else wrote in between; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// A value and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes; may be empty.
    pub bytes: Vec<u8>,
    /// Their number.
    pub cas: Cas,
}

/// Shared data and shared queues.
pub trait SharedMemory {
    /// The value of `key`; `None` if it never existed.
    fn get(&self, key: &str) -> Option<Versioned>;

    /// Writes `value`.
    ///
    /// # Errors
    /// [`Conflict`] if `expect` does not hold.
    fn set(&self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict>;

    /// Puts a hint at the end of `queue`. It may be lost: that delays, it loses nothing.
    fn enqueue(&self, queue: &str, hint: &[u8]);

    /// Takes the hint at the front of `queue`.
    fn dequeue(&self, queue: &str) -> Option<Vec<u8>>;

    /// What this VM wrote last. `None`: nothing is remembered, and every cell is read before it is changed. Whoever has one
    /// tells it of every value that is read and of every write that is not refused, at once.
    fn recent(&self) -> Option<&Recent> {
        None
    }
}

/// Retries of a compare-and-set before a VM gives up for this callback. With a handful of VMs each conflict means that
/// another one got on; 64 in a row has not been seen with eight VMs on one cell.
pub const CAS_RETRIES_MAX: u32 = 64;

/// Changes the cell `key` until no other VM interferes. `change` gets the bytes (`None` if the key never existed) and
/// answers with the new bytes, or with a result that writes nothing.
///
/// # Errors
/// [`Conflict`] after [`CAS_RETRIES_MAX`] conflicts in a row.
pub fn update<T>(
    memory: &dyn SharedMemory,
    key: &str,
    change: impl FnMut(Option<&[u8]>) -> Change<T>,
) -> Result<T, Conflict> {
    with_result(change, |change| read_and_write(memory, key, change).map(drop))
}

/// The same for a cell that this VM may just have written: as a rule it is not read if what was written still stands there
/// and is changed. `change` may be asked once more than for [`update`].
///
/// # Errors
/// As [`update`].
pub fn update_again<T>(
    memory: &dyn SharedMemory,
    key: &str,
    change: impl FnMut(Option<&[u8]>) -> Change<T>,
) -> Result<T, Conflict> {
    with_result(change, |change| guess_and_write(memory, key, change))
}

/// What a change writes, if it writes anything: [`Change`] without its result, so that the loops below are there once.
type Writes<'a> = dyn FnMut(Option<&[u8]>) -> Option<Vec<u8>> + 'a;

/// The result of the last time that `change` was asked.
fn with_result<T>(
    mut change: impl FnMut(Option<&[u8]>) -> Change<T>,
    run: impl FnOnce(&mut Writes<'_>) -> Result<(), Conflict>,
) -> Result<T, Conflict> {
    let mut last = None;
    run(&mut |found| {
        let (bytes, result) = match change(found) {
            Change::Keep(result) => (None, result),
            Change::Write(bytes, result) => (Some(bytes), result),
        };
        last = Some(result);
        bytes
    })?;
    last.ok_or(Conflict)
}

fn guess_and_write(memory: &dyn SharedMemory, key: &str, change: &mut Writes<'_>) -> Result<(), Conflict> {
    let Some(recent) = memory.recent() else { return read_and_write(memory, key, change).map(drop) };
    // Only what is written shows whether a guess is right: to leave the cell as it is, it must be read.
    let guess = recent.recall(key).and_then(|guess| Some((change(Some(&guess.bytes))?, guess.cas)));
    let Some((bytes, cas)) = guess else {
        let written = read_and_write(memory, key, change)?;
        written.into_iter().for_each(|bytes| recent.keep(key, bytes));
        return Ok(());
    };
    if memory.set(key, &bytes, Expect::Version(cas)).is_ok() {
        recent.hit(key);
        recent.keep(key, bytes);
        return Ok(());
    }
    recent.missed(key);
    if read_and_write(memory, key, change)?.is_some() {
        // Shows the number of that write, or a later one: guesses are better from now on.
        drop(memory.get(key));
    }
    Ok(())
}

/// Answers with what was written, if anything was.
fn read_and_write(memory: &dyn SharedMemory, key: &str, change: &mut Writes<'_>) -> Result<Option<Vec<u8>>, Conflict> {
    for _ in 0..CAS_RETRIES_MAX {
        let found = memory.get(key);
        let expect = found.as_ref().map_or(Expect::Absent, |value| Expect::Version(value.cas));
        let Some(bytes) = change(found.as_ref().map(|value| value.bytes.as_slice())) else { return Ok(None) };
        if memory.set(key, &bytes, expect).is_ok() {
            return Ok(Some(bytes));
        }
    }
    Err(Conflict)
}

/// What to do with a cell.
#[derive(Debug)]
pub enum Change<T> {
    /// Leave it.
    Keep(T),
    /// Write these bytes.
    Write(Vec<u8>, T),
}

#[cfg(test)]
pub(crate) mod double {
    //! The host's rules on a pair of maps, and a VM's way to them: a double that behaves. A VM can die at any call and
    //! stand still before any call; the memory outlives it, as the host's does.

    use super::{Cas, Conflict, Expect, Recent, SharedMemory, Versioned};
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, VecDeque};
    use std::rc::Rc;

    /// What all VMs of a process share.
    #[derive(Default)]
    pub(crate) struct MemoryDouble {
        values: RefCell<BTreeMap<String, Versioned>>,
        queues: RefCell<BTreeMap<String, VecDeque<Vec<u8>>>>,
        issued: Cell<u32>,
    }

    impl MemoryDouble {
        pub(crate) fn key_count(&self) -> usize {
            self.values.borrow().len()
        }

        /// Every value there is, to compare with later.
        pub(crate) fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
            self.values.borrow().iter().map(|(key, value)| (key.clone(), value.bytes.clone())).collect()
        }

        pub(crate) fn overwrite(&self, key: &str, bytes: &[u8]) {
            self.set(key, bytes, Expect::Anything).unwrap();
        }

        pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
            self.get(key).map(|value| value.bytes).unwrap_or_default()
        }

        pub(crate) fn queue_length(&self, queue: &str) -> usize {
            self.queues.borrow().get(queue).map_or(0, VecDeque::len)
        }
    }

    impl SharedMemory for MemoryDouble {
        fn get(&self, key: &str) -> Option<Versioned> {
            self.values.borrow().get(key).cloned()
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
            self.issued.set(self.issued.get() + 1);
            values.insert(key.to_owned(), Versioned { bytes: value.to_vec(), cas: Cas(self.issued.get()) });
            Ok(())
        }

        fn enqueue(&self, queue: &str, hint: &[u8]) {
            self.queues.borrow_mut().entry(queue.to_owned()).or_default().push_back(hint.to_vec());
        }

        fn dequeue(&self, queue: &str) -> Option<Vec<u8>> {
            self.queues.borrow_mut().get_mut(queue)?.pop_front()
        }
    }

    /// What happens to a VM at one of its calls.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Doom {
        Never,
        /// After so many further calls that change something; a death between reads leaves nothing else behind.
        AfterChanges(u32),
        Dead,
    }

    /// One VM's way to the memory. A dead VM goes on running in the test, but nothing that it does has any effect: what
    /// it answers must not be looked at ([`VmMemory::is_dead`]).
    pub(crate) struct VmMemory<'a> {
        memory: &'a MemoryDouble,
        doom: Cell<Doom>,
        /// Run by the others before this VM's call number so-and-so, reads included.
        pause: RefCell<Option<Pause<'a>>>,
        calls: Cell<u32>,
        recent: Rc<Recent>,
    }

    /// Calls until then, and what happens meanwhile.
    type Pause<'a> = (u32, Box<dyn FnOnce() + 'a>);

    impl<'a> VmMemory<'a> {
        pub(crate) fn immortal(memory: &'a MemoryDouble) -> Self {
            let recent = Rc::default();
            Self { memory, doom: Cell::new(Doom::Never), pause: RefCell::new(None), calls: Cell::new(0), recent }
        }

        pub(crate) fn dying_after(memory: &'a MemoryDouble, changes: u32) -> Self {
            Self { doom: Cell::new(Doom::AfterChanges(changes)), ..Self::immortal(memory) }
        }

        /// Stands still before its call number `call` (0, 1, ...) while `meanwhile` happens.
        pub(crate) fn pausing_at(memory: &'a MemoryDouble, call: u32, meanwhile: impl FnOnce() + 'a) -> Self {
            Self { pause: RefCell::new(Some((call, Box::new(meanwhile)))), ..Self::immortal(memory) }
        }

        /// Of a VM that has been there before.
        pub(crate) fn remembering(self, recent: &Rc<Recent>) -> Self {
            Self { recent: recent.clone(), ..self }
        }

        pub(crate) fn is_dead(&self) -> bool {
            self.doom.get() == Doom::Dead
        }

        /// Whether the VM got as far as its pause.
        pub(crate) fn has_paused(&self) -> bool {
            self.pause.borrow().is_none()
        }

        /// Changes that a doomed VM may still make.
        pub(crate) fn changes_left(&self) -> u32 {
            match self.doom.get() {
                Doom::Never => u32::MAX,
                Doom::AfterChanges(left) => left,
                Doom::Dead => 0,
            }
        }

        /// Calls so far.
        pub(crate) fn calls(&self) -> u32 {
            self.calls.get()
        }

        fn call(&self) {
            self.calls.set(self.calls.get() + 1);
            let pause = self.pause.borrow_mut().take();
            match pause {
                Some((0, meanwhile)) => meanwhile(),
                Some((left, meanwhile)) => *self.pause.borrow_mut() = Some((left - 1, meanwhile)),
                None => {}
            }
        }

        /// Whether a change still has an effect.
        fn may_change(&self) -> bool {
            self.call();
            let next = match self.doom.get() {
                Doom::Never => return true,
                Doom::AfterChanges(0) | Doom::Dead => Doom::Dead,
                Doom::AfterChanges(left) => Doom::AfterChanges(left - 1),
            };
            self.doom.set(next);
            next != Doom::Dead
        }
    }

    impl SharedMemory for VmMemory<'_> {
        fn get(&self, key: &str) -> Option<Versioned> {
            self.call();
            let found = self.memory.get(key);
            found.iter().for_each(|found| self.recent.read(found.cas));
            found
        }

        fn set(&self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
            if self.may_change() {
                self.memory.set(key, value, expect)?;
                self.recent.wrote();
            }
            Ok(())
        }

        fn enqueue(&self, queue: &str, hint: &[u8]) {
            if self.may_change() {
                self.memory.enqueue(queue, hint);
            }
        }

        fn dequeue(&self, queue: &str) -> Option<Vec<u8>> {
            if self.may_change() { self.memory.dequeue(queue) } else { None }
        }

        fn recent(&self) -> Option<&Recent> {
            Some(&self.recent)
        }
    }
}
