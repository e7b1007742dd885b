//! Resources and what the process is -> listeners. Pure: the same files and flags compile to the same plan.
//!
//! `registry` knows the services, `policy` which DestinationRule applies, `cluster` makes upstreams of
//! them. `gateway`, `sidecar` and `inbound` make the listeners of the roles, by the rules that
//! `rules` finds in VirtualServices; `authorization` says who may connect there.

mod authorization;
mod cluster;
mod gateway;
mod hop;
mod inbound;
mod policy;
mod registry;
mod rules;
mod sidecar;
mod tls;
mod traffic;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::decode::At;
use super::document::Spot;
use super::report::Report;
use super::resource::{DEFAULT_NAMESPACE, Resource, Resources};
use super::sources::Place;
use crate::plan::cluster::Cluster;
use crate::plan::policy::TlsPolicy;
use crate::plan::rbac::Policy;
use crate::plan::{CredentialName, Host, Listener, Origin, Role};
use policy::Policies;
use registry::Registry;
use rules::VirtualServices;

/// The namespace of Istio's own workloads and of what counts for all others.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// What the process is, as far as Istio's resources ask.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The roles it plays, each with its namespace and labels.
    pub roles: BTreeMap<Role, Identity>,
    /// The trust domain of the mesh.
    pub trust_domain: String,
    /// The domain of the cluster.
    pub domain: String,
    /// The credential that is the workload's identity in the mesh.
    pub credential: CredentialName,
    /// Where hosts are, whatever else says so.
    pub resolve: Vec<Resolve>,
    /// Where to listen instead, by the port that the configuration names.
    pub listen: BTreeMap<u16, SocketAddr>,
    /// Where the application listens, by the port at which it is to be found.
    pub inbound: BTreeMap<u16, (Host, u16)>,
    /// Versions, key exchange and ciphers.
    pub tls: TlsPolicy,
    /// How long connecting may take where no DestinationRule says so.
    pub connect_timeout: std::time::Duration,
}

/// Where a workload is and what it is called.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// One that plays these roles as Istio's own gateways, and a sidecar in the namespace `default`, do.
    pub fn stock(roles: &[Role]) -> Self {
        Self {
            roles: roles.iter().map(|role| (*role, Identity::stock(*role))).collect(),
            trust_domain: "cluster.local".into(),
            domain: "cluster.local".into(),
            credential: CredentialName("workload".into()),
            resolve: Vec::new(),
            listen: BTreeMap::new(),
            inbound: BTreeMap::new(),
            tls: TlsPolicy::default(),
            connect_timeout: std::time::Duration::from_secs(10),
        }
    }
}

impl Identity {
    /// The namespace and labels of Istio's own gateways; those of a sidecar nobody can know.
    pub fn stock(role: Role) -> Self {
        let name = match role {
            Role::Sidecar => return Self { namespace: DEFAULT_NAMESPACE.into(), labels: BTreeMap::new() },
            Role::Egress => "egressgateway",
            Role::Ingress => "ingressgateway",
        };
        let labels = [("istio", name.to_owned()), ("app", format!("istio-{name}"))];
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { namespace: ROOT_NAMESPACE.into(), labels }
    }
}

/// `--resolve HOST[:PORT]=ADDRESS[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The host.
    pub host: String,
    /// The port, if only this one is meant.
    pub port: Option<u16>,
    /// Where it is.
    pub to: Host,
    /// Its port there, if another.
    pub to_port: Option<u16>,
}

/// Compiles the listeners of a workload. If there are errors in the report, they are not to be used.
pub fn listeners(resources: &Resources, workload: &Workload, report: &mut Report) -> Vec<Arc<Listener>> {
    let registry = Registry::new(resources, workload);
    let mut compiler = Compiler {
        resources,
        workload,
        policies: Policies::new(resources, workload),
        services: VirtualServices::new(resources, workload),
        registry,
        report,
        clusters: HashMap::new(),
        guards: HashMap::new(),
        hopped: HashSet::new(),
        told: HashSet::new(),
    };
    compiler.services.clone().check(compiler.report);
    compiler.check_duplicate_services();
    let mut listeners = Vec::new();
    for role in workload.roles.keys() {
        match role {
            Role::Egress | Role::Ingress => compiler.gateways(*role, &mut listeners),
            Role::Sidecar => {
                compiler.outbound(&mut listeners);
                compiler.inbound(&mut listeners);
            }
        }
    }
    compiler.check_addresses(&listeners);
    compiler.check_unused_rules();
    if listeners.is_empty() && compiler.report.is_empty() {
        let roles: Vec<_> = workload.roles.keys().map(ToString::to_string).collect();
        let message =
            format!("expected something to listen on for this role, found nothing: {}", roles.join(", "));
        compiler.report.add("--role", message);
    }
    listeners.into_iter().map(Arc::new).collect()
}

