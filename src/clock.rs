//! The one place that reads the clocks; everything that decides takes the time as an argument.

use std::time::{Instant, SystemTime};

/// The monotonic clock, for deadlines and durations.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, for records and certificate dates.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
