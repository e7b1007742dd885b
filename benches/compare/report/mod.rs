//! What the results say, for people.

mod table;

use crate::store::Results;

/// Everything that was measured, in Markdown.
pub fn markdown(results: &[Results]) -> String {
    let tables: Vec<_> = table::all().iter().filter_map(|table| table.markdown(results)).collect();
    tables.join("\n")
}
