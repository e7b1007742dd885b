//! What a plan asks of connections that began under another one. Pure.
//!
//! A connection is found again by the hop that it is: the listener it came in at, with the SNI it asked for, or the
//! upstream it went to. A hop that the plan does not know ends as it began.

use std::collections::HashMap;
use std::sync::Arc;

use super::cluster::Cluster;
use super::{Accept, Entrance, Listener, ListenerKey, Originate, Plan, Role, Route};

/// A hop of an open connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hop {
    /// From a client that sent bytes as they are.
    Plain(ListenerKey),
    /// From a client whose TLS ends here, by the SNI that it sent.
    Client(ListenerKey, Option<Box<str>>),
    /// To an upstream, by who goes there and its name.
    Server(Role, Box<str>),
}

/// What is asked at the other end of a hop.
#[derive(Debug)]
pub enum Asked {
    /// No TLS.
    Nothing,
    /// Of a client.
    Client(Arc<Accept>, Arc<Route>),
    /// Of a server.
    Server(Arc<Originate>),
}

/// The hops of a plan.
#[derive(Debug, Default)]
pub struct Hops {
    listeners: HashMap<ListenerKey, Arc<Listener>>,
    clusters: HashMap<(Role, Box<str>), Arc<Cluster>>,
}

impl Hops {
    /// Those of this plan.
    pub fn of(plan: &Plan) -> Self {
        let mut hops = Self::default();
        for listener in &plan.listeners {
            hops.listeners.insert(listener.key(), listener.clone());
        }
        for cluster in plan.clusters() {
            hops.clusters.insert((cluster.role, cluster.name.as_str().into()), cluster.clone());
        }
        hops
    }

    /// What is asked of a hop now; `None` if there is no such hop any more.
    pub fn asks(&self, hop: &Hop) -> Option<Asked> {
        match hop {
            Hop::Plain(listener) => match &self.listeners.get(listener)?.entrance {
                Entrance::Plaintext(_) | Entrance::Permissive(..) => Some(Asked::Nothing),
                Entrance::Tls(table) => table
                    .rows()
                    .iter()
                    .find_map(|row| Some(Asked::Client(row.accept.clone()?, row.route.clone()))),
            },
            Hop::Client(listener, sni) => match &self.listeners.get(listener)?.entrance {
                Entrance::Plaintext(_) => Some(Asked::Nothing),
                Entrance::Permissive(accept, route) => Some(Asked::Client(accept.clone(), route.clone())),
                Entrance::Tls(table) => {
                    // Where TLS ends, the destination does not decide.
                    let row = table.find(sni.as_deref(), || None)?;
                    Some(Asked::Client(row.accept.clone()?, row.route.clone()))
                }
            },
            Hop::Server(role, name) => {
                let cluster = self.clusters.get(&(*role, name.clone()))?;
                Some(match &cluster.originate {
                    Some(originate) => Asked::Server(originate.clone()),
                    None => Asked::Nothing,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::authorize::Rules;
    use crate::plan::policy::TlsPolicy;
    use crate::plan::route::{HostPattern, SniTable};
    use crate::plan::{
        ClientCertificate, CredentialName, DestinationRoute, Host, Origin, ServerIdentity, SniRoute, Target,
        Trust,
    };

    const KEY: ListenerKey =
        ListenerKey::At(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1));

    fn route(originate: bool) -> Arc<Route> {
        let (host, port) = (Host::Name("db.example".into()), 3306);
        let mut cluster =
            Cluster::single(Role::Ingress, "db".into(), host.clone(), port, std::time::Duration::ZERO, "");
        cluster.originate = originate.then(|| {
            Arc::new(Originate {
                credential: None,
                shows_certificate: false,
                trust: Trust::Public,
                sni: None,
                server_name: ServerIdentity::Host(host),
                alpn: &[],
                tls: TlsPolicy::default(),
            })
        });
        Arc::new(Route {
            rules: Rules::default(),
            targets: vec![Target { weight: 1, cluster: Arc::new(cluster) }],
            inner_hops: Vec::new(),
            origin: Origin::default(),
        })
    }

    fn accept() -> Arc<Accept> {
        Arc::new(Accept::by(CredentialName("c".into()), ClientCertificate::Required, TlsPolicy::default()))
    }

    fn row(host: &str, accept: Option<Arc<Accept>>) -> SniRoute {
        SniRoute {
            hosts: vec![HostPattern::Exact(host.into())],
            networks: Vec::new(),
            accept,
            route: route(false),
            origin: Origin::default(),
        }
    }

    fn plaintext(originate: bool) -> Entrance {
        Entrance::Plaintext(vec![DestinationRoute { networks: Vec::new(), route: route(originate) }])
    }

    /// What a plan of one listener asks: `-` for no such hop.
    fn asked(entrance: Entrance, hop: &Hop) -> &'static str {
        let (role, origin) = (Role::Ingress, Origin::default());
        let listener = Listener { role, address: ([127, 0, 0, 1], 1).into(), port: 1, entrance, origin };
        let mut hops = Hops::default();
        for target in listener.routes().into_iter().flat_map(|route| &route.targets) {
            hops.clusters.insert((Role::Ingress, "db".into()), target.cluster.clone());
        }
        hops.listeners.insert(listener.key(), Arc::new(listener));
        match hops.asks(hop) {
            None => "-",
            Some(Asked::Nothing) => "nothing",
            Some(Asked::Client(..)) => "client",
            Some(Asked::Server(_)) => "server",
        }
    }

    #[test]
    fn a_client_is_asked_what_its_listener_and_its_name_are_asked_now() {
        let client = |name: &str| Hop::Client(KEY, Some(name.into()));
        let table =
            || Entrance::Tls(SniTable::new(vec![row("a.example", Some(accept())), row("b.example", None)]));
        for (hop, expected) in [
            (client("a.example"), "client"),
            (client("b.example"), "-"),
            (client("c.example"), "-"),
            (Hop::Client(KEY, None), "-"),
            (Hop::Plain(KEY), "client"),
            (Hop::Client(ListenerKey::Anywhere(Role::Ingress, [127, 0, 0, 1].into(), 1), None), "-"),
        ] {
            assert_eq!(asked(table(), &hop), expected, "{hop:?}");
        }
        let passed_through = Entrance::Tls(SniTable::new(vec![row("b.example", None)]));
        assert_eq!(asked(passed_through, &Hop::Plain(KEY)), "-");
        let permissive = || Entrance::Permissive(accept(), route(false));
        assert_eq!(asked(permissive(), &client("a.example")), "client");
        assert_eq!(asked(permissive(), &Hop::Plain(KEY)), "nothing");
        assert_eq!(asked(plaintext(false), &client("a.example")), "nothing");
    }

    #[test]
    fn a_server_is_asked_what_its_upstream_is_asked_now() {
        let hop = |role, name: &str| Hop::Server(role, name.into());
        for (entrance, hop, expected) in [
            (plaintext(false), hop(Role::Ingress, "db"), "nothing"),
            (plaintext(true), hop(Role::Ingress, "db"), "server"),
            (plaintext(true), hop(Role::Egress, "db"), "-"),
            (plaintext(true), hop(Role::Ingress, "other"), "-"),
        ] {
            assert_eq!(asked(entrance, &hop), expected, "{hop:?}");
        }
    }
}
