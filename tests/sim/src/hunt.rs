//! The hunt: each planted bug in turn, until a history finds it.

use crate::generate;
use crate::history::Phase;
use crate::search::{StopAt, search};
use crate::violation::Violation;
use crate::world::{self, Means};
use serde_json::{Value, json};
use simvoy::Module;
use std::ops::Range;

/// A planted bug, as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub story: String,
    /// What should find it.
    pub expect: String,
}

/// How a bug was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which bug.
    pub bug: String,
    /// In which kind of history.
    pub phase: Phase,
    /// By which seed.
    pub seed: u64,
    /// How many histories that took, this one included.
    pub histories: u64,
    /// By which invariant.
    pub invariant: String,
}

/// Seeds that a bug must be found within.
pub const SEEDS_MAX: u64 = 1_000;
/// Liveness histories are long: one block of them follows each block of safety histories.
const SAFETY_BLOCK: u64 = 40;
const LIVENESS_BLOCK: u64 = 10;

/// Looks for one bug in about `most` histories.
#[must_use]
pub fn hunt(module: &Module, bug: &str, most: u64) -> Option<(Finding, Violation)> {
    let means = Means { planted: Some(bug.to_owned()), ..Means::default() };
    let mut tried = 0;
    for block in 0..most.div_ceil(SAFETY_BLOCK + LIVENESS_BLOCK) {
        for (phase, length) in [(Phase::Safety, SAFETY_BLOCK), (Phase::Liveness, LIVENESS_BLOCK)] {
            let seeds = block * length..(block + 1) * length;
            let mut from = seeds.start;
            while let Some((seed, violation)) = first(module, from..seeds.end, phase, &means) {
                // A history that fails without the bug too shows nothing of it.
                if passes(module, seed, phase) {
                    let histories = tried + seed - seeds.start + 1;
                    let invariant = violation.invariant.to_string();
                    return Some((Finding { bug: bug.to_owned(), phase, seed, histories, invariant }, violation));
                }
                from = seed + 1;
            }
            tried += length;
        }
    }
    None
}

fn passes(module: &Module, seed: u64, phase: Phase) -> bool {
    world::run(module, &generate::history(seed, phase), &Means::default()).violation.is_none()
}

fn first(module: &Module, seeds: Range<u64>, phase: Phase, means: &Means) -> Option<(u64, Violation)> {
    let totals = search(module, seeds, phase, means, StopAt::FirstFailure, |_, _| {});
    totals.failed.into_iter().next().map(|(seed, _, violation)| (seed, violation))
}

/// Runs the history that found a bug with it and without it; whether it fails with it only, by the same invariant.
#[must_use]
pub fn refind(module: &Module, finding: &Finding) -> bool {
    let means = Means { planted: Some(finding.bug.clone()), ..Means::default() };
    let violation = world::run(module, &generate::history(finding.seed, finding.phase), &means).violation;
    let is_it = violation.is_some_and(|violation| violation.invariant.to_string() == finding.invariant);
    is_it && passes(module, finding.seed, finding.phase)
}

/// The bugs in the JSON that `redeliver-planted list --json` prints.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn read_bugs(text: &str) -> Result<Vec<Bug>, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("the list of planted bugs is no JSON: {error}"))?;
    let bugs = value.as_array().ok_or("the list of planted bugs is no list")?;
    bugs.iter().map(read_bug).collect()
}

fn read_bug(value: &Value) -> Result<Bug, String> {
    let text =
        |name: &str| value[name].as_str().map(str::to_owned).ok_or(format!("a planted bug has no {name}: {value}"));
    let expect =
        value["expect"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    Ok(Bug { name: text("name")?, story: text("story")?, expect })
}

/// Findings as the file in the repository has them.
#[must_use]
pub fn write_findings(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| {
            let value = json!({
                "bug": finding.bug, "phase": crate::report::phase_word(finding.phase), "seed": finding.seed,
                "histories": finding.histories, "invariant": finding.invariant,
            });
            format!("  {value}")
        })
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

/// The findings of that file.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn read_findings(text: &str) -> Result<Vec<Finding>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("the findings are no JSON: {error}"))?;
    let findings = value.as_array().ok_or("the findings are no list")?;
    findings.iter().map(read_finding).collect()
}

fn read_finding(value: &Value) -> Result<Finding, String> {
    let wrong = || format!("not a finding: {value}");
    let text = |name: &str| value[name].as_str().map(str::to_owned).ok_or_else(wrong);
    let number = |name: &str| value[name].as_u64().ok_or_else(wrong);
    let phase = crate::report::phase_of(&text("phase")?).ok_or_else(wrong)?;
    Ok(Finding {
        bug: text("bug")?,
        phase,
        seed: number("seed")?,
        histories: number("histories")?,
        invariant: text("invariant")?,
    })
}
