//! What may happen: the immutable result of compiling a configuration.
//!
//! Everything here is pure. No file in this folder reads a clock, a socket or a file, and none
//! imports another folder; time and randomness are arguments. A running gateway holds one
//! [`Plan`] per generation behind an `Arc`, and a connection keeps the one it began with.

pub mod authorize;
pub mod cluster;
pub mod dns;
pub mod identity;
pub mod limits;
pub mod outcome;
pub mod policy;
pub mod rbac;
pub mod route;
pub mod succession;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use authorize::Rules;
use cluster::Cluster;
use dns::Dns;
use identity::{Pin, SubjectAltName};
use limits::Limits;
use policy::TlsPolicy;
use route::{HostPattern, Network, SniTable};

/// Everything a gateway process does: where it listens, where each connection goes, within which limits.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The sockets to bind, in the order they were written.
    pub listeners: Vec<Arc<Listener>>,
    /// Every deadline, bound and count of the process.
    pub limits: Limits,
    /// How names are resolved.
    pub dns: Dns,
    /// How records and the operational log are written.
    pub log_format: LogFormat,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`, for people.
    Text,
    /// JSON lines, for machines.
    Json,
}

/// What a listener is for; named in the ready line and in records, never a branch on the path of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// At the application: its outbound connections, and those to it.
    Sidecar,
    /// The way out of a site.
    Egress,
    /// The way into a site.
    Ingress,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sidecar => "sidecar",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}

/// Where in the configuration a fact comes from, for people: `gateway.yaml:12`, or the flag.
#[derive(Debug, Clone, Default)]
pub struct Origin(pub String);

impl PartialEq for Origin {
    /// A fact is the same wherever it is written.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One socket that accepts connections.
#[derive(Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it is for.
    pub role: Role,
    /// The address to bind; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// The port that the configuration names; the address has another where the listener was moved.
    pub port: u16,
    /// How an accepted connection is identified and where it may go.
    pub entrance: Entrance,
    /// Who asked for it.
    pub origin: Origin,
}

/// What tells the sockets of a process apart, in one plan and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerKey {
    /// At this address, whatever it is for.
    At(SocketAddr),
    /// At a port of the kernel's choice on this host address, for this port of the configuration.
    Anywhere(Role, IpAddr, u16),
}

/// How connections come in at a listener.
#[derive(Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Bytes as the application sends them: nobody is awaited, the destination picks the route.
    Plaintext(Vec<DestinationRoute>),
    /// TLS: the SNI of the ClientHello picks the route (RFC 6066 section 3).
    Tls(SniTable),
    /// TLS of the mesh, known by its ALPN, is terminated; whatever else comes is passed on as it is
    /// (Istio `PERMISSIVE`).
    Permissive(Arc<Accept>, Arc<Route>),
}

impl Entrance {
    /// Whether a client must say or prove something before it is known where it may go.
    pub fn asks_first(&self) -> bool {
        match self {
            Self::Plaintext(_) => false,
            Self::Tls(_) | Self::Permissive(..) => true,
        }
    }
}

/// One row of a plaintext listener.
#[derive(Debug, PartialEq, Eq)]
pub struct DestinationRoute {
    /// The networks in which the destination must be; empty for any.
    pub networks: Vec<Network>,
    /// Where the connection goes then.
    pub route: Arc<Route>,
}

/// One row of a TLS listener: the names it answers to, and the route behind them.
#[derive(Debug, PartialEq, Eq)]
pub struct SniRoute {
    /// Names of the SNI that lead here.
    pub hosts: Vec<HostPattern>,
    /// The networks in which the destination must be; empty for any.
    pub networks: Vec<Network>,
    /// How the client's TLS is terminated; `None` passes it through untouched (Istio `PASSTHROUGH`).
    pub accept: Option<Arc<Accept>>,
    /// Where the connection goes then.
    pub route: Arc<Route>,
    /// Who asked for it.
    pub origin: Origin,
}

/// Where a connection goes, and who may take it there.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// Who may connect.
    pub rules: Rules,
    /// The upstreams, at least one, each with its share of the connections.
    pub targets: Vec<Target>,
    /// Hops that other processes would have made and this one makes within itself, in order.
    pub inner_hops: Vec<InnerHop>,
    /// The rule that says so.
    pub origin: Origin,
}

/// An upstream and its share of a route's connections.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Its share, in proportion to those of the others; above zero.
    pub weight: u32,
    /// The upstream.
    pub cluster: Arc<Cluster>,
}

/// A hop between two roles of one process: nothing is sent, the rules of its far end apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerHop {
    /// The gateway, as `namespace/name`.
    pub gateway: String,
    /// Its port.
    pub port: u16,
    /// The SNI that would have been sent.
    pub sni: Option<String>,
    /// Where the hop is asked for.
    pub origin: Origin,
}

/// A host as an address or a name to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP literal: dialled as it is.
    Address(IpAddr),
    /// A DNS name, lower case: resolved on each dial within its TTL.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The server side of a TLS hop: which credential is shown, and what clients must prove.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Accept {
    /// The credential shown to clients.
    pub credential: CredentialName,
    /// More certificates for the same hosts, so that a client is shown one whose kind of key it knows
    /// (Istio `credentialNames`).
    pub alternatives: Vec<CredentialName>,
    /// The credential whose CA verifies clients: `credential`, unless another is named
    /// (Istio `caCertCredentialName`).
    pub ca: CredentialName,
    /// Whether clients must show a certificate.
    pub client: ClientCertificate,
    /// Names of which a client certificate must carry one; empty admits any client of the CA
    /// (Istio `Gateway.servers.tls.subjectAltNames`). Checked in the handshake, so that the
    /// client gets the alert `access_denied`.
    pub client_names: Vec<SubjectAltName>,
    /// Certificates of which a client must show one; empty admits any. Checked like the names, and beside them.
    pub client_pins: Vec<Pin>,
    /// Protocols of which the first that the client offers is agreed on; without any in common, none is.
    pub alpn: &'static [&'static str],
    /// Versions, key exchange and ciphers.
    pub tls: TlsPolicy,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientCertificate {
    /// They must, and it must be good.
    Required,
    /// They need not, but what they show must be good (Istio `OPTIONAL_MUTUAL`).
    Optional,
    /// They are not asked (Istio `SIMPLE`).
    NotAsked,
}

/// The client side of a TLS hop: what is sent, and what the server must prove.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Originate {
    /// The credential; `None` where neither its certificate nor its CA is needed.
    pub credential: Option<CredentialName>,
    /// Whether its certificate is shown to the server.
    pub shows_certificate: bool,
    /// Who vouches for the server.
    pub trust: Trust,
    /// The name sent as SNI; `None` sends none (an address literal cannot be sent, RFC 6066 section 3).
    pub sni: Option<String>,
    /// What the server's certificate must say.
    pub server_name: ServerIdentity,
    /// Protocols that are offered.
    pub alpn: &'static [&'static str],
    /// Versions, key exchange and ciphers.
    pub tls: TlsPolicy,
}

/// What the certificate of a server must say it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerIdentity {
    /// This host, as a DNS or IP subject alternative name (RFC 6125).
    Host(Host),
    /// Any one of these subject alternative names (Istio `ClientTLSSettings.subjectAltNames`).
    AnyOf(Vec<SubjectAltName>),
}

/// Whose signature is accepted on a server certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The CA certificates of the credential.
    Credential,
    /// The public roots of the system, or those compiled in.
    Public,
}

/// The name of a credential: a directory of key material.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName(pub String);

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Accept {
    /// A termination that shows one credential and verifies clients by its CA.
    pub fn by(credential: CredentialName, client: ClientCertificate, tls: TlsPolicy) -> Self {
        Self {
            ca: credential.clone(),
            credential,
            alternatives: Vec::new(),
            client,
            client_names: Vec::new(),
            client_pins: Vec::new(),
            alpn: &[],
            tls,
        }
    }

    /// Every credential that is shown.
    pub fn shown(&self) -> impl Iterator<Item = &CredentialName> {
        std::iter::once(&self.credential).chain(&self.alternatives)
    }
}

impl Plan {
    /// Every TLS termination of the plan.
    pub fn accepts(&self) -> impl Iterator<Item = &Arc<Accept>> {
        self.listeners.iter().flat_map(|listener| -> Vec<&Arc<Accept>> {
            match &listener.entrance {
                Entrance::Plaintext(_) => Vec::new(),
                Entrance::Tls(table) => table.rows().iter().filter_map(|row| row.accept.as_ref()).collect(),
                Entrance::Permissive(accept, _) => vec![accept],
            }
        })
    }

    /// Every TLS origination of the plan.
    pub fn originates(&self) -> impl Iterator<Item = &Arc<Originate>> {
        self.clusters().filter_map(|cluster| cluster.originate.as_ref())
    }

    /// Every upstream of the plan, as often as a route leads there.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let routes = self.listeners.iter().flat_map(|listener| listener.routes());
        routes.flat_map(|route| &route.targets).map(|target| &target.cluster)
    }
}

impl Listener {
    /// What it is known by in the next plan.
    pub fn key(&self) -> ListenerKey {
        match self.address.port() {
            0 => ListenerKey::Anywhere(self.role, self.address.ip(), self.port),
            _ => ListenerKey::At(self.address),
        }
    }

    /// Every route of the listener.
    pub fn routes(&self) -> Vec<&Arc<Route>> {
        match &self.entrance {
            Entrance::Plaintext(rows) => rows.iter().map(|row| &row.route).collect(),
            Entrance::Tls(table) => table.rows().iter().map(|row| &row.route).collect(),
            Entrance::Permissive(_, route) => vec![route],
        }
    }
}

impl Route {
    /// The upstream of one connection; `random` is drawn for it.
    pub fn choose(&self, random: u64) -> Option<&Arc<Cluster>> {
        let chosen = by_weight(self.targets.iter().map(|target| target.weight), random)?;
        self.targets.get(chosen).map(|target| &target.cluster)
    }
}

/// Which of the shares a random number falls into; each is hit in proportion to its weight. `None` where all are zero.
pub fn by_weight(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut left = random.checked_rem(total)?;
    for (index, weight) in weights.map(u64::from).enumerate() {
        if left < weight {
            return Some(index);
        }
        left -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r11_connections_are_shared_in_proportion_to_the_weights() {
        let counts = |weights: &[u32]| {
            let mut counts = vec![0; weights.len()];
            for random in 0..4000_u64 {
                // Any spread of the drawn numbers will do.
                let drawn = random.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
                counts[by_weight(weights.iter().copied(), drawn).unwrap()] += 1;
            }
            counts
        };
        let shared = counts(&[1, 3]);
        assert!((900..1100).contains(&shared[0]) && (2900..3100).contains(&shared[1]), "{shared:?}");
        assert_eq!(counts(&[0, 5]), [0, 4000]);
        assert_eq!(by_weight([].into_iter(), 1), None);
        assert_eq!(by_weight([0].into_iter(), 1), None);
    }
}
