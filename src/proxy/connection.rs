//! The spine: what happens to one connection, from accept to close, in the order in which it happens.
//!
//! Egress and ingress differ only in the route (is there TLS to accept? TLS to originate?), never here.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::leg::{Leg, Socket};
use super::live::Live;
use super::record::Record;
use super::relay::Relay;
use super::warnings::Warnings;
use super::worker::Place;
use crate::clock;
use crate::plan::authorize::{Permit, Verdict, authorize};
use crate::plan::cluster::{Cluster, ProxyHeader};
use crate::plan::outcome::{Blame, Outcome, Side};
use crate::plan::rbac::Attempt;
use crate::plan::succession::Hop;
use crate::plan::{Accept, DestinationRoute, Entrance, Listener, Plan, Route, route};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::counts::Counts;
use crate::tls::accept::{self, First, Hello, Terminations};
use crate::tls::handshake::{Established, Failure, HandshakeError};
use crate::tls::originate::{self, Originations};
use crate::tls::presented::Presented;
use crate::tls::standing::{Register, Shown};
use crate::upstream::dial::{DialError, Lease, Reached, dial};
use crate::upstream::proxy_protocol::{self, Told, ToldTls};
use crate::upstream::upstreams::Upstreams;

/// Everything a connection needs of the process, one for all of them.
pub struct Context {
    /// What may happen.
    pub plan: Arc<Plan>,
    /// Counts the plans of the process, from 1.
    pub generation: u64,
    /// TLS towards clients.
    pub terminations: Arc<Terminations>,
    /// TLS towards servers.
    pub originations: Arc<Originations>,
    /// The peers that were let in.
    pub standings: Arc<Register>,
    /// Names to addresses, and what is known of who is there.
    pub upstreams: Arc<Upstreams>,
    /// Where records go.
    pub log: AccessLog,
    /// What the operational log has heard of failures.
    pub warnings: Arc<Warnings>,
    /// What is counted of connections.
    pub counts: Arc<Counts>,
}

/// Carries one connection to its end and writes its record.
///
/// Each phase is boxed by itself, so that the task is small, and what a phase needs is given back before
/// the next begins.
pub fn serve(
    context: Arc<Context>,
    listener: Arc<Listener>,
    stream: TcpStream,
    client: SocketAddr,
    place: Place,
) -> impl Future<Output = ()> + Send {
    let beginning = Box::pin(begin(context, listener, stream, client, place));
    async move {
        if let Some(relaying) = beginning.await {
            relaying.await;
        }
    }
}

/// Everything up to the relay, and the relay itself if it comes to that.
async fn begin(
    context: Arc<Context>,
    listener: Arc<Listener>,
    stream: TcpStream,
    client: SocketAddr,
    place: Place,
) -> Option<Pin<Box<impl Future<Output = ()> + Send>>> {
    let mut record = Record::open(context.clone(), listener.clone(), place.live().clone(), client);
    let socket = Socket::accepted(stream);
    socket.user_timeout(context.plan.limits.user_timeout);
    let set_up = {
        let phase = pin!(set_up(&context, &listener, &place, socket, client, &mut record));
        or_ordered(place.live(), phase).await
    };
    record.agreed().for_each(|(side, agreed)| place.tally().count(side, agreed));
    match set_up {
        Ok((downstream, upstream, lease)) => {
            place.live().relaying();
            let relay = Relay::new(downstream, upstream, context.plan.limits.on_truncation);
            Some(Box::pin(relaying(relay, record, place, lease)))
        }
        Err(outcome) => {
            record.close(outcome);
            None
        }
    }
}

/// Relays until the end. Not an `async fn`, whose future would hold the arguments a second time.
fn relaying(
    mut relay: Relay,
    mut record: Record,
    place: Place,
    lease: Lease,
) -> impl Future<Output = ()> + Send {
    let mut lease = Some(lease);
    poll_fn(move |cx| {
        let outcome = ready!(relay.poll(place.live(), cx));
        // Who reads the record may count on it that there is room for another.
        drop(lease.take());
        record.close(outcome);
        Poll::Ready(())
    })
}

