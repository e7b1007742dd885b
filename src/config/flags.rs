//! The flags of `egress` and `ingress` -> a plan. Pure; every problem is reported at once.

use std::sync::Arc;

use super::report::Report;
use super::{Configuration, duration, name, policy};
use crate::cli::{CommonFlags, EgressFlags, IngressFlags, ProcessFlags};
use crate::credentials::needs::{Needs, Use};
use crate::credentials::store::Source;
use crate::credentials::trust::CrlExpired;
use crate::plan::authorize::Rules;
use crate::plan::limits::{Limits, OnTruncation};
use crate::plan::policy::TlsPolicy;
use crate::plan::route::SniTable;
use crate::plan::{
    Accept, Balance, ClientCertificate, Cluster, CredentialName, DestinationRoute, Endpoint, Entrance, Host,
    Listener, LogFormat, Origin, Originate, Plan, Role, Route, ServerIdentity, SniRoute, Target, Trust,
};

/// The port that ingress gateways listen on, unless told otherwise.
const TLS_PORT: u16 = 13306;
/// The port of MySQL.
const MYSQL_PORT: u16 = 3306;

/// Compiles `twinlock egress`.
pub fn egress(flags: &EgressFlags) -> Result<Configuration, Report> {
    let mut report = Report::default();
    let upstream = report.note("--upstream", name::host_port(&flags.upstream, TLS_PORT));
    let sni = flags.sni.as_deref().map(|sni| name::dns(sni).map(Host::Name));
    let sni = sni.and_then(|sni| report.note("--sni", sni));
    let sans: Vec<_> =
        flags.san.iter().filter_map(|san| report.note("--san", name::subject_alt_name(san))).collect();
    let trust = match flags.ca.as_deref() {
        None => Trust::Credential,
        Some("public") => Trust::Public,
        Some(other) => {
            report.add("--ca", format!("expected public, found {other:?}"));
            Trust::Public
        }
    };
    let needs = Needs { ca: trust == Trust::Credential, ..Needs::mutual(Use::Client) };
    let common = common(&flags.common, needs, &mut report);
    let (Some((host, port)), Some(common), true) = (upstream, common, report.is_empty()) else {
        return Err(report);
    };
    let identity = sni.unwrap_or_else(|| host.clone());
    let originate = Originate {
        credential: Some(common.credential.name.clone()),
        shows_certificate: true,
        trust,
        sni: match &identity {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        },
        server_name: if sans.is_empty() {
            ServerIdentity::Host(identity)
        } else {
            ServerIdentity::AnyOf(sans)
        },
        alpn: &[],
        tls: common.tls.clone(),
    };
    let route = route(Rules::default(), host, port, Some(Arc::new(originate)), &common.limits, "--upstream");
    let warnings = common.listen.iter().filter(|address| !address.ip().is_loopback()).map(|address| {
        format!("plaintext is accepted beyond loopback, whoever can reach this address can use the link: {address}")
    });
    let warnings = warnings.collect();
    Ok(common.configuration(Role::Egress, warnings, || {
        Entrance::Plaintext(vec![DestinationRoute { networks: Vec::new(), route: route.clone() }])
    }))
}

/// Compiles `twinlock ingress`.
pub fn ingress(flags: &IngressFlags) -> Result<Configuration, Report> {
    let mut report = Report::default();
    let backend = report.note("--backend", name::host_port(&flags.backend, MYSQL_PORT));
    let hosts: Vec<_> =
        flags.host.iter().filter_map(|host| report.note("--host", name::host_pattern(host))).collect();
    let names: Vec<_> = flags
        .allow_san
        .iter()
        .filter_map(|san| report.note("--allow-san", name::subject_alt_name(san)))
        .collect();
    let needs = Needs::mutual(Use::Server(hosts.clone()));
    let common = common(&flags.common, needs, &mut report);
    let (Some((host, port)), Some(common), true) = (backend, common, report.is_empty()) else {
        return Err(report);
    };
    let accept = Arc::new(Accept {
        credential: common.credential.name.clone(),
        client: ClientCertificate::Required,
        client_names: names.clone(),
        alpn: &[],
        tls: common.tls.clone(),
    });
    let route = route(Rules { names }, host, port, None, &common.limits, "--backend");
    Ok(common.configuration(Role::Ingress, Vec::new(), || {
        let (hosts, accept, origin) = (hosts.clone(), Some(accept.clone()), Origin("--host".into()));
        Entrance::Tls(SniTable::new(vec![SniRoute { hosts, accept, route: route.clone(), origin }]))
    }))
}

