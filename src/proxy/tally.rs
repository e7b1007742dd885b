//! Handshakes counted by what was agreed on: who still comes with an old version, or without a post-quantum
//! exchange, is seen before that is forbidden.
//!
//! Each worker has one of these, and counts a connection once its handshakes are over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::plan::outcome::Side;
use crate::tls::Agreed;

/// What handshakes have in common that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// With whom.
    pub side: Side,
    /// The version, as in records.
    pub version: &'static str,
    /// The group of the key exchange, as in records.
    pub group: &'static str,
}

/// How many there were of each kind. Versions and groups are those that we speak, so the kinds are few.
pub type Counts = BTreeMap<Kind, u64>;

/// The handshakes of one worker.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// Counts a handshake that was made.
    pub fn count(&self, side: Side, agreed: Agreed) {
        let kind = Kind { side, version: agreed.version(), group: agreed.group() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// Adds what it has counted.
    pub fn add_to(&self, sum: &mut Counts) {
        for (kind, count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            *sum.entry(*kind).or_default() += count;
        }
    }
}
