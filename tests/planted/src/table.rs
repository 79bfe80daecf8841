//! The table of planted bugs: `bugs/*.toml`, one file per part of the filter.
//!
//! ```toml
//! [[bug]]
//! name = "skipped-checksum"                # what REDELIVER_PLANTED says
//! story = "What was written, and the harm"
//! expect = ["I3", "contract 10"]           # what catches it: invariants I1 to I16, sections of the contract
//! needs = "the faults and the configuration under which it shows"
//!
//! [[bug.edit]]
//! file = "core/src/codec.rs"               # below filter/
//! find = '''the right code, exactly as it stands there, exactly once'''
//! replace = '''if PLANTED { the wrong code } else { the right code }'''
//! ```
//! `PLANTED` is whether this bug is the chosen one; every replacement asks it. Knows nothing of the product: whether the
//! edits fit is [`crate::apply`]'s to say.

use crate::lines;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What a replacement asks: whether its bug was chosen.
pub const GUARD: &str = "PLANTED";

/// All bugs, in the order of their files' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The bugs; a bug's place is its number in the module.
    pub bugs: Vec<Bug>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// A short noun phrase in kebab case.
    pub name: String,
    /// What a careless engineer might have written, and what harm it does.
    pub story: String,
    /// What is expected to catch it.
    pub expect: Vec<Expectation>,
    /// The faults and the configuration under which it shows.
    pub needs: String,
    /// The changes of the product's text.
    #[serde(rename = "edit", skip_serializing)]
    pub edits: Vec<Edit>,
    /// The file of the table that it stands in.
    #[serde(skip)]
    pub home: String,
}

/// One change of one file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file, below `filter/`.
    pub file: String,
    /// Text that stands exactly once in it.
    pub find: String,
    /// What takes its place; asks [`GUARD`].
    pub replace: String,
}

/// What should catch a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Expectation {
    /// An invariant of the reliability scorecard and of the simulator, 1 to 16.
    Invariant(u8),
    /// A promise of the public contract, by its section.
    Contract(u8),
}

const INVARIANTS: u8 = 16;
const CONTRACT_SECTIONS: u8 = 10;

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariant(number) => write!(f, "I{number}"),
            Self::Contract(section) => write!(f, "contract {section}"),
        }
    }
}

impl From<Expectation> for String {
    fn from(expectation: Expectation) -> Self {
        expectation.to_string()
    }
}

impl TryFrom<String> for Expectation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |digits: &str, most| digits.parse().ok().filter(|number| (1..=most).contains(number));
        let invariant = || text.strip_prefix('I').and_then(|digits| number(digits, INVARIANTS)).map(Self::Invariant);
        let contract =
            || text.strip_prefix("contract ").and_then(|digits| number(digits, CONTRACT_SECTIONS)).map(Self::Contract);
        invariant().or_else(contract).ok_or_else(|| {
            format!("{text:?} is no expectation: write I1 to I{INVARIANTS}, or \"contract 1\" to \"contract 10\"")
        })
    }
}

/// What is wrong with the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A file cannot be read, or is no table of bugs.
    Unreadable {
        /// The file.
        home: String,
        /// The reader's words.
        problem: String,
    },
    /// A name is not in kebab case.
    Name {
        /// The name.
        bug: String,
        /// The file.
        home: String,
    },
    /// Two bugs share a name.
    Duplicate {
        /// The name.
        bug: String,
        /// Their files.
        homes: [String; 2],
    },
    /// A bug leaves out what those who hunt it must know.
    Silent {
        /// The bug.
        bug: String,
        /// What is missing.
        field: &'static str,
        /// The file.
        home: String,
    },
    /// A replacement does not ask whether its bug was chosen: it would change the product for all.
    Unguarded {
        /// The bug.
        bug: String,
        /// The file that would be changed.
        file: String,
        /// The file.
        home: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { home, problem } => write!(f, "{home}: {problem}"),
            Self::Name { bug, home } => {
                write!(f, "bug {bug:?}: a name is of small letters, digits and hyphens: rename it in {home}")
            }
            Self::Duplicate { bug, homes: [first, second] } => {
                write!(f, "bug {bug}: it stands in {first} and in {second}: rename one")
            }
            Self::Silent { bug, field, home } => write!(f, "bug {bug}: {field} is empty: fill it in, in {home}"),
            Self::Unguarded { bug, file, home } => write!(
                f,
                "bug {bug}: its replacement in {file} does not ask {GUARD}, so every other bug would have it too: guard \
                 it, in {home}"
            ),
        }
    }
}

/// Every fault of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lines(&self.0))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "bug", default)]
    bugs: Vec<Bug>,
}

