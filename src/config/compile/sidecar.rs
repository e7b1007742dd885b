//! The outbound listeners of a sidecar: one for each port of each ServiceEntry, and of each Service that a
//! VirtualService for sidecars names. Without captured connections they are on loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::Compiler;
use super::cluster::{Refusal, Wanted};
use super::registry::{Finding, Service, ServicePort};
use super::rules::{Bound, Leads};
use crate::config::decode::Strings;
use crate::config::name;
use crate::config::resource::virtual_service::{TcpRoute, TlsMatch};
use crate::config::sources::Place;
use crate::config::validate::gateway::Protocol;
use crate::config::validate::{items, network};
use crate::plan::authorize::Rules;
use crate::plan::route::{HostPattern, Network, SniTable};
use crate::plan::{DestinationRoute, Entrance, Listener, Role, Route, SniRoute};

/// What gathers on one socket.
#[derive(Default)]
struct Socket {
    plaintext: Vec<DestinationRoute>,
    rows: Vec<SniRoute>,
    /// Who has the whole of it, without a condition.
    owner: Option<Place>,
    origin: Option<Place>,
}

impl<'a> Compiler<'a> {
    /// The outbound listeners.
    pub fn outbound(&mut self, listeners: &mut Vec<Listener>) {
        let namespace = self.identity(Role::Sidecar).namespace.clone();
        let named = self.services.mesh_hosts();
        let mut sockets: BTreeMap<(SocketAddr, u16), Socket> = BTreeMap::new();
        self.refuse_http_of_mesh(&namespace);
        for service in self.registry.visible(&namespace) {
            // A gateway of this very process is reached inside it.
            let wanted = service.is_entry
                || (named.contains(&service.host) && self.inner_role(Role::Sidecar, &service.host).is_none());
            for port in service.ports.iter().filter(|_| wanted) {
                let bound = self.services.of_host(&service.host, &namespace);
                let address = self.address(port.number, IpAddr::V4(Ipv4Addr::LOCALHOST));
                let mut socket = sockets.remove(&(address, port.number)).unwrap_or_default();
                match port.protocol {
                    Protocol::Tcp | Protocol::Http => self.plain_port(&service, port, &bound, &mut socket),
                    Protocol::Tls | Protocol::Https => self.tls_port(&service, port, &bound, &mut socket),
                }
                if socket.origin.is_some() {
                    sockets.insert((address, port.number), socket);
                }
            }
        }
        for ((address, port), mut socket) in sockets {
            let Some(origin) = socket.origin else { continue };
            if !socket.plaintext.is_empty() && !socket.rows.is_empty() {
                self.error(
                    origin,
                    format!("expected either TLS or bytes on one port, found both on {address}"),
                );
            }
            // Rows with a condition come first.
            socket.plaintext.sort_by_key(|row| row.networks.is_empty());
            let entrance = if socket.rows.is_empty() {
                Entrance::Plaintext(socket.plaintext)
            } else {
                Entrance::Tls(SniTable::new(socket.rows))
            };
            if !address.ip().is_loopback() && matches!(entrance, Entrance::Plaintext(_)) {
                self.warn(origin, format!("plaintext is accepted beyond loopback, whoever can reach this address can use the link: {address}"));
            }
            listeners.push(Listener {
                role: Role::Sidecar,
                address,
                port,
                entrance,
                origin: self.origin(origin),
            });
        }
    }

    fn refuse_http_of_mesh(&mut self, namespace: &str) {
        let mesh = self.services.of_gateway(crate::config::validate::virtual_service::MESH, namespace);
        self.refuse_http(&mesh);
    }

    /// A port whose bytes are not looked at: the rules in order, then the service itself.
    fn plain_port(
        &mut self,
        service: &Service<'a>,
        port: &ServicePort,
        bound: &[Bound<'a>],
        socket: &mut Socket,
    ) {
        if bound.iter().any(|bound| bound.resource.spec.tls.is_some() && bound.resource.spec.tcp.is_none()) {
            self.warn(port.place, "tls rules have no effect on a port that is not of protocol TLS");
        }
        let mut rows: Vec<DestinationRoute> = Vec::new();
        let mut terminal = false;
        'rules: for bound in bound {
            let rules: &'a [TcpRoute] = items(bound.resource.spec.tcp.as_ref());
            for rule in rules {
                let Some(networks) = self.networks(bound, rule, port.number) else { continue };
                let Some(leads) = self.leads(Role::Sidecar, bound, rule.place, items(rule.route.as_ref()))
                else {
                    return;
                };
                let route = self.route(Rules::default(), &leads, rule.place);
                terminal = networks.is_empty();
                rows.push(DestinationRoute { networks, route });
                if terminal {
                    break 'rules;
                }
            }
        }
        let ruled = bound.iter().find(|bound| bound.resource.spec.tcp.is_some());
        if let (Some(ruled), false) = (ruled, terminal) {
            let message = format!(
                "no rule for port {} applies to every connection: the others go to the service directly",
                port.number
            );
            self.warn(ruled.resource.place, message);
        }
        if !terminal {
            match self.direct(service, port) {
                Some(route) => rows.push(DestinationRoute { networks: Vec::new(), route }),
                None => return,
            }
        }
        self.share(service, port, rows, socket);
    }

