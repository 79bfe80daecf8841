//! The planted bugs, from the command line: what there is, whether all fit the product, and the copy to build.
//!
//! Never builds: scripts/build.sh --planted does, from the copy that this writes.

use redeliver_planted::product::Files;
use redeliver_planted::table::{Bug, Table};
use redeliver_planted::{apply, copy, product, repository};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: redeliver-planted list           names, stories, what should catch them, what they need
       redeliver-planted list --json    the same for programs
       redeliver-planted check          whether every edit still fits the product; builds nothing
       redeliver-planted write FOLDER   a workspace with all bugs in it, for scripts/build.sh --planted

A module that was built from it has the bug that REDELIVER_PLANTED names in its environment, and none without.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["list"] => read().map(|table| table.bugs.iter().map(told).collect::<Vec<_>>().join("\n")),
        ["list", "--json"] => read().map(|table| json(&table)),
        ["check"] => check(),
        ["write", folder] => write(Path::new(folder)),
        ["--help" | "-h"] => Ok(USAGE.to_owned()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            problem.lines().for_each(|line| eprintln!("redeliver-planted: {line}"));
            ExitCode::FAILURE
        }
    }
}

fn read() -> Result<Table, String> {
    Table::read(&repository().join("tests/planted/bugs")).map_err(|faults| faults.to_string())
}

fn applied() -> Result<(Table, Files), String> {
    let table = read()?;
    let product = product::read(&repository().join("filter")).map_err(|error| format!("filter/: {error}"))?;
    let files = apply::apply(&table, &product).map_err(|misfits| misfits.to_string())?;
    Ok((table, files))
}

fn check() -> Result<String, String> {
    let (table, _) = applied()?;
    let edits: usize = table.bugs.iter().map(|bug| bug.edits.len()).sum();
    Ok(format!("{} planted bugs, {edits} edits: all fit the product", table.bugs.len()))
}

fn write(folder: &Path) -> Result<String, String> {
    let (table, files) = applied()?;
    copy::write(repository(), &table, files, folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(format!("{}: a workspace with {} planted bugs", folder.display(), table.bugs.len()))
}

fn told(bug: &Bug) -> String {
    let expect: Vec<String> = bug.expect.iter().map(ToString::to_string).collect();
    format!("{}\n  {}\n  caught by {}\n  needs {}\n", bug.name, bug.story, expect.join(", "), bug.needs)
}

fn json(table: &Table) -> String {
    serde_json::to_string_pretty(&table.bugs).expect("a list of texts is JSON")
}
