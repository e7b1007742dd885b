//! rustls, and nobody else touches it.
//!
//! [`session`] is one TLS session over borrowed buffers, shaped like the next rustls so that the move
//! will be one file. [`accept`] and [`originate`] are the two sides of a handshake, [`verify`] is what
//! a certificate must prove, [`fault`] puts rustls' errors into our words.

pub mod accept;
pub mod fault;
mod generation;
pub mod handshake;
pub mod originate;
mod policy;
pub mod session;
pub mod verify;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The cryptography, passed explicitly everywhere: there is no process default that another crate
/// could set. [`policy`] leaves of it what a plan allows.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// What a finished handshake settled, for the record of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// The key-exchange group, by its IANA name.
    pub group: &'static str,
}
