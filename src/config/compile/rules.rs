//! The rules of VirtualServices, by the gateway that they are bound to and the host that they are for.

use std::collections::{HashMap, HashSet};

use super::{Compiler, Workload, full_name, selects, visible};
use crate::config::decode::{At, Labels, Strings};
use crate::config::report::Report;
use crate::config::resource::virtual_service::{
    RouteDestination, TcpMatch, TcpRoute, TlsMatch, VirtualService,
};
use crate::config::resource::{Resource, Resources};
use crate::config::sources::Place;
use crate::config::validate::virtual_service::MESH;
use crate::config::validate::{items, overlap};
use crate::plan::{InnerHop, Role, Target};

/// A VirtualService with its names in full.
#[derive(Debug, Clone)]
pub(super) struct Bound<'a> {
    pub resource: &'a Resource<VirtualService>,
    pub hosts: Vec<String>,
    /// `mesh`, or `namespace/name`.
    pub gateways: Vec<String>,
}

/// Every VirtualService, in Istio's order.
#[derive(Debug, Clone)]
pub(super) struct VirtualServices<'a> {
    all: Vec<Bound<'a>>,
    by_gateway: HashMap<String, Vec<usize>>,
    /// Those for sidecars: by host, and those with a wildcard.
    mesh_exact: HashMap<String, Vec<usize>>,
    mesh_wildcard: Vec<usize>,
}

/// Where a route leads: upstreams, or through a gateway that this process plays as well.
#[derive(Debug, Default, Clone)]
pub(super) struct Leads {
    pub targets: Vec<(u32, std::sync::Arc<crate::plan::cluster::Cluster>)>,
    pub inner_hops: Vec<InnerHop>,
}

impl Leads {
    pub fn targets(&self) -> Vec<Target> {
        self.targets
            .iter()
            .map(|(weight, cluster)| Target { weight: *weight, cluster: cluster.clone() })
            .collect()
    }
}

/// A reference to a Gateway in full.
pub(super) fn gateway_reference(text: &str, own: &str) -> String {
    match text.split_once('/') {
        None if text == MESH => MESH.to_owned(),
        Some((".", name)) => format!("{own}/{name}"),
        Some(_) => text.to_owned(),
        // Names of Gateways have no dots: this is the old form, NAME.NAMESPACE and perhaps more.
        None => match text.split('.').collect::<Vec<_>>()[..] {
            [name, namespace, ..] => format!("{namespace}/{name}"),
            _ => format!("{own}/{text}"),
        },
    }
}

impl<'a> VirtualServices<'a> {
    pub fn new(resources: &'a Resources, workload: &Workload) -> Self {
        let bound = resources.virtual_services.iter().map(|resource| {
            let own = &resource.namespace;
            let gateways = items(resource.spec.gateways.as_ref());
            let mut gateways: Vec<_> = gateways.iter().map(|text| gateway_reference(text, own)).collect();
            if gateways.is_empty() {
                gateways.push(MESH.to_owned());
            }
            let hosts = items(resource.spec.hosts.as_ref());
            let hosts = hosts.iter().map(|host| full_name(host, own, &workload.domain)).collect();
            Bound { resource, hosts, gateways }
        });
        let mut this = Self {
            all: bound.collect(),
            by_gateway: HashMap::new(),
            mesh_exact: HashMap::new(),
            mesh_wildcard: Vec::new(),
        };
        for (index, bound) in this.all.iter().enumerate() {
            for gateway in &bound.gateways {
                this.by_gateway.entry(gateway.clone()).or_default().push(index);
            }
            if !bound.gateways.iter().any(|gateway| gateway == MESH) {
                continue;
            }
            for host in &bound.hosts {
                if host.starts_with('*') {
                    this.mesh_wildcard.push(index);
                } else {
                    this.mesh_exact.entry(host.clone()).or_default().push(index);
                }
            }
        }
        this
    }

