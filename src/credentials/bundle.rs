//! Bytes -> [`Credential`]: parsed, consistent, and fit for what it is to be used for, or a reason why not.
//!
//! The one file outside `tls/` that names rustls: its signing key types load every format a key
//! comes in (PKCS#8, SEC1, PKCS#1), and tell whether a key belongs to a certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::layout::{self, Files};

/// One generation of checked key material.
pub struct Credential {
    /// Counts the versions published under one name, from 1.
    pub generation: u64,
    /// The chain and its key.
    pub certified_key: Arc<CertifiedKey>,
    /// The CAs that verify the other side; empty where the needs did not ask for any.
    pub anchors: Arc<Vec<TrustAnchor<'static>>>,
    /// When the leaf expires.
    pub not_after: SystemTime,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// What a credential is to be used for, and so must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Whether `ca.crt` must be there and name at least one CA.
    pub ca: bool,
}

/// Something worth telling the operator about a credential that is used all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The leaf's validity is over.
    Expired(Duration),
    /// The leaf's validity has not begun.
    NotYetValid(Duration),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(ago) => {
                write!(f, "own certificate expired {} s ago, peers will refuse it", ago.as_secs())
            }
            Self::NotYetValid(ahead) => {
                write!(f, "own certificate becomes valid only in {} s, peers will refuse it", ahead.as_secs())
            }
        }
    }
}

/// Why a set of files is not a usable credential.
#[derive(Debug)]
pub enum BundleError {
    /// Reading failed.
    Read(layout::ReadError),
    /// A file that must be there is not.
    Missing(PathBuf),
    /// A file holds no section of the expected kind.
    Empty(PathBuf, &'static str),
    /// A file that is not valid PEM, or whose content is not what its label says.
    Malformed(PathBuf, String),
    /// A key of a kind that cannot be used.
    UnsupportedKey(PathBuf, String),
    /// The key belongs to another certificate.
    KeyMismatch(PathBuf, PathBuf),
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Missing(path) => write!(f, "expected a file, found none: {}", path.display()),
            Self::Empty(path, kind) => {
                write!(f, "expected at least one PEM {kind}, found none: {}", path.display())
            }
            Self::Malformed(path, why) => write!(f, "expected valid PEM, found {why}: {}", path.display()),
            Self::UnsupportedKey(path, why) => {
                write!(f, "expected an ECDSA, Ed25519 or RSA private key, found {why}: {}", path.display())
            }
            Self::KeyMismatch(key, chain) => {
                write!(
                    f,
                    "expected the private key of {}, found the key of another certificate: {}",
                    chain.display(),
                    key.display()
                )
            }
        }
    }
}

impl std::error::Error for BundleError {}

/// Checks a set of files and makes a credential of them.
pub fn check(
    directory: &Path,
    files: &Files,
    needs: Needs,
    generation: u64,
) -> Result<Credential, BundleError> {
    let chain = certificates(directory, layout::CHAIN, files.chain.as_deref())?;
    let key_path = directory.join(layout::KEY);
    let key = private_key(&key_path, files.key.as_deref())?;
    let signing_key = any_supported_type(&key)
        .map_err(|error| BundleError::UnsupportedKey(key_path.clone(), error.to_string()))?;
    let not_after = leaf_validity(directory, &chain)?.1;
    let certified_key = CertifiedKey::new(chain, signing_key);
    certified_key
        .keys_match()
        .map_err(|_| BundleError::KeyMismatch(key_path, directory.join(layout::CHAIN)))?;
    let anchors = if needs.ca { anchors(directory, files)? } else { Vec::new() };
    Ok(Credential {
        generation,
        certified_key: Arc::new(certified_key),
        anchors: Arc::new(anchors),
        not_after,
    })
}

/// What the operator should know of a credential at this moment.
pub fn warnings(credential: &Credential, now: SystemTime) -> Vec<Warning> {
    let expired = now.duration_since(credential.not_after).ok().map(Warning::Expired);
    let not_before = leaf_validity(Path::new(""), &credential.certified_key.cert).ok().map(|(from, _)| from);
    let early = not_before.and_then(|from| from.duration_since(now).ok());
    expired.into_iter().chain(early.filter(|ahead| !ahead.is_zero()).map(Warning::NotYetValid)).collect()
}

