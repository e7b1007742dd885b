//! The spine: what happens to one connection, from accept to close, in the order in which it happens.
//!
//! Egress and ingress differ only in the route (is there TLS to accept? TLS to originate?), never here.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::leg::{Leg, Socket};
use super::live::Live;
use super::record::Record;
use super::relay::relay;
use crate::plan::authorize::authorize;
use crate::plan::identity::PeerIdentity;
use crate::plan::outcome::{Outcome, Side};
use crate::plan::{Accept, Cluster, DestinationRoute, Entrance, Listener, Plan, Route, route};
use crate::telemetry::access_log::AccessLog;
use crate::tls::accept::{self, First, Hello, Terminations};
use crate::tls::handshake::{Established, Failure, HandshakeError};
use crate::tls::originate::{self, Originations};
use crate::upstream::dial::{DialError, dial};
use crate::upstream::resolve::Resolver;

/// Everything a connection needs of the process, one for all of them.
pub struct Context {
    /// What may happen.
    pub plan: Arc<Plan>,
    /// TLS towards clients.
    pub terminations: Terminations,
    /// TLS towards servers.
    pub originations: Originations,
    /// Names to addresses.
    pub resolver: Resolver,
    /// Where records go.
    pub log: AccessLog,
}

/// Carries one connection to its end and writes its record.
pub async fn serve(
    context: &Context,
    listener: &Listener,
    stream: TcpStream,
    client: SocketAddr,
    live: Arc<Live>,
) {
    let mut record = Record::open(context.log.clone(), live.clone(), listener.role, client);
    let socket = Socket::accepted(stream);
    // Boxed: what the phases before the relay need is given back before it begins.
    let set_up = Box::pin(or_ordered(&live, set_up(context, listener, socket, &mut record))).await;
    let outcome = match set_up {
        Ok((downstream, upstream)) => {
            relay(downstream, upstream, &live, context.plan.limits.on_truncation).await
        }
        Err(outcome) => outcome,
    };
    record.close(outcome);
}

/// Everything before the first byte is relayed.
async fn set_up(
    context: &Context,
    listener: &Listener,
    socket: Socket,
    record: &mut Record,
) -> Result<(Leg, Leg), Outcome> {
    let (route, downstream, identity) = admit(context, listener, socket, record).await?;
    // One draw for the upstream, one for the endpoint.
    let cluster = route.choose(fastrand::u64(..)).ok_or(Outcome::NoRoute)?;
    record.upstream(cluster);
    let permit = authorize(&route.rules, identity.as_ref()).map_err(|_| Outcome::Denied)?;
    let deadline = Instant::now() + cluster.connect_timeout;
    let dialled = dial(permit, cluster, fastrand::u64(..), &context.resolver, deadline).await;
    let stream = dialled.map_err(dial_outcome)?;
    record.upstream_address(stream.peer_addr().ok());
    let upstream = secure(context, cluster, Socket::dialled(stream), record).await?;
    Ok((downstream, upstream))
}

/// The hop to the client: which route, and who is asking.
async fn admit(
    context: &Context,
    listener: &Listener,
    mut socket: Socket,
    record: &mut Record,
) -> Result<(Arc<Route>, Leg, Option<PeerIdentity>), Outcome> {
    let deadline = Instant::now() + context.plan.limits.handshake_timeout;
    let table = match &listener.entrance {
        Entrance::Plaintext(rows) => return by_destination(rows, socket),
        Entrance::Permissive(accept, route) => {
            let first = accept::first_bytes(socket.stream(), deadline).await;
            let first =
                first.map_err(|failure| refused(Side::Downstream, &mut socket, record, failure.into()))?;
            return match first {
                First::Other(bytes) => Ok((route.clone(), Leg::passthrough(socket, bytes), None)),
                First::Tls(hello) if hello.is_of_the_mesh() => {
                    terminate(context, accept, hello, route, socket, deadline, record).await
                }
                First::Tls(hello) => Ok((route.clone(), Leg::passthrough(socket, hello.into_bytes()), None)),
            };
        }
        Entrance::Tls(table) => table,
    };
    let hello = match accept::hello(socket.stream(), deadline).await {
        Ok(hello) => hello,
        Err(failure) => return Err(refused(Side::Downstream, &mut socket, record, failure.into())),
    };
    record.sni(hello.sni.as_deref());
    let Some(row) = table.find(hello.sni.as_deref()) else {
        accept::refuse_name(socket.stream()).await;
        return Err(refused(Side::Downstream, &mut socket, record, Failure::NoRoute.into()));
    };
    match &row.accept {
        Some(accept) => terminate(context, accept, hello, &row.route, socket, deadline, record).await,
        None => Ok((row.route.clone(), Leg::passthrough(socket, hello.into_bytes()), None)),
    }
}

