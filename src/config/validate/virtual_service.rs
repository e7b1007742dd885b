//! A VirtualService by itself.

use super::{covers, export_to, host_or_address, items, label, network, overlap, port, read};
use crate::config::decode::{At, Labels, Strings};
use crate::config::name;
use crate::config::report::Report;
use crate::config::resource::Resource;
use crate::config::resource::virtual_service::{Destination, RouteDestination, VirtualService};

/// The gateways that stand for all sidecars.
pub const MESH: &str = "mesh";

pub(super) fn check(service: &Resource<VirtualService>, report: &mut Report) {
    let spec = &service.spec;
    let hosts = items(spec.hosts.as_ref());
    let rules = [spec.http.is_some(), spec.tls.is_some(), spec.tcp.is_some()];
    if !rules.contains(&true) {
        report.error(spec.place, "expected at least one of tcp, tls and http, found none");
    }
    if hosts.is_empty()
        && (spec.http.is_none() || spec.gateways.is_some() || spec.tls.is_some() || spec.tcp.is_some())
    {
        report.error(spec.place, "expected at least one host, found none").field("hosts");
    }
    check_hosts(hosts, spec.gateways.as_ref(), report);
    for gateway in items(spec.gateways.as_ref()) {
        read(gateway, gateway_name, report);
    }
    for rule in items(spec.tcp.as_ref()) {
        for matched in items(rule.matches.as_ref()) {
            check_match(matched.port.as_ref(), matched.destination_subnets.as_ref(), report);
            check_sources(matched.source_labels.as_ref(), matched.source_namespace.as_ref(), report);
            if let Some(subnet) = &matched.source_subnet {
                let message = "expected no sourceSubnet, which Istio accepts and never enforces, found one";
                report.error(subnet.place, message).help("an AuthorizationPolicy with ipBlocks is enforced");
            }
        }
        check_route(rule.place, rule.route.as_ref(), report);
    }
    for rule in items(spec.tls.as_ref()) {
        let matches = items(rule.matches.as_ref());
        if matches.is_empty() {
            report.error(rule.place, "expected at least one match with sniHosts, found none").field("match");
        }
        for matched in matches {
            check_match(matched.port.as_ref(), matched.destination_subnets.as_ref(), report);
            check_sources(matched.source_labels.as_ref(), matched.source_namespace.as_ref(), report);
            check_sni_hosts(matched.place, matched.sni_hosts.as_ref(), hosts, report);
        }
        check_route(rule.place, rule.route.as_ref(), report);
    }
    export_to(spec.export_to.as_ref(), &service.namespace, false, report);
}

fn check_hosts(hosts: &[At<String>], gateways: Option<&Strings>, report: &mut Report) {
    let gateways = items(gateways);
    let in_mesh = gateways.is_empty() || gateways.iter().any(|gateway| gateway.value == MESH);
    for (index, host) in hosts.iter().enumerate() {
        read(host, host_or_address, report);
        if host.value == "*" && in_mesh {
            report.error(host.place, "expected a host that is not * for sidecars, found \"*\"");
        }
        if let Some(earlier) = hosts[..index].iter().find(|earlier| overlap(earlier, host)) {
            let message =
                format!("expected hosts that do not overlap, found {:?} and {:?}", earlier.value, host.value);
            report.error(host.place, message);
        }
    }
}

/// A reference to a Gateway: a name, perhaps behind its namespace.
fn gateway_name(text: &str) -> Result<(), String> {
    let (namespace, name) = text.split_once('/').unwrap_or((".", text));
    let named = namespace == "." || label(namespace).is_ok();
    if named && name::dns(name).is_ok() {
        Ok(())
    } else {
        Err(format!("expected the name of a Gateway, perhaps as NAMESPACE/NAME, found {text:?}"))
    }
}

fn check_match(number: Option<&At<i64>>, subnets: Option<&Strings>, report: &mut Report) {
    if let Some(number) = number {
        port(number, report);
    }
    for subnet in items(subnets) {
        read(subnet, network, report);
    }
}

fn check_sources(labels: Option<&Labels>, namespace: Option<&At<String>>, report: &mut Report) {
    if let Some(namespace) = namespace {
        read(namespace, label, report);
    }
    for (name, _) in labels.map_or(&[][..], |labels| &labels.value.0) {
        if name.value.is_empty() {
            report.error(name.place, "expected the name of a label, found none");
        }
    }
}

fn check_sni_hosts(
    place: crate::config::sources::Place,
    list: Option<&Strings>,
    hosts: &[At<String>],
    report: &mut Report,
) {
    let list = items(list);
    if list.is_empty() {
        report.error(place, "expected at least one name, found none").field("sniHosts");
    }
    for sni in list {
        if read(sni, |text| name::host_pattern(text).map(drop), report).is_some()
            && !hosts.iter().any(|host| covers(&host.to_ascii_lowercase(), &sni.to_ascii_lowercase()))
        {
            let message = format!(
                "expected a name that is covered by the hosts of the VirtualService, found {:?}",
                sni.value
            );
            report.error(sni.place, message);
        }
    }
}

fn check_route(
    place: crate::config::sources::Place,
    route: Option<&At<Vec<RouteDestination>>>,
    report: &mut Report,
) {
    let destinations = items(route);
    if destinations.is_empty() {
        report.error(place, "expected at least one destination, found none").field("route");
    }
    let mut total = 0_i64;
    for entry in destinations {
        if let Some(destination) = &entry.destination {
            check_destination(destination, report);
        } else {
            report.error(entry.place, "expected a destination, found none").field("destination");
        }
        if let Some(weight) = &entry.weight {
            total = total.saturating_add(weight.value.max(0));
            if weight.value < 0 || weight.value > i64::from(u32::MAX) {
                report
                    .error(weight.place, format!("expected a weight of at least 0, found {}", weight.value));
            }
        }
    }
    if destinations.len() > 1 && total == 0 {
        let message = "expected weights above 0 among several destinations, found a total of 0";
        report.error(place, message).field("route");
    }
}

fn check_destination(destination: &Destination, report: &mut Report) {
    match &destination.host {
        Some(host) => drop(read(host, |text| name::dns(text).map(drop), report)),
        None => drop(report.error(destination.place, "expected a host, found none").field("host")),
    }
    if let Some(subset) = &destination.subset {
        read(subset, label, report);
    }
    if let Some(selector) = &destination.port {
        match &selector.number {
            Some(number) => drop(port(number, report)),
            None => drop(report.error(selector.place, "expected a port number, found none").field("number")),
        }
    }
}
