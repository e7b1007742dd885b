//! How long connections may stay: those whose peer would not be let in any more, and those that are old.
//!
//! Looked at once a tick. A connection that must go does so when nothing moves on it, and at the latest
//! when its time is up; both times differ from connection to connection, so that they do not all come
//! back at once.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::live::{Live, Order, Table, share};
use crate::plan::limits::Limits;

/// Finds connections that must go.
pub struct Tenure {
    grace: Duration,
    age_max: Option<Duration>,
    /// Makes the spread of one process differ from that of the next.
    seed: u64,
    /// When each connection was first seen; kept only where age counts.
    since: HashMap<u64, Instant>,
    leaving: HashMap<u64, Leaving>,
}

/// A connection that must go.
struct Leaving {
    order: Order,
    /// From here on it goes when nothing moves.
    earliest: Instant,
    /// Here it goes.
    latest: Instant,
    /// What had moved when it was last looked at.
    moved: Option<u64>,
}

impl Tenure {
    /// Holds connections to these limits.
    pub fn new(limits: &Limits, seed: u64) -> Self {
        Self {
            grace: limits.revoked_grace,
            age_max: limits.connection_age_max,
            seed,
            since: HashMap::new(),
            leaving: HashMap::new(),
        }
    }

    /// Looks at every connection.
    pub fn tick(&mut self, table: &Table, now: Instant, wall: SystemTime) {
        let table = table.lock();
        self.since.retain(|id, _| table.contains_key(id));
        self.leaving.retain(|id, _| table.contains_key(id));
        for live in table.values() {
            let (known, aged) = (self.leaving.remove(&live.id), self.aged(live, now));
            let order = live.withdrawn(wall).map(|(side, why)| Order::Withdrawn(side, why));
            let leaving = match (order, known) {
                // What its time is does not change, if the reason does.
                (Some(order), Some(known)) if known.order != Order::Aged => Some(Leaving { order, ..known }),
                (Some(order), _) => Some(self.withdrawn(live.id, order, now)),
                (None, Some(known)) if known.order == Order::Aged => Some(known),
                (None, _) => aged,
            };
            if let Some(mut leaving) = leaving {
                if leaving.is_due(live.moved(), now) {
                    live.order(leaving.order);
                }
                self.leaving.insert(live.id, leaving);
            }
        }
    }

    fn withdrawn(&self, id: u64, order: Order, now: Instant) -> Leaving {
        let half = self.grace / 2;
        let (earliest, latest) =
            (now + half.mul_f64(share(self.seed, id, 0)), now + half + half.mul_f64(share(self.seed, id, 1)));
        Leaving { order, earliest, latest, moved: None }
    }

    /// The last tenth of the age that a connection may reach is for the spread.
    fn aged(&mut self, live: &Live, now: Instant) -> Option<Leaving> {
        let age_max = live.age_max(self.age_max)?;
        let since = *self.since.entry(live.id).or_insert(now);
        let latest = since + age_max.mul_f64(1.0 - share(self.seed, live.id, 0) / 10.0);
        let earliest = latest.checked_sub(age_max / 20).unwrap_or(latest);
        (now >= earliest).then_some(Leaving { order: Order::Aged, earliest, latest, moved: None })
    }
}

impl Leaving {
    fn is_due(&mut self, moved: u64, now: Instant) -> bool {
        let quiet = self.moved.replace(moved) == Some(moved);
        now >= self.latest || (quiet && now >= self.earliest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::outcome::{Side, Withdrawal};
    use crate::proxy::live::Live;
    use crate::tls::standing::Register;
    use crate::tls::standing::tests::enter;

    const GRACE: Duration = Duration::from_secs(30);

    fn tenure(age_max: Option<Duration>) -> Tenure {
        Tenure { grace: GRACE, age_max, seed: 7, since: HashMap::new(), leaving: HashMap::new() }
    }

    /// When the certificate of every peer expires, in seconds since 1970.
    const EXPIRY: u64 = 100;

    fn connections(count: u64) -> (Table, Vec<Arc<Live>>) {
        let (table, register) = (Table::default(), Register::default());
        let all: Vec<_> = (1..=count).map(|id| Arc::new(Live::new(id, Arc::default()))).collect();
        for live in &all {
            live.stand(Side::Downstream, enter(&register, 1, Duration::from_secs(EXPIRY)));
            table.enter(live);
        }
        (table, all)
    }

    /// The second in which each connection is told to go, from this one since 1970 on; every second
    /// connection is never quiet.
    fn told(tenure: &mut Tenure, from: u64, count: u64, seconds: u64, order: Order) -> Vec<Option<u64>> {
        let (table, all) = connections(count);
        let start = crate::clock::now();
        let mut told = vec![None; all.len()];
        for second in 0..=seconds {
            all.iter().step_by(2).for_each(|live| live.count(Side::Downstream, 1));
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(from + second);
            tenure.tick(&table, start + Duration::from_secs(second), wall);
            for (live, told) in all.iter().zip(&mut told) {
                if let Some(found) = live.ordered() {
                    assert_eq!(found, order);
                    told.get_or_insert(second);
                }
            }
        }
        told
    }

    fn at_once_at_most(told: &[u64], share: usize) {
        for second in told {
            let together = told.iter().filter(|other| *other == second).count();
            assert!(together <= told.len() / share, "{together} at {second}: {told:?}");
        }
    }

    #[test]
    fn after_a_certificate_expired_its_connections_go_when_quiet_and_within_the_grace() {
        let order = Order::Withdrawn(Side::Downstream, Withdrawal::Expired);
        let told = told(&mut tenure(None), 0, 400, EXPIRY + 40, order);
        let told: Vec<_> = told.into_iter().map(|second| second.expect("all go")).collect();
        let busy: Vec<_> = told.iter().copied().step_by(2).collect();
        let quiet: Vec<_> = told.iter().copied().skip(1).step_by(2).collect();
        // The first second in which it is expired, the half of the grace, and a tick to see that nothing moves.
        assert!(quiet.iter().all(|second| (EXPIRY + 2..=EXPIRY + 17).contains(second)), "{quiet:?}");
        assert!(busy.iter().all(|second| (EXPIRY + 16..=EXPIRY + 31).contains(second)), "{busy:?}");
        at_once_at_most(&quiet, 5);
        at_once_at_most(&busy, 5);
    }

    #[test]
    fn without_a_reason_nobody_goes() {
        assert_eq!(told(&mut tenure(None), 0, 10, EXPIRY, Order::Drained), [None; 10]);
    }

    #[test]
    fn old_connections_go_within_the_last_tenth_and_not_all_at_once() {
        let mut tenure = tenure(Some(Duration::from_secs(80)));
        let told = told(&mut tenure, 0, 200, 80, Order::Aged);
        let told: Vec<_> = told.into_iter().map(|second| second.expect("all go")).collect();
        assert!(told.iter().all(|second| (68..=80).contains(second)), "{told:?}");
        at_once_at_most(&told, 4);
    }

    #[test]
    fn whose_reason_is_gone_may_stay() {
        let (table, all) = connections(1);
        let mut tenure = tenure(None);
        let start = crate::clock::now();
        let order = Order::Withdrawn(Side::Downstream, Withdrawal::Revoked);
        let leaving = tenure.withdrawn(1, order, start);
        assert!(leaving.earliest <= start + GRACE / 2 && leaving.latest <= start + GRACE);
        tenure.leaving.insert(1, leaving);
        tenure.tick(&table, start + GRACE, SystemTime::UNIX_EPOCH);
        assert!(tenure.leaving.is_empty());
        assert_eq!(all[0].ordered(), None);
    }
}
