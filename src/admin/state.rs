//! What is told of the process, taken at one moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::credentials::store::Store;
use crate::plan::outcome::Side;
use crate::telemetry::counts::Counts;

/// What is told of the process.
pub struct State {
    /// Whether it has been told to stop.
    pub draining: bool,
    /// Listeners of the plan that accept no connections.
    pub closed: Vec<SocketAddr>,
    /// The plan that is followed.
    pub plan: PlanState,
    /// The credentials of the plan.
    pub credentials: Arc<Store>,
    /// What was counted of connections.
    pub connections: Arc<Counts>,
    /// Handshakes that were made.
    pub handshakes: Vec<Handshakes>,
    /// Lines that were lost, by the log.
    pub lines_dropped: [(&'static str, u64); 2],
}

/// What is told of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanState {
    /// Counts the plans that were followed, from 1.
    pub generation: u64,
    /// When the last of them was.
    pub followed_at: Option<SystemTime>,
    /// Configurations that were not.
    pub refused: u64,
}

/// Handshakes that agreed on the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshakes {
    /// With whom.
    pub side: Side,
    /// The version, as in records.
    pub version: &'static str,
    /// The group of the key exchange, as in records.
    pub group: &'static str,
    /// How many.
    pub count: u64,
}
