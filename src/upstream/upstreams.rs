//! What is known of every upstream while the gateway runs: its connections, whose turn it is, its endpoints.
//!
//! Kept by role and name, so that a new plan goes on with what the old one learned; a plan's limits and
//! algorithms are never kept here. Workers share it without a lock unless an endpoint is in trouble or the
//! endpoints have changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::task::JoinSet;

use super::resolve::Resolver;
use super::roster::{Answer, Place, Roster};
use crate::clock;
use crate::plan::cluster::Cluster;
use crate::plan::{Plan, Role};

/// The upstreams of a process.
pub struct Upstreams {
    /// Names to addresses.
    pub resolver: Resolver,
    known: ArcSwap<Known>,
}

type Known = HashMap<Role, HashMap<String, Arc<Upstream>>>;

/// What is known of one upstream.
#[derive(Default)]
pub struct Upstream {
    connections: Arc<AtomicUsize>,
    turn: AtomicU64,
    roster: ArcSwapOption<Roster>,
    places: Mutex<HashMap<String, Arc<Place>>>,
}

impl Upstreams {
    /// Nothing is known yet.
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver, known: ArcSwap::default() }
    }

    /// Goes on with a plan: of the upstreams that it names what is known stays, the others are forgotten when
    /// their last connection ends. Names of which nothing is known are asked for.
    pub fn adopt(&self, plan: &Plan) {
        let before = self.known.load();
        let mut known = Known::new();
        for cluster in plan.clusters() {
            let upstream = find(&before, cluster).unwrap_or_default();
            for endpoint in &cluster.endpoints {
                drop(self.resolver.current(&endpoint.host));
            }
            known.entry(cluster.role).or_default().insert(cluster.name.clone(), upstream);
        }
        self.known.store(Arc::new(known));
    }

    /// What is known of an upstream; one of a plan that was left starts anew.
    pub fn of(&self, cluster: &Cluster) -> Arc<Upstream> {
        find(&self.known.load(), cluster).unwrap_or_default()
    }
}

fn find(known: &Known, cluster: &Cluster) -> Option<Arc<Upstream>> {
    known.get(&cluster.role)?.get(&cluster.name).cloned()
}

impl Upstream {
    /// Counts a connection; `None` at the limit.
    pub fn enter(&self, limit: Option<usize>) -> Option<Slot> {
        let slot = Slot(self.connections.clone());
        let before = self.connections.fetch_add(1, Ordering::AcqRel);
        limit.is_none_or(|limit| before < limit).then_some(slot)
    }

    /// How many connections came before, for those that take turns.
    pub fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The endpoints as they are now; or why there is none.
    pub async fn roster(&self, cluster: &Arc<Cluster>, resolver: &Resolver) -> Result<Arc<Roster>, String> {
        let current = self.roster.load();
        if let Some(roster) = &*current
            && roster.is_current(cluster, |name| resolver.remembered(name))
        {
            return Ok(roster.clone());
        }
        drop(current);
        let roster = Arc::new(self.enroll(cluster, answers(cluster, resolver).await?));
        self.roster.store(Some(roster.clone()));
        Ok(roster)
    }

    fn enroll(&self, cluster: &Arc<Cluster>, answers: Vec<Answer>) -> Roster {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let roster = Roster::new(cluster.clone(), answers, |name| {
            places.entry(name).or_insert_with_key(|name| Arc::new(Place::new(name.clone()))).clone()
        });
        let now = clock::now();
        // Without those that are gone and of which nothing is left to know.
        places.retain(|_, place| Arc::strong_count(place) > 1 || place.is_worth_keeping(now));
        roster
    }
}

/// What is known of the endpoints' names; if nothing is, what is known once the first of them is answered. A name
/// that nobody answers for keeps no connection from the endpoints that there are.
async fn answers(cluster: &Arc<Cluster>, resolver: &Resolver) -> Result<Vec<Answer>, String> {
    let all = || -> Vec<Answer> {
        cluster.endpoints.iter().map(|endpoint| resolver.current(&endpoint.host)).collect()
    };
    let answers = all();
    if answers.iter().any(Option::is_some) {
        return Ok(answers);
    }
    let mut asked = JoinSet::new();
    for (index, endpoint) in cluster.endpoints.iter().enumerate() {
        let (resolver, host) = (resolver.clone(), endpoint.host.clone());
        asked.spawn(async move { (index, resolver.resolve(&host).await) });
    }
    let mut failure = format!("expected an endpoint, found none: {}", cluster.name);
    while let Some(ended) = asked.join_next().await {
        match ended {
            Ok((index, Ok(answer))) => {
                let mut answers = all();
                // It may be an old one, which serves because no other can be had.
                answers[index] = Some(answer);
                return Ok(answers);
            }
            Ok((_, Err(why))) => failure = why,
            Err(_) => {}
        }
    }
    Err(failure)
}

/// A connection to an upstream, counted until it is dropped.
pub struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
