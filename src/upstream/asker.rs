//! Asks for a name: /etc/hosts, then the servers of DNS, by the system's search domains and options.
//!
//! `/etc/hosts` and `/etc/resolv.conf` are read again when they change.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};

use super::answers::{Addresses, Unanswered};
use crate::clock;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What a file says has no TTL: it is looked at again so soon.
const TTL_OF_HOSTS: Duration = Duration::from_secs(5);

/// A query that is not answered for so long is sent again, whatever the system's files say: a client waits.
const QUERY_MAX: Duration = Duration::from_secs(2);

/// Asks for names.
pub struct Asker {
    /// Instead of those of the system.
    servers: Vec<SocketAddr>,
    sources: Mutex<Option<Sources>>,
}

/// Whom to ask, and the state that the files were in which say so.
#[derive(Clone)]
struct Sources {
    hosts: Arc<Hosts>,
    resolver: Result<Arc<TokioResolver>, String>,
    files: Stamp,
}

/// Modification times of the files.
type Stamp = [Option<SystemTime>; 2];

impl Asker {
    /// Asks these servers; if there is none, those of the system.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, sources: Mutex::default() }
    }

    /// The addresses of a name, and for how long they are good.
    pub async fn ask(&self, name: &str) -> Result<(Addresses, Duration), Unanswered> {
        let Sources { hosts, resolver, .. } = self.current();
        let listed: Addresses = in_hosts(&hosts, name).into_iter().filter(is_a_place).collect();
        if !listed.is_empty() {
            return Ok((listed, TTL_OF_HOSTS));
        }
        let resolver = resolver.map_err(Unanswered::Failed)?;
        let found = resolver.lookup_ip(name).await.map_err(|error| {
            // Its own words for this are a dump of the query.
            if error.is_no_records_found() {
                absent(name)
            } else {
                Unanswered::Failed(format!("cannot resolve {name}: {error}"))
            }
        })?;
        let addresses: Addresses = found.iter().filter(is_a_place).collect();
        if addresses.is_empty() {
            return Err(absent(name));
        }
        Ok((addresses, found.valid_until().duration_since(clock::now())))
    }

    /// What the files say now.
    fn current(&self) -> Sources {
        let files =
            [HOSTS, RESOLV_CONF].map(|path| Path::new(path).metadata().and_then(|meta| meta.modified()).ok());
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match &*sources {
            Some(current) if current.files == files => current.clone(),
            _ => {
                // Without the file nothing is listed.
                let hosts = Arc::new(Hosts::from_system().unwrap_or_default());
                let resolver = self.resolver().map(Arc::new);
                sources.insert(Sources { hosts, resolver, files }).clone()
            }
        }
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let system = read_system_conf();
        if let Err(error) = &system
            && self.servers.is_empty()
        {
            // A container without the file still has /etc/hosts.
            tracing::warn!("no DNS servers, only {HOSTS} is used: {error}");
        }
        let (config, options) = system
            .unwrap_or_else(|_| (ResolverConfig::from_name_servers(Vec::new()), ResolverOpts::default()));
        let config = with_servers(config, &self.servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options_used = builder.options_mut();
        *options_used = options;
        options_used.timeout = options_used.timeout.min(QUERY_MAX);
        options_used.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Both are looked after here.
        options_used.use_hosts_file = ResolveHosts::Never;
        options_used.cache_size = 0;
        builder.build().map_err(|error| format!("cannot use {RESOLV_CONF}: {error}"))
    }
}

/// The system's configuration with other servers, if there are any: its domains stay.
fn with_servers(config: ResolverConfig, servers: &[SocketAddr]) -> ResolverConfig {
    if servers.is_empty() {
        return config;
    }
    let (domain, search, _) = config.into_parts();
    let servers = servers.iter().map(|server| {
        let at_port = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port);
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    ResolverConfig::from_parts(domain, search, servers.collect())
}

fn in_hosts(hosts: &Hosts, name: &str) -> Vec<IpAddr> {
    let Ok(name) = Name::from_utf8(name) else { return Vec::new() };
    let listed = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
    listed
        .flat_map(|lookup| {
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether there can be a server at an address. 0.0.0.0 is how some servers of DNS block a name, and would be
/// this very host.
fn is_a_place(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

fn absent(name: &str) -> Unanswered {
    Unanswered::Absent(format!("expected an address, found none: {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_servers_are_asked_by_the_domains_of_the_system() {
        let (config, options) = hickory_resolver::system_conf::parse_resolv_conf(
            "nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:3\n",
        )
        .unwrap();
        assert_eq!(options.ndots, 3);
        let same = with_servers(config.clone(), &[]);
        assert_eq!(same.name_servers()[0].ip, IpAddr::from([192, 0, 2, 1]));
        let other = with_servers(config, &["127.0.0.1:5353".parse().unwrap()]);
        let [server] = other.name_servers() else { panic!("{other:?}") };
        assert_eq!(server.ip, IpAddr::from([127, 0, 0, 1]));
        assert!(server.connections.iter().all(|connection| connection.port == 5353));
        let search: Vec<_> = other.search().iter().map(ToString::to_string).collect();
        assert_eq!(search, ["a.example", "b.example"]);
    }

    #[test]
    fn what_is_no_place_is_not_dialled() {
        for (address, expected) in
            [("0.0.0.0", false), ("::", false), ("224.0.0.1", false), ("127.0.0.1", true), ("fd00::1", true)]
        {
            assert_eq!(is_a_place(&address.parse().unwrap()), expected, "{address}");
        }
    }
}
