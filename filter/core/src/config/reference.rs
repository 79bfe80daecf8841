//! The reference of all keys as a Markdown table, for docs/configuration.md and README.md. A test keeps both equal to it.
//!
//! Never part of the Wasm: nothing in the filter calls it, so the linker drops it together with the documentation in
//! the table.

use super::table::{Area, Row, rows};

/// The table, one line per key, between the lines that mark it.
#[must_use]
pub fn reference_table() -> String {
    let head = "| key | default | takes | what it does |\n| --- | --- | --- | --- |\n";
    let lines: String = rows().iter().map(line).collect();
    format!("{TABLE_BEGIN}\n{head}{lines}{TABLE_END}")
}

/// The line before the table.
pub const TABLE_BEGIN: &str = "<!-- configuration:begin -->";
/// The line after it.
pub const TABLE_END: &str = "<!-- configuration:end -->";

fn line(row: &Row) -> String {
    let doc = row.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let standing = match row.area {
        Area::Filter => "",
        Area::Operations | Area::Durable => "*Not in this build.* ",
    };
    format!("| `{}` | {} | {} | {standing}{doc} |\n", row.path, default(row.default), row.form)
}

/// A default as one writes it in YAML.
fn default(json: &str) -> String {
    match json.trim_matches('"') {
        "null" => "absent".to_owned(),
        "" => "`\"\"`".to_owned(),
        _ if json.starts_with('[') => format!("`{}`", json.replace('"', "")),
        plain => format!("`{plain}`"),
    }
}
