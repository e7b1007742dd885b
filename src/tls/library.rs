//! rustls' unbuffered API, and all there is of it: so that the move to its successor is a change of this file.
//!
//! It shakes hands for every session, and carries those of TLS 1.2 to their end. The library holds
//! positions into what it was shown and not done with, so it must be shown that again whenever it is called.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ExtractedSecrets, ServerConfig};
use rustls_pki_types::ServerName;

use super::fault;
use super::plaintext::Plaintext;
use super::records::Keys;
use crate::plan::outcome::{TlsFault, TlsFaultKind};

/// Room for a KeyUpdate or an alert beside the data.
pub(super) const CONTROL_RECORDS: usize = 256;

/// One of the library's connections.
pub enum Library {
    /// The server side.
    Server(Box<UnbufferedServerConnection>),
    /// The client side.
    Client(Box<UnbufferedClientConnection>),
}

impl Library {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::Server(Box::new(UnbufferedServerConnection::new(config)?)))
    }

    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self::Client(Box::new(UnbufferedClientConnection::new(config, name)?)))
    }

    /// What the handshake knows and has settled.
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }

    /// Processes the records at the front of `records`, in place, and returns how many bytes of it are done
    /// with. Also when it fails, `outgoing` has what must reach the peer. `peer_closed` becomes true when
    /// the peer has said that it will send nothing more.
    pub(super) fn feed(
        &mut self,
        records: &mut [u8],
        plain: &mut Plaintext,
        outgoing: &mut Vec<u8>,
        peer_closed: &mut bool,
    ) -> Result<usize, TlsFault> {
        match self {
            Self::Server(connection) => feed(&mut **connection, records, plain, outgoing, peer_closed),
            Self::Client(connection) => feed(&mut **connection, records, plain, outgoing, peer_closed),
        }
    }

    /// Writes to `out` and says how much that made. `rest` is what [`Library::feed`] was not done with.
    pub(super) fn write(
        &mut self,
        what: Write<'_>,
        rest: &mut [u8],
        out: &mut [u8],
        peer_closed: &mut bool,
    ) -> Result<usize, TlsFault> {
        match self {
            Self::Server(connection) => write(&mut **connection, what, rest, out, peer_closed),
            Self::Client(connection) => write(&mut **connection, what, rest, out, peer_closed),
        }
    }

    /// Hands out the keys of a session whose handshake is over.
    pub(super) fn into_keys(self) -> Result<(ExtractedSecrets, Keys), Error> {
        Ok(match self {
            Self::Server(connection) => {
                let (secrets, keys) = connection.dangerous_into_kernel_connection()?;
                (secrets, Keys::Server(keys))
            }
            Self::Client(connection) => {
                let (secrets, keys) = connection.dangerous_into_kernel_connection()?;
                (secrets, Keys::Client(keys))
            }
        })
    }
}

/// What is to be written.
#[derive(Clone, Copy)]
pub(super) enum Write<'plain> {
    /// Data.
    Data(&'plain [u8]),
    /// That nothing more will come.
    CloseNotify,
}

/// What both sides of the unbuffered API have in common.
trait Unbuffered {
    type Data;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn has_something_to_say(&self) -> bool;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
    fn has_something_to_say(&self) -> bool {
        self.wants_write()
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
    fn has_something_to_say(&self) -> bool {
        self.wants_write()
    }
}

fn feed(
    connection: &mut impl Unbuffered,
    records: &mut [u8],
    plain: &mut Plaintext,
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
                collect_alert(connection, &mut records[consumed..], outgoing);
                return Err(fault::describe(&error));
            }
        }
    }
}

fn write(
    connection: &mut impl Unbuffered,
    what: Write<'_>,
    rest: &mut [u8],
    out: &mut [u8],
    peer_closed: &mut bool,
) -> Result<usize, TlsFault> {
    let mut written = 0;
    loop {
        match connection.process(rest).state {
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
fn collect_alert(connection: &mut impl Unbuffered, rest: &mut [u8], outgoing: &mut Vec<u8>) {
    // Asked first, because without something to say the call would go on with the input that failed.
    while connection.has_something_to_say() {
        let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(rest).state else { return };
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
