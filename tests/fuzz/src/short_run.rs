//! The short run: replays the corpus of a target, then runs seeded mutations of it. The same inputs on every machine and
//! in every run, so a failure here can be had again by running the test again.
//!
//! Never looks for coverage; that is the long run's work, whose finds are the corpus.

use crate::targets::{TARGETS, Target};
use redeliver_core::codec::crc32;
use redeliver_core::random::Random;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// All targets together take a few seconds without optimisation: so many mutations for each, or so many bytes of them.
const MUTATIONS: u32 = 10_000;
const BYTES: usize = 2_000_000;
/// A corpus file is seldom longer, and longer inputs find nothing that these do not.
const LENGTH_MAX: usize = 4_096;

/// Runs the corpus of `target` and its mutations.
pub(crate) fn check(target: &Target) {
    let inputs = corpus(target.name);
    assert!(!inputs.is_empty(), "corpus/{} has no file: put one input there", target.name);
    for (name, bytes) in &inputs {
        run(target, bytes, name);
    }
    let seed = u64::from(crc32(target.name.as_bytes()));
    let inputs = inputs.into_iter().map(|(_, bytes)| bytes).collect();
    let mut mutator = Mutator { inputs, words: words(target.name), random: Random::seeded(seed) };
    let (mut nth, mut bytes) = (0, 0);
    while nth < MUTATIONS && bytes < BYTES {
        let input = mutator.input();
        run(target, &input, &format!("mutation {nth}"));
        nth += 1;
        bytes += input.len();
    }
}

/// A panic of the target gets the input beside it, as a Rust literal for a regression test.
fn run(target: &Target, bytes: &[u8], story: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        panic!("target {}, {story}, fails on b\"{}\"", target.name, bytes.escape_ascii());
    }
}

// --- mutations ----------------------------------------------------------------------------------------------------

struct Mutator {
    inputs: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    random: Random,
}

impl Mutator {
    /// One input of the corpus with a few changes.
    fn input(&mut self) -> Vec<u8> {
        let mut bytes = self.any_input();
        for _ in 0..=self.below(5) {
            self.change(&mut bytes);
        }
        bytes.truncate(LENGTH_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let (start, end) = self.range(bytes.len());
        match self.below(8) {
            0 => bytes.iter_mut().skip(start).take(1).for_each(|byte| *byte ^= 1 << (end % 8)),
            1 => bytes.insert(start, self.random.next() as u8),
            2 => drop(bytes.drain(start..end)),
            3 => bytes.extend_from_within(start..end),
            4 => drop(bytes.splice(start..end, self.any_word())),
            5 => drop(bytes.splice(start..start, self.any_word())),
            6 => drop(bytes.splice(start..end, self.any_piece())),
            _ => drop(bytes.splice(start..start.saturating_add(8).min(bytes.len()), self.any_number())),
        }
    }

    fn any_input(&mut self) -> Vec<u8> {
        let place = self.below(self.inputs.len());
        self.inputs[place].clone()
    }

    fn any_word(&mut self) -> Vec<u8> {
        let place = self.below(self.words.len().max(1));
        self.words.get(place).cloned().unwrap_or_default()
    }

    /// A piece of another input.
    fn any_piece(&mut self) -> Vec<u8> {
        let other = self.any_input();
        let (start, end) = self.range(other.len());
        other[start..end].to_vec()
    }

    /// A number near an edge, as bytes or as digits.
    fn any_number(&mut self) -> Vec<u8> {
        let edge = (1_u64 << self.below(64)).wrapping_sub(self.below(3) as u64);
        if self.below(2) == 0 { edge.to_le_bytes().to_vec() } else { edge.to_string().into_bytes() }
    }

    /// Two places in `length` bytes, in order.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        (one.min(other), one.max(other))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.up_to(bound as u64 - 1) as usize
    }
}

// --- files --------------------------------------------------------------------------------------------------------

fn folder(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(what)
}

/// The committed inputs of a target by name, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder("corpus").join(target);
    names_in(&folder).into_iter().map(|name| (name.clone(), read(&folder.join(name)))).collect()
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a target's dictionary, if it has one.
fn words(target: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder("dictionaries").join(format!("{target}.dict"))).unwrap_or_default();
    text.lines().filter_map(word).collect()
}

/// A line of a dictionary in libFuzzer's form: `"text"` with `\xNN`, `\"` and `\\` for bytes that need it.
fn word(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.trim().strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let mut word = Vec::new();
    while let Some((first, others)) = rest.split_first() {
        let (byte, length) = if *first == b'\\' { escaped(others)? } else { (*first, 0) };
        word.push(byte);
        rest = &others[length..];
    }
    Some(word)
}

/// The byte that follows a backslash, and how long its name is.
fn escaped(name: &[u8]) -> Option<(u8, usize)> {
    match name {
        [b'x', high, low, ..] => {
            let digits = [*high, *low];
            Some((u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?, 3))
        }
        [byte, ..] => Some((*byte, 1)),
        [] => None,
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_and_dictionary_has_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names_in(&folder("corpus")), targets);
    let dictionaries = names_in(&folder("dictionaries"));
    let named: BTreeSet<String> = dictionaries.iter().map(|name| name.trim_end_matches(".dict").to_owned()).collect();
    assert!(named.is_subset(&targets), "{named:?}");
}

#[test]
fn every_line_of_a_dictionary_is_a_word_or_a_comment() {
    for name in names_in(&folder("dictionaries")) {
        let text = String::from_utf8(read(&folder("dictionaries").join(&name))).unwrap_or_default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(word(line).is_some_and(|word| !word.is_empty()), "{name}: {line}");
        }
    }
}
