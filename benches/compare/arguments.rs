//! The command line of the comparison.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::contender::Contender;

/// Compares pairs of proxies that carry TCP over mutual TLS.
#[derive(Debug, Clone, Parser)]
#[command(name = "compare")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Arguments {
    /// What to measure [default: everything].
    #[arg(long, value_delimiter = ',')]
    pub scenario: Vec<Scenario>,
    /// Whom to measure [default: everyone installed].
    #[arg(long, value_delimiter = ',')]
    pub contender: Vec<Contender>,
    /// Rounds; each measures every contender once.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Makes every measurement this many times as long.
    #[arg(long, default_value_t = 1.0)]
    pub stretch: f64,
    /// Runs a little of everything that twinlock and HAProxy can do, and fails if anything does; keeps no figure.
    #[arg(long)]
    pub smoke: bool,
    /// Only writes the report, from the results that are there.
    #[arg(long)]
    pub report: bool,
    /// Prints the report and leaves benches/README.md as it is.
    #[arg(long)]
    pub print: bool,
    /// Checks the pairs and measures nothing.
    #[arg(long)]
    pub check: bool,
    /// The twinlock to measure.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_twinlock"))]
    pub twinlock: PathBuf,
    /// Envoy.
    #[arg(long, env = "ENVOY")]
    pub envoy: Option<PathBuf>,
    /// Where results are kept between runs.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/compare"))]
    pub results: PathBuf,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Bytes in one direction, on 1 and on 16 connections.
    Bulk,
    /// New connections on equal terms: X25519, full handshakes.
    Connections,
    /// New connections on the defaults of each.
    Defaults,
    /// Requests and responses as fast as they go, on 64 connections.
    Requests,
    /// Requests and responses at a fixed rate.
    Latency,
    /// The same, fewer, beside a busy neighbour.
    Neighbour,
    /// 5,000 connections that are open and quiet.
    Idle,
    /// sysbench against MariaDB.
    Sysbench,
    /// New certificates every second under load; twinlock alone.
    Rotation,
    /// Many open connections beside those that work; twinlock alone.
    Scale,
}

impl Scenario {
    pub const ALL: [Self; 10] = [
        Self::Bulk,
        Self::Connections,
        Self::Defaults,
        Self::Requests,
        Self::Latency,
        Self::Neighbour,
        Self::Idle,
        Self::Sysbench,
        Self::Rotation,
        Self::Scale,
    ];

    /// Its name on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Connections => "connections",
            Self::Defaults => "defaults",
            Self::Requests => "requests",
            Self::Latency => "latency",
            Self::Neighbour => "neighbour",
            Self::Idle => "idle",
            Self::Sysbench => "sysbench",
            Self::Rotation => "rotation",
            Self::Scale => "scale",
        }
    }
}
