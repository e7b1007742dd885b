//! Both gateways, a backend behind them and connections through all of it.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::socket::{Backend, Wire, connect};
use super::{Certs, Program};

pub struct Link {
    pub certs: Certs,
    pub backend: Backend,
    pub ingress: Program,
    pub egress: Program,
}

impl Link {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With more options for both.
    pub fn with(more: &[&str]) -> Self {
        Self::between(Backend::start(), more, |ingress| ingress)
    }

    /// With a wire between the two that can be damaged.
    pub fn over_a_wire() -> (Self, Wire) {
        let mut wire = None;
        let link = Self::between(Backend::start(), &[], |ingress| wire.insert(Wire::to(ingress)).address);
        (link, wire.expect("a wire"))
    }

    pub fn to(backend: Backend) -> Self {
        Self::between(backend, &[], |ingress| ingress)
    }

    fn between(backend: Backend, more: &[&str], way: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        let certs = Certs::mint();
        let ingress = Program::ingress(&certs, backend.address, more);
        let egress = Program::egress(&certs, way(ingress.address), more);
        Self { certs, backend, ingress, egress }
    }

    /// A connection: the application's end, and the server's.
    pub fn connect(&self) -> (TcpStream, TcpStream) {
        let client = connect(self.egress.address);
        (client, self.backend.accept())
    }

    /// The end: the one record of each side, of the one connection there was.
    pub fn records(mut self) -> [Value; 2] {
        [&mut self.egress, &mut self.ingress].map(|program| {
            let record = program.record();
            let more = program.stop_and_take_records();
            assert!(more.is_empty(), "{record} {more:?}");
            record
        })
    }

    /// The end: each side recorded this, in this order, as the doing of that side.
    pub fn assert_recorded(self, expected: [[&str; 2]; 2]) {
        for (record, expected) in self.records().iter().zip(expected) {
            assert_eq!([&record["outcome"], &record["closed_by"]], expected, "{record}");
        }
    }
}
