//! The flags of `egress` and `ingress` -> a plan. Pure; every problem is reported at once.

use std::net::SocketAddr;
use std::sync::Arc;

use super::report::Report;
use super::server::TLS_PORT;
use super::{Awaited, Configuration, admin, duration, name, policy, server};
use crate::cli::{CommonFlags, DnsFlags, EgressFlags, IngressFlags, ProcessFlags};
use crate::credentials::needs::{Needs, Use};
use crate::credentials::store::Source;
use crate::credentials::trust::CrlExpired;
use crate::plan::authorize::Rules;
use crate::plan::cluster::{Cluster, ProxyHeader};
use crate::plan::dns::Dns;
use crate::plan::limits::{Limits, OnTruncation, RekeyAfter};
use crate::plan::policy::TlsPolicy;
use crate::plan::route::SniTable;
use crate::plan::{
    Accept, ClientCertificate, CredentialName, DestinationRoute, Entrance, Listener, LogFormat, Origin, Plan,
    Role, Route, SniRoute, Target,
};

/// The port of MySQL.
const MYSQL_PORT: u16 = 3306;

/// Compiles `twinlock egress`.
pub fn egress(flags: &EgressFlags) -> Result<Configuration, Report> {
    let mut report = Report::default();
    let upstream = report.note("--upstream", name::host_port(&flags.upstream, TLS_PORT));
    let expected = server::server(&flags.server, &mut report);
    let common = common(&flags.common, expected.needs(), &mut report);
    let (Some((host, port)), Some(common), true) = (upstream, common, report.is_empty()) else {
        return Err(report);
    };
    let originate = expected.originate(&host, &common.credential.name, common.tls.clone());
    let cluster = server::cluster(
        Role::Egress,
        (host, port),
        Some(originate),
        common.limits.connect_timeout,
        "--upstream",
    );
    let route = route(Rules::default(), cluster);
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
    let sans = flags.allow_san.iter().map(|san| ("--allow-san", name::subject_alt_name(san)));
    let ids = flags.allow_spiffe.iter().map(|id| ("--allow-spiffe", name::spiffe(id)));
    let names: Vec<_> = sans.chain(ids).filter_map(|(flag, name)| report.note(flag, name)).collect();
    let proxy_header = match flags.send_proxy_protocol.as_deref() {
        None => None,
        Some("v1") => Some(ProxyHeader::V1),
        Some("v2") => Some(ProxyHeader::V2),
        Some(other) => {
            report.note("--send-proxy-protocol", Err(format!("expected v1 or v2, found {other:?}")))
        }
    };
    let needs = Needs::mutual(Use::Server(hosts.clone()));
    let common = common(&flags.common, needs, &mut report);
    let (Some((host, port)), Some(common), true) = (backend, common, report.is_empty()) else {
        return Err(report);
    };
    let accept = Accept::by(common.credential.name.clone(), ClientCertificate::Required, common.tls.clone());
    let accept = Arc::new(Accept { client_names: names.clone(), ..accept });
    let cluster =
        server::cluster(Role::Ingress, (host, port), None, common.limits.connect_timeout, "--backend");
    let route = route(Rules { names, ..Rules::default() }, Cluster { proxy_header, ..cluster });
    Ok(common.configuration(Role::Ingress, Vec::new(), || {
        let (hosts, accept, origin) = (hosts.clone(), Some(accept.clone()), Origin("--host".into()));
        let (route, networks) = (route.clone(), Vec::new());
        Entrance::Tls(SniTable::new(vec![SniRoute { hosts, networks, accept, route, origin }]))
    }))
}

/// The route of a link: one upstream at one place.
fn route(rules: Rules, cluster: Cluster) -> Arc<Route> {
    let origin = cluster.origin.clone();
    let targets = vec![Target { weight: 1, cluster: Arc::new(cluster) }];
    Arc::new(Route { rules, targets, inner_hops: Vec::new(), origin })
}

/// What both commands have in common, checked.
struct Common {
    listen: Vec<SocketAddr>,
    credential: Source,
    tls: TlsPolicy,
    limits: Limits,
    dns: Dns,
    log_format: LogFormat,
    admin: Option<SocketAddr>,
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
            Arc::new(Listener { role, address: *address, port: address.port(), entrance: entrance(), origin })
        });
        Configuration {
            plan: Plan {
                listeners: listeners.collect(),
                limits: self.limits,
                dns: self.dns,
                log_format: self.log_format,
            },
            credentials: vec![self.credential],
            warnings,
            awaited: Awaited::Absent,
            admin: self.admin,
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
    let Process { crl_expired, tls, limits, dns, log_format, admin } = process?;
    let credential = Source {
        name: CredentialName("default".into()),
        directory: flags.credentials.clone(),
        needs: Needs { crl_expired, ..needs },
    };
    Some(Common { listen, credential, tls, limits, dns, log_format, admin })
}

