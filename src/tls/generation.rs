//! What can be computed once per credential generation is: a cache of one value, renewed when the
//! credential's current generation is another.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::handshake::Failure;
use crate::credentials::bundle::Credential;
use crate::credentials::store::{Slot, Store};
use crate::plan::CredentialName;

/// A value made from the current generation of a credential, or of several that are used together.
pub(crate) struct PerGeneration<T> {
    first: Source,
    others: Vec<Source>,
    made: ArcSwapOption<Made<T>>,
}

struct Made<T> {
    generation: u64,
    value: Arc<T>,
}

/// What a value is made from.
pub(crate) struct Current {
    /// The first credential.
    pub(crate) first: Arc<Credential>,
    /// The others, in order.
    pub(crate) others: Vec<Arc<Credential>>,
    /// The number of all their generations together: the sum, which grows whenever one of them does.
    pub(crate) generation: u64,
}

struct Source {
    credential: CredentialName,
    slot: Option<Arc<Slot>>,
}

impl Source {
    fn new(store: &Store, credential: &CredentialName) -> Self {
        Self { credential: credential.clone(), slot: store.slot(credential).cloned() }
    }

    fn current(&self) -> Result<Arc<Credential>, Failure> {
        let current = self.slot.as_ref().and_then(|slot| slot.current());
        let missing =
            || Failure::NoCredential(format!("no usable generation of credential {}", self.credential));
        current.ok_or_else(missing)
    }
}

impl<T> PerGeneration<T> {
    pub(crate) fn new<'name>(
        store: &Store,
        first: &CredentialName,
        others: impl IntoIterator<Item = &'name CredentialName>,
    ) -> Self {
        let others = others.into_iter().map(|name| Source::new(store, name)).collect();
        Self { first: Source::new(store, first), others, made: ArcSwapOption::empty() }
    }

    /// The number of the generation that is current now; 0 while there is none.
    pub(crate) fn current(&self) -> u64 {
        self.all().map_or(0, |current| current.generation)
    }

    fn all(&self) -> Result<Current, Failure> {
        let first = self.first.current()?;
        let others = self.others.iter().map(Source::current).collect::<Result<Vec<_>, _>>()?;
        let generation = others.iter().fold(first.generation, |sum, other| sum + other.generation);
        Ok(Current { first, others, generation })
    }

    /// The value for the generation that is current now. Two threads may make it at once; both are right.
    pub(crate) fn get(&self, make: impl FnOnce(&Current) -> Result<T, Failure>) -> Result<Arc<T>, Failure> {
        let current = self.all()?;
        if let Some(made) = &*self.made.load()
            && made.generation == current.generation
        {
            return Ok(made.value.clone());
        }
        let value = Arc::new(make(&current)?);
        self.made.store(Some(Arc::new(Made { generation: current.generation, value: value.clone() })));
        Ok(value)
    }
}