    /// Those bound to a gateway, as a namespace sees them.
    pub fn of_gateway(&self, gateway: &str, from: &str) -> Vec<Bound<'a>> {
        let indexes = self.by_gateway.get(gateway).map_or(&[][..], Vec::as_slice);
        indexes
            .iter()
            .map(|index| &self.all[*index])
            .filter(|bound| bound.is_visible(from))
            .cloned()
            .collect()
    }

    /// Those that sidecars of a namespace heed for a host.
    pub fn of_host(&self, host: &str, from: &str) -> Vec<Bound<'a>> {
        let mut indexes: Vec<usize> = if host.starts_with('*') {
            self.by_gateway.get(MESH).cloned().unwrap_or_default()
        } else {
            self.mesh_exact.get(host).into_iter().flatten().chain(&self.mesh_wildcard).copied().collect()
        };
        indexes.sort_unstable();
        indexes.dedup();
        let bound = indexes.into_iter().map(|index| &self.all[index]);
        bound
            .filter(|bound| bound.is_visible(from) && bound.hosts.iter().any(|own| overlap(own, host)))
            .cloned()
            .collect()
    }

    /// Hosts that sidecars have rules for which can be honoured.
    pub fn mesh_hosts(&self) -> HashSet<String> {
        let ruled = |index: &usize| {
            let spec = &self.all[*index].resource.spec;
            spec.tcp.is_some() || spec.tls.is_some()
        };
        let hosts = self.mesh_exact.iter().filter(|(_, indexes)| indexes.iter().any(ruled));
        hosts.map(|(host, _)| host.clone()).collect()
    }

    /// References to gateways, each with who makes them.
    pub fn references(&self) -> impl Iterator<Item = (&str, &Bound<'a>)> {
        self.all.iter().flat_map(|bound| bound.gateways.iter().map(move |gateway| (gateway.as_str(), bound)))
    }

    /// Matches that can never match.
    pub fn check(&self, report: &mut Report) {
        for bound in &self.all {
            let spec = &bound.resource.spec;
            let tcp = items(spec.tcp.as_ref()).iter().flat_map(|rule| items(rule.matches.as_ref()));
            let tls = items(spec.tls.as_ref()).iter().flat_map(|rule| items(rule.matches.as_ref()));
            let all = tcp.map(Conditions::from).chain(tls.map(Conditions::from));
            for text in all.flat_map(|conditions| items(conditions.gateways)) {
                let full = gateway_reference(text, &bound.resource.namespace);
                if !bound.gateways.contains(&full) {
                    let message = format!(
                        "never applies: the gateways of the VirtualService do not include it: {full:?}"
                    );
                    report.warning(text.place, message);
                }
            }
            for text in
                items(spec.gateways.as_ref()).iter().filter(|text| text.contains('.') && !text.contains('/'))
            {
                report.warning(
                    text.place,
                    format!("an old form of a reference, NAMESPACE/NAME is the new one: {:?}", text.value),
                );
            }
        }
    }
}

impl Bound<'_> {
    fn is_visible(&self, from: &str) -> bool {
        visible(self.resource.spec.export_to.as_ref(), &self.resource.namespace, from)
    }
}

/// What a match asks of a connection besides its SNI, in rules of either kind.
#[derive(Clone, Copy)]
pub(super) struct Conditions<'a> {
    port: Option<&'a At<i64>>,
    gateways: Option<&'a Strings>,
    source_labels: Option<&'a Labels>,
    source_namespace: Option<&'a At<String>>,
    pub destination_subnets: Option<&'a Strings>,
}

impl<'a> From<&'a TcpMatch> for Conditions<'a> {
    fn from(matched: &'a TcpMatch) -> Self {
        Self {
            port: matched.port.as_ref(),
            gateways: matched.gateways.as_ref(),
            source_labels: matched.source_labels.as_ref(),
            source_namespace: matched.source_namespace.as_ref(),
            destination_subnets: matched.destination_subnets.as_ref(),
        }
    }
}

impl<'a> From<&'a TlsMatch> for Conditions<'a> {
    fn from(matched: &'a TlsMatch) -> Self {
        Self {
            port: matched.port.as_ref(),
            gateways: matched.gateways.as_ref(),
            source_labels: matched.source_labels.as_ref(),
            source_namespace: matched.source_namespace.as_ref(),
            destination_subnets: matched.destination_subnets.as_ref(),
        }
    }
}

impl Conditions<'_> {
    fn meet(&self, bound: &Bound<'_>, gateway: &str, port: u16) -> bool {
        let gateways = items(self.gateways);
        let named = |text: &At<String>| gateway_reference(text, &bound.resource.namespace) == gateway;
        (gateways.is_empty() || gateways.iter().any(named))
            && self.port.is_none_or(|wanted| wanted.value == i64::from(port))
    }
}

