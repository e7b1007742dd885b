//! A destination -> an upstream: its endpoints, its policy, its TLS.

use std::sync::Arc;

use super::policy::Policy;
use super::registry::{Finding, Service, ServicePort};
use super::{Compiler, Identity};
use crate::config::report::similar;
use crate::config::sources::Place;
use crate::plan::cluster::{Cluster, Endpoint, Resolution};
use crate::plan::{Host, Role};

/// What a rule wants to reach.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub role: Role,
    pub host: String,
    pub port: Option<u16>,
    pub subset: Option<String>,
    pub place: Place,
    pub subset_place: Option<Place>,
}

/// What tells clusters apart.
pub(super) type Key = (Role, String, u16, Option<String>);

/// Plaintext where a credential was asked for: the one thing that must not happen.
pub(super) enum Refusal {
    /// Told already.
    Told,
    /// The DestinationRule names a credential that only gateways use.
    CredentialOnSidecar(Place),
}

impl<'a> Compiler<'a> {
    /// The upstream that is wanted; `None` after the problem was told.
    pub fn cluster(&mut self, wanted: &Wanted) -> Option<Arc<Cluster>> {
        match self.try_cluster(wanted) {
            Ok(cluster) => Some(cluster),
            Err(Refusal::Told) => None,
            Err(Refusal::CredentialOnSidecar(place)) => {
                self.error(place, "expected no credentialName for a sidecar, where Istio does not look at it and sends plaintext, found one")
                    .help("a workloadSelector that selects the sidecar makes it count");
                None
            }
        }
    }

    /// The same, with the refusal that a listener may answer by not being there.
    pub fn try_cluster(&mut self, wanted: &Wanted) -> Result<Arc<Cluster>, Refusal> {
        let identity = self.identity(wanted.role);
        let service = self.registry.find(&wanted.host, &identity.namespace).cloned();
        let Some(port) = self.port(wanted, service.as_ref()) else { return Err(Refusal::Told) };
        let key = (wanted.role, wanted.host.clone(), port.number, wanted.subset.clone());
        if let Some(known) = self.clusters.get(&key) {
            return known.clone().ok_or(Refusal::Told);
        }
        let made = self.make(wanted, service.as_ref(), &port, identity);
        self.clusters.insert(key, made.as_ref().ok().cloned());
        made
    }

    /// The port of the service: the one that is named, or the only one.
    fn port(&mut self, wanted: &Wanted, service: Option<&Service<'a>>) -> Option<ServicePort> {
        let known: Vec<&ServicePort> = service.map_or(Vec::new(), |service| service.ports.iter().collect());
        let free = |number| ServicePort {
            number,
            name: String::new(),
            protocol: crate::config::validate::gateway::Protocol::Tcp,
            target: None,
            place: wanted.place,
        };
        if service.is_none() && !self.is_resolved(&wanted.host, wanted.port) {
            let hosts: Vec<_> = self.registry.hosts().map(str::to_owned).collect();
            let meant = similar(&wanted.host, hosts.iter().map(String::as_str));
            let message = format!(
                "expected a host that a ServiceEntry, a Service or --resolve defines, found {:?}",
                wanted.host
            );
            let help = match meant {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("--resolve {}=ADDRESS:PORT says where it is", wanted.host),
            };
            self.error(wanted.place, message).help(help);
            return None;
        }
        match (wanted.port, known.as_slice()) {
            (Some(number), []) => Some(free(number)),
            (None, [only]) => Some((*only).clone()),
            (Some(number), known) => {
                let found = known.iter().find(|port| port.number == number);
                if found.is_none() {
                    let numbers: Vec<_> = known.iter().map(|port| port.number.to_string()).collect();
                    let message =
                        format!("expected a port of the service ({}), found {number}", numbers.join(", "));
                    self.error(wanted.place, message);
                }
                found.map(|port| (*port).clone())
            }
            (None, known) => {
                let message = format!("expected a port, because the service has {}, found none", known.len());
                self.error(wanted.place, message);
                None
            }
        }
    }

