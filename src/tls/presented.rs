//! What a peer's certificate says, read once and shared by every connection that shows the same one.
//!
//! rustls calls its verifiers in the middle of `feed`, with no way to hand anything back but a verdict,
//! and drops a certificate it refused. So what was presented, good or bad, is left in a slot for the
//! handshake that is running, and a refusal can be recorded with the name of the refused.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{CertificateError, Error};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::credentials::certificate::{hex, serial};
use crate::plan::identity::{Digest, PeerIdentity};

/// A certificate as its holder presented it: what it says, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Presented {
    /// Its subject alternative names.
    pub identity: PeerIdentity,
    /// Its subject, for people; never an identity.
    pub subject: String,
    /// Who signed it, in the words of the certificate.
    pub issuer: String,
    /// The serial number, in upper-case hexadecimal as `openssl x509 -serial` shows it.
    pub serial: String,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub sha256: String,
    /// When it expires, in seconds since 1970.
    pub not_after: Duration,
}

/// Certificates known to a thread at most, those of strangers among them.
const KNOWN_MAX: usize = 1024;

thread_local! {
    /// The certificate of the handshake that this thread is driving: from one `feed` to the `take` after
    /// it, on one thread.
    static PRESENTED: RefCell<Option<Arc<Presented>>> = const { RefCell::new(None) };
    /// What open connections of this thread were shown, by the SHA-256 of the certificate.
    static KNOWN: RefCell<HashMap<Digest, Weak<Presented>>> = RefCell::default();
}

/// Takes what the peer presented since the last call on this thread.
pub(crate) fn take() -> Option<Arc<Presented>> {
    PRESENTED.take()
}

/// Reads what the certificate says of its holder and leaves it for the handshake. It vouches for
/// nothing: that is for the verifier to do, each time.
pub(crate) fn note(der: &CertificateDer<'_>, leaf: &EndEntityCert<'_>) -> Result<Arc<Presented>, Error> {
    let fingerprint = sha256(der);
    let known = KNOWN.with_borrow(|known| known.get(&fingerprint).and_then(Weak::upgrade));
    let presented = match known {
        Some(presented) => presented,
        None => remember(fingerprint, read_leaf(der, leaf, fingerprint)?),
    };
    PRESENTED.set(Some(presented.clone()));
    Ok(presented)
}

fn remember(fingerprint: Digest, presented: Presented) -> Arc<Presented> {
    let presented = Arc::new(presented);
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= KNOWN_MAX {
            known.retain(|_, presented| presented.strong_count() > 0);
        }
        if known.len() < KNOWN_MAX {
            known.insert(fingerprint, Arc::downgrade(&presented));
        }
    });
    presented
}

/// Reads what a certificate says of its holder. It vouches for nothing.
pub fn read(der: &CertificateDer<'_>) -> Result<Presented, Error> {
    let leaf = EndEntityCert::try_from(der).map_err(|_| CertificateError::BadEncoding)?;
    read_leaf(der, &leaf, sha256(der))
}

fn sha256(der: &[u8]) -> Digest {
    let mut fingerprint = Digest::default();
    fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
    fingerprint
}

/// The names come from webpki, which also verifies the chain: two parsers must not disagree about who
/// somebody is. Only addresses, which webpki does not list, come from the other one.
fn read_leaf(
    der: &CertificateDer<'_>,
    leaf: &EndEntityCert<'_>,
    fingerprint: Digest,
) -> Result<Presented, Error> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let addresses = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| {
        let GeneralName::IPAddress(bytes) = name else { return None };
        let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
        four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()
    });
    let identity = PeerIdentity {
        uris: leaf.valid_uri_names().map(str::to_owned).collect(),
        dns_names: leaf.valid_dns_names().map(str::to_owned).collect(),
        addresses: addresses.collect(),
    };
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(Presented {
        identity,
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: serial(&parsed),
        sha256: hex(&fingerprint),
        not_after: Duration::from_secs(not_after),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn present(name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec![name.into()]).unwrap().self_signed(&key).unwrap().der().clone()
    }

    fn noted(der: &CertificateDer<'_>) -> Arc<Presented> {
        note(der, &EndEntityCert::try_from(der).unwrap()).unwrap()
    }

    #[test]
    fn the_same_certificate_is_kept_once_and_another_is_another() {
        let (one, other) = (present("one.example"), present("other.example"));
        let first = noted(&one);
        assert!(Arc::ptr_eq(&first, &noted(&one)));
        assert_eq!(noted(&other).identity.dns_names, ["other.example"]);
        assert_eq!(take().unwrap().identity.dns_names, ["other.example"]);
        assert_eq!(take(), None);
    }

    #[test]
    fn certificates_that_nobody_shows_any_more_are_forgotten_before_the_bound_is_reached() {
        let der = present("kept.example");
        let kept = noted(&der);
        for number in 0..KNOWN_MAX + 10 {
            let mut fingerprint = Digest::default();
            fingerprint[..8].copy_from_slice(&number.to_be_bytes());
            remember(fingerprint, Presented::default());
        }
        KNOWN.with_borrow(|known| assert!(known.len() <= KNOWN_MAX, "{}", known.len()));
        assert!(Arc::ptr_eq(&kept, &noted(&der)));
    }
}
