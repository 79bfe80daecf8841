//! One line of the result: two figures side by side, how they compare, and what they were to reach.

use serde_json::{Value, json};

use crate::figures::{Figures, Short};
use crate::goal::{Goal, Of, Verdict};
use crate::row::Row;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The row it belongs to.
    pub row: Row,
    /// What is compared with what.
    pub what: String,
    /// Of both figures.
    pub unit: String,
    /// The candidate.
    pub ours: Figures,
    /// What it is compared with, measured beside it; `None` if a figure stands for itself.
    pub yardstick: Option<Figures>,
    /// What to reach.
    pub goal: Goal,
}

/// The titles of [`Line::cells`].
pub const TITLES: [&str; 8] = ["row", "what", "ours", "yardstick", "compared", "spread (n)", "goal", "reached"];

impl Line {
    /// The median of the figure that counts stands to the goal like this.
    pub fn verdict(&self) -> Verdict {
        let figures = self.compared().unwrap_or_else(|| self.ours.clone());
        self.goal.verdict(figures.median())
    }

    /// Ours against the yardstick, pair by pair: a ratio, unless the goal is a difference. If it is our own figure, the
    /// yardstick is there to be seen and no more.
    fn compared(&self) -> Option<Figures> {
        let yardstick = self.yardstick.as_ref()?;
        match self.kind() {
            Of::Ours => None,
            Of::Ratio => Some(self.ours.over(yardstick)),
            Of::Difference => Some(self.ours.less(yardstick)),
        }
    }

    fn kind(&self) -> Of {
        self.goal.mark().map_or(Of::Ratio, |mark| mark.of)
    }

    /// For a table.
    pub fn cells(&self) -> [String; 8] {
        let none = || "-".to_owned();
        let median = |figures: &Figures| format!("{} {}", Short(figures.median()), self.unit);
        let compared = self.compared();
        // The spread of the comparison says how far to trust it; without one, that of the figure itself.
        let spread = compared.as_ref().unwrap_or(&self.ours);
        let shown = compared.as_ref().map(|figures| match self.kind() {
            Of::Ours | Of::Ratio => Short(figures.median()).to_string(),
            Of::Difference => median(figures),
        });
        [
            self.row.name().to_owned(),
            self.what.clone(),
            median(&self.ours),
            self.yardstick.as_ref().map_or_else(none, median),
            shown.unwrap_or_else(none),
            format!("{} ({})", spread.range(), spread.0.len()),
            self.goal.to_string(),
            self.verdict().word().to_owned(),
        ]
    }

    /// As it stands in the result file.
    pub fn to_json(&self) -> Value {
        json!({
            "row": self.row.name(), "what": self.what, "unit": self.unit,
            "ours": self.ours.to_json(),
            "yardstick": self.yardstick.as_ref().map(Figures::to_json),
            "compared": self.compared().as_ref().map(Figures::to_json),
            "goal": self.goal.to_json(),
            "reached": self.verdict().word(),
        })
    }

    /// What `to_json` wrote; `None` if it is anything else.
    pub fn from_json(value: &Value) -> Option<Line> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let yardstick = match &value["yardstick"] {
            Value::Null => None,
            figures => Some(Figures::from_json(figures)?),
        };
        Some(Line {
            row: Row::of(value["row"].as_str()?)?,
            what: text("what")?,
            unit: text("unit")?,
            ours: Figures::from_json(&value["ours"])?,
            yardstick,
            goal: Goal::from_json(&value["goal"])?,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::goal::Mark;

    pub fn line(goal: Goal, yardstick: Option<f64>) -> Line {
        Line {
            row: Row::Post,
            what: "a POST".to_owned(),
            unit: "us".to_owned(),
            ours: Figures(vec![110.0]),
            yardstick: yardstick.map(|figure| Figures(vec![figure])),
            goal,
        }
    }

    #[test]
    fn the_goal_says_how_two_figures_compare() {
        let mark = |of| Goal::Judged(Mark::at_most(of, 10.0, 1.1));
        let cases = [
            (line(mark(Of::Ratio), Some(100.0)), "1.10", Verdict::Aim),
            (line(mark(Of::Difference), Some(100.0)), "10.0 us", Verdict::Bar),
            (line(mark(Of::Ours), None), "-", Verdict::Missed),
            (line(Goal::Judged(Mark::at_most(Of::Ours, 110.0, 1.1)), Some(1.0)), "-", Verdict::Bar),
            (line(Goal::None, Some(100.0)), "1.10", Verdict::NoGoal),
        ];
        for (line, compared, verdict) in cases {
            assert_eq!((line.cells()[4].as_str(), line.verdict()), (compared, verdict), "{line:?}");
        }
    }

    #[test]
    fn a_line_reads_back_as_written() {
        for yardstick in [None, Some(100.0)] {
            let line = line(Goal::Reported(Mark::at_least(Of::Ratio, 0.8, 0.9)), yardstick);
            assert_eq!(Line::from_json(&line.to_json()), Some(line));
        }
        assert_eq!(Line::from_json(&json!({"row": "post"})), None);
    }
}
