//! Puts all bugs into the product's text, if every edit fits.
//!
//! | an edit is refused | because |
//! | --- | --- |
//! | of a file that is not there | the product has moved it |
//! | whose text is not found, or is found twice | the product has changed there, and nobody looked at the bug |
//! | that touches another one | one of them would undo the other |
//!
//! Each refusal names the bug, the file and the cure. Pure: texts in, texts out.

use crate::lines;
use crate::product::Files;
use crate::table::{Bug, Edit, GUARD, Table};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Why an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The product has no such file, or it is no text.
    NoFile(Place),
    /// The text does not stand exactly once in the file.
    Found {
        /// Whose.
        place: Place,
        /// Its first line.
        text: String,
        /// How often it stands there.
        times: usize,
    },
    /// Two edits change the same text.
    Overlap {
        /// The first.
        place: Place,
        /// The other bug.
        other: String,
    },
}

/// Whose edit of which file, and where in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bug.
    pub bug: String,
    /// The product's file.
    pub file: String,
    /// The table's file.
    pub home: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bug {}: filter/{}", self.bug, self.file)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile(place) => write!(
                f,
                "{place} is no file of the product any more: see where its text went, and say so in {}",
                place.home
            ),
            Self::Found { place, text, times: 0 } => write!(
                f,
                "{place} does not hold the text that begins {text:?} any more: plant the same mistake in the new code, in {}",
                place.home
            ),
            Self::Found { place, text, times } => write!(
                f,
                "{place} holds the text that begins {text:?} {times} times, not once: give more of its surroundings, in {}",
                place.home
            ),
            Self::Overlap { place, other } => write!(
                f,
                "{place}: its edit and that of bug {other} change the same text: narrow one of them, in {}",
                place.home
            ),
        }
    }
}

/// Every edit that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfits(pub Vec<Misfit>);

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lines(&self.0))
    }
}

/// An edit that fits.
struct Cut<'a> {
    range: Range<usize>,
    bug: &'a Bug,
    text: String,
}

/// The product's files with all bugs in them.
///
/// # Errors
/// Every edit that does not fit.
pub fn apply(table: &Table, product: &Files) -> Result<Files, Misfits> {
    let (mut cuts, mut misfits) = (BTreeMap::<&str, Vec<Cut<'_>>>::new(), Vec::new());
    for (number, bug) in table.bugs.iter().enumerate() {
        for edit in &bug.edits {
            match cut(number, bug, edit, product) {
                Ok(cut) => cuts.entry(&edit.file).or_default().push(cut),
                Err(misfit) => misfits.push(misfit),
            }
        }
    }
    for (file, cuts) in &mut cuts {
        cuts.sort_by_key(|cut| cut.range.start);
        misfits.extend(overlaps(file, cuts));
    }
    if !misfits.is_empty() {
        return Err(Misfits(misfits));
    }
    let mut files = product.clone();
    for (file, cuts) in cuts {
        let text = text_of(product, file).unwrap_or_default();
        files.insert(file.to_owned(), joined(text, &cuts).into_bytes());
    }
    Ok(files)
}

fn cut<'a>(number: usize, bug: &'a Bug, edit: &Edit, product: &Files) -> Result<Cut<'a>, Misfit> {
    let place = place_of(bug, &edit.file);
    let Some(text) = text_of(product, &edit.file) else { return Err(Misfit::NoFile(place)) };
    let mut starts = text.match_indices(&edit.find).map(|(start, _)| start);
    match (starts.next(), starts.count()) {
        (Some(start), 0) if !edit.find.is_empty() => Ok(Cut {
            range: start..start + edit.find.len(),
            bug,
            text: edit.replace.replace(GUARD, &guard(&edit.file, number)),
        }),
        (first, further) => {
            let text = edit.find.trim().lines().next().unwrap_or_default().to_owned();
            Err(Misfit::Found { place, text, times: usize::from(first.is_some()) + further })
        }
    }
}

/// The question whether bug `number` is the chosen one, as `file`'s crate puts it.
fn guard(file: &str, number: usize) -> String {
    let of = if file.starts_with("core/") { "crate" } else { "redeliver_core" };
    format!("{of}::planted::is({number})")
}

