//! A host name -> addresses, within the TTL of the answer.
//!
//! hickory-resolver does the asking, on the runtime of the control thread; workers find an answer that
//! is still valid in a small table and need not cross threads. `/etc/hosts` and `/etc/resolv.conf` are
//! read again when they change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::runtime::Handle;

use crate::clock;
use crate::plan::Host;

/// Names remembered at most. A plan has a handful; the bound is for the day it has many.
const NAMES_MAX: usize = 4096;
/// An answer is asked for again after this long, whatever its TTL says.
const TTL_MAX: Duration = Duration::from_mins(5);
const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Resolves host names. Cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    control: Handle,
    answers: Mutex<HashMap<String, Answer>>,
    asker: Mutex<Asker>,
}

struct Answer {
    addresses: Arc<[IpAddr]>,
    valid_until: Instant,
}

/// The resolver made from the system's files, and the state they were in.
struct Asker {
    resolver: Option<Result<Arc<TokioResolver>, String>>,
    files: Stamp,
}

/// Modification times of the files that a resolver is made from.
type Stamp = [Option<SystemTime>; 2];

impl Resolver {
    /// A resolver whose queries run on this runtime.
    pub fn new(control: Handle) -> Self {
        let asker = Mutex::new(Asker { resolver: None, files: [None; 2] });
        Self(Arc::new(Shared { control, answers: Mutex::default(), asker }))
    }

    /// The addresses of a host, at least one; or why there are none.
    pub async fn resolve(&self, host: &Host) -> Result<Arc<[IpAddr]>, String> {
        let name = match host {
            Host::Address(address) => return Ok(Arc::from([*address])),
            Host::Name(name) => name,
        };
        if let Some(addresses) = self.remembered(name) {
            return Ok(addresses);
        }
        let (this, asked) = (self.clone(), name.clone());
        let answer = self.0.control.spawn(async move { this.ask(&asked).await }).await;
        answer.map_err(|error| format!("cannot resolve {name}: {error}"))?
    }

    /// The addresses of a name, if they were asked for and are still valid.
    pub fn remembered(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let now = clock::now();
        let answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(name).filter(|answer| now < answer.valid_until).map(|answer| answer.addresses.clone())
    }

    async fn ask(&self, name: &str) -> Result<Arc<[IpAddr]>, String> {
        let resolver = self.0.asker.lock().unwrap_or_else(PoisonError::into_inner).current()?;
        let found = resolver.lookup_ip(name).await.map_err(|error| {
            // Its own words for this are a dump of the query.
            if error.is_no_records_found() {
                no_address(name)
            } else {
                format!("cannot resolve {name}: {error}")
            }
        })?;
        let addresses: Arc<[IpAddr]> = found.iter().collect();
        if addresses.is_empty() {
            return Err(no_address(name));
        }
        let now = clock::now();
        let valid_until = found.valid_until().min(now + TTL_MAX);
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= NAMES_MAX {
            answers.retain(|_, answer| now < answer.valid_until);
        }
        if answers.len() < NAMES_MAX {
            answers.insert(name.to_owned(), Answer { addresses: addresses.clone(), valid_until });
        }
        Ok(addresses)
    }
}

fn no_address(name: &str) -> String {
    format!("expected an address, found none: {name}")
}

impl Asker {
    /// The resolver for the files as they are now.
    fn current(&mut self) -> Result<Arc<TokioResolver>, String> {
        let files =
            [HOSTS, RESOLV_CONF].map(|path| Path::new(path).metadata().and_then(|meta| meta.modified()).ok());
        if self.resolver.is_none() || self.files != files {
            self.files = files;
            self.resolver = Some(build().map(Arc::new));
        }
        self.resolver.clone().unwrap_or_else(|| Err("no resolver".into()))
    }
}

fn build() -> Result<TokioResolver, String> {
    let builder = match TokioResolver::builder_tokio() {
        Ok(builder) => builder,
        Err(error) => {
            // A container without the file still has /etc/hosts.
            tracing::warn!("no DNS servers, only /etc/hosts is used: {error}");
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(Vec::new()),
                TokioRuntimeProvider::default(),
            )
        }
    };
    let mut builder = builder;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build().map_err(|error| format!("cannot read {RESOLV_CONF} or {HOSTS}: {error}"))
}
