//! A DestinationRule by itself.

use std::collections::HashSet;

use super::{credential_name, export_to, host_or_address, items, label, once, port, read};
use crate::config::decode::At;
use crate::config::name;
use crate::config::report::Report;
use crate::config::resource::Resource;
use crate::config::resource::destination_rule::{
    ClientMode, ClientTls, ConnectionPool, DestinationRule, LoadBalancer, OutlierDetection, PortPolicy,
    TrafficPolicy,
};

pub(super) fn check(rule: &Resource<DestinationRule>, report: &mut Report) {
    let spec = &rule.spec;
    match &spec.host {
        Some(host) if host.parse::<std::net::IpAddr>().is_ok() => {
            report.error(host.place, format!("expected a host name, found an address: {:?}", host.value));
        }
        Some(host) => drop(read(host, host_or_address, report)),
        None => drop(report.error(spec.place, "expected a host, found none").field("host")),
    }
    if let Some(policy) = &spec.traffic_policy {
        check_policy(policy, report);
    }
    let mut names = HashSet::new();
    for subset in items(spec.subsets.as_ref()) {
        match &subset.name {
            Some(name) => {
                read(name, label, report);
                once(&mut names, name, "subset", report);
            }
            None => drop(report.error(subset.place, "expected a name, found none").field("name")),
        }
        if let Some(policy) = &subset.traffic_policy {
            check_policy(policy, report);
        }
    }
    export_to(spec.export_to.as_ref(), &rule.namespace, false, report);
    if spec.workload_selector.is_some() {
        for text in items(spec.export_to.as_ref())
            .iter()
            .filter(|text| text.value != "." && text.value != rule.namespace)
        {
            report.error(
                text.place,
                format!("expected only the own namespace beside a workloadSelector, found {:?}", text.value),
            );
        }
    }
}

fn check_policy(policy: &TrafficPolicy, report: &mut Report) {
    let given = [
        policy.load_balancer.is_some(),
        policy.connection_pool.is_some(),
        policy.outlier_detection.is_some(),
        policy.tls.is_some(),
        policy.port_level_settings.is_some(),
        policy.tunnel.is_some(),
        policy.proxy_protocol.is_some(),
        policy.retry_budget.is_some(),
    ];
    if !given.contains(&true) {
        report.error(policy.place, "expected at least one field, found none");
    }
    if let (Some(_), Some(proxy)) = (&policy.tunnel, &policy.proxy_protocol) {
        report.error(proxy.place, "expected tunnel or proxyProtocol, found both");
    }
    check_parts(
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        report,
    );
    let mut ports = HashSet::new();
    for settings in items(policy.port_level_settings.as_ref()) {
        check_port_policy(settings, &mut ports, report);
    }
}

fn check_port_policy(settings: &PortPolicy, ports: &mut HashSet<u16>, report: &mut Report) {
    match settings.port.as_ref().and_then(|port| port.number.as_ref()) {
        Some(number) => {
            if let Some(port) = port(number, report)
                && !ports.insert(port)
            {
                report.error(number.place, format!("expected each port once, found it twice: {port}"));
            }
        }
        None => drop(report.error(settings.place, "expected a port number, found none").field("port.number")),
    }
    let given = [
        settings.load_balancer.is_some(),
        settings.connection_pool.is_some(),
        settings.outlier_detection.is_some(),
        settings.tls.is_some(),
    ];
    if !given.contains(&true) {
        report.error(
            settings.place,
            "expected loadBalancer, connectionPool, outlierDetection or tls, found none",
        );
    }
    check_parts(
        settings.load_balancer.as_ref(),
        settings.connection_pool.as_ref(),
        settings.outlier_detection.as_ref(),
        settings.tls.as_ref(),
        report,
    );
}

