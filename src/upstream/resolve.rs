//! A host name -> addresses.
//!
//! Asking is done on the runtime of the control thread, once however many connections wait for it; workers find
//! what is known in a small table and need not cross threads. A name that is in use is asked for again before
//! its answer is too old, so that connections wait for the first answer only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep_until, timeout};

use super::answers::{Addresses, Change, Knowledge, Known};
use super::asker::Asker;
use crate::clock;
use crate::plan::Host;
use crate::plan::dns::Dns;

/// Names remembered at most. A plan has a handful; the bound is for the day it has many.
const NAMES_MAX: usize = 16 * 1024;
/// Names that are asked for at once.
const ASKING_MAX: usize = 64;
/// A connection that could use an old answer waits so long for a new one.
const PATIENCE: Duration = Duration::from_secs(2);
/// The names are looked over at least so often, and at most.
const LOOK_MAX: Duration = Duration::from_mins(1);
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Resolves host names. Cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    control: Handle,
    asker: Asker,
    stale_max: Duration,
    names: Mutex<HashMap<String, Entry>>,
    asking: Semaphore,
    /// Told when there is a name that may be due before those known so far.
    news: Arc<Notify>,
}

struct Entry {
    known: Knowledge,
    /// Held by the one who asks.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    fn is_asked_for(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }
}

impl Resolver {
    /// A resolver whose queries run on this runtime.
    pub fn new(control: &Handle, dns: &Dns) -> Self {
        let (asker, asking) = (Asker::new(dns.servers.clone()), Semaphore::new(ASKING_MAX));
        let (names, news) = (Mutex::default(), Arc::default());
        let shared =
            Shared { control: control.clone(), asker, stale_max: dns.stale_max, names, asking, news };
        let shared = Arc::new(shared);
        control.spawn(refresh(Arc::downgrade(&shared), shared.news.clone()));
        Self(shared)
    }

    /// The addresses of a host, at least one; or why there are none.
    pub async fn resolve(&self, host: &Host) -> Result<Addresses, String> {
        let name = match host {
            Host::Address(address) => return Ok(Arc::from([*address])),
            Host::Name(name) => name,
        };
        let stale = match self.0.look(name) {
            Known::Usable(addresses) => return Ok(addresses),
            Known::Failed(why) => return Err(why),
            Known::Ask(stale) => stale,
        };
        let asked = self.0.control.spawn(self.0.clone().ask(name.clone()));
        match &stale {
            // Late is as good as failed.
            Some(_) => drop(timeout(PATIENCE, asked).await),
            None => asked.await.map_err(|error| format!("cannot resolve {name}: {error}"))?,
        }
        match (self.0.look(name), stale) {
            (Known::Usable(addresses), _) | (Known::Ask(_), Some(addresses)) => Ok(addresses),
            (Known::Failed(why), _) => Err(why),
            (Known::Ask(_), None) => Err(format!("expected an address, found none: {name}")),
        }
    }

    /// The addresses of a name, if they can be used without asking.
    pub fn remembered(&self, name: &str) -> Option<Addresses> {
        match self.0.look(name) {
            Known::Usable(addresses) => Some(addresses),
            Known::Failed(_) | Known::Ask(_) => None,
        }
    }

    /// The addresses of a host, if there is nothing to wait for; if there is, it is asked for.
    pub fn current(&self, host: &Host) -> Option<Addresses> {
        let name = match host {
            Host::Address(address) => return Some(Arc::from([*address])),
            Host::Name(name) => name,
        };
        match self.0.look(name) {
            Known::Usable(addresses) => Some(addresses),
            Known::Failed(_) => None,
            Known::Ask(_) => {
                if !self.0.names().get(name).is_some_and(Entry::is_asked_for) {
                    self.0.control.spawn(self.0.clone().ask(name.clone()));
                }
                None
            }
        }
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, name: &str) -> Known {
        let now = clock::now();
        self.names().get_mut(name).map_or(Known::Ask(None), |entry| entry.known.look(self.stale_max, now))
    }

    /// Asks for a name that is due, unless somebody is at it.
    async fn refresh(&self, name: &str) {
        let turn = self.names().get(name).map(|entry| entry.turn.clone());
        if let Some(Ok(_turn)) = turn.as_ref().map(|turn| turn.try_lock()) {
            self.inquire(name).await;
        }
    }

    /// Asks for a name, unless somebody else has just done so.
    async fn ask(self: Arc<Self>, name: String) {
        let turn = {
            let mut names = self.names();
            if names.len() >= NAMES_MAX {
                let now = clock::now();
                names.retain(|_, entry| {
                    entry.is_asked_for() || !entry.known.is_worthless(self.stale_max, now)
                });
            }
            let entry = || Entry { known: Knowledge::new(clock::now()), turn: Arc::default() };
            names.entry(name.clone()).or_insert_with(entry).turn.clone()
        };
        let _turn = turn.lock().await;
        if matches!(self.look(&name), Known::Ask(_)) {
            self.inquire(&name).await;
        }
    }

    async fn inquire(&self, name: &str) {
        // Nobody closes it.
        let _slot = self.asking.acquire().await;
        let answer = self.asker.ask(name).await;
        let now = clock::now();
        let mut names = self.names();
        let Some(entry) = names.get_mut(name) else { return };
        match answer {
            Ok((addresses, ttl)) => {
                let told = told(&addresses);
                match entry.known.answered(addresses, ttl, now) {
                    Change::Moved => tracing::info!(name, "has other addresses now: {told}"),
                    Change::Recovered => tracing::info!(name, "is resolved again: {told}"),
                    Change::None | Change::Failing => {}
                }
                self.news.notify_one();
            }
            Err(why) => {
                if entry.known.unanswered(&why, now) == Change::Failing {
                    let longest = self.stale_max;
                    tracing::warn!(
                        name,
                        "is not resolved any more, the last answer serves for {longest:?} behind its time: {why}"
                    );
                }
            }
        }
    }

    /// The names that are due, and when the next one will be.
    fn due(&self) -> (Vec<String>, std::time::Instant) {
        let now = clock::now();
        let (soon, mut next) = (now + LOOK_MIN, now + LOOK_MAX);
        let mut due = Vec::new();
        self.names().retain(|name, entry| {
            if entry.is_asked_for() {
                // What will be due when is known once it is answered.
                next = soon;
                return true;
            }
            if let Some(at) = entry.known.due(now) {
                next = next.min(at.max(soon));
                if at <= now {
                    due.push(name.clone());
                }
            }
            !entry.known.is_worthless(self.stale_max, now)
        });
        (due, next)
    }
}

/// Asks again for names in use, before their answers are too old.
async fn refresh(shared: Weak<Shared>, news: Arc<Notify>) {
    loop {
        let Some(alive) = shared.upgrade() else { return };
        let (due, next) = alive.due();
        for name in due {
            let shared = alive.clone();
            alive.control.spawn(async move { shared.refresh(&name).await });
        }
        drop(alive);
        tokio::select! {
            () = sleep_until(next.into()) => {}
            () = news.notified() => {}
        }
    }
}

fn told(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
