//! The listeners of the gateway roles: the servers of every Gateway that selects the workload, each with the
//! route that VirtualServices give it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::rules::{Bound, Leads, gateway_reference};
use super::{Compiler, selects};
use crate::config::name;
use crate::config::resource::Resource;
use crate::config::resource::gateway::{Gateway, Server, ServerMode};
use crate::config::sources::Place;
use crate::config::validate::gateway::{Protocol, protocol};
use crate::config::validate::{covers, items, overlap};
use crate::plan::authorize::Rules;
use crate::plan::route::{HostPattern, SniTable};
use crate::plan::{Accept, DestinationRoute, Entrance, Listener, Role, Route, SniRoute};

/// A host of a server: the namespace whose VirtualServices may bind to it, and the name.
pub(super) struct ServerHost {
    namespace: Option<String>,
    pub name: String,
    place: Place,
}

/// What gathers on one socket.
#[derive(Default)]
struct Socket {
    rows: Vec<SniRoute>,
    plaintext: Option<(Arc<Route>, Place)>,
    claimed: HashMap<String, Place>,
    origin: Option<Place>,
}

impl<'a> Compiler<'a> {
    /// The listeners of a gateway role.
    pub fn gateways(&mut self, role: Role, listeners: &mut Vec<Listener>) {
        let mut sockets: BTreeMap<(SocketAddr, u16), Socket> = BTreeMap::new();
        for gateway in &self.resources.gateways {
            if !selects(gateway.spec.selector.as_ref(), &self.identity(role).labels) {
                continue;
            }
            for server in items(gateway.spec.servers.as_ref()) {
                self.server(role, gateway, server, &mut sockets);
            }
        }
        self.check_references();
        for ((address, port), socket) in sockets {
            let Some(origin) = socket.origin else { continue };
            let entrance = match socket.plaintext {
                Some((route, _)) => {
                    Entrance::Plaintext(vec![DestinationRoute { networks: Vec::new(), route }])
                }
                None => Entrance::Tls(SniTable::new(socket.rows)),
            };
            listeners.push(Listener { role, address, port, entrance, origin: self.origin(origin) });
        }
    }

    fn server(
        &mut self,
        role: Role,
        gateway: &'a Resource<Gateway>,
        server: &'a Server,
        sockets: &mut BTreeMap<(SocketAddr, u16), Socket>,
    ) {
        let Some((port, kind)) = port_of(server) else { return };
        let mode = server
            .tls
            .as_ref()
            .and_then(|tls| tls.mode.as_ref())
            .map_or(ServerMode::Passthrough, |mode| mode.value.0);
        if kind == Protocol::Http || (kind == Protocol::Https && mode != ServerMode::Passthrough) {
            let place = server.port.as_ref().map_or(server.place, |port| port.place);
            self.error(
                place,
                "expected protocol TCP or TLS, found HTTP, whose rules restrict what bytes alone cannot show",
            );
            let bound = self.bound_to(role, gateway, server);
            self.refuse_http(&bound);
            return;
        }
        let bind = server
            .bind
            .as_ref()
            .and_then(|bind| bind.parse().ok())
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let address = self.address(port, bind);
        let accept = match &server.tls {
            Some(tls) => match self.accept(tls) {
                Ok(accept) => accept,
                Err(()) => return,
            },
            None => None,
        };
        if server.name.is_some() {
            let place = server.name.as_ref().map_or(server.place, |name| name.place);
            self.warn(place, "has no effect");
        }
        let socket = sockets.entry((address, port)).or_default();
        self.place(role, gateway, server, (port, accept), address, socket);
    }

    /// Puts a server on its socket, with the route that it has.
    fn place(
        &mut self,
        role: Role,
        gateway: &'a Resource<Gateway>,
        server: &'a Server,
        (port, accept): (u16, Option<Arc<Accept>>),
        address: SocketAddr,
        socket: &mut Socket,
    ) {
        let first = socket.origin.is_none();
        socket.origin = socket.origin.or(Some(server.place));
        let plain = server.tls.is_none();
        if !first && (plain || socket.plaintext.is_some()) {
            self.error(
                server.place,
                format!("expected one server for a port without TLS, found another on {address}"),
            );
            return;
        }
        self.claim(server, gateway, socket);
        if plain {
            if let Some(route) = self.terminated(role, gateway, server, port) {
                socket.plaintext = Some((route, server.place));
            }
        } else if let Some(accept) = accept {
            if let Some(route) = self.terminated(role, gateway, server, port) {
                let hosts = hosts_of(server, gateway).iter().map(pattern).collect();
                socket.rows.push(SniRoute {
                    hosts,
                    networks: Vec::new(),
                    accept: Some(accept),
                    route,
                    origin: self.origin(server.place),
                });
            }
        } else {
            let rows = self.passed_through(role, gateway, server, port);
            for host in rows.iter().flat_map(|row| &row.hosts) {
                socket.claimed.entry(host.to_string()).or_insert(server.place);
            }
            socket.rows.extend(rows);
        }
    }

