//! What is known of a credential while the process runs, and the metrics that are made of it.
//!
//! The names and units are fixed here; whoever serves metrics writes the samples as they are.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::bundle::{Item, What};
use super::refusal::Warning;
use super::store::{Slot, Store};

/// What is known of one credential.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The number of the generation in use; 0 while there has never been a good one.
    pub generation: u64,
    /// Looks that led to a new generation.
    pub published: u64,
    /// Looks that found something new that cannot be used.
    pub refused: u64,
    /// When the generation in use was published.
    pub published_at: Option<SystemTime>,
    /// Why what is in the directory is not in use; `None` if it is.
    pub refusal: Option<String>,
    /// The certificates and lists of the generation in use.
    pub items: Vec<Item>,
    /// What was told of the generation in use.
    pub warnings: Vec<Warning>,
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its name, with its unit.
    pub name: &'static str,
    /// Its labels, in the order in which they are written.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: i64,
}

/// When a certificate expires, as Unix time.
pub const NOT_AFTER: &str = "twinlock_certificate_not_after_seconds";
/// When the successor of a revocation list is due, as Unix time.
pub const NEXT_UPDATE: &str = "twinlock_crl_next_update_seconds";
/// The number of the generation in use.
pub const GENERATION: &str = "twinlock_credential_generation";
/// Looks at a directory that found something new, by result.
pub const RELOADS: &str = "twinlock_credential_reloads_total";
/// When the generation in use was published, as Unix time.
pub const PUBLISHED_AT: &str = "twinlock_credential_published_timestamp_seconds";

/// Every metric of every credential.
pub fn samples(store: &Store) -> Vec<Sample> {
    store.slots().flat_map(|slot| samples_of(slot, &slot.status())).collect()
}

fn samples_of(slot: &Slot, status: &Status) -> Vec<Sample> {
    let credential = || ("credential", slot.source().name.to_string());
    let sample = |name, value: u64| Sample {
        name,
        labels: vec![credential()],
        value: i64::try_from(value).unwrap_or(i64::MAX),
    };
    let reloads = |result: &str, value| {
        let mut sample = sample(RELOADS, value);
        sample.labels.push(("result", result.to_owned()));
        sample
    };
    let published_at = status.published_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let mut samples = vec![
        sample(GENERATION, status.generation),
        reloads("published", status.published),
        reloads("refused", status.refused),
        sample(PUBLISHED_AT, published_at.map_or(0, |at: Duration| at.as_secs())),
    ];
    for item in &status.items {
        let mut labels = vec![credential(), ("file", file_name(&item.file))];
        let (name, value) = match &item.what {
            What::Chain(facts) | What::Ca(facts) => {
                labels.push(("serial", facts.serial.clone()));
                labels.push(("subject", facts.holder()));
                (NOT_AFTER, facts.not_after)
            }
            What::List(facts) => {
                labels.push(("issuer", facts.issuer.clone()));
                (NEXT_UPDATE, facts.next_update)
            }
        };
        samples.push(Sample { name, labels, value });
    }
    samples
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::needs::Needs;
    use crate::credentials::store::Source;
    use crate::plan::CredentialName;

    #[test]
    fn what_happened_to_a_credential_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let request = crate::dev_certs::Request {
            out: dir.path().to_owned(),
            hosts: vec!["localhost".into()],
            clients: vec!["client.example".into()],
            key: crate::dev_certs::KeyKind::EcdsaP256,
            days: 1,
        };
        let minted = crate::dev_certs::mint(&request, crate::clock::wall()).unwrap();
        let source = Source {
            name: CredentialName("default".into()),
            directory: minted.ingress.clone(),
            needs: Needs { ca: true, everything: true, ..Needs::default() },
        };
        let store = Store::new(vec![source]);
        let values = |name: &str| -> Vec<i64> {
            let samples = samples(&store);
            samples.into_iter().filter(|sample| sample.name == name).map(|sample| sample.value).collect()
        };
        store.refresh(crate::clock::wall());
        std::fs::write(minted.ingress.join("tls.key"), "").unwrap();
        store.refresh(crate::clock::wall());
        store.refresh(crate::clock::wall());
        assert_eq!((values(GENERATION), values(RELOADS)), (vec![1], vec![1, 1]));
        // The leaf and the CA.
        assert_eq!(values(NOT_AFTER).len(), 2);
        let now = crate::clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let now = i64::try_from(now).unwrap();
        assert!((now..now + 90_000).contains(&values(NOT_AFTER)[0]), "the leaf is valid for a day");
        assert!((now - 60..=now).contains(&values(PUBLISHED_AT)[0]));
    }
}
