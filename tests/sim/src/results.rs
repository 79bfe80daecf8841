//! Results of a long run, kept in a file: one line per block of seeds, so that a run can be stopped and gone on with.

use crate::faults::{Coverage, Fault};
use crate::history::Phase;
use crate::report::phase_word;
use crate::search::Totals;
use crate::slots::RecordState;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Seeds of one line. A run with a results file begins and ends at a multiple of it.
pub const BLOCK: u64 = 100;

/// What results hold for: the same histories are other runs with another module or another simulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// SHA-256 of the module.
    pub module: String,
    /// SHA-256 of this program.
    pub simulator: String,
}

/// The blocks that a file knows, by phase and first seed; blocks of another module are not counted.
#[derive(Clone, Debug, Default)]
pub struct Results {
    blocks: BTreeMap<(String, u64), Value>,
}

impl Results {
    /// Reads a file; a missing one is empty.
    ///
    /// # Errors
    /// A sentence about the line that is no result.
    pub fn read(path: &Path, subject: &Subject) -> Result<Self, String> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        let mut results = Self::default();
        for (place, line) in text.lines().enumerate() {
            let value: Value = serde_json::from_str(line).map_err(|error| {
                format!("{} line {}: no result ({error}): remove the line", path.display(), place + 1)
            })?;
            let (Some(phase), Some(first)) = (value["phase"].as_str(), value["first"].as_u64()) else {
                return Err(format!("{} line {}: no result: remove the line", path.display(), place + 1));
            };
            if value["module"] == subject.module && value["simulator"] == subject.simulator {
                results.blocks.insert((phase.to_owned(), first), value);
            }
        }
        Ok(results)
    }

    /// What the block that begins with this seed came to, if it has been run: the failures in it.
    #[must_use]
    pub fn known(&self, phase: Phase, first: u64) -> Option<Vec<String>> {
        let block = self.blocks.get(&(phase_word(phase).to_owned(), first))?;
        Some(failures(block))
    }

    /// Everything in the file together, for one phase.
    #[must_use]
    pub fn totals(&self, phase: Phase) -> Sum {
        let word = phase_word(phase);
        self.blocks
            .iter()
            .filter(|((found, _), _)| found == word)
            .fold(Sum::default(), |sum, (_, value)| sum.with(value))
    }
}

/// Adds a block to the file.
///
/// # Errors
/// A sentence about the file.
pub fn append(path: &Path, subject: &Subject, phase: Phase, first: u64, totals: &Totals) -> Result<(), String> {
    let failed = |error| format!("{} cannot be written: {error}", path.display());
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    writeln!(file, "{}", line(subject, phase, first, totals)).map_err(failed)
}

fn line(subject: &Subject, phase: Phase, first: u64, totals: &Totals) -> Value {
    let counts = &totals.counts;
    json!({
        "module": subject.module, "simulator": subject.simulator, "phase": phase_word(phase), "first": first,
        "numbers": {
            "histories": totals.histories, "simulated_ms": totals.simulated.as_millis() as u64, "events": totals.events,
            "traps": totals.traps, "sent": counts.sent, "acknowledged": counts.acknowledged,
            "delivered": counts.delivered, "duplicated_unknown": counts.duplicated_unknown,
            "duplicated_lost": counts.duplicated_lost, "recovered": counts.recovered, "attempts": counts.attempts,
            "dead": counts.dead, "retries": counts.retries, "joined": counts.joined, "refused": counts.refused,
            "ordered": counts.ordered, "with_retries": totals.with_retries, "with_lines": totals.with_lines,
        },
        "guest_bytes_max": totals.guest_bytes_max,
        "uses": totals.uses,
        "struck": struck(&totals.coverage), "met": met(&totals.coverage),
        "failed": totals.failed.iter().map(|(seed, _, violation)| json!([seed, violation.invariant.to_string(), violation.to_string()])).collect::<Vec<_>>(),
    })
}

fn struck(coverage: &Coverage) -> Map<String, Value> {
    coverage.struck.iter().map(|(fault, count)| (format!("{fault:?}"), json!(count))).collect()
}

fn met(coverage: &Coverage) -> Map<String, Value> {
    coverage.met.iter().map(|((fault, state), count)| (format!("{fault:?} {state:?}"), json!(count))).collect()
}

fn failures(block: &Value) -> Vec<String> {
    let phase = block["phase"].as_str().unwrap_or_default();
    let failed = block["failed"].as_array().into_iter().flatten();
    failed
        .map(|failure| {
            let (seed, text) = (&failure[0], failure[2].as_str().unwrap_or_default());
            format!("`scripts/sim.sh replay {phase} {seed}`: {text}")
        })
        .collect()
}

/// Blocks together, by the names in the file.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Counts by name.
    pub numbers: BTreeMap<String, u64>,
    /// Faults by name.
    pub struck: BTreeMap<String, u64>,
    /// Histories that had what not all have, by its name.
    pub uses: BTreeMap<String, u64>,
    /// Pairs of fault and record state by name.
    pub met: BTreeMap<String, u64>,
    /// The largest guest, in bytes.
    pub guest_bytes_max: u64,
    /// Failures, each with the command that shows it.
    pub failed: Vec<String>,
    /// How many broke each invariant.
    pub broken: BTreeMap<String, u64>,
}

impl Sum {
    fn with(mut self, value: &Value) -> Self {
        let add = |into: &mut BTreeMap<String, u64>, from: &Value| {
            for (name, count) in from.as_object().into_iter().flatten() {
                *into.entry(name.clone()).or_default() += count.as_u64().unwrap_or(0);
            }
        };
        add(&mut self.numbers, &value["numbers"]);
        add(&mut self.struck, &value["struck"]);
        add(&mut self.met, &value["met"]);
        add(&mut self.uses, &value["uses"]);
        self.guest_bytes_max = self.guest_bytes_max.max(value["guest_bytes_max"].as_u64().unwrap_or(0));
        self.failed.extend(failures(value));
        for failure in value["failed"].as_array().into_iter().flatten() {
            let invariant = failure[1].as_str().unwrap_or_default().to_owned();
            *self.broken.entry(invariant).or_default() += 1;
        }
        self
    }

    /// Two phases together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (into, from) in [
            (&mut self.numbers, &other.numbers),
            (&mut self.struck, &other.struck),
            (&mut self.met, &other.met),
            (&mut self.uses, &other.uses),
            (&mut self.broken, &other.broken),
        ] {
            for (name, count) in from {
                *into.entry(name.clone()).or_default() += count;
            }
        }
        self.guest_bytes_max = self.guest_bytes_max.max(other.guest_bytes_max);
        self.failed.extend(other.failed.iter().cloned());
        self
    }

    /// A count; 0 if there is none.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    /// Simulated time.
    #[must_use]
    pub fn simulated(&self) -> Duration {
        Duration::from_millis(self.number("simulated_ms"))
    }

    /// How often a fault met a record in a state.
    #[must_use]
    pub fn met(&self, fault: Fault, state: RecordState) -> u64 {
        self.met.get(&format!("{fault:?} {state:?}")).copied().unwrap_or(0)
    }
}
