//! A Gateway by itself.

use std::collections::HashSet;

use super::{credential_name, host_or_address, items, label, once, port, read};
use crate::config::decode::{At, Strings};
use crate::config::report::Report;
use crate::config::resource::Resource;
use crate::config::resource::gateway::{Gateway, Server, ServerMode, ServerTls, Version};
use crate::config::{name, pins};
use crate::plan::policy::Cipher;

/// Certificates of one server: Envoy takes one for each kind of key.
const NAMES_MAX: usize = 2;

pub(super) fn check(gateway: &Resource<Gateway>, report: &mut Report) {
    if gateway.name.contains('.') {
        let message = format!("expected a name without dots, found {:?}", gateway.name);
        report.error(gateway.meta.place, message).field("name");
    }
    let servers = items(gateway.spec.servers.as_ref());
    if servers.is_empty() {
        report.error(gateway.spec.place, "expected at least one server, found none").field("servers");
    }
    let mut names = HashSet::new();
    for server in servers {
        check_port(server, &mut names, report);
        check_hosts(server, report);
        check_server_tls(server, report);
        if let Some(bind) = &server.bind {
            let expected = |text: &str| {
                text.parse::<std::net::IpAddr>()
                    .map_err(|_| format!("expected an IP address, found {text:?}"))
            };
            read(bind, expected, report);
        }
        if let Some(endpoint) = &server.default_endpoint {
            report.warning(endpoint.place, "has no effect, in Istio neither");
        }
    }
}

/// What a protocol of a port means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes.
    Tcp,
    /// TLS around bytes.
    Tls,
    /// HTTP in the clear.
    Http,
    /// TLS around HTTP.
    Https,
}

/// Reads `protocol`, in whatever case.
pub fn protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_uppercase().as_str() {
        "TCP" | "MONGO" | "REDIS" | "MYSQL" => Ok(Protocol::Tcp),
        "TLS" => Ok(Protocol::Tls),
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Ok(Protocol::Http),
        "HTTPS" => Ok(Protocol::Https),
        _ => Err(format!(
            "expected TCP, TLS, HTTPS, HTTP, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS or MYSQL, found {text:?}"
        )),
    }
}

fn check_port<'a>(server: &'a Server, names: &mut HashSet<&'a str>, report: &mut Report) {
    let Some(given) = &server.port else {
        report.error(server.place, "expected a port, found none").field("port");
        return;
    };
    match &given.number {
        Some(number) => drop(port(number, report)),
        None => drop(report.error(given.place, "expected a port number, found none").field("number")),
    }
    match &given.name {
        Some(name) => once(names, name, "port name", report),
        None => drop(report.error(given.place, "expected a name, found none").field("name")),
    }
    match &given.protocol {
        Some(text) => drop(read(text, protocol, report)),
        None => drop(report.error(given.place, "expected a protocol, found none").field("protocol")),
    }
    if let Some(target) = &given.target_port {
        report.error(target.place, "expected no targetPort, which has no effect on a Gateway, found one");
    }
}

fn check_hosts(server: &Server, report: &mut Report) {
    let hosts = items(server.hosts.as_ref());
    if hosts.is_empty() {
        report.error(server.place, "expected at least one host, found none").field("hosts");
    }
    for text in hosts {
        let (namespace, host) =
            text.split_once('/').map_or((None, text.as_str()), |(ns, host)| (Some(ns), host));
        if let Some(namespace) = namespace.filter(|namespace| *namespace != "*" && *namespace != ".") {
            read(text, |_| label(namespace), report);
        }
        let full = |_: &str| {
            host_or_address(host)?;
            let short = !host.contains(['.', ':']) && host != "*";
            if short { Err(format!("expected a full DNS name, found a short one: {host:?}")) } else { Ok(()) }
        };
        read(text, full, report);
    }
}

fn check_server_tls(server: &Server, report: &mut Report) {
    let protocol = server.port.as_ref().and_then(|port| protocol(port.protocol.as_ref()?).ok());
    match (protocol, &server.tls) {
        (Some(Protocol::Tls | Protocol::Https), None) => {
            report
                .error(server.place, "expected TLS settings for a port of protocol TLS or HTTPS, found none")
                .field("tls");
        }
        (Some(Protocol::Tcp), Some(tls)) => {
            report.error(tls.place, "expected no TLS settings for a port without TLS, found some");
        }
        _ => {}
    }
    if let Some(tls) = &server.tls {
        check_tls(tls, report);
    }
}

fn check_tls(tls: &ServerTls, report: &mut Report) {
    let credentials = material(tls);
    let mode = tls.mode.as_ref().map(|mode| mode.value.0);
    match (mode, credentials.first()) {
        (None, Some((name, at))) => {
            let message = format!("expected a mode beside {name}, found none, which would mean PASSTHROUGH");
            report.error(*at, message).help("mode: MUTUAL");
        }
        (Some(ServerMode::IstioMutual), Some((name, at))) => {
            let message = format!(
                "expected no {name} with ISTIO_MUTUAL, which shows the workload certificate, found one"
            );
            report.error(*at, message);
        }
        (Some(ServerMode::Passthrough | ServerMode::AutoPassthrough), Some((name, at))) => {
            report
                .warning(*at, format!("{name} has no effect with PASSTHROUGH, where TLS does not end here"));
        }
        _ => {}
    }
    check_sources(tls, mode, report);
    check_client_checks(tls, mode, report);
    check_versions(tls, report);
    let names = items(tls.credential_names.as_ref())
        .iter()
        .chain(&tls.credential_name)
        .chain(&tls.ca_cert_credential_name);
    for name in names {
        read(name, credential_name, report);
    }
    if let Some(redirect) = &tls.https_redirect {
        report.warning(redirect.place, "has no effect, it is for HTTP");
    }
    if let Some(skip) = tls.insecure_skip_verify.as_ref().filter(|skip| skip.value) {
        report.error(skip.place, "expected certificates to be verified, found true");
    }
}

