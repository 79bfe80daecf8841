//! All cases on one arm, as tests: one per case file, named `topic::case`.
//!
//! `cargo test -p redeliver-conformance --test envoy [part of a name] [-- --record]`
//!
//! With `--record`, a case runs twice and its transcript is written into its file, if both runs agree: what does not
//! repeat is not a fact. An arm that is not Envoy refuses to record.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use similar::TextDiff;

use crate::arm::{Arm, Authority};
use crate::case::Case;
use crate::recording::{PINNED, Recordings, text};
use crate::transcript::{Transcript, transcript};

/// What to do with a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Compare,
    Record,
}

/// Runs the cases that the command line asks for.
pub fn main(arm: impl Arm + Send + 'static) -> ExitCode {
    main_with(Arc::new(arm), |_| None, Vec::new())
}

/// Runs the cases that the command line asks for, and more tests; but not those for which there is a reason: they are
/// shown as ignored.
pub fn main_with(
    arm: Arc<impl Arm + Send + 'static>,
    reason: fn(&str) -> Option<&'static str>,
    more: Vec<Trial>,
) -> ExitCode {
    let (flags, arguments): (Vec<String>, Vec<String>) = std::env::args().partition(|argument| argument == "--record");
    let task = if flags.is_empty() { Task::Compare } else { Task::Record };
    let trials = files().into_iter().map(|file| {
        let arm = Arc::clone(&arm);
        let name = name_of(&file);
        let left_out = reason(&name);
        let trial = Trial::test(name, move || check(arm.as_ref(), &file, task).map_err(Failed::from));
        match left_out {
            Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
            None => trial,
        }
    });
    libtest_mimic::run(&Arguments::from_iter(arguments), trials.chain(more).collect()).exit_code()
}

/// The folder of the cases.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Every case file, in a fixed order.
pub fn files() -> Vec<PathBuf> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{} has no cases: {error}", folder.display()));
        entries.map(|entry| entry.expect("a readable folder").path()).collect::<Vec<_>>()
    };
    let mut files: Vec<PathBuf> =
        list(&folder()).iter().filter(|topic| topic.is_dir()).flat_map(|topic| list(topic)).collect();
    files.sort();
    files
}

/// All cases but those for which there is a reason.
///
/// # Errors
/// A sentence about the first one that does not read well.
pub fn cases(reason: fn(&str) -> Option<&'static str>) -> Result<Vec<Case>, String> {
    files().iter().filter(|file| reason(&name_of(file)).is_none()).map(|file| Case::read(file)).collect()
}

fn name_of(file: &Path) -> String {
    let within = file.strip_prefix(folder()).unwrap_or(file).with_extension("");
    within.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::")
}

fn check(arm: &impl Arm, file: &Path, task: Task) -> Result<(), String> {
    let case = Case::read(file)?;
    let mut recordings = Recordings::read(file)?;
    if task == Task::Record {
        may_record(arm.authority())?;
    }
    let version = arm.version().map_err(|problem| problem.to_string())?;
    let seen = seen(arm, &case)?;
    match task {
        Task::Compare => {
            let expected = recordings.of(&version);
            let expected =
                expected.ok_or_else(|| format!("nothing is recorded: run it with -- --record on {PINNED}"))?;
            agree(&case, expected, &seen)
        }
        Task::Record => {
            agree(&case, &seen, &self::seen(arm, &case)?)
                .map_err(|diff| format!("two runs differ, so nothing is recorded\n{diff}"))?;
            recordings.record(&version, seen);
            recordings.write(file)
        }
    }
}

fn may_record(authority: Authority) -> Result<(), String> {
    match authority {
        Authority::Original => Ok(()),
        Authority::Imitation => Err("only Envoy makes recordings: run --test envoy -- --record".to_owned()),
    }
}

fn seen(arm: &impl Arm, case: &Case) -> Result<Transcript, String> {
    let observation = arm.run(case).map_err(|problem| problem.to_string())?;
    Ok(transcript(case, &observation))
}

fn agree(case: &Case, expected: &Transcript, seen: &Transcript) -> Result<(), String> {
    if expected == seen {
        return Ok(());
    }
    let (expected, seen) = (text(expected), text(seen));
    let diff = TextDiff::from_lines(&expected, &seen);
    Err(format!("{}\n{}", case.case, diff.unified_diff().context_radius(8).header("recorded", "seen now")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim::missing;

    /// So many cases there are at least: fewer are a folder that was not found, or a case that somebody has lost.
    const CASES_MIN: usize = 209;

    #[test]
    fn no_case_is_lost() {
        assert!(files().len() >= CASES_MIN, "{} case files, and there were {CASES_MIN}", files().len());
    }

    #[test]
    fn every_case_that_the_simulator_leaves_out_is_there() {
        let names: Vec<String> = files().iter().map(|file| name_of(file)).collect();
        for (name, reason) in missing::MISSING {
            assert!(names.iter().any(|known| known == name), "{name} ({reason}) is no case: take it out of missing.rs");
        }
    }

    /// Simvoy's rules name the cases that show them; `failure::retried_*` names all that begin so.
    #[test]
    fn every_case_that_simvoy_names_is_there() {
        let names: Vec<String> = files().iter().map(|file| name_of(file)).collect();
        let topics: BTreeSet<&str> = names.iter().filter_map(|name| Some(name.split_once("::")?.0)).collect();
        let mut named = 0;
        for (file, text) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../simvoy/src")) {
            let quoted =
                text.split('`').filter(|word| word.split_once("::").is_some_and(|(topic, _)| topics.contains(topic)));
            for word in quoted {
                let is_it =
                    |name: &String| word.strip_suffix('*').map_or(name == word, |prefix| name.starts_with(prefix));
                assert!(names.iter().any(is_it), "{}: `{word}` is no case", file.display());
                named += 1;
            }
        }
        assert!(named > 0, "simvoy names no case: is its folder somewhere else?");
    }

    fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let paths = entries.map(|entry| entry.expect("a readable folder").path());
        paths
            .flat_map(|path| match path.is_dir() {
                true => sources(&path),
                false => vec![(path.clone(), fs::read_to_string(&path).expect("a text"))],
            })
            .collect()
    }

    #[test]
    fn only_envoy_makes_recordings() {
        assert_eq!(may_record(Authority::Original), Ok(()));
        let refused = may_record(Authority::Imitation).expect_err("it is no Envoy");
        assert!(refused.contains("only Envoy makes recordings"), "{refused}");
    }

    #[test]
    fn every_case_reads_well_and_has_a_recording_of_the_pinned_version() {
        for file in files() {
            let case = Case::read(&file).unwrap_or_else(|problem| panic!("{problem}"));
            let recordings = Recordings::read(&file).unwrap_or_else(|problem| panic!("{problem}"));
            assert!(recordings.of(PINNED).is_some(), "{} ({}): record it", file.display(), case.case);
        }
    }
}
