//! The listeners that are open, and the plan that they follow.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::admin::state::PlanState;
use crate::clock;
use crate::credentials::store::Store;
use crate::plan::{Entrance, Listener, ListenerKey, LogFormat, Plan};
use crate::preparation::Prepared;
use crate::proxy::connection::Context;
use crate::proxy::listener::{self, Service};
use crate::proxy::warnings::Warnings;
use crate::proxy::worker::Workers;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::counts::Counts;
use crate::telemetry::entry::timestamp;
use crate::tls::accept::Terminations;
use crate::tls::originate::Originations;
use crate::tls::requirements::Requirements;
use crate::tls::standing::Register;
use crate::upstream::upstreams::Upstreams;

/// Upstreams that a ready line names.
const UPSTREAMS_TOLD_MAX: usize = 4;

/// What serves, whatever the plan.
pub struct Serving {
    /// Who carries connections.
    pub workers: Arc<Workers>,
    /// Where records go.
    pub log: AccessLog,
    /// Where connections go.
    pub upstreams: Arc<Upstreams>,
    /// The peers that were let in.
    pub standings: Arc<Register>,
    /// What the operational log has heard of failures.
    pub warnings: Arc<Warnings>,
    /// What was counted of connections.
    pub counts: Arc<Counts>,
    current: Mutex<Current>,
}

/// The plan that is followed.
#[derive(Default)]
struct Current {
    generation: u64,
    followed_at: Option<SystemTime>,
    /// Configurations that were not followed.
    refused: u64,
    plan: Option<Arc<Plan>>,
    store: Arc<Store>,
    open: Vec<Open>,
    /// Listeners that were ever opened.
    opened: usize,
    stopped: bool,
}

/// A socket that accepts.
struct Open {
    key: ListenerKey,
    address: SocketAddr,
    service: Arc<ArcSwap<Service>>,
    close: watch::Sender<bool>,
}

/// What came of following a plan.
#[derive(Debug, Default)]
pub struct Changes {
    /// Counts the plans of the process, from 1.
    pub generation: u64,
    /// Sockets that were opened.
    pub opened: Vec<SocketAddr>,
    /// Sockets that were closed; connections that came through them go on.
    pub closed: Vec<SocketAddr>,
    /// Sockets whose connections are treated otherwise from now on.
    pub changed: Vec<SocketAddr>,
    /// Sockets for which nothing has changed.
    pub kept: usize,
}

impl Serving {
    /// Nothing is open yet.
    pub fn new(workers: Arc<Workers>, log: AccessLog, upstreams: Upstreams) -> Self {
        let (standings, warnings, counts) = (Arc::default(), Arc::default(), Arc::default());
        let upstreams = Arc::new(upstreams);
        Self { workers, log, upstreams, standings, warnings, counts, current: Mutex::default() }
    }

    /// The credentials of the plan.
    pub fn store(&self) -> Arc<Store> {
        self.current().store.clone()
    }

    /// The generation of the plan.
    pub fn generation(&self) -> u64 {
        self.current().generation
    }

    /// A configuration was not followed.
    pub fn count_refusal(&self) {
        self.current().refused += 1;
    }

    /// What is told of the plan.
    pub fn plan_state(&self) -> PlanState {
        let Current { generation, followed_at, refused, .. } = *self.current();
        PlanState { generation, followed_at, refused }
    }

    /// Listeners of the plan that accept no connections.
    pub fn closed(&self) -> Vec<SocketAddr> {
        let current = self.current();
        let listeners = current.plan.iter().flat_map(|plan| &plan.listeners);
        let is_open = |key| current.open.iter().any(|open| open.key == key && open.is_accepting());
        listeners.filter(|listener| !is_open(listener.key())).map(|listener| listener.address).collect()
    }

    /// Whether the end has come: no plan is followed any more.
    pub fn is_stopped(&self) -> bool {
        self.current().stopped
    }

    /// Whether a plan is the one that is followed already.
    pub fn follows(&self, plan: &Plan) -> bool {
        self.current().plan.as_deref() == Some(plan)
    }

    /// Whether a socket is open.
    pub fn is_open(&self, key: ListenerKey) -> bool {
        self.current().open.iter().any(|open| open.key == key && open.is_accepting())
    }

