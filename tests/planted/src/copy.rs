//! The copy: a workspace of its own with the filter, all bugs in it, and the module that knows which one is chosen.
//!
//! ```text
//! FOLDER/Cargo.toml             the repository's, less its other members, its lints and what makes its builds slow
//! FOLDER/Cargo.lock             the repository's
//! FOLDER/filter/core/src/planted.rs   which bug is chosen: REDELIVER_PLANTED, read once
//! FOLDER/filter/...             the product's files with all bugs
//! ```
//! Writes a file only if it differs, so that cargo builds anew only what has changed. Never runs cargo.

use crate::product::{self, Files};
use crate::table::Table;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use toml::{Table as Toml, Value};

/// The environment variable of a VM that chooses a bug by its name.
pub const VARIABLE: &str = "REDELIVER_PLANTED";

const CORE: &str = "core/src/lib.rs";
const CHOSEN: &str = "core/src/planted.rs";

/// Writes the workspace into `folder`: `files` with all bugs, and what is needed to build them.
///
/// # Errors
/// The first file that cannot be read or written; the repository's manifest, if it is no manifest.
pub fn write(repository: &Path, table: &Table, files: Files, folder: &Path) -> io::Result<()> {
    let manifest = std::fs::read_to_string(repository.join("Cargo.toml"))?;
    write_if_new(&folder.join("Cargo.toml"), manifest_of(&manifest).map_err(io::Error::other)?.as_bytes())?;
    write_if_new(&folder.join("Cargo.lock"), &std::fs::read(repository.join("Cargo.lock"))?)?;
    let (files, filter) = (with_choice(table, files), folder.join("filter"));
    for (file, bytes) in &files {
        write_if_new(&filter.join(file), bytes)?;
    }
    for stale in product::read(&filter)?.into_keys().filter(|file| !files.contains_key(file)) {
        std::fs::remove_file(filter.join(stale))?;
    }
    Ok(())
}

fn write_if_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, bytes)
}

/// Adds the module that every edit asks.
fn with_choice(table: &Table, mut files: Files) -> Files {
    files.insert(CHOSEN.to_owned(), choice(table).into_bytes());
    files.entry(CORE.to_owned()).or_default().extend_from_slice(b"\npub mod planted;\n");
    files
}

/// A name that is in no table chooses nothing: then the module behaves as the product, and a hunt for it finds nothing.
fn choice(table: &Table) -> String {
    let mut text = String::from(
        "//! Which planted bug is chosen. Written by redeliver-planted; the product has no such file.\n\n\
         use std::sync::OnceLock;\n\n",
    );
    let names: String = table.bugs.iter().map(|bug| format!("    {:?},\n", bug.name)).collect();
    write!(
        text,
        "const NAMES: [&str; {}] = [\n{names}];\n\n\
         /// Whether this VM was started with bug number `bug`.\n\
         pub fn is(bug: usize) -> bool {{\n    \
             static CHOSEN: OnceLock<Option<usize>> = OnceLock::new();\n    \
             *CHOSEN.get_or_init(chosen) == Some(bug)\n}}\n\n\
         fn chosen() -> Option<usize> {{\n    \
             let name = std::env::var({VARIABLE:?}).ok()?;\n    \
             NAMES.iter().position(|found| *found == name)\n}}\n",
        table.bugs.len()
    )
    .expect("a string takes any text");
    text
}

/// The copy's manifest. Lints are for the product: a bug may be ugly. The link step over everything at once makes the
/// product small and its build slow; a bug behaves the same without.
fn manifest_of(repositorys: &str) -> Result<String, String> {
    let mut manifest: Toml = repositorys.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    let members = ["filter/core", "filter/shell"].map(Value::from).to_vec();
    let quiet = Toml::from_iter([("rust".to_owned(), Value::Table(Toml::from_iter([entry("warnings", "allow")])))]);
    let workspace = inner(&mut manifest, "workspace")?;
    workspace.insert("members".to_owned(), Value::Array(members));
    workspace.insert("lints".to_owned(), Value::Table(quiet));
    let release = inner(inner(&mut manifest, "profile")?, "release")?;
    release.extend([entry("lto", "off"), entry("codegen-units", 16), entry("incremental", true)]);
    toml::to_string(&manifest).map_err(|error| error.to_string())
}

fn entry(key: &str, value: impl Into<Value>) -> (String, Value) {
    (key.to_owned(), value.into())
}

fn inner<'a>(table: &'a mut Toml, key: &str) -> Result<&'a mut Toml, String> {
    let found = table.get_mut(key).and_then(Value::as_table_mut);
    found.ok_or_else(|| format!("Cargo.toml has no [{key}] any more: tests/planted/src/copy.rs must follow it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn write_product(folder: &Path, files: &[(&str, &str)]) {
        let files = files.iter().map(|(file, text)| ((*file).to_owned(), text.as_bytes().to_vec()));
        write(crate::repository(), &Table::default(), files.collect(), folder).expect("the copy can be written");
    }

    fn written_at(path: &Path) -> SystemTime {
        path.metadata().and_then(|found| found.modified()).expect("the file is there")
    }

    #[test]
    fn the_copy_is_a_workspace_of_two_crates_that_take_the_lints_from_it() {
        let folder = tempfile::tempdir().unwrap();
        write_product(folder.path(), &[(CORE, "pub mod a;\n")]);
        let manifest: Toml = std::fs::read_to_string(folder.path().join("Cargo.toml")).unwrap().parse().unwrap();
        let workspace = manifest["workspace"].as_table().unwrap();
        assert_eq!(workspace["members"].as_array().unwrap().len(), 2);
        assert!(workspace["lints"].as_table().is_some_and(|lints| !lints.contains_key("clippy")), "{workspace}");
        let core = std::fs::read_to_string(folder.path().join("filter").join(CORE)).unwrap();
        assert_eq!(core, "pub mod a;\n\npub mod planted;\n");
    }

    #[test]
    fn what_has_not_changed_is_not_written_again_and_what_is_gone_goes() {
        let folder = tempfile::tempdir().unwrap();
        let filter = folder.path().join("filter");
        write_product(folder.path(), &[(CORE, ""), ("core/src/a.rs", "1"), ("core/src/b.rs", "1")]);
        let before = written_at(&filter.join("core/src/a.rs"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        write_product(folder.path(), &[(CORE, ""), ("core/src/a.rs", "1"), ("core/src/c.rs", "1")]);
        assert_eq!(written_at(&filter.join("core/src/a.rs")), before);
        assert!(!filter.join("core/src/b.rs").exists() && filter.join("core/src/c.rs").exists());
    }
}