    /// A name belongs to one server of a port: of two, one would silently vanish.
    fn claim(&mut self, server: &Server, gateway: &Resource<Gateway>, socket: &mut Socket) {
        for host in hosts_of(server, gateway) {
            if let Some(first) = socket.claimed.insert(host.name.clone(), host.place) {
                let first = self.report.sources().line_of(first);
                self.error(
                    host.place,
                    format!("expected a host once a port, found it also at {first}: {:?}", host.name),
                );
            }
        }
    }

    /// The VirtualServices that are bound to a server: through the Gateway and by a host in common.
    pub fn bound_to(&self, role: Role, gateway: &Resource<Gateway>, server: &Server) -> Vec<Bound<'a>> {
        let reference = format!("{}/{}", gateway.namespace, gateway.name);
        let hosts = hosts_of(server, gateway);
        let bound = self.services.of_gateway(&reference, &self.identity(role).namespace);
        let shares = |bound: &Bound<'a>| {
            hosts.iter().any(|host| {
                host.namespace.as_ref().is_none_or(|namespace| *namespace == bound.resource.namespace)
                    && bound.hosts.iter().any(|other| overlap(&host.name, other))
            })
        };
        bound.into_iter().filter(shares).collect()
    }

    /// The one route of a server whose TLS ends here: the first rule that applies.
    fn terminated(
        &mut self,
        role: Role,
        gateway: &Resource<Gateway>,
        server: &Server,
        port: u16,
    ) -> Option<Arc<Route>> {
        let reference = format!("{}/{}", gateway.namespace, gateway.name);
        let bound = self.bound_to(role, gateway, server);
        self.refuse_http(&bound);
        let applying: Vec<_> = bound
            .iter()
            .filter_map(|bound| Some((bound, self.first_tcp_rule(bound, &reference, port)?)))
            .collect();
        let Some((first, deciding)) = applying.first() else {
            self.no_route(server, &bound, "tcp");
            return None;
        };
        for (other, unused) in &applying[1..] {
            let title = format!("{}/{}", first.resource.namespace, first.resource.name);
            let message = format!(
                "has no effect for this port: one server has one route, that of VirtualService {title}"
            );
            let place = unused.place;
            if other.resource.name != first.resource.name
                || other.resource.namespace != first.resource.namespace
            {
                self.warn(place, message);
            }
        }
        let leads = self.leads(role, first, deciding.place, items(deciding.route.as_ref()))?;
        Some(self.guarded(role, &leads, deciding.place))
    }

    /// The route of a gateway, which policies guard.
    fn guarded(&mut self, role: Role, leads: &Leads, place: Place) -> Arc<Route> {
        let policies = self.authorization(role);
        self.route(Rules { policies, ..Rules::default() }, leads, place)
    }

    pub fn route(&self, rules: Rules, leads: &Leads, place: Place) -> Arc<Route> {
        Arc::new(Route {
            rules,
            targets: leads.targets(),
            inner_hops: leads.inner_hops.clone(),
            origin: self.origin(place),
        })
    }

    /// The rows of a server that passes TLS through: one for each `tls` match.
    fn passed_through(
        &mut self,
        role: Role,
        gateway: &Resource<Gateway>,
        server: &Server,
        port: u16,
    ) -> Vec<SniRoute> {
        let reference = format!("{}/{}", gateway.namespace, gateway.name);
        let hosts = hosts_of(server, gateway);
        let bound = self.bound_to(role, gateway, server);
        self.refuse_http(&bound);
        let (mut rows, mut taken): (Vec<SniRoute>, HashSet<String>) = (Vec::new(), HashSet::new());
        for bound in &bound {
            for rule in items(bound.resource.spec.tls.as_ref()) {
                let mut names = Vec::new();
                for matched in items(rule.matches.as_ref()) {
                    if self.matches_at_gateway(bound, matched.into(), &reference, port) {
                        names.extend(self.shown(items(matched.sni_hosts.as_ref()), &hosts));
                    }
                }
                names.retain(|name| taken.insert(name.to_string()));
                if names.is_empty() {
                    continue;
                }
                if let Some(leads) = self.leads(role, bound, rule.place, items(rule.route.as_ref())) {
                    let route = self.guarded(role, &leads, rule.place);
                    rows.push(SniRoute {
                        hosts: names,
                        networks: Vec::new(),
                        accept: None,
                        route,
                        origin: self.origin(rule.place),
                    });
                }
            }
        }
        if taken.is_empty() {
            self.no_route(server, &bound, "tls");
        }
        rows
    }

    /// The names of a match that the server has: Istio would show the others as well.
    fn shown(
        &mut self,
        names: &[crate::config::decode::At<String>],
        hosts: &[ServerHost],
    ) -> Vec<HostPattern> {
        let mut shown = Vec::new();
        for name in names {
            let lower = name.to_ascii_lowercase();
            if hosts.iter().any(|host| covers(&host.name, &lower)) {
                shown.extend(name::host_pattern(&lower));
            } else {
                self.warn(
                    name.place,
                    format!("has no effect: no server of this port has the host {lower:?}"),
                );
            }
        }
        shown
    }

    pub fn no_route(&mut self, server: &Server, bound: &[Bound<'_>], wanted: &str) {
        let help = if bound.is_empty() {
            "no VirtualService that can be seen from here names the Gateway and one of its hosts".to_owned()
        } else {
            let names: Vec<_> = bound
                .iter()
                .map(|bound| format!("{}/{}", bound.resource.namespace, bound.resource.name))
                .collect();
            let mode = if wanted == "tcp" {
                "whose TLS ends here, or has none"
            } else {
                "whose TLS is passed through"
            };
            format!("a server {mode} is routed by {wanted} rules; bound to it: {}", names.join(", "))
        };
        self.error(server.place, format!("expected a {wanted} rule that applies to this server, found none"))
            .help(help);
    }

    /// A gateway that nobody defines is a typing error, unless the hop to it is taken inside the process.
    fn check_references(&mut self) {
        let defined: HashSet<String> = self
            .resources
            .gateways
            .iter()
            .map(|gateway| format!("{}/{}", gateway.namespace, gateway.name))
            .collect();
        let mut problems = Vec::new();
        for (reference, bound) in self.services.references() {
            if reference == crate::config::validate::virtual_service::MESH
                || defined.contains(reference)
                || self.hopped.contains(reference)
            {
                continue;
            }
            let texts = items(bound.resource.spec.gateways.as_ref());
            let text =
                texts.iter().find(|text| gateway_reference(text, &bound.resource.namespace) == reference);
            problems.extend(text.map(|text| (text.place, reference.to_owned())));
        }
        for (place, reference) in problems {
            if self.told.insert((place, reference.clone())) {
                let meant = crate::config::report::similar(&reference, defined.iter().map(String::as_str))
                    .map(str::to_owned);
                let problem = self
                    .error(place, format!("expected a Gateway that some file defines, found {reference:?}"));
                if let Some(meant) = meant {
                    problem.help(format!("did you mean {meant:?}?"));
                }
            }
        }
    }
}

