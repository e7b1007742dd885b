//! A hop between two roles of one process: nothing is sent, the route of the far end is followed.

use std::collections::HashSet;
use std::sync::Arc;

use super::cluster::Wanted;
use super::gateway::{hosts_of, port_of};
use super::rules::{Bound, Leads, gateway_reference};
use super::{Compiler, selects};
use crate::config::resource::Resource;
use crate::config::resource::destination_rule::ClientMode;
use crate::config::resource::gateway::{Gateway, Server};
use crate::config::validate::virtual_service::MESH;
use crate::config::validate::{covers, items, overlap};
use crate::plan::{Accept, InnerHop, Role};

impl<'a> Compiler<'a> {
    /// The gateway role of this process that answers to a host, seen from another of its roles.
    pub fn inner_role(&self, from: Role, host: &str) -> Option<Role> {
        let roles = [(Role::Egress, "istio-egressgateway"), (Role::Ingress, "istio-ingressgateway")];
        let found = roles.into_iter().find(|(role, stock)| {
            let Some(identity) = self.workload.roles.get(role) else { return false };
            let stock = format!("{stock}.{}.svc.{}", identity.namespace, self.workload.domain);
            let by_selector = self.resources.services.iter().any(|service| {
                let own = format!("{}.{}.svc.{}", service.name, service.namespace, self.workload.domain);
                let selects_something =
                    service.spec.selector.as_ref().is_some_and(|selector| !selector.value.0.is_empty());
                own == host
                    && service.namespace == identity.namespace
                    && selects_something
                    && selects(service.spec.selector.as_ref(), &identity.labels)
            });
            host == stock || by_selector
        });
        found.map(|(role, _)| role).filter(|role| *role != from)
    }

    /// Follows the route of the gateway as if the hop had been made: the mesh's TLS at both ends, so that
    /// nothing is left out that either end would have checked.
    pub fn inner_hop(&mut self, far: Role, wanted: &Wanted) -> Option<Leads> {
        let Some(port) = wanted.port else {
            self.error(wanted.place, "expected a port for the hop to a gateway, found none");
            return None;
        };
        if let [first, ..] = &*self.authorization(far) {
            let message = format!(
                "expected no policy for a hop that is taken inside this process, where nobody is left to judge, found {first}"
            );
            self.error(wanted.place, message).help("run the roles as processes of their own");
            return None;
        }
        let identity = self.identity(wanted.role);
        let namespace = self.namespace_of(&wanted.host);
        let policy =
            self.policies.effective(&wanted.host, &namespace, identity, port, wanted.subset.as_deref());
        let Ok(policy) = policy else {
            // The upstream it would be tells what is wrong.
            self.cluster(wanted);
            return None;
        };
        for place in &policy.shadowed {
            self.warn(*place, "has no effect on this port: its port-level entry is taken whole");
        }
        let of_connections = [
            policy.balancer.map(|part| part.place),
            policy.pool.map(|part| part.place),
            policy.outlier.map(|part| part.place),
            policy.proxy_protocol.map(|part| part.place),
        ];
        for place in of_connections.into_iter().flatten() {
            self.warn(place, "has no effect on a hop that is taken inside this process");
        }
        let mesh = policy
            .tls
            .filter(|tls| tls.mode.as_ref().is_some_and(|mode| mode.value.0 == ClientMode::IstioMutual));
        let sni = mesh.and_then(|tls| tls.sni.as_ref()).map(|sni| sni.to_ascii_lowercase());
        let Some(sni) = sni else {
            self.error(wanted.place, "expected ISTIO_MUTUAL with an sni in the DestinationRule for a hop that is taken inside this process, found none");
            return None;
        };
        let mut leads = match self.inner_server(far, port, &sni) {
            Some((gateway, server)) => self.through_server(far, gateway, server, port, wanted)?,
            None => self.through_undefined(far, port, &sni, wanted)?,
        };
        if let Some(hop) = leads.inner_hops.first_mut() {
            hop.sni = Some(sni);
            hop.origin = self.origin(wanted.place);
        }
        Some(leads)
    }

    fn inner_server(&self, far: Role, port: u16, sni: &str) -> Option<(&'a Resource<Gateway>, &'a Server)> {
        let labels = &self.identity(far).labels;
        let gateways =
            self.resources.gateways.iter().filter(|gateway| selects(gateway.spec.selector.as_ref(), labels));
        let mut servers = gateways.flat_map(|gateway| {
            items(gateway.spec.servers.as_ref()).iter().map(move |server| (gateway, server))
        });
        servers.find(|(gateway, server)| {
            let here = port_of(server).is_some_and(|(number, _)| number == port);
            here && hosts_of(server, gateway).iter().any(|host| covers(&host.name, sni))
        })
    }

    fn through_server(
        &mut self,
        far: Role,
        gateway: &'a Resource<Gateway>,
        server: &'a Server,
        port: u16,
        wanted: &Wanted,
    ) -> Option<Leads> {
        let accept: Option<Arc<Accept>> = self.accept(server.tls.as_ref()?).ok()?;
        let in_mesh = accept.is_some_and(|accept| *accept == self.mesh_accept());
        if !in_mesh {
            self.error(wanted.place, "expected ISTIO_MUTUAL at both ends of a hop that is taken inside this process, found something else at the gateway");
            return None;
        }
        let reference = format!("{}/{}", gateway.namespace, gateway.name);
        let bound = self.bound_to(far, gateway, server);
        let found =
            bound.iter().find_map(|bound| Some((bound, self.first_tcp_rule(bound, &reference, port)?)));
        let Some((bound, rule)) = found else {
            self.no_route(server, &bound, "tcp");
            return None;
        };
        let leads = self.leads(far, bound, rule.place, items(rule.route.as_ref()))?;
        Some(behind(leads, reference, port))
    }

    /// A gateway that VirtualServices name and no file defines: its rules for the port apply all the same.
    fn through_undefined(&mut self, far: Role, port: u16, sni: &str, wanted: &Wanted) -> Option<Leads> {
        let defined: HashSet<String> = self
            .resources
            .gateways
            .iter()
            .map(|gateway| format!("{}/{}", gateway.namespace, gateway.name))
            .collect();
        let references: Vec<(String, Bound<'a>)> = self
            .services
            .references()
            .map(|(reference, bound)| (reference.to_owned(), bound.clone()))
            .collect();
        for (reference, bound) in references {
            let named = reference != MESH && !defined.contains(&reference);
            if !named || !bound.hosts.iter().any(|host| overlap(host, sni)) {
                continue;
            }
            let Some(rule) = self.first_tcp_rule(&bound, &reference, port) else { continue };
            let texts = items(bound.resource.spec.gateways.as_ref());
            let text =
                texts.iter().find(|text| gateway_reference(text, &bound.resource.namespace) == reference);
            let place = text.map_or(rule.place, |text| text.place);
            self.hopped.insert(reference.clone());
            self.warn(place, format!("no file defines this Gateway; the hop to it is taken inside this process, by its rules for port {port}"));
            let leads = self.leads(far, &bound, rule.place, items(rule.route.as_ref()))?;
            return Some(behind(leads, reference, port));
        }
        self.error(
            wanted.place,
            format!("expected a Gateway of role {far} with port {port} and host {sni}, found none"),
        );
        None
    }
}

fn behind(mut leads: Leads, gateway: String, port: u16) -> Leads {
    leads.inner_hops.insert(0, InnerHop { gateway, port, sni: None, origin: crate::plan::Origin::default() });
    leads
}
