//! The proving ground from the command line.

use redeliver_sim::generate;
use redeliver_sim::history::Phase;
use redeliver_sim::report;
use redeliver_sim::search::{StopAt, search};
use redeliver_sim::world::{self, Means};
use simvoy::Module;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["search", phase, from, to] => run_search(phase, from, to),
        ["replay", phase, seed] => replay(phase, seed),
        _ => ExitCode::from(2),
    }
}

fn module() -> Module {
    let path = std::env::var_os("REDELIVER_WASM").map_or_else(|| PathBuf::from("dist/redeliver.wasm"), PathBuf::from);
    Module::from_file(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn phase(word: &str) -> Phase {
    if word == "liveness" { Phase::Liveness } else { Phase::Safety }
}

fn means() -> Means {
    Means { planted: std::env::var("PLANTED").ok(), ..Means::default() }
}

fn run_search(word: &str, from: &str, to: &str) -> ExitCode {
    let module = module();
    let started = std::time::Instant::now();
    let totals = search(
        &module,
        from.parse().unwrap()..to.parse().unwrap(),
        phase(word),
        &means(),
        StopAt::LastSeed,
        |seed, outcome| {
            if let Some(violation) = &outcome.violation {
                println!("seed {seed}: {violation}");
            }
        },
    );
    println!(
        "{} histories, {} failed, {:?} simulated, {} events, {:?} in {:?}",
        totals.histories,
        totals.failed.len(),
        totals.simulated,
        totals.events,
        totals.counts,
        started.elapsed()
    );
    println!("{:?}", totals.coverage);
    ExitCode::SUCCESS
}

fn replay(word: &str, seed: &str) -> ExitCode {
    let module = module();
    let history = generate::history(seed.parse().unwrap(), phase(word));
    let outcome = world::run(&module, &history, &Means { keep_events: 150, ..means() });
    println!("{}", report::failure(&history, &outcome));
    ExitCode::SUCCESS
}
