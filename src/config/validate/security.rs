//! A PeerAuthentication and an AuthorizationPolicy by themselves.

use super::{items, label, network, read};
use crate::config::decode::{At, Strings};
use crate::config::name;
use crate::config::report::Report;
use crate::config::resource::Resource;
use crate::config::resource::security::{
    Action, AuthorizationPolicy, Condition, Operation, PeerAuthentication, Rule, Source,
};

pub(super) fn check_peer(policy: &Resource<PeerAuthentication>, report: &mut Report) {
    let spec = &policy.spec;
    let labels = spec.selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
    let selects = labels.is_some_and(|labels| !labels.value.0.is_empty());
    let Some(ports) = &spec.port_level_mtls else { return };
    if !selects {
        report.error(ports.place, "expected a selector with labels beside it, found none");
    }
    for (port, _) in &ports.value.0 {
        read(port, port_number, report);
    }
}

fn port_number(text: &str) -> Result<(), String> {
    let port = text.parse::<u16>().ok().filter(|port| *port != 0);
    port.map(drop).ok_or_else(|| format!("expected a port from 1 to 65535, found {text:?}"))
}

pub(super) fn check_authorization(policy: &Resource<AuthorizationPolicy>, report: &mut Report) {
    let spec = &policy.spec;
    let action = spec.action.as_ref().map_or(Action::Allow, |action| action.value.0);
    if let (Some(provider), false) = (&spec.provider, action == Action::Custom) {
        report.error(provider.place, "expected no provider without action CUSTOM, found one");
    }
    if matches!(action, Action::Deny | Action::Custom) && spec.rules.is_none() {
        report.error(spec.place, "expected rules for an action that is not ALLOW, found none").field("rules");
    }
    for targets in [&spec.target_ref, &spec.target_refs].into_iter().flatten() {
        if spec.selector.is_some() {
            report.error(targets.place, "expected selector or targetRefs, found both");
        }
    }
    for rule in items(spec.rules.as_ref()) {
        check_rule(rule, report);
    }
}

fn check_rule(rule: &Rule, report: &mut Report) {
    let empty = "expected at least one entry, found an empty list";
    if let Some(from) = rule.from.as_ref().filter(|from| from.is_empty()) {
        report.error(from.place, empty);
    }
    if let Some(to) = rule.to.as_ref().filter(|to| to.is_empty()) {
        report.error(to.place, empty);
    }
    for from in items(rule.from.as_ref()) {
        match &from.source {
            Some(source) => check_source(source, report),
            None => drop(report.error(from.place, "expected a source, found none").field("source")),
        }
    }
    for to in items(rule.to.as_ref()) {
        match &to.operation {
            Some(operation) => check_operation(operation, report),
            None => drop(report.error(to.place, "expected an operation, found none").field("operation")),
        }
    }
    for condition in items(rule.when.as_ref()) {
        check_condition(condition, report);
    }
}

fn check_source(source: &Source, report: &mut Report) {
    let lists = [
        &source.principals,
        &source.not_principals,
        &source.request_principals,
        &source.not_request_principals,
        &source.namespaces,
        &source.not_namespaces,
        &source.ip_blocks,
        &source.not_ip_blocks,
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
        &source.service_accounts,
        &source.not_service_accounts,
        &source.trust_domains,
        &source.not_trust_domains,
    ];
    if lists.iter().all(|list| list.is_none()) {
        report.error(source.place, "expected at least one field, found none");
    }
    check_lists(&lists, report);
    for principal in
        [&source.principals, &source.not_principals].into_iter().flat_map(|list| items(list.as_ref()))
    {
        read(principal, check_principal, report);
    }
    let blocks =
        [&source.ip_blocks, &source.not_ip_blocks, &source.remote_ip_blocks, &source.not_remote_ip_blocks];
    for block in blocks.into_iter().flat_map(|list| items(list.as_ref())) {
        read(block, network, report);
    }
    let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    for accounts in [&source.service_accounts, &source.not_service_accounts].into_iter().flatten() {
        if others.iter().any(|list| list.is_some()) {
            report.error(accounts.place, "expected serviceAccounts or principals and namespaces, found both");
        }
        for account in &accounts.value {
            read(account, service_account, report);
        }
    }
}

