//! When requests are due at a fixed rate, and on which connections.
//!
//! A request that finds no connection free keeps its time: what it waits is part of what it took, so a
//! proxy that stalls cannot hide it by being asked less often.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The schedule of requests.
pub struct Pace {
    interval: Duration,
    due: Option<Instant>,
    idle: VecDeque<usize>,
}

impl Pace {
    pub fn new(rate: u64) -> Self {
        Self { interval: Duration::from_nanos(1_000_000_000 / rate), due: None, idle: VecDeque::new() }
    }

    /// The first request is due now.
    pub fn start(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// A connection that is free for a request.
    pub fn idle(&mut self, index: usize) {
        self.idle.push_back(index);
    }

    /// The connection for the next request that is due, and when it was due.
    pub fn next(&mut self, now: Instant) -> Option<(usize, Instant)> {
        let due = self.due.filter(|due| *due <= now)?;
        let index = self.idle.pop_front()?;
        self.due = Some(due + self.interval);
        Some((index, due))
    }
}
