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
