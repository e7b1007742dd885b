//! Each resource by itself: what Istio's own validation refuses, and what would weaken security if it were
//! passed over. Whether the resources fit together is for `compile`.

mod destination_rule;
pub mod gateway;
mod security;
mod service_entry;
pub mod virtual_service;

use super::decode::{At, Strings};
use super::name;
use super::report::Report;
use super::resource::Resources;
use crate::plan::route::Network;

/// Judges every resource; the problems are in the report.
pub fn resources(resources: &Resources, report: &mut Report) {
    for gateway in &resources.gateways {
        gateway::check(gateway, report);
    }
    for service in &resources.virtual_services {
        virtual_service::check(service, report);
    }
    for rule in &resources.destination_rules {
        destination_rule::check(rule, report);
    }
    for entry in &resources.service_entries {
        service_entry::check(entry, report);
    }
    for entry in &resources.workload_entries {
        service_entry::check_workload(&entry.spec, report);
    }
    for policy in &resources.peer_authentications {
        security::check_peer(policy, report);
    }
    for policy in &resources.authorization_policies {
        security::check_authorization(policy, report);
    }
}

/// The elements of a list, none if it is absent.
pub(super) fn items<T>(list: Option<&At<Vec<T>>>) -> &[T] {
    list.map_or(&[], |list| list.value.as_slice())
}

/// Reads a string by a rule, or tells why not.
pub(super) fn read<T>(
    text: &At<String>,
    rule: impl FnOnce(&str) -> Result<T, String>,
    report: &mut Report,
) -> Option<T> {
    match rule(text) {
        Ok(value) => Some(value),
        Err(message) => {
            report.error(text.place, message);
            None
        }
    }
}

/// A port number.
pub(super) fn port(number: &At<i64>, report: &mut Report) -> Option<u16> {
    let port = u16::try_from(number.value).ok().filter(|port| *port != 0);
    if port.is_none() {
        report.error(number.place, format!("expected a port from 1 to 65535, found {}", number.value));
    }
    port
}

/// Adds an error if a string is already in the set.
pub(super) fn once<'text>(
    seen: &mut std::collections::HashSet<&'text str>,
    text: &'text At<String>,
    what: &str,
    report: &mut Report,
) {
    if !seen.insert(text.value.as_str()) {
        report.error(text.place, format!("expected each {what} once, found it twice: {:?}", text.value));
    }
}

/// `exportTo`: `*` or `.` or names of namespaces, each once; `~` where nobody is to see it.
pub(super) fn export_to(list: Option<&Strings>, own: &str, nobody: bool, report: &mut Report) {
    let mut seen = std::collections::HashSet::new();
    let list = items(list);
    for text in list {
        let namespace = if text.value == "." { own } else { text.value.as_str() };
        if !seen.insert(namespace) {
            report.error(text.place, format!("expected each namespace once, found it twice: {namespace:?}"));
        }
        match text.value.as_str() {
            "~" if !nobody => {
                report.error(text.place, "expected *, . or a namespace, found \"~\"");
            }
            "*" | "~" if list.len() > 1 => {
                report.error(text.place, format!("expected nothing beside it, found {} values", list.len()));
            }
            "*" | "~" | "." => {}
            _ => {
                read(text, label, report);
            }
        }
    }
}

/// A DNS label: a namespace, a subset.
pub(super) fn label(text: &str) -> Result<(), String> {
    let fits = (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits { Ok(()) } else { Err(format!("expected a name of letters, digits and hyphens, found {text:?}")) }
}

/// The name of a credential, which becomes a path below the folder of credentials.
pub fn credential_name(text: &str) -> Result<(), String> {
    let plain = text.len() <= 253 && text.split('.').all(|part| label(part).is_ok());
    if plain {
        Ok(())
    } else {
        Err(format!("expected a plain name, which is a folder below --credentials, found {text:?}"))
    }
}

/// An address or a range of addresses.
pub(super) fn network(text: &str) -> Result<Network, String> {
    let malformed = || format!("expected an IP address or a range such as 10.0.0.0/8, found {text:?}");
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: std::net::IpAddr = address.parse().map_err(|_| malformed())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= bits));
    Ok(Network { address, prefix: prefix.ok_or_else(malformed)? })
}

/// A host name, a wildcard or an address.
pub(super) fn host_or_address(text: &str) -> Result<(), String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    name::host_pattern(text)
        .map(drop)
        .map_err(|_| format!("expected a DNS name, *.NAME or an IP address, found {text:?}"))
}

/// Whether two names stand for a name in common (Istio `host.Matches`).
pub(super) fn overlap(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one == other,
        (Some(suffix), None) => other.len() > suffix.len() && other.ends_with(suffix),
        (None, Some(suffix)) => one.len() > suffix.len() && one.ends_with(suffix),
        (Some(one), Some(other)) => one.ends_with(other) || other.ends_with(one),
    }
}

/// Whether every name that `inner` stands for is one of `outer`'s.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix('*') {
        None => outer == inner,
        Some(suffix) => inner == outer || (inner.len() > suffix.len() && inner.ends_with(suffix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_overlap_as_istio_says() {
        for (one, other, expected) in [
            ("a.com", "a.com", true),
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("*.com", "a.b.com", true),
            ("*.foo.com", "*.com", true),
            ("*", "a", true),
            ("*.a.com", "*.b.com", false),
            ("a.com", "b.com", false),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
        assert!(covers("*.com", "*.foo.com") && !covers("*.foo.com", "*.com") && covers("*", "*.x"));
    }

    #[test]
    fn t18_a_credential_name_cannot_leave_its_folder() {
        for bad in ["../x", "a/b", "sds://x", "", ".", "..", "a..b", ".hidden", "A", "x\0"] {
            assert!(credential_name(bad).is_err(), "{bad:?}");
        }
        for good in ["mysql-credential", "a.b", "x1"] {
            assert!(credential_name(good).is_ok(), "{good}");
        }
    }
}