/// The route of a link: one upstream at one place.
fn route(
    rules: Rules,
    host: Host,
    port: u16,
    originate: Option<Arc<Originate>>,
    limits: &Limits,
    origin: &str,
) -> Arc<Route> {
    let cluster = Cluster {
        name: format!("{host}:{port}"),
        endpoints: vec![Endpoint { host, port, weight: 1 }],
        originate,
        connect_timeout: limits.connect_timeout,
        balance: Balance::InOrder,
        origin: Origin(origin.into()),
    };
    let targets = vec![Target { weight: 1, cluster: Arc::new(cluster) }];
    Arc::new(Route { rules, targets, inner_hops: Vec::new(), origin: Origin(origin.into()) })
}

/// What both commands have in common, checked.
struct Common {
    listen: Vec<std::net::SocketAddr>,
    credential: Source,
    tls: TlsPolicy,
    limits: Limits,
    log_format: LogFormat,
}

impl Common {
    fn configuration(
        self,
        role: Role,
        warnings: Vec<String>,
        entrance: impl Fn() -> Entrance,
    ) -> Configuration {
        let listeners = self.listen.iter().map(|address| {
            let origin = Origin("--listen".into());
            Arc::new(Listener { role, address: *address, entrance: entrance(), origin })
        });
        Configuration {
            plan: Plan { listeners: listeners.collect(), limits: self.limits, log_format: self.log_format },
            credentials: vec![self.credential],
            warnings,
            starts_without_credentials: false,
        }
    }
}

fn common(flags: &CommonFlags, needs: Needs, report: &mut Report) -> Option<Common> {
    let listen: Vec<_> =
        flags.listen.iter().filter_map(|text| report.note("--listen", name::listen_address(text))).collect();
    let process = process(&flags.process, report);
    if listen.len() != flags.listen.len() {
        return None;
    }
    let Process { crl_expired, tls, limits, log_format } = process?;
    let credential = Source {
        name: CredentialName("default".into()),
        directory: flags.credentials.clone(),
        needs: Needs { crl_expired, ..needs },
    };
    Some(Common { listen, credential, tls, limits, log_format })
}

/// What every command that carries connections has in common, checked.
pub struct Process {
    /// What becomes of a revocation list that should have been replaced.
    pub crl_expired: CrlExpired,
    /// Versions, key exchange and ciphers.
    pub tls: TlsPolicy,
    /// Every deadline, bound and count.
    pub limits: Limits,
    /// How records and the operational log are written.
    pub log_format: LogFormat,
}

/// Checks the flags that every command that carries connections has.
pub fn process(flags: &ProcessFlags, report: &mut Report) -> Option<Process> {
    let crl_expired = match flags.crl_expired.as_str() {
        "refuse" => Some(CrlExpired::Refuse),
        "warn" => Some(CrlExpired::Warn),
        other => report.note("--crl-expired", Err(format!("expected refuse or warn, found {other:?}"))),
    };
    let on_truncation = match flags.on_truncation.as_str() {
        "reset" => Some(OnTruncation::Reset),
        "fin" => Some(OnTruncation::Fin),
        other => report.note("--on-truncation", Err(format!("expected reset or fin, found {other:?}"))),
    };
    let log_format = match flags.log_format.as_str() {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        other => report.note("--log-format", Err(format!("expected text or json, found {other:?}"))),
    };
    let handshake_timeout = positive("--handshake-timeout", &flags.handshake_timeout, report);
    let credentials_poll = positive("--credentials-poll", &flags.credentials_poll, report);
    let connect_timeout = positive("--connect-timeout", &flags.connect_timeout, report);
    let idle_timeout = flags.idle_timeout.as_deref().map(|text| positive("--idle-timeout", text, report));
    let drain_timeout = report.note("--drain-timeout", duration::parse(&flags.drain_timeout));
    let connections_max = count("--max-connections", &flags.max_connections, report);
    let workers = match &flags.workers {
        Some(text) => count("--workers", text, report),
        None => Some(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    };
    let tls = policy::tls(&flags.tls, report);
    let limits = Limits {
        handshake_timeout: handshake_timeout?,
        connect_timeout: connect_timeout?,
        connections_max: connections_max?,
        idle_timeout: match idle_timeout {
            Some(timeout) => Some(timeout?),
            None => None,
        },
        drain_timeout: drain_timeout?,
        on_truncation: on_truncation?,
        credentials_poll: credentials_poll?,
        workers: workers?,
    };
    Some(Process { crl_expired: crl_expired?, tls: tls?, limits, log_format: log_format? })
}

fn positive(place: &'static str, text: &str, report: &mut Report) -> Option<std::time::Duration> {
    let parsed = duration::parse(text).and_then(|duration| {
        if duration.is_zero() {
            Err(format!("expected a duration above zero, found {text:?}"))
        } else {
            Ok(duration)
        }
    });
    report.note(place, parsed)
}

fn count(place: &'static str, text: &str, report: &mut Report) -> Option<usize> {
    let parsed = text.parse().ok().filter(|count| *count > 0);
    report.note(place, parsed.ok_or_else(|| format!("expected a number above zero, found {text:?}")))
}