fn certificates(
    directory: &Path,
    name: &str,
    bytes: Option<&[u8]>,
) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let path = || directory.join(name);
    let bytes = bytes.ok_or_else(|| BundleError::Missing(path()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| BundleError::Malformed(path(), error.to_string()))?;
    // The iterator passes over sections of other kinds in silence, so the count is what tells.
    if found.is_empty() { Err(BundleError::Empty(path(), "CERTIFICATE")) } else { Ok(found) }
}

fn private_key(path: &Path, bytes: Option<&[u8]>) -> Result<PrivateKeyDer<'static>, BundleError> {
    let bytes = bytes.ok_or_else(|| BundleError::Missing(path.to_owned()))?;
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(rustls_pki_types::pem::Error::NoItemsFound) => {
            Err(BundleError::Empty(path.to_owned(), "PRIVATE KEY"))
        }
        Err(error) => Err(BundleError::Malformed(path.to_owned(), error.to_string())),
    }
}

fn anchors(directory: &Path, files: &Files) -> Result<Vec<TrustAnchor<'static>>, BundleError> {
    let malformed = |why: String| BundleError::Malformed(directory.join(layout::CA), why);
    certificates(directory, layout::CA, files.ca.as_deref())?
        .iter()
        .map(|der| {
            let anchor = webpki::anchor_from_trusted_cert(der);
            anchor
                .map(|anchor| anchor.to_owned())
                .map_err(|error| malformed(format!("a bad certificate ({error})")))
        })
        .collect()
}

fn leaf_validity(
    directory: &Path,
    chain: &[CertificateDer<'static>],
) -> Result<(SystemTime, SystemTime), BundleError> {
    let malformed = |why: &str| BundleError::Malformed(directory.join(layout::CHAIN), why.to_owned());
    let leaf = chain.first().ok_or_else(|| malformed("no certificate"))?;
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|_| malformed("a certificate that does not parse"))?;
    let time = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    Ok((time(leaf.validity().not_before), time(leaf.validity().not_after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev_certs;

    fn minted() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let request = dev_certs::Request {
            out: dir.path().to_owned(),
            hosts: vec!["localhost".into()],
            clients: vec!["client.example".into()],
            key: dev_certs::KeyKind::EcdsaP256,
            days: 1,
        };
        let minted = dev_certs::mint(&request, crate::clock::wall()).unwrap();
        let files = layout::read(&minted.ingress).unwrap();
        (dir, files)
    }

    fn message(files: &Files) -> String {
        check(Path::new("cred"), files, Needs { ca: true }, 1).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_set_is_accepted_and_a_broken_one_refused_by_file_and_reason() {
        let (dir, good) = minted();
        let credential = check(Path::new("cred"), &good, Needs { ca: true }, 7).unwrap();
        assert_eq!((credential.generation, credential.anchors.len()), (7, 1));
        assert_eq!(warnings(&credential, crate::clock::wall()), []);

        assert_eq!(
            message(&Files { chain: None, ..good.clone() }),
            "expected a file, found none: cred/tls.crt"
        );
        let empty = Files { key: Some(Vec::new()), ..good.clone() };
        assert_eq!(message(&empty), "expected at least one PEM PRIVATE KEY, found none: cred/tls.key");
        let swapped = Files { ca: good.key.clone(), ..good.clone() };
        assert_eq!(message(&swapped), "expected at least one PEM CERTIFICATE, found none: cred/ca.crt");
        let mut half = good.clone();
        half.chain.as_mut().unwrap().truncate(200);
        assert!(message(&half).starts_with("expected valid PEM, found "), "{}", message(&half));
        let junk = Files {
            ca: Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
            ..good.clone()
        };
        assert!(message(&junk).contains("a bad certificate"), "{}", message(&junk));
        let other = layout::read(&dir.path().join("egress")).unwrap();
        let mixed = Files { key: other.key, ..good };
        assert_eq!(
            message(&mixed),
            "expected the private key of cred/tls.crt, found the key of another certificate: cred/tls.key"
        );
    }

    #[test]
    fn an_expired_leaf_is_a_warning() {
        let (_dir, files) = minted();
        let credential = check(Path::new("cred"), &files, Needs::default(), 1).unwrap();
        let later = crate::clock::wall() + Duration::from_hours(72);
        assert!(matches!(warnings(&credential, later)[..], [Warning::Expired(_)]));
        let earlier = crate::clock::wall() - Duration::from_hours(72);
        assert!(matches!(warnings(&credential, earlier)[..], [Warning::NotYetValid(_)]));
    }
}
