//! The table of slots, kept up with what is written: a look costs what has changed since the last one, not what is there.
//!
//! Says at every moment what [`Table::of`] says, which reads everything anew; that one is the rule, this one is quick.

use crate::message::Destination;
use crate::slots::{self, RecordState, Slot, Table, VM_ID};
use redeliver_core::keys::Keys;
use redeliver_core::slot::{Head, SlotIndex, SlotState};
use redeliver_core::units::{Monotonic, Wall};
use simvoy::{Mark, SharedData};
use std::collections::{BTreeMap, BTreeSet};

/// A reader of shared memory that remembers.
#[derive(Clone, Debug)]
pub struct Mirror {
    keys: Keys,
    mark: Mark,
    slots: BTreeMap<SlotIndex, Slot>,
    used: usize,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { keys: slots::keys(), mark: Mark::default(), slots: BTreeMap::new(), used: 0 }
    }
}

impl Mirror {
    /// Takes over what was written since the last time.
    pub fn follow(&mut self, data: &SharedData) {
        let Some(changed) = data.changed_since(VM_ID, self.mark) else {
            *self = Self::default();
            return self.follow(data);
        };
        let stale: BTreeSet<SlotIndex> = changed.filter_map(|(key, _)| slots::slot_of(key)).collect();
        self.mark = data.mark();
        for index in stale {
            if let Some(slot) = slots::read_slot(data, &self.keys, index) {
                self.replace(slot);
            }
        }
    }

    fn replace(&mut self, slot: Slot) {
        self.used += usize::from(is_used(&slot));
        if let Some(old) = self.slots.insert(slot.index, slot) {
            self.used -= usize::from(is_used(&old));
        }
    }

    /// The slot that holds a message.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Slot> {
        self.visible().find(|slot| slot.holds(id))
    }

    /// How many slots are in use, those behind a large gap too.
    #[must_use]
    pub const fn used_count(&self) -> usize {
        self.used
    }

    /// Paths of messages that were stored before this moment and are still to be delivered. (Those whose routed form is
    /// to come wait for something else.)
    pub fn waiting_since(&self, before: Wall) -> impl Iterator<Item = &str> {
        let waits = move |head: &Head| {
            matches!(head.state, SlotState::Queued { .. } | SlotState::Sending { .. }) && head.stored_at < before
        };
        self.visible().filter(move |slot| slot.head.as_ref().is_some_and(waits)).filter_map(Slot::path)
    }

    /// Paths of messages that have been due since before this moment.
    pub fn due_before(&self, moment: Monotonic) -> impl Iterator<Item = &str> {
        let is_due = move |head: &Head| matches!(head.state, SlotState::Queued { due } if due < moment);
        self.visible().filter(move |slot| slot.head.as_ref().is_some_and(is_due)).filter_map(Slot::path)
    }

    /// Paths of messages that are parked.
    pub fn parked(&self) -> impl Iterator<Item = &str> {
        let is_parked = |head: &Head| matches!(head.state, SlotState::Parked { .. });
        self.visible().filter(move |slot| slot.head.as_ref().is_some_and(is_parked)).filter_map(Slot::path)
    }

    /// How many slots are in use for a destination, those that cannot be read included.
    #[must_use]
    pub fn used_by(&self, destination: Destination) -> usize {
        let is_its = |slot: &&Slot| {
            is_used(slot) && slot.path().is_none_or(|path| Destination::of_path(path) == Some(destination))
        };
        self.visible().filter(is_its).count()
    }

    /// All heads that can be read, each with the path of its message, if that can be read too.
    pub fn heads(&self) -> impl Iterator<Item = (Option<&str>, &Head)> {
        self.visible().filter_map(|slot| Some((slot.path(), slot.head.as_ref()?)))
    }

    /// The states in which some slot is.
    #[must_use]
    pub fn states(&self) -> BTreeSet<RecordState> {
        self.visible().filter_map(|slot| slot.head).map(|head| RecordState::of(head.state)).collect()
    }

    /// A copy of everything.
    #[must_use]
    pub fn table(&self, data: &SharedData) -> Table {
        Table {
            slots: self.visible().cloned().collect(),
            ledger: slots::read_ledger(data, &self.keys),
            leaders: slots::read_leaders(data, &self.keys),
        }
    }

    /// Slots up to the first gap that is too large to come from VMs that died.
    fn visible(&self) -> impl Iterator<Item = &Slot> {
        let is_near = |(place, slot): &(u32, &Slot)| slot.index.0 - place <= slots::GAP_MAX;
        (0..).zip(self.slots.values()).take_while(is_near).map(|(_, slot)| slot)
    }
}

fn is_used(slot: &Slot) -> bool {
    slot.head.is_some_and(|head| head.state != SlotState::Free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redeliver_core::headers::{Envelope, HeaderList};
    use redeliver_core::message::{Message, MessageId, Ties, encode_receipt};
    use redeliver_core::neighbours::Hops;
    use redeliver_core::slot::Generation;
    use redeliver_core::units::ClusterName;

    fn message(n: u8) -> Message {
        Message {
            id: MessageId([n; 16]),
            hops: Hops::FIRST,
            cluster: ClusterName("orders".to_owned()),
            arrived: Envelope {
                method: b"POST".to_vec(),
                scheme: b"http".to_vec(),
                authority: b"orders".to_vec(),
                path: format!("/{n}").into_bytes(),
                fields: HeaderList::default(),
            },
            routed: None,
            body: Vec::new(),
            ties: Ties::default(),
        }
    }

    /// One write of any kind: a head in some state, a message, a receipt, damage, or a cell that is no slot's.
    fn write(data: &mut SharedData, random: &mut fastrand::Rng) {
        let keys = slots::keys();
        // Numbers beyond the first forty leave gaps, of which the largest hides what is behind it.
        let index = SlotIndex(if random.u32(..4) == 0 { random.u32(..400) } else { random.u32(..40) });
        let generation = Generation(random.u32(..2));
        let (key, bytes) = match random.u32(..6) {
            0 => (keys.head(index), Head::free(generation).encode(index)),
            1 | 2 => {
                let queued = Head::free(generation).with(SlotState::Queued { due: Monotonic(1) });
                (keys.head(index), queued.encode(index))
            }
            3 => (keys.large(index), message(random.u8(..)).encode(index, generation)),
            4 => (keys.large(index), encode_receipt(generation, None)),
            _ => (keys.head(index), b"garbage".to_vec()),
        };
        data.set(VM_ID, key.as_bytes(), &bytes, 0);
        data.set(VM_ID, keys.housekeeping().as_bytes(), b"somebody", 0);
    }

    #[test]
    fn the_mirror_says_what_a_look_at_everything_says() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut data, mut mirror) = (SharedData::default(), Mirror::default());
        for round in 0..500 {
            (0..random.u32(..4)).for_each(|_| write(&mut data, &mut random));
            mirror.follow(&data);
            let whole = Table::of(&data);
            assert_eq!(mirror.table(&data), whole, "round {round}");
            let id = MessageId([random.u8(..); 16]).to_string();
            assert_eq!(mirror.find(&id), whole.slots.iter().find(|slot| slot.holds(&id)), "round {round}");
            let is_in_use = |index| slots::read_slot(&data, &slots::keys(), index).is_some_and(|slot| is_used(&slot));
            let used = (0..400).map(SlotIndex).filter(|index| is_in_use(*index)).count();
            assert_eq!(mirror.used_count(), used, "round {round}");
        }
    }
}