impl<'a> Compiler<'a> {
    /// Whether a match of a rule applies at a gateway's port. What a gateway cannot judge is refused, because
    /// to pass over it would match more than is written.
    pub fn matches_at_gateway(
        &mut self,
        bound: &Bound<'a>,
        conditions: Conditions<'_>,
        gateway: &str,
        port: u16,
    ) -> bool {
        if !conditions.meet(bound, gateway, port) {
            return false;
        }
        let unjudged = [
            ("sourceLabels", conditions.source_labels.map(|at| at.place)),
            ("sourceNamespace", conditions.source_namespace.map(|at| at.place)),
            ("destinationSubnets", conditions.destination_subnets.map(|at| at.place)),
        ];
        let Some((name, place)) = unjudged.into_iter().find_map(|(name, place)| Some((name, place?))) else {
            return true;
        };
        self.error(
            place,
            format!("expected no {name} in a rule for a gateway, where Istio does not look at it, found one"),
        );
        false
    }

    /// Whether a match of a rule applies at a port of the sidecar, for some destination.
    pub fn matches_at_sidecar(&self, bound: &Bound<'a>, conditions: Conditions<'_>, port: u16) -> bool {
        let identity = self.identity(Role::Sidecar);
        conditions.meet(bound, MESH, port)
            && selects(conditions.source_labels, &identity.labels)
            && conditions.source_namespace.is_none_or(|namespace| namespace.value == identity.namespace)
    }

    /// The first `tcp` rule of a VirtualService that applies at a gateway's port.
    pub fn first_tcp_rule(&mut self, bound: &Bound<'a>, gateway: &str, port: u16) -> Option<&'a TcpRoute> {
        let rules: &'a [TcpRoute] = items(bound.resource.spec.tcp.as_ref());
        rules.iter().find(|rule| {
            let matches = items(rule.matches.as_ref());
            matches.is_empty()
                || matches.iter().any(|matched| self.matches_at_gateway(bound, matched.into(), gateway, port))
        })
    }

    /// HTTP rules are not honoured, and to carry their bytes all the same would open what they restrict.
    pub fn refuse_http(&mut self, services: &[Bound<'_>]) {
        for spec in services.iter().map(|bound| &bound.resource.spec) {
            let Some(http) = &spec.http else { continue };
            if spec.tcp.is_some() || spec.tls.is_some() {
                self.warn(
                    http.place,
                    "http rules have no effect: connections are carried by the tcp and tls rules",
                );
            } else if self.told.insert((http.place, "http".to_owned())) {
                let message = "expected tcp or tls rules, found http rules, which restrict what bytes alone cannot show";
                self.error(http.place, message);
            }
        }
    }

    /// Where the destinations of a rule lead.
    pub fn leads(
        &mut self,
        role: Role,
        bound: &Bound<'a>,
        place: Place,
        destinations: &'a [RouteDestination],
    ) -> Option<Leads> {
        let mut leads = Leads::default();
        let several = destinations.len() > 1;
        for entry in destinations {
            let weight = entry.weight.as_ref().and_then(|weight| u32::try_from(weight.value).ok());
            let weight = if several { weight.unwrap_or(0) } else { 1 };
            let Some(destination) = entry.destination.as_ref().filter(|_| weight > 0) else { continue };
            let Some(host) = &destination.host else { continue };
            let name = full_name(host, &bound.resource.namespace, &self.workload.domain);
            let port = destination.port.as_ref().and_then(|selector| selector.number.as_ref());
            let port = port.and_then(|number| u16::try_from(number.value).ok());
            let wanted = super::cluster::Wanted {
                role,
                host: name,
                port,
                subset: destination.subset.as_ref().map(|subset| subset.value.clone()),
                place: host.place,
                subset_place: destination.subset.as_ref().map(|subset| subset.place),
            };
            if let Some(far) = self.inner_role(role, &wanted.host) {
                if several {
                    self.error(
                        place,
                        "expected one destination for a hop that is taken inside this process, found several",
                    );
                    return None;
                }
                return self.inner_hop(far, &wanted);
            }
            leads.targets.push((weight, self.cluster(&wanted)?));
        }
        (!leads.targets.is_empty()).then_some(leads)
    }
}