    /// The networks for which a rule applies at a port, empty for all; `None` if it does not.
    fn networks(&self, bound: &Bound<'a>, rule: &'a TcpRoute, port: u16) -> Option<Vec<Network>> {
        let matches = items(rule.matches.as_ref());
        if matches.is_empty() {
            return Some(Vec::new());
        }
        let mut found = Vec::new();
        for matched in matches {
            if !self.matches_at_sidecar(bound, matched.into(), port) {
                continue;
            }
            let subnets = networks(matched.destination_subnets.as_ref());
            if subnets.is_empty() {
                return Some(Vec::new());
            }
            found.extend(subnets);
        }
        (!found.is_empty()).then_some(found)
    }

    /// The service itself, where no rule says otherwise.
    fn direct(&mut self, service: &Service<'a>, port: &ServicePort) -> Option<Arc<Route>> {
        let wanted = Wanted {
            role: Role::Sidecar,
            host: service.host.clone(),
            port: Some(port.number),
            subset: None,
            place: port.place,
            subset_place: None,
        };
        if service.host.starts_with('*') && service.finding == Finding::ByName {
            self.warn(port.place, "not listened on: which host of the wildcard is meant cannot be known");
            return None;
        }
        match self.try_cluster(&wanted) {
            Ok(cluster) => {
                let leads = Leads { targets: vec![(1, cluster)], inner_hops: Vec::new() };
                Some(self.route(Rules::default(), &leads, port.place))
            }
            Err(Refusal::Told) => None,
            Err(Refusal::CredentialOnSidecar(place)) => {
                self.warn(place, format!("not listened on at the sidecar: its credentialName is for gateways, and without it plaintext would be sent: port {}", port.number));
                None
            }
        }
    }

    /// Puts the rows of a service on its socket, which others may share if addresses tell them apart.
    fn share(
        &mut self,
        service: &Service<'a>,
        port: &ServicePort,
        rows: Vec<DestinationRoute>,
        socket: &mut Socket,
    ) {
        let whole = service.addresses.is_empty();
        if let Some(owner) = socket.owner.or(socket.origin.filter(|_| whole)) {
            let owner = self.report.sources().line_of(owner);
            self.error(
                port.place,
                format!(
                    "expected one service a port, because nothing tells them apart, found another at {owner}"
                ),
            )
            .help(
                "--listen PORT=IP:PORT cannot help either: give the services addresses, or different ports",
            );
            return;
        }
        socket.origin = socket.origin.or(Some(port.place));
        if whole {
            socket.owner = Some(port.place);
            socket.plaintext.extend(rows);
            return;
        }
        for mut row in rows {
            if row.networks.is_empty() {
                row.networks.clone_from(&service.addresses);
            }
            socket.plaintext.push(row);
        }
        // Without captured connections there is one destination, loopback.
        if let Some(only) = socket.plaintext.first().filter(|_| socket.plaintext.len() == 1) {
            let route = only.route.clone();
            socket.plaintext = vec![DestinationRoute { networks: Vec::new(), route }];
        }
    }

    /// A port of TLS that is passed through: the SNI decides.
    fn tls_port(
        &mut self,
        service: &Service<'a>,
        port: &ServicePort,
        bound: &[Bound<'a>],
        socket: &mut Socket,
    ) {
        if bound.iter().any(|bound| bound.resource.spec.tcp.is_some() && bound.resource.spec.tls.is_none()) {
            self.remark(port.place, "tcp rules have no effect on a port of protocol TLS");
        }
        let mut rows = Vec::new();
        for bound in bound {
            for rule in items(bound.resource.spec.tls.as_ref()) {
                let applying: Vec<&TlsMatch> = items(rule.matches.as_ref())
                    .iter()
                    .filter(|matched| self.matches_at_sidecar(bound, (*matched).into(), port.number))
                    .collect();
                if applying.is_empty() {
                    continue;
                }
                let Some(leads) = self.leads(Role::Sidecar, bound, rule.place, items(rule.route.as_ref()))
                else {
                    return;
                };
                let (route, origin) =
                    (self.route(Rules::default(), &leads, rule.place), self.origin(rule.place));
                rows.extend(applying.into_iter().map(|matched| SniRoute {
                    hosts: names(matched),
                    networks: networks(matched.destination_subnets.as_ref()),
                    accept: None,
                    route: route.clone(),
                    origin: origin.clone(),
                }));
            }
        }
        if rows.is_empty() {
            let Some(route) = self.direct(service, port) else { return };
            let pattern =
                name::host_pattern(&service.host).unwrap_or(HostPattern::Exact(service.host.clone()));
            rows.push(SniRoute {
                hosts: vec![pattern],
                networks: Vec::new(),
                accept: None,
                route,
                origin: self.origin(port.place),
            });
        }
        socket.origin = socket.origin.or(Some(port.place));
        socket.rows.extend(rows);
    }

    fn remark(&mut self, place: Place, message: &str) {
        if self.told.insert((place, message.to_owned())) {
            self.report.remark(place, message);
        }
    }
}

/// Destinations as they are written.
fn networks(subnets: Option<&Strings>) -> Vec<Network> {
    items(subnets).iter().filter_map(|text| network(text).ok()).collect()
}

/// The names of a match.
fn names(matched: &TlsMatch) -> Vec<HostPattern> {
    items(matched.sni_hosts.as_ref()).iter().filter_map(|sni| name::host_pattern(sni).ok()).collect()
}
