//! What may happen: the immutable result of compiling a configuration.
//!
//! Everything here is pure. No file in this folder reads a clock, a socket or a file, and none
//! imports another folder; time and randomness are arguments. A running gateway holds one
//! [`Plan`] per generation behind an `Arc`, and a connection keeps the one it began with.

pub mod authorize;
pub mod identity;
pub mod limits;
pub mod outcome;
pub mod policy;
pub mod route;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use authorize::Rules;
use identity::SubjectAltName;
use limits::Limits;
use policy::TlsPolicy;
use route::HostPattern;

/// Everything a gateway process does: where it listens, where each connection goes, within which limits.
#[derive(Debug)]
pub struct Plan {
    /// What the process was asked to be; named in the ready line and in every record.
    pub role: Role,
    /// The sockets to bind, in the order they were written.
    pub listeners: Vec<Arc<Listener>>,
    /// Every deadline, bound and count of the process.
    pub limits: Limits,
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

/// Which end of the link this process is; a label, never a branch on the path of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Plaintext in, mutual TLS out.
    Egress,
    /// Mutual TLS in, plaintext out.
    Ingress,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}

/// One socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    /// The address to bind; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// How an accepted connection is identified and where it may go.
    pub entrance: Entrance,
}

/// How connections come in at a listener.
#[derive(Debug)]
pub enum Entrance {
    /// Bytes as the application sends them: one route, and nobody is awaited.
    Plaintext(Arc<Route>),
    /// TLS: the SNI of the ClientHello picks the route (RFC 6066 section 3).
    Tls(Vec<SniRoute>),
}

/// One row of a TLS listener: the names it answers to, and the route behind them.
#[derive(Debug)]
pub struct SniRoute {
    /// Names of the SNI that lead here.
    pub hosts: Vec<HostPattern>,
    /// How the client's TLS is terminated.
    pub accept: Arc<Accept>,
    /// Where the connection goes then.
    pub route: Arc<Route>,
}

/// Where a connection goes, and who may take it there.
#[derive(Debug)]
pub struct Route {
    /// Who may connect.
    pub rules: Rules,
    /// The upstream.
    pub cluster: Cluster,
}

/// A named upstream and how it is reached.
#[derive(Debug)]
pub struct Cluster {
    /// Host name or address literal.
    pub host: Host,
    /// TCP port.
    pub port: u16,
    /// TLS to originate; `None` sends plaintext because the operator asked for that.
    pub originate: Option<Arc<Originate>>,
}

/// A host as an address or a name to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP literal: dialled as it is.
    Address(std::net::IpAddr),
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
    /// The credential shown to clients; its CA verifies theirs.
    pub credential: CredentialName,
    /// Names of which a client certificate must carry one; empty admits any client of the CA
    /// (Istio `Gateway.servers.tls.subjectAltNames`). Checked in the handshake, so that the
    /// client gets the alert `access_denied`.
    pub client_names: Vec<SubjectAltName>,
    /// Versions, key exchange and ciphers.
    pub tls: TlsPolicy,
}

/// The client side of a TLS hop: what is sent, and what the server must prove.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Originate {
    /// The credential shown to the server.
    pub credential: CredentialName,
    /// Who vouches for the server.
    pub trust: Trust,
    /// The name sent as SNI; `None` sends none (an address literal cannot be sent, RFC 6066 section 3).
    pub sni: Option<String>,
    /// What the server's certificate must say.
    pub server_name: ServerIdentity,
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

impl Plan {
    /// Every TLS termination of the plan, once each.
    pub fn accepts(&self) -> impl Iterator<Item = &Arc<Accept>> {
        self.listeners
            .iter()
            .flat_map(|listener| match &listener.entrance {
                Entrance::Plaintext(_) => [].iter(),
                Entrance::Tls(rows) => rows.iter(),
            })
            .map(|row| &row.accept)
    }

    /// Every TLS origination of the plan.
    pub fn originates(&self) -> impl Iterator<Item = &Arc<Originate>> {
        self.routes().filter_map(|route| route.cluster.originate.as_ref())
    }

    /// Every route of the plan.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.listeners.iter().flat_map(|listener| -> Vec<&Arc<Route>> {
            match &listener.entrance {
                Entrance::Plaintext(route) => vec![route],
                Entrance::Tls(rows) => rows.iter().map(|row| &row.route).collect(),
            }
        })
    }
}
