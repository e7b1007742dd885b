//! The composition root: bind, serve, reload, drain. The only file that knows every folder.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admin::answer::Subject;
use crate::admin::server::{self, Server};
use crate::clock;
use crate::config::Configuration;
use crate::config::folder::Folder;
use crate::credentials::store::Store;
use crate::credentials::watch::{self, Nudge};
use crate::observe;
use crate::orders::Orders;
use crate::plan::Plan;
use crate::preparation::{Prepared, StartError, bind, prepare};
use crate::proxy::live::Order;
use crate::proxy::worker::Workers;
use crate::reload::Reloader;
use crate::serving::Serving;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::lines::Lines;
use crate::upstream::resolve::Resolver;
use crate::upstream::upstreams::Upstreams;

/// One socket to each side.
const DESCRIPTORS_OF_CONNECTION: u64 = 2;

/// What the process is told while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop accepting and let open connections finish; told a second time, cut them at once.
    Stop,
    /// Look at the configuration and the credentials now.
    Reload,
}

/// How a gateway came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Connections that did not end by themselves in time.
    pub cut: usize,
}

/// A gateway whose credentials are loaded and whose sockets are bound.
pub struct Gateway {
    prepared: Prepared,
    folder: Option<Folder>,
    admin: Option<TcpListener>,
}

impl Gateway {
    /// Raises the limit of descriptors, loads the credentials and binds the listeners. A configuration that came
    /// from files is followed as they change.
    pub fn prepare(configuration: Configuration, folder: Option<Folder>) -> Result<Self, StartError> {
        let admin = configuration.admin;
        let too_few = raise_descriptor_limit(&configuration.plan);
        let mut prepared = prepare(configuration, &Store::default(), |_| false)?;
        prepared.warnings.extend(too_few);
        let opened = |address: SocketAddr| bind(address).map_err(|error| StartError::Admin(address, error));
        Ok(Self { prepared, folder, admin: admin.map(opened).transpose()? })
    }

    /// Serves until told to stop and drained. Must be called on a runtime with IO and time, which is the
    /// one for everything but connections.
    pub async fn run(
        self,
        log: AccessLog,
        events: Lines,
        signals: mpsc::Receiver<Signal>,
    ) -> Result<Ended, StartError> {
        let Self { prepared, folder, admin } = self;
        let (warnings, limits) = (prepared.warnings.clone(), prepared.plan.limits.clone());
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let workers = Arc::new(Workers::start(&limits).map_err(StartError::System)?);
        let upstreams = Upstreams::new(Resolver::new(&Handle::current(), &prepared.plan.dns));
        let serving = Arc::new(Serving::new(workers, log, upstreams));
        serving.follow(prepared, clock::wall());
        let reloader = Arc::new(Reloader::new(serving.clone(), folder, warnings));
        let levels = reloader.clone();
        let (nudge, watching) = watch::start(
            limits.credentials_poll,
            move || levels.levels(),
            move |now, reason| reloader.look(now, reason),
        )
        .map_err(StartError::System)?;
        let (mut orders, sender) = Orders::new(signals);
        let subject = || observe::subject(serving.clone(), events, sender);
        let admin = admin.map(|socket| start_admin(socket, subject())).transpose()?;
        orders.until_stop(&nudge).await;
        serving.stop().await;
        let cut = drain(&serving.workers, limits.drain_timeout, &mut orders, &nudge).await;
        admin.into_iter().for_each(Server::stop);
        nudge.stop();
        if watching.join().is_err() {
            tracing::error!("the watch panicked");
        }
        // Nobody else holds it any more: neither the watch nor a listener nor the admin server.
        if let Some(Serving { mut workers, .. }) = Arc::into_inner(serving)
            && let Some(workers) = Arc::get_mut(&mut workers)
        {
            workers.stop();
        }
        Ok(Ended { cut })
    }
}

fn start_admin(socket: TcpListener, subject: Subject) -> Result<Server, StartError> {
    let address = socket.local_addr().map_err(StartError::System)?;
    let server = server::start(socket, subject).map_err(StartError::System)?;
    tracing::info!(%address, "admin server listening");
    Ok(server)
}

/// Lets open connections finish, then cuts the rest; says how many those were.
async fn drain(workers: &Workers, drain_timeout: Duration, orders: &mut Orders, nudge: &Nudge) -> usize {
    let open = workers.connections();
    if open > 0 {
        tracing::info!(open, ?drain_timeout, "stopped accepting, letting connections finish");
    }
    tokio::select! {
        _ = timeout(drain_timeout, workers.all_ended()) => {}
        () = orders.until_second_stop(nudge) => tracing::info!("told to stop a second time"),
    }
    let cut = workers.order_all(Order::Drained);
    if cut > 0 {
        tracing::info!(cut, "cutting the connections that are left");
        // They obey at once; the bound is for a task that does not get its turn.
        let _ = timeout(Duration::from_secs(2), workers.all_ended()).await;
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
