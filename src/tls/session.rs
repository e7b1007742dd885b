//! One TLS session over borrowed buffers: `feed` takes records in, `seal` puts records out.
//!
//! The session owns keys and state and no buffer. Whoever drives it decides how much is read at once
//! and where the bytes live. This file is all there is of rustls' unbuffered API, so that the move to
//! its successor is a change of this file.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CipherSuite, ClientConfig, CommonState, Error, ProtocolVersion, ServerConfig};
use rustls_pki_types::ServerName;

use super::{Agreed, fault};
use crate::plan::outcome::{TlsFault, TlsFaultKind};

/// What a record adds to its plaintext at most: header, inner type, tag, and explicit nonce of TLS 1.2.
const RECORD_OVERHEAD: usize = 5 + 1 + 16 + 8;
/// Plaintext of one record at most (RFC 8446 section 5.1).
const RECORD_PLAINTEXT_MAX: usize = 16 * 1024;
/// A record on the wire at most (RFC 8446 section 5.2; TLS 1.2 allows 2048 bytes of expansion).
pub const RECORD_WIRE_MAX: usize = RECORD_PLAINTEXT_MAX + 2048 + 5;
/// Room for a KeyUpdate or an alert beside the data.
const CONTROL_RECORDS: usize = 256;

/// The room that `seal` needs for this many bytes of plaintext.
pub const fn sealed_len_max(plain: usize) -> usize {
    plain + (plain / RECORD_PLAINTEXT_MAX + 1) * RECORD_OVERHEAD + CONTROL_RECORDS
}

/// One TLS session, of either side.
pub struct Session {
    connection: Connection,
    peer_closed: bool,
}

enum Connection {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

impl Session {
    /// The server side of a session.
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = Connection::Server(Box::new(UnbufferedServerConnection::new(config)?));
        Ok(Self { connection, peer_closed: false })
    }

    /// The client side of a session.
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let connection = Connection::Client(Box::new(UnbufferedClientConnection::new(config, name)?));
        Ok(Self { connection, peer_closed: false })
    }

    /// Processes the whole records at the front of `records`, in place, and returns how many bytes of
    /// it are done with; the rest must be presented again, at the front, unaltered, with more behind
    /// it. Plaintext is appended to `plain`; what the protocol itself has to say (handshake, KeyUpdate,
    /// alerts) to `outgoing`, also when the call fails: the alert must reach the peer.
    pub fn feed(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<usize, TlsFault> {
        let peer_closed = &mut self.peer_closed;
        match &mut self.connection {
            Connection::Server(connection) => feed(&mut **connection, records, plain, outgoing, peer_closed),
            Connection::Client(connection) => feed(&mut **connection, records, plain, outgoing, peer_closed),
        }
    }

    /// Encrypts `plain` into records at the front of `out`, and says how many bytes that made. `out`
    /// must have room for [`sealed_len_max`] bytes.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        self.write(Write::Data(plain), out)
    }

    /// Says that nothing more will be sent (RFC 8446 section 6.1). Appends the alert to `outgoing`.
    pub fn close(&mut self, outgoing: &mut Vec<u8>) -> Result<(), TlsFault> {
        let mut out = [0; CONTROL_RECORDS];
        let written = self.write(Write::CloseNotify, &mut out)?;
        outgoing.extend_from_slice(&out[..written]);
        Ok(())
    }

    /// Whether the peer has said that it will send nothing more.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// What the handshake settled; `None` before it has.
    pub fn agreed(&self) -> Option<Agreed> {
        let common = self.common();
        Some(Agreed {
            version: version_name(common.protocol_version()?),
            cipher: cipher_name(common.negotiated_cipher_suite()?.suite()),
            group: common.negotiated_key_exchange_group()?.name().as_str().unwrap_or("unknown"),
        })
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    fn write(&mut self, what: Write<'_>, out: &mut [u8]) -> Result<usize, TlsFault> {
        let peer_closed = &mut self.peer_closed;
        match &mut self.connection {
            Connection::Server(connection) => write(&mut **connection, what, out, peer_closed),
            Connection::Client(connection) => write(&mut **connection, what, out, peer_closed),
        }
    }
}

/// The version as people write it.
#[allow(clippy::wildcard_enum_match_arm, reason = "there is no session with any other")]
fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// The IANA name: rustls marks the suites of TLS 1.3 with a prefix of its own.
#[allow(clippy::wildcard_enum_match_arm, reason = "all others have their IANA name")]
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// What both sides of the unbuffered API have in common.
trait Unbuffered {
    type Data;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

fn feed(
    connection: &mut impl Unbuffered,
    records: &mut [u8],
    plain: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> Result<usize, TlsFault> {
    let mut consumed = 0;
    loop {
        let UnbufferedStatus { discard, state } = connection.process(&mut records[consumed..]);
        consumed += discard;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record.map_err(|error| fault::describe(&error))?.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing)?,
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => *peer_closed = true,
            Ok(
                ConnectionState::WriteTraffic(_)
                | ConnectionState::BlockedHandshake
                | ConnectionState::Closed,
            ) => {
                return Ok(consumed);
            }
            // Early data is never accepted, and rustls has no other state today.
            Ok(_) => return Err(unexpected_state()),
            Err(error) => {
                collect_alert(connection, outgoing);
                return Err(fault::describe(&error));
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Write<'plain> {
    Data(&'plain [u8]),
    CloseNotify,
}

fn write(
    connection: &mut impl Unbuffered,
    what: Write<'_>,
    out: &mut [u8],
    peer_closed: &mut bool,
) -> Result<usize, TlsFault> {
    let mut written = 0;
    loop {
        match connection.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                written += data.encode(&mut out[written..]).map_err(|error| internal(&error))?;
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => *peer_closed = true,
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let sealed = match what {
                    Write::Data(plain) => traffic.encrypt(plain, &mut out[written..]),
                    Write::CloseNotify => traffic.queue_close_notify(&mut out[written..]),
                };
                return sealed.map(|sealed| written + sealed).map_err(|error| internal(&error));
            }
            Ok(ConnectionState::Closed) => return Ok(written),
            Ok(_) => return Err(unexpected_state()),
            Err(error) => return Err(fault::describe(&error)),
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> Result<(), TlsFault> {
    let start = outgoing.len();
    let mut room = 1024;
    loop {
        outgoing.resize(start + room, 0);
        match data.encode(&mut outgoing[start..]) {
            Ok(encoded) => {
                outgoing.truncate(start + encoded);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(error @ EncodeError::AlreadyEncoded) => return Err(internal(&error)),
        }
    }
}

/// After an error the session holds one more record: the alert that tells the peer why.
fn collect_alert(connection: &mut impl Unbuffered, outgoing: &mut Vec<u8>) {
    while let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(&mut []).state {
        if encode(data, outgoing).is_err() {
            return;
        }
    }
}

fn internal(error: &impl std::fmt::Display) -> TlsFault {
    TlsFault { kind: TlsFaultKind::Protocol, detail: error.to_string() }
}

fn unexpected_state() -> TlsFault {
    TlsFault { kind: TlsFaultKind::Protocol, detail: "the TLS library is in an unexpected state".into() }
}
