//! The figures of the delivery semantics, in exact simulated time: the window, the share beside live traffic, the rate,
//! fairness, and what a wall clock that jumps costs. The oracle judges these histories as any other; here is what it does
//! not know.

use redeliver_sim::history::History;
use redeliver_sim::message::{Destination, Number};
use redeliver_sim::oracle::{Attempt, Delay, Record};
use redeliver_sim::receiving::scenarios::{self, BACK, Beside};
use redeliver_sim::world::{self, Means, Outcome};
use simvoy::{Module, Moment};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn run(history: &History) -> Outcome {
    let path = std::env::var_os("REDELIVER_WASM")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/redeliver.wasm"), PathBuf::from);
    let module = Module::from_file(&path).unwrap_or_else(|error| panic!("{error}"));
    let outcome = world::run(&module, history, &Means::default());
    assert_eq!(outcome.violation, None);
    outcome
}

fn attempts(outcome: &Outcome) -> Vec<&Attempt> {
    outcome.records.values().flat_map(|record| &record.attempts).collect()
}

/// How many are out on average between two moments: the time that they take together, over the time that passes.
fn mean_out(attempts: &[&Attempt], from: Moment, to: Moment) -> f64 {
    let span = |attempt: &&Attempt| attempt.ends.min(to).0.saturating_sub(attempt.sent.max(from).0) as f64;
    attempts.iter().map(span).sum::<f64>() / (to - from).as_nanos() as f64
}

#[test]
fn redelivery_settles_near_what_a_receiver_takes_at_a_time() {
    for workers in [1, 3, 8] {
        let outcome = run(&scenarios::takes_eight(workers));
        let all = attempts(&outcome);
        let (from, to) = (BACK + Duration::from_secs(5), BACK + Duration::from_secs(20));
        let lately: Vec<&Attempt> =
            all.into_iter().filter(|attempt| attempt.sent >= from && attempt.sent < to).collect();
        let refused = lately.iter().filter(|attempt| attempt.said == Some(503)).count();
        let mean = mean_out(&lately, from, to);
        let story = format!("{workers} workers: {refused} of {} refused, {mean:.1} out on average", lately.len());
        assert!(refused * 5 <= lately.len(), "{story}");
        assert!((6.0..=9.0).contains(&mean), "{story}");
    }
}

fn is_good(number: Number) -> bool {
    number.0 % 2 == 1
}

/// How long those messages took that no bug is about.
fn mean_delay(records: &BTreeMap<Number, Record>, chosen: impl Fn(Number) -> bool) -> Duration {
    let delays: Vec<Duration> = records
        .iter()
        .filter(|(number, _)| chosen(**number))
        .filter_map(|(_, record)| {
            let ends = record.attempts.iter().find(|attempt| attempt.said.is_some_and(|said| said < 300))?.ends;
            Some(ends - record.sent)
        })
        .collect();
    assert!(delays.len() > 50, "{} were redelivered", delays.len());
    delays.iter().sum::<Duration>() / delays.len() as u32
}

#[test]
fn a_bug_in_one_kind_of_message_does_not_delay_the_others_for_long() {
    let delay = |bug| mean_delay(&run(&scenarios::bug_of_one_kind(bug)).records, is_good);
    let (without, with) = (delay(None), delay(Some(2)));
    // A window that shrank to one would make it ten times as long.
    assert!(with <= without.mul_f64(1.1), "{without:?} without the bug, {with:?} with it");
}

#[test]
fn no_more_than_a_share_is_out_beside_live_traffic() {
    let outcome = run(&scenarios::beside_live_traffic());
    let (from, to) = (BACK, BACK + Duration::from_secs(20));
    let all = attempts(&outcome);
    let out_at = |moment: Moment| all.iter().filter(|attempt| attempt.sent <= moment && attempt.ends > moment).count();
    let most = all.iter().filter(|a| a.sent >= from && a.sent < to).map(|attempt| out_at(attempt.sent)).max();
    // Six or seven live requests at once: a fifth of them is less than three.
    assert_eq!(most, Some(3));
}

#[test]
fn a_rate_is_reached_and_kept() {
    let outcome = run(&scenarios::at_a_rate());
    let mut sent: Vec<Moment> = attempts(&outcome).iter().map(|attempt| attempt.sent).collect();
    sent.sort_unstable();
    let (first, last, count) = (sent[10], sent[sent.len() - 10], sent.len() - 20);
    let rate = count as f64 / (last - first).as_secs_f64();
    assert!((18.0..=20.5).contains(&rate), "{rate:.1} a second");
}

#[test]
fn neither_a_dead_nor_a_slow_destination_delays_the_others_by_a_tenth() {
    let (alone, beside) = (Beside::Nobody, Beside::DeadAndSlow);
    let [alone, beside] = [alone, beside].map(|beside| run(&scenarios::recovery_beside_others(beside)).delays);
    for destination in (0..3).map(Destination) {
        let mean = |delays: &BTreeMap<Destination, Delay>| delays[&destination].mean().expect("some were redelivered");
        let (alone, beside) = (mean(&alone), mean(&beside));
        assert!(
            beside <= alone.mul_f64(1.1),
            "{destination:?}: {alone:?} alone, {beside:?} beside a dead and a slow one"
        );
    }
}

#[test]
fn a_wall_clock_that_jumps_costs_what_it_must_and_no_more() {
    const HOUR: i64 = 3_600_000;
    const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;
    let sent = |outcome: &Outcome| -> Vec<_> {
        let of =
            |record: &Record| record.attempts.iter().map(|attempt| (attempt.sent, attempt.number)).collect::<Vec<_>>();
        outcome.records.values().map(of).collect()
    };
    let still = run(&scenarios::clock_jumps(0));
    assert!(still.counts.acknowledged > 25 && still.counts.dead == 0, "{:?}", still.counts);
    assert_eq!(still.counts.delivered, still.counts.acknowledged);
    for jump in [HOUR, -HOUR, -TEN_YEARS] {
        // Not one attempt comes at another moment.
        let outcome = run(&scenarios::clock_jumps(jump));
        assert_eq!(sent(&outcome), sent(&still), "{jump} ms");
    }
    let ahead = run(&scenarios::clock_jumps(TEN_YEARS)).counts;
    assert_eq!(ahead.delivered + ahead.dead, ahead.acknowledged, "{ahead:?}");
    assert!(ahead.dead > 0, "what is older than its ttl by the wall clock ends: {ahead:?}");
}
