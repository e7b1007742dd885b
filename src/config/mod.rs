//! What the operator wrote -> a plan, or everything that is wrong with it at once.

pub mod compile;
pub mod decode;
pub mod document;
pub mod duration;
pub mod flags;
pub mod istio;
pub mod name;
pub mod pins;
pub mod policy;
pub mod report;
pub mod server;
pub mod resource;
pub mod sources;
pub mod validate;

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
    /// Whether listeners may open before there are usable credentials, and close connections until then: of
    /// many listeners one that waits for its secret must not keep the others (Istio).
    pub starts_without_credentials: bool,
}
