//! Repeated measurements of one thing: their median and how far they lie apart. It never averages: on a shared machine
//! one disturbed sample would move an average, and a median it does not.

use std::fmt;

use serde_json::{Value, json};

/// The samples of one thing, in the order they were taken; at least one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// The middle sample, or the mean of the two middle ones.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        f64::midpoint(at(low), at(high))
    }

    /// `self / other`, sample by sample: each pair was measured side by side, so what disturbed one disturbed both.
    pub fn over(&self, other: &Figures) -> Figures {
        Figures(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// `self - other`, sample by sample.
    pub fn less(&self, other: &Figures) -> Figures {
        Figures(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours - theirs).collect())
    }

    /// The smallest and the largest sample.
    pub fn range(&self) -> Range {
        let sorted = self.sorted();
        let (first, last) = (sorted.first(), sorted.last());
        Range { low: first.copied().unwrap_or(f64::NAN), high: last.copied().unwrap_or(f64::NAN) }
    }

    /// As it stands in the result file.
    pub fn to_json(&self) -> Value {
        let Range { low, high } = self.range();
        json!({"median": self.median(), "low": low, "high": high, "samples": self.0})
    }

    /// What `to_json` wrote; `None` if it is anything else.
    pub fn from_json(value: &Value) -> Option<Figures> {
        let samples = value["samples"].as_array()?.iter().map(Value::as_f64).collect::<Option<_>>();
        samples.map(Figures)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// How far samples lie apart.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} .. {}", Short(self.low), Short(self.high))
    }
}

/// A number with as many digits as it deserves: 1.08, 97.3, 11839.
pub struct Short(pub f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0.abs() {
            value if value < 10.0 => 2,
            value if value < 1000.0 => 1,
            _ => 0,
        };
        f.pad(&format!("{:.*}", decimals, self.0))
    }
}

/// A count with its thousands apart: 1,000,000.
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(f, "{}", self.0),
            count => write!(f, "{},{:03}", Count(count / 1_000), count % 1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_does_not_follow_an_outlier() {
        let cases: [(&[f64], f64); 4] =
            [(&[3.0], 3.0), (&[1.0, 2.0], 1.5), (&[9.0, 1.0, 2.0], 2.0), (&[1.0, 2.0, 3.0, 900.0], 2.5)];
        for (samples, median) in cases {
            assert_eq!(Figures(samples.to_vec()).median(), median, "{samples:?}");
        }
    }

    #[test]
    fn a_ratio_is_taken_within_each_pair() {
        let ours = Figures(vec![110.0, 220.0, 330.0]);
        let theirs = Figures(vec![100.0, 100.0, 300.0]);
        let ratio = ours.over(&theirs);
        assert_eq!((ratio.median(), ratio.range().low, ratio.range().high), (1.1, 1.1, 2.2));
    }

    #[test]
    fn thousands_stand_apart() {
        let shown: Vec<String> =
            [0, 999, 1_000, 20_030, 1_000_000].iter().map(|count| Count(*count).to_string()).collect();
        assert_eq!(shown, ["0", "999", "1,000", "20,030", "1,000,000"]);
    }

    #[test]
    fn numbers_are_as_long_as_they_deserve() {
        let shown: Vec<String> = [1.084, 97.26, 11838.7].iter().map(|value| Short(*value).to_string()).collect();
        assert_eq!(shown, ["1.08", "97.3", "11839"]);
    }
}