/// The fields that say which certificate is shown, or whose are accepted.
fn material(tls: &ServerTls) -> Vec<(&'static str, crate::config::sources::Place)> {
    let text = |name, at: &Option<At<String>>| at.as_ref().map(|at| (name, at.place));
    let several = tls.credential_names.as_ref().map(|at| ("credentialNames", at.place));
    let pairs = tls.tls_certificates.as_ref().map(|at| ("tlsCertificates", at.place));
    [
        text("credentialName", &tls.credential_name),
        several,
        text("caCertCredentialName", &tls.ca_cert_credential_name),
        text("serverCertificate", &tls.server_certificate),
        text("privateKey", &tls.private_key),
        text("caCertificates", &tls.ca_certificates),
        pairs,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_sources(tls: &ServerTls, mode: Option<ServerMode>, report: &mut Report) {
    if let (Some(_), Some(names)) = (&tls.credential_name, &tls.credential_names) {
        report.error(names.place, "expected credentialName or credentialNames, found both");
    }
    let several = items(tls.credential_names.as_ref());
    if let Some(names) = tls.credential_names.as_ref().filter(|names| names.len() > NAMES_MAX) {
        let message = format!("expected at most {NAMES_MAX} names, one a kind of key, found {}", names.len());
        report.error(names.place, message);
    }
    let mut seen = HashSet::new();
    for name in several {
        once(&mut seen, name, "credential", report);
    }
    let by_name = tls.credential_name.is_some() || !several.is_empty();
    let files = [("serverCertificate", &tls.server_certificate), ("privateKey", &tls.private_key)];
    let authority = [("caCertificates", &tls.ca_certificates)];
    let needed: Vec<_> = match mode {
        Some(ServerMode::Simple) => files.into_iter().collect(),
        Some(ServerMode::Mutual | ServerMode::OptionalMutual) => files.into_iter().chain(authority).collect(),
        _ => Vec::new(),
    };
    let missing: Vec<_> = needed.iter().filter(|(_, at)| at.is_none()).map(|(name, _)| *name).collect();
    if !by_name && tls.tls_certificates.is_none() && !missing.is_empty() {
        let message =
            format!("expected credentialName, found none, and of files neither {}", missing.join(", "));
        report.error(tls.place, message).field("credentialName");
    }
    if let Some(crl) = &tls.ca_crl {
        if by_name {
            report.error(crl.place, "expected the CRL beside the CA of the credential, found a file");
        } else if mode == Some(ServerMode::Simple) {
            report.error(
                crl.place,
                "expected no CRL with SIMPLE, which asks clients for no certificate, found one",
            );
        }
    }
}

/// Checks on clients' certificates, which mean nothing where none is asked for.
fn check_client_checks(tls: &ServerTls, mode: Option<ServerMode>, report: &mut Report) {
    let list = |list: &Option<Strings>| list.as_ref().map(|list| list.place);
    let checks = [
        ("subjectAltNames", list(&tls.subject_alt_names)),
        ("verifyCertificateSpki", list(&tls.verify_certificate_spki)),
        ("verifyCertificateHash", list(&tls.verify_certificate_hash)),
        ("caCertCredentialName", tls.ca_cert_credential_name.as_ref().map(|name| name.place)),
    ];
    let checks_clients =
        matches!(mode, Some(ServerMode::Mutual | ServerMode::OptionalMutual | ServerMode::IstioMutual));
    for (name, place) in checks {
        if let Some(place) = place.filter(|_| !checks_clients) {
            report.error(
                place,
                format!("expected a mode that asks clients for a certificate beside {name}, found none"),
            );
        }
    }
    for text in items(tls.subject_alt_names.as_ref()) {
        read(text, name::subject_alt_name, report);
    }
    for text in items(tls.verify_certificate_spki.as_ref()) {
        read(text, pins::spki, report);
    }
    for text in items(tls.verify_certificate_hash.as_ref()) {
        read(text, pins::hash, report);
    }
}

fn check_versions(tls: &ServerTls, report: &mut Report) {
    let number = |version: Version| match version {
        Version::V1_0 => 0,
        Version::V1_1 => 1,
        Version::V1_2 => 2,
        Version::V1_3 => 3,
        Version::Auto => -1,
    };
    let given = |at: &Option<At<crate::config::decode::OneOf<Version>>>| {
        at.as_ref().map(|at| (number(at.value.0), at.place)).filter(|(number, _)| *number >= 0)
    };
    let (least, most) = (given(&tls.min_protocol_version), given(&tls.max_protocol_version));
    if let Some((0 | 1, at)) = least {
        report.warning(at, "TLS below 1.2 does not exist here, 1.2 is the oldest");
    }
    match (least, most) {
        (_, Some((0 | 1, at))) => drop(report.error(at, "expected at least TLSV1_2, found an older one")),
        (Some((least, _)), Some((most, at))) if most < least => {
            report.error(at, "expected at least minProtocolVersion, found less");
        }
        _ => {}
    }
    let suites = items(tls.cipher_suites.as_ref());
    let known = suites.iter().filter(|suite| Cipher::by_name(suite).is_some()).count();
    for suite in suites.iter().filter(|suite| Cipher::by_name(suite).is_none()) {
        let rest = if known == 0 { "the default ones are used" } else { "the others are used" };
        report
            .warning(suite.place, format!("no cipher suite that is safe to use, {rest}: {:?}", suite.value));
    }
}
