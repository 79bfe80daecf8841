//! What a person reads of a history that failed: where it comes from, what it was like, what was stored, what came last.

use crate::history::{History, Origin, Phase};
use crate::oracle::Record;
use crate::world::{Means, Outcome};
use std::fmt::Write;

/// Everything about a history that failed, or that somebody wants to see.
#[must_use]
pub fn failure(history: &History, outcome: &Outcome, means: &Means) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_failure(&mut text, history, outcome, means);
    text
}

/// The command that runs this history again.
#[must_use]
pub fn again(history: &History, means: &Means) -> String {
    let planted = means.planted.as_ref().map(|bug| format!(" --planted {bug}")).unwrap_or_default();
    match history.origin {
        Origin::Seed => format!("scripts/sim.sh replay {} {}{planted}", phase_word(history.phase), history.seed),
        Origin::Scenario(name) => format!("scripts/sim.sh scenarios {name:?}{planted}"),
    }
}

fn write_failure(text: &mut String, history: &History, outcome: &Outcome, means: &Means) -> std::fmt::Result {
    for event in &outcome.last_events {
        writeln!(text, "{event}")?;
    }
    writeln!(text, "\n{}", outcome.table)?;
    for line in outcome.log.iter().rev().take(60).rev() {
        writeln!(text, "log {line}")?;
    }
    writeln!(
        text,
        "\nseed {} ({:?}), {} workers, drain time {:?}",
        history.seed, history.phase, history.workers, history.drain_time
    )?;
    writeln!(text, "{:?}", history.rules)?;
    writeln!(text, "faults {:?}", outcome.coverage.struck)?;
    for (at, action) in
        history.actions.iter().filter(|(_, action)| !matches!(action, crate::history::Action::Send { .. }))
    {
        writeln!(text, "  {at} {action:?}")?;
    }
    writeln!(text, "{:?}, trace hash {:016x} over {} events", outcome.counts, outcome.hash, outcome.events)?;
    let number = outcome.violation.as_ref().and_then(|violation| violation.number);
    if let Some(record) = number.and_then(|number| outcome.records.get(&number)) {
        write_record(text, record)?;
    }
    match &outcome.violation {
        Some(violation) => writeln!(text, "{violation}")?,
        None => writeln!(text, "nothing went wrong")?,
    }
    writeln!(text, "again: {}", again(history, means))
}

/// A message's life: as sent, what its sender got, and who saw it.
fn write_record(text: &mut String, record: &Record) -> std::fmt::Result {
    let message = &record.message;
    writeln!(text, "message {}: {:?}", message.number.0, message.headers)?;
    writeln!(
        text,
        "  {:?}, {} bytes, sent whole: {}, poison: {:?}, damaged: {}",
        message.manner,
        message.body.len(),
        record.is_sent_whole,
        message.poison,
        record.is_damaged
    )?;
    writeln!(
        text,
        "  answered {:?}, stored as {:?}; live contacts {:?}",
        record.answer, record.acknowledged, record.live
    )?;
    record.attempts.iter().try_for_each(|attempt| writeln!(text, "  {attempt:?}"))
}

/// The word for a phase on the command line.
#[must_use]
pub const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Safety => "safety",
        Phase::Liveness => "liveness",
    }
}

/// The phase of a word.
#[must_use]
pub fn phase_of(word: &str) -> Option<Phase> {
    match word {
        "safety" => Some(Phase::Safety),
        "liveness" => Some(Phase::Liveness),
        _ => None,
    }
}
