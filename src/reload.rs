//! Looks at what can change while the process runs, and goes on with what is found: the configuration first, then
//! the credentials, then the peers of open connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::config::folder::{Folder, Look};
use crate::credentials::levels::Levels;
use crate::credentials::watch::Reason;
use crate::preparation::prepare;
use crate::serving::{Changes, Serving};

/// Problems of a configuration that one line of the log tells.
const PROBLEMS_TOLD_MAX: usize = 20;

/// What is looked at.
pub struct Reloader {
    serving: Arc<Serving>,
    /// The files of the configuration, if it has any.
    folder: Option<Mutex<Folder>>,
    /// What was told of the configuration in use.
    warned: Mutex<BTreeSet<String>>,
}

impl Reloader {
    /// Goes on from what is served; these warnings were told.
    pub fn new(serving: Arc<Serving>, folder: Option<Folder>, warned: Vec<String>) -> Self {
        let warned = Mutex::new(warned.into_iter().collect());
        Self { serving, folder: folder.map(Mutex::new), warned }
    }

    /// Where a change can come from.
    pub fn levels(&self) -> Levels {
        let mut levels = self.serving.store().levels();
        if let Some(folder) = &self.folder {
            levels.add(lock(folder).levels());
        }
        levels
    }

    /// Looks. Returns whether another look is wanted soon.
    pub fn look(&self, now: SystemTime, reason: Reason) -> bool {
        let mut soon =
            self.folder.as_ref().is_some_and(|folder| self.configuration(&mut lock(folder), now, reason));
        soon |= self.serving.store().refresh(now);
        self.serving.standings.examine(now);
        soon
    }

    fn configuration(&self, folder: &mut Folder, now: SystemTime, reason: Reason) -> bool {
        if self.serving.is_stopped() {
            return false;
        }
        let kept_generation = self.serving.generation();
        let refusal = match folder.look(now, reason) {
            Look::Unchanged => return false,
            Look::Held => return true,
            Look::Restored => {
                tracing::info!(generation = kept_generation, "configuration is again the one in use");
                return false;
            }
            Look::Compiled(configuration, fingerprint) if self.serving.follows(&configuration.plan) => {
                folder.take(fingerprint);
                tracing::info!(generation = kept_generation, "configuration read again, it means the same");
                return false;
            }
            Look::Compiled(configuration, fingerprint) => {
                let is_open = |key| self.serving.is_open(key);
                match prepare(*configuration, &self.serving.store(), is_open) {
                    Ok(prepared) => {
                        folder.take(fingerprint);
                        let warnings = prepared.warnings.clone();
                        if let Some(changes) = self.serving.follow(prepared, now) {
                            tell(&changes);
                            self.warn(warnings);
                        }
                        // What is new is not watched yet.
                        return true;
                    }
                    // What is in the way may go: it is tried again at each look.
                    Err(error) => folder.refuse(error.to_string(), reason),
                }
            }
            refused @ Look::Refused(_) => refused,
        };
        if let Look::Refused(why) = refusal {
            self.serving.count_refusal();
            tracing::warn!(kept_generation, "configuration refused: {}", in_a_line(&why));
        }
        false
    }

    /// Tells what was not told of the plan before.
    fn warn(&self, warnings: Vec<String>) {
        let mut warned = lock(&self.warned);
        for warning in warnings.iter().filter(|warning| !warned.contains(*warning)) {
            tracing::warn!("{warning}");
        }
        *warned = warnings.into_iter().collect();
    }
}

fn tell(changes: &Changes) {
    let list =
        |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    tracing::info!(
        generation = changes.generation,
        opened = list(&changes.opened),
        closed = list(&changes.closed),
        changed = list(&changes.changed),
        kept = changes.kept,
        "configuration loaded"
    );
}

fn in_a_line(problems: &str) -> String {
    let told: Vec<_> = problems.lines().take(PROBLEMS_TOLD_MAX).collect();
    let told_line = told.join("; ");
    match problems.lines().count() - told.len() {
        0 => told_line,
        more => format!("{told_line}; and {more} more"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
