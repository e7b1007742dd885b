//! New keys for connections that last (RFC 8446 section 4.6.3): after so many bytes, after so much time.
//!
//! Looked at once a tick, so the bound on bytes is passed by what one tick can carry. The library changes
//! keys by itself before any cipher's own limit.

use std::collections::HashMap;
use std::time::Instant;

use super::live::Table;
use crate::plan::limits::RekeyAfter;

/// Finds connections whose keys have been used for long enough.
pub struct Rekey {
    after: RekeyAfter,
    /// What had moved, and when, when each connection was given its keys.
    since: HashMap<u64, (u64, Instant)>,
}

impl Rekey {
    /// Keeps to these bounds.
    pub fn new(after: RekeyAfter) -> Self {
        Self { after, since: HashMap::new() }
    }

    /// Looks at every connection.
    pub fn tick(&mut self, table: &Table, now: Instant) {
        if self.after == RekeyAfter::default() {
            return;
        }
        let table = table.lock();
        self.since.retain(|id, _| table.contains_key(id));
        for live in table.values().filter(|live| live.is_relaying()) {
            let moved = live.moved();
            let (before, since) = self.since.entry(live.id).or_insert((moved, now));
            let by_bytes = self.after.bytes.is_some_and(|bytes| moved - *before >= bytes);
            let by_time = self.after.time.is_some_and(|time| now.duration_since(*since) >= time);
            if by_bytes || by_time {
                (*before, *since) = (moved, now);
                live.rekey();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::plan::outcome::Side;
    use crate::proxy::live::Live;

    #[test]
    fn keys_are_changed_after_the_bytes_and_after_the_time() {
        let table = Table::default();
        let (busy, quiet) = (Arc::new(Live::new(1, Arc::default())), Arc::new(Live::new(2, Arc::default())));
        for live in [&busy, &quiet] {
            live.relaying();
            table.enter(live);
        }
        let start = crate::clock::now();
        let mut rekey = Rekey::new(RekeyAfter { bytes: Some(100), time: Some(Duration::from_secs(10)) });
        let mut told = [Vec::new(), Vec::new()];
        for second in 0..=20 {
            busy.count(Side::Downstream, 30);
            rekey.tick(&table, start + Duration::from_secs(second));
            for (live, told) in [&busy, &quiet].into_iter().zip(&mut told) {
                if live.told_to_rekey() {
                    told.push(second);
                }
            }
        }
        assert_eq!(told, [vec![4, 8, 12, 16, 20], vec![10, 20]]);
    }
}
