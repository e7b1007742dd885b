//! Contents that are not taken before they have rested: whoever replaces files one by one passes through sets
//! that nobody meant.

use std::time::{Duration, SystemTime};

use super::read::Fingerprint;

/// What is held back, and since when it has been there.
#[derive(Debug, Default)]
pub struct Held(Option<(Fingerprint, SystemTime)>);

impl Held {
    /// Whether this content is still to be held back, so that it rests for so long.
    pub fn hold(&mut self, fingerprint: Fingerprint, rest: Duration, now: SystemTime) -> bool {
        match self.0 {
            // A clock that was set back must not hold it for ever.
            Some((held, since)) if held == fingerprint => {
                now.duration_since(since).is_ok_and(|rested| rested < rest)
            }
            Some(_) | None => {
                self.0 = Some((fingerprint, now));
                true
            }
        }
    }

    /// Nothing is held back any more.
    pub fn release(&mut self) {
        self.0 = None;
    }
}
