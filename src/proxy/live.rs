//! What the rest of the process may know of, and do to, a connection while it runs: its byte counts,
//! and the order to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use crate::plan::cluster::{Cluster, Idle};
use crate::plan::outcome::{Outcome, Side, Withdrawal};
use crate::telemetry::counts::ListenerCounts;
use crate::tls::standing::Standing;

/// A connection that is open.
pub struct Live {
    /// Counts the connections of the process.
    pub id: u64,
    from_downstream: AtomicU64,
    from_upstream: AtomicU64,
    /// Of these bytes, those that the listener has been told of.
    told: [AtomicU64; 2],
    /// What is counted at the listener that it came through.
    pub counts: Arc<ListenerCounts>,
    relaying: AtomicBool,
    blind: AtomicBool,
    look: AtomicBool,
    rekey: AtomicBool,
    order: AtomicU8,
    waker: Mutex<Option<Waker>>,
    /// The upstream that says how long the connection may last.
    terms: OnceLock<Arc<Cluster>>,
    /// The peers of the two hops, where they proved who they are: shared by all their connections.
    standing: [OnceLock<Arc<Standing>>; 2],
}

/// Why a connection is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The drain deadline passed.
    Drained,
    /// Nothing moved for the idle timeout.
    Idle,
    /// It has reached its age.
    Aged,
    /// What let the peer of this side in does so no more.
    Withdrawn(Side, Withdrawal),
}

impl Order {
    /// The outcome of a connection that obeyed.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Drained => Outcome::Drained,
            Self::Idle => Outcome::IdleTimeout,
            Self::Aged => Outcome::Aged,
            Self::Withdrawn(side, why) => Outcome::Withdrawn(side, why),
        }
    }

    /// Every order; its place, from 1, is what a connection keeps of it.
    const ALL: [Self; 11] = [
        Self::Drained,
        Self::Idle,
        Self::Aged,
        Self::Withdrawn(Side::Downstream, Withdrawal::Expired),
        Self::Withdrawn(Side::Downstream, Withdrawal::Revoked),
        Self::Withdrawn(Side::Downstream, Withdrawal::Ca),
        Self::Withdrawn(Side::Downstream, Withdrawal::Permission),
        Self::Withdrawn(Side::Upstream, Withdrawal::Expired),
        Self::Withdrawn(Side::Upstream, Withdrawal::Revoked),
        Self::Withdrawn(Side::Upstream, Withdrawal::Ca),
        Self::Withdrawn(Side::Upstream, Withdrawal::Permission),
    ];

    fn code(self) -> u8 {
        let place = Self::ALL.iter().position(|order| *order == self);
        place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(1)
    }
}

impl Live {
    /// A connection that has just been accepted.
    pub fn new(id: u64, counts: Arc<ListenerCounts>) -> Self {
        Self {
            id,
            from_downstream: AtomicU64::default(),
            from_upstream: AtomicU64::default(),
            told: Default::default(),
            counts,
            relaying: AtomicBool::default(),
            blind: AtomicBool::default(),
            look: AtomicBool::default(),
            rekey: AtomicBool::default(),
            order: AtomicU8::default(),
            waker: Mutex::default(),
            terms: OnceLock::default(),
            standing: Default::default(),
        }
    }

