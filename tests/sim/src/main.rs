//! The proving ground from the command line.

mod options;

use options::{Command, Options};
use redeliver_sim::history::Phase;
use redeliver_sim::hunt::{self, Bug, Finding};
use redeliver_sim::report;
use redeliver_sim::results::{self, BLOCK, Results, Subject};
use redeliver_sim::search::{StopAt, search};
use redeliver_sim::shrink::{shrink, write_places};
use redeliver_sim::world::{self, Means};
use redeliver_sim::{cuts, cycles, generate, page, scenario};
use sha2::{Digest, Sha256};
use simvoy::Module;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{}\n\nredeliver-sim: {wrong}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("redeliver-sim: {wrong}");
            ExitCode::FAILURE
        }
    }
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    Broken,
}

fn run(options: &Options) -> Result<Verdict, String> {
    match &options.command {
        Command::Help => {
            println!("{}", options::USAGE);
            Ok(Verdict::Well)
        }
        Command::Search => run_search(options),
        Command::Replay(phase, seed) => replay(options, *phase, *seed),
        Command::Shrink(phase, seed) => run_shrink(options, *phase, *seed),
        Command::Scenarios(words) => run_scenarios(options, words),
        Command::Cuts => run_cuts(options),
        Command::Hunt(names) => run_hunt(options, names),
        Command::Refind => refind(options),
        Command::Endurance => endurance(options),
        Command::Cycles => run_cycles(options),
        Command::Speed => speed(options),
        Command::Page => write_page(options),
    }
}

/// The module; one with the planted bug in it, if a bug was named.
fn load(options: &Options) -> Result<Module, String> {
    let path = &options.module;
    let module = Module::from_file(path).map_err(|error| error.to_string())?;
    if let Some(bug) = &options.planted {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        // A switch compares its name with the environment, so the name is in the module.
        let is_in_it = bytes.windows(bug.len()).any(|window| window == bug.as_bytes());
        if bug.is_empty() || !is_in_it {
            return Err(format!("{} has no planted bug {bug}: see redeliver-planted list", path.display()));
        }
    }
    Ok(module)
}

fn file_hash(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}: run scripts/build.sh", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What results hold for.
fn subject(options: &Options) -> Result<Subject, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    Ok(Subject { module: file_hash(&options.module)?, simulator: file_hash(&program)? })
}

/// All seeds of the options, block by block; blocks that the results file knows are not run again.
fn run_search(options: &Options) -> Result<Verdict, String> {
    let (module, subject) = (load(options)?, subject(options)?);
    let known = match &options.results {
        Some(path) if options.seeds.start.is_multiple_of(BLOCK) && options.seeds.end.is_multiple_of(BLOCK) => {
            Results::read(path, &subject)?
        }
        Some(_) => return Err(format!("with --results seeds go by blocks of {BLOCK}: write --seeds 0..{BLOCK}0")),
        None => Results::default(),
    };
    let started = Instant::now();
    let mut verdict = Verdict::Well;
    for phase in &options.phases {
        for first in options.seeds.clone().step_by(BLOCK as usize) {
            let failures = match known.known(*phase, first) {
                Some(failures) => {
                    failures.iter().for_each(|failure| println!("known: {failure}"));
                    failures.len()
                }
                None => run_block(options, &module, &subject, (*phase, first), started)?,
            };
            verdict = if failures == 0 { verdict } else { Verdict::Broken };
        }
    }
    Ok(verdict)
}

/// The block of histories that begins with this seed; answers how many failed.
fn run_block(
    options: &Options,
    module: &Module,
    subject: &Subject,
    (phase, first): (Phase, u64),
    started: Instant,
) -> Result<usize, String> {
    let (last, word) = ((first + BLOCK).min(options.seeds.end), report::phase_word(phase));
    let totals = search(module, first..last, phase, &options.means(), StopAt::LastSeed, |seed, outcome| {
        if let Some(violation) = &outcome.violation {
            println!("{word} seed {seed}: {violation}");
            println!("  again: {}", report::again(&generate::history(seed, phase), &options.means()));
        }
    });
    if let Some(path) = &options.results {
        results::append(path, subject, phase, first, &totals)?;
    }
    eprintln!(
        "{word} {first}..{last}: {} failed, {} messages acknowledged, {} redeliveries, {} traps; {:.0} s so far",
        totals.failed.len(),
        totals.counts.acknowledged,
        totals.counts.attempts,
        totals.traps,
        started.elapsed().as_secs_f64(),
    );
    Ok(totals.failed.len())
}