/// What every command that carries connections has in common, checked.
pub struct Process {
    /// What becomes of a revocation list that should have been replaced.
    pub crl_expired: CrlExpired,
    /// Versions, key exchange and ciphers.
    pub tls: TlsPolicy,
    /// Every deadline, bound and count.
    pub limits: Limits,
    /// How names are resolved.
    pub dns: Dns,
    /// How records and the operational log are written.
    pub log_format: LogFormat,
    /// Where the admin server listens.
    pub admin: Option<SocketAddr>,
}

/// Checks the flags that every command that carries connections has.
pub fn process(flags: &ProcessFlags, report: &mut Report) -> Option<Process> {
    let crl_expired = server::crl_expired(&flags.crl_expired, report);
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
    let user_timeout = flags.user_timeout.as_deref().map(|text| positive("--user-timeout", text, report));
    let revoked_grace = report.note("--revoked-grace", duration::parse(&flags.revoked_grace));
    let age = flags.max_connection_age.as_deref();
    let connection_age_max = age.map(|text| positive("--max-connection-age", text, report));
    let rekey_after = report.note("--rekey-after", rekey_after(&flags.rekey_after));
    let drain_timeout = report.note("--drain-timeout", duration::parse(&flags.drain_timeout));
    let connections_max = count("--max-connections", &flags.max_connections, report);
    let handshakes_max = count("--max-handshakes", &flags.max_handshakes, report);
    let workers = match &flags.workers {
        Some(text) => count("--workers", text, report),
        None => Some(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    };
    let tls = policy::tls(&flags.tls, report);
    let dns = dns(&flags.dns, report);
    let admin = admin::address(&flags.admin, report);
    let limits = Limits {
        handshake_timeout: handshake_timeout?,
        connect_timeout: connect_timeout?,
        connections_max: connections_max?,
        handshakes_max: handshakes_max?,
        idle_timeout: match idle_timeout {
            Some(timeout) => Some(timeout?),
            None => None,
        },
        user_timeout: match user_timeout {
            Some(timeout) => Some(timeout?),
            None => None,
        },
        revoked_grace: revoked_grace?,
        connection_age_max: match connection_age_max {
            Some(age) => Some(age?),
            None => None,
        },
        rekey_after: rekey_after?,
        drain_timeout: drain_timeout?,
        on_truncation: on_truncation?,
        credentials_poll: credentials_poll?,
        workers: workers?,
    };
    Some(Process { crl_expired: crl_expired?, tls: tls?, limits, dns: dns?, log_format: log_format?, admin })
}

/// Compiles the flags that say how names are resolved; `None` if one of them is not right.
pub fn dns(flags: &DnsFlags, report: &mut Report) -> Option<Dns> {
    let servers: Vec<_> = flags
        .dns_server
        .iter()
        .filter_map(|text| report.note("--dns-server", name::dns_server(text)))
        .collect();
    let stale_max = report.note("--dns-stale", duration::parse(&flags.dns_stale))?;
    (servers.len() == flags.dns_server.len()).then_some(Dns { servers, stale_max })
}

/// Each is a size or a duration; of several of a kind the smallest counts.
fn rekey_after(texts: &[String]) -> Result<RekeyAfter, String> {
    let mut after = RekeyAfter::default();
    for text in texts {
        let malformed = || format!("expected a size such as 1GiB or a duration such as 1h, found {text:?}");
        match (size(text), duration::parse(text)) {
            (Some(bytes), _) if bytes > 0 => {
                after.bytes = Some(after.bytes.map_or(bytes, |before| bytes.min(before)));
            }
            (None, Ok(time)) if !time.is_zero() => {
                after.time = Some(after.time.map_or(time, |before| time.min(before)));
            }
            _ => return Err(malformed()),
        }
    }
    Ok(after)
}

/// A number of bytes with a binary unit.
fn size(text: &str) -> Option<u64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    number.parse::<u64>().ok()?.checked_mul(unit)
}

pub(super) fn positive(place: &'static str, text: &str, report: &mut Report) -> Option<std::time::Duration> {
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
