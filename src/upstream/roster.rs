//! The endpoints of an upstream as they are now, and what is known of each: how many connections it has, and
//! whether it fails.
//!
//! What is known belongs to an address and port, not to a plan or an answer of DNS: a roster that is made anew
//! finds it again.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::balance::{self, Candidate, Draw};
use super::health::{self, Health};
use crate::plan::Host;
use crate::plan::cluster::{Cluster, Endpoint, Resolution};

/// The endpoints of one upstream.
pub struct Roster {
    cluster: Arc<Cluster>,
    /// The answers for the names among the endpoints of the plan, in their order.
    answers: Vec<Answer>,
    members: Vec<Member>,
}

/// The addresses of an endpoint's name; `None` where it has none, or is an address itself.
pub type Answer = Option<Arc<[IpAddr]>>;

/// One endpoint.
pub struct Member {
    weight: u32,
    /// Where it is: of several addresses the first that answers is taken.
    pub addresses: Vec<SocketAddr>,
    /// What is known of it.
    pub place: Arc<Place>,
}

/// What is known of a place, shared by all connections to it.
pub struct Place {
    /// Host or address, and port.
    pub name: String,
    key: u64,
    active: AtomicUsize,
    /// Whether `health` says anything: of most places there is nothing to ask.
    troubled: AtomicBool,
    health: Mutex<Health>,
}

impl Place {
    /// A place of which nothing is known yet.
    pub fn new(name: String) -> Self {
        let (key, active) = (balance::key(name.as_bytes()), AtomicUsize::new(0));
        Self { name, key, active, troubled: AtomicBool::new(false), health: Mutex::default() }
    }

    /// Whether something would be lost if it were forgotten.
    pub fn is_worth_keeping(&self, now: Instant) -> bool {
        self.active.load(Ordering::Acquire) > 0 || self.is_ejected(now)
    }

