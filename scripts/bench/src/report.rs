//! The result of a run, as a table for people and as JSON for programs and for the page. It compares and never
//! measures.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::goal::Verdict;
use crate::growth::Growth;
use crate::line::{Line, TITLES};
use crate::machine::Machine;
use crate::options::Extent;
use crate::row::Row;

const LEGEND: &str = "
Figures are medians; n is how often each was measured. A comparison is made within each pair, which was measured in
turns, and its spread is the smallest and the largest one. Figures with a unit depend on the machine and on what else it
did.
";

/// What one row found.
#[derive(Debug, Default)]
pub struct Found {
    /// Its lines of the table.
    pub lines: Vec<Line>,
    /// What a message costs as the backlog grows, if it looked.
    pub growth: Option<Growth>,
}

impl From<Vec<Line>> for Found {
    fn from(lines: Vec<Line>) -> Found {
        Found { lines, growth: None }
    }
}

/// All that a run found.
#[derive(Debug)]
pub struct Outcome {
    /// How thoroughly it measured.
    pub extent: Extent,
    /// On what.
    pub machine: Machine,
    /// What it measured.
    pub found: Found,
    /// The rows without figures, and why.
    pub failed: Vec<(Row, Failure)>,
}

impl Outcome {
    /// A row is done.
    pub fn add(&mut self, row: Row, result: Result<Found, Failure>) {
        match result {
            Ok(found) => {
                self.found.lines.extend(found.lines);
                self.found.growth = found.growth.or(self.found.growth.take());
            }
            Err(failure) => self.failed.push((row, failure)),
        }
    }

    /// Whether a figure that counts is not what it must be.
    pub fn misses_a_bar(&self) -> bool {
        self.found.lines.iter().any(|line| line.verdict() == Verdict::Missed)
    }

    /// For the screen.
    pub fn table(&self) -> String {
        format!("{}\n\n{}{LEGEND}", self.machine, columns(&self.found.lines))
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let failed = |(row, failure): &(Row, Failure)| json!({"row": row.name(), "why": failure.to_string()});
        json!({
            "extent": self.extent.name(),
            "machine": self.machine.to_json(),
            "lines": self.found.lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "growth": self.found.growth.as_ref().map(Growth::to_json),
            "failed": self.failed.iter().map(failed).collect::<Vec<_>>(),
        })
    }
}

fn columns(lines: &[Line]) -> String {
    let rows: Vec<_> = std::iter::once(TITLES.map(str::to_owned)).chain(lines.iter().map(Line::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; TITLES.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(text, "{}", line.trim_end()).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goal::{Goal, Mark, Of};
    use crate::line::tests::line;

    #[test]
    fn columns_stand_under_their_titles() {
        let text = columns(&[line(Goal::None, Some(100.0))]);
        let (titles, cells) = text.split_once('\n').unwrap();
        for (title, cell) in [("yardstick", "100.0 us"), ("compared", "1.10"), ("spread", "1.10 .. 1.10 (1)")] {
            assert_eq!(titles.find(title), cells.find(cell), "{text}");
        }
    }

    #[test]
    fn only_what_is_judged_can_miss_a_bar() {
        let mark = Mark::at_most(Of::Ratio, 1.05, 1.0);
        for (goal, misses) in [(Goal::Judged(mark), true), (Goal::Reported(mark), false), (Goal::None, false)] {
            let mut outcome = Outcome {
                extent: Extent::Quick,
                machine: Machine::default(),
                found: Found::default(),
                failed: Vec::new(),
            };
            outcome.add(Row::Post, Ok(vec![line(goal, Some(100.0))].into()));
            assert_eq!(outcome.misses_a_bar(), misses, "{goal:?}");
        }
    }
}