/// Everything before the first byte is relayed.
async fn set_up(
    context: &Context,
    listener: &Listener,
    place: &Place,
    socket: Socket,
    client: SocketAddr,
    record: &mut Record,
) -> Result<(Leg, Leg, Lease), Outcome> {
    let (route, downstream, peer) = admit(context, listener, socket, record).await?;
    // One draw for the upstream, one for the endpoint.
    let cluster = route.choose(fastrand::u64(..)).ok_or(Outcome::NoRoute)?;
    record.cluster(cluster.clone());
    // As in Istio, where it is a matter of the listener: of several upstreams the first one says.
    if let Some(first) = route.targets.first() {
        place.live().hold_to(&first.cluster);
    }
    let identity = peer.as_deref().map(|peer| &peer.identity);
    let attempt = Attempt {
        identity,
        source: Some(client.ip()),
        destination: destination(&route, &downstream),
        port: listener.port,
        sni: record.sni_so_far(),
    };
    let Verdict { permit, marks } = authorize(&route.rules, &attempt);
    record.marks(marks);
    let permit = permit.map_err(|denied| Outcome::Denied(denied.to_string()))?;
    place.admit()?;
    let preface = match cluster.proxy_header {
        Some(version) => preface(version, cluster, client, &downstream, record)?,
        None => Vec::new(),
    };
    let (upstream, lease) = reach(context, cluster, permit, client.ip(), preface, record).await?;
    Ok((downstream, upstream, lease))
}

/// Where the client has connected to, if there are policies that may ask.
fn destination(route: &Route, downstream: &Leg) -> Option<IpAddr> {
    let asked = !route.rules.policies.is_empty();
    asked.then(|| downstream.local_address().ok()).flatten().map(|address| address.ip())
}

/// What tells the server who its client is. It goes in plaintext: what the client's TLS has hidden is told only
/// where everything goes in plaintext.
fn preface(
    version: ProxyHeader,
    cluster: &Cluster,
    client: SocketAddr,
    downstream: &Leg,
    record: &Record,
) -> Result<Vec<u8>, Outcome> {
    let destination = downstream.local_address().map_err(|_| Outcome::Reset(Side::Downstream))?;
    let hidden = cluster.originate.is_some();
    let tls = record.client_tls().filter(|_| !hidden).map(|(agreed, certificate)| {
        let (version, cipher) = (agreed.version(), agreed.cipher());
        ToldTls { version, cipher, certificate }
    });
    let authority = record.sni_so_far().filter(|_| !hidden);
    Ok(proxy_protocol::header(version, Told { client, destination, authority, tls }))
}

/// The hop to the server: to the endpoint whose turn it is, or to the next if that one cannot be reached or
/// does not shake hands. Nothing of the client's has been sent by then.
async fn reach(
    context: &Context,
    cluster: &Arc<Cluster>,
    permit: Permit,
    client: IpAddr,
    preface: Vec<u8>,
    record: &mut Record,
) -> Result<(Leg, Lease), Outcome> {
    let deadline = Instant::now() + cluster.connect_timeout;
    let dialled = dial(permit, &context.upstreams, cluster, client, preface, fastrand::u64(..), deadline);
    let mut dialling = dialled.map_err(dial_outcome)?;
    let mut failure = None;
    loop {
        let Reached { stream, visit } = match dialling.next().await {
            Ok(reached) => reached,
            Err(error) => return Err(failure.unwrap_or_else(|| dial_outcome(error))),
        };
        record.upstream_address(stream.peer_addr().ok());
        let socket = Socket::dialled(stream, cluster.pool.keepalive);
        socket.user_timeout(context.plan.limits.user_timeout);
        match secure(context, cluster, socket, record).await {
            Ok(leg) => return Ok((leg, dialling.settle(visit))),
            Err(outcome) => {
                let account = outcome.account();
                if account.blame != Blame::Peer(Side::Upstream) {
                    return Err(outcome);
                }
                dialling.failed(&visit, account.label);
                failure = Some(outcome);
            }
        }
    }
}

/// The hop to the client: where it may go, and who is asking.
type Admitted = (Arc<Route>, Leg, Option<Arc<Presented>>);

/// The hop to the client: which route, and who is asking.
async fn admit(
    context: &Context,
    listener: &Listener,
    mut socket: Socket,
    record: &mut Record,
) -> Result<Admitted, Outcome> {
    let deadline = Instant::now() + context.plan.limits.handshake_timeout;
    let table = match &listener.entrance {
        Entrance::Plaintext(rows) => {
            stand(context, Side::Downstream, Hop::Plain(listener.key()), &Shown::Plaintext, record);
            return by_destination(rows, socket);
        }
        Entrance::Permissive(accept, route) => {
            let first = accept::first_bytes(socket.stream(), deadline).await;
            let first =
                first.map_err(|failure| refused(Side::Downstream, &mut socket, record, failure.into()))?;
            let bytes = match first {
                First::Tls(hello) => {
                    record.sni(hello.sni.as_deref());
                    if hello.is_of_the_mesh() {
                        let found = (accept, route);
                        return terminate(context, listener, found, hello, socket, deadline, record).await;
                    }
                    hello.into_bytes()
                }
                First::Other(bytes) => bytes,
            };
            stand(context, Side::Downstream, Hop::Plain(listener.key()), &Shown::Plaintext, record);
            return Ok((route.clone(), Leg::passthrough(socket, bytes), None));
        }
        Entrance::Tls(table) => table,
    };
    let hello = match accept::hello(socket.stream(), deadline).await {
        Ok(hello) => hello,
        Err(failure) => return Err(refused(Side::Downstream, &mut socket, record, failure.into())),
    };
    record.sni(hello.sni.as_deref());
    let destination = || socket.stream().local_addr().ok().map(|address| address.ip());
    let Some(row) = table.find(hello.sni.as_deref(), destination) else {
        accept::refuse_name(socket.stream()).await;
        return Err(refused(Side::Downstream, &mut socket, record, Failure::NoRoute.into()));
    };
    match &row.accept {
        Some(accept) => {
            terminate(context, listener, (accept, &row.route), hello, socket, deadline, record).await
        }
        None => Ok((row.route.clone(), Leg::passthrough(socket, hello.into_bytes()), None)),
    }
}

