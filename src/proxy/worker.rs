//! A worker: one thread, one single-threaded runtime, and the connections that live and die on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::live::{IdleWatch, Live, Order, Table};
use super::rekey::Rekey;
use super::tally::{Counts, Kind, Tally};
use super::tenure::Tenure;
use crate::clock;
use crate::plan::limits::Limits;
use crate::plan::outcome::Outcome;
use crate::telemetry::counts::ListenerCounts;
use crate::tls;

/// How often a worker looks at its connections.
const TICK: Duration = Duration::from_secs(1);

/// The workers of a process.
pub struct Workers {
    all: Vec<Arc<Worker>>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    open: Arc<Open>,
}

/// What a worker shares with the connections on it.
struct Worker {
    runtime: Handle,
    table: Table,
    connections: AtomicUsize,
    handshakes: Slots,
    tally: Tally,
    open: Arc<Open>,
}

/// The open connections of the process.
struct Open {
    /// All of them.
    count: AtomicUsize,
    /// Those that are known and may connect.
    admitted: Slots,
    last_id: AtomicU64,
    /// Told whenever a connection has ended.
    ended: Notify,
}

/// A number of things that may be under way at once.
struct Slots {
    taken: AtomicUsize,
    limit: usize,
}

impl Slots {
    fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), limit }
    }

    fn take(&self) -> bool {
        let taken = self.taken.fetch_add(1, Ordering::AcqRel) < self.limit;
        if !taken {
            self.give_back();
        }
        taken
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Workers {
    /// Starts the threads.
    pub fn start(limits: &Limits) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let open = Open {
            count: AtomicUsize::new(0),
            admitted: Slots::new(limits.connections_max),
            last_id: AtomicU64::new(0),
            ended: Notify::new(),
        };
        let mut this = Self { all: Vec::new(), threads: Vec::new(), stop, open: Arc::new(open) };
        for index in 0..limits.workers.max(1) {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let worker = Arc::new(Worker {
                runtime: runtime.handle().clone(),
                table: Table::default(),
                connections: AtomicUsize::new(0),
                handshakes: Slots::new(limits.handshakes_max),
                tally: Tally::default(),
                open: this.open.clone(),
            });
            runtime.spawn(tick(
                worker.clone(),
                limits.idle_timeout,
                Tenure::new(limits, fastrand::u64(..)),
                Rekey::new(limits.rekey_after),
            ));
            this.all.push(worker);
            let mut stopped = stopped.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                tls::warm_up();
                // Ends when told to, or when the process is going anyway.
                let _ = runtime.block_on(stopped.wait_for(|stop| *stop));
            })?;
            this.threads.push(thread);
        }
        Ok(this)
    }

    /// Runs a listener on one of the workers, in turn.
    pub fn spawn_listener(&self, index: usize, task: impl Future<Output = ()> + Send + 'static) {
        self.all[index % self.all.len()].runtime.spawn(task);
    }

    /// Gives a new connection its place, on the worker with the fewest. One of which something is asked
    /// first takes a handshake slot, so that strangers cannot use up the connections of those who are
    /// known. `Err` at the limit, with the connection all the same so that its refusal can be recorded.
    pub fn place(
        &self,
        asks_first: bool,
        counts: &Arc<ListenerCounts>,
    ) -> Result<Place, (Arc<Live>, Outcome)> {
        let id = self.open.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let live = Arc::new(Live::new(id, counts.clone()));
        let fewest = self.all.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        let Some(worker) = fewest else { return Err((live, Outcome::ConnectionLimit)) };
        if asks_first && !worker.handshakes.take() {
            return Err((live, Outcome::HandshakeLimit));
        }
        if !asks_first && !self.open.admitted.take() {
            return Err((live, Outcome::ConnectionLimit));
        }
        self.open.count.fetch_add(1, Ordering::AcqRel);
        worker.connections.fetch_add(1, Ordering::Relaxed);
        worker.table.enter(&live);
        Ok(Place { live, worker: worker.clone(), admitted: AtomicBool::new(!asks_first) })
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.open.count.load(Ordering::Acquire)
    }

    /// The handshakes that were made so far.
    pub fn handshakes(&self) -> Counts {
        let mut sum = Counts::new();
        self.all.iter().for_each(|worker| worker.tally.add_to(&mut sum));
        sum
    }

    /// Waits until no connection is open.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.open.ended.notified();
            if self.connections() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Tells every open connection to end, and says how many there were.
    pub fn order_all(&self, order: Order) -> usize {
        self.all.iter().map(|worker| worker.table.order_all(order)).sum()
    }

    /// Ends the threads, and tells what handshakes they have made. Connections that are still open are reset.
    pub fn stop(&mut self) {
        // Without receivers there is no thread left to tell.
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
        for (Kind { side, version, group }, count) in self.handshakes() {
            tracing::info!(side = side.label(), version, group, count, "handshakes made");
        }
    }
}

