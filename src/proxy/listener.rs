//! Accepts, takes a place, hands the socket to a worker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::connection::{self, Context};
use super::leg::Socket;
use super::record::Record;
use super::worker::Workers;
use crate::plan::Listener;
use crate::telemetry::counts::ListenerCounts;

/// Connections accepted in one go; then the worker's other tasks have their turn.
const BATCH: usize = 64;
/// Waits between attempts while the process has no descriptors or memory left: doubled each time.
const BACK_OFF_MIN: Duration = Duration::from_millis(5);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// What is done with the connections of a socket. Another plan puts another one in its place, for the connections
/// that are accepted from then on.
pub struct Service {
    /// The listener.
    pub listener: Arc<Listener>,
    /// All that its connections need.
    pub context: Arc<Context>,
    counts: Arc<ListenerCounts>,
}

impl Service {
    /// Goes on counting where a service of the same listener has stopped.
    pub fn new(listener: Arc<Listener>, context: Arc<Context>) -> Self {
        let counts = context.counts.of(&listener);
        Self { listener, context, counts }
    }
}

/// Accepts until told to stop. The socket is closed when this returns.
pub async fn run(
    // First, and so dropped last: whoever sees that it is closed may count on it that nothing else is held.
    mut stopping: watch::Receiver<bool>,
    socket: TcpListener,
    service: Arc<ArcSwap<Service>>,
    workers: Arc<Workers>,
) {
    let address = service.load().listener.address;
    let socket = match register(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%address, "cannot listen: {error}");
            return;
        }
    };
    let mut back_off = BACK_OFF_MIN;
    loop {
        let accepted = tokio::select! {
            accepted = accept_some(&socket, &service, &workers) => accepted,
            // An error means that the sender is gone: the process is ending.
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(()) => back_off = BACK_OFF_MIN,
            Err(error) => {
                tracing::warn!(%address, "cannot accept, next attempt in {back_off:?}: {error}");
                sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
        }
    }
}

/// Waits for readiness only: an accepted socket belongs to the worker it goes to, not to this one.
#[allow(
    deprecated,
    reason = "the successor is unsafe, for types whose descriptor can change; that of an owned std listener cannot"
)]
fn register(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    socket.set_nonblocking(true)?;
    AsyncFd::new(socket)
}

async fn accept_some(
    socket: &AsyncFd<TcpListener>,
    service: &ArcSwap<Service>,
    workers: &Workers,
) -> io::Result<()> {
    let mut ready = socket.readable().await?;
    for _ in 0..BATCH {
        match acceptfrom_with(socket.get_ref(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((accepted, client)) => {
                if let Some(client) = client.and_then(|client| SocketAddr::try_from(client).ok()) {
                    dispatch(accepted, canonical(client), &service.load(), workers);
                }
            }
            Err(Errno::AGAIN) => {
                ready.clear_ready();
                return Ok(());
            }
            // Gone before we came to it.
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // More may wait: readiness was not cleared, so the next call goes on after other tasks ran.
    tokio::task::yield_now().await;
    Ok(())
}

fn dispatch(accepted: OwnedFd, client: SocketAddr, service: &Service, workers: &Workers) {
    let stream = std::net::TcpStream::from(accepted);
    let (listener, context) = (service.listener.clone(), service.context.clone());
    match workers.place(listener.entrance.asks_first(), &service.counts) {
        Ok(place) => {
            // Registered with the runtime it will live on, which this one need not be.
            let runtime = place.runtime();
            let _its = runtime.enter();
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    runtime.spawn(connection::serve(context, listener, stream, client, place));
                }
                Err(error) => tracing::warn!(%client, "cannot register a socket: {error}"),
            }
        }
        Err((live, outcome)) => {
            Record::open(context, listener, live, client).close(outcome);
            Socket::reset(&stream);
        }
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
