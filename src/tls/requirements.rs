//! What the current plan asks of peers that were let in under an earlier one.

use std::sync::Arc;

use super::accept::Terminations;
use super::originate::Originations;
use super::standing::{Bar, Evidence, Standing};
use crate::plan::succession::{Asked, Hops};
use crate::plan::{ClientCertificate, Plan};

/// A plan's demands on peers, and what verifies their certificates.
pub struct Requirements {
    /// The generation of the plan.
    pub(crate) generation: u64,
    hops: Hops,
    terminations: Arc<Terminations>,
    originations: Arc<Originations>,
}

impl Requirements {
    /// Those of this plan, the generation of that number.
    pub fn new(
        generation: u64,
        plan: &Plan,
        terminations: Arc<Terminations>,
        originations: Arc<Originations>,
    ) -> Self {
        Self { generation, hops: Hops::of(plan), terminations, originations }
    }

    /// What a peer must have shown to be let in; `None` where the plan has no such hop.
    pub(crate) fn of(&self, standing: &Standing) -> Option<Bar> {
        Some(match (self.hops.asks(&standing.hop)?, &standing.evidence) {
            (Asked::Nothing, Evidence::Plaintext) => Bar::Cleared,
            // Who has proven more than is asked for now must go on doing so.
            (Asked::Nothing, Evidence::Anonymous | Evidence::Certificate { .. }) => return None,
            (Asked::Client(..) | Asked::Server(_), Evidence::Plaintext)
            | (Asked::Server(_), Evidence::Anonymous) => Bar::Missed,
            (Asked::Client(accept, route), Evidence::Anonymous) => {
                let named = !route.rules.names_let_in(None);
                if named || accept.client == ClientCertificate::Required { Bar::Missed } else { Bar::Cleared }
            }
            (Asked::Client(accept, _), Evidence::Certificate { .. })
                if accept.client == ClientCertificate::NotAsked =>
            {
                return None;
            }
            (Asked::Client(accept, route), Evidence::Certificate { .. }) => {
                Bar::Certificate(self.terminations.verifier(&accept)?, Some(route))
            }
            (Asked::Server(originate), Evidence::Certificate { .. }) => {
                Bar::Certificate(self.originations.verifier(&originate)?, None)
            }
        })
    }
}
