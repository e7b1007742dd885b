//! What must be possible before a plan is followed: its credentials are loaded, its sockets are bound. All of it,
//! or the plan is not followed at all.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::clock;
use crate::config::{Awaited, Configuration, report};
use crate::credentials::store::{self, Change, Store};
use crate::plan::cluster::Keepalive;
use crate::plan::{Listener, ListenerKey, Plan};
use crate::proxy::leg;

/// Entries of a folder among which one that was misspelt is looked for.
const NEIGHBOURS_MAX: usize = 1000;

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener's address cannot be had.
    Bind(SocketAddr, io::Error),
    /// The admin server's address cannot be had.
    Admin(SocketAddr, io::Error),
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
            Self::Admin(address, error) => {
                write!(f, "--admin: {}: {address}", bind_failure(error))
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

/// A plan that can be followed.
pub struct Prepared {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its credentials, loaded.
    pub store: Arc<Store>,
    /// The sockets that were not open before.
    pub sockets: Vec<(Arc<Listener>, TcpListener)>,
    /// What should be known of it.
    pub warnings: Vec<String>,
}

/// Prepares a plan to be followed after one that had this store and these sockets.
pub fn prepare(
    configuration: Configuration,
    before: &Store,
    is_open: impl Fn(ListenerKey) -> bool,
) -> Result<Prepared, StartError> {
    let Configuration { plan, credentials, mut warnings, awaited, admin: _ } = configuration;
    let store = before.followed_by(credentials);
    warnings.extend(load(&store, before, awaited)?);
    let new = plan.listeners.iter().filter(|listener| !is_open(listener.key()));
    let bound = new.map(|listener| {
        let socket = bind(listener.address).map_err(|error| StartError::Bind(listener.address, error))?;
        Ok((listener.clone(), socket))
    });
    let sockets = bound.collect::<Result<_, _>>()?;
    Ok(Prepared { plan: Arc::new(plan), store: Arc::new(store), sockets, warnings })
}

/// Looks at the credentials that were not there before, and says what should be known of them. One that is usable
/// for the plan before must be for this one: the connections that need it would be closed.
fn load(store: &Store, before: &Store, awaited: Awaited) -> Result<Vec<String>, StartError> {
    let mut warnings = Vec::new();
    for slot in store.slots() {
        let source = slot.source();
        let old = before.slot(&source.name);
        if old.is_some_and(|old| Arc::ptr_eq(old, slot)) {
            continue;
        }
        let was_usable = old.is_some_and(|old| old.current().is_some());
        match slot.refresh(clock::wall()) {
            Change::Unchanged(_) | Change::Held => {}
            Change::Published { generation, warnings: found } => {
                let directory = source.directory.display();
                warnings.extend(found.iter().map(|warning| format!("{warning}: {directory}")));
                store::tell(slot, Change::Published { generation, warnings: Vec::new() });
            }
            Change::Refused(refusal) if !was_usable && awaited.covers(source, &refusal) => {
                warnings.push(format!(
                    "connections that need it are closed until there is a usable credential: {refusal}{}",
                    meant(&source.directory)
                ));
            }
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

/// Opens a socket that listens.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    leg::set_options(&socket, Keepalive::USUAL)?;
    socket.bind(&address.into())?;
    // The kernel caps it at net.core.somaxconn.
    socket.listen(4096)?;
    Ok(socket.into())
}