fn replay(options: &Options, phase: Phase, seed: u64) -> Result<Verdict, String> {
    let module = load(options)?;
    let history = generate::history(seed, phase);
    let history = match &options.keep {
        Some(places) => history.keeping(|place| places.contains(&place)),
        None => history,
    };
    let means = Means { keep_events: options.events, ..options.means() };
    let outcome = world::run(&module, &history, &means);
    println!("{}", report::failure(&history, &outcome, &means));
    // I14: the same again must be the same run.
    let again = world::run(&module, &history, &means);
    if again.hash != outcome.hash {
        println!("I14: run again, the trace hash is {:016x}", again.hash);
        return Ok(Verdict::Broken);
    }
    Ok(if outcome.violation.is_some() { Verdict::Broken } else { Verdict::Well })
}

fn run_shrink(options: &Options, phase: Phase, seed: u64) -> Result<Verdict, String> {
    let module = load(options)?;
    let history = generate::history(seed, phase);
    let Some(violation) = world::run(&module, &history, &options.means()).violation else {
        return Err(format!("{} seed {seed} does not fail: there is nothing to shrink", report::phase_word(phase)));
    };
    println!("{violation}");
    let kept = shrink(&module, &history, &options.means(), violation.invariant, SHRINK_RUNS);
    println!("{} of {} actions are enough:", kept.len(), history.actions.len());
    for place in &kept {
        let (at, action) = &history.actions[*place];
        println!("  {place:>4} {at} {action:?}");
    }
    println!("again: {} --keep {}", report::again(&history, &options.means()), write_places(&kept));
    Ok(Verdict::Broken)
}

/// Runs that shrinking one history may take: some minutes.
const SHRINK_RUNS: u32 = 400;

fn run_scenarios(options: &Options, words: &str) -> Result<Verdict, String> {
    let module = load(options)?;
    let mut verdict = Verdict::Well;
    let chosen: Vec<_> = scenario::all().into_iter().filter(|scenario| scenario.name.contains(words)).collect();
    if chosen.is_empty() {
        return Err(format!("no scenario has {words:?} in its name: scripts/sim.sh scenarios lists them"));
    }
    for scenario in chosen {
        let outcome = world::run(&module, &scenario.history, &options.means());
        match outcome.violation {
            None => println!("ok      {}", scenario.name),
            Some(ref violation) => {
                let text = report::failure(&scenario.history, &outcome, &options.means());
                println!("BROKEN  {}\n{text}\n{violation}", scenario.name);
                verdict = Verdict::Broken;
            }
        }
    }
    Ok(verdict)
}

