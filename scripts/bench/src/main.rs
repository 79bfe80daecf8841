//! The benchmarks: what redeliver costs a real Envoy, as ratios to yardsticks of the same run.
//!
//! ```text
//!   load ──> Envoy: no filter        ──┐
//!   load ──> Envoy: do-nothing filter ─┼──> Envoy as a receiver
//!   load ──> Envoy: redeliver        ──┘          in turns; the processor time of each process is read around its turn
//! ```
//!
//! It never judges a figure unless it is asked to, never talks to anything but loopback, and leaves no process behind,
//! interrupted or not.

mod bootstrap;
mod envoy;
mod failure;
mod figures;
mod goal;
mod growth;
mod line;
mod load;
mod machine;
mod meter;
mod options;
mod pace;
mod page;
mod plot;
mod report;
mod row;
mod rows;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::options::{Judgement, Options, Parsed};
use crate::report::{Found, Outcome};
use crate::row::Row;

/// No row needs half of it on a quiet machine, where all of them stay under the 40 minutes that a whole run may take.
const ROW_WITHIN: Duration = Duration::from_secs(30 * 60);

/// One thread: it feeds one worker of Envoy with ease, and leaves the other cores to the Envoys.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::DryRun(options)) => {
            let rows: Vec<&str> = options.rows.iter().map(|row| row.name()).collect();
            print(&format!("{} run of: {}\n", options.extent.name(), rows.join(", ")));
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Page(options)) => return write_page(&options),
        Ok(Parsed::Help) => {
            print(&options::usage());
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("redeliver-bench: {wrong}");
            return ExitCode::from(2);
        }
    };
    // Whichever ends first, the other is dropped, and with it every Envoy.
    tokio::select! {
        code = run(&options) => code,
        () = interrupted() => ExitCode::from(130),
    }
}

async fn run(options: &Options) -> ExitCode {
    let mut needed = vec![&options.wasm, &options.yardstick, &options.bare_loop];
    if options.rows.contains(&Row::Count) {
        needed.push(&options.counter);
    }
    if let Some(missing) = needed.into_iter().find(|file| !file.is_file()) {
        eprintln!("redeliver-bench: {} is missing: scripts/bench.sh builds it", missing.display());
        return ExitCode::from(2);
    }
    let machine = Machine::look(options);
    let mut outcome = Outcome { extent: options.extent, machine, found: Found::default(), failed: Vec::new() };
    for row in &options.rows {
        let result = bounded(*row, options).await;
        if let Err(failure) = &result {
            eprintln!("redeliver-bench: {}: {failure}", row.name());
        }
        outcome.add(*row, result);
    }
    if !outcome.found.lines.is_empty() {
        print(&format!("\n{}\n", outcome.table()));
    }
    if let Err(error) = std::fs::write(&options.json, format!("{:#}\n", outcome.to_json())) {
        eprintln!("redeliver-bench: {} cannot be written: {error}", options.json.display());
        return ExitCode::FAILURE;
    }
    print(&format!("{}\n", options.json.display()));
    code(&outcome, options.judgement)
}

/// A row without figures is a failure always, a missed bar only if somebody asked for a judgement.
fn code(outcome: &Outcome, judgement: Judgement) -> ExitCode {
    let is_well = match judgement {
        Judgement::Report => outcome.failed.is_empty(),
        Judgement::Judge => outcome.failed.is_empty() && !outcome.misses_a_bar(),
    };
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn bounded(row: Row, options: &Options) -> Result<Found, Failure> {
    let too_late = |_| Failure::TooLate { what: format!("row {} is done", row.name()), seen: "it runs on".to_owned() };
    timeout(ROW_WITHIN, rows::measure(row, options)).await.map_err(too_late)?
}

fn write_page(options: &Options) -> ExitCode {
    match page::write(&options.json) {
        Ok(written) => {
            print(&written);
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("redeliver-bench: {wrong}");
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        // Without handlers a signal ends the process as it always would.
        (Err(_), _) | (_, Err(_)) => std::future::pending().await,
    }
}

/// To stdout; nobody may be reading any more.
fn print(text: &str) {
    write!(std::io::stdout(), "{text}").unwrap_or_default();
}