/// Plaintext: nothing is read, the destination decides.
fn by_destination(
    rows: &[DestinationRoute],
    mut socket: Socket,
) -> Result<(Arc<Route>, Leg, Option<PeerIdentity>), Outcome> {
    let destination = socket.stream().local_addr().map_err(|_| Outcome::Reset(Side::Downstream))?;
    if let Some(row) = route::by_destination(rows, destination.ip()) {
        return Ok((row.route.clone(), Leg::plaintext(socket), None));
    }
    socket.ended_cleanly();
    Err(Outcome::NoRoute)
}

/// TLS that ends here.
async fn terminate(
    context: &Context,
    accept: &Arc<Accept>,
    hello: Hello,
    route: &Arc<Route>,
    mut socket: Socket,
    deadline: Instant,
    record: &mut Record,
) -> Result<(Arc<Route>, Leg, Option<PeerIdentity>), Outcome> {
    match accept::accept(&context.terminations, accept, hello, socket.stream(), deadline).await {
        Ok(established) => {
            note(Side::Downstream, &established, record);
            let identity = established.peer.as_ref().map(|peer| peer.identity.clone());
            Ok((route.clone(), Leg::tls(socket, established), identity))
        }
        Err(error) => Err(refused(Side::Downstream, &mut socket, record, error)),
    }
}

/// The hop to the server: TLS, if the route says so.
async fn secure(
    context: &Context,
    cluster: &Cluster,
    mut socket: Socket,
    record: &mut Record,
) -> Result<Leg, Outcome> {
    let Some(originate) = &cluster.originate else {
        return Ok(Leg::plaintext(socket));
    };
    record.sni(originate.sni.as_deref());
    let deadline = Instant::now() + context.plan.limits.handshake_timeout;
    match originate::originate(&context.originations, originate, socket.stream(), deadline).await {
        Ok(established) => {
            note(Side::Upstream, &established, record);
            Ok(Leg::tls(socket, established))
        }
        Err(error) => Err(refused(Side::Upstream, &mut socket, record, error)),
    }
}

fn note(side: Side, established: &Established, record: &mut Record) {
    record.tls(side, &established.agreed);
    record.peer(side, established.peer.as_ref());
}

/// A handshake that failed: what is recorded, and how the socket is closed. Where an alert says why,
/// the close behind it is an ordinary one; where none could be sent, it is a reset.
fn refused(side: Side, socket: &mut Socket, record: &mut Record, error: HandshakeError) -> Outcome {
    record.peer(side, error.peer.as_ref());
    let (outcome, told) = match error.failure {
        Failure::Tls(fault) => (Outcome::Handshake(side, fault), true),
        Failure::Timeout => (Outcome::HandshakeTimeout(side), false),
        Failure::Io(_) => (Outcome::Reset(side), false),
        Failure::NoCredential(why) => (Outcome::NoCredential(why), side == Side::Downstream),
        Failure::NoHello => (Outcome::NoHello, true),
        Failure::NoRoute => (Outcome::NoRoute, true),
    };
    if told {
        socket.ended_cleanly();
    }
    outcome
}

fn dial_outcome(error: DialError) -> Outcome {
    match error {
        DialError::Unresolved(why) => Outcome::Unresolved(why),
        DialError::Unreachable(why) => Outcome::Unreachable(why),
        DialError::Timeout => Outcome::ConnectTimeout,
    }
}

/// Runs a phase until it ends or the connection is told to.
async fn or_ordered<T>(live: &Live, phase: impl Future<Output = Result<T, Outcome>>) -> Result<T, Outcome> {
    let mut phase = pin!(phase);
    poll_fn(|cx| {
        live.listen(cx.waker());
        match live.ordered() {
            Some(order) => Poll::Ready(Err(order.outcome())),
            None => phase.as_mut().poll(cx),
        }
    })
    .await
}