fn run_cuts(options: &Options) -> Result<Verdict, String> {
    let module = load(options)?;
    let (cuts, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    cuts::all(&module, options.planted.as_deref(), |series| {
        println!(
            "{:<28} {:<26} {:>4} cuts, {} broken",
            series.callback.export(),
            series.way,
            series.cuts,
            series.failures.len()
        );
        for (at, violation) in &series.failures {
            println!("  at call {at}: {violation}");
        }
        cuts.fetch_add(series.cuts as usize, Ordering::SeqCst);
        if series.is_missing() {
            println!("  nothing was cut: this callback is never made on this way");
        }
        broken.fetch_add(series.failures.len() + usize::from(series.is_missing()), Ordering::SeqCst);
    });
    let (cuts, broken) = (cuts.into_inner(), broken.into_inner());
    println!("{cuts} cut points, {broken} broken");
    Ok(if broken == 0 { Verdict::Well } else { Verdict::Broken })
}

/// Looks for each bug of the list on standard input, or for those that are named, and writes what was found.
fn run_hunt(options: &Options, names: &[String]) -> Result<Verdict, String> {
    let module = load(options)?;
    let bugs = planted_bugs()?;
    if let Some(unknown) = names.iter().find(|name| !bugs.iter().any(|bug| bug.name == **name)) {
        return Err(format!("there is no planted bug {unknown}: see redeliver-planted list"));
    }
    let mut findings = options.known_findings()?;
    let mut verdict = Verdict::Well;
    for bug in bugs.iter().filter(|bug| names.is_empty() || names.contains(&bug.name)) {
        match hunt::hunt(&module, &bug.name, options.most) {
            Some((finding, violation)) => {
                println!("found    {:<32} {:>4} histories  {violation}", bug.name, finding.histories);
                findings.retain(|other| other.bug != bug.name);
                findings.push(finding);
            }
            None => {
                println!("NOT FOUND {:<31} expected {}: {}", bug.name, bug.expect, bug.story);
                verdict = Verdict::Broken;
            }
        }
        // In the order of the table, after each: a hunt that is stopped has lost nothing.
        findings.sort_by_key(|finding| bugs.iter().position(|bug| bug.name == finding.bug));
        if let Some(path) = &options.findings {
            std::fs::write(path, hunt::write_findings(&findings))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(verdict)
}

/// The list of planted bugs on standard input.
fn planted_bugs() -> Result<Vec<Bug>, String> {
    let list = std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?;
    hunt::read_bugs(&list)
}

/// Every planted bug must have a finding, and be found again by its seed.
fn refind(options: &Options) -> Result<Verdict, String> {
    let module = load(options)?;
    let (findings, bugs) = (options.known_findings()?, planted_bugs()?);
    let unfound = |bug: &&Bug| !findings.iter().any(|finding| finding.bug == bug.name);
    if let Some(bug) = bugs.iter().find(unfound) {
        return Err(format!("{} has no finding: run scripts/sim.sh hunt {}", bug.name, bug.name));
    }
    let lost: Vec<&Finding> = findings.iter().filter(|finding| !hunt::refind(&module, finding)).collect();
    println!("{} planted bugs found again by their seeds, {} not", findings.len() - lost.len(), lost.len());
    for finding in &lost {
        println!(
            "  {}: {} seed {} finds it no longer: run scripts/sim.sh hunt {}",
            finding.bug,
            report::phase_word(finding.phase),
            finding.seed,
            finding.bug
        );
    }
    Ok(if lost.is_empty() { Verdict::Well } else { Verdict::Broken })
}

/// I8: a guest that has stored and delivered many messages is no larger than one that has a few hundred behind it.
fn endurance(options: &Options) -> Result<Verdict, String> {
    const FEW: u32 = 500;
    /// Memory grows by pages of WebAssembly; and 1 MiB in a million is the scorecard's bar.
    const PAGE: usize = 64 << 10;
    const GROWTH_PER_MESSAGE_MAX: usize = 1;
    let module = load(options)?;
    let run = |messages| world::run(&module, &scenario::endurance(messages), &options.means());
    let (few, many) = (run(FEW), run(options.messages));
    let growth = many.guest_bytes_max.saturating_sub(few.guest_bytes_max);
    println!(
        "{} delivered: a guest has {} KiB; {} of {} acknowledged delivered: {} KiB more",
        few.counts.delivered,
        few.guest_bytes_max >> 10,
        many.counts.delivered,
        many.counts.acknowledged,
        growth >> 10,
    );
    let violation = few.violation.or(many.violation);
    violation.iter().for_each(|violation| println!("{violation}"));
    // Seven of eight messages are protected.
    let are_delivered =
        many.counts.delivered == many.counts.acknowledged && many.counts.acknowledged > u64::from(options.messages) / 2;
    let is_small = growth <= PAGE + GROWTH_PER_MESSAGE_MAX * options.messages as usize;
    Ok(if violation.is_none() && are_delivered && is_small { Verdict::Well } else { Verdict::Broken })
}

/// How much a guest grows over many messages, one line of JSON.
fn run_cycles(options: &Options) -> Result<Verdict, String> {
    let cycled = cycles::run(&load(options)?, options.messages.into())?;
    println!("{}", cycled.to_json());
    Ok(Verdict::Well)
}

/// Simulated against real time, for one outage with 500 messages.
fn speed(options: &Options) -> Result<Verdict, String> {
    let module = load(options)?;
    let history = scenario::outage(500, 10);
    let started = Instant::now();
    let outcome = world::run(&module, &history, &options.means());
    let real = started.elapsed();
    let ratio = outcome.simulated.as_secs_f64() / real.as_secs_f64();
    println!(
        "{:?} simulated in {real:?}: {ratio:.0} : 1; {} redeliveries, {:?}",
        outcome.simulated, outcome.counts.attempts, outcome.violation
    );
    Ok(if outcome.violation.is_none() { Verdict::Well } else { Verdict::Broken })
}

fn write_page(options: &Options) -> Result<Verdict, String> {
    let subject = subject(options)?;
    let path = options.results.as_ref().ok_or("the page needs --results FILE of a search")?;
    let results = Results::read(path, &subject)?;
    let text = page::write(&results, &options.known_findings()?, &planted_bugs()?, &subject.module)?;
    println!("{text}");
    Ok(Verdict::Well)
}