    /// Counts bytes that came in on a side. Only the connection's own task writes, so this is a load
    /// and a store, not a locked addition.
    pub fn count(&self, from: Side, bytes: usize) {
        let counter = self.counter(from);
        counter.store(counter.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that came in on a side so far.
    pub fn bytes(&self, from: Side) -> u64 {
        self.counter(from).load(Ordering::Relaxed)
    }

    /// Bytes that came in on either side so far.
    pub fn moved(&self) -> u64 {
        self.bytes(Side::Downstream) + self.bytes(Side::Upstream)
    }

    /// Tells the listener of the bytes that came in since it was last told. Only the worker's thread does, so that
    /// none is told twice.
    pub fn tell_bytes(&self) {
        for (side, told) in [Side::Downstream, Side::Upstream].into_iter().zip(&self.told) {
            let bytes = self.bytes(side);
            let before = told.swap(bytes, Ordering::Relaxed);
            if bytes > before {
                self.counts.add_bytes(side, bytes - before);
            }
        }
    }

    /// Keeps the standing of a peer that was let in.
    pub fn stand(&self, side: Side, standing: Arc<Standing>) {
        // A side has one handshake.
        let _ = self.standing(side).set(standing);
    }

    /// Holds the connection to what an upstream says of how long it may last.
    pub fn hold_to(&self, cluster: &Arc<Cluster>) {
        // A connection is routed once.
        let _ = self.terms.set(cluster.clone());
    }

    /// How long nothing may move, where the process says `usual`; `None` for as long as it likes.
    pub fn idle_timeout(&self, usual: Option<Duration>) -> Option<Duration> {
        match self.terms.get().map_or(Idle::AsProcess, |cluster| cluster.pool.idle) {
            Idle::AsProcess => usual,
            Idle::Never => None,
            Idle::After(timeout) => Some(timeout),
        }
    }

    /// How old the connection may become, where the process says `usual`.
    pub fn age_max(&self, usual: Option<Duration>) -> Option<Duration> {
        let own = self.terms.get().and_then(|cluster| cluster.pool.age_max);
        usual.into_iter().chain(own).min()
    }

    /// Which peer would not be let in any more, and why.
    pub fn withdrawn(&self, now: SystemTime) -> Option<(Side, Withdrawal)> {
        [Side::Downstream, Side::Upstream]
            .into_iter()
            .find_map(|side| Some((side, self.standing(side).get()?.withdrawn(now)?)))
    }

    fn standing(&self, side: Side) -> &OnceLock<Arc<Standing>> {
        match side {
            Side::Downstream => &self.standing[0],
            Side::Upstream => &self.standing[1],
        }
    }

    fn counter(&self, from: Side) -> &AtomicU64 {
        match from {
            Side::Downstream => &self.from_downstream,
            Side::Upstream => &self.from_upstream,
        }
    }

    /// The connection is set up; from now on silence counts towards the idle timeout.
    pub fn relaying(&self) {
        self.relaying.store(true, Ordering::Relaxed);
    }

    /// Says whether there is a socket of which something could go unheard: one that the connection does not
    /// read from at the moment, because its peer has ended or the other side takes nothing, so that nobody
    /// would hear of its reset; or one whose last read was cut short and that may hold more. Such a
    /// connection is told at the next tick to look for itself.
    pub fn blind(&self, blind: bool) {
        self.blind.store(blind, Ordering::Relaxed);
    }

    /// Whether the connection has been told to look for itself.
    pub fn told_to_look(&self) -> bool {
        self.look.load(Ordering::Relaxed) && self.look.swap(false, Ordering::Relaxed)
    }

    /// Whether the connection has been told to go on with new keys.
    pub fn told_to_rekey(&self) -> bool {
        self.rekey.load(Ordering::Relaxed) && self.rekey.swap(false, Ordering::Relaxed)
    }

    /// Tells the connection to go on with new keys.
    pub fn rekey(&self) {
        self.rekey.store(true, Ordering::Relaxed);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// Whether it is set up, and relays.
    pub fn is_relaying(&self) -> bool {
        self.relaying.load(Ordering::Relaxed)
    }

    /// The order to end, if there is one.
    pub fn ordered(&self) -> Option<Order> {
        let code = usize::from(self.order.load(Ordering::Acquire));
        Order::ALL.get(code.checked_sub(1)?).copied()
    }

    /// Whom to wake when an order comes. A task keeps its waker, so this writes once.
    pub fn listen(&self, waker: &Waker) {
        let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Tells the connection to end.
    pub fn order(&self, order: Order) {
        self.order.store(order.code(), Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

/// The open connections of one worker.
#[derive(Default)]
pub struct Table(Mutex<HashMap<u64, Arc<Live>>>);

impl Table {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection.
    pub fn enter(&self, live: &Arc<Live>) {
        self.lock().insert(live.id, live.clone());
    }

    /// Strikes a connection out.
    pub fn leave(&self, id: u64) {
        let mut table = self.lock();
        table.remove(&id);
        // A burst leaves a large table behind; give it back when most of it is empty.
        if table.capacity() > 1024 && table.len() < table.capacity() / 8 {
            table.shrink_to_fit();
        }
    }

    /// Tells every connection to end, and says how many there were.
    pub fn order_all(&self, order: Order) -> usize {
        let table = self.lock();
        table.values().for_each(|live| live.order(order));
        table.len()
    }
}

impl Table {
    /// Tells the listeners of the bytes that came in.
    pub fn tell_bytes(&self) {
        self.lock().values().for_each(|live| live.tell_bytes());
    }

    /// Tells the connections that would not hear of a reset to look for themselves.
    pub fn wake_blind(&self) {
        for live in self.lock().values().filter(|live| live.blind.load(Ordering::Relaxed)) {
            live.look.store(true, Ordering::Relaxed);
            if let Some(waker) = &*live.waker.lock().unwrap_or_else(PoisonError::into_inner) {
                waker.wake_by_ref();
            }
        }
    }
}

/// Finds connections on which nothing moves, by looking at byte counts once a tick: no timer and no
/// clock on the path of the bytes.
pub struct IdleWatch {
    /// For connections whose upstream says nothing else.
    usual: Option<Duration>,
    /// Makes the spread of one process differ from that of the next.
    seed: u64,
    seen: HashMap<u64, (u64, Instant)>,
}

impl IdleWatch {
    /// A watch with this timeout.
    pub fn new(usual: Option<Duration>, seed: u64) -> Self {
        Self { usual, seed, seen: HashMap::new() }
    }

    /// Looks at every connection and ends those that were silent for the timeout, or for up to a tenth longer:
    /// those that fell silent together do not all come back together.
    pub fn tick(&mut self, table: &Table, now: Instant) {
        let table = table.lock();
        self.seen.retain(|id, _| table.contains_key(id));
        for live in table.values().filter(|live| live.relaying.load(Ordering::Relaxed)) {
            let Some(timeout) = live.idle_timeout(self.usual) else { continue };
            let bytes = live.moved();
            let (last, since) = self.seen.entry(live.id).or_insert((bytes, now));
            if *last != bytes {
                (*last, *since) = (bytes, now);
            } else if now.duration_since(*since) >= timeout.mul_f64(1.0 + share(self.seed, live.id, 2) / 10.0)
            {
                live.order(Order::Idle);
            }
        }
    }
}

/// A number from 0 to 1, another one for each connection and purpose (splitmix64).
pub(super) fn share(seed: u64, id: u64, purpose: u64) -> f64 {
    let mut mixed = seed ^ (id << 2 | purpose).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let bits = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silent_connection_is_ended_and_only_after_the_timeout() {
        let table = Table::default();
        let (silent, busy, starting) = (
            Arc::new(Live::new(1, Arc::default())),
            Arc::new(Live::new(2, Arc::default())),
            Arc::new(Live::new(3, Arc::default())),
        );
        for live in [&silent, &busy, &starting] {
            table.enter(live);
        }
        silent.relaying();
        busy.relaying();
        let start = crate::clock::now();
        let mut watch = IdleWatch::new(Some(Duration::from_secs(30)), 7);
        for second in 0..=33 {
            assert!(second > 30 || silent.ordered().is_none(), "at {second} s");
            busy.count(Side::Upstream, 1);
            watch.tick(&table, start + Duration::from_secs(second));
        }
        assert_eq!(silent.ordered(), Some(Order::Idle));
        assert_eq!((busy.ordered(), starting.ordered()), (None, None));
        table.leave(1);
        assert_eq!(table.order_all(Order::Drained), 2);
        assert_eq!(busy.ordered(), Some(Order::Drained));
    }

    #[test]
    fn what_the_upstream_says_of_idle_connections_counts_before_what_the_process_says() {
        let table = Table::default();
        let said = |id, idle| {
            let live = Arc::new(Live::new(id, Arc::default()));
            let (name, nowhere) = (String::new(), Host::Name(String::new()));
            let single = Cluster::single(Role::Egress, name, nowhere, 1, Duration::ZERO, "");
            live.hold_to(&Arc::new(Cluster { pool: Pool { idle, ..Pool::default() }, ..single }));
            live.relaying();
            table.enter(&live);
            live
        };
        let (usual, never) = (said(1, Idle::AsProcess), said(2, Idle::Never));
        let soon = said(3, Idle::After(Duration::from_secs(1)));
        let start = crate::clock::now();
        let mut watch = IdleWatch::new(Some(Duration::from_secs(10)), 7);
        let ended = |watch: &mut IdleWatch, second| {
            watch.tick(&table, start + Duration::from_secs(second));
            [&usual, &never, &soon].map(|live| live.ordered() == Some(Order::Idle))
        };
        assert_eq!(ended(&mut watch, 0), [false; 3]);
        assert_eq!(ended(&mut watch, 2), [false, false, true]);
        assert_eq!(ended(&mut watch, 11), [true, false, true]);
        assert_eq!(ended(&mut watch, 1000), [true, false, true]);
    }

    use crate::plan::cluster::Pool;
    use crate::plan::{Host, Role};
}
