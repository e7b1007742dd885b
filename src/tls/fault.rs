//! rustls' errors in our words: what kind, whose, found and expected.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::plan::limits::HANDSHAKE_BYTES_MAX;
use crate::plan::outcome::{TlsFault, TlsFaultKind};

/// Describes an error that rustls found in what the peer did.
pub(crate) fn describe(error: &Error) -> TlsFault {
    TlsFault { kind: kind(error), detail: detail(error) }
}

/// The peer ended the stream where more was due.
pub(crate) fn closed_in_handshake() -> TlsFault {
    TlsFault { kind: TlsFaultKind::ClosedInHandshake, detail: "connection closed in mid-handshake".into() }
}

/// More bytes than any handshake needs.
pub fn too_large() -> TlsFault {
    TlsFault {
        kind: TlsFaultKind::Protocol,
        detail: format!(
            "expected a handshake message of at most {HANDSHAKE_BYTES_MAX} bytes, found a larger one"
        ),
    }
}

/// What is wrong with a ClientHello whose sender knows no version that there is any more: one of TLS 1.2 or
/// later says 3.3 (RFC 8446 section 4.1.2).
pub(crate) fn old_version(hello: &[u8]) -> Option<TlsFault> {
    let [22, 3, _, _, _, 1, _, _, _, 3, minor @ 0..=2, ..] = *hello else { return None };
    let found = ["SSL 3.0", "TLS 1.0", "TLS 1.1"][usize::from(minor)];
    Some(TlsFault {
        kind: TlsFaultKind::NothingInCommon,
        detail: format!("expected TLS 1.2 or 1.3, found {found}"),
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "rustls' errors are non-exhaustive")]
fn kind(error: &Error) -> TlsFaultKind {
    match error {
        Error::NoCertificatesPresented => TlsFaultKind::NoCertificate,
        Error::InvalidCertificate(error) => certificate_kind(error),
        Error::AlertReceived(_) => TlsFaultKind::AlertReceived,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsFaultKind::NothingInCommon,
        Error::DecryptError | Error::PeerSentOversizedRecord => TlsFaultKind::BadRecord,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge,
        ) => TlsFaultKind::NotTls,
        _ => TlsFaultKind::Protocol,
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "rustls' errors are non-exhaustive")]
fn certificate_kind(error: &CertificateError) -> TlsFaultKind {
    match error {
        CertificateError::UnknownIssuer => TlsFaultKind::UnknownCa,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsFaultKind::Expired,
        CertificateError::Revoked
        | CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => TlsFaultKind::Revoked,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsFaultKind::WrongName
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            TlsFaultKind::WrongPurpose
        }
        CertificateError::ApplicationVerificationFailure => TlsFaultKind::NotAllowed,
        _ => TlsFaultKind::BadCertificate,
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "rustls' errors are non-exhaustive")]
fn detail(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("the peer sent the alert {}", alert_name(*alert)),
        Error::NoCertificatesPresented => "expected a client certificate, found none".into(),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "no cipher suite in common".into()
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "no key-exchange group in common".into()
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "no TLS version in common".into(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "expected a certificate issued by a CA of the bundle, found another issuer".into()
        }
        Error::InvalidCertificate(CertificateError::Revoked) => {
            "expected a certificate that is in force, found one that its CA has revoked".into()
        }
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "expected a revocation list of every CA of the chain, found a CA without one".into()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "expected a TLS record, found other bytes".into()
        }
        _ => error.to_string(),
    }
}

/// The name of an alert as RFC 8446 section 6 writes it.
fn alert_name(alert: AlertDescription) -> String {
    let camel = format!("{alert:?}");
    let mut name = String::with_capacity(camel.len() + 4);
    let mut previous_upper = true;
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && !previous_upper {
            name.push('_');
        }
        previous_upper = letter.is_ascii_uppercase();
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: &Error, kind: TlsFaultKind, detail: &str) {
        let fault = describe(error);
        assert_eq!(fault.kind, kind);
        assert!(fault.detail.contains(detail), "{}", fault.detail);
    }

    #[test]
    fn errors_are_told_apart_by_whose_and_what() {
        check(&Error::NoCertificatesPresented, TlsFaultKind::NoCertificate, "found none");
        check(
            &Error::InvalidCertificate(CertificateError::UnknownIssuer),
            TlsFaultKind::UnknownCa,
            "issued by a CA of the bundle",
        );
        check(
            &Error::AlertReceived(AlertDescription::AccessDenied),
            TlsFaultKind::AlertReceived,
            "access_denied",
        );
        check(&Error::AlertReceived(AlertDescription::UnknownCA), TlsFaultKind::AlertReceived, "unknown_ca");
        check(
            &Error::InvalidMessage(InvalidMessage::InvalidContentType),
            TlsFaultKind::NotTls,
            "expected a TLS record",
        );
        check(&Error::DecryptError, TlsFaultKind::BadRecord, "decrypt");
    }
    #[test]
    fn only_a_hello_of_an_old_version_is_one() {
        let hello = |version: [u8; 2]| [&[22, 3, 1, 0, 60, 1, 0, 0, 56][..], &version, &[7; 32]].concat();
        let found = |version: [u8; 2]| old_version(&hello(version)).map(|fault| fault.detail);
        assert_eq!(found([3, 2]).as_deref(), Some("expected TLS 1.2 or 1.3, found TLS 1.1"));
        assert_eq!(found([3, 0]).as_deref(), Some("expected TLS 1.2 or 1.3, found SSL 3.0"));
        assert_eq!((found([3, 3]), found([3, 4]), found([2, 0])), (None, None, None));
        for length in 0..11 {
            assert_eq!(old_version(&hello([3, 2])[..length]), None);
        }
    }
}