impl Table {
    /// Reads all files of `folder` that end in `.toml`.
    ///
    /// # Errors
    /// Every fault that the table has.
    pub fn read(folder: &Path) -> Result<Self, Faults> {
        let unreadable = |home: &Path, problem: String| {
            Faults(vec![Fault::Unreadable { home: home.display().to_string(), problem }])
        };
        let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, error.to_string()))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        let texts: Result<Vec<_>, _> = paths
            .iter()
            .map(|path| {
                let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error.to_string()))?;
                Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text))
            })
            .collect();
        Self::parse(&texts?)
    }

    /// Reads files given as (name, text).
    ///
    /// # Errors
    /// Every fault that the table has.
    pub fn parse(files: &[(String, String)]) -> Result<Self, Faults> {
        let (mut bugs, mut faults) = (Vec::new(), Vec::new());
        for (home, text) in files {
            match toml::from_str::<File>(text) {
                Ok(file) => bugs.extend(file.bugs.into_iter().map(|bug| Bug { home: home.clone(), ..bug })),
                Err(error) => {
                    faults.push(Fault::Unreadable { home: home.clone(), problem: error.to_string().trim().to_owned() });
                }
            }
        }
        faults.extend(bugs.iter().flat_map(Bug::faults));
        faults.extend(duplicates(&bugs));
        if faults.is_empty() { Ok(Self { bugs }) } else { Err(Faults(faults)) }
    }
}

fn duplicates(bugs: &[Bug]) -> Vec<Fault> {
    let mut homes = BTreeMap::new();
    let second = |bug: &Bug| {
        let first = homes.insert(bug.name.clone(), bug.home.clone())?;
        Some(Fault::Duplicate { bug: bug.name.clone(), homes: [first, bug.home.clone()] })
    };
    bugs.iter().filter_map(second).collect()
}

impl Bug {
    fn faults(&self) -> Vec<Fault> {
        let (bug, home) = (&self.name, &self.home);
        let silent = [
            ("story", self.story.trim().is_empty()),
            ("expect", self.expect.is_empty()),
            ("needs", self.needs.trim().is_empty()),
            ("edit", self.edits.is_empty()),
        ];
        let silent = silent.into_iter().filter(|(_, is_empty)| *is_empty);
        let silent = silent.map(|(field, _)| Fault::Silent { bug: bug.clone(), field, home: home.clone() });
        let unguarded = self.edits.iter().filter(|edit| !edit.replace.contains(GUARD));
        let unguarded =
            unguarded.map(|edit| Fault::Unguarded { bug: bug.clone(), file: edit.file.clone(), home: home.clone() });
        let name = (!is_kebab(bug)).then(|| Fault::Name { bug: bug.clone(), home: home.clone() });
        name.into_iter().chain(silent).chain(unguarded).collect()
    }
}

fn is_kebab(name: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.split('-').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDIT: &str =
        "file = \"core/src/a.rs\"\nfind = \"right\"\nreplace = \"if PLANTED { wrong } else { right }\"\n";

    fn bug(name: &str, expect: &str, edit: &str) -> String {
        format!("[[bug]]\nname = \"{name}\"\nstory = \"s\"\nexpect = [{expect}]\nneeds = \"n\"\n[[bug.edit]]\n{edit}")
    }

    fn check(files: &[&str]) -> Result<Table, Faults> {
        let named = files.iter().zip(1..).map(|(text, number)| (format!("{number}.toml"), (*text).to_owned()));
        Table::parse(&named.collect::<Vec<_>>())
    }

    fn told(files: &[&str]) -> String {
        check(files).expect_err("a table with faults").to_string()
    }

    #[test]
    fn a_table_reads_in_the_order_of_its_files() {
        let table = check(&[&bug("b", "\"I1\", \"contract 4\"", EDIT), &bug("a", "\"I14\"", EDIT)]).unwrap();
        let names: Vec<_> = table.bugs.iter().map(|bug| (bug.name.as_str(), bug.home.as_str())).collect();
        assert_eq!(names, [("b", "1.toml"), ("a", "2.toml")]);
        assert_eq!(table.bugs[0].expect, [Expectation::Invariant(1), Expectation::Contract(4)]);
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_and_both_places_are_named() {
        let text = told(&[&bug("a", "\"I1\"", EDIT), &bug("a", "\"I1\"", EDIT)]);
        assert!(text.contains("bug a: it stands in 1.toml and in 2.toml"), "{text}");
    }

    #[test]
    fn every_fault_is_told_at_once_with_bug_and_file() {
        let unguarded = "file = \"core/src/a.rs\"\nfind = \"right\"\nreplace = \"wrong\"\n";
        let text = told(&[&bug("Big_Name", "", unguarded), "what"]);
        for part in ["bug \"Big_Name\"", "expect is empty", "does not ask PLANTED", "core/src/a.rs", "2.toml: "] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    fn what_is_no_invariant_and_no_section_is_refused() {
        for expect in ["I0", "I17", "contract 11", "contract", "14", ""] {
            let text = told(&[&bug("a", &format!("\"{expect}\""), EDIT)]);
            assert!(text.contains("is no expectation"), "{expect:?}: {text}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = told(&[&bug("a", "\"I1\"", &format!("{EDIT}line = 3\n"))]);
        assert!(text.contains("unknown field `line`"), "{text}");
    }
}
