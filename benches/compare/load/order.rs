//! What a load generator is told, and what it reports: one JSON value each, on its command line and its
//! standard output.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What the server sends first on every connection, as a MySQL server does.
pub const GREETING: usize = 80;

/// One run of the load generator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The egress, or the server itself.
    pub target: SocketAddr,
    /// Where to be the server as well, in the same thread; `None` if another process is.
    pub backend: Option<SocketAddr>,
    pub job: Job,
    /// What others do meanwhile on connections of their own, which is not counted.
    #[serde(default)]
    pub beside: Option<Job>,
    /// Seconds of the same load before anything is counted.
    pub warm_up: f64,
    /// Seconds that are counted.
    pub measure: f64,
    /// The processes whose CPU time is taken over the counted seconds: those of the egress, those of the ingress.
    pub watch: Vec<Vec<i32>>,
    /// Processes that belong to the load: what they use is neither counted nor somebody else's.
    pub helpers: Vec<i32>,
    /// The cores that nobody else should use meanwhile.
    pub cores: Vec<usize>,
}

/// What to do with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Send without end.
    Upload { connections: usize },
    /// Receive without end.
    Download { connections: usize },
    /// Connect, greeting, 64 bytes up, 64 bytes down, close; again and again.
    Connect { workers: usize },
    /// 128 bytes up, 512 bytes down, as fast as the answers come.
    Request { connections: usize },
    /// The same at a fixed number of requests a second; time counts from when a request was due.
    Paced { connections: usize, rate: u64 },
    /// Keep connections open after one exchange, until standard input ends.
    Hold { connections: usize },
    /// Be the server for others until standard input ends.
    Serve,
}

impl Job {
    /// Connections that are open at once.
    pub fn connections(self) -> usize {
        match self {
            Self::Connect { workers } => workers,
            Self::Upload { connections }
            | Self::Download { connections }
            | Self::Request { connections }
            | Self::Paced { connections, .. }
            | Self::Hold { connections } => connections,
            Self::Serve => 0,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Bytes, connections or requests.
    pub units: u64,
    /// Seconds that were counted.
    pub seconds: f64,
    /// CPU seconds of each watched group.
    pub cpu: Vec<f64>,
    /// CPU seconds of the generator itself.
    pub own_cpu: f64,
    /// CPU seconds that somebody else took on the cores of the comparison.
    pub foreign_cpu: f64,
    /// Connections that were refused, reset or ended early.
    pub failed: u64,
    /// Times from the intended beginning to the end of a unit, where units have one.
    pub latency: Option<Latency>,
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}
