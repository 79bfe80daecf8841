//! The command line: which rows, how thoroughly, on which binaries. It reads arguments and nothing else.

use std::fmt;
use std::path::PathBuf;

use crate::row::{Row, chosen};

/// What `--help` prints.
pub fn usage() -> String {
    let rows = Row::ALL.map(|row| {
        let help = row.sheet().help.replace('\n', &format!("\n{:11}", ""));
        format!("  {:8} {help}\n", row.name())
    });
    USAGE.replace("ROWS\n", &rows.concat())
}

const USAGE: &str = "\
usage: scripts/bench.sh [--quick] [--judge] [--dry-run] [ROW...]
       scripts/bench.sh --page

Measures what redeliver costs a real Envoy, against yardsticks that are measured in turns with it. Prints a table, and
writes it as JSON beside what cargo builds (bench.json). Rows; all of them if none is named:

ROWS
  --quick      fewer and smaller samples: under 3 minutes, once built; without count and the rows of a million messages,
               which are shrunk if they are named
  --judge      end with 1 if a figure misses its bar
  --page       run nothing: write docs/performance.md and docs/growth.svg from the last run's JSON
  --dry-run    name the rows that would run, and run nothing
  --help       this text

For comparing builds: --envoy FILE, --wasm FILE, --yardstick FILE (the do-nothing filter), --loop FILE (the bare loop of
dispatches), --sim FILE (redeliver-sim), --counter FILE (redeliver-counter), --json FILE.
";

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

/// What a figure that misses its bar does to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is reported.
    Report,
    /// It also makes the run end with 1.
    Judge,
}

/// What a run needs.
#[derive(Debug)]
pub struct Options {
    /// In the order of the table.
    pub rows: Vec<Row>,
    /// Whether somebody named them.
    pub named: bool,
    /// How thoroughly.
    pub extent: Extent,
    /// Whether bars are enforced.
    pub judgement: Judgement,
    /// The Envoy binary.
    pub envoy: PathBuf,
    /// Our module.
    pub wasm: PathBuf,
    /// The module that does nothing.
    pub yardstick: PathBuf,
    /// The module that only dispatches.
    pub bare_loop: PathBuf,
    /// The simulator, for what Envoy does not show.
    pub sim: PathBuf,
    /// The plugin that counts instructions.
    pub counter: PathBuf,
    /// Where the result goes, or comes from.
    pub json: PathBuf,
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Parsed {
    /// Run.
    Run(Options),
    /// Say what would run.
    DryRun(Options),
    /// Write the page from an earlier run.
    Page(Options),
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
        named: false,
        extent: Extent::Whole,
        judgement: Judgement::Report,
        envoy: PathBuf::from("envoy"),
        wasm: PathBuf::from("dist/redeliver.wasm"),
        yardstick: PathBuf::from("target/wasm32-wasip1/release/redeliver_yardstick.wasm"),
        bare_loop: PathBuf::from("target/wasm32-wasip1/release/redeliver_loop.wasm"),
        sim: PathBuf::from("target/sim/redeliver-sim"),
        counter: PathBuf::from("target/tool/libredeliver_counter.so"),
        json: PathBuf::from("target/bench.json"),
    };
    let mut named = Vec::new();
    let mut parsed: fn(Options) -> Parsed = Parsed::Run;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Parsed::Help),
            "--quick" => options.extent = Extent::Quick,
            "--judge" => options.judgement = Judgement::Judge,
            "--dry-run" => parsed = Parsed::DryRun,
            "--page" => parsed = Parsed::Page,
            option if option.starts_with('-') => {
                let file = options.file(option).ok_or_else(|| Wrong::Option(argument.clone()))?;
                *file = PathBuf::from(arguments.next().ok_or(Wrong::NoFile(argument))?);
            }
            name => named.push(Row::of(name).ok_or_else(|| Wrong::Row(name.to_owned()))?),
        }
    }
    options.named = !named.is_empty();
    options.rows = chosen(&named, options.extent);
    Ok(parsed(options))
}

impl Options {
    /// The file that an option names.
    fn file(&mut self, option: &str) -> Option<&mut PathBuf> {
        Some(match option {
            "--envoy" => &mut self.envoy,
            "--wasm" => &mut self.wasm,
            "--yardstick" => &mut self.yardstick,
            "--loop" => &mut self.bare_loop,
            "--sim" => &mut self.sim,
            "--counter" => &mut self.counter,
            "--json" => &mut self.json,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &str) -> Result<Options, Wrong> {
        match parse(arguments.split_whitespace().map(str::to_owned))? {
            Parsed::Run(options) | Parsed::DryRun(options) | Parsed::Page(options) => Ok(options),
            Parsed::Help => panic!("nobody asked for help"),
        }
    }

    fn rows(arguments: &str) -> Result<Vec<Row>, Wrong> {
        options(arguments).map(|options| options.rows)
    }

    #[test]
    fn names_choose_rows_and_no_name_means_all() {
        assert_eq!(rows(""), Ok(Row::ALL.to_vec()));
        assert_eq!(rows("first post first"), Ok(vec![Row::Post, Row::First]));
    }

    #[test]
    fn options_may_stand_before_and_behind_names() {
        let options = options("--json a.json post --judge --quick").unwrap();
        assert_eq!(
            (options.rows, options.judgement, options.extent),
            (vec![Row::Post], Judgement::Judge, Extent::Quick)
        );
        assert_eq!(options.json, PathBuf::from("a.json"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(rows("post poost"), Err(Wrong::Row("poost".to_owned())));
        assert_eq!(rows("--quik"), Err(Wrong::Option("--quik".to_owned())));
        assert_eq!(rows("--json"), Err(Wrong::NoFile("--json".to_owned())));
    }

    #[test]
    fn the_usage_tells_every_row() {
        let usage = usage();
        for row in Row::ALL {
            assert!(usage.contains(&format!("\n  {:8} ", row.name())), "{}: {usage}", row.name());
        }
    }
}