/// A connection's place on its worker, given back when dropped.
pub struct Place {
    live: Arc<Live>,
    worker: Arc<Worker>,
    /// Which slot it holds: that of a connection, or that of a handshake.
    admitted: AtomicBool,
}

impl Place {
    /// The connection.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The client is known and may connect: its handshake slot is free for another.
    pub fn admit(&self) -> Result<(), Outcome> {
        if self.admitted.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.worker.open.admitted.take() {
            return Err(Outcome::ConnectionLimit);
        }
        self.worker.handshakes.give_back();
        self.admitted.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The handshakes of the worker.
    pub fn tally(&self) -> &Tally {
        &self.worker.tally
    }

    /// Where the connection runs.
    pub fn runtime(&self) -> Handle {
        self.worker.runtime.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Worker { table, connections, handshakes, open, .. } = &*self.worker;
        let slots = if *self.admitted.get_mut() { &open.admitted } else { handshakes };
        slots.give_back();
        table.leave(self.live.id);
        connections.fetch_sub(1, Ordering::Relaxed);
        open.count.fetch_sub(1, Ordering::AcqRel);
        open.ended.notify_waiters();
    }
}

/// What is done for connections now and then, by one timer for all of them.
async fn tick(worker: Arc<Worker>, idle_timeout: Option<Duration>, mut tenure: Tenure, mut rekey: Rekey) {
    let mut idle = IdleWatch::new(idle_timeout, fastrand::u64(..));
    let period = idle_timeout.map_or(TICK, |timeout| (timeout / 4).clamp(Duration::from_millis(10), TICK));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.table.wake_blind();
        worker.table.tell_bytes();
        tenure.tick(&worker.table, clock::now(), clock::wall());
        rekey.tick(&worker.table, clock::now());
        idle.tick(&worker.table, clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::limits::{OnTruncation, RekeyAfter};

    fn limits(workers: usize, connections_max: usize) -> Limits {
        Limits {
            handshake_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            connections_max,
            handshakes_max: 2,
            idle_timeout: None,
            user_timeout: None,
            drain_timeout: Duration::from_secs(1),
            on_truncation: OnTruncation::Reset,
            credentials_poll: Duration::from_secs(1),
            revoked_grace: Duration::from_secs(1),
            connection_age_max: None,
            rekey_after: RekeyAfter::default(),
            workers,
        }
    }

    #[test]
    fn connections_are_spread_evenly_also_after_some_have_ended() {
        let mut workers = Workers::start(&limits(4, 1000)).unwrap();
        let loads = |workers: &Workers| -> Vec<usize> {
            workers.all.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).collect()
        };
        let mut places: Vec<Place> =
            (0..100).map(|_| workers.place(false, &Arc::default()).ok().unwrap()).collect();
        assert_eq!(loads(&workers), [25; 4]);
        // All that end are on one worker: the next ones go there.
        let (of_first, _): (Vec<usize>, Vec<usize>) = (0..100).partition(|index| index % 4 == 0);
        for index in of_first.into_iter().rev() {
            places.swap_remove(index);
        }
        places.extend((0..25).map(|_| workers.place(false, &Arc::default()).ok().unwrap()));
        let loads = loads(&workers);
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
        drop(places);
        assert_eq!(workers.connections(), 0);
        workers.stop();
    }

    #[test]
    fn the_limit_holds_and_a_place_is_free_again_after_one_ended() {
        let mut workers = Workers::start(&limits(2, 2)).unwrap();
        let first = workers.place(false, &Arc::default()).ok().unwrap();
        let _second = workers.place(false, &Arc::default()).ok().unwrap();
        assert!(workers.place(false, &Arc::default()).is_err());
        drop(first);
        assert!(workers.place(false, &Arc::default()).is_ok());
        workers.stop();
    }

    #[test]
    fn strangers_have_slots_of_their_own_until_they_are_known() {
        let mut workers = Workers::start(&limits(1, 1)).unwrap();
        let known = workers.place(false, &Arc::default()).ok().unwrap();
        let [first, second] = [(); 2].map(|()| workers.place(true, &Arc::default()).ok().unwrap());
        assert_eq!(workers.place(true, &Arc::default()).err().unwrap().1, Outcome::HandshakeLimit);
        assert_eq!(first.admit(), Err(Outcome::ConnectionLimit));
        drop(known);
        assert_eq!(first.admit(), Ok(()));
        assert_eq!(workers.place(false, &Arc::default()).err().unwrap().1, Outcome::ConnectionLimit);
        // The slot of the first is free, that of the second is not.
        let third = workers.place(true, &Arc::default()).ok().unwrap();
        assert_eq!(workers.place(true, &Arc::default()).err().unwrap().1, Outcome::HandshakeLimit);
        drop((first, second, third));
        assert_eq!(workers.connections(), 0);
        let slots = &workers.all[0].handshakes;
        assert_eq!(slots.taken.load(Ordering::Relaxed), 0);
        workers.stop();
    }
}
