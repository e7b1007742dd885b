//! The flags that say who a server must be, and what `twinlock probe` makes of them.

use std::sync::Arc;
use std::time::Duration;

use super::report::Report;
use super::{flags, name, policy};
use crate::cli::ServerFlags;
use crate::cli::inspect::ProbeFlags;
use crate::credentials::needs::{Needs, Use};
use crate::credentials::store::Source;
use crate::credentials::trust::CrlExpired;
use crate::plan::cluster::Cluster;
use crate::plan::dns::Dns;
use crate::plan::identity::SubjectAltName;
use crate::plan::policy::TlsPolicy;
use crate::plan::{CredentialName, Host, Originate, Role, ServerIdentity, Trust};

/// The port that ingress gateways listen on, unless told otherwise.
pub const TLS_PORT: u16 = 13306;

/// Who a server must be.
pub struct Server {
    sni: Option<Host>,
    sans: Vec<SubjectAltName>,
    trust: Trust,
}

/// What is to be probed.
#[derive(Debug)]
pub struct Probe {
    /// Where to, and how.
    pub cluster: Cluster,
    /// With what.
    pub credential: Source,
    /// How names are resolved.
    pub dns: Dns,
    /// Time to connect, and as much again for the handshake.
    pub timeout: Duration,
}

/// Compiles `twinlock probe`.
pub fn probe(given: &ProbeFlags) -> Result<Probe, Report> {
    let mut report = Report::default();
    let target = report.note("HOST[:PORT]", name::host_port(&given.target, TLS_PORT));
    let server = server(&given.server, &mut report);
    let timeout = flags::positive("--timeout", &given.timeout, &mut report);
    let tls = policy::tls(&given.tls, &mut report);
    let crl_expired = crl_expired(&given.crl_expired, &mut report);
    let dns = flags::dns(&given.dns, &mut report);
    let (Some((host, port)), Some(timeout), Some(tls), Some(crl_expired), Some(dns)) =
        (target, timeout, tls, crl_expired, dns.filter(|_| report.is_empty()))
    else {
        return Err(report);
    };
    let name = CredentialName("default".into());
    let needs = Needs { crl_expired, ..server.needs() };
    let originate = server.originate(&host, &name, tls);
    Ok(Probe {
        cluster: cluster(Role::Egress, (host, port), Some(originate), timeout, "HOST[:PORT]"),
        credential: Source { name, directory: given.credentials.clone(), needs },
        dns,
        timeout,
    })
}

/// Compiles the flags.
pub fn server(flags: &ServerFlags, report: &mut Report) -> Server {
    let sni = flags.sni.as_deref().map(|sni| name::dns(sni).map(Host::Name));
    let sni = sni.and_then(|sni| report.note("--sni", sni));
    let sans = flags.san.iter().filter_map(|san| report.note("--san", name::subject_alt_name(san))).collect();
    let trust = match flags.ca.as_deref() {
        None => Trust::Credential,
        Some("public") => Trust::Public,
        Some(other) => {
            report.add("--ca", format!("expected public, found {other:?}"));
            Trust::Public
        }
    };
    Server { sni, sans, trust }
}

impl Server {
    /// What the credential must contain.
    pub fn needs(&self) -> Needs {
        Needs { ca: self.trust == Trust::Credential, ..Needs::mutual(Use::Client) }
    }

    /// How TLS is originated to it.
    pub fn originate(self, host: &Host, credential: &CredentialName, tls: TlsPolicy) -> Originate {
        let identity = self.sni.unwrap_or_else(|| host.clone());
        Originate {
            credential: Some(credential.clone()),
            shows_certificate: true,
            trust: self.trust,
            sni: match &identity {
                Host::Name(name) => Some(name.clone()),
                Host::Address(_) => None,
            },
            server_name: if self.sans.is_empty() {
                ServerIdentity::Host(identity)
            } else {
                ServerIdentity::AnyOf(self.sans)
            },
            alpn: &[],
            tls,
        }
    }
}

/// One upstream at one place.
pub fn cluster(
    role: Role,
    (host, port): (Host, u16),
    originate: Option<Originate>,
    connect_timeout: Duration,
    origin: &str,
) -> Cluster {
    let name = format!("{host}:{port}");
    let single = Cluster::single(role, name, host, port, connect_timeout, origin);
    Cluster { originate: originate.map(Arc::new), ..single }
}

/// Compiles `--crl-expired`.
pub fn crl_expired(text: &str, report: &mut Report) -> Option<CrlExpired> {
    match text {
        "refuse" => Some(CrlExpired::Refuse),
        "warn" => Some(CrlExpired::Warn),
        other => report.note("--crl-expired", Err(format!("expected refuse or warn, found {other:?}"))),
    }
}
