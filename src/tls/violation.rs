//! How records can break the protocol: the alert that the peer is sent, and the fault that is recorded.

use rustls::{AlertDescription, Error};

use super::fault;
use crate::plan::outcome::{TlsFault, TlsFaultKind};

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// It was not sealed by the peer, or was altered since.
    BadMac,
    /// It is longer than any may be.
    Oversized,
    /// It is no record.
    NotTls,
    /// It may not come here.
    Unexpected(&'static str),
    /// It cannot be read.
    Malformed(&'static str),
    /// It says what nobody may say.
    Illegal(&'static str),
    /// The peer has given up, with this alert.
    Alert(u8),
    /// Ours: what cannot happen.
    Internal(&'static str),
}

/// An alert that ends the session (RFC 8446 section 6.2).
const FATAL: u8 = 2;

impl Violation {
    /// What the peer is told; nothing if it was the peer that told us.
    pub(super) fn alert(self) -> Option<[u8; 2]> {
        let description = match self {
            Self::BadMac => AlertDescription::BadRecordMac,
            Self::Oversized => AlertDescription::RecordOverflow,
            Self::NotTls | Self::Malformed(_) => AlertDescription::DecodeError,
            Self::Unexpected(_) => AlertDescription::UnexpectedMessage,
            Self::Illegal(_) => AlertDescription::IllegalParameter,
            Self::Internal(_) => AlertDescription::InternalError,
            Self::Alert(_) => return None,
        };
        Some([FATAL, description.into()])
    }
}

/// What is recorded.
impl From<Violation> for TlsFault {
    fn from(violation: Violation) -> Self {
        let protocol = |detail: String| Self { kind: TlsFaultKind::Protocol, detail };
        match violation {
            Violation::BadMac => fault::describe(&Error::DecryptError),
            Violation::Oversized => fault::describe(&Error::PeerSentOversizedRecord),
            Violation::NotTls => {
                Self { kind: TlsFaultKind::NotTls, detail: "expected a TLS record, found other bytes".into() }
            }
            Violation::Unexpected(what) | Violation::Malformed(what) | Violation::Illegal(what) => {
                protocol(format!("expected data, found {what}"))
            }
            Violation::Alert(description) => fault::describe(&Error::AlertReceived(description.into())),
            Violation::Internal(what) => protocol(what.into()),
        }
    }
}