/// Plaintext: nothing is read, the destination decides.
fn by_destination(rows: &[DestinationRoute], mut socket: Socket) -> Result<Admitted, Outcome> {
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
    listener: &Listener,
    (accept, route): (&Arc<Accept>, &Arc<Route>),
    hello: Hello,
    mut socket: Socket,
    deadline: Instant,
    record: &mut Record,
) -> Result<Admitted, Outcome> {
    let sni = hello.sni.as_deref().map(|sni| sni.to_ascii_lowercase().into());
    match accept::accept(&context.terminations, accept, hello, socket.stream(), deadline).await {
        Ok(established) => {
            note(context, Side::Downstream, Hop::Client(listener.key(), sni), &established, record);
            let peer = established.peer.clone();
            Ok((route.clone(), Leg::tls(socket, established), peer))
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
    let hop = Hop::Server(cluster.role, cluster.name.as_str().into());
    let Some(originate) = &cluster.originate else {
        stand(context, Side::Upstream, hop, &Shown::Plaintext, record);
        return Ok(Leg::plaintext(socket));
    };
    record.sni(originate.sni.as_deref());
    let deadline = Instant::now() + context.plan.limits.handshake_timeout;
    match originate::originate(&context.originations, originate, socket.stream(), deadline).await {
        Ok(established) => {
            note(context, Side::Upstream, hop, &established, record);
            Ok(Leg::tls(socket, established))
        }
        Err(error) => Err(refused(Side::Upstream, &mut socket, record, error)),
    }
}

fn note(context: &Context, side: Side, hop: Hop, established: &Established, record: &mut Record) {
    if let Some(shown) = established.shown() {
        stand(context, side, hop, &shown, record);
    }
    record.tls(side, established.agreed, established.id);
    record.peer(side, established.peer.clone());
}

/// From now on the peer is judged again whenever a plan or a credential changes.
fn stand(context: &Context, side: Side, hop: Hop, shown: &Shown<'_>, record: &Record) {
    let standing = context.standings.enter(hop, shown, context.generation, clock::wall());
    record.live().stand(side, standing);
}

/// A handshake that failed: what is recorded, and how the socket is closed. Where an alert says why,
/// the close behind it is an ordinary one; where none could be sent, it is a reset.
fn refused(side: Side, socket: &mut Socket, record: &mut Record, error: HandshakeError) -> Outcome {
    record.peer(side, error.peer);
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
        DialError::Exhausted(why) => Outcome::Internal(why),
        DialError::Timeout => Outcome::ConnectTimeout,
        DialError::Overflow => Outcome::UpstreamOverflow,
        DialError::NoneHealthy => Outcome::NoneHealthy,
    }
}

/// Runs a phase until it ends or the connection is told to.
async fn or_ordered<T>(
    live: &Live,
    mut phase: Pin<&mut impl Future<Output = Result<T, Outcome>>>,
) -> Result<T, Outcome> {
    poll_fn(|cx| {
        live.listen(cx.waker());
        match live.ordered() {
            Some(order) => Poll::Ready(Err(order.outcome())),
            None => phase.as_mut().poll(cx),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::limits::OnTruncation;

    /// What a connection keeps while it relays, beside its TLS sessions: a number that must not creep up.
    const RELAYING_BYTES_MAX: usize = 520;

    #[test]
    fn what_a_relaying_connection_keeps_stays_small() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let leg = async || Leg::plaintext(Socket::accepted(TcpStream::connect(address).await.unwrap()));
            let relay = Relay::new(leg().await, leg().await, OnTruncation::Reset);
            let size = size_of_val(&relay) + size_of::<Record>() + size_of::<Place>() + size_of::<Lease>();
            assert!(size <= RELAYING_BYTES_MAX, "{size} bytes");
        });
    }
}
