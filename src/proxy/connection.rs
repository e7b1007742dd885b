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
use crate::plan::{Cluster, Entrance, Listener, Plan, Route, route};
use crate::telemetry::access_log::AccessLog;
use crate::tls::accept::{self, Terminations};
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
    let mut record = Record::open(context.log.clone(), live.clone(), context.plan.role, client);
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
    record.upstream(&route.cluster);
    let permit = authorize(&route.rules, identity.as_ref()).map_err(|_| Outcome::Denied)?;
    let deadline = Instant::now() + context.plan.limits.connect_timeout;
    let stream = dial(permit, &route.cluster, &context.resolver, deadline).await.map_err(dial_outcome)?;
    record.upstream_address(stream.peer_addr().ok());
    let upstream = secure(context, &route.cluster, Socket::dialled(stream), record).await?;
    Ok((downstream, upstream))
}

/// The hop to the client: which route, and who is asking.
async fn admit(
    context: &Context,
    listener: &Listener,
    mut socket: Socket,
    record: &mut Record,
) -> Result<(Arc<Route>, Leg, Option<PeerIdentity>), Outcome> {
    let rows = match &listener.entrance {
        Entrance::Plaintext(route) => return Ok((route.clone(), Leg::plaintext(socket), None)),
        Entrance::Tls(rows) => rows,
    };
    let deadline = Instant::now() + context.plan.limits.handshake_timeout;
    let hello = match accept::hello(socket.stream(), deadline).await {
        Ok(hello) => hello,
        Err(failure) => return Err(refused(Side::Downstream, &mut socket, record, failure.into())),
    };
    record.sni(hello.sni.as_deref());
    let Some(row) = route::by_sni(rows, hello.sni.as_deref()) else {
        accept::refuse_name(socket.stream()).await;
        return Err(refused(Side::Downstream, &mut socket, record, Failure::NoRoute.into()));
    };
    match accept::accept(&context.terminations, &row.accept, hello, socket.stream(), deadline).await {
        Ok(established) => {
            note(Side::Downstream, &established, record);
            let identity = established.peer.as_ref().map(|peer| peer.identity.clone());
            Ok((row.route.clone(), Leg::tls(socket, established), identity))
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
