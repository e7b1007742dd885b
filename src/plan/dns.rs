//! Where names are asked for, and how long an answer serves when nobody answers any more.

use std::net::SocketAddr;
use std::time::Duration;

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The servers to ask; none for those of the system.
    pub servers: Vec<SocketAddr>,
    /// How long the last good answer serves behind its TTL, while none can be had.
    pub stale_max: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), stale_max: Duration::from_hours(1) }
    }
}
