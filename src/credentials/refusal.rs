//! Why a set of files is not a usable credential, and what is worth knowing of one that is.

use std::fmt;
use std::path::PathBuf;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::layout::Lacking;
use super::read::ReadError;

/// Why a set of files is not a usable credential.
#[derive(Debug)]
pub enum Refusal {
    /// Reading failed.
    Read(ReadError),
    /// A file that must be there is not, or is empty.
    Lacking(Lacking),
    /// A file holds no PEM section of the expected kind.
    NoSection(PathBuf, &'static str),
    /// A file that is not valid PEM, or whose content is not what its label says.
    Malformed(PathBuf, String),
    /// A key of a kind that cannot be used.
    UnsupportedKey(PathBuf, String),
    /// The key belongs to another certificate.
    KeyMismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        chain: PathBuf,
    },
    /// A certificate or list that is what it should be and must not be used.
    Unfit {
        /// Its file.
        path: PathBuf,
        /// What would do.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// A certificate whose time has not come.
    Early {
        /// Its file.
        path: PathBuf,
        /// When it comes, in seconds since 1970.
        not_before: i64,
    },
}

impl Refusal {
    /// Whether time alone can heal it.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Early { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Lacking(lacking) => lacking.fmt(f),
            Self::NoSection(path, kind) => {
                write!(f, "expected at least one PEM {kind}, found none: {}", path.display())
            }
            Self::Malformed(path, why) => write!(f, "expected valid PEM, found {why}: {}", path.display()),
            Self::UnsupportedKey(path, why) => {
                write!(f, "expected an ECDSA, Ed25519 or RSA private key, found {why}: {}", path.display())
            }
            Self::KeyMismatch { key, chain } => {
                write!(
                    f,
                    "expected the private key of {}, found the key of another certificate: {}",
                    chain.display(),
                    key.display()
                )
            }
            Self::Unfit { path, expected, found } => {
                write!(f, "expected {expected}, found {found}: {}", path.display())
            }
            Self::Early { path, not_before } => {
                let from = date(*not_before);
                write!(
                    f,
                    "expected a valid certificate, found one that is valid from {from}: {}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Lacking> for Refusal {
    fn from(lacking: Lacking) -> Self {
        Self::Lacking(lacking)
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "expected a file, found none: {}", path.display()),
            Self::Content(path) => {
                write!(f, "expected at least one PEM section, found an empty file: {}", path.display())
            }
            Self::Ca(directory) => {
                write!(
                    f,
                    "expected CA certificates in cacert or ca.crt, found neither: {}",
                    directory.display()
                )
            }
        }
    }
}

/// Something worth telling the operator about a credential that is used all the same. Told once, and
/// again if it changes; the dates are absolute so that it does not change by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// Our own certificate expired while it was in use.
    Expired(String),
    /// Our own certificate is issued by none of the CAs that verify the other side.
    ForeignIssuer(String),
    /// Our own certificate carries no DNS name, so only those who look for a URI or address can accept it.
    NoDnsName,
    /// Our own certificate carries no name at all, so whoever looks for one will refuse it.
    NoName,
    /// Our own certificate is on a revocation list of ours.
    OwnRevoked,
    /// A CA of the bundle has expired: whom it alone vouches for is refused.
    CaExpired(String, String),
    /// A revocation list should have been replaced by now.
    CrlExpired(String, String),
    /// A revocation list that belongs to no CA file that is used.
    StrayCrl(PathBuf),
}

impl Warning {
    /// Whether somebody should do something about it; the others are good to know.
    pub fn is_alert(&self) -> bool {
        match self {
            Self::ForeignIssuer(_) | Self::NoDnsName => false,
            Self::Expired(_)
            | Self::NoName
            | Self::OwnRevoked
            | Self::CaExpired(..)
            | Self::CrlExpired(..)
            | Self::StrayCrl(_) => true,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(when) => write!(f, "own certificate expired, peers will refuse it: {when}"),
            Self::ForeignIssuer(issuer) => {
                write!(f, "own certificate is issued by none of the CAs beside it, the other side must know its CA: {issuer}")
            }
            Self::NoDnsName => {
                f.write_str("own certificate carries no DNS name, only clients that look for its URI or address will accept it")
            }
            Self::NoName => {
                f.write_str("own certificate carries no subject alternative name, peers that look for one will refuse it")
            }
            Self::OwnRevoked => f.write_str("own certificate is revoked by a list beside it"),
            Self::CaExpired(subject, when) => {
                write!(f, "a CA expired, what it alone vouches for is refused: {subject}, {when}")
            }
            Self::CrlExpired(issuer, when) => {
                write!(f, "a revocation list should have been replaced by now: {issuer}, {when}")
            }
            Self::StrayCrl(path) => {
                write!(f, "a revocation list belongs to no CA file that is used: {}", path.display())
            }
        }
    }
}

/// Seconds since 1970 as RFC 3339, in UTC.
pub fn date(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}
