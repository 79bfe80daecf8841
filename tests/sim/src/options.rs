//! The command line of the proving ground.

use redeliver_sim::history::Phase;
use redeliver_sim::hunt::{self, Finding};
use redeliver_sim::report::phase_of;
use redeliver_sim::shrink::read_places;
use redeliver_sim::world::Means;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

pub const USAGE: &str = "\
usage: redeliver-sim search [--seeds FROM..TO] [--phase safety|liveness] [--results FILE]
           runs histories; with a results file, goes on where an earlier run stopped
       redeliver-sim replay safety|liveness SEED [--keep PLACES] [--events N] [--planted BUG]
           one history again: its last events, its slots, its faults, what went wrong
       redeliver-sim shrink safety|liveness SEED [--planted BUG]
           leaves out of a failing history what it does not need
       redeliver-sim scenarios [WORDS]
           the named histories, or those with these words in their names
       redeliver-sim cuts [--planted BUG]
           a trap at every host call that stores or delivers, one run for each
       redeliver-sim hunt [BUG...] --findings FILE [--most HISTORIES] < LIST
           looks for planted bugs, each in at most 1000 histories; LIST is what redeliver-planted list --json prints
       redeliver-sim refind --findings FILE < LIST
           every planted bug again, by the seed that found it
       redeliver-sim endurance [--messages N]
           N messages stored and delivered: what is delivered once, and how much a guest grows
       redeliver-sim cycles [--messages N]
           the same without judges and faults, as fast as it goes; one line of JSON (scripts/bench.sh reads it)
       redeliver-sim speed          simulated to real time, for one outage with 500 messages
       redeliver-sim page --results FILE --findings FILE < LIST
           the reliability page, from the results of a search
options:
       --module FILE   the module; dist/redeliver.wasm, for planted bugs dist/redeliver-planted.wasm";

/// What is to be done.
pub enum Command {
    Help,
    Search,
    Replay(Phase, u64),
    Shrink(Phase, u64),
    Scenarios(String),
    Cuts,
    Hunt(Vec<String>),
    Refind,
    Endurance,
    Cycles,
    Speed,
    Page,
}

/// The whole command line.
pub struct Options {
    pub command: Command,
    pub module: PathBuf,
    pub seeds: Range<u64>,
    pub phases: Vec<Phase>,
    pub results: Option<PathBuf>,
    pub findings: Option<PathBuf>,
    pub planted: Option<String>,
    pub keep: Option<BTreeSet<usize>>,
    pub events: usize,
    pub most: u64,
    pub messages: u32,
}

/// Events in words that a replay prints unless it is told otherwise.
const EVENTS: usize = 80;
/// Messages of an endurance run, or of cycles, without `--messages`.
const MESSAGES: u32 = 20_000;
/// Histories of a search without `--seeds`.
const SEEDS: Range<u64> = 0..1_000;

impl Options {
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            command: Command::Help,
            module: PathBuf::from("dist/redeliver.wasm"),
            seeds: SEEDS,
            phases: vec![Phase::Safety, Phase::Liveness],
            results: None,
            findings: None,
            planted: None,
            keep: None,
            events: EVENTS,
            most: hunt::SEEDS_MAX,
            messages: MESSAGES,
        };
        let mut words = Vec::new();
        let mut module = None;
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let mut value = || rest.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--module" => module = Some(PathBuf::from(value()?)),
                "--seeds" => options.seeds = range(value()?)?,
                "--phase" => options.phases = vec![phase(value()?)?],
                "--results" => options.results = Some(PathBuf::from(value()?)),
                "--findings" => options.findings = Some(PathBuf::from(value()?)),
                "--planted" => options.planted = Some(value()?.clone()),
                "--keep" => options.keep = Some(read_places(value()?).ok_or("--keep wants places such as 3,5-9")?),
                "--events" => options.events = number(value()?)? as usize,
                "--messages" => options.messages = u32::try_from(number(value()?)?).unwrap_or(u32::MAX),
                "--most" => options.most = number(value()?)?,
                "--help" | "-h" => return Ok(options),
                unknown if unknown.starts_with('-') => return Err(format!("unknown option {unknown}")),
                _ => words.push(word.as_str()),
            }
        }
        options.command = command(&words)?;
        let is_planted = options.planted.is_some() || matches!(options.command, Command::Hunt(_) | Command::Refind);
        let usual = if is_planted { "dist/redeliver-planted.wasm" } else { "dist/redeliver.wasm" };
        options.module = module.unwrap_or_else(|| PathBuf::from(usual));
        Ok(options)
    }

    /// What histories are run with.
    pub fn means(&self) -> Means {
        Means { planted: self.planted.clone(), ..Means::default() }
    }

    /// The findings in the file, or none if there is no file.
    pub fn known_findings(&self) -> Result<Vec<Finding>, String> {
        let Some(path) = &self.findings else { return Ok(Vec::new()) };
        match std::fs::read_to_string(path) {
            Ok(text) => hunt::read_findings(&text).map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    }
}

fn command(words: &[&str]) -> Result<Command, String> {
    Ok(match words {
        ["search"] => Command::Search,
        ["replay", kind, seed] => Command::Replay(phase(kind)?, number(seed)?),
        ["shrink", kind, seed] => Command::Shrink(phase(kind)?, number(seed)?),
        ["scenarios", words @ ..] => Command::Scenarios(words.join(" ")),
        ["cuts"] => Command::Cuts,
        ["hunt", names @ ..] => Command::Hunt(names.iter().map(|name| (*name).to_owned()).collect()),
        ["refind"] => Command::Refind,
        ["endurance"] => Command::Endurance,
        ["cycles"] => Command::Cycles,
        ["speed"] => Command::Speed,
        ["page"] => Command::Page,
        [] => return Err("say what to do".to_owned()),
        unknown => return Err(format!("unknown command: {}", unknown.join(" "))),
    })
}

fn phase(word: &str) -> Result<Phase, String> {
    phase_of(word).ok_or_else(|| format!("{word} is no kind of history: safety or liveness"))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is no number: write digits"))
}

fn range(word: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{word} is no range of seeds: write 0..1000");
    let (from, to) = word.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(format!("{word} holds no seed")) } else { Ok(range) }
}
