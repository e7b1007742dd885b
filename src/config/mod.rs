//! What the operator wrote -> a plan, or everything that is wrong with it at once.

pub mod admin;
pub mod compile;
pub mod decode;
pub mod document;
pub mod duration;
pub mod flags;
pub mod folder;
pub mod istio;
pub mod name;
pub mod pins;
pub mod policy;
pub mod report;
pub mod server;
pub mod resource;
pub mod sources;
pub mod validate;

use std::net::SocketAddr;
use std::path::Path;

use crate::credentials::refusal::Refusal;
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
    /// Which credentials need not be usable yet when listeners open.
    pub awaited: Awaited,
    /// Where the admin server listens; `None` if there is none.
    pub admin: Option<SocketAddr>,
}

/// Credentials that need not be usable yet when listeners open: connections that need them are closed until
/// they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// One whose directory is still to appear in a folder that is there. What is there must be good.
    Absent,
    /// All: of many listeners one that waits for its secret must not keep the others (Istio).
    Any,
}

impl Awaited {
    /// Whether a credential that is refused for this reason is waited for.
    pub fn covers(self, source: &Source, refusal: &Refusal) -> bool {
        let folder_is_there = |directory: &Path| {
            let absolute = std::path::absolute(directory).ok();
            absolute.as_deref().and_then(Path::parent).is_some_and(Path::is_dir)
        };
        match (self, refusal) {
            (Self::Any, _) => true,
            (Self::Absent, Refusal::Read(error)) => {
                error.is_absence_of(&source.directory) && folder_is_there(&source.directory)
            }
            (Self::Absent, _) => false,
        }
    }
}
