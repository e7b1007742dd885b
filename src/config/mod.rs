//! What the operator wrote -> a plan, or everything that is wrong with it at once.

pub mod decode;
pub mod document;
pub mod duration;
pub mod flags;
pub mod name;
pub mod policy;
pub mod report;
pub mod server;
pub mod resource;
pub mod sources;

use crate::credentials::store::Source;
use crate::plan::Plan;

/// A compiled configuration.
#[derive(Debug)]
pub struct Configuration {
    /// What may happen.
    pub plan: Plan,
    /// The credentials the plan names, and where they come from.
    pub credentials: Vec<Source>,
    /// What is allowed but should be known.
    pub warnings: Vec<String>,
}