    /// Follows a plan: new sockets open, those that stay go on without a pause, the others close. Peers that the
    /// plan would not let in are told to go. `None` after the end.
    pub fn follow(&self, prepared: Prepared, now: SystemTime) -> Option<Changes> {
        let Prepared { plan, store, sockets, warnings: _ } = prepared;
        let mut current = self.current();
        if current.stopped {
            return None;
        }
        current.generation += 1;
        let terminations = Arc::new(Terminations::new(&plan, &store));
        let originations = Arc::new(Originations::new(&plan, &store));
        let generation = current.generation;
        let requirements = Requirements::new(generation, &plan, terminations.clone(), originations.clone());
        self.upstreams.adopt(&plan);
        let context = Arc::new(Context {
            plan: plan.clone(),
            generation,
            terminations,
            originations,
            standings: self.standings.clone(),
            upstreams: self.upstreams.clone(),
            log: self.log.clone(),
            warnings: self.warnings.clone(),
            counts: self.counts.clone(),
        });
        let mut changes = Changes { generation, ..Changes::default() };
        current.swap(&plan, &context, &mut changes);
        for (listener, socket) in sockets {
            changes.opened.push(self.open(&mut current, listener, socket, &context));
        }
        (current.plan, current.store, current.followed_at) = (Some(plan), store, Some(now));
        drop(current);
        self.standings.follow(requirements, now);
        Some(changes)
    }

    fn open(
        &self,
        current: &mut Current,
        listener: Arc<Listener>,
        socket: TcpListener,
        context: &Arc<Context>,
    ) -> SocketAddr {
        let address = socket.local_addr().unwrap_or(listener.address);
        self.log.line(&ready_line(&context.plan, &listener, address));
        let (close, closing) = watch::channel(false);
        let key = listener.key();
        let service = Arc::new(ArcSwap::from_pointee(Service::new(listener, context.clone())));
        let accepting = listener::run(closing, socket, service.clone(), self.workers.clone());
        self.workers.spawn_listener(current.opened, accepting);
        current.opened += 1;
        current.open.push(Open { key, address, service, close });
        address
    }

    /// Accepts no more, for ever.
    pub async fn stop(&self) {
        let open = {
            let mut current = self.current();
            current.stopped = true;
            std::mem::take(&mut current.open)
        };
        open.iter().for_each(Open::close);
        for open in open {
            open.close.closed().await;
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// Lets the sockets that are open follow a plan, or closes them.
    fn swap(&mut self, plan: &Plan, context: &Arc<Context>, changes: &mut Changes) {
        self.open.retain(|open| {
            if !open.is_accepting() {
                return false;
            }
            let Some(listener) = plan.listeners.iter().find(|listener| listener.key() == open.key) else {
                open.close();
                changes.closed.push(open.address);
                return false;
            };
            if open.service.load().listener == *listener {
                changes.kept += 1;
            } else {
                changes.changed.push(open.address);
            }
            open.service.store(Arc::new(Service::new(listener.clone(), context.clone())));
            true
        });
    }
}

impl Open {
    /// Not so where the system had no room for it.
    fn is_accepting(&self) -> bool {
        !self.close.is_closed()
    }

    fn close(&self) {
        // Fails where the listener has ended by itself.
        let _ = self.close.send(true);
    }
}

/// The names that a listener answers to; none if it takes whatever comes.
fn hosts(listener: &Listener) -> Vec<String> {
    match &listener.entrance {
        Entrance::Plaintext(_) | Entrance::Permissive(..) => Vec::new(),
        Entrance::Tls(table) => {
            table.rows().iter().flat_map(|row| &row.hosts).map(ToString::to_string).collect()
        }
    }
}

/// Where the connections of a listener go.
fn upstreams(listener: &Listener) -> String {
    let routes = listener.routes();
    let targets = routes.iter().flat_map(|route| &route.targets);
    let mut names: Vec<&str> = targets.map(|target| target.cluster.name.as_str()).collect();
    names.dedup();
    match names.len().saturating_sub(UPSTREAMS_TOLD_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..UPSTREAMS_TOLD_MAX].join(", ")),
    }
}

/// The line that says that connections are accepted, and where.
fn ready_line(plan: &Plan, listener: &Listener, bound: SocketAddr) -> String {
    let (role, hosts, upstream) = (listener.role, hosts(listener), upstreams(listener));
    match plan.log_format {
        LogFormat::Json => {
            let time = timestamp(clock::wall());
            let line = serde_json::json!({
                "time": time, "event": "ready", "role": role.to_string(),
                "listen": bound.to_string(), "port": listener.port, "hosts": hosts, "upstream": upstream,
            });
            format!("{line}\n")
        }
        LogFormat::Text if hosts.is_empty() => {
            format!("twinlock {role} ready: listening on {bound}, upstream {upstream}\n")
        }
        LogFormat::Text => {
            format!(
                "twinlock {} ready: listening on {bound} for {}, backend {upstream}\n",
                role,
                hosts.join(", ")
            )
        }
    }
}
