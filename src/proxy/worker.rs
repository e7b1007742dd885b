//! A worker: one thread, one single-threaded runtime, and the connections that live and die on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::live::{IdleWatch, Live, Order, Table};
use crate::clock;
use crate::plan::limits::Limits;

/// The workers of a process.
pub struct Workers {
    all: Vec<Worker>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    open: Arc<Open>,
}

struct Worker {
    runtime: Handle,
    table: Arc<Table>,
    connections: Arc<AtomicUsize>,
}

/// The open connections of the process.
struct Open {
    count: AtomicUsize,
    count_max: usize,
    last_id: AtomicU64,
    /// Told whenever a connection has ended.
    ended: Notify,
}

impl Workers {
    /// Starts the threads.
    pub fn start(limits: &Limits) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let open = Open {
            count: AtomicUsize::new(0),
            count_max: limits.connections_max,
            last_id: AtomicU64::new(0),
            ended: Notify::new(),
        };
        let mut this = Self { all: Vec::new(), threads: Vec::new(), stop, open: Arc::new(open) };
        for index in 0..limits.workers.max(1) {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let table = Arc::new(Table::default());
            if let Some(timeout) = limits.idle_timeout {
                runtime.spawn(watch_idle(table.clone(), timeout));
            }
            this.all.push(Worker { runtime: runtime.handle().clone(), table, connections: Arc::default() });
            let mut stopped = stopped.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
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

    /// Gives a new connection its place, on the worker with the fewest; `Err` at the limit, with the
    /// connection all the same so that its refusal can be recorded.
    pub fn admit(&self) -> Result<Place, Arc<Live>> {
        let live = Arc::new(Live::new(self.open.last_id.fetch_add(1, Ordering::Relaxed) + 1));
        let fewest = self.all.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        let Some(worker) = fewest else { return Err(live) };
        if self.open.count.fetch_add(1, Ordering::AcqRel) >= self.open.count_max {
            self.open.count.fetch_sub(1, Ordering::AcqRel);
            return Err(live);
        }
        worker.connections.fetch_add(1, Ordering::Relaxed);
        worker.table.enter(&live);
        Ok(Place {
            live,
            runtime: worker.runtime.clone(),
            table: worker.table.clone(),
            connections: worker.connections.clone(),
            open: self.open.clone(),
        })
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.open.count.load(Ordering::Acquire)
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

    /// Ends the threads. Connections that are still open are reset.
    pub fn stop(&mut self) {
        // Without receivers there is no thread left to tell.
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// A connection's place on its worker, given back when dropped.
pub struct Place {
    live: Arc<Live>,
    runtime: Handle,
    table: Arc<Table>,
    connections: Arc<AtomicUsize>,
    open: Arc<Open>,
}

impl Place {
    /// The connection.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Runs the connection on its worker.
    pub fn spawn(self, connection: impl Future<Output = ()> + Send + 'static) {
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            connection.await;
            drop(self);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.leave(self.live.id);
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.open.count.fetch_sub(1, Ordering::AcqRel);
        self.open.ended.notify_waiters();
    }
}

async fn watch_idle(table: Arc<Table>, timeout: Duration) {
    let mut watch = IdleWatch::new(timeout);
    let mut ticks = interval((timeout / 4).clamp(Duration::from_millis(10), Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        watch.tick(&table, clock::now());
    }
}
