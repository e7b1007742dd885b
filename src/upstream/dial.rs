//! An upstream -> a connected socket, within a deadline; and another, if that one is of no use.
//!
//! A dial consumes a `Permit`: without authorization there is nothing to call this with. The endpoint that
//! is chosen is tried first; if it cannot be reached, or does not shake hands, the next. The addresses of one
//! endpoint are tried beside each other: the next one is started when the one before has failed or has kept
//! us waiting for a quarter of a second (RFC 8305 section 5), and the first to answer wins.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::balance::{self, Draw};
use super::roster::{Roster, Visit};
use super::upstreams::{Slot, Upstream, Upstreams};
use crate::clock;
use crate::plan::authorize::Permit;
use crate::plan::cluster::Cluster;

/// How long one address is waited for before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// What an endpoint gets at least of the time to connect, while there are others: a packet that was lost is
/// sent again after a second.
const SHARE_MIN: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialError {
    /// The name has no address.
    Unresolved(String),
    /// Every address refused.
    Unreachable(String),
    /// We have nothing left to make a socket of; the upstream was not asked.
    Exhausted(String),
    /// The deadline passed.
    Timeout,
    /// The upstream has as many connections as it may.
    Overflow,
    /// Every endpoint is ejected.
    NoneHealthy,
}

/// The way of one connection to an upstream that it may reach, from endpoint to endpoint.
pub struct Dialling<'dial> {
    upstreams: &'dial Upstreams,
    upstream: Arc<Upstream>,
    cluster: &'dial Arc<Cluster>,
    draw: Draw,
    deadline: Instant,
    /// What an endpoint is sent before everything else.
    preface: Vec<u8>,
    slot: Slot,
    roster: Option<Arc<Roster>>,
    /// The endpoints that were tried before the last.
    tried: Vec<usize>,
    last: Option<usize>,
}

/// An endpoint that was reached.
pub struct Reached {
    /// The socket.
    pub stream: TcpStream,
    /// What counts the connection among those to the endpoint.
    pub visit: Visit,
}

/// A connection's place among those of its upstream and of its endpoint, given back when dropped.
pub struct Lease {
    _slot: Slot,
    _visit: Visit,
}

/// Begins to connect to an upstream that this connection may reach. `random` is drawn for it, and `preface` is
/// sent to the endpoint that is reached.
pub fn dial<'dial>(
    _spent: Permit,
    upstreams: &'dial Upstreams,
    cluster: &'dial Arc<Cluster>,
    client: IpAddr,
    preface: Vec<u8>,
    random: u64,
    deadline: Instant,
) -> Result<Dialling<'dial>, DialError> {
    let upstream = upstreams.of(cluster);
    let slot = upstream.enter(cluster.pool.connections_max).ok_or(DialError::Overflow)?;
    let draw = Draw { random, turn: upstream.turn(), source: balance::source_key(client) };
    Ok(Dialling {
        upstreams,
        upstream,
        cluster,
        draw,
        deadline,
        preface,
        slot,
        roster: None,
        tried: Vec::new(),
        last: None,
    })
}

impl Dialling<'_> {
    /// Reaches the endpoint whose turn it is, or the next that can be reached; each is tried once.
    pub async fn next(&mut self) -> Result<Reached, DialError> {
        let roster = self.roster().await?;
        let mut failure = None;
        loop {
            self.tried.extend(self.last.take());
            let now = clock::now();
            let left = self.deadline.duration_since(now.into());
            let chosen = roster.choose(&self.tried, self.draw, now);
            let Some((index, member)) = chosen.and_then(|index| Some((index, roster.member(index)?))) else {
                let none = if self.tried.is_empty() { DialError::NoneHealthy } else { DialError::Timeout };
                return Err(failure.unwrap_or(none));
            };
            if left.is_zero() {
                return Err(failure.unwrap_or(DialError::Timeout));
            }
            self.last = Some(index);
            let others = roster.len().saturating_sub(self.tried.len()).max(1);
            let share = (left / u32::try_from(others).unwrap_or(u32::MAX)).max(SHARE_MIN).min(left);
            let visit = Visit::to(&member.place);
            let attempt = timeout_at((now + share).into(), reach(&member.addresses, &self.preface)).await;
            match attempt.unwrap_or(Err(DialError::Timeout)) {
                Ok(stream) => return Ok(Reached { stream, visit }),
                Err(error @ DialError::Exhausted(_)) => return Err(error),
                Err(error) => {
                    roster.failed(visit.place(), &error.to_string(), clock::now());
                    failure = Some(error);
                }
            }
        }
    }

    async fn roster(&mut self) -> Result<Arc<Roster>, DialError> {
        if let Some(roster) = &self.roster {
            return Ok(roster.clone());
        }
        let finding = self.upstream.roster(self.cluster, &self.upstreams.resolver);
        let found = timeout_at(self.deadline, finding).await.map_err(|_| DialError::Timeout)?;
        let roster = found.map_err(DialError::Unresolved)?;
        self.roster = Some(roster.clone());
        Ok(roster)
    }

    /// The endpoint was reached, but is of no use.
    pub fn failed(&self, reached: &Visit, why: &str) {
        if let Some(roster) = &self.roster {
            roster.failed(reached.place(), why, clock::now());
        }
    }

    /// The endpoint is what it should be: the connection stays with it.
    pub fn settle(self, reached: Visit) -> Lease {
        reached.place().succeeded();
        Lease { _slot: self.slot, _visit: reached }
    }
}

