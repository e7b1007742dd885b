//! What the operational log hears of failed connections: the first of a kind at once, those like it as a
//! count. An upstream that is down is one fact, however many clients find it out; each of them has its record.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

/// How long those like the first are only counted.
const INTERVAL: Duration = Duration::from_secs(10);
/// Kinds that are told apart at once; more are counted together.
const KINDS_MAX: usize = 64;

/// What makes two failures alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The name of the upstream.
    pub upstream: String,
    /// The label of the outcome.
    pub outcome: &'static str,
    /// What happened, for a person.
    pub detail: String,
}

/// The failures of the process that were told.
#[derive(Default)]
pub struct Warnings(Mutex<Counts>);

impl Warnings {
    /// Tells of a failed connection, or counts it.
    pub fn tell(self: &Arc<Self>, id: u64, failure: Failure) {
        let heard = self.lock().hear(failure.clone());
        if heard.is_first {
            let Failure { upstream, outcome, detail } = failure;
            tracing::warn!(id, upstream, outcome, "connection failed: {detail}");
        }
        // Without a runtime the process is ending, and there will be no more of them.
        if heard.is_only
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(recount(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_counts(&self) {
        let repeated = self.lock().sweep();
        for (Failure { upstream, outcome, detail }, count) in repeated {
            tracing::warn!(upstream, outcome, repeated = count, "more connections failed likewise: {detail}");
        }
    }
}

impl Drop for Warnings {
    fn drop(&mut self) {
        self.tell_counts();
    }
}

/// Tells the counts until there is nothing left to count.
async fn recount(warnings: Weak<Warnings>) {
    loop {
        sleep(INTERVAL).await;
        let Some(warnings) = warnings.upgrade() else { return };
        warnings.tell_counts();
        if warnings.lock().kinds.is_empty() {
            return;
        }
    }
}

/// How many failures of each kind there were since they were last told.
#[derive(Default)]
struct Counts {
    kinds: HashMap<Failure, u64>,
}

struct Heard {
    /// None like it was told a short while ago.
    is_first: bool,
    /// It is the only one that is counted.
    is_only: bool,
}

impl Counts {
    fn hear(&mut self, failure: Failure) -> Heard {
        let full = self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&failure);
        let kind =
            if full { Failure { upstream: "-".into(), detail: String::new(), ..failure } } else { failure };
        let is_first = match self.kinds.entry(kind) {
            Entry::Occupied(mut known) => {
                *known.get_mut() += 1;
                false
            }
            Entry::Vacant(new) => {
                new.insert(0);
                true
            }
        };
        Heard { is_first, is_only: is_first && self.kinds.len() == 1 }
    }

    /// Those that were counted and not told. A kind that was silent since the last time is forgotten.
    fn sweep(&mut self) -> Vec<(Failure, u64)> {
        self.kinds.retain(|_, count| *count > 0);
        self.kinds.iter_mut().map(|(failure, count)| (failure.clone(), std::mem::take(count))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(detail: &str) -> Failure {
        Failure { upstream: "db:3306".into(), outcome: "unreachable", detail: detail.into() }
    }

    #[test]
    fn the_first_is_told_and_those_like_it_are_counted() {
        let mut counts = Counts::default();
        let heard: Vec<_> = (0..5).map(|_| counts.hear(failure("refused")).is_first).collect();
        assert_eq!(heard, [true, false, false, false, false]);
        assert!(counts.hear(failure("timed out")).is_first);
        assert_eq!(counts.sweep(), [(failure("refused"), 4)]);
        // Still going on, so still only counted; then silent for a while, and told again.
        assert!(!counts.hear(failure("refused")).is_first);
        assert_eq!(counts.sweep(), [(failure("refused"), 1)]);
        assert_eq!(counts.sweep(), []);
        assert!(counts.kinds.is_empty());
        assert!(counts.hear(failure("refused")).is_only);
    }

    #[test]
    fn however_many_kinds_there_are_only_so_many_are_kept() {
        let mut counts = Counts::default();
        for index in 0..1_000 {
            counts.hear(failure(&index.to_string()));
        }
        assert_eq!(counts.kinds.len(), KINDS_MAX + 1);
        let rest = counts.sweep();
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!(rest[0].1, 1_000 - KINDS_MAX as u64 - 1);
    }
}
