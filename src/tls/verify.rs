//! What a certificate must prove: its chain by webpki, then its name.
//!
//! Both verifiers check the chain the same way, against the anchors of one credential generation; they
//! differ in the usage they ask for and in the names they accept. A certificate that was presented,
//! good or bad, is left in a slot for the handshake that is running, so that a refusal can be
//! recorded with the name of the refused. No check is skipped for a resumed session: nothing is resumed.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::presented::Presented;
use super::{PROVIDER, presented};
use crate::credentials::certificate::{self, hex};
use crate::credentials::trust::{Revocation, TrustBundle};
use crate::plan::identity::{PeerIdentity, Pin, SubjectAltName};
use crate::plan::outcome::TlsFault;
use crate::plan::{Accept, ClientCertificate};

/// Names of a mismatch that are told; the rest are counted.
const NAMES_TOLD_MAX: usize = 8;

thread_local! {
    /// Which names were expected and which found, where that is what `feed` failed of: rustls' error has
    /// no room for a list.
    static MISMATCH: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Until when the chain that this thread's last `feed` let in holds: rustls takes nothing but a verdict.
    static UNTIL: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// When the first certificate of the chain that the last `feed` on this thread let in expires, in seconds since
/// 1970; `None` if it let none in.
pub(crate) fn take_until() -> Option<Duration> {
    UNTIL.take()
}

/// The fault of the `feed` that has just failed on this thread, with the names that did not match.
pub(crate) fn with_names(fault: TlsFault) -> TlsFault {
    match MISMATCH.take() {
        Some(detail) => TlsFault { detail, ..fault },
        None => fault,
    }
}

/// Verifies clients: the chain, then, where names are listed, that the certificate carries one, and where
/// certificates are, that it is one of them.
pub(crate) struct ClientVerifier {
    trust: Arc<TrustBundle>,
    names: Vec<SubjectAltName>,
    pins: Vec<Pin>,
    mandatory: bool,
}

impl ClientVerifier {
    pub(crate) fn new(trust: Arc<TrustBundle>, accept: &Accept) -> Self {
        let (names, pins) = (accept.client_names.clone(), accept.client_pins.clone());
        Self { trust, names, pins, mandatory: accept.client == ClientCertificate::Required }
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>, leaf: &EndEntityCert<'_>) -> bool {
        if self.pins.is_empty() {
            return true;
        }
        let found = certificate::fingerprints(certificate, &leaf.subject_public_key_info());
        let pinned = self.pins.iter().any(|pin| pin.matches(&found));
        if !pinned {
            let (key, whole) = (hex(&found.public_key), hex(&found.certificate));
            MISMATCH.set(Some(format!("expected a certificate that is pinned, found one with the SHA-256 {whole}, its public key with {key}")));
        }
        pinned
    }

    /// Whether a client is let in, and when the first certificate of its chain expires, in seconds since 1970.
    pub(crate) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Duration, Error> {
        let usage = KeyUsage::client_auth();
        let (leaf, presented, until) = vouched_for(&self.trust, end_entity, intermediates, now, usage)?;
        let identity = &presented.identity;
        if !self.names.is_empty() && !self.names.iter().any(|name| name.matches(identity)) {
            note_mismatch(&self.names, identity);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        if !self.is_pinned(end_entity, &leaf) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(until)
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints help a client that must choose among certificates; to strangers they name our CAs.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        UNTIL.set(Some(self.judge(end_entity, intermediates, now)?));
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// The name a server must prove, in the form its check needs.
pub(crate) enum ServerNames {
    /// As a DNS or IP subject alternative name.
    Host(ServerName<'static>),
    /// One of these.
    AnyOf(Vec<SubjectAltName>),
}

/// Verifies servers: the chain, then the name.
pub(crate) struct ServerVerifier {
    trust: Arc<TrustBundle>,
    names: ServerNames,
}

impl ServerVerifier {
    pub(crate) fn new(trust: Arc<TrustBundle>, names: ServerNames) -> Self {
        Self { trust, names }
    }

    /// Whether a server is let in, and when the first certificate of its chain expires, in seconds since 1970.
    pub(crate) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Duration, Error> {
        let usage = KeyUsage::server_auth();
        let (leaf, presented, until) = vouched_for(&self.trust, end_entity, intermediates, now, usage)?;
        let identity = &presented.identity;
        match &self.names {
            ServerNames::Host(name) => leaf.verify_is_valid_for_subject_name(name).map_err(|error| {
                note_mismatch(&[name.to_str()], identity);
                into_rustls(error)
            })?,
            ServerNames::AnyOf(names) if names.iter().any(|name| name.matches(identity)) => {}
            ServerNames::AnyOf(names) => {
                note_mismatch(names, identity);
                return Err(CertificateError::NotValidForName.into());
            }
        }
        Ok(until)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // Not the name to verify: what is sent as SNI and what must be proven are settled by the plan.
        _sni: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        UNTIL.set(Some(self.judge(end_entity, intermediates, now)?));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("names", &self.names).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").finish_non_exhaustive()
    }
}

/// Checks the chain of either side: the certificate, what it says, and when the first of its chain expires, in
/// seconds since 1970.
fn vouched_for<'der>(
    trust: &TrustBundle,
    end_entity: &'der CertificateDer<'der>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(EndEntityCert<'der>, Arc<Presented>, Duration), Error> {
    let leaf = EndEntityCert::try_from(end_entity).map_err(into_rustls)?;
    let presented = presented::note(end_entity, &leaf)?;
    let cas = trust.verify(&leaf, intermediates, now, usage, Revocation::Checked).map_err(into_rustls)?;
    let until = cas.min(presented.not_after);
    Ok((leaf, presented, until))
}

/// Leaves the names that did not match for whoever tells of the failure.
fn note_mismatch(expected: &[impl fmt::Display], presented: &PeerIdentity) {
    let (expected, found) = (list(expected, " or "), list(&presented.names(), " and "));
    MISMATCH.set(Some(format!("expected a certificate for {expected}, found one for {found}")));
}

/// The first names of a list, which may be as long as a certificate can be.
fn list(names: &[impl fmt::Display], word: &str) -> String {
    let told = names.len().min(NAMES_TOLD_MAX);
    let mut parts: Vec<_> = names[..told].iter().map(ToString::to_string).collect();
    match names.len() - told {
        0 if told == 0 => parts.push("no name".into()),
        0 => {}
        more => parts.push(format!("{more} more")),
    }
    parts.join(word)
}

/// webpki's verdict as rustls' error, which decides the alert that the peer is sent.
#[allow(clippy::wildcard_enum_match_arm, reason = "webpki's errors are non-exhaustive")]
fn into_rustls(error: webpki::Error) -> Error {
    match error {
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }.into()
        }
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }.into()
        }
        webpki::Error::InvalidCertValidity => CertificateError::Expired.into(),
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer.into(),
        webpki::Error::CertNotValidForName(name) => {
            CertificateError::NotValidForNameContext { expected: name.expected, presented: name.presented }
                .into()
        }
        webpki::Error::CertRevoked => CertificateError::Revoked.into(),
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus.into(),
        webpki::Error::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }.into()
        }
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature.into(),
        webpki::Error::RequiredEkuNotFoundContext(_)
        | webpki::Error::EndEntityUsedAsCa
        | webpki::Error::CaUsedAsEndEntity => CertificateError::InvalidPurpose.into(),
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding.into()
        }
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: usize, expected: &str) {
        let names: Vec<_> = (0..names).map(|index| format!("n{index}")).collect();
        assert_eq!(list(&names, " or "), expected);
    }

    #[test]
    fn of_a_long_list_of_names_only_the_first_are_told() {
        check(0, "no name");
        check(2, "n0 or n1");
        check(8, "n0 or n1 or n2 or n3 or n4 or n5 or n6 or n7");
        check(10, "n0 or n1 or n2 or n3 or n4 or n5 or n6 or n7 or 2 more");
    }
}
