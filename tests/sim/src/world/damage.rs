//! Damage to shared memory, and what the oracle is told of it.

use super::World;
use crate::faults::Fault;
use crate::history::Damage;
use crate::message::Message;
use crate::slots::{self, RecordState, Table, VM_ID};
use std::time::Duration;

impl World {
    /// Damages a value of shared memory, and tells the oracle which message it was.
    pub(super) fn damage(&mut self, damage: Damage) {
        let table = Table::read(&self.process);
        let keys = slots::keys();
        let (fault, which) = match damage {
            Damage::FlipCell(which) => return self.damage_cell(which),
            Damage::FutureWorker => return self.overwrite_cell(&keys.worker_alive(), &u64::MAX.to_le_bytes()),
            Damage::Destinations => return self.overwrite_cell(&keys.destinations(), b"garbage"),
            Damage::FlipHead(which) | Damage::FlipLarge(which) => (Fault::FlippedBit, which),
            Damage::CutHead(which) | Damage::CutLarge(which) => (Fault::CutValue, which),
            Damage::Swap(which) => (Fault::SwappedValue, which),
        };
        self.circumstances.was_memory_damaged = true;
        let slots = aims(&table, which);
        let Some((slot, state)) = slots.get(which as usize % slots.len().max(1)) else { return };
        let index = slot.index;
        self.coverage.struck(fault);
        self.coverage.met(fault, *state);
        let mut hit = vec![slot.large.clone()];
        let (key, other) = match damage {
            Damage::FlipHead(_) | Damage::CutHead(_) => (keys.head(index), None),
            Damage::FlipLarge(_)
            | Damage::CutLarge(_)
            | Damage::FlipCell(_)
            | Damage::FutureWorker
            | Damage::Destinations => (keys.large(index), None),
            Damage::Swap(_) => {
                let other = &table.slots[(which as usize + 1) % table.slots.len()];
                hit.push(other.large.clone());
                (keys.large(index), Some(keys.large(other.index)))
            }
        };
        self.excuse(&hit);
        match damage {
            // A head that is lost may be anybody's: the books are counted anew.
            Damage::FlipHead(_) | Damage::CutHead(_) => self.damaged(),
            Damage::FlipLarge(_)
            | Damage::CutLarge(_)
            | Damage::Swap(_)
            | Damage::FlipCell(_)
            | Damage::FutureWorker
            | Damage::Destinations => self.disturbed(self.process.now()),
        }
        self.spoil(&key, other.as_deref(), damage, which);
    }

    pub(super) fn excuse(&mut self, hit: &[slots::Large]) {
        let paths: Vec<String> = hit
            .iter()
            .filter_map(|large| match large {
                slots::Large::Message(_, path) => Some(path.clone()),
                slots::Large::Settled | slots::Large::Unreadable => None,
            })
            .collect();
        for number in paths.iter().filter_map(|path| Message::number_of(path)) {
            if let Some(record) = self.town.oracle.records.get_mut(&number) {
                record.is_damaged = true;
            }
        }
    }

    pub(super) fn spoil(&mut self, key: &str, other: Option<&str>, damage: Damage, which: u32) {
        let Some(mut value) = self.process.value(VM_ID, key.as_bytes()).map(|value| value.bytes) else { return };
        match (damage, other) {
            (Damage::Swap(_), Some(other)) => {
                let theirs = self.process.value(VM_ID, other.as_bytes()).map(|value| value.bytes).unwrap_or_default();
                self.process.overwrite(VM_ID, other.as_bytes(), &value);
                value = theirs;
            }
            (Damage::CutHead(_) | Damage::CutLarge(_), _) => value.truncate(which as usize % value.len().max(1)),
            (_, _) => flip(&mut value, which),
        }
        self.process.overwrite(VM_ID, key.as_bytes(), &value);
    }

    pub(super) fn overwrite_cell(&mut self, key: &str, bytes: &[u8]) {
        self.strikes(Fault::FlippedBit);
        self.circumstances.was_memory_damaged = true;
        self.damaged();
        self.process.overwrite(VM_ID, key.as_bytes(), bytes);
    }

    /// Books, leases, tables: everything that is no slot.
    pub(super) fn damage_cell(&mut self, which: u32) {
        let cells: Vec<Vec<u8>> = self.process.with_data(|data| {
            let is_cell = |key: &[u8]| slots::slot_of(key).is_none();
            data.entries(VM_ID).map(|(key, _)| key.to_vec()).filter(|key| is_cell(key)).collect()
        });
        let Some(key) = cells.get(which as usize % cells.len().max(1)) else { return };
        self.strikes(Fault::FlippedBit);
        self.circumstances.was_memory_damaged = true;
        self.damaged();
        let Some(mut value) = self.process.value(VM_ID, key).map(|value| value.bytes) else { return };
        flip(&mut value, which);
        let key = key.clone();
        self.process.overwrite(VM_ID, &key, &value);
        if slots::is_bucket(&key) {
            self.town.oracle.bucket_damaged(&key, self.process.now());
        }
    }

    /// Books, tables or leases may be wrong from now on, until somebody counts anew.
    pub(super) fn damaged(&mut self) {
        let now = self.process.now();
        self.town.oracle.doubt_until = now + MENDED_AFTER;
        self.disturbed(now);
    }
}

/// Whoever keeps house has found and mended what was damaged after so long, if he lives.
const MENDED_AFTER: Duration = Duration::from_secs(60);

/// Slots that a fault of memory may be aimed at: all in one state, so that rare states are met too.
fn aims(table: &Table, which: u32) -> Vec<(&slots::Slot, RecordState)> {
    let all: Vec<_> = table.slots.iter().filter_map(|slot| Some((slot, RecordState::of(slot.head?.state)))).collect();
    let wanted = Damage::aim(which);
    let chosen: Vec<_> = all.iter().copied().filter(|(_, state)| *state == wanted).collect();
    if chosen.is_empty() { all } else { chosen }
}

fn flip(value: &mut [u8], which: u32) {
    let bits = value.len() * 8;
    if bits > 0 {
        let bit = which as usize % bits;
        value[bit / 8] ^= 1 << (bit % 8);
    }
}
