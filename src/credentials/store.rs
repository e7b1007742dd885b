//! Name -> current generation. A generation is published whole, or the last good one stays and the
//! reason is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::bundle::{self, Credential, Inspection};
use super::needs::Needs;
use super::read::{self, Fingerprint};
use super::refusal::{Refusal, Warning};
use super::status::Status;
use crate::plan::CredentialName;

/// A set that parts with our own CA is taken only when it has rested for this long: whoever replaces a
/// directory file by file passes through one.
pub const HOLD: Duration = Duration::from_secs(5);

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

/// What the last looks found.
#[derive(Default)]
struct Seen {
    /// What is in use.
    used: Option<Fingerprint>,
    /// What was looked at last and refused.
    refused: Option<Fingerprint>,
    /// What is not taken yet, and since when it has been there.
    held: Option<(Fingerprint, SystemTime)>,
    status: Status,
}

/// What a look at a directory led to.
#[derive(Debug)]
pub enum Change {
    /// The content is what it was. Time may have brought something to tell of all the same.
    Unchanged(Vec<Warning>),
    /// The content is new, and must rest before it is judged.
    Held,
    /// A new generation is in use.
    Published {
        /// Its number.
        generation: u64,
        /// What the operator should know of it.
        warnings: Vec<Warning>,
    },
    /// The content cannot be used; the last good generation, if any, stays.
    Refused(Refusal),
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

    /// What is known of it.
    pub fn status(&self) -> Status {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    /// Reads the directory, and publishes what it holds if that is new and good.
    pub fn refresh(&self, now: SystemTime) -> Change {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let content = match read::read(&self.source.directory) {
            Ok(content) => content,
            Err(error) => {
                (seen.refused, seen.held) = (None, None);
                return seen.refuse(Refusal::Read(error));
            }
        };
        let fingerprint = content.fingerprint();
        if seen.used == Some(fingerprint) {
            // What was wrong meanwhile has been taken back.
            (seen.refused, seen.held, seen.status.refusal) = (None, None, None);
            return Change::Unchanged(seen.age(now));
        }
        if seen.refused == Some(fingerprint) {
            return Change::Unchanged(seen.age(now));
        }
        let current = self.current();
        let generation = seen.status.generation + 1;
        let found = bundle::check(&content, &self.source.needs, generation, current.as_deref(), now);
        if let Ok(credential) = &found.verdict
            && !content.is_of_one_piece()
            && current.is_some_and(|current| current.is_own_ca && !credential.is_own_ca)
            && seen.hold(fingerprint, now)
        {
            return Change::Held;
        }
        seen.held = None;
        self.take(&mut seen, fingerprint, found, now)
    }

    fn take(&self, seen: &mut Seen, fingerprint: Fingerprint, found: Inspection, now: SystemTime) -> Change {
        match found.verdict {
            Ok(credential) => {
                (seen.used, seen.refused) = (Some(fingerprint), None);
                let status = &mut seen.status;
                status.generation = credential.generation;
                status.published += 1;
                status.published_at = Some(now);
                status.refusal = None;
                status.items = found.items;
                status.warnings.clone_from(&found.warnings);
                self.current.store(Some(Arc::new(credential)));
                let warnings = found.warnings.into_iter().chain(seen.age(now)).collect();
                Change::Published { generation: seen.status.generation, warnings }
            }
            Err(refusal) => {
                // What time can heal is judged again at each look.
                seen.refused = (!refusal.passes()).then_some(fingerprint);
                seen.refuse(refusal)
            }
        }
    }
}

impl Seen {
    /// Tells a refusal once, not at every look.
    fn refuse(&mut self, refusal: Refusal) -> Change {
        let text = refusal.to_string();
        if self.status.refusal.as_ref() == Some(&text) {
            return Change::Unchanged(Vec::new());
        }
        self.status.refusal = Some(text);
        self.status.refused += 1;
        Change::Refused(refusal)
    }

    /// Whether a set is still to be held back.
    fn hold(&mut self, fingerprint: Fingerprint, now: SystemTime) -> bool {
        match self.held {
            // A clock that was set back must not hold it for ever.
            Some((held, since)) if held == fingerprint => {
                now.duration_since(since).is_ok_and(|rested| rested < HOLD)
            }
            Some(_) | None => {
                self.held = Some((fingerprint, now));
                true
            }
        }
    }

    /// What time has done to the generation in use since it was last told.
    fn age(&mut self, now: SystemTime) -> Vec<Warning> {
        let aged = bundle::aged(&self.status.items, now);
        let news: Vec<_> =
            aged.into_iter().filter(|warning| !self.status.warnings.contains(warning)).collect();
        self.status.warnings.extend(news.iter().cloned());
        news
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

    /// Looks at every directory and tells of each what changed. Returns whether something is held back,
    /// and so wants another look.
    pub fn refresh(&self, now: SystemTime) -> bool {
        let mut held = false;
        for slot in self.slots() {
            let change = slot.refresh(now);
            held |= matches!(change, Change::Held);
            tell(slot, change);
        }
        held
    }
}

fn tell(slot: &Slot, change: Change) {
    let (name, directory) = (&slot.source.name, slot.source.directory.display());
    let warnings = match change {
        Change::Unchanged(warnings) => warnings,
        Change::Held => {
            tracing::info!(credential = %name, %directory, "own certificate and CA do not belong together any more, waiting whether more changes");
            Vec::new()
        }
        Change::Published { generation, warnings } => {
            let files = supplied(slot);
            tracing::info!(credential = %name, generation, %directory, files, "credential loaded");
            warnings
        }
        Change::Refused(refusal) => {
            let kept = slot.current().map_or(0, |credential| credential.generation);
            tracing::warn!(credential = %name, kept_generation = kept, "credential refused: {refusal}");
            Vec::new()
        }
    };
    for warning in warnings {
        if warning.is_alert() {
            tracing::warn!(credential = %name, %directory, "{warning}");
        } else {
            tracing::info!(credential = %name, %directory, "{warning}");
        }
    }
}

/// Which files the generation in use came from, relative to where credentials are.
fn supplied(slot: &Slot) -> String {
    let root = slot.source.directory.parent();
    let mut files: Vec<_> = slot.status().items.into_iter().map(|item| item.file).collect();
    files.dedup();
    let relative = files.iter().map(|file| {
        let shown = file.strip_prefix(&slot.source.directory).ok();
        let beside = root.and_then(|root| file.strip_prefix(root).ok());
        shown.or(beside).unwrap_or(file).display().to_string()
    });
    relative.collect::<Vec<_>>().join(",")
}
