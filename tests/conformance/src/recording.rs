//! The recorded transcripts of a case: the documents below the first `---` of its file.
//!
//! ```yaml
//! ---
//! envoy: any                 # recorded on the pinned version, and true for every version without a document of its own
//! worker 1: |
//!   1 on_context_create parent 0
//! ---
//! envoy: [1.36.4, 1.37.0]    # where these differ
//! ```
//!
//! Recording replaces these documents only; what a person wrote above is never touched.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_norway::{Mapping, Value};

use crate::transcript::Transcript;

/// The version whose transcript counts for all that have none of their own: `pinned_version` of scripts/envoy.sh.
pub const PINNED: &str = "1.40.0";

const SEPARATOR: &str = "\n---\n";
const VERSIONS_KEY: &str = "envoy";

/// All recorded transcripts of one case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recordings {
    any: Option<Transcript>,
    others: Vec<(Vec<String>, Transcript)>,
}

impl Recordings {
    /// The recordings in a case's file.
    ///
    /// # Errors
    /// A sentence with the file and the cure.
    pub fn read(file: &Path) -> Result<Recordings, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        let mut recordings = Recordings::default();
        for document in text.split(SEPARATOR).skip(1) {
            recordings
                .add(document)
                .map_err(|problem| format!("{}: {problem}: record the case again (-- --record)", file.display()))?;
        }
        Ok(recordings)
    }

    fn add(&mut self, document: &str) -> Result<(), String> {
        let mut mapping: Mapping = serde_norway::from_str(document).map_err(|error| error.to_string())?;
        let versions = mapping.shift_remove(VERSIONS_KEY).ok_or("a recording does not say which envoy it is of")?;
        let transcript = mapping.into_iter().map(section).collect::<Result<Transcript, String>>()?;
        match versions {
            Value::String(any) if any == "any" => self.any = Some(transcript),
            Value::Sequence(versions) => {
                let versions = versions.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                self.others.push((versions, transcript));
            }
            other => return Err(format!("envoy is `any` or a list of versions, not {other:?}")),
        }
        Ok(())
    }

    /// The transcript that this version is held to.
    pub fn of(&self, version: &str) -> Option<&Transcript> {
        let own = self.others.iter().find(|(versions, _)| versions.iter().any(|known| known == version));
        own.map(|(_, transcript)| transcript).or(self.any.as_ref())
    }

    /// Takes in what was seen on a version.
    pub fn record(&mut self, version: &str, transcript: Transcript) {
        if version == PINNED {
            self.any = Some(transcript);
            return;
        }
        for (versions, _) in &mut self.others {
            versions.retain(|known| known != version);
        }
        self.others.retain(|(versions, _)| !versions.is_empty());
        if self.any.as_ref() == Some(&transcript) {
            return;
        }
        match self.others.iter_mut().find(|(_, known)| *known == transcript) {
            Some((versions, _)) => {
                versions.push(version.to_owned());
                versions.sort();
            }
            None => self.others.push((vec![version.to_owned()], transcript)),
        }
    }

    /// Writes the recordings below the case.
    ///
    /// # Errors
    /// A sentence with the file.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let problem = |error: std::io::Error| format!("{} cannot be recorded: {error}", file.display());
        let text = fs::read_to_string(file).map_err(problem)?;
        let mut text = text.split(SEPARATOR).next().unwrap_or_default().trim_end().to_owned();
        if let Some(transcript) = &self.any {
            text.push_str(&document("any", transcript));
        }
        for (versions, transcript) in &self.others {
            text.push_str(&document(&format!("[{}]", versions.join(", ")), transcript));
        }
        text.push('\n');
        fs::write(file, text).map_err(problem)
    }
}

fn section((title, lines): (Value, Value)) -> Result<(String, Vec<String>), String> {
    match (title, lines) {
        (Value::String(title), Value::String(lines)) => Ok((title, lines.lines().map(str::to_owned).collect())),
        (title, _) => Err(format!("the section {title:?} is no text")),
    }
}

fn document(versions: &str, transcript: &Transcript) -> String {
    let mut text = format!("{SEPARATOR}{VERSIONS_KEY}: {versions}");
    for (title, lines) in transcript {
        // Writing into a string cannot fail.
        write!(text, "\n{title}: |").unwrap_or_default();
        lines.iter().for_each(|line| write!(text, "\n  {line}").unwrap_or_default());
    }
    text
}

/// A transcript as one text, for a diff.
pub fn text(transcript: &Transcript) -> String {
    transcript.iter().fold(String::new(), |text, (title, lines)| text + title + ":\n  " + &lines.join("\n  ") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_is_the_one_that_the_script_fetches() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/envoy.sh");
        let text = fs::read_to_string(&script).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let pinned = text.lines().find_map(|line| line.strip_prefix("pinned_version="));
        assert_eq!(pinned, Some(PINNED), "change both, and record all cases again");
    }
}