async fn reach(addresses: &[SocketAddr], preface: &[u8]) -> Result<TcpStream, DialError> {
    let stream = match *addresses {
        [one] => connect(one).await.map_err(unreachable)?,
        _ => connect_first(addresses).await?,
    };
    let mut rest = preface;
    while !rest.is_empty() {
        let written = match stream.try_write(rest) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await.map(|()| 0),
            written => written,
        };
        let broken = |error: io::Error| {
            DialError::Unreachable(format!("cannot send the header of the PROXY protocol: {}", error.kind()))
        };
        rest = &rest[written.map_err(broken)?..];
    }
    Ok(stream)
}

type Attempt = Result<TcpStream, (SocketAddr, io::Error)>;

async fn connect(address: SocketAddr) -> Attempt {
    TcpStream::connect(address).await.map_err(|error| (address, error))
}

fn unreachable((address, error): (SocketAddr, io::Error)) -> DialError {
    match exhausted(&error) {
        Some(what) => DialError::Exhausted(format!("cannot connect, {what}: {address}")),
        None => DialError::Unreachable(format!("cannot connect to {address}: {}", error.kind())),
    }
}

/// What we lack, where that is why there is no socket: nothing the upstream could help.
fn exhausted(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some("this process has no file descriptor left"),
        Errno::NFILE => Some("the system has no file descriptor left"),
        Errno::NOBUFS | Errno::NOMEM => Some("the system has no memory left"),
        _ => None,
    }
}

async fn connect_first(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut waiting = addresses.iter().take(ADDRESSES_MAX).copied();
    let mut attempts: JoinSet<Attempt> = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        let more = match waiting.next() {
            Some(address) => {
                attempts.spawn(connect(address));
                true
            }
            None => false,
        };
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = sleep(STAGGER), if more => continue,
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(failure))) => failures.push(unreachable(failure)),
            Some(Err(error)) => failures.push(DialError::Unreachable(error.to_string())),
            None => return Err(failures.into_iter().next().unwrap_or(DialError::Timeout)),
        }
    }
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unresolved(why) | Self::Unreachable(why) | Self::Exhausted(why) => why,
            Self::Timeout => "no answer in time",
            Self::Overflow => "the upstream has as many connections as it may",
            Self::NoneHealthy => "every endpoint is ejected",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::authorize::{Rules, authorize};
    use crate::plan::rbac::Attempt;

    async fn dialled(addresses: &[&str], port: u16) -> Result<TcpStream, DialError> {
        let address = |text: &&str| SocketAddr::new(text.parse().unwrap(), port);
        let addresses: Vec<_> = addresses.iter().map(address).collect();
        connect_first(&addresses).await
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn the_address_that_answers_is_found_behind_those_that_refuse() {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.3:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let stream = dialled(&["127.0.0.1", "127.0.0.2", "127.0.0.3"], port).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap().ip(), listener.local_addr().unwrap().ip());
            drop(listener);
            assert!(matches!(
                dialled(&["127.0.0.1", "127.0.0.2"], port).await,
                Err(DialError::Unreachable(_))
            ));
        });
    }

    fn cluster(endpoints: &[(&str, u16)]) -> Cluster {
        let host = |text: &str| text.parse().map_or_else(|_| Host::Name(text.into()), Host::Address);
        let timeout = Duration::from_secs(20);
        let (first, port) = endpoints[0];
        let single = Cluster::single(Role::Egress, "test".into(), host(first), port, timeout, "test");
        let endpoint = |(name, port): &(&str, u16)| Endpoint { host: host(name), port: *port, weight: 1 };
        Cluster { endpoints: endpoints.iter().map(endpoint).collect(), ..single }
    }

    async fn reached(upstreams: &Upstreams, cluster: Cluster) -> Result<(u16, Lease), DialError> {
        let (permit, deadline) = (
            authorize(&Rules::default(), &Attempt::default()).permit.unwrap(),
            Instant::now() + cluster.connect_timeout,
        );
        let (cluster, client) = (Arc::new(cluster), IpAddr::from([127, 0, 0, 1]));
        let mut dialling = dial(permit, upstreams, &cluster, client, Vec::new(), 0, deadline)?;
        let Reached { stream, visit } = dialling.next().await?;
        Ok((stream.peer_addr().unwrap().port(), dialling.settle(visit)))
    }

    fn upstreams() -> Upstreams {
        Upstreams::new(Resolver::new(&Handle::current(), &Dns::default()))
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_is_followed_by_the_next() {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let nobody = closed.local_addr().unwrap().port();
            drop(closed);
            let cluster = cluster(&[("absent.invalid", 1), ("127.0.0.1", nobody), ("127.0.0.1", port)]);
            assert_eq!(reached(&upstreams(), cluster).await.unwrap().0, port);
        });
    }

    #[test]
    fn a_name_without_address_is_unresolved_and_one_in_hosts_is_found() {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(reached(&upstreams(), cluster(&[("localhost", port)])).await.is_ok());
            let absent = reached(&upstreams(), cluster(&[("absent.invalid", port)])).await;
            assert!(matches!(absent, Err(DialError::Unresolved(_))));
        });
    }

    #[test]
    fn what_we_lack_is_not_the_upstreams_doing() {
        let failed = |errno: Errno| unreachable(("192.0.2.1:3306".parse().unwrap(), errno.into()));
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(matches!(failed(errno), DialError::Exhausted(_)), "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::TIMEDOUT] {
            assert!(matches!(failed(errno), DialError::Unreachable(_)), "{errno}");
        }
    }

    use tokio::runtime::Handle;

    use crate::plan::cluster::Endpoint;
    use crate::plan::dns::Dns;
    use crate::plan::{Host, Role};
    use crate::upstream::resolve::Resolver;
}
