//! Name -> current generation. A generation is published whole, or the last good one stays and the
//! reason is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;

use super::bundle::{self, BundleError, Credential, Needs, Warning};
use super::layout::{self, Fingerprint};
use crate::plan::CredentialName;

/// Where a credential comes from, and what it is for.
#[derive(Debug, Clone)]
pub struct Source {
    /// The name the plan uses.
    pub name: CredentialName,
    /// The directory that holds the files.
    pub directory: PathBuf,
    /// What the directory must contain.
    pub needs: Needs,
}

/// The current generation of one credential.
pub struct Slot {
    source: Source,
    current: ArcSwapOption<Credential>,
    seen: Mutex<Seen>,
}

/// What the last look found.
#[derive(Default)]
struct Seen {
    fingerprint: Option<Fingerprint>,
    /// The last refusal, so that it is told once and not at every look.
    refusal: Option<String>,
    generation: u64,
}

/// What a look at a directory led to.
#[derive(Debug)]
pub enum Change {
    /// The content is what it was.
    Unchanged,
    /// A new generation is in use.
    Published {
        /// Its number.
        generation: u64,
        /// What the operator should know of it.
        warnings: Vec<Warning>,
    },
    /// The content cannot be used; the last good generation, if any, stays.
    Refused(BundleError),
}

impl Slot {
    fn new(source: Source) -> Self {
        Self { source, current: ArcSwapOption::empty(), seen: Mutex::default() }
    }

    /// The generation to use for a new handshake; `None` while there has never been a good one.
    pub fn current(&self) -> Option<Arc<Credential>> {
        self.current.load_full()
    }

    /// Where this credential comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Reads the directory, and publishes what it holds if that is new and good.
    pub fn refresh(&self, now: SystemTime) -> Change {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let files = match layout::read(&self.source.directory) {
            Ok(files) => files,
            Err(error) => {
                seen.fingerprint = None;
                return seen.refuse(BundleError::Read(error));
            }
        };
        let fingerprint = Some(files.fingerprint());
        if seen.fingerprint == fingerprint {
            return Change::Unchanged;
        }
        let checked = bundle::check(&self.source.directory, &files, self.source.needs, seen.generation + 1);
        seen.fingerprint = fingerprint;
        match checked {
            Ok(credential) => {
                seen.generation = credential.generation;
                seen.refusal = None;
                let warnings = bundle::warnings(&credential, now);
                self.current.store(Some(Arc::new(credential)));
                Change::Published { generation: seen.generation, warnings }
            }
            Err(error) => seen.refuse(error),
        }
    }
}

impl Seen {
    fn refuse(&mut self, error: BundleError) -> Change {
        let text = error.to_string();
        if self.refusal.as_ref() == Some(&text) {
            return Change::Unchanged;
        }
        self.refusal = Some(text);
        Change::Refused(error)
    }
}

/// Every credential of a gateway.
pub struct Store {
    slots: BTreeMap<CredentialName, Arc<Slot>>,
}

impl Store {
    /// A store with nothing published yet.
    pub fn new(sources: Vec<Source>) -> Self {
        let slots = sources.into_iter().map(|source| (source.name.clone(), Arc::new(Slot::new(source))));
        Self { slots: slots.collect() }
    }

    /// The slot of a credential.
    pub fn slot(&self, name: &CredentialName) -> Option<&Arc<Slot>> {
        self.slots.get(name)
    }

    /// Every slot.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values()
    }

    /// Looks at every directory and tells of each what changed.
    pub fn refresh(&self, now: SystemTime) {
        for slot in self.slots() {
            let (name, directory) = (&slot.source.name, slot.source.directory.display());
            match slot.refresh(now) {
                Change::Unchanged => {}
                Change::Published { generation, warnings } => {
                    tracing::info!(credential = %name, generation, %directory, "credential loaded");
                    for warning in warnings {
                        tracing::warn!(credential = %name, generation, %directory, "{warning}");
                    }
                }
                Change::Refused(error) => {
                    let kept = slot.current().map_or(0, |credential| credential.generation);
                    tracing::warn!(credential = %name, kept_generation = kept, "credential refused: {error}");
                }
            }
        }
    }
}
