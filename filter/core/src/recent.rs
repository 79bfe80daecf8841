//! What this VM wrote last to cells that it is about to change again, so that they need not be read first.
//!
//! A compare-and-set wants the number of the value that it replaces. The host tells the number of a value that is read, and
//! never that of one that is written; and a read costs some five times a write, because the host asks the VM back for memory
//! and makes a set of five strings each time it does (proxy-wasm-cpp-host, `WasmBase::allocMemory`: 8,000 instructions of
//! 11,000, counted on 1.40.0). But numbers are issued one by one, from one counter for the whole process. So the number of a
//! write can be guessed:
//!
//! ```text
//! guess = number of own writes before it + shift        shift: what the numbers that were read say at least
//! ```
//! | the guess | the compare-and-set | then |
//! | --- | --- | --- |
//! | is right | finds what this VM wrote | a read is saved |
//! | is too low: others wrote in between, there or elsewhere | conflicts | the cell is read after all, written, and read once more: that shows a better shift |
//! | is too high | might find what another VM wrote | **must not be**: the guess is made at the write, by numbers that were read before it, and the write's is higher than those |
//!
//! Too low is never right by chance (within 2^32 writes, when numbers begin anew): whatever was written to the cell since
//! has a higher number than that write, and that has a higher one than the guess. Where guesses keep failing, since many VMs
//! write that cell at once, they are made ever more seldom. To this file every root context is a VM of its own.

use crate::memory::{Cas, Versioned};
use std::cell::{Cell, RefCell};

/// Cells that are remembered: a window's worth of heads and some books. A power of two.
const PLACES: usize = 128;
/// Longer values are not worth keeping a copy of.
const BYTES_MAX: usize = 128;
/// After so many failures in a row there is one guess in so many changes: 2 to the power of this.
const DOUBLINGS_MAX: u32 = 6;

/// The memory of one VM's last writes.
#[derive(Debug, Default)]
pub struct Recent {
    /// Writes of this VM so far.
    writes: Cell<u32>,
    /// The number of a write is at least its place among them and this; `None` before the first read.
    shift: Cell<Option<u32>>,
    /// What the number of the last write is guessed to be.
    last: Cell<Option<Cas>>,
    places: RefCell<Vec<Place>>,
}

/// What is remembered of one cell, or of several whose names fall together.
#[derive(Debug, Default)]
struct Place {
    /// Which cell `written` is about. It keeps its memory, since names are of much the same length.
    key: String,
    written: Option<Versioned>,
    /// Guesses in a row that failed, and changes to come without one.
    failures: u32,
    pause: u32,
}

impl Recent {
    /// A value with this number was read: whatever is written from now on has a higher one.
    pub fn read(&self, cas: Cas) {
        self.raise(cas.0.wrapping_add(1).wrapping_sub(self.writes.get()));
    }

    /// This VM has just written something, and was not refused.
    pub fn wrote(&self) {
        let place = self.writes.get();
        self.writes.set(place.wrapping_add(1));
        let guess = self.shift.get().map(|shift| Cas(place.wrapping_add(shift)));
        // Zero means "whatever is there" to the host.
        self.last.set(guess.filter(|cas| !matches!(*cas, Cas(0) | Cas::NEVER_ISSUED)));
    }

    /// The last write of this VM was this one, to a cell that it is about to change again.
    pub fn keep(&self, key: &str, bytes: Vec<u8>) {
        let Some(cas) = self.last.get().filter(|_| bytes.len() <= BYTES_MAX) else { return };
        let mut places = self.places.borrow_mut();
        if places.is_empty() {
            places.resize_with(PLACES, Place::default);
        }
        if let Some(place) = places.get_mut(index(key)) {
            place.key.clear();
            place.key.push_str(key);
            place.written = Some(Versioned { bytes, cas });
        }
    }

    /// What this VM wrote to `key` last, with the number that the write probably got, if that is worth a try. It is
    /// forgotten: most often something else stands there afterwards.
    pub fn recall(&self, key: &str) -> Option<Versioned> {
        let mut places = self.places.try_borrow_mut().ok()?;
        let place = places.get_mut(index(key))?;
        let written = if place.key == key { place.written.take() } else { None };
        if place.pause > 0 {
            place.pause = place.pause.saturating_sub(1);
            return None;
        }
        written
    }

