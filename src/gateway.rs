//! The composition root: bind, serve, reload, drain. The only file that knows every folder.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::clock;
use crate::config::{Awaited, Configuration, report};
use crate::credentials::store::{Change, Store};
use crate::credentials::watch::{self as credential_watch, Nudge};
use crate::plan::cluster::Keepalive;
use crate::plan::{Entrance, Listener, LogFormat, Plan};
use crate::proxy::connection::Context;
use crate::proxy::leg;
use crate::proxy::listener;
use crate::proxy::live::Order;
use crate::proxy::worker::Workers;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::entry::timestamp;
use crate::tls::accept::Terminations;
use crate::tls::originate::Originations;
use crate::upstream::resolve::Resolver;
use crate::upstream::upstreams::Upstreams;

/// Upstreams that a ready line names.
const UPSTREAMS_TOLD_MAX: usize = 4;
/// Entries of a folder among which one that was misspelt is looked for.
const NEIGHBOURS_MAX: usize = 1000;
/// One socket to each side.
const DESCRIPTORS_OF_CONNECTION: u64 = 2;

/// What the process is told while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop accepting and let open connections finish; told a second time, cut them at once.
    Stop,
    /// Look at the credentials now.
    Reload,
}

/// How a gateway came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Connections that did not end by themselves in time.
    pub cut: usize,
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener's address cannot be had.
    Bind(SocketAddr, io::Error),
    /// A credential is not usable.
    Credential(String),
    /// The system has no threads or descriptors for us.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, error) => {
                write!(f, "--listen: {}: {address}", bind_failure(error))
            }
            Self::Credential(why) => write!(f, "--credentials: {why}"),
            Self::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

#[allow(clippy::wildcard_enum_match_arm, reason = "the system's errors have no end")]
fn bind_failure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is already in use".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission to bind".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this host has no such address".to_owned(),
        _ => error.to_string(),
    }
}

/// A gateway whose credentials are loaded and whose sockets are bound.
pub struct Gateway {
    plan: Arc<Plan>,
    store: Arc<Store>,
    sockets: Vec<(Arc<Listener>, TcpListener)>,
    warnings: Vec<String>,
}

impl Gateway {
    /// Raises the limit of descriptors, loads the credentials and binds the listeners.
    pub fn prepare(configuration: Configuration) -> Result<Self, StartError> {
        let store = Store::new(configuration.credentials);
        let mut warnings = configuration.warnings;
        warnings.extend(raise_descriptor_limit(&configuration.plan));
        warnings.extend(load(&store, configuration.awaited)?);
        let bound = configuration.plan.listeners.iter().map(|listener| {
            let socket = bind(listener.address).map_err(|error| StartError::Bind(listener.address, error))?;
            Ok((listener.clone(), socket))
        });
        let sockets = bound.collect::<Result<_, _>>()?;
        Ok(Self { plan: Arc::new(configuration.plan), store: Arc::new(store), sockets, warnings })
    }

    /// Serves until told to stop and drained. Must be called on a runtime with IO and time, which is the
    /// one for everything but connections.
    pub async fn run(self, log: AccessLog, mut signals: mpsc::Receiver<Signal>) -> Result<Ended, StartError> {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        let limits = &self.plan.limits;
        let terminations = Arc::new(Terminations::new(&self.plan, &self.store));
        let originations = Arc::new(Originations::new(&self.plan, &self.store));
        let (accepted, originated) = (terminations.clone(), originations.clone());
        let examine = move |now| {
            accepted.examine(now);
            originated.examine(now);
        };
        let (nudge, watching) = credential_watch::start(self.store.clone(), limits.credentials_poll, examine)
            .map_err(StartError::System)?;
        let mut workers = Arc::new(Workers::start(limits).map_err(StartError::System)?);
        let upstreams = Upstreams::new(Resolver::new(&Handle::current(), &self.plan.dns));
        upstreams.adopt(&self.plan);
        let context = Arc::new(Context {
            plan: self.plan.clone(),
            terminations,
            originations,
            upstreams: Arc::new(upstreams),
            log: log.clone(),
            warnings: Arc::default(),
        });
        let (stop, stopping) = watch::channel(false);
        for (index, (listener, socket)) in self.sockets.into_iter().enumerate() {
            log.line(&ready_line(&self.plan, &listener, &socket));
            let accepting =
                listener::run(socket, listener, context.clone(), workers.clone(), stopping.clone());
            workers.spawn_listener(index, accepting);
        }
        drop(stopping);
        serve(&mut signals, &nudge).await;
        // Only fails without listeners, and then there is nothing to stop.
        let _ = stop.send(true);
        stop.closed().await;
        let cut = drain(&workers, &self.plan, &mut signals, &nudge).await;
        nudge.stop();
        drop(context);
        if let Some(workers) = Arc::get_mut(&mut workers) {
            workers.stop();
        }
        if watching.join().is_err() {
            tracing::error!("the credential watch panicked");
        }
        Ok(Ended { cut })
    }
}

