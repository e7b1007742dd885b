//! Every way a connection can end, and one exhaustive match that says what each is called, how loud
//! it is and whose doing it was.

use std::fmt;

/// One of the two hops of a connection, seen from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Towards the client.
    Downstream,
    /// Towards the server.
    Upstream,
}

impl Side {
    /// The other hop.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }

    /// The name used in records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended cleanly; `first` is the side that began.
    Completed {
        /// Who ended its direction first.
        first: Side,
    },
    /// A peer reset its connection, or it vanished.
    Reset(Side),
    /// TLS ended without close_notify: what arrived may not be whole.
    Truncated(Side),
    /// A peer broke TLS, or told us so by an alert, after the handshake.
    Tls(Side, TlsFault),
    /// A handshake failed.
    Handshake(Side, TlsFault),
    /// A handshake did not end within its deadline.
    HandshakeTimeout(Side),
    /// The client went away before it had sent a whole ClientHello.
    NoHello,
    /// The SNI is none of the listener's hosts, or was not sent.
    NoRoute,
    /// The peer is not one of those who may connect, and which rule says so.
    Denied(String),
    /// The upstream's name has no address.
    Unresolved(String),
    /// No address of the upstream accepted a connection.
    Unreachable(String),
    /// No address of the upstream answered within the connect deadline.
    ConnectTimeout,
    /// Every endpoint of the upstream failed too often to be tried now.
    NoneHealthy,
    /// The upstream has as many connections as it may.
    UpstreamOverflow,
    /// There is no usable credential.
    NoCredential(String),
    /// No byte moved for the idle timeout.
    IdleTimeout,
    /// The connection reached the age that connections may.
    Aged,
    /// The peer on this side would not be let in any more.
    Withdrawn(Side, Withdrawal),
    /// The gateway was told to stop and the drain deadline passed.
    Drained,
    /// The limit of open connections was reached.
    ConnectionLimit,
    /// The limit of clients in the middle of a handshake was reached.
    HandshakeLimit,
    /// The gateway failed: a bug or an exhausted resource of its own.
    Internal(String),
}

/// Why a peer that was let in would not be let in any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// Its certificate expired.
    Expired,
    /// Its CA has revoked its certificate, or one between the two.
    Revoked,
    /// No CA that is trusted now vouches for it.
    Ca,
    /// It is not one of those who may connect now, or not who the server must be.
    Permission,
}

impl Withdrawal {
    /// The name used in records and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Expired => "peer_certificate_expired",
            Self::Revoked => "peer_certificate_revoked",
            Self::Ca => "peer_ca_withdrawn",
            Self::Permission => "peer_permission_withdrawn",
        }
    }
}

/// Who brought a connection to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// A peer, on this side.
    Peer(Side),
    /// The gateway: its configuration, its limits, its operator.
    Gateway,
}

/// How loudly an outcome is logged. What a stranger can cause is never above `Info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Part of normal work.
    Debug,
    /// Worth knowing, no action asked for.
    Info,
    /// Worth an alert.
    Warn,
}

/// What outsiders need of an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account<'outcome> {
    /// A stable name for records and metrics.
    pub label: &'static str,
    /// What happened, for a person; empty where the label says it all.
    pub detail: &'outcome str,
    /// How loud.
    pub level: Level,
    /// Whose doing.
    pub blame: Blame,
    /// What Envoy would write as its response flags; empty where it writes none, or another word says more.
    pub flags: &'static str,
}

