//! Connections and their bytes, counted by listener as the configuration has it.
//!
//! A connection is counted when it is accepted, when it ends, and its bytes once a tick: nothing of this is on the
//! path of the bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::plan::outcome::{Outcome, Side};
use crate::plan::{Listener, Role};

/// What tells listeners apart in the configuration, also across its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerName {
    /// What it is for.
    pub role: Role,
    /// The address that was asked for.
    pub listen: SocketAddr,
    /// The port that the configuration names.
    pub port: u16,
}

/// How connections ended that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The outcome, as in records.
    pub outcome: &'static str,
    /// The side of the handshake that was refused, if that was the end.
    pub handshake: Option<Side>,
}

/// What was counted at every listener that there ever was.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<ListenerName, Arc<ListenerCounts>>>);

/// What is counted at one listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    opened: AtomicU64,
    from_downstream: AtomicU64,
    from_upstream: AtomicU64,
    ended: Mutex<BTreeMap<End, u64>>,
}

/// What was counted at one listener so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Connections that were accepted.
    pub opened: u64,
    /// How many of them have ended, and how.
    pub ended: BTreeMap<End, u64>,
    /// Bytes that came in from clients, and from upstreams.
    pub bytes: [(Side, u64); 2],
}

impl Counts {
    /// The counts of a listener, which go on where those of one of the same name have stopped.
    pub fn of(&self, listener: &Listener) -> Arc<ListenerCounts> {
        let name = ListenerName { role: listener.role, listen: listener.address, port: listener.port };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }

    /// What was counted so far.
    pub fn totals(&self) -> Vec<(ListenerName, Totals)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, counts)| (*name, counts.totals())).collect()
    }
}

impl ListenerCounts {
    /// A connection was accepted.
    pub fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended.
    pub fn end(&self, outcome: &Outcome) {
        let end = End { outcome: outcome.account().label, handshake: outcome.refused_handshake() };
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(end).or_default() += 1;
    }

    /// So many more bytes came in from a side.
    pub fn add_bytes(&self, from: Side, bytes: u64) {
        self.counter(from).fetch_add(bytes, Ordering::Relaxed);
    }

    fn totals(&self) -> Totals {
        // Ends first: a connection that ends meanwhile is one that is still open, and none less than there are.
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = [Side::Downstream, Side::Upstream];
        Totals {
            opened: self.opened.load(Ordering::Relaxed),
            ended,
            bytes: bytes.map(|from| (from, self.counter(from).load(Ordering::Relaxed))),
        }
    }

    fn counter(&self, from: Side) -> &AtomicU64 {
        match from {
            Side::Downstream => &self.from_downstream,
            Side::Upstream => &self.from_upstream,
        }
    }
}

impl Totals {
    /// Connections that are open.
    pub fn active(&self) -> u64 {
        self.opened.saturating_sub(self.ended.values().sum())
    }
}