fn check_parts(
    balancer: Option<&LoadBalancer>,
    pool: Option<&ConnectionPool>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTls>,
    report: &mut Report,
) {
    if let Some(balancer) = balancer
        && let (Some(simple), Some(_)) = (&balancer.simple, &balancer.consistent_hash)
    {
        report.error(simple.place, "expected simple or consistentHash, found both");
    }
    if let Some(pool) = pool {
        if pool.tcp.is_none() && pool.http.is_none() {
            report.error(pool.place, "expected tcp or http, found neither");
        }
        if let Some(count) =
            pool.tcp.as_ref().and_then(|tcp| tcp.max_connections.as_ref()).filter(|count| count.value < 0)
        {
            report.error(count.place, format!("expected a number of at least 0, found {}", count.value));
        }
    }
    if let Some(outlier) = outlier {
        check_outlier(outlier, report);
    }
    if let Some(tls) = tls {
        check_tls(tls, report);
    }
}

fn check_outlier(outlier: &OutlierDetection, report: &mut Report) {
    let split = outlier.split_external_local_origin_errors.as_ref().is_some_and(|split| split.value);
    if let Some(failures) = outlier.consecutive_local_origin_failures.as_ref().filter(|_| !split) {
        report.error(failures.place, "expected splitExternalLocalOriginErrors: true beside it, found none");
    }
    for percent in [&outlier.max_ejection_percent, &outlier.min_health_percent].into_iter().flatten() {
        if !(0..=100).contains(&percent.value) {
            report.error(
                percent.place,
                format!("expected a percentage from 0 to 100, found {}", percent.value),
            );
        }
    }
}

fn check_tls(tls: &ClientTls, report: &mut Report) {
    let text = |name, at: &Option<At<String>>| at.as_ref().map(|at| (name, at.place));
    let files = [
        text("clientCertificate", &tls.client_certificate),
        text("privateKey", &tls.private_key),
        text("caCertificates", &tls.ca_certificates),
        text("caCrl", &tls.ca_crl),
    ];
    let sans = tls.subject_alt_names.as_ref().map(|at| ("subjectAltNames", at.place));
    let others = [text("credentialName", &tls.credential_name), text("sni", &tls.sni), sans];
    let mode = tls.mode.as_ref().map(|mode| mode.value.0);
    let first = others.iter().chain(&files).flatten().next();
    match (mode, first) {
        (None, Some((name, place))) => {
            let message = format!("expected a mode beside {name}, found none, which would mean plaintext");
            report.error(*place, message).help("mode: MUTUAL");
        }
        (None, None) => drop(report.warning(tls.place, "no mode means DISABLE: plaintext is sent")),
        (Some(ClientMode::Disable), Some((name, place))) => {
            report
                .error(*place, format!("expected no {name} with DISABLE, which sends plaintext, found one"));
        }
        _ => {}
    }
    if tls.credential_name.is_some() {
        for (name, place) in files.iter().flatten() {
            report.error(*place, format!("expected credentialName or {name}, found both"));
        }
    } else if mode == Some(ClientMode::Mutual)
        && (tls.client_certificate.is_none() || tls.private_key.is_none())
    {
        let message = "expected credentialName, or clientCertificate and privateKey, found neither";
        report.error(tls.place, message).field("credentialName");
    }
    if mode == Some(ClientMode::IstioMutual) {
        for (name, place) in others[..1].iter().chain(&files).flatten() {
            report.error(
                *place,
                format!(
                    "expected no {name} with ISTIO_MUTUAL, which shows the workload certificate, found one"
                ),
            );
        }
    }
    if let Some(skip) = tls.insecure_skip_verify.as_ref().filter(|skip| skip.value) {
        report.error(skip.place, "expected certificates to be verified, found true");
    }
    if let Some(credential) = &tls.credential_name {
        read(credential, credential_name, report);
    }
    if let Some(sni) = &tls.sni {
        read(sni, |text| name::dns(text).map(drop), report);
    }
    for san in items(tls.subject_alt_names.as_ref()) {
        read(san, name::subject_alt_name, report);
    }
}
