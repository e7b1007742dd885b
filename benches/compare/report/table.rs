//! Results as tables in Markdown.

use std::fmt::Write as _;

use crate::arguments::Scenario;
use crate::contender::Contender;
use crate::store::Results;

/// A column: a figure of a case.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub case: &'static str,
    pub figure: &'static str,
    pub decimals: usize,
}

/// A table of a scenario.
pub struct Table {
    pub title: &'static str,
    pub scenario: Scenario,
    pub columns: Vec<Column>,
}

const fn column(title: &'static str, case: &'static str, figure: &'static str, decimals: usize) -> Column {
    Column { title, case, figure, decimals }
}

/// Every table of the report, in its order.
pub fn all() -> Vec<Table> {
    let bulk = |title, figure, decimals| Table {
        title,
        scenario: Scenario::Bulk,
        columns: vec![
            column("1 connection, up", "1 up", figure, decimals),
            column("1, down", "1 down", figure, decimals),
            column("16, up", "16 up", figure, decimals),
            column("16, down", "16 down", figure, decimals),
        ],
    };
    let connections = |title, scenario| Table {
        title,
        scenario,
        columns: vec![
            column("connections/s", "new", "rate", 0),
            column("CPU ms of the pair", "new", "cpu ms", 3),
            column("failed", "new", "failed", 0),
        ],
    };
    vec![
        bulk("Bulk, Gbit/s", "gbit", 2),
        bulk("Bulk, CPU seconds of the pair for a GB", "cpu s/GB", 2),
        connections("New connections on equal terms: X25519, full handshakes", Scenario::Connections),
        connections("New connections, each on its own defaults", Scenario::Defaults),
        Table {
            title: "Requests of 128 bytes, responses of 512, on 64 connections, closed loop",
            scenario: Scenario::Requests,
            columns: vec![
                column("requests/s", "closed", "rate", 0),
                column("CPU µs of the pair", "closed", "cpu us", 1),
                column("generator's CPU share", "closed", "generator", 2),
            ],
        },
        Table {
            title: "The same at 4,000 requests/s, open loop, µs from the intended beginning",
            scenario: Scenario::Latency,
            columns: vec![
                column("p50", "open", "p50", 0),
                column("p99", "open", "p99", 0),
                column("p99.9", "open", "p99.9", 0),
                column("CPU µs of the pair", "open", "cpu us", 1),
            ],
        },
        Table {
            title: "Memory, with 5,000 idle connections",
            scenario: Scenario::Idle,
            columns: vec![
                column("egress, KiB a connection", "idle", "egress KiB", 1),
                column("ingress, KiB a connection", "idle", "ingress KiB", 1),
                column("egress at rest, MiB", "idle", "egress rest RSS MiB", 1),
                column("ingress at rest, MiB", "idle", "ingress rest RSS MiB", 1),
            ],
        },
    ]
}

impl Table {
    /// The table, of the contenders that have figures or failed; `None` without any.
    pub fn markdown(&self, results: &[Results]) -> Option<String> {
        let results = results.iter().find(|results| results.scenario == self.scenario)?;
        let mut text = format!("**{}**\n\n| |", self.title);
        for column in &self.columns {
            let _ = write!(text, " {} |", column.title);
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(self.columns.len()));
        for contender in Contender::ALL {
            if let Some(cells) = self.cells(results, contender) {
                let _ = write!(text, "\n| {} |{cells}", contender.title());
            }
        }
        text.push('\n');
        Some(text)
    }

    fn cells(&self, results: &Results, contender: Contender) -> Option<String> {
        if let Some(failed) = results.failures.iter().find(|failed| failed.contender == contender) {
            return Some(format!(" failed: {} |", failed.why.replace('|', "/")));
        }
        let cells: Vec<_> = self.columns.iter().map(|column| cell(results, contender, *column)).collect();
        let mut row = String::new();
        for cell in &cells {
            let _ = write!(row, " {} |", cell.as_deref().unwrap_or("–"));
        }
        cells.iter().any(Option::is_some).then_some(row)
    }
}

/// Median, spread, and the ratio to twinlock in the same rounds.
fn cell(results: &Results, contender: Contender, column: Column) -> Option<String> {
    let Column { case, figure, decimals, .. } = column;
    let median = results.median(case, contender, figure)?;
    let values = results.values(case, contender, figure);
    let mut text = format!("{median:.decimals$}");
    if let [least, .., most] = values.as_slice() {
        let _ = write!(text, " ({least:.decimals$}–{most:.decimals$})");
    }
    if contender != Contender::Twinlock
        && let Some(ratio) = results.ratio(case, contender, Contender::Twinlock, figure)
    {
        let _ = write!(text, " {ratio:.2}×");
    }
    Some(text)
}
