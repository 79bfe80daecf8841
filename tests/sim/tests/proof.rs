//! What the simulator must prove of itself: the same seed is the same run, a calm history is uneventful, and its tools
//! answer bad input with a sentence. That its judges see what they should is what the planted bugs prove (`refind`).

use redeliver_sim::cuts;
use redeliver_sim::cycles;
use redeliver_sim::generate;
use redeliver_sim::history::{History, Phase};
use redeliver_sim::message::Destination;
use redeliver_sim::oracle::Delay;
use redeliver_sim::scenario;
use redeliver_sim::world::{self, Means};
use simvoy::Module;
use simvoy::abi::Callback;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn module() -> Module {
    let path = std::env::var_os("REDELIVER_WASM")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/redeliver.wasm"), PathBuf::from);
    Module::from_file(&path).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let module = module();
    let run = |seed| world::run(&module, &generate::history(seed, Phase::Safety), &Means::default());
    let mut hashes = Vec::new();
    for seed in 0..8 {
        let (first, again) = (run(seed), run(seed));
        assert_eq!((first.hash, first.events), (again.hash, again.events), "seed {seed}");
        hashes.push(first.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 8, "two seeds are one run");
}

#[test]
fn words_cost_nothing_but_time() {
    let module = module();
    let history = generate::history(3, Phase::Safety);
    let silent = world::run(&module, &history, &Means::default());
    let told = world::run(&module, &history, &Means { keep_events: 100, ..Means::default() });
    assert_eq!(silent.hash, told.hash);
    assert_eq!(told.last_events.len(), 100);
}

#[test]
fn cycles_deliver_at_least_what_was_asked_for_and_see_the_guests_memory() {
    let cycled = cycles::run(&module(), 2_001).unwrap();
    assert!(cycled.delivered >= 2_001, "{cycled:?}");
    // No guest is smaller than one page, and the bar for a million messages is 1 MiB.
    assert!(cycled.guest_bytes_start >= 64 << 10, "{cycled:?}");
    assert!(cycled.guest_bytes_end <= cycled.guest_bytes_start + (1 << 20), "{cycled:?}");
}

#[test]
fn an_outage_with_500_messages_delivers_each_once() {
    let module = module();
    let history = scenario::outage(500, 10);
    let outcome = world::run(&module, &history, &Means::default());
    assert_eq!(outcome.violation, None);
    let counts = outcome.counts;
    assert_eq!(counts.duplicated_unknown + counts.duplicated_lost, 0, "{counts:?}");
    assert!(counts.acknowledged > 350, "messages of protected methods are acknowledged: {counts:?}");
    // Its speed is printed by `scripts/sim.sh speed`; timings decide no test.
}

#[test]
fn a_dead_destination_delays_the_others_by_less_than_a_tenth() {
    let module = module();
    let run = |backlog| world::run(&module, &scenario::recovery_beside_a_dead_one(backlog), &Means::default());
    let (alone, beside) = (run(0), run(1_000));
    assert_eq!((alone.violation, beside.violation), (None, None));
    for destination in (0..3).map(Destination) {
        let mean = |delays: &BTreeMap<Destination, Delay>| delays[&destination].mean().expect("some were redelivered");
        let (alone, beside) = (mean(&alone.delays), mean(&beside.delays));
        assert!(beside <= alone.mul_f64(1.1), "{destination:?}: {alone:?} alone, {beside:?} beside a dead one");
    }
}

#[test]
fn what_the_cut_points_are_about_ends_within_their_window() {
    let module = module();
    for (way, rules) in scenario::ways_to_the_store() {
        let (_, until) = cuts::window(Callback::CallResponse);
        // Judged at that moment: nothing waits any more, and the books say so.
        let history = History { end: until, ..cuts::history(&rules) };
        let outcome = world::run(&module, &history, &Means::default());
        assert_eq!(outcome.violation, None, "{way}");
        assert!(outcome.counts.delivered > 0, "{way}: {:?}", outcome.counts);
    }
}

fn tool(arguments: &[&str]) -> (Option<i32>, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_redeliver-sim"));
    let output = command.args(arguments).current_dir(root).output().expect("the tool runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn bad_input_is_answered_with_a_sentence_that_names_the_cure() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 2, "say what to do"),
        (&["serch"], 2, "unknown command: serch"),
        (&["replay", "safety", "x"], 2, "x is no number: write digits"),
        (&["scenarios", "no such one"], 1, "no scenario has \"no such one\" in its name"),
        (&["search", "--seeds", "0..50", "--results", "none.jsonl"], 1, "with --results seeds go by blocks of 100"),
        (&["replay", "safety", "1", "--planted", "no-such-bug"], 1, "has no planted bug no-such-bug"),
        (&["replay", "saftey", "1"], 2, "saftey is no kind of history: safety or liveness"),
        (&["search", "--seeds", "5"], 2, "5 is no range of seeds: write 0..1000"),
        (&["search", "--seeds", "5..5"], 2, "5..5 holds no seed"),
        (&["search", "--module", "none.wasm"], 1, "none.wasm cannot be read"),
        (&["refind", "--module", "none.wasm"], 1, "none.wasm cannot be read"),
    ];
    for (arguments, code, sentence) in cases {
        let (found, text) = tool(arguments);
        assert_eq!(found, Some(*code), "{arguments:?}: {text}");
        assert!(text.contains(sentence), "{arguments:?}: {text}");
    }
}

#[test]
fn a_module_that_imports_what_no_host_has_is_refused_by_name() {
    let folder = std::env::temp_dir().join(format!("redeliver-sim-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let file = folder.join("stranger.wasm");
    // (module (import "env" "proxy_teleport" (func)))
    let bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x16\x01\x03env\x0eproxy_teleport\0\0";
    std::fs::write(&file, bytes).expect("writable");
    let (code, text) = tool(&["search", "--module", file.to_str().expect("text")]);
    std::fs::remove_dir_all(&folder).expect("it is there");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("imports what this host does not have") && text.contains("proxy_teleport"), "{text}");
}
