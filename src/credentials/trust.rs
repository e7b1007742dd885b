//! Who vouches for the other side: CAs, what they have revoked, and the check of a chain against both.
//!
//! One of these belongs to a generation and is shared by every handshake of it; nothing is copied.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::Facts;
use super::signatures;

/// CAs and their revocation lists.
#[derive(Default)]
pub struct TrustBundle {
    anchors: Vec<Anchor>,
    roots: Vec<TrustAnchor<'static>>,
    /// CAs of the bundle that another one of it vouches for: links of a chain, not its end, so that
    /// their dates and their revocation count too.
    intermediates: Vec<CertificateDer<'static>>,
    lists: Vec<CertRevocationList<'static>>,
    crl_expired: CrlExpired,
}

/// When a CA is valid. webpki takes a trust anchor at any time; the other side's library may not.
struct Anchor {
    not_before: u64,
    not_after: u64,
}

/// What becomes of chains whose revocation list should have been replaced by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CrlExpired {
    /// They are refused: a revocation may have been missed.
    #[default]
    Refuse,
    /// The list is used all the same, with a warning.
    Warn,
}

/// Whether revocation is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// By every list there is, along the whole chain.
    Checked,
    /// Not: for our own certificate, which is for others to judge.
    Ignored,
}

impl TrustBundle {
    /// Sorts the CAs of a bundle into those that a chain may end in and those that only lead there.
    pub fn new(
        cas: &[(CertificateDer<'static>, Facts)],
        lists: Vec<CertRevocationList<'static>>,
        crl_expired: CrlExpired,
    ) -> Result<Self, Error> {
        let mut trust = Self { lists, crl_expired, ..Self::default() };
        for (index, (der, facts)) in cas.iter().enumerate() {
            let issued_by = |other: &Facts| other.subject == facts.issuer;
            let has_parent =
                cas.iter().enumerate().any(|(other, (_, of_other))| other != index && issued_by(of_other));
            if facts.self_issued || !has_parent {
                trust.anchor(der, facts)?;
            } else {
                trust.intermediates.push(der.clone());
            }
        }
        Ok(trust)
    }

    /// Trusts public roots, of which nobody here knows what they revoke.
    pub fn of_roots(roots: Vec<TrustAnchor<'static>>) -> Self {
        let anchors = roots.iter().map(|_| Anchor { not_before: 0, not_after: u64::MAX }).collect();
        Self { anchors, roots, ..Self::default() }
    }

    fn anchor(&mut self, der: &CertificateDer<'static>, facts: &Facts) -> Result<(), Error> {
        self.roots.push(webpki::anchor_from_trusted_cert(der)?.to_owned());
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        self.anchors
            .push(Anchor { not_before: seconds(facts.not_before), not_after: seconds(facts.not_after) });
        Ok(())
    }

    /// Whether there is nobody to vouch for anybody.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Whether any CA says what it has revoked.
    pub fn has_lists(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Checks that a chain ends in one of the CAs, that all of it is valid now and for this use, and, if
    /// there are revocation lists, that each CA of the chain has one and has not revoked its part of it.
    /// Returns when the first of the CAs of the chain expires, in seconds since 1970.
    pub fn verify(
        &self,
        leaf: &EndEntityCert<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
        usage: impl ExtendedKeyUsageValidator,
        revocation: Revocation,
    ) -> Result<Duration, Error> {
        let lists: Vec<_> = match revocation {
            Revocation::Checked => self.lists.iter().collect(),
            Revocation::Ignored => Vec::new(),
        };
        let expiry = match self.crl_expired {
            CrlExpired::Refuse => ExpirationPolicy::Enforce,
            CrlExpired::Warn => ExpirationPolicy::Ignore,
        };
        // Without a list there are no options, and revocation is not looked at.
        let options = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(expiry)
                .build()
        });
        // Borrowed again: a clone of an owned certificate is a copy.
        let known = presented.iter().chain(&self.intermediates);
        let intermediates: Vec<_> = known.map(|der| CertificateDer::from(der.as_ref())).collect();
        let ends_in_time = |path: &VerifiedPath<'_>| self.is_valid(path.anchor(), now);
        let path = leaf.verify_for_usage(
            signatures::algorithms(),
            &self.roots,
            &intermediates,
            now,
            usage,
            options,
            Some(&ends_in_time),
        )?;
        let root = self.anchor_of(path.anchor())?.not_after;
        let mut between = path.intermediate_certificates().map(|ca| not_after(&ca.der()));
        between.try_fold(root, |earliest, next| Ok(earliest.min(next?))).map(Duration::from_secs)
    }

    fn anchor_of(&self, root: &TrustAnchor<'_>) -> Result<&Anchor, Error> {
        let place = self.roots.iter().position(|candidate| std::ptr::eq(candidate, root));
        place.and_then(|place| self.anchors.get(place)).ok_or(Error::UnknownIssuer)
    }

    fn is_valid(&self, root: &TrustAnchor<'_>, now: UnixTime) -> Result<(), Error> {
        let anchor = self.anchor_of(root)?;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        if now.as_secs() > anchor.not_after {
            Err(Error::CertExpired { time: now, not_after: at(anchor.not_after) })
        } else if now.as_secs() < anchor.not_before {
            Err(Error::CertNotValidYet { time: now, not_before: at(anchor.not_before) })
        } else {
            Ok(())
        }
    }
}

/// When a certificate expires, in seconds since 1970.
fn not_after(der: &[u8]) -> Result<u64, Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Error::BadDer)?;
    Ok(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("roots", &self.roots.len())
            .field("intermediates", &self.intermediates.len())
            .field("lists", &self.lists.len())
            .finish_non_exhaustive()
    }
}
