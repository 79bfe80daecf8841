//! The command line: which rows, how thoroughly, on which binaries. It reads arguments and nothing else.

use std::fmt;
use std::path::PathBuf;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: scripts/bench.sh [--quick] [--dry-run] [ROW...]

Measures what redeliver costs a real Envoy, against yardsticks that are measured in turns with it. Prints a table, and
writes it as JSON beside what cargo builds (bench.json). Rows; all of them if none is named:

  post    1 KiB POST that succeeds, protected: processor time per request, against a filter that does nothing
  get     GET that succeeds, not protected: the same
  store   1 KiB POST during an outage: stored and answered 202, against Envoy's buffer filter answering 503
  drain   20,000 stored messages when the receiver comes: messages per second, processor time per message
  first   time from Envoy calling the receiver healthy to the first redelivery

  --quick      fewer and smaller samples: under 3 minutes for all rows, once built
  --dry-run    name the rows that would run, and run nothing
  --help       this text

For comparing builds: --envoy FILE, --wasm FILE, --yardstick FILE (the do-nothing filter), --json FILE.
";

/// One benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Success path, protected.
    Post,
    /// Success path, not protected.
    Get,
    /// Storing under outage.
    Store,
    /// Redelivery rate.
    Drain,
    /// Healthy to first redelivery.
    First,
}

impl Row {
    /// In the order in which they run.
    pub const ALL: [Row; 5] = [Row::Post, Row::Get, Row::Store, Row::Drain, Row::First];

    /// Its name on the command line and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Row::Post => "post",
            Row::Get => "get",
            Row::Store => "store",
            Row::Drain => "drain",
            Row::First => "first",
        }
    }
}

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// For figures that are shown to others.
    Whole,
    /// For a look while working.
    Quick,
}

impl Extent {
    /// Its name in the result file.
    pub const fn name(self) -> &'static str {
        match self {
            Extent::Whole => "whole",
            Extent::Quick => "quick",
        }
    }
}

/// What a run needs.
#[derive(Debug)]
pub struct Options {
    /// In the order of the table.
    pub rows: Vec<Row>,
    /// How thoroughly.
    pub extent: Extent,
    /// The Envoy binary.
    pub envoy: PathBuf,
    /// Our module.
    pub wasm: PathBuf,
    /// The module that does nothing.
    pub yardstick: PathBuf,
    /// Where the result goes.
    pub json: PathBuf,
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Parsed {
    /// Run.
    Run(Options),
    /// Say what would run.
    DryRun(Options),
    /// Print the usage.
    Help,
}

/// An argument that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No row has this name.
    Row(String),
    /// There is no such option.
    Option(String),
    /// An option without the file that must follow.
    NoFile(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = Row::ALL.map(Row::name).join(", ");
        match self {
            Wrong::Row(name) => write!(f, "there is no row {name:?}: choose from {rows}"),
            Wrong::Option(name) => write!(f, "there is no option {name:?}: see --help"),
            Wrong::NoFile(option) => write!(f, "{option} needs a file behind it: see --help"),
        }
    }
}

/// Reads the arguments, the program's name left out.
pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Parsed, Wrong> {
    let mut options = Options {
        rows: Vec::new(),
        extent: Extent::Whole,
        envoy: PathBuf::from("envoy"),
        wasm: PathBuf::from("dist/redeliver.wasm"),
        yardstick: PathBuf::from("target/wasm32-wasip1/release/redeliver_yardstick.wasm"),
        json: PathBuf::from("target/bench.json"),
    };
    let mut parsed: fn(Options) -> Parsed = Parsed::Run;
    while let Some(argument) = arguments.next() {
        let file = match argument.as_str() {
            "--help" | "-h" => return Ok(Parsed::Help),
            "--quick" => {
                options.extent = Extent::Quick;
                continue;
            }
            "--dry-run" => {
                parsed = Parsed::DryRun;
                continue;
            }
            "--envoy" => &mut options.envoy,
            "--wasm" => &mut options.wasm,
            "--yardstick" => &mut options.yardstick,
            "--json" => &mut options.json,
            option if option.starts_with('-') => return Err(Wrong::Option(argument)),
            name => {
                let row = Row::ALL.into_iter().find(|row| row.name() == name);
                options.rows.push(row.ok_or_else(|| Wrong::Row(name.to_owned()))?);
                continue;
            }
        };
        *file = PathBuf::from(arguments.next().ok_or(Wrong::NoFile(argument))?);
    }
    options.rows = chosen(&options.rows);
    Ok(parsed(options))
}

/// All rows if none was named; each once, in their own order.
fn chosen(named: &[Row]) -> Vec<Row> {
    Row::ALL.into_iter().filter(|row| named.is_empty() || named.contains(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(arguments: &str) -> Result<Vec<Row>, Wrong> {
        match parse(arguments.split_whitespace().map(str::to_owned))? {
            Parsed::Run(options) | Parsed::DryRun(options) => Ok(options.rows),
            Parsed::Help => Ok(Vec::new()),
        }
    }

    #[test]
    fn names_choose_rows_and_no_name_means_all() {
        assert_eq!(rows("--quick"), Ok(Row::ALL.to_vec()));
        assert_eq!(rows("first post first"), Ok(vec![Row::Post, Row::First]));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(rows("post poost"), Err(Wrong::Row("poost".to_owned())));
        assert_eq!(rows("--quik"), Err(Wrong::Option("--quik".to_owned())));
        assert_eq!(rows("--json"), Err(Wrong::NoFile("--json".to_owned())));
    }
}
