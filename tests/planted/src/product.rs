//! The product's text: every file of `filter/`, read once. Never written.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The files of `filter/`, by their paths below it (`core/src/lib.rs`).
pub type Files = BTreeMap<String, Vec<u8>>;

/// Reads all files of `filter`.
///
/// # Errors
/// The first file or folder that cannot be read.
pub fn read(filter: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    read_folder(filter, "", &mut files)?;
    Ok(files)
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Files) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_folder(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}
