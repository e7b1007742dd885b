//! rustls, and nobody else touches it.
//!
//! [`session`] is one TLS session over borrowed buffers: `library` is rustls' unbuffered API, which shakes
//! hands, `records` the record layer behind a handshake of TLS 1.3. [`accept`] and [`originate`] are the two
//! sides of a handshake, [`verify`] is what a certificate must prove, [`standing`] judges those who are connected
//! once more when that changes, by the [`requirements`] of the plan then. [`fault`] puts rustls' errors into our
//! words.

pub mod accept;
mod after;
pub mod exporter;
pub mod fault;
mod generation;
pub mod handshake;
mod library;
pub mod originate;
pub mod plaintext;
mod policy;
pub mod presented;
mod records;
pub mod requirements;
pub mod session;
pub mod standing;
pub mod verify;
mod violation;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

/// The cryptography, passed explicitly everywhere: there is no process default that another crate
/// could set. [`policy`] leaves of it what a plan allows.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// Draws this thread's first random bytes, so that its first handshake need not wait for them: the library
/// gathers entropy for tens of milliseconds.
pub fn warm_up() {
    // If there is none, the first handshake will say so.
    let _ = PROVIDER.secure_random.fill(&mut [0]);
}

/// What a finished handshake settled, for the record of the connection. Kept as long as the connection:
/// the code points, not their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    version: ProtocolVersion,
    cipher: CipherSuite,
    group: NamedGroup,
}

impl Agreed {
    /// The version as people write it: `TLSv1.3` or `TLSv1.2`.
    #[allow(clippy::wildcard_enum_match_arm, reason = "there is no session with any other")]
    pub fn version(&self) -> &'static str {
        match self.version {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            other => other.as_str().unwrap_or("unknown"),
        }
    }

    /// The cipher suite, by its IANA name: rustls marks the suites of TLS 1.3 with a prefix of its own.
    #[allow(clippy::wildcard_enum_match_arm, reason = "all others have their IANA name")]
    pub fn cipher(&self) -> &'static str {
        match self.cipher {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
            CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
            other => other.as_str().unwrap_or("unknown"),
        }
    }

    /// The key-exchange group, by its IANA name.
    pub fn group(&self) -> &'static str {
        self.group.as_str().unwrap_or("unknown")
    }
}