    fn make(
        &mut self,
        wanted: &Wanted,
        service: Option<&Service<'a>>,
        port: &ServicePort,
        identity: &Identity,
    ) -> Result<Arc<Cluster>, Refusal> {
        let namespace =
            service.map_or_else(|| self.namespace_of(&wanted.host), |service| service.namespace.to_owned());
        let policy = self.policies.effective(
            &wanted.host,
            &namespace,
            identity,
            port.number,
            wanted.subset.as_deref(),
        );
        let policy = match policy {
            Ok(policy) => policy,
            Err(known) => {
                self.unknown_subset(wanted, &known);
                return Err(Refusal::Told);
            }
        };
        let traffic = self.traffic(&policy)?;
        let originate = self.originate(wanted, service, port.number, &namespace, &policy)?;
        let endpoints = self.endpoints(wanted, service, port, &policy).ok_or(Refusal::Told)?;
        let subset = wanted.subset.as_deref().unwrap_or_default();
        let origin =
            policy.rule.map_or(service.map_or(wanted.place, |service| service.place), |rule| rule.place);
        Ok(Arc::new(Cluster {
            role: wanted.role,
            name: format!("outbound|{}|{subset}|{}", port.number, wanted.host),
            endpoints,
            resolution: service.map_or(Resolution::Endpoints, |service| service.resolution),
            originate,
            connect_timeout: traffic.connect_timeout,
            balance: traffic.balance,
            outliers: traffic.outliers,
            pool: traffic.pool,
            proxy_header: traffic.proxy_header,
            origin: self.origin(origin),
        }))
    }

    fn unknown_subset(&mut self, wanted: &Wanted, known: &[&str]) {
        let subset = wanted.subset.clone().unwrap_or_default();
        let help = match similar(&subset, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None if known.is_empty() => format!("no DestinationRule for {} has subsets", wanted.host),
            None => format!("the subsets are {}", known.join(", ")),
        };
        let place = wanted.subset_place.unwrap_or(wanted.place);
        let message =
            format!("expected a subset of the DestinationRule for {}, found {subset:?}", wanted.host);
        self.error(place, message).help(help);
    }

    /// The namespace of a service that nobody defined, from its name if it has the form of one of a cluster.
    pub fn namespace_of(&self, host: &str) -> String {
        let inside = host.strip_suffix(&format!(".svc.{}", self.workload.domain));
        inside
            .and_then(|inside| inside.split_once('.'))
            .map_or(String::new(), |(_, namespace)| namespace.to_owned())
    }

    fn is_resolved(&self, host: &str, port: Option<u16>) -> bool {
        self.workload.resolve.iter().any(|resolve| {
            resolve.host == host && (resolve.port.is_none() || port.is_none() || resolve.port == port)
        })
    }

    /// What `--resolve` says of a host and port; the port that is named counts more than none.
    fn resolved(&self, host: &str, port: u16) -> Option<Endpoint> {
        let fits = |exact: bool| {
            self.workload.resolve.iter().find(move |resolve| {
                resolve.host == host
                    && (if exact { resolve.port == Some(port) } else { resolve.port.is_none() })
            })
        };
        let resolve = fits(true).or_else(|| fits(false))?;
        Some(Endpoint { host: resolve.to.clone(), port: resolve.to_port.unwrap_or(port), weight: 1 })
    }

    fn endpoints(
        &mut self,
        wanted: &Wanted,
        service: Option<&Service<'a>>,
        port: &ServicePort,
        policy: &Policy<'a>,
    ) -> Option<Vec<Endpoint>> {
        if let Some(endpoint) = self.resolved(&wanted.host, port.number) {
            return Some(vec![endpoint]);
        }
        let service = service?;
        match service.finding {
            Finding::OriginalDestination => {
                let message = format!(
                    "expected endpoints or DNS, found resolution NONE, which needs captured connections: {}",
                    wanted.host
                );
                self.error(wanted.place, message)
                    .help(format!("--resolve {}:{}=ADDRESS:PORT says where it is", wanted.host, port.number));
                None
            }
            Finding::ByName => {
                // A Service of a cluster answers at its own port, a name elsewhere at that of its endpoints.
                let number = if service.is_entry { port.target.unwrap_or(port.number) } else { port.number };
                Some(vec![Endpoint { host: Host::Name(wanted.host.clone()), port: number, weight: 1 }])
            }
            Finding::Listed => {
                let of_subset = service.places.iter().filter(|place| place.has(policy.labels));
                let endpoints: Vec<_> = of_subset
                    .filter_map(|place| {
                        let weight = place
                            .entry
                            .weight
                            .as_ref()
                            .map_or(1, |weight| u32::try_from(weight.value).unwrap_or(1));
                        let number = place.port(port);
                        let given = match &place.host {
                            Host::Name(name) => self.resolved(name, number),
                            Host::Address(_) => None,
                        };
                        let endpoint =
                            given.unwrap_or(Endpoint { host: place.host.clone(), port: number, weight });
                        (weight > 0).then_some(Endpoint { weight, ..endpoint })
                    })
                    .collect();
                if endpoints.is_empty() {
                    self.error(
                        wanted.place,
                        format!("expected at least one endpoint, found none: {}", wanted.host),
                    );
                    return None;
                }
                Some(endpoints)
            }
        }
    }
}
