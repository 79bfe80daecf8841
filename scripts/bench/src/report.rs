//! The result: one line per ratio, as a table for people and as JSON. It reports; it never judges.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::figures::{Figures, Short};
use crate::machine::Machine;
use crate::options::{Extent, Row};

/// What the project wants to reach, as far as it was written down beforehand.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    /// Nothing was.
    None,
    /// The ratio is to be at most this.
    Ratio {
        /// Must.
        bar: f64,
        /// Should.
        aim: f64,
    },
    /// Our own figure is to be at most this.
    Ours {
        /// Must.
        bar: f64,
        /// Should.
        aim: f64,
    },
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    /// The row it belongs to.
    pub row: &'static str,
    /// What is compared with what.
    pub what: &'static str,
    /// Of both figures.
    pub unit: &'static str,
    /// The candidate.
    pub ours: Figures,
    /// What it is compared with, measured beside it; `None` if a figure stands for itself.
    pub yardstick: Option<Figures>,
    /// What to reach.
    pub bar: Bar,
}

impl Line {
    fn ratio(&self) -> Option<Figures> {
        self.yardstick.as_ref().map(|yardstick| self.ours.over(yardstick))
    }

    fn cells(&self) -> [String; 7] {
        let median = |figures: &Figures| format!("{} {}", Short(figures.median()), self.unit);
        let ratio = self.ratio();
        // The spread of the ratio says how far to trust it; without a ratio, that of the figure itself.
        let spread = ratio.as_ref().unwrap_or(&self.ours);
        [
            self.row.to_owned(),
            self.what.to_owned(),
            median(&self.ours),
            self.yardstick.as_ref().map_or_else(|| "-".to_owned(), median),
            ratio.as_ref().map_or_else(|| "-".to_owned(), |ratio| Short(ratio.median()).to_string()),
            format!("{} ({})", spread.range(), spread.0.len()),
            self.bar.to_string(),
        ]
    }

    fn to_json(&self) -> Value {
        let (bar, aim) = match self.bar {
            Bar::None => (Value::Null, Value::Null),
            Bar::Ratio { bar, aim } | Bar::Ours { bar, aim } => (json!(bar), json!(aim)),
        };
        let of = match self.bar {
            Bar::None => Value::Null,
            Bar::Ratio { .. } => json!("ratio"),
            Bar::Ours { .. } => json!("ours"),
        };
        json!({
            "row": self.row, "what": self.what, "unit": self.unit,
            "ours": self.ours.to_json(),
            "yardstick": self.yardstick.as_ref().map(Figures::to_json),
            "ratio": self.ratio().as_ref().map(Figures::to_json),
            "bar": bar, "aim": aim, "bar_of": of,
        })
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::None => f.write_str("-"),
            Bar::Ratio { bar, aim } => write!(f, "ratio {} (aim {})", Short(*bar), Short(*aim)),
            Bar::Ours { bar, aim } => write!(f, "{bar} (aim {aim})"),
        }
    }
}

const LEGEND: &str = "
Figures are medians; n is how often each was measured. A ratio is taken within each pair, which was measured in turns, and
its spread is the smallest and the largest one. Figures with a unit depend on the machine and on what else it did.
";

const TITLES: [&str; 7] = ["row", "what", "ours", "yardstick", "ratio", "spread (n)", "bar"];

/// All that a run found.
#[derive(Debug)]
pub struct Outcome {
    /// How thoroughly it measured.
    pub extent: Extent,
    /// On what.
    pub machine: Machine,
    /// What it measured.
    pub lines: Vec<Line>,
    /// The rows without figures, and why.
    pub failed: Vec<(Row, Failure)>,
}

impl Outcome {
    /// For the screen.
    pub fn table(&self) -> String {
        let rows: Vec<[String; 7]> =
            std::iter::once(TITLES.map(str::to_owned)).chain(self.lines.iter().map(Line::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut text = format!("{}\n\n", self.machine);
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(text, "{}", line.trim_end()).unwrap_or_default();
        }
        text + LEGEND
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let failed = |(row, failure): &(Row, Failure)| json!({"row": row.name(), "why": failure.to_string()});
        json!({
            "extent": self.extent.name(),
            "machine": self.machine.to_json(),
            "lines": self.lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "failed": self.failed.iter().map(failed).collect::<Vec<_>>(),
        })
    }
}
