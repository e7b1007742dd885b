//! Where the records of connections go: standard output, a line each.

use super::entry::Entry;
use super::lines::Lines;
use crate::plan::LogFormat;

/// Where records go. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    format: LogFormat,
    lines: Lines,
}

impl AccessLog {
    /// Records in this format, to this output.
    pub fn new(format: LogFormat, lines: Lines) -> Self {
        Self { format, lines }
    }

    /// Records a connection.
    pub fn record(&self, entry: &Entry) {
        let line = match self.format {
            LogFormat::Text => entry.text(),
            LogFormat::Json => entry.json(),
        };
        self.line(&line);
    }

    /// Records that were lost so far.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Appends a line, which ends with its line feed.
    pub fn line(&self, line: &str) {
        self.lines.append(line.as_bytes());
    }
}