/// A SPIFFE ID without its scheme, or something else that a certificate says: a principal that could never be met is
/// told, for who is denied by it would be let in.
fn check_principal(text: &str) -> Result<(), String> {
    if name::is_subject(text) {
        return Err(format!(
            "expected a SPIFFE ID or another subject alternative name, found a subject, which is never an identity: {text:?}"
        ));
    }
    match text.split_once(':') {
        Some(("dns" | "uri", name)) if !name.is_empty() => Ok(()),
        Some(("ip", address)) if address.parse::<std::net::IpAddr>().is_ok() => Ok(()),
        Some(_) => Err(format!(
            "expected a SPIFFE ID without spiffe://, or dns:NAME, uri:URI or ip:ADDRESS, found {text:?}"
        )),
        None => Ok(()),
    }
}

/// `NAMESPACE/NAME` or `NAME`; no wildcard.
fn service_account(text: &str) -> Result<(), String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    let named = label(namespace).is_ok() && name.split('.').all(|part| label(part).is_ok());
    if named { Ok(()) } else { Err(format!("expected NAMESPACE/NAME or NAME, found {text:?}")) }
}

fn check_operation(operation: &Operation, report: &mut Report) {
    let lists = [
        &operation.hosts,
        &operation.not_hosts,
        &operation.ports,
        &operation.not_ports,
        &operation.methods,
        &operation.not_methods,
        &operation.paths,
        &operation.not_paths,
    ];
    if lists.iter().all(|list| list.is_none()) {
        report.error(operation.place, "expected at least one field, found none");
    }
    check_lists(&lists, report);
    for port in [&operation.ports, &operation.not_ports].into_iter().flat_map(|list| items(list.as_ref())) {
        read(port, port_number, report);
    }
}

fn check_lists(lists: &[&Option<Strings>], report: &mut Report) {
    for list in lists.iter().filter_map(|list| list.as_ref()) {
        if list.is_empty() {
            report.error(list.place, "expected at least one value, found none");
        }
        for text in list.value.iter().filter(|text| text.value.is_empty()) {
            report.error(text.place, "expected a value, found an empty one");
        }
    }
}

/// The attributes of a connection that a condition can be about, in TCP and in HTTP.
const ATTRIBUTES: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

fn check_condition(condition: &Condition, report: &mut Report) {
    match &condition.key {
        Some(key) => drop(read(key, attribute, report)),
        None => drop(report.error(condition.place, "expected a key, found none").field("key")),
    }
    if condition.values.is_none() && condition.not_values.is_none() {
        report.error(condition.place, "expected values or notValues, found neither");
    }
    check_lists(&[&condition.values, &condition.not_values], report);
    let key = condition.key.as_ref().map_or("", |key: &At<String>| key.as_str());
    let values = [&condition.values, &condition.not_values].into_iter().flat_map(|list| items(list.as_ref()));
    for value in values {
        match key {
            "source.ip" | "remote.ip" | "destination.ip" => drop(read(value, network, report)),
            "destination.port" => drop(read(value, port_number, report)),
            "source.principal" => drop(read(value, check_principal, report)),
            "source.serviceAccount" => drop(read(value, service_account, report)),
            _ => {}
        }
    }
}

fn attribute(text: &str) -> Result<(), String> {
    let http = text.starts_with("request.") || text.starts_with("experimental.envoy.filters.");
    if http || ATTRIBUTES.contains(&text) {
        Ok(())
    } else {
        Err(format!("expected one of {}, found {text:?}", ATTRIBUTES.join(", ")))
    }
}
