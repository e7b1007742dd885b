//! twinlock carries TCP between two sites over mutual TLS, without touching the application at either end.
//!
//! ```text
//! mysql client --plain--> [ egress :3306 ] ==mutual TLS, SNI, :13306==> [ ingress :13306 ] --plain--> mysqld :3306
//! ```
//!
//! # Architecture
//!
//! Configuration compiles to an immutable plan; one straight function carries a connection through it;
//! everything that decides is pure.
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod credentials;
pub mod dev_certs;
pub mod gateway;
pub mod plan;
pub mod proxy;
pub mod telemetry;
pub mod tls;
pub mod upstream;
