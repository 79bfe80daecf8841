//! Metrics of the process: one set of stats by name, whichever VM defines them (Envoy's stats store).

use crate::abi::Status;
use std::collections::BTreeMap;

/// One stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Grows.
    Counter(u64),
    /// Is set.
    Gauge(u64),
    /// Count and sum of what was recorded.
    Histogram {
        /// How many values.
        count: u64,
        /// Their sum.
        sum: u64,
    },
}

/// The stats of a process. Envoy prefixes their names with `wasmcustom.`; this host does not.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    by_name: BTreeMap<String, Metric>,
}

/// The ids of one VM: the two low bits are the kind (Wasm::kMetricTypeMask).
#[derive(Debug, Default)]
pub(crate) struct MetricIds {
    names: BTreeMap<u32, String>,
    defined: [u32; 3],
}

const KIND_MASK: u32 = 3;
const STEP: u32 = 4;

impl MetricIds {
    fn next(&mut self, kind: u32, name: String) -> u32 {
        let place = &mut self.defined[kind as usize];
        *place = place.wrapping_add(STEP);
        let id = *place | kind;
        self.names.insert(id, name);
        id
    }
}

impl Metrics {
    /// A counter's or gauge's value; 0 if nobody has defined it.
    #[must_use]
    pub fn value(&self, name: &str) -> u64 {
        match self.by_name.get(name) {
            Some(Metric::Counter(value) | Metric::Gauge(value)) => *value,
            Some(Metric::Histogram { count, .. }) => *count,
            None => 0,
        }
    }

    /// All of them.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Metric)> {
        self.by_name.iter().map(|(name, metric)| (name.as_str(), metric))
    }

    pub(crate) fn define(&mut self, ids: &mut MetricIds, kind: u32, name: &str) -> Result<u32, Status> {
        let fresh = match kind {
            0 => Metric::Counter(0),
            1 => Metric::Gauge(0),
            2 => Metric::Histogram { count: 0, sum: 0 },
            _ => return Err(Status::BadArgument),
        };
        self.by_name.entry(name.to_owned()).or_insert(fresh);
        Ok(ids.next(kind, name.to_owned()))
    }

    fn find<'a>(&'a mut self, ids: &MetricIds, id: u32) -> Option<&'a mut Metric> {
        self.by_name.get_mut(ids.names.get(&id)?)
    }

    /// A counter takes positive steps only; a histogram none (Context::incrementMetric).
    pub(crate) fn increment(&mut self, ids: &MetricIds, id: u32, by: i64) -> Status {
        if id & KIND_MASK == 2 {
            return Status::BadArgument;
        }
        match self.find(ids, id) {
            None => Status::NotFound,
            Some(Metric::Counter(_)) if by <= 0 => Status::BadArgument,
            // A gauge wraps below zero (`metric::life`).
            Some(Metric::Counter(value) | Metric::Gauge(value)) => {
                *value = value.wrapping_add_signed(by);
                Status::Ok
            }
            Some(Metric::Histogram { .. }) => Status::BadArgument,
        }
    }

    pub(crate) fn record(&mut self, ids: &MetricIds, id: u32, value: u64) -> Status {
        match self.find(ids, id) {
            None => Status::NotFound,
            // It adds (`metric::life`), and what does not fit wraps, as in any counter of Envoy.
            Some(Metric::Counter(found)) => {
                *found = found.wrapping_add(value);
                Status::Ok
            }
            Some(Metric::Gauge(found)) => {
                *found = value;
                Status::Ok
            }
            Some(Metric::Histogram { count, sum }) => {
                *count = count.saturating_add(1);
                *sum = sum.saturating_add(value);
                Status::Ok
            }
        }
    }

    pub(crate) fn read(&mut self, ids: &MetricIds, id: u32) -> Result<u64, Status> {
        if id & KIND_MASK >= 2 {
            return Err(Status::BadArgument);
        }
        match self.find(ids, id) {
            Some(Metric::Counter(value) | Metric::Gauge(value)) => Ok(*value),
            Some(Metric::Histogram { .. }) => Err(Status::BadArgument),
            None => Err(Status::NotFound),
        }
    }
}
