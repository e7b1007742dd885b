//! When an endpoint that fails is left alone. Pure: the time is an argument (Istio `OutlierDetection`, Envoy's
//! outlier detector).
//!
//! So many failures one behind the other eject an endpoint, for a time that grows with the number of its
//! ejections. Where that would leave too few, none is ejected, or those that are ejected are used all the same.

use std::time::{Duration, Instant};

use crate::plan::cluster::Outliers;

/// However often an endpoint was ejected, it is for no longer, unless the first time is longer already.
const EJECTION_MAX: Duration = Duration::from_mins(5);

/// What is known of one endpoint's failures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Failures since the last success or ejection.
    failures: u32,
    /// Ejections, less one for each quiet interval since the last.
    ejections: u32,
    /// The end of the last ejection.
    ejected_until: Option<Instant>,
}

impl Health {
    /// Whether the endpoint is to be left alone.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// The endpoint did what it should.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The endpoint failed; says for how long it is ejected if that was one failure too many and there is
    /// `room` for another ejection ([`has_room`]).
    pub fn failed(&mut self, outliers: &Outliers, now: Instant, room: bool) -> Option<Duration> {
        if self.is_ejected(now) {
            return None;
        }
        self.failures += 1;
        if self.failures < outliers.failures {
            return None;
        }
        self.failures = 0;
        if !room {
            return None;
        }
        let quiet = self.ejected_until.map_or(Duration::ZERO, |until| now.duration_since(until));
        let forgiven = quiet.as_nanos() / outliers.interval.as_nanos().max(1);
        self.ejections = self.ejections.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)) + 1;
        let longest = EJECTION_MAX.max(outliers.ejection_base);
        let lasts = outliers.ejection_base.saturating_mul(self.ejections).min(longest);
        self.ejected_until = now.checked_add(lasts);
        Some(lasts)
    }
}

/// Whether another endpoint may be ejected.
pub fn has_room(outliers: &Outliers, ejected: usize, all: usize) -> bool {
    ejected * 100 < usize::from(outliers.ejected_percent_max) * all
}

/// Whether so few are left that those which are ejected are used all the same (Envoy's panic).
pub fn uses_all(outliers: &Outliers, ejected: usize, all: usize) -> bool {
    (all - ejected) * 100 < usize::from(outliers.healthy_percent_min) * all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn outliers() -> Outliers {
        Outliers {
            failures: 5,
            interval: SECOND * 10,
            ejection_base: SECOND * 30,
            ejected_percent_max: 100,
            healthy_percent_min: 0,
        }
    }

    /// Fails so often and says what the last failure brought; those before it must bring nothing.
    fn fail(health: &mut Health, times: u32, now: Instant) -> Option<u64> {
        for _ in 1..times {
            assert_eq!(health.failed(&outliers(), now, true), None);
        }
        health.failed(&outliers(), now, true).map(|lasts| lasts.as_secs())
    }

    #[test]
    fn r26_the_fifth_failure_in_a_row_ejects_for_thirty_seconds() {
        let start = crate::clock::now();
        let mut health = Health::default();
        assert_eq!(fail(&mut health, 4, start), None);
        health.succeeded();
        assert_eq!(fail(&mut health, 4, start), None);
        assert!(!health.is_ejected(start));
        assert_eq!(fail(&mut health, 1, start), Some(30));
        assert!(health.is_ejected(start + 29 * SECOND));
        assert!(!health.is_ejected(start + 30 * SECOND));
    }

    #[test]
    fn each_ejection_is_longer_until_it_has_been_quiet() {
        let mut now = crate::clock::now();
        let mut health = Health::default();
        for expected in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300] {
            assert_eq!(fail(&mut health, 5, now), Some(expected));
            now += Duration::from_secs(expected);
        }
        // Two intervals: two fewer than the eleven there were, and the one that comes.
        assert_eq!(fail(&mut health, 5, now + 25 * SECOND), Some(300));
        let mut once = Health::default();
        assert_eq!(fail(&mut once, 5, now), Some(30));
        assert_eq!(fail(&mut once, 5, now + 39 * SECOND), Some(60));
        assert_eq!(fail(&mut once, 5, now + 1000 * SECOND), Some(30));
    }

    #[test]
    fn failures_while_it_is_ejected_do_not_count() {
        let start = crate::clock::now();
        let mut health = Health::default();
        assert_eq!(fail(&mut health, 5, start), Some(30));
        assert_eq!(fail(&mut health, 20, start + SECOND), None);
        assert!(!health.is_ejected(start + 30 * SECOND));
    }

    #[test]
    fn without_room_nobody_is_ejected_and_counting_begins_again() {
        let (start, mut health) = (crate::clock::now(), Health::default());
        for _ in 0..10 {
            assert_eq!(health.failed(&outliers(), start, false), None);
        }
        assert_eq!(fail(&mut health, 4, start), None);
        assert_eq!(fail(&mut health, 1, start), Some(30));
    }

    #[test]
    fn percentages_bound_the_ejections() {
        let percent = |ejected_percent_max, healthy_percent_min| Outliers {
            ejected_percent_max,
            healthy_percent_min,
            ..outliers()
        };
        for (max, ejected, all, expected) in [
            // As Envoy does it, one is always allowed, whatever its share, unless none is.
            (10, 0, 2, true),
            (10, 1, 2, false),
            (0, 0, 2, false),
            (100, 1, 2, true),
            (100, 2, 2, false),
            (50, 1, 3, true),
            (50, 2, 3, false),
        ] {
            assert_eq!(has_room(&percent(max, 0), ejected, all), expected, "{max} {ejected} {all}");
        }
        for (min, ejected, all, expected) in
            [(0, 2, 2, false), (50, 1, 2, false), (51, 1, 2, true), (50, 2, 2, true)]
        {
            assert_eq!(uses_all(&percent(10, min), ejected, all), expected, "{min} {ejected} {all}");
        }
    }
}
