//! Istio's resources: what is read, what is refused, where connections go. Each test is named after the row
//! of the table of cases that it is.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/mariadb.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod mariadb;
#[path = "../rotation/mount.rs"]
mod mount;
#[path = "../support/dnsmasq.rs"]
mod dnsmasq;
#[path = "../support/wire.rs"]
mod wire;

mod authorization;
mod dns;
mod documents;
mod hops;
mod identities;
mod ingress;
mod inner;
mod judge;
mod mesh;
mod parsing;
mod passthrough;
mod path;
mod policies;
mod pool;
mod proxy_protocol;
mod refusals;
mod renewal;
mod routing;
mod secrets;
mod service;
mod services;
mod settings;
mod shipped;
mod upstream;
