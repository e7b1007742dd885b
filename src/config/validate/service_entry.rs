//! A ServiceEntry by itself, and its endpoints.

use std::collections::HashSet;

use super::gateway::{Protocol, protocol};
use super::{export_to, host_or_address, items, network, once, port, read};
use crate::config::decode::At;
use crate::config::name;
use crate::config::report::Report;
use crate::config::resource::Resource;
use crate::config::resource::gateway::Port;
use crate::config::resource::service_entry::{Resolution, ServiceEntry, WorkloadEntry};

pub(super) fn check(entry: &Resource<ServiceEntry>, report: &mut Report) {
    let spec = &entry.spec;
    let hosts = items(spec.hosts.as_ref());
    if hosts.is_empty() {
        report.error(spec.place, "expected at least one host, found none").field("hosts");
    }
    for host in hosts {
        if host.value == "*" {
            report.error(host.place, "expected a host that is not *, found \"*\"");
        } else {
            read(host, |text| name::host_pattern(text).map(drop), report);
        }
    }
    let resolution = spec.resolution.as_ref().map_or(Resolution::None, |at| at.value.0);
    let ports = items(spec.ports.as_ref());
    check_ports(spec.place, ports, report);
    check_several_hosts(hosts, ports, resolution, report);
    for address in items(spec.addresses.as_ref()) {
        let range = read(address, network, report).is_some() && address.contains('/');
        if range && !matches!(resolution, Resolution::None | Resolution::Static) {
            report.error(
                address.place,
                format!("expected an address with this resolution, found a range: {:?}", address.value),
            );
        }
    }
    check_endpoints(spec, resolution, report);
    for name in items(spec.subject_alt_names.as_ref()) {
        read(name, name::subject_alt_name, report);
    }
    export_to(spec.export_to.as_ref(), &entry.namespace, true, report);
}

fn check_ports(place: crate::config::sources::Place, ports: &[Port], report: &mut Report) {
    if ports.is_empty() {
        report.error(place, "expected at least one port, found none").field("ports");
    }
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for given in ports {
        match &given.number {
            Some(number) => {
                if let Some(port) = port(number, report)
                    && !numbers.insert(port)
                {
                    report.error(
                        number.place,
                        format!("expected each port number once, found it twice: {port}"),
                    );
                }
            }
            None => drop(report.error(given.place, "expected a port number, found none").field("number")),
        }
        match &given.name {
            Some(name) => once(&mut names, name, "port name", report),
            None => drop(report.error(given.place, "expected a name, found none").field("name")),
        }
        if let Some(text) = &given.protocol {
            read(text, protocol, report);
        }
        if let Some(target) = &given.target_port {
            port(target, report);
        }
    }
}

/// Without a name on the wire nothing tells the hosts of one address apart.
fn check_several_hosts(hosts: &[At<String>], ports: &[Port], resolution: Resolution, report: &mut Report) {
    let bare = |port: &&Port| port.protocol.as_ref().is_some_and(|text| protocol(text) == Ok(Protocol::Tcp));
    if let (Some(second), Some(_)) = (hosts.get(1), ports.iter().find(bare))
        && resolution != Resolution::None
    {
        report
            .error(second.place, "expected one host for a port that is neither HTTP nor TLS, found several");
    }
}

fn check_endpoints(spec: &ServiceEntry, resolution: Resolution, report: &mut Report) {
    let endpoints = items(spec.endpoints.as_ref());
    let place = spec.endpoints.as_ref().map_or(spec.place, |at| at.place);
    let dns = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if let (Some(selector), false) = (&spec.workload_selector, endpoints.is_empty()) {
        report.error(selector.place, "expected endpoints or workloadSelector, found both");
    }
    if resolution == Resolution::None && !endpoints.is_empty() {
        report.error(place, "expected no endpoints with resolution NONE, found some");
    }
    if resolution == Resolution::DnsRoundRobin && endpoints.len() > 1 {
        report.error(
            place,
            format!("expected at most one endpoint with DNS_ROUND_ROBIN, found {}", endpoints.len()),
        );
    }
    if dns && endpoints.is_empty() && spec.workload_selector.is_none() {
        for host in
            items(spec.hosts.as_ref()).iter().filter(|host| host.starts_with('*') && host.value != "*")
        {
            report.error(
                host.place,
                format!(
                    "expected endpoints for a wildcard that DNS cannot resolve, found none: {:?}",
                    host.value
                ),
            );
        }
    }
    let names: Vec<_> = items(spec.ports.as_ref()).iter().filter_map(|port| port.name.as_ref()).collect();
    for endpoint in endpoints {
        check_workload(endpoint, report);
        let by_name =
            endpoint.address.as_ref().filter(|address| address.parse::<std::net::IpAddr>().is_err());
        if let Some(address) = by_name.filter(|_| resolution == Resolution::Static) {
            report.error(
                address.place,
                format!("expected an IP address with STATIC, found {:?}", address.value),
            );
        }
        for (name, _) in endpoint.ports.as_ref().map_or(&[][..], |ports| &ports.value.0) {
            if !names.iter().any(|known| known.value == name.value) {
                let known: Vec<_> = names.iter().map(|name| name.value.as_str()).collect();
                let message = format!("expected the name of a port of the entry, found {:?}", name.value);
                report.error(name.place, message).help(format!("the ports are {}", known.join(", ")));
            }
        }
    }
}

pub(super) fn check_workload(entry: &WorkloadEntry, report: &mut Report) {
    match &entry.address {
        Some(address) if address.starts_with('*') => {
            report.error(
                address.place,
                format!("expected a DNS name or an IP address, found {:?}", address.value),
            );
        }
        Some(address) => drop(read(address, host_or_address, report)),
        None => drop(report.error(entry.place, "expected an address, found none").field("address")),
    }
    for (_, number) in entry.ports.as_ref().map_or(&[][..], |ports| &ports.value.0) {
        port(number, report);
    }
    if let Some(weight) =
        entry.weight.as_ref().filter(|weight| !(0..=i64::from(u32::MAX)).contains(&weight.value))
    {
        report.error(weight.place, format!("expected a weight of at least 0, found {}", weight.value));
    }
    for ignored in [&entry.network, &entry.locality].into_iter().flatten() {
        report.warning(ignored.place, "has no effect: every endpoint is as near as any other");
    }
}
