//! How large the module is that users ship: what every proxy fetches, holds and compiles.

use crate::failure::Failure;
use crate::figures::Figures;
use crate::goal::{Goal, Mark, Of};
use crate::line::Line;
use crate::options::Options;
use crate::report::Found;
use crate::row::Row;

/// One line.
pub fn measure(options: &Options) -> Result<Found, Failure> {
    let file = std::fs::metadata(&options.wasm);
    let bytes = file.map_err(|error| Failure::Machine { what: options.wasm.clone(), error })?.len();
    Ok(vec![Line {
        row: Row::Size,
        what: "dist/redeliver.wasm".to_owned(),
        unit: "KB".to_owned(),
        ours: Figures(vec![bytes as f64 / 1e3]),
        yardstick: None,
        goal: Goal::Judged(Mark::at_most(Of::Ours, 350.0, 200.0)),
    }]
    .into())
}
