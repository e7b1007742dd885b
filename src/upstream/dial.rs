//! Addresses -> one connected socket, within a deadline.
//!
//! A dial consumes a `Permit`: without authorization there is nothing to call this with. All addresses
//! are tried; the next one is started when the one before has failed or has kept us waiting for
//! a quarter of a second (RFC 8305 section 5), and the first to answer wins.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::resolve::Resolver;
use crate::plan::authorize::Permit;
use crate::plan::{Cluster, Endpoint, Host};

/// How long one address is waited for before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

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
}

/// Connects to an upstream that this connection may reach: to the endpoint whose turn it is, or to the next
/// if it cannot be reached. `random` is drawn for this connection.
pub async fn dial(
    _spent: Permit,
    cluster: &Cluster,
    random: u64,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let attempt = async {
        let mut failure =
            DialError::Unresolved(format!("expected an endpoint, found none: {}", cluster.name));
        for endpoint in cluster.order(random) {
            match reach(endpoint, resolver).await {
                Ok(stream) => return Ok(stream),
                Err(error @ DialError::Exhausted(_)) => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    };
    timeout_at(deadline, attempt).await.unwrap_or(Err(DialError::Timeout))
}

async fn reach(endpoint: &Endpoint, resolver: &Resolver) -> Result<TcpStream, DialError> {
    let addresses = match &endpoint.host {
        Host::Address(address) => {
            return connect(SocketAddr::new(*address, endpoint.port)).await.map_err(unreachable);
        }
        Host::Name(_) => resolver.resolve(&endpoint.host).await.map_err(DialError::Unresolved)?,
    };
    match *addresses {
        [one] => connect(SocketAddr::new(one, endpoint.port)).await.map_err(unreachable),
        _ => connect_first(&addresses, endpoint.port).await,
    }
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

async fn connect_first(addresses: &[IpAddr], port: u16) -> Result<TcpStream, DialError> {
    let mut waiting = addresses.iter().take(ADDRESSES_MAX).map(|address| SocketAddr::new(*address, port));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::authorize::{Rules, authorize};

    async fn dialled(addresses: &[&str], port: u16) -> Result<TcpStream, DialError> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        connect_first(&addresses, port).await
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
        let endpoint = |(host, port): &(&str, u16)| {
            let host = host.parse().map_or_else(|_| Host::Name((*host).into()), Host::Address);
            Endpoint { host, port: *port, weight: 1 }
        };
        Cluster {
            name: "test".into(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            originate: None,
            connect_timeout: Duration::from_secs(20),
            balance: Balance::InOrder,
            origin: Origin::default(),
        }
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
            let permit = authorize(&Rules::default(), None).unwrap();
            let resolver = Resolver::new(Handle::current());
            let stream = dial(permit, &cluster, 0, &resolver, Instant::now() + Duration::from_secs(20)).await;
            assert_eq!(stream.unwrap().peer_addr().unwrap().port(), port);
        });
    }

    #[test]
    fn a_name_without_address_is_unresolved_and_one_in_hosts_is_found() {
        runtime().block_on(async {
            let resolver = Resolver::new(Handle::current());
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let dial = async |name: &str| {
                let cluster = cluster(&[(name, port)]);
                let permit = authorize(&Rules::default(), None).unwrap();
                dial(permit, &cluster, 0, &resolver, Instant::now() + Duration::from_secs(20)).await
            };
            assert!(dial("localhost").await.is_ok());
            assert!(matches!(dial("absent.invalid").await, Err(DialError::Unresolved(_))));
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

    use crate::plan::{Balance, Origin};
}
