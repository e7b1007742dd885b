//! An ingress with a backend and a good client on it, and what must be true after a bad peer has been.

use rustls::ClientConfig;
use serde_json::Value;

use crate::support::authority::{Authority, Identity};
use crate::support::peer::{self, TlsClient};
use crate::support::socket::{Backend, echo};
use crate::support::{Certs, Program};

pub struct Scene {
    pub certs: Certs,
    pub root: Authority,
    pub backend: Backend,
    pub ingress: Program,
    /// A good client that was here before the bad one.
    witness: TlsClient,
}

/// What is recorded of a client that was refused.
pub struct Refused<'a> {
    pub outcome: &'a str,
    /// Part of the detail.
    pub detail: &'a str,
    /// Who its certificate said it was.
    pub identity: Option<&'a str>,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With more options for the ingress.
    pub fn with(more: &[&str]) -> Self {
        Self::on(Certs::mint(), Backend::echo(), more)
    }

    /// On these credentials.
    pub fn on(certs: Certs, backend: Backend, more: &[&str]) -> Self {
        let ingress = Program::ingress(&certs, backend.address, more);
        let root = Authority::of(&certs);
        let mut witness = peer::connect(ingress.address, peer::good_client_config(&certs));
        echo(&mut witness, "here first");
        Self { certs, root, backend, ingress, witness }
    }

    /// A client that trusts the root and shows this certificate.
    pub fn config(&self, identity: &Identity) -> ClientConfig {
        peer::client_config(&self.root.certificate, Some(identity), rustls::ALL_VERSIONS)
    }

    /// Connects with this configuration.
    pub fn connect(&self, config: ClientConfig) -> TlsClient {
        peer::connect(self.ingress.address, config)
    }

    /// A client that is let in; its record.
    pub fn admitted(&self, config: ClientConfig) -> Value {
        let mut client = self.connect(config);
        echo(&mut client, "let in");
        peer::half_close(&mut client);
        let record = self.ingress.record();
        assert_eq!(record["outcome"], "completed", "{record}");
        record
    }

    /// The bad client has been: it is recorded once, the backend was not dialled for it, and good
    /// clients, old and new, are served.
    pub fn assert_refused(&mut self, expected: &Refused<'_>) -> Value {
        let record = self.ingress.record();
        assert_eq!(record["outcome"], expected.outcome, "{record}");
        assert_eq!(record["closed_by"], "downstream", "{record}");
        let detail = record["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(expected.detail), "expected {:?} in {record}", expected.detail);
        assert_eq!(record["downstream"]["peer"]["identity"].as_str(), expected.identity, "{record}");
        assert_eq!(record["upstream"], serde_json::json!({}), "{record}");
        assert_eq!([&record["bytes_received"], &record["bytes_sent"]], [0, 0], "{record}");

        let next = self.admitted(peer::good_client_config(&self.certs));
        assert_eq!(next["id"].as_u64(), record["id"].as_u64().map(|id| id + 1), "{record} {next}");
        echo(&mut self.witness, "still here");
        assert_eq!(self.backend.dialled(), 2, "the witness and the next client");
        record
    }

    /// The end: there is no record but those that were taken, and the witness's.
    pub fn assert_nothing_else_recorded(mut self) {
        peer::half_close(&mut self.witness);
        let records = self.ingress.stop_and_take_records();
        let outcomes: Vec<_> = records.iter().map(|record| &record["outcome"]).collect();
        assert_eq!(outcomes, ["completed"], "{records:?}");
    }
}
