//! What can be computed once per credential generation is: a cache of one value, renewed when the
//! credential's current generation is another.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::handshake::Failure;
use crate::credentials::bundle::Credential;
use crate::credentials::store::{Slot, Store};
use crate::plan::CredentialName;

/// A value made from the current generation of a credential.
pub(crate) struct PerGeneration<T> {
    credential: CredentialName,
    slot: Option<Arc<Slot>>,
    made: ArcSwapOption<Made<T>>,
}

struct Made<T> {
    generation: u64,
    value: Arc<T>,
}

impl<T> PerGeneration<T> {
    pub(crate) fn new(store: &Store, credential: &CredentialName) -> Self {
        let slot = store.slot(credential).cloned();
        Self { credential: credential.clone(), slot, made: ArcSwapOption::empty() }
    }

    /// The number of the generation that is current now; 0 while there is none.
    pub(crate) fn current(&self) -> u64 {
        let credential = self.slot.as_ref().and_then(|slot| slot.current());
        credential.map_or(0, |credential| credential.generation)
    }

    /// The value for the generation that is current now. Two threads may make it at once; both are right.
    pub(crate) fn get(
        &self,
        make: impl FnOnce(&Credential) -> Result<T, Failure>,
    ) -> Result<Arc<T>, Failure> {
        let credential = self.slot.as_ref().and_then(|slot| slot.current());
        let missing =
            || Failure::NoCredential(format!("no usable generation of credential {}", self.credential));
        let credential = credential.ok_or_else(missing)?;
        if let Some(made) = &*self.made.load()
            && made.generation == credential.generation
        {
            return Ok(made.value.clone());
        }
        let value = Arc::new(make(&credential)?);
        self.made.store(Some(Arc::new(Made { generation: credential.generation, value: value.clone() })));
        Ok(value)
    }
}
