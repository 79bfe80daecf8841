//! What a message costs as the backlog grows: the points of a curve. It never draws; `plot` does.

use serde_json::{Value, json};

/// One stretch of storing or delivering, at the backlog in its middle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Messages in the store.
    pub backlog: u64,
    /// Processor time per message, in microseconds.
    pub cpu_micros: f64,
}

/// Two curves over the same axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Growth {
    /// Storing, as the backlog grew.
    pub store: Vec<Point>,
    /// Delivering, as it went down.
    pub deliver: Vec<Point>,
}

impl Growth {
    /// As it stands in the result file.
    pub fn to_json(&self) -> Value {
        let curve = |points: &[Point]| points.iter().map(|point| json!([point.backlog, point.cpu_micros])).collect();
        let (store, deliver): (Vec<Value>, Vec<Value>) = (curve(&self.store), curve(&self.deliver));
        json!({"unit": "us per message at a backlog", "store": store, "deliver": deliver})
    }

    /// What `to_json` wrote; `None` if it is anything else.
    pub fn from_json(value: &Value) -> Option<Growth> {
        let point = |pair: &Value| Some(Point { backlog: pair[0].as_u64()?, cpu_micros: pair[1].as_f64()? });
        let curve = |key: &str| value[key].as_array()?.iter().map(point).collect::<Option<Vec<_>>>();
        Some(Growth { store: curve("store")?, deliver: curve("deliver")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_reads_back_as_written() {
        let point = |backlog, cpu_micros| Point { backlog, cpu_micros };
        let growth = Growth { store: vec![point(500, 40.5), point(1500, 41.0)], deliver: vec![point(10, 90.25)] };
        assert_eq!(Growth::from_json(&growth.to_json()), Some(growth));
        assert_eq!(Growth::from_json(&Value::Null), None);
    }
}