/// Looks at every credential for the first time; returns what should be known of them.
fn load(store: &Store, awaited: Awaited) -> Result<Vec<String>, StartError> {
    let mut warnings = Vec::new();
    for slot in store.slots() {
        let source = slot.source();
        match slot.refresh(clock::wall()) {
            Change::Unchanged(_) | Change::Held => {}
            Change::Published { warnings: found, .. } => {
                let directory = source.directory.display();
                warnings.extend(found.iter().map(|warning| format!("{warning}: {directory}")));
            }
            Change::Refused(refusal) if awaited.covers(source, &refusal) => warnings.push(format!(
                "connections that need it are closed until there is a usable credential: {refusal}{}",
                meant(&source.directory)
            )),
            Change::Refused(refusal) => return Err(StartError::Credential(refusal.to_string())),
        }
    }
    Ok(warnings)
}

/// The directory that was probably meant, where the one that was named is not there.
fn meant(directory: &Path) -> String {
    let (Some(folder), Some(name), false) = (directory.parent(), directory.file_name(), directory.exists())
    else {
        return String::new();
    };
    let there = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(there).into_iter().flatten().take(NEIGHBOURS_MAX).flatten();
    let names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let similar = report::similar(&name.to_string_lossy(), names.iter().map(String::as_str));
    similar.map_or(String::new(), |name| format!(" (did you mean {}?)", folder.join(name).display()))
}

/// Obeys signals until the one to stop.
async fn serve(signals: &mut mpsc::Receiver<Signal>, nudge: &Nudge) {
    while let Some(Signal::Reload) = signals.recv().await {
        nudge.look();
    }
}

/// Lets open connections finish, then cuts the rest; says how many those were.
async fn drain(workers: &Workers, plan: &Plan, signals: &mut mpsc::Receiver<Signal>, nudge: &Nudge) -> usize {
    let open = workers.connections();
    if open > 0 {
        tracing::info!(open, drain_timeout = ?plan.limits.drain_timeout, "stopped accepting, letting connections finish");
    }
    tokio::select! {
        _ = timeout(plan.limits.drain_timeout, workers.all_ended()) => {}
        () = serve(signals, nudge) => tracing::info!("told to stop a second time"),
    }
    let cut = workers.order_all(Order::Drained);
    if cut > 0 {
        tracing::info!(cut, "cutting the connections that are left");
        // They obey at once; the bound is for a task that does not get its turn.
        let _ = timeout(std::time::Duration::from_secs(2), workers.all_ended()).await;
    }
    cut
}

/// Takes as many descriptors as the system allows; says so if that is too few for the connections.
fn raise_descriptor_limit(plan: &Plan) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // What was not granted is not there: the comparison below is with what is.
    let _ = setrlimit(Resource::Nofile, raised);
    let found = getrlimit(Resource::Nofile).current?;
    let asks_first = plan.listeners.iter().any(|listener| listener.entrance.asks_first());
    let connections = plan.limits.connections_max as u64;
    let handshakes = if asks_first { (plan.limits.workers * plan.limits.handshakes_max) as u64 } else { 0 };
    let needed = DESCRIPTORS_OF_CONNECTION * connections + handshakes;
    (found < needed).then(|| {
        format!(
            "expected {needed} file descriptors for {connections} connections and {handshakes} handshakes, \
             found a limit of {found}"
        )
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    leg::set_options(&socket, Keepalive::USUAL)?;
    socket.bind(&address.into())?;
    // The kernel caps it at net.core.somaxconn.
    socket.listen(4096)?;
    Ok(socket.into())
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
fn ready_line(plan: &Plan, listener: &Listener, socket: &TcpListener) -> String {
    let bound = socket.local_addr().unwrap_or(listener.address);
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
