//! What is known of a name, and when it must be asked for again. Pure: the time is an argument.
//!
//! An answer is good for its TTL, within bounds. A name that is in use is asked for again before that is over,
//! so that no connection waits for it. While nobody answers, the last good answer serves on for a stated
//! time; that there is no such name is an answer too, and ends the one before.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Addresses, at least one.
pub type Addresses = Arc<[IpAddr]>;

/// An answer is good for so long at least, whatever its TTL says, so that not every connection asks.
const TTL_MIN: Duration = Duration::from_secs(1);
/// An answer is asked for again after this long, whatever its TTL says.
const TTL_MAX: Duration = Duration::from_mins(5);
/// Nobody asks again so soon after a failure: while an old answer serves, and without one.
const RETRY_WITH_ANSWER: Duration = Duration::from_secs(5);
const RETRY_WITHOUT: Duration = Duration::from_secs(1);
/// A name that no connection has gone to for so long is not asked for any more until one does.
const UNUSED_MAX: Duration = Duration::from_mins(10);

/// What is known of one name.
#[derive(Debug)]
pub struct Knowledge {
    answer: Option<Answer>,
    failure: Option<Failure>,
    used: Instant,
}

#[derive(Debug)]
struct Answer {
    addresses: Addresses,
    /// From here on it is asked for again, if the name is in use.
    refresh: Instant,
    valid_until: Instant,
}

#[derive(Debug)]
struct Failure {
    why: String,
    /// Until here nobody asks again.
    until: Instant,
}

/// What a connection can make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Good addresses, or old ones while no others can be had.
    Usable(Addresses),
    /// It was asked for just now, in vain.
    Failed(String),
    /// It must be asked for; if that fails, or takes long, there may be an old answer.
    Ask(Option<Addresses>),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no such name, or it has no address.
    Absent(String),
    /// Nobody could be asked, or nobody knew.
    Failed(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

/// What changed with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anybody should know.
    None,
    /// There are other addresses than before.
    Moved,
    /// It is answered again.
    Recovered,
    /// It is not answered any more, and the old answer serves.
    Failing,
}

impl Knowledge {
    /// Of a name that is asked for the first time.
    pub fn new(now: Instant) -> Self {
        Self { answer: None, failure: None, used: now }
    }

    /// What a connection that comes now can make of it.
    pub fn look(&mut self, stale_max: Duration, now: Instant) -> Known {
        self.used = now;
        let stale = match &self.answer {
            Some(answer) if now < answer.valid_until => return Known::Usable(answer.addresses.clone()),
            Some(answer) if now < answer.valid_until + stale_max => Some(answer.addresses.clone()),
            _ => None,
        };
        match (self.failure.as_ref().filter(|failure| now < failure.until), stale) {
            (Some(_), Some(stale)) => Known::Usable(stale),
            (Some(failure), None) => Known::Failed(failure.why.clone()),
            (None, stale) => Known::Ask(stale),
        }
    }

    /// It was answered, for so long.
    pub fn answered(&mut self, addresses: Addresses, ttl: Duration, now: Instant) -> Change {
        let ttl = ttl.clamp(TTL_MIN, TTL_MAX);
        let before = self.answer.take();
        let recovered = self.failure.take().is_some() && before.is_some();
        let moved = before.as_ref().is_some_and(|before| sorted(&before.addresses) != sorted(&addresses));
        // Who holds the same answer already, sees by its address that nothing has changed.
        let addresses =
            before.map(|before| before.addresses).filter(|before| *before == addresses).unwrap_or(addresses);
        self.answer = Some(Answer { addresses, refresh: now + ttl.mul_f64(0.75), valid_until: now + ttl });
        match (recovered, moved) {
            (true, _) => Change::Recovered,
            (false, true) => Change::Moved,
            (false, false) => Change::None,
        }
    }

    /// It was not answered.
    pub fn unanswered(&mut self, why: &Unanswered, now: Instant) -> Change {
        let first = self.failure.is_none();
        if let Unanswered::Absent(_) = why {
            self.answer = None;
        }
        let retry = if self.answer.is_some() { RETRY_WITH_ANSWER } else { RETRY_WITHOUT };
        self.failure = Some(Failure { why: why.to_string(), until: now + retry });
        if first && self.answer.is_some() { Change::Failing } else { Change::None }
    }