fn overlaps(file: &str, cuts: &[Cut<'_>]) -> Vec<Misfit> {
    let pairs = cuts.windows(2).filter(|pair| pair[0].range.end > pair[1].range.start);
    let misfit =
        |pair: &[Cut<'_>]| Misfit::Overlap { place: place_of(pair[1].bug, file), other: pair[0].bug.name.clone() };
    pairs.map(misfit).collect()
}

fn joined(text: &str, cuts: &[Cut<'_>]) -> String {
    let (mut done, mut at) = (String::with_capacity(text.len()), 0);
    for cut in cuts {
        done.push_str(&text[at..cut.range.start]);
        done.push_str(&cut.text);
        at = cut.range.end;
    }
    done.push_str(&text[at..]);
    done
}

fn text_of<'a>(product: &'a Files, file: &str) -> Option<&'a str> {
    std::str::from_utf8(product.get(file)?).ok()
}

fn place_of(bug: &Bug, file: &str) -> Place {
    Place { bug: bug.name.clone(), file: file.to_owned(), home: bug.home.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Expectation;

    const FILE: &str = "core/src/a.rs";
    const TEXT: &str = "let a = 1;\nlet b = 2;\nlet c = 2;\n";

    fn bug(name: &str, file: &str, find: &str, replace: &str) -> Bug {
        let edit = Edit { file: file.to_owned(), find: find.to_owned(), replace: replace.to_owned() };
        Bug {
            name: name.to_owned(),
            story: "s".to_owned(),
            expect: vec![Expectation::Invariant(1)],
            needs: "n".to_owned(),
            edits: vec![edit],
            home: "a.toml".to_owned(),
        }
    }

    fn check(bugs: &[Bug]) -> Result<String, String> {
        let product = Files::from([FILE, "shell/src/a.rs"].map(|file| (file.to_owned(), TEXT.as_bytes().to_vec())));
        let files = apply(&Table { bugs: bugs.to_vec() }, &product).map_err(|misfits| misfits.to_string())?;
        let of = |file: &str| String::from_utf8(files[file].clone()).unwrap();
        Ok(of(FILE) + &of("shell/src/a.rs"))
    }

    #[test]
    fn an_edit_asks_for_its_own_bug_in_the_words_of_its_crate() {
        let bugs = [
            bug("first", FILE, "a = 1", "a = if PLANTED { 9 } else { 1 }"),
            bug("second", "shell/src/a.rs", "c = 2", "c = if PLANTED { 9 } else { 2 }"),
        ];
        let expected = "let a = if crate::planted::is(0) { 9 } else { 1 };\nlet b = 2;\nlet c = 2;\n\
                        let a = 1;\nlet b = 2;\nlet c = if redeliver_core::planted::is(1) { 9 } else { 2 };\n";
        assert_eq!(check(&bugs).as_deref(), Ok(expected));
    }

    #[test]
    fn edits_side_by_side_are_made_whatever_their_order_in_the_table() {
        let (late, early) =
            (bug("late", FILE, "let b = 2;\n", "PLANTED;\n"), bug("early", FILE, "let a = 1;\n", "PLANTED;\n"));
        let text = check(&[late, early]).unwrap();
        assert!(text.starts_with("crate::planted::is(1);\ncrate::planted::is(0);\nlet c = 2;\n"), "{text}");
    }

    #[test]
    fn an_edit_that_does_not_fit_is_refused_with_bug_file_and_cure() {
        let cases = [
            (bug("gone", FILE, "let z = 1;", "PLANTED"), "does not hold the text that begins \"let z = 1;\" any more"),
            (bug("twice", FILE, " = 2;", "PLANTED"), "2 times, not once: give more of its surroundings"),
            (bug("moved", "core/src/b.rs", "a", "PLANTED"), "core/src/b.rs is no file of the product any more"),
        ];
        for (bug, expected) in cases {
            let text = check(std::slice::from_ref(&bug)).expect_err("a misfit");
            let names_it = text.contains(&format!("bug {}: filter/", bug.name)) && text.contains("a.toml");
            assert!(names_it && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn two_edits_of_one_text_are_refused_and_both_bugs_are_named() {
        let text = check(&[bug("one", FILE, "a = 1;", "PLANTED"), bug("two", FILE, "1;\nlet b", "PLANTED")]);
        let text = text.expect_err("an overlap");
        assert!(text.contains("bug two") && text.contains("of bug one change the same text"), "{text}");
    }

    #[test]
    fn every_bug_of_the_table_fits_the_product() {
        let repository = crate::repository();
        let table = Table::read(&repository.join("tests/planted/bugs")).unwrap_or_else(|faults| panic!("{faults}"));
        let product = crate::product::read(&repository.join("filter")).expect("the product can be read");
        apply(&table, &product).unwrap_or_else(|misfits| panic!("{misfits}"));
    }
}
