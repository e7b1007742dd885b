//! Every deadline, bound and count of a gateway, in one place.

use std::time::Duration;

/// What a gateway allows. Each wait has a deadline, each buffer a bound, each count a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The whole TLS handshake of one hop, not each read of it.
    pub handshake_timeout: Duration,
    /// Resolving and connecting to an upstream, over all its addresses.
    pub connect_timeout: Duration,
    /// Connections open at once; one more is reset. A client that must shake hands counts once it has.
    pub connections_max: usize,
    /// Clients that have not yet proven who they are, on each worker; one more is reset.
    pub handshakes_max: usize,
    /// No byte in either direction for this long ends a connection; `None` never does.
    pub idle_timeout: Option<Duration>,
    /// What was sent and is not taken or acknowledged for this long ends a connection (RFC 5482, tcp(7)
    /// `TCP_USER_TIMEOUT`); `None` leaves it to the system.
    pub user_timeout: Option<Duration>,
    /// How long open connections may go on after the order to stop.
    pub drain_timeout: Duration,
    /// What TLS that ends without close_notify does to the other side.
    pub on_truncation: OnTruncation,
    /// How often credentials and configuration are looked at even if no change was noticed.
    pub credentials_poll: Duration,
    /// How long a connection may go on at most whose peer would not be let in any more.
    pub revoked_grace: Duration,
    /// How long any connection may go on; `None` for as long as it likes.
    pub connection_age_max: Option<Duration>,
    /// When a connection goes on with new keys.
    pub rekey_after: RekeyAfter,
    /// Worker threads; each connection stays on one.
    pub workers: usize,
}

/// When the keys of a connection are changed; with neither bound, only at the limit of the cipher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RekeyAfter {
    /// After so many bytes, of both directions together.
    pub bytes: Option<u64>,
    /// After so much time.
    pub time: Option<Duration>,
}

/// Bytes of a ClientHello or of any other handshake flight that are held while it is incomplete.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// What the other side sees when TLS ends without close_notify (RFC 8446 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTruncation {
    /// A reset: what arrived must not look complete.
    Reset,
    /// A clean end, for peers that never send close_notify.
    Fin,
}
