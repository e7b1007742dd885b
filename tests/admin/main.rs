//! What can be asked of a running gateway over HTTP, and who may ask.

#[path = "../support/mod.rs"]
mod support;

mod connections;
mod guard;
mod health;
mod http;
mod metrics;
mod orders;

use std::net::SocketAddr;

use support::socket::Backend;
use support::{Certs, Program};

/// An ingress with an admin server, before a backend that sends back what it gets.
struct Scene {
    certs: Certs,
    ingress: Program,
    admin: SocketAddr,
    _backend: Backend,
}

impl Scene {
    fn new(more: &[&str]) -> Self {
        let (certs, backend) = (Certs::mint(), Backend::echo());
        let ingress =
            Program::ingress(&certs, backend.address, &[&["--admin", "127.0.0.1:0"], more].concat());
        let admin = http::address(&ingress);
        Self { certs, ingress, admin, _backend: backend }
    }
}
