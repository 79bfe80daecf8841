//! What a figure is to reach, and whether it did. It knows numbers only; what they mean stands in the rows.

use std::fmt;

use serde_json::{Value, json};

use crate::figures::Short;
use crate::options::Extent;

/// What the project wants to reach, as far as it was written down beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Nothing was.
    None,
    /// Something, and it counts.
    Judged(Mark),
    /// Something, but the figure depends on more than us, or on how little was measured.
    Reported(Mark),
}

/// A bar and an aim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Of which figure.
    pub of: Of,
    /// On which side of it.
    pub side: Side,
    /// Must.
    pub bar: f64,
    /// Should.
    pub aim: f64,
}

/// Which figure of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Our own.
    Ours,
    /// Ours by the yardstick's.
    Ratio,
    /// Ours less the yardstick's.
    Difference,
}

/// Where good figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The smaller the better.
    AtMost,
    /// The larger the better.
    AtLeast,
}

/// How a figure stands to its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none.
    NoGoal,
    /// As good as it should be.
    Aim,
    /// As good as it must be.
    Bar,
    /// Neither.
    Missed,
    /// Neither, but it is not judged.
    Unjudged,
}

impl Verdict {
    /// For the table and the result file.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::NoGoal => "-",
            Verdict::Aim => "aim",
            Verdict::Bar => "bar",
            Verdict::Missed => "MISSED",
            Verdict::Unjudged => "not judged",
        }
    }
}

impl Of {
    const ALL: [Of; 3] = [Of::Ours, Of::Ratio, Of::Difference];

    const fn word(self) -> &'static str {
        match self {
            Of::Ours => "ours",
            Of::Ratio => "ratio",
            Of::Difference => "difference",
        }
    }
}

impl Side {
    const fn word(self) -> &'static str {
        match self {
            Side::AtMost => "at most",
            Side::AtLeast => "at least",
        }
    }
}

impl Mark {
    /// The smaller the better.
    pub const fn at_most(of: Of, bar: f64, aim: f64) -> Mark {
        Mark { of, side: Side::AtMost, bar, aim }
    }

    /// The larger the better.
    pub const fn at_least(of: Of, bar: f64, aim: f64) -> Mark {
        Mark { of, side: Side::AtLeast, bar, aim }
    }

    /// Counts only in a run that measures as much as the mark was made for.
    pub const fn unless_shrunk(self, extent: Extent) -> Goal {
        match extent {
            Extent::Whole => Goal::Judged(self),
            Extent::Quick => Goal::Reported(self),
        }
    }

    fn reached(self, figure: f64) -> Option<Verdict> {
        // A figure that is none is on no side.
        let is_good = |mark: f64| match self.side {
            Side::AtMost => figure <= mark,
            Side::AtLeast => figure >= mark,
        };
        if is_good(self.aim) { Some(Verdict::Aim) } else { is_good(self.bar).then_some(Verdict::Bar) }
    }
}

impl Goal {
    /// The mark, judged or not.
    pub const fn mark(self) -> Option<Mark> {
        match self {
            Goal::None => None,
            Goal::Judged(mark) | Goal::Reported(mark) => Some(mark),
        }
    }

    /// How a figure stands to it.
    pub fn verdict(self, figure: f64) -> Verdict {
        match self {
            Goal::None => Verdict::NoGoal,
            Goal::Judged(mark) => mark.reached(figure).unwrap_or(Verdict::Missed),
            Goal::Reported(mark) => mark.reached(figure).unwrap_or(Verdict::Unjudged),
        }
    }

    /// As it stands in the result file.
    pub fn to_json(self) -> Value {
        let Some(Mark { of, side, bar, aim }) = self.mark() else { return Value::Null };
        let is_judged = matches!(self, Goal::Judged(_));
        json!({"of": of.word(), "side": side.word(), "bar": bar, "aim": aim, "judged": is_judged})
    }

    /// What `to_json` wrote; `None` if it is anything else.
    pub fn from_json(value: &Value) -> Option<Goal> {
        if value.is_null() {
            return Some(Goal::None);
        }
        let of = Of::ALL.into_iter().find(|of| value["of"] == of.word())?;
        let side = [Side::AtMost, Side::AtLeast].into_iter().find(|side| value["side"] == side.word())?;
        let mark = Mark { of, side, bar: value["bar"].as_f64()?, aim: value["aim"].as_f64()? };
        Some(if value["judged"].as_bool()? { Goal::Judged(mark) } else { Goal::Reported(mark) })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Mark { side, bar, aim, of: _ }) = self.mark() else { return f.write_str("-") };
        write!(f, "{} {} (aim {})", side.word(), Short(bar), Short(aim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Mark = Mark::at_most(Of::Ratio, 1.2, 1.0);
    const LARGE: Mark = Mark::at_least(Of::Ratio, 0.8, 0.9);

    #[test]
    fn a_figure_is_judged_on_the_right_side_of_its_marks() {
        let cases = [
            (Goal::None, 9.0, Verdict::NoGoal),
            (Goal::Judged(SMALL), 1.0, Verdict::Aim),
            (Goal::Judged(SMALL), 1.2, Verdict::Bar),
            (Goal::Judged(SMALL), 1.21, Verdict::Missed),
            (Goal::Judged(LARGE), 0.95, Verdict::Aim),
            (Goal::Judged(LARGE), 0.8, Verdict::Bar),
            (Goal::Judged(LARGE), 0.79, Verdict::Missed),
            (Goal::Reported(LARGE), 0.79, Verdict::Unjudged),
            (Goal::Judged(SMALL), f64::NAN, Verdict::Missed),
        ];
        for (goal, figure, verdict) in cases {
            assert_eq!(goal.verdict(figure), verdict, "{goal} of {figure}");
        }
    }

    #[test]
    fn a_goal_reads_back_as_written() {
        for goal in [Goal::None, Goal::Judged(SMALL), Goal::Reported(LARGE)] {
            assert_eq!(Goal::from_json(&goal.to_json()), Some(goal));
        }
        assert_eq!(Goal::from_json(&json!({"of": "nothing"})), None);
    }
}
