//! A named upstream: where it is, which of its endpoints a connection goes to, and what holds for connections
//! to it.
//!
//! What is known of the endpoints while the gateway runs (who is busy, who fails) is not here but in
//! `upstream`; a new plan finds it there by the role and the name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Host, Origin, Originate, Role};

/// A named upstream and how it is reached.
#[derive(Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Who goes there; each role has counts of its own, as if it were a process of its own.
    pub role: Role,
    /// `outbound|PORT|SUBSET|HOST` as Istio calls it, or `HOST:PORT`.
    pub name: String,
    /// Where it is, at least one place.
    pub endpoints: Vec<Endpoint>,
    /// What the addresses of a name are.
    pub resolution: Resolution,
    /// TLS to originate; `None` sends plaintext because the operator asked for that.
    pub originate: Option<Arc<Originate>>,
    /// How long connecting may take, over all endpoints.
    pub connect_timeout: Duration,
    /// Which endpoint comes first.
    pub balance: Balance,
    /// When an endpoint that fails is left alone; `None` never leaves one alone.
    pub outliers: Option<Outliers>,
    /// How many connections there may be, and what holds for each.
    pub pool: Pool,
    /// What tells the server who its client is, before everything else; `None` tells nothing.
    pub proxy_header: Option<ProxyHeader>,
    /// Where the service and its policy are defined.
    pub origin: Origin,
}

impl Cluster {
    /// An upstream at one place, in plaintext, with nothing said of its connections.
    pub fn single(
        role: Role,
        name: String,
        host: Host,
        port: u16,
        connect_timeout: Duration,
        origin: &str,
    ) -> Self {
        Self {
            role,
            name,
            endpoints: vec![Endpoint { host, port, weight: 1 }],
            resolution: Resolution::OneEndpoint,
            originate: None,
            connect_timeout,
            balance: Balance::InOrder,
            outliers: None,
            pool: Pool::default(),
            proxy_header: None,
            origin: Origin(origin.into()),
        }
    }
}

/// A place where an upstream can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address literal.
    pub host: Host,
    /// TCP port.
    pub port: u16,
    /// Its share, in proportion to those of the others; above zero.
    pub weight: u32,
}

/// What the addresses of a name are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Each is an endpoint of its own (Istio `DNS`).
    Endpoints,
    /// Ways to one endpoint: the first that answers is taken, the first of the answer first (Istio
    /// `DNS_ROUND_ROBIN`).
    OneEndpoint,
}

/// Which endpoint of a cluster is tried first; the others follow if it cannot be reached
/// (Istio `LoadBalancerSettings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// In the order in which they are written.
    InOrder,
    /// One after the other.
    RoundRobin,
    /// The one with fewer connections of two that are drawn.
    LeastRequest,
    /// At random, by weight.
    Random,
    /// The client's address decides.
    SourceAddress,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InOrder => "in order",
            Self::RoundRobin => "in turn",
            Self::LeastRequest => "by the fewer connections of two",
            Self::Random => "at random",
            Self::SourceAddress => "by the client's address",
        })
    }
}

/// The header of the PROXY protocol (Istio `ProxyProtocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Bytes, with more about the client's TLS where the hop to the server is plaintext.
    V2,
}

/// When an endpoint that fails is left alone, and for how long (Istio `OutlierDetection`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outliers {
    /// Failures to connect or to shake hands, one behind the other, that are too many; above zero.
    pub failures: u32,
    /// Every such time without an ejection takes one from the number of ejections.
    pub interval: Duration,
    /// How long the first ejection lasts; the second twice as long, and so on.
    pub ejection_base: Duration,
    /// While as many of the endpoints are ejected, in percent, no other is.
    pub ejected_percent_max: u8,
    /// With fewer endpoints that are not ejected, in percent, all are used.
    pub healthy_percent_min: u8,
}

/// What holds for the connections of an upstream (Istio `ConnectionPoolSettings.TCPSettings`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// How many there may be.
    pub connections_max: Option<usize>,
    /// How the kernel finds out that a silent server is gone.
    pub keepalive: Keepalive,
    /// When a connection on which nothing moves is ended.
    pub idle: Idle,
    /// How long any connection may go on; `None` leaves it to the process.
    pub age_max: Option<Duration>,
}

/// How the kernel finds out that a silent peer is gone (tcp(7) `TCP_KEEPIDLE` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which it asks.
    pub time: Duration,
    /// How long it waits for an answer before it asks again.
    pub interval: Duration,
    /// How often it asks.
    pub probes: u32,
}

impl Keepalive {
    /// What is done where nothing else is asked for.
    pub const USUAL: Self =
        Self { time: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 6 };
}

impl Default for Keepalive {
    fn default() -> Self {
        Self::USUAL
    }
}

/// When a connection on which nothing moves is ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Idle {
    /// When the process says.
    #[default]
    AsProcess,
    /// Never, whatever the process says.
    Never,
    /// After this time, whatever the process says.
    After(Duration),
}
