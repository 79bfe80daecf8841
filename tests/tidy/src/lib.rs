//! The documents name only what there is. No Envoy, no module, no simulator: files are read, nothing else.
//!
//! | in a document | must hold |
//! | --- | --- |
//! | a relative link | leads to a file or a folder of this repository |
//! | a link to a `.rs` file whose text is one name in backticks | that file has a test of that name |
//! | docs/complaints.md | has a row for each of the twenty complaints, and each row names a test |
//!
//! Never writes, and never looks at what a link to another site says.

use std::path::{Path, PathBuf};

/// A link of a document: `[text](target)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What is read.
    pub text: String,
    /// Where it leads.
    pub target: String,
}

impl Link {
    /// The file of this repository that it leads to from a document in `folder`; `None` for a page elsewhere, and for a
    /// place on the same page.
    #[must_use]
    pub fn file(&self, folder: &Path) -> Option<PathBuf> {
        let path = self.target.split('#').next().filter(|path| !path.is_empty())?;
        (!path.contains("://")).then(|| folder.join(path))
    }

    /// The test that it names.
    #[must_use]
    pub fn test(&self) -> Option<&str> {
        let is_source = self.target.ends_with(".rs");
        let name = self.text.strip_prefix('`')?.strip_suffix('`')?;
        let is_name = name.contains('_') && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        (is_source && is_name).then_some(name)
    }
}

/// The links of a text in Markdown, those in code blocks left out.
#[must_use]
pub fn links(text: &str) -> Vec<Link> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            found.extend(links_of_line(line));
        }
    }
    found
}

fn links_of_line(line: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (middle, _) in line.match_indices("](") {
        let start = line[..middle].rfind('[').map(|open| open + 1);
        let end = line[middle + 2..].find(')').map(|close| middle + 2 + close);
        if let (Some(start), Some(end)) = (start, end) {
            let (text, target) = (line[start..middle].to_owned(), line[middle + 2..end].to_owned());
            found.push(Link { text, target });
        }
    }
    found
}

/// Whether `source` has a test of this name: a function under an attribute that ends in `test]`.
#[must_use]
pub fn has_test(source: &str, name: &str) -> bool {
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.ends_with("test]");
            continue;
        }
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if is_test && function.is_some_and(|rest| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('('))) {
            return true;
        }
        is_test &= line.starts_with("//");
    }
    false
}

/// Where the repository is.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every document: those at the root and those in `docs/`.
///
/// # Errors
/// If a folder cannot be listed.
pub fn documents() -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [root(), root().join("docs")] {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn every_relative_link_leads_somewhere_and_every_test_that_is_named_exists() {
        let documents = documents().expect("the documents can be listed");
        assert!(documents.len() >= 5, "{documents:?}");
        let (mut wrong, mut tests) = (Vec::new(), 0);
        for document in documents {
            let folder = document.parent().expect("a file has a folder");
            for link in links(&read(&document)) {
                let Some(file) = link.file(folder) else { continue };
                let is_right = match link.test() {
                    Some(name) => file.is_file() && has_test(&read(&file), name),
                    None => file.exists(),
                };
                tests += usize::from(link.test().is_some());
                if !is_right {
                    wrong.push(format!("{}: [{}]({})", document.display(), link.text, link.target));
                }
            }
        }
        assert!(wrong.is_empty(), "these lead nowhere:\n{}", wrong.join("\n"));
        assert!(tests >= 20, "only {tests} tests are named: is the page still read as it is written?");
    }

    #[test]
    fn every_complaint_has_its_row_and_every_row_names_a_test() {
        let page = read(&root().join("docs/complaints.md"));
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains("](")).collect();
        let numbers: Vec<String> =
            rows.iter().map(|row| row.split('|').nth(1).unwrap_or("").trim().to_owned()).collect();
        assert_eq!(numbers, (1..=20).map(|number| number.to_string()).collect::<Vec<_>>());
        for (number, row) in numbers.iter().zip(rows) {
            assert_eq!(row.matches('|').count(), 6, "row {number} has not five cells");
            assert!(links(row).iter().any(|link| link.test().is_some()), "row {number} names no test");
        }
    }

    #[test]
    fn a_name_that_is_no_test_is_found_out() {
        let source = "#[test]\nfn is_one() {}\nfn is_none() {}\n#[tokio::test]\nasync fn waits() {}\n\
            #[test]\n// Why.\n#[ignore]\nfn is_one_too() {}\n#[allow(dead_code)]\nfn is_not_either() {}";
        for (name, expected) in [
            ("is_one", true),
            ("is_none", false),
            ("waits", true),
            ("is_one_too", true),
            ("is_not_either", false),
            ("is", false),
        ] {
            assert_eq!(has_test(source, name), expected, "{name}");
        }
    }

    #[test]
    fn links_are_read_with_their_text_and_none_in_code() {
        let text = "See [`a_test`](../x.rs) and [b](https://c/d), [e](#f).\n```\n[no](nowhere)\n```";
        let found = links(text);
        let files: Vec<_> = found.iter().map(|link| link.file(Path::new("docs"))).collect();
        assert_eq!(files, [Some(PathBuf::from("docs/../x.rs")), None, None]);
        assert_eq!(found.iter().map(Link::test).collect::<Vec<_>>(), [Some("a_test"), None, None]);
    }
}