    /// When it should be asked for without anybody waiting; `None` where nobody uses it.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let answer = self.answer.as_ref().filter(|_| now < self.used + UNUSED_MAX)?;
        Some(self.failure.as_ref().map_or(answer.refresh, |failure| failure.until))
    }

    /// Whether there is nothing in it that anybody could use.
    pub fn is_worthless(&self, stale_max: Duration, now: Instant) -> bool {
        self.answer.as_ref().is_none_or(|answer| now >= answer.valid_until + stale_max)
            && self.failure.as_ref().is_none_or(|failure| now >= failure.until)
    }
}

fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const STALE: Duration = Duration::from_hours(1);

    fn addresses(last: &[u8]) -> Addresses {
        last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    fn failed() -> Unanswered {
        Unanswered::Failed("no server".into())
    }

    #[test]
    fn an_answer_serves_for_its_ttl_and_is_asked_for_before_that_is_over() {
        let start = crate::clock::now();
        for (ttl, valid) in [(0, 1), (60, 60), (86_400, 300)] {
            let mut known = Knowledge::new(start);
            assert_eq!(known.look(STALE, start), Known::Ask(None));
            assert_eq!(known.answered(addresses(&[1]), SECOND * ttl, start), Change::None);
            let valid = SECOND * valid;
            let just_before = start + valid.mul_f64(0.999);
            assert_eq!(known.look(STALE, just_before), Known::Usable(addresses(&[1])));
            assert_eq!(known.look(STALE, start + valid), Known::Ask(Some(addresses(&[1]))));
            assert_eq!(known.due(start), Some(start + valid.mul_f64(0.75)));
        }
    }

    #[test]
    fn while_nobody_answers_the_last_answer_serves_for_a_stated_time() {
        let mut now = crate::clock::now();
        let mut known = Knowledge::new(now);
        known.answered(addresses(&[1]), SECOND * 60, now);
        now += SECOND * 45;
        assert_eq!(known.unanswered(&failed(), now), Change::Failing);
        assert_eq!(known.unanswered(&failed(), now), Change::None);
        assert_eq!(known.due(now), Some(now + RETRY_WITH_ANSWER));
        now += SECOND * 15;
        assert_eq!(known.look(STALE, now), Known::Ask(Some(addresses(&[1]))));
        known.unanswered(&failed(), now);
        assert_eq!(known.look(STALE, now), Known::Usable(addresses(&[1])));
        now += STALE;
        assert_eq!(known.look(STALE, now), Known::Ask(None));
        known.unanswered(&failed(), now);
        assert_eq!(known.look(STALE, now), Known::Failed("no server".into()));
        assert!(known.is_worthless(STALE, now + SECOND * 5));
        assert_eq!(known.answered(addresses(&[2]), SECOND, now), Change::Recovered);
    }

    #[test]
    fn that_there_is_no_such_name_is_an_answer() {
        let start = crate::clock::now();
        let mut known = Knowledge::new(start);
        known.answered(addresses(&[1]), SECOND * 60, start);
        known.unanswered(&Unanswered::Absent("none".into()), start);
        assert_eq!(known.look(STALE, start), Known::Failed("none".into()));
        assert_eq!(known.look(STALE, start + RETRY_WITHOUT), Known::Ask(None));
    }

    #[test]
    fn an_answer_that_is_the_same_is_seen_to_be_and_one_that_is_turned_round_is_no_news() {
        let start = crate::clock::now();
        let mut known = Knowledge::new(start);
        let first = addresses(&[1, 2]);
        known.answered(first.clone(), SECOND, start);
        assert_eq!(known.answered(addresses(&[1, 2]), SECOND, start), Change::None);
        let Known::Usable(again) = known.look(STALE, start) else { panic!("{known:?}") };
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(known.answered(addresses(&[2, 1]), SECOND, start), Change::None);
        assert_eq!(known.look(STALE, start), Known::Usable(addresses(&[2, 1])));
        assert_eq!(known.answered(addresses(&[2, 3]), SECOND, start), Change::Moved);
    }

    #[test]
    fn a_name_that_nobody_uses_is_not_asked_for() {
        let start = crate::clock::now();
        let mut known = Knowledge::new(start);
        known.answered(addresses(&[1]), SECOND * 60, start);
        assert!(known.due(start + UNUSED_MAX).is_none());
        known.look(STALE, start + UNUSED_MAX);
        assert!(known.due(start + UNUSED_MAX).is_some());
    }
}