pub(super) fn port_of(server: &Server) -> Option<(u16, Protocol)> {
    let port = server.port.as_ref()?;
    let number = u16::try_from(port.number.as_ref()?.value).ok()?;
    Some((number, protocol(port.protocol.as_ref()?).ok()?))
}

/// The hosts of a server, without their namespaces: `*/*` stands for all.
pub(super) fn hosts_of(server: &Server, gateway: &Resource<Gateway>) -> Vec<ServerHost> {
    let hosts = items(server.hosts.as_ref()).iter().map(|text| {
        let (namespace, name) =
            text.split_once('/').map_or((None, text.as_str()), |(ns, name)| (Some(ns), name));
        let namespace = match namespace {
            None | Some("*") => None,
            Some(".") => Some(gateway.namespace.clone()),
            Some(other) => Some(other.to_owned()),
        };
        ServerHost { namespace, name: name.to_ascii_lowercase(), place: text.place }
    });
    hosts.collect()
}

fn pattern(host: &ServerHost) -> HostPattern {
    match name::host_pattern(&host.name) {
        Ok(HostPattern::Any) => HostPattern::Whatever,
        Ok(pattern) => pattern,
        // An address is never sent as SNI.
        Err(_) => HostPattern::Exact(host.name.clone()),
    }
}
