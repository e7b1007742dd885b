//! Name -> current generation. A generation is published whole, or the last good one stays and the
//! reason is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::bundle::{self, Credential, Inspection};
use super::held::Held;
use super::levels::Levels;
use super::needs::Needs;
use super::read::{self, Fingerprint};
use super::refusal::{Refusal, Warning};
use super::status::Status;
use crate::plan::CredentialName;

/// A set that parts with our own CA is taken only when it has rested for this long: whoever replaces a
/// directory file by file passes through one.
pub const HOLD: Duration = Duration::from_secs(5);

/// Where a credential comes from, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// What is not taken yet.
    held: Held,
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
    /// A slot with nothing published yet, whose generations go on counting from one.
    fn after(generation: u64, source: Source) -> Self {
        let status = Status { generation, ..Status::default() };
        let seen = Mutex::new(Seen { status, ..Seen::default() });
        Self { source, current: ArcSwapOption::empty(), seen }
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
                seen.refused = None;
                seen.held.release();
                return seen.refuse(Refusal::Read(error));
            }
        };
        let fingerprint = content.fingerprint();
        if seen.used == Some(fingerprint) {
            // What was wrong meanwhile has been taken back.
            (seen.refused, seen.status.refusal) = (None, None);
            seen.held.release();
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
            && seen.held.hold(fingerprint, HOLD, now)
        {
            return Change::Held;
        }
        seen.held.release();
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
#[derive(Default)]
pub struct Store {
    slots: BTreeMap<CredentialName, Arc<Slot>>,
    /// Those of earlier plans, as long as open connections are judged by them.
    left: Vec<Weak<Slot>>,
}

impl Store {
    /// A store with nothing published yet.
    pub fn new(sources: Vec<Source>) -> Self {
        Self::default().followed_by(sources)
    }

    /// The store of another plan. A slot from the same source for the same use goes on as it is; the others are
    /// new, with nothing published yet.
    #[must_use]
    pub fn followed_by(&self, sources: Vec<Source>) -> Self {
        let known = self.in_use();
        let slot = |source: Source| {
            if let Some(same) = known.iter().find(|slot| slot.source == source) {
                return same.clone();
            }
            let before = known.iter().filter(|slot| slot.source.name == source.name);
            let generation = before.map(|slot| slot.status().generation).max();
            Arc::new(Slot::after(generation.unwrap_or(0), source))
        };
        let slots: BTreeMap<_, _> =
            sources.into_iter().map(|source| (source.name.clone(), slot(source))).collect();
        let goes_on = |old: &Arc<Slot>| slots.values().any(|slot| Arc::ptr_eq(slot, old));
        let left = known.iter().filter(|old| !goes_on(old)).map(Arc::downgrade).collect();
        Self { slots, left }
    }

    /// Every slot, and those of earlier plans that are still needed.
    pub fn in_use(&self) -> Vec<Arc<Slot>> {
        self.slots.values().cloned().chain(self.left.iter().filter_map(Weak::upgrade)).collect()
    }

    /// The slot of a credential.
    pub fn slot(&self, name: &CredentialName) -> Option<&Arc<Slot>> {
        self.slots.get(name)
    }

    /// Every slot.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values()
    }

    /// Every level on the way to the files of a slot that is in use.
    pub fn levels(&self) -> Levels {
        let mut levels = Levels::default();
        self.in_use().iter().for_each(|slot| levels.add(Levels::of(&slot.source.directory)));
        levels
    }

    /// Looks at every directory and tells of each what changed. Returns whether something is held back,
    /// and so wants another look.
    pub fn refresh(&self, now: SystemTime) -> bool {
        let mut held = false;
        for slot in self.in_use() {
            let change = slot.refresh(now);
            held |= matches!(change, Change::Held);
            tell(&slot, change);
        }
        held
    }
}

/// Says in the operational log what a look led to.
pub fn tell(slot: &Slot, change: Change) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, ca: bool) -> Source {
        let directory = PathBuf::from(format!("nowhere/{name}"));
        Source { name: CredentialName(name.into()), directory, needs: Needs { ca, ..Needs::default() } }
    }

    fn slot(store: &Store, name: &str) -> Arc<Slot> {
        store.slot(&CredentialName(name.into())).unwrap().clone()
    }

    #[test]
    fn a_slot_of_the_same_source_goes_on_and_one_that_is_left_stays_as_long_as_it_is_needed() {
        let first = Store::new(vec![source("same", true), source("other", true), source("gone", true)]);
        let names = |store: &Store| -> Vec<_> {
            store.in_use().iter().map(|slot| (slot.source.name.0.clone(), slot.source.needs.ca)).collect()
        };
        slot(&first, "other").seen.lock().unwrap().status.generation = 7;
        let second = first.followed_by(vec![source("same", true), source("other", false)]);
        assert!(Arc::ptr_eq(&slot(&first, "same"), &slot(&second, "same")));
        // Another use is another slot, and its generations are none that there were.
        assert!(!Arc::ptr_eq(&slot(&first, "other"), &slot(&second, "other")));
        assert_eq!(slot(&second, "other").status().generation, 7);
        let needed = slot(&first, "gone");
        drop(first);
        assert_eq!(
            names(&second),
            [("other", false), ("same", true), ("gone", true)].map(|(name, ca)| (name.to_owned(), ca))
        );
        // Named again before it is forgotten, it is what it was; else it begins anew.
        let third = second.followed_by(vec![source("gone", true)]);
        assert!(Arc::ptr_eq(&needed, &slot(&third, "gone")));
        drop((second, needed));
        assert_eq!(names(&third.followed_by(Vec::new())), [("gone".to_owned(), true)]);
        assert_eq!(
            names(&{
                let last = third.followed_by(Vec::new());
                drop(third);
                last
            }),
            []
        );
    }
}