struct Compiler<'a> {
    resources: &'a Resources,
    workload: &'a Workload,
    registry: Registry<'a>,
    policies: Policies<'a>,
    services: VirtualServices<'a>,
    report: &'a mut Report,
    clusters: HashMap<cluster::Key, Option<Arc<Cluster>>>,
    /// The policies that guard each role, as far as anybody has asked.
    guards: HashMap<Role, Arc<[Policy]>>,
    /// Gateways that no file defines and that were reached inside the process.
    hopped: HashSet<String>,
    /// What has been warned of already.
    told: HashSet<(Place, String)>,
}

impl<'a> Compiler<'a> {
    fn identity(&self, role: Role) -> &'a Identity {
        &self.workload.roles[&role]
    }

    fn warn(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        if self.told.insert((place, message.clone())) {
            self.report.warning(place, message);
        }
    }

    fn error(&mut self, place: Place, message: impl Into<String>) -> &mut super::report::Problem {
        self.report.error(place, message)
    }

    /// File, line and resource of a place.
    fn origin(&self, place: Place) -> Origin {
        let sources = self.report.sources();
        Origin(format!("{} ({})", sources.line_of(place), sources.resource(place).unwrap_or_default()))
    }

    /// Where to listen for a port of the configuration.
    fn address(&self, port: u16, usual: std::net::IpAddr) -> SocketAddr {
        self.workload.listen.get(&port).copied().unwrap_or(SocketAddr::new(usual, port))
    }

    /// Two listeners on one socket, which the operating system would refuse only later.
    fn check_addresses(&mut self, listeners: &[Listener]) {
        let mut seen = HashMap::new();
        for listener in listeners.iter().filter(|listener| listener.address.port() != 0) {
            if let Some(first) = seen.insert(listener.address, &listener.origin) {
                let message = format!(
                    "expected one listener an address, found another of {first}: {}",
                    listener.address
                );
                self.report.file(listener.origin.to_string(), message);
            }
        }
    }

    fn check_duplicate_services(&mut self) {
        for (place, first) in self.registry.duplicates() {
            let first = self.report.sources().line_of(first);
            self.report.error(
                place,
                format!("expected one definition of a host in a namespace, found another at {first}"),
            );
        }
    }
}

/// Whether every label of a selector is one of these; a selector without labels selects everything.
fn selects(selector: Option<&super::decode::Labels>, labels: &BTreeMap<String, String>) -> bool {
    let wanted = selector.map_or(&[][..], |selector| &selector.value.0);
    wanted.iter().all(|(name, value)| labels.get(&name.value) == Some(&value.value))
}

/// Whether a resource that is exported like this can be seen from a namespace.
fn visible(export_to: Option<&At<Vec<At<String>>>>, own: &str, from: &str) -> bool {
    let Some(list) = export_to.filter(|list| !list.is_empty()) else { return true };
    list.value.iter().any(|text| match text.value.as_str() {
        "*" => true,
        "." => own == from,
        namespace => namespace == from,
    })
}

/// `mysql` in a resource of namespace `ns` is `mysql.ns.svc.cluster.local`; a name with a dot is whole.
fn full_name(text: &str, namespace: &str, domain: &str) -> String {
    let text = text.to_ascii_lowercase();
    if text.contains(['.', '*', ':']) { text } else { format!("{text}.{namespace}.svc.{domain}") }
}

/// The place of a resource as a whole.
fn whole<S>(resource: &Resource<S>) -> Place {
    let spot = resource.place.spot;
    Place { spot: if spot == Spot::default() { Spot { line: 1, column: 1 } } else { spot }, ..resource.place }
}
