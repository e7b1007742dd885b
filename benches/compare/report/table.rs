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

/// What some work costs beside 10, 1,000 and as many open connections as a process may have descriptors for.
fn scale(title: &'static str, work: &'static str, figure: &'static str, decimals: usize) -> Table {
    let [few, many, most] = match work {
        "bytes" => ["10 bytes", "1000 bytes", "most bytes"],
        "requests" => ["10 requests", "1000 requests", "most requests"],
        _ => ["10 connections", "1000 connections", "most connections"],
    };
    let columns = vec![
        column("10", few, figure, decimals),
        column("1,000", many, figure, decimals),
        column("most", most, figure, decimals),
        column("open at most", most, "open", 0),
    ];
    Table { title, scenario: Scenario::Scale, columns }
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
    let mut tables = traffic();
    tables.push(neighbours());
    tables.extend(memory_and_database());
    tables.extend(alone());
    tables
}

/// Bytes, connections, requests.
fn traffic() -> Vec<Table> {
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
    ]
}

fn neighbours() -> Table {
    Table {
        title: "1,000 requests/s on 8 connections, alone and beside others on the same pair, µs",
        scenario: Scenario::Neighbour,
        columns: vec![
            column("p50 alone", "alone", "p50", 0),
            column("beside an upload", "beside bytes", "p50", 0),
            column("beside 32 that connect", "beside connections", "p50", 0),
            column("p99 alone", "alone", "p99", 0),
            column("beside an upload", "beside bytes", "p99", 0),
            column("beside 32 that connect", "beside connections", "p99", 0),
        ],
    }
}

fn memory_and_database() -> Vec<Table> {
    vec![
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
        Table {
            title: "sysbench oltp_point_select on MariaDB, 16 threads",
            scenario: Scenario::Sysbench,
            columns: vec![
                column("queries/s", "select", "rate", 0),
                column("CPU µs of the pair a query", "select", "cpu us", 1),
            ],
        },
    ]
}

/// What only twinlock is asked.
fn alone() -> Vec<Table> {
    vec![
        Table {
            title: "New certificates on both sides every second: 4,000 requests/s on 64 connections, p99 in µs",
            scenario: Scenario::Rotation,
            columns: vec![
                column("without", "paced still", "p99", 0),
                column("rotating", "paced rotating", "p99", 0),
                column("failed", "paced rotating", "failed", 0),
            ],
        },
        Table {
            title: "New certificates on both sides every second: new connections by 32 workers, p99 in µs",
            scenario: Scenario::Rotation,
            columns: vec![
                column("without", "new still", "p99", 0),
                column("rotating", "new rotating", "p99", 0),
                column("failed", "new rotating", "failed", 0),
            ],
        },
        scale("CPU seconds of the pair for a GB, beside open connections", "bytes", "cpu s/GB", 2),
        scale("CPU µs of the pair for a request, beside open connections", "requests", "cpu us", 1),
        scale("CPU ms of the pair for a connection, beside open connections", "connections", "cpu ms", 3),
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
        for contender in Contender::ALL.into_iter().chain([Contender::Direct]) {
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