    /// It was reached, and shook hands where that was asked of it.
    pub fn succeeded(&self) {
        if self.troubled.load(Ordering::Acquire) {
            self.health().succeeded();
        }
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.troubled.load(Ordering::Acquire) && self.health().is_ejected(now)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a place, counted until it is dropped.
pub struct Visit(Arc<Place>);

impl Visit {
    /// Counts one more.
    pub fn to(place: &Arc<Place>) -> Self {
        place.active.fetch_add(1, Ordering::AcqRel);
        Self(place.clone())
    }

    /// Where it goes.
    pub fn place(&self) -> &Place {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Roster {
    /// The roster for these answers; `known` finds what is known of a place by its name.
    pub fn new(
        cluster: Arc<Cluster>,
        answers: Vec<Answer>,
        mut known: impl FnMut(String) -> Arc<Place>,
    ) -> Self {
        let mut members = Vec::new();
        for (endpoint, answer) in cluster.endpoints.iter().zip(&answers) {
            let found = places(endpoint, answer.as_deref(), cluster.resolution);
            members.extend(found.into_iter().map(|(name, addresses)| {
                let place = known(name);
                Member { weight: endpoint.weight, addresses, place }
            }));
        }
        Self { cluster, answers, members }
    }

    /// Whether it is still right: for the same part of the same plan, with the answers that a name has now.
    pub fn is_current(&self, cluster: &Arc<Cluster>, now: impl Fn(&str) -> Answer) -> bool {
        let same = |(endpoint, answer): (&Endpoint, &Answer)| match (&endpoint.host, answer) {
            (Host::Address(_), _) => true,
            (Host::Name(name), Some(answer)) => now(name).is_some_and(|now| Arc::ptr_eq(&now, answer)),
            (Host::Name(_), None) => false,
        };
        Arc::ptr_eq(&self.cluster, cluster) && cluster.endpoints.iter().zip(&self.answers).all(same)
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// An endpoint.
    pub fn member(&self, index: usize) -> Option<&Member> {
        self.members.get(index)
    }

    /// The endpoint for a connection, of those that it has not tried and that are not ejected.
    pub fn choose(&self, tried: &[usize], draw: Draw, now: Instant) -> Option<usize> {
        let outliers = self.cluster.outliers.as_ref();
        let all_used =
            outliers.is_none_or(|outliers| health::uses_all(outliers, self.ejected(now), self.members.len()));
        let candidate = |index: usize| {
            let Member { weight, place, .. } = self.members.get(index)?;
            let usable = !tried.contains(&index) && (all_used || !place.is_ejected(now));
            let active = place.active.load(Ordering::Relaxed);
            usable.then_some(Candidate { weight: *weight, active, key: place.key })
        };
        balance::choose(self.cluster.balance, self.members.len(), candidate, draw)
    }

    fn ejected(&self, now: Instant) -> usize {
        self.members.iter().filter(|member| member.place.is_ejected(now)).count()
    }

    /// A place could not be reached, or did not shake hands.
    pub fn failed(&self, place: &Place, why: &str, now: Instant) {
        let Some(outliers) = &self.cluster.outliers else { return };
        let room = health::has_room(outliers, self.ejected(now), self.members.len());
        place.troubled.store(true, Ordering::Release);
        let ejected = place.health().failed(outliers, now, room);
        if let Some(lasts) = ejected {
            let (upstream, endpoint, failures) = (&self.cluster.name, &place.name, outliers.failures);
            tracing::warn!(%upstream, %endpoint, "endpoint ejected for {lasts:?} after {failures} failures in a row, the last: {why}");
        }
    }
}

/// The places that an endpoint of the plan stands for: the name of each, and its addresses.
fn places(
    endpoint: &Endpoint,
    answer: Option<&[IpAddr]>,
    resolution: Resolution,
) -> Vec<(String, Vec<SocketAddr>)> {
    let single = |address: IpAddr| {
        let address = SocketAddr::new(address, endpoint.port);
        (address.to_string(), vec![address])
    };
    match (&endpoint.host, answer, resolution) {
        (Host::Address(address), _, _) => vec![single(*address)],
        (Host::Name(_), None, _) => Vec::new(),
        (Host::Name(name), Some(answer), Resolution::OneEndpoint) => {
            let addresses = answer.iter().map(|address| SocketAddr::new(*address, endpoint.port)).collect();
            vec![(format!("{name}:{}", endpoint.port), addresses)]
        }
        (Host::Name(_), Some(answer), Resolution::Endpoints) => {
            // Of a name with both, the addresses of either family are the same servers.
            let of_one_family = |address: &&IpAddr| address.is_ipv4() || !answer.iter().any(IpAddr::is_ipv4);
            let mut addresses: Vec<IpAddr> = answer.iter().filter(of_one_family).copied().collect();
            // Servers of DNS turn their answers round; that changes nothing.
            addresses.sort_unstable();
            addresses.dedup();
            addresses.into_iter().map(single).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, answer: Option<&[&str]>, resolution: Resolution, expected: &[(&str, &[&str])]) {
        let host = host.parse().map_or_else(|_| Host::Name(host.into()), Host::Address);
        let endpoint = Endpoint { host, port: 1, weight: 1 };
        let answer: Option<Vec<IpAddr>> =
            answer.map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect());
        let found = places(&endpoint, answer.as_deref(), resolution);
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, addresses)| {
                ((*name).to_owned(), addresses.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_addresses_of_a_name_are_endpoints_or_ways_to_one() {
        let both: &[&str] = &["10.0.0.2", "10.0.0.1", "fd00::1"];
        check(
            "db.example",
            Some(both),
            Resolution::Endpoints,
            &[("10.0.0.1:1", &["10.0.0.1:1"]), ("10.0.0.2:1", &["10.0.0.2:1"])],
        );
        check(
            "db.example",
            Some(both),
            Resolution::OneEndpoint,
            &[("db.example:1", &["10.0.0.2:1", "10.0.0.1:1", "[fd00::1]:1"])],
        );
        check("db.example", Some(&["fd00::1"]), Resolution::Endpoints, &[("[fd00::1]:1", &["[fd00::1]:1"])]);
        check("db.example", None, Resolution::Endpoints, &[]);
        check("10.0.0.9", None, Resolution::Endpoints, &[("10.0.0.9:1", &["10.0.0.9:1"])]);
    }
}