impl Outcome {
    /// The one place where an outcome gets its name, level and blame.
    pub fn account(&self) -> Account<'_> {
        use Blame::{Gateway, Peer};
        use Level::{Debug, Info, Warn};
        let (label, level, blame, detail) = match self {
            Self::Completed { first } => ("completed", Debug, Peer(*first), ""),
            Self::Reset(side) => ("reset", Debug, Peer(*side), ""),
            Self::Truncated(side) => ("truncated", Info, Peer(*side), "TLS ended without close_notify"),
            Self::Tls(side, fault) | Self::Handshake(side, fault) => {
                // A client is a stranger; the upstream was chosen by the operator.
                let level = if *side == Side::Upstream { Warn } else { Info };
                (fault.kind.label(), level, Peer(*side), fault.detail.as_str())
            }
            Self::HandshakeTimeout(side) => ("handshake_timeout", Info, Peer(*side), ""),
            Self::NoHello => ("no_hello", Info, Peer(Side::Downstream), "closed before a whole ClientHello"),
            Self::NoRoute => ("no_route", Info, Peer(Side::Downstream), "the SNI is none of the hosts"),
            Self::Denied(rule) => ("denied", Info, Peer(Side::Downstream), rule.as_str()),
            Self::Unresolved(why) => ("unresolved", Warn, Peer(Side::Upstream), why.as_str()),
            Self::Unreachable(why) => ("unreachable", Warn, Peer(Side::Upstream), why.as_str()),
            Self::ConnectTimeout => ("connect_timeout", Warn, Peer(Side::Upstream), ""),
            Self::NoneHealthy => {
                ("no_healthy_upstream", Warn, Peer(Side::Upstream), "every endpoint is ejected")
            }
            Self::UpstreamOverflow => ("upstream_overflow", Info, Gateway, "maxConnections is reached"),
            Self::NoCredential(why) => ("no_credential", Warn, Gateway, why.as_str()),
            Self::IdleTimeout => ("idle_timeout", Info, Gateway, ""),
            Self::Aged => ("max_connection_age", Info, Gateway, ""),
            Self::Withdrawn(side, why) => {
                let level = if *side == Side::Upstream { Warn } else { Info };
                let whose = match side {
                    Side::Downstream => "what let the client in does so no more",
                    Side::Upstream => "what the server was accepted for holds no more",
                };
                (why.label(), level, Gateway, whose)
            }
            Self::Drained => ("drained", Info, Gateway, ""),
            Self::ConnectionLimit => ("connection_limit", Info, Gateway, ""),
            Self::HandshakeLimit => ("handshake_limit", Info, Gateway, ""),
            Self::Internal(why) => ("internal", Warn, Gateway, why.as_str()),
        };
        Account { label, detail, level, blame, flags: self.flags() }
    }

    /// The side of a handshake that failed or was not begun, if that was the end.
    pub fn refused_handshake(&self) -> Option<Side> {
        match self {
            Self::Handshake(side, _) | Self::HandshakeTimeout(side) => Some(*side),
            Self::NoHello | Self::HandshakeLimit => Some(Side::Downstream),
            Self::Completed { .. }
            | Self::Reset(_)
            | Self::Truncated(_)
            | Self::Tls(..)
            | Self::NoRoute
            | Self::Denied(_)
            | Self::Unresolved(_)
            | Self::Unreachable(_)
            | Self::ConnectTimeout
            | Self::NoneHealthy
            | Self::UpstreamOverflow
            | Self::NoCredential(_)
            | Self::IdleTimeout
            | Self::Aged
            | Self::Withdrawn(..)
            | Self::Drained
            | Self::ConnectionLimit
            | Self::Internal(_) => None,
        }
    }

    fn flags(&self) -> &'static str {
        match self {
            Self::UpstreamOverflow => "UO",
            Self::NoneHealthy | Self::Unresolved(_) => "UH",
            Self::Unreachable(_)
            | Self::ConnectTimeout
            | Self::Handshake(Side::Upstream, _)
            | Self::HandshakeTimeout(Side::Upstream) => "UF,URX",
            Self::NoRoute => "NR",
            Self::Aged => "DT",
            Self::Completed { .. }
            | Self::Reset(_)
            | Self::Truncated(_)
            | Self::Tls(..)
            | Self::Handshake(Side::Downstream, _)
            | Self::HandshakeTimeout(Side::Downstream)
            | Self::NoHello
            | Self::Denied(_)
            | Self::NoCredential(_)
            | Self::IdleTimeout
            | Self::Withdrawn(..)
            | Self::Drained
            | Self::ConnectionLimit
            | Self::HandshakeLimit
            | Self::Internal(_) => "",
        }
    }
}

/// What went wrong in TLS: the kind for machines, the detail for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFault {
    /// What it was.
    pub kind: TlsFaultKind,
    /// What was found and what was expected.
    pub detail: String,
}

/// The kinds of TLS failure that an operator tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFaultKind {
    /// The bytes are not TLS.
    NotTls,
    /// The client showed no certificate.
    NoCertificate,
    /// The certificate does not chain to a trusted CA.
    UnknownCa,
    /// The certificate is expired, or not valid yet.
    Expired,
    /// The certificate was revoked, or that could not be determined.
    Revoked,
    /// The certificate does not carry the expected name.
    WrongName,
    /// The certificate is not one of those that may connect.
    NotAllowed,
    /// The certificate is not made for this use.
    WrongPurpose,
    /// The certificate is malformed, or its signature or key is not accepted.
    BadCertificate,
    /// The peer refused us by an alert.
    AlertReceived,
    /// The two sides share no version, cipher or group.
    NothingInCommon,
    /// A record that does not decrypt, or is too large.
    BadRecord,
    /// The peer closed in mid-handshake.
    ClosedInHandshake,
    /// Any other violation of the protocol.
    Protocol,
}

impl TlsFaultKind {
    /// The name used in records and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "certificate_expired",
            Self::Revoked => "certificate_revoked",
            Self::WrongName => "wrong_name",
            Self::NotAllowed => "not_allowed",
            Self::WrongPurpose => "wrong_purpose",
            Self::BadCertificate => "bad_certificate",
            Self::AlertReceived => "alert_received",
            Self::NothingInCommon => "nothing_in_common",
            Self::BadRecord => "bad_record",
            Self::ClosedInHandshake => "closed_in_handshake",
            Self::Protocol => "protocol_violation",
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_can_cause_is_never_above_info() {
        let fault = TlsFault { kind: TlsFaultKind::NotTls, detail: String::new() };
        for outcome in [
            Outcome::Completed { first: Side::Downstream },
            Outcome::Reset(Side::Downstream),
            Outcome::Truncated(Side::Downstream),
            Outcome::Tls(Side::Downstream, fault.clone()),
            Outcome::Handshake(Side::Downstream, fault),
            Outcome::HandshakeTimeout(Side::Downstream),
            Outcome::NoHello,
            Outcome::NoRoute,
            Outcome::Denied(String::new()),
            Outcome::ConnectionLimit,
            Outcome::HandshakeLimit,
            Outcome::UpstreamOverflow,
            Outcome::IdleTimeout,
            Outcome::Aged,
            Outcome::Withdrawn(Side::Downstream, Withdrawal::Revoked),
        ] {
            assert_ne!(outcome.account().level, Level::Warn, "{outcome:?}");
        }
    }
}
