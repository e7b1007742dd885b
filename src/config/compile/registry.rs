//! The services: from ServiceEntries, from core/v1 Services, and from `--resolve`.

use std::collections::HashMap;

use super::{Workload, selects, visible};
use crate::config::name;
use crate::config::resource::service_entry::Resolution as Written;
use crate::config::resource::service_entry::{Location, ServiceEntry, WorkloadEntry};
use crate::config::resource::{Resource, Resources};
use crate::config::sources::Place;
use crate::config::validate::gateway::{Protocol, protocol};
use crate::config::validate::{items, network};
use crate::plan::Host;
use crate::plan::cluster::Resolution;
use crate::plan::identity::SubjectAltName;
use crate::plan::route::Network;

/// A named destination.
#[derive(Debug, Clone)]
pub(super) struct Service<'a> {
    pub host: String,
    pub namespace: &'a str,
    pub ports: Vec<ServicePort>,
    pub finding: Finding,
    pub resolution: Resolution,
    pub places: Vec<ServicePlace<'a>>,
    /// Part of the mesh: its endpoints may expect the mesh's TLS.
    pub internal: bool,
    pub addresses: Vec<Network>,
    pub names: Vec<SubjectAltName>,
    /// Whether it is a ServiceEntry, for which a sidecar listens.
    pub is_entry: bool,
    pub place: Place,
    export_to: Option<&'a crate::config::decode::Strings>,
}

/// A port of a service.
#[derive(Debug, Clone)]
pub(super) struct ServicePort {
    pub number: u16,
    pub name: String,
    pub protocol: Protocol,
    pub target: Option<u16>,
    pub place: Place,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// They are listed.
    Listed,
    /// By the name of the service.
    ByName,
    /// Where the application was going.
    OriginalDestination,
}

/// An endpoint as written.
#[derive(Debug, Clone)]
pub(super) struct ServicePlace<'a> {
    pub host: Host,
    pub entry: &'a WorkloadEntry,
}

impl ServicePlace<'_> {
    /// Whether the endpoint expects the mesh's TLS.
    pub fn is_in_mesh(&self) -> bool {
        let label = self.entry.labels.as_ref().and_then(|labels| {
            labels.value.0.iter().find(|(name, _)| name.value == "security.istio.io/tlsMode")
        });
        match label {
            Some((_, mode)) => mode.value == "istio",
            None => self.entry.service_account.is_some(),
        }
    }

    /// The number of a port of the service at this endpoint.
    pub fn port(&self, port: &ServicePort) -> u16 {
        let ports = self.entry.ports.as_ref().map_or(&[][..], |ports| &ports.value.0);
        let mapped = ports.iter().find(|(name, _)| name.value == port.name);
        let mapped = mapped.and_then(|(_, number)| u16::try_from(number.value).ok()).filter(|port| *port > 0);
        mapped.or(port.target).unwrap_or(port.number)
    }

    /// Whether the endpoint belongs to a subset with these labels.
    pub fn has(&self, wanted: Option<&crate::config::decode::Labels>) -> bool {
        let own = self.entry.labels.as_ref().map_or(&[][..], |labels| &labels.value.0);
        let own = own.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect();
        selects(wanted, &own)
    }
}

/// Every service, by host.
#[derive(Debug, Default)]
pub(super) struct Registry<'a> {
    services: Vec<Service<'a>>,
    by_host: HashMap<String, Vec<usize>>,
    duplicates: Vec<(Place, Place)>,
}

impl<'a> Registry<'a> {
    pub fn new(resources: &'a Resources, workload: &Workload) -> Self {
        let mut registry = Self::default();
        for entry in &resources.service_entries {
            for host in items(entry.spec.hosts.as_ref()) {
                registry.add(of_entry(entry, &host.value, host.place, resources));
            }
        }
        for service in &resources.services {
            let host = format!("{}.{}.svc.{}", service.name, service.namespace, workload.domain);
            registry.add(of_service(service, host, resources));
        }
        registry
    }

    fn add(&mut self, service: Service<'a>) {
        let known = self.by_host.entry(service.host.clone()).or_default();
        if let Some(first) = known
            .iter()
            .map(|index| &self.services[*index])
            .find(|first| first.namespace == service.namespace)
        {
            self.duplicates.push((service.place, first.place));
            return;
        }
        known.push(self.services.len());
        self.services.push(service);
    }

    /// The service of a host as a namespace sees it: its own first.
    pub fn find(&self, host: &str, namespace: &str) -> Option<&Service<'a>> {
        let exact = self.by_host.get(host);
        let wildcard = || {
            let dots = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
            dots.into_iter().find_map(|pattern| self.by_host.get(&pattern))
        };
        let indexes = exact.or_else(wildcard)?;
        let seen = indexes
            .iter()
            .map(|index| &self.services[*index])
            .filter(|service| service.is_visible(namespace));
        let mut seen: Vec<_> = seen.collect();
        seen.sort_by_key(|service| service.namespace != namespace);
        seen.first().copied()
    }

    /// Every service that a namespace sees.
    pub fn visible(&self, namespace: &str) -> Vec<Service<'a>> {
        self.services.iter().filter(|service| service.is_visible(namespace)).cloned().collect()
    }

    /// Every host that there is.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.by_host.keys().map(String::as_str)
    }

    /// The namespaces that define a host.
    pub fn namespaces(&self, host: &str) -> Vec<&'a str> {
        let indexes = self.by_host.get(host).map_or(&[][..], Vec::as_slice);
        indexes.iter().map(|index| self.services[*index].namespace).collect()
    }

    pub fn duplicates(&self) -> Vec<(Place, Place)> {
        self.duplicates.clone()
    }
}