    /// A guess for `key` was right.
    pub fn hit(&self, key: &str) {
        self.at(key, |place| place.failures = 0);
    }

    /// A guess for `key` was wrong.
    pub fn missed(&self, key: &str) {
        self.at(key, |place| {
            place.failures = place.failures.saturating_add(1).min(DOUBLINGS_MAX);
            place.pause = (1_u32 << place.failures).saturating_sub(1);
        });
    }

    fn at(&self, key: &str, change: impl FnOnce(&mut Place)) {
        if let Ok(mut places) = self.places.try_borrow_mut() {
            places.get_mut(index(key)).map(change).unwrap_or_default();
        }
    }

    fn raise(&self, shift: u32) {
        let is_higher = |known: u32| shift.wrapping_sub(known).cast_signed() > 0;
        if self.shift.get().is_none_or(is_higher) {
            self.shift.set(Some(shift));
        }
    }
}

/// Names of one store differ in so many last bytes, the kind of a cell and the digits of a slot; to mix in those before,
/// which are the same in all, would cost as much again.
const DIFFERENT_BYTES: usize = 9;

/// The place of a cell's name.
fn index(key: &str) -> usize {
    let mixed = key
        .bytes()
        .rev()
        .take(DIFFERENT_BYTES)
        .fold(0_u32, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    usize::try_from(mixed).unwrap_or_default() & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::double::{MemoryDouble, VmMemory};
    use crate::memory::{Change, Conflict, Expect, SharedMemory, update_again};
    use std::rc::Rc;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Adds one to a count; what stands there is never the same twice.
    fn count(vm: &VmMemory<'_>, key: &str) -> Result<u64, Conflict> {
        update_again(vm, key, |bytes| {
            let next = bytes.and_then(|bytes| bytes.try_into().ok()).map_or(1, |bytes| u64::from_le_bytes(bytes) + 1);
            Change::Write(next.to_le_bytes().to_vec(), next)
        })
    }

    /// The calls that one more count costs.
    fn calls(vm: &VmMemory<'_>, key: &str) -> u32 {
        let before = vm.calls();
        count(vm, key).unwrap();
        vm.calls() - before
    }

    #[test]
    fn a_cell_that_only_one_vm_writes_is_read_once() {
        let memory = MemoryDouble::default();
        memory.overwrite("other", b"so that there is a number to read");
        let vm = VmMemory::immortal(&memory);
        vm.get("other");
        assert_eq!(calls(&vm, "k"), 2);
        for _ in 0..100 {
            assert_eq!(calls(&vm, "k"), 1);
        }
        assert_eq!(count(&vm, "k"), Ok(102));
    }

    #[test]
    fn nothing_is_guessed_before_a_number_was_read() {
        let memory = MemoryDouble::default();
        let vm = VmMemory::immortal(&memory);
        vm.set("other", b"so that a guess would not be zero", Expect::Anything).unwrap();
        vm.set("k", &1_u64.to_le_bytes(), Expect::Anything).unwrap();
        vm.recent().unwrap().keep("k", 1_u64.to_le_bytes().to_vec());
        assert_eq!(calls(&vm, "k"), 2);
    }

    #[test]
    fn a_foreign_write_costs_one_wrong_guess_and_is_learned() {
        let memory = MemoryDouble::default();
        let vm = VmMemory::immortal(&memory);
        for _ in 0..10 {
            count(&vm, "k").unwrap();
        }
        memory.overwrite("elsewhere", b"x");
        // Written with a guess that is one too low by now.
        count(&vm, "k").unwrap();
        assert_eq!(calls(&vm, "k"), 4, "a wrong guess, a read, a write, a look at its number");
        assert_eq!(calls(&vm, "k"), 2, "one change without a guess");
        for _ in 0..100 {
            assert_eq!(calls(&vm, "k"), 1);
        }
    }

    #[test]
    fn no_count_is_lost_whoever_writes_in_whatever_order() {
        let memory = MemoryDouble::default();
        let vms = [(); 3].map(|()| VmMemory::immortal(&memory));
        let mut random = crate::random::Random::seeded(7);
        let mut counted = [0_u64; 4];
        for step in 0..20_000 {
            // Long stretches of one VM, and short ones of all of them.
            let among = if step / 500 % 2 == 0 { 1 } else { 3 };
            let vm = &vms[usize::try_from(random.next() % among).unwrap() + usize::from(among == 1 && step > 9_000)];
            let cell = usize::try_from(random.next() % 4).unwrap();
            let key = ["a", "b", "c", "d"][cell];
            match random.next() % 10 {
                0 => drop(vm.get(key)),
                1 => memory.overwrite("noise", b"x"),
                // The same bytes again, with another number.
                2 => memory.overwrite(key, &memory.bytes(key)),
                _ => {
                    counted[cell] += 1;
                    assert_eq!(count(vm, key), Ok(counted[cell]), "step {step}");
                }
            }
        }
    }

    #[test]
    fn the_number_that_another_vm_got_meanwhile_is_not_taken_for_ones_own() {
        // The calls of a change whose guess is wrong: the guess, a read, a write, a look at its number.
        for call in 0..4 {
            let memory = MemoryDouble::default();
            memory.overwrite("elsewhere", b"x");
            let recent = Rc::default();
            let vm = VmMemory::immortal(&memory).remembering(&recent);
            vm.get("elsewhere");
            count(&vm, "k").unwrap();
            memory.overwrite("elsewhere", b"x");
            count(&vm, "k").unwrap();
            let other = VmMemory::immortal(&memory);
            let meanwhile = || assert!(count(&other, "k").is_ok());
            let paused = VmMemory::pausing_at(&memory, call, meanwhile).remembering(&recent);
            count(&paused, "k").unwrap();
            assert!(paused.has_paused());
            // This one is made without a guess, after a wrong one.
            count(&vm, "another").unwrap();
            let counted: Vec<u64> = (0..4).map(|_| count(&vm, "k").unwrap()).collect();
            assert_eq!(counted, [5, 6, 7, 8], "before call {call}");
        }
    }

    #[test]
    fn a_read_after_a_write_does_not_change_what_the_write_is_guessed_to_be() {
        let memory = MemoryDouble::default();
        let vm = VmMemory::immortal(&memory);
        count(&vm, "k").unwrap();
        count(&vm, "k").unwrap();
        vm.set("k", &3_u64.to_le_bytes(), Expect::Anything).unwrap();
        memory.overwrite("k", &9_u64.to_le_bytes());
        vm.get("k");
        vm.recent().unwrap().keep("k", 3_u64.to_le_bytes().to_vec());
        assert_eq!(count(&vm, "k"), Ok(10));
    }

    #[test]
    fn a_cell_that_others_write_too_spoils_no_guess_at_another() {
        let memory = MemoryDouble::default();
        let vms = [(); 2].map(|()| VmMemory::immortal(&memory));
        let mut mine = 0;
        for _ in 0..400 {
            count(&vms[1], "shared").unwrap();
            count(&vms[0], "shared").unwrap();
            // So that the guess at its own cell is right.
            vms[0].get("shared");
            let before = vms[0].calls();
            count(&vms[0], "mine").unwrap();
            mine += vms[0].calls() - before;
        }
        assert!(mine < 410, "{mine} calls for 400 changes");
    }

    #[test]
    fn vms_that_write_in_turns_soon_stop_guessing() {
        let memory = MemoryDouble::default();
        let vms = [(); 2].map(|()| VmMemory::immortal(&memory));
        let in_turns = || vms.iter().cycle().take(400).for_each(|vm| assert!(count(vm, "k").is_ok()));
        in_turns();
        let before = vms[0].calls();
        in_turns();
        let wasted = vms[0].calls() - before - 2 * 200;
        assert!(wasted < 10, "{wasted} calls more in 200 changes");
    }

    #[test]
    fn numbers_that_wrap_around_are_still_compared_by_age() {
        let recent = Recent::default();
        recent.read(Cas(u32::MAX - 2));
        recent.wrote();
        recent.keep("k", b"v".to_vec());
        assert_eq!(recent.recall("k").unwrap().cas, Cas(u32::MAX - 1));
        recent.wrote();
        recent.keep("k", b"v".to_vec());
        assert!(recent.recall("k").is_none(), "that number means that nothing is there");
        recent.wrote();
        recent.keep("k", b"v".to_vec());
        assert!(recent.recall("k").is_none(), "and this one whatever is there");
        recent.read(Cas(7));
        recent.wrote();
        recent.keep("k", b"v".to_vec());
        assert_eq!(recent.recall("k").unwrap().cas, Cas(8));
    }
}
