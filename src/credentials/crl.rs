//! Certificate revocation lists (RFC 5280 section 5): parsed, signed by a CA of the bundle, and dated.

use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::certificate::{printable, weak_hash};

/// A revocation list that can be used, and what it says.
pub struct Crl {
    /// For the verification of chains.
    pub list: CertRevocationList<'static>,
    /// What it says.
    pub facts: CrlFacts,
}

/// The facts of one revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlFacts {
    /// Who signed it.
    pub issuer: String,
    /// When it was issued, in seconds since 1970.
    pub this_update: i64,
    /// When the next one is due, in seconds since 1970.
    pub next_update: i64,
    /// How many certificates it revokes.
    pub revoked: usize,
}

impl Crl {
    /// Reads a list and checks that one of these CAs signed it; the error says what was found instead.
    pub fn check(der: &[u8], cas: &[X509Certificate<'_>]) -> Result<Self, String> {
        let list = OwnedCertRevocationList::from_der(der).map_err(unusable)?;
        let (_, parsed) = CertificateRevocationList::from_der(der)
            .map_err(|_| "a revocation list that does not parse".to_owned())?;
        if let Some(hash) = weak_hash(&parsed.signature_algorithm) {
            return Err(format!("a revocation list with a signature with {hash}"));
        }
        let issuer = printable(&parsed.issuer().to_string());
        let by_name = |ca: &&X509Certificate<'_>| ca.subject().as_raw() == parsed.issuer().as_raw();
        let mut issuers = cas.iter().filter(by_name).peekable();
        if issuers.peek().is_none() {
            return Err(format!("a revocation list of another CA ({issuer})"));
        }
        if !issuers.any(|ca| is_signed_by(der, ca)) {
            return Err(format!("a revocation list that is not signed by the CA it names ({issuer})"));
        }
        let facts = CrlFacts {
            issuer,
            this_update: parsed.last_update().timestamp(),
            // The other parser refuses lists without.
            next_update: parsed.next_update().map_or(0, |time| time.timestamp()),
            revoked: parsed.iter_revoked_certificates().count(),
        };
        Ok(Self { list: list.into(), facts })
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "webpki's errors are non-exhaustive")]
fn unusable(error: webpki::Error) -> String {
    match error {
        webpki::Error::UnsupportedCrlVersion => "a revocation list of another version than 2".to_owned(),
        webpki::Error::UnsupportedDeltaCrl => "a delta revocation list".to_owned(),
        webpki::Error::UnsupportedIndirectCrl => "an indirect revocation list".to_owned(),
        other => format!("a revocation list that cannot be used ({other:?})"),
    }
}

/// Whether the signature of a list is that of a CA.
fn is_signed_by(der: &[u8], ca: &X509Certificate<'_>) -> bool {
    let verified = || {
        let (message, [algorithm, signature]) = signed_parts(der)?;
        let [key_algorithm, key] = key_parts(ca.public_key().raw)?;
        let fits = |candidate: &&&dyn SignatureVerificationAlgorithm| {
            candidate.signature_alg_id().as_ref() == algorithm
                && candidate.public_key_alg_id().as_ref() == key_algorithm
        };
        let candidate = webpki::ALL_VERIFICATION_ALGS.iter().find(fits)?;
        candidate.verify_signature(key, message, signature).ok()
    };
    verified().is_some()
}

/// What was signed, with which algorithm, and the signature (RFC 5280 section 5.1.1).
fn signed_parts(der: &[u8]) -> Option<(&[u8], [&[u8]; 2])> {
    let (_, whole) = content(der)?;
    let (rest, _) = content(whole)?;
    let message = &whole[..whole.len() - rest.len()];
    Some((message, algorithm_and_bits(rest)?))
}

/// The algorithm of a public key, and the key (RFC 5280 section 4.1.2.7).
fn key_parts(info: &[u8]) -> Option<[&[u8]; 2]> {
    algorithm_and_bits(content(info)?.1)
}

fn algorithm_and_bits(der: &[u8]) -> Option<[&[u8]; 2]> {
    let (rest, algorithm) = content(der)?;
    let (_, bits) = content(rest)?;
    // The first byte says how many bits of the last one are unused: none, in keys and signatures.
    Some([algorithm, bits.strip_prefix(&[0])?])
}

/// What is behind the first element, and what is in it.
fn content(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, element) = Any::from_der(der).ok()?;
    Some((rest, element.data))
}