impl Service<'_> {
    fn is_visible(&self, from: &str) -> bool {
        visible(self.export_to, self.namespace, from)
    }
}

fn number(value: i64) -> u16 {
    u16::try_from(value).unwrap_or(0)
}

fn of_entry<'a>(
    entry: &'a Resource<ServiceEntry>,
    host: &str,
    place: Place,
    resources: &'a Resources,
) -> Service<'a> {
    let spec = &entry.spec;
    let ports = items(spec.ports.as_ref()).iter().map(|port| ServicePort {
        number: port.number.as_ref().map_or(0, |at| number(at.value)),
        name: port.name.as_ref().map_or(String::new(), |at| at.value.clone()),
        protocol: port.protocol.as_ref().and_then(|at| protocol(at).ok()).unwrap_or(Protocol::Tcp),
        target: port.target_port.as_ref().map(|at| number(at.value)),
        place: port.place,
    });
    let listed: Vec<&WorkloadEntry> = match &spec.workload_selector {
        Some(selector) => selected(resources, &entry.namespace, selector.labels.as_ref()),
        None => items(spec.endpoints.as_ref()).iter().collect(),
    };
    let resolution = spec.resolution.as_ref().map_or(Written::None, |at| at.value.0);
    let finding = match resolution {
        Written::None | Written::DynamicDns => Finding::OriginalDestination,
        Written::Dns | Written::DnsRoundRobin if listed.is_empty() => Finding::ByName,
        Written::Dns | Written::DnsRoundRobin | Written::Static => Finding::Listed,
    };
    let resolution = match resolution {
        Written::DnsRoundRobin => Resolution::OneEndpoint,
        Written::None | Written::DynamicDns | Written::Dns | Written::Static => Resolution::Endpoints,
    };
    Service {
        host: host.to_ascii_lowercase(),
        namespace: &entry.namespace,
        ports: ports.collect(),
        finding,
        resolution,
        places: places(&listed),
        internal: spec.location.as_ref().is_some_and(|at| at.value.0 == Location::MeshInternal),
        addresses: items(spec.addresses.as_ref()).iter().filter_map(|text| network(text).ok()).collect(),
        names: items(spec.subject_alt_names.as_ref())
            .iter()
            .filter_map(|text| name::subject_alt_name(text).ok())
            .collect(),
        is_entry: true,
        place,
        export_to: spec.export_to.as_ref(),
    }
}

fn of_service<'a>(
    service: &'a Resource<crate::config::resource::service::Service>,
    host: String,
    resources: &'a Resources,
) -> Service<'a> {
    let ports = service.spec.ports.iter().map(|port| ServicePort {
        number: number(port.port.value),
        name: port.name.as_ref().map_or(String::new(), |at| at.value.clone()),
        protocol: Protocol::Tcp,
        target: port.target_port.map(number).filter(|port| *port != 0),
        place: port.port.place,
    });
    // Without a selector it stands for endpoints that are written elsewhere.
    let listed = match &service.spec.selector {
        Some(selector) => selected(resources, &service.namespace, Some(selector)),
        None => Vec::new(),
    };
    Service {
        host,
        namespace: &service.namespace,
        ports: ports.collect(),
        finding: if listed.is_empty() { Finding::ByName } else { Finding::Listed },
        resolution: Resolution::Endpoints,
        places: places(&listed),
        internal: true,
        addresses: Vec::new(),
        names: Vec::new(),
        is_entry: false,
        place: service.place,
        export_to: None,
    }
}

/// The WorkloadEntries that a selector in a namespace selects.
fn selected<'a>(
    resources: &'a Resources,
    namespace: &str,
    selector: Option<&crate::config::decode::Labels>,
) -> Vec<&'a WorkloadEntry> {
    let entries = resources.workload_entries.iter().filter(|entry| entry.namespace == namespace);
    let wanted = |entry: &&Resource<WorkloadEntry>| {
        let own = entry.spec.labels.as_ref().map_or(&[][..], |labels| &labels.value.0);
        let own = own.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect();
        selector.is_some_and(|labels| !labels.value.0.is_empty()) && selects(selector, &own)
    };
    entries.filter(wanted).map(|entry| &entry.spec).collect()
}

fn places<'a>(entries: &[&'a WorkloadEntry]) -> Vec<ServicePlace<'a>> {
    let place = |entry: &&'a WorkloadEntry| {
        let host = name::host(entry.address.as_ref()?).ok()?;
        Some(ServicePlace { host, entry })
    };
    entries.iter().filter_map(place).collect()
}
