//! One TLS session over borrowed buffers: `feed` takes records in, `seal` puts records out.
//!
//! The session owns keys and state and no buffer. Whoever drives it decides how much is read at once
//! and where the bytes live. This file is all there is of rustls' unbuffered API, so that the move to
//! its successor is a change of this file.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ProtocolVersion, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};

use super::{Agreed, fault};
use crate::plan::outcome::{TlsFault, TlsFaultKind};

/// What a record adds to its plaintext at most: header, inner type, tag, and explicit nonce of TLS 1.2.
const RECORD_OVERHEAD: usize = 5 + 1 + 16 + 8;
/// Plaintext of one record at most (RFC 8446 section 5.1).
const RECORD_PLAINTEXT_MAX: usize = 16 * 1024;
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
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = Connection::Server(Box::new(UnbufferedServerConnection::new(config)?));
        Ok(Self { connection, peer_closed: false })
    }

    /// The client side of a session.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
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
    /// must have room for [`sealed_len_max`] bytes. `rest` is what [`Session::feed`] left of its input:
    /// the library looks at it also when it writes.
    pub fn seal(&mut self, plain: &[u8], rest: &mut [u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        self.write(Write::Data(plain), rest, out)
    }

    /// Says that nothing more will be sent (RFC 8446 section 6.1). Appends the alert to `outgoing`;
    /// `rest` is what [`Session::feed`] left of its input.
    pub fn close(&mut self, rest: &mut [u8], outgoing: &mut Vec<u8>) -> Result<(), TlsFault> {
        let mut out = [0; CONTROL_RECORDS];
        let written = self.write(Write::CloseNotify, rest, &mut out)?;
        outgoing.extend_from_slice(&out[..written]);
        Ok(())
    }

    /// Goes on with new keys, and asks the peer to do the same (RFC 8446 section 4.6.3). Appends the message
    /// to `outgoing`; `rest` is what [`Session::feed`] left of its input. TLS 1.2 has no such message.
    pub fn refresh_keys(&mut self, rest: &mut [u8], outgoing: &mut Vec<u8>) -> Result<(), TlsFault> {
        if self.common().protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Ok(());
        }
        let mut out = [0; CONTROL_RECORDS];
        let written = self.write(Write::KeyUpdate, rest, &mut out)?;
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
            version: common.protocol_version()?,
            cipher: common.negotiated_cipher_suite()?.suite(),
            group: common.negotiated_key_exchange_group()?.name(),
        })
    }

    /// The certificates that the peer presented, leaf first; empty if it showed none.
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    fn write(&mut self, what: Write<'_>, rest: &mut [u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        let peer_closed = &mut self.peer_closed;
        match &mut self.connection {
            Connection::Server(connection) => write(&mut **connection, what, rest, out, peer_closed),
            Connection::Client(connection) => write(&mut **connection, what, rest, out, peer_closed),
        }
    }
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
                collect_alert(connection, &mut records[consumed..], outgoing);
                return Err(fault::describe(&error));
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Write<'plain> {
    Data(&'plain [u8]),
    CloseNotify,
    KeyUpdate,
    /// What is queued already.
    Nothing,
}

fn write(
    connection: &mut impl Unbuffered,
    mut what: Write<'_>,
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
                    Write::KeyUpdate => {
                        // Queues the message, which the next round takes.
                        traffic.refresh_traffic_keys().map_err(|error| fault::describe(&error))?;
                        what = Write::Nothing;
                        continue;
                    }
                    Write::Nothing => return Ok(written),
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};

    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConnection, ConnectionTrafficSecrets, RootCertStore, ServerConnection};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::super::PROVIDER;
    use super::*;

    struct Configs {
        server: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
    }

    fn configs(version: &'static rustls::SupportedProtocolVersion) -> Configs {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let mut client = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        Configs { server: Arc::new(server), client: Arc::new(client) }
    }

    /// The session under test, with the buffers that its driver would keep.
    struct Ours {
        session: Session,
        inbox: Vec<u8>,
        received: Vec<u8>,
        wire: Vec<u8>,
    }

    impl Ours {
        fn new(session: Session) -> Self {
            let mut ours = Self { session, inbox: Vec::new(), received: Vec::new(), wire: Vec::new() };
            ours.receive(&[]);
            ours
        }

        fn receive(&mut self, bytes: &[u8]) {
            self.inbox.extend_from_slice(bytes);
            let consumed = self.session.feed(&mut self.inbox, &mut self.received, &mut self.wire).unwrap();
            self.inbox.drain(..consumed);
        }

        fn send(&mut self, plain: &[u8]) {
            let mut out = vec![0; sealed_len_max(plain.len())];
            let sealed = self.session.seal(plain, &mut self.inbox, &mut out).unwrap();
            self.wire.extend_from_slice(&out[..sealed]);
        }
    }

    /// The oracle: the same library's ordinary, buffered connection.
    struct Theirs {
        connection: rustls::Connection,
        received: Vec<u8>,
        wire: Vec<u8>,
    }

    impl Theirs {
        fn receive(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                self.connection.read_tls(&mut bytes).unwrap();
                self.connection.process_new_packets().unwrap();
                // WouldBlock is its way to say that there is no more.
                let _ = self.connection.reader().read_to_end(&mut self.received);
            }
            self.flush();
        }

        fn send(&mut self, mut plain: &[u8]) {
            while !plain.is_empty() {
                plain = &plain[self.connection.writer().write(plain).unwrap()..];
                self.flush();
            }
        }

        fn flush(&mut self) {
            while self.connection.wants_write() {
                self.connection.write_tls(&mut self.wire).unwrap();
            }
        }
    }

    fn pair(we_are_server: bool, version: &'static rustls::SupportedProtocolVersion) -> (Ours, Theirs) {
        let configs = configs(version);
        let name = || ServerName::try_from("localhost").unwrap();
        let (session, connection) = if we_are_server {
            let theirs = ClientConnection::new(configs.client, name()).unwrap();
            (Session::server(configs.server).unwrap(), theirs.into())
        } else {
            let theirs = ServerConnection::new(configs.server).unwrap();
            (Session::client(configs.client, name()).unwrap(), theirs.into())
        };
        let mut theirs = Theirs { connection, received: Vec::new(), wire: Vec::new() };
        theirs.flush();
        (Ours::new(session), theirs)
    }

    /// Carries what waits on both wires, in pieces of these sizes, until both are empty.
    fn carry(ours: &mut Ours, theirs: &mut Theirs, pieces: &[usize]) {
        let mut sizes = pieces.iter().copied().cycle();
        while !ours.wire.is_empty() || !theirs.wire.is_empty() {
            for piece in pieces_of(&std::mem::take(&mut ours.wire), &mut sizes) {
                theirs.receive(&piece);
            }
            for piece in pieces_of(&std::mem::take(&mut theirs.wire), &mut sizes) {
                ours.receive(&piece);
            }
        }
    }

    fn pieces_of(mut bytes: &[u8], sizes: &mut impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(sizes.next().unwrap().min(bytes.len()));
            pieces.push(piece.to_vec());
            bytes = rest;
        }
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_session_and_the_buffered_library_carry_the_same_stream(
            we_are_server: bool,
            tls13: bool,
            pieces in prop::collection::vec(1_usize..20_000, 1..8),
            sends in prop::collection::vec((any::<bool>(), 1_usize..50_000, any::<u8>()), 1..12),
        ) {
            let version = if tls13 { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
            let (mut ours, mut theirs) = pair(we_are_server, version);
            carry(&mut ours, &mut theirs, &pieces);
            prop_assert!(!ours.session.is_handshaking() && !theirs.connection.is_handshaking());
            prop_assert_eq!(ours.session.agreed().unwrap().version(), if tls13 { "TLSv1.3" } else { "TLSv1.2" });
            let (mut from_us, mut from_them) = (Vec::new(), Vec::new());
            for (by_us, length, fill) in sends {
                let plain: Vec<u8> = (0..length).map(|at| fill.wrapping_add(at.to_le_bytes()[0])).collect();
                if by_us {
                    ours.send(&plain);
                    from_us.extend(plain);
                } else {
                    theirs.send(&plain);
                    from_them.extend(plain);
                }
                if fill % 3 == 0 {
                    carry(&mut ours, &mut theirs, &pieces);
                }
            }
            ours.session.close(&mut ours.inbox, &mut ours.wire).unwrap();
            theirs.connection.send_close_notify();
            theirs.flush();
            carry(&mut ours, &mut theirs, &pieces);
            prop_assert!(ours.received == from_them && theirs.received == from_us);
            prop_assert!(ours.session.peer_closed());
            prop_assert!(ours.inbox.is_empty());
        }
    }

    #[test]
    fn a_record_that_was_altered_is_refused_with_an_alert() {
        let (mut ours, mut theirs) = pair(true, &rustls::version::TLS13);
        carry(&mut ours, &mut theirs, &[usize::MAX]);
        theirs.send(b"select 1");
        let last = theirs.wire.len() - 1;
        theirs.wire[last] ^= 1;
        let fault = ours.session.feed(&mut theirs.wire, &mut ours.received, &mut ours.wire).unwrap_err();
        assert_eq!(fault.kind, TlsFaultKind::BadRecord);
        assert!(ours.received.is_empty());
        assert!(!ours.wire.is_empty(), "the peer is told by an alert");
    }

    #[test]
    fn a_peers_key_update_is_honoured_and_answered() {
        let (mut ours, mut theirs) = pair(true, &rustls::version::TLS13);
        carry(&mut ours, &mut theirs, &[usize::MAX]);
        theirs.connection.refresh_traffic_keys().unwrap();
        theirs.send(b"with new keys");
        carry(&mut ours, &mut theirs, &[7]);
        ours.send(b"and back");
        carry(&mut ours, &mut theirs, &[7]);
        assert_eq!((&ours.received[..], &theirs.received[..]), (&b"with new keys"[..], &b"and back"[..]));
    }

    #[test]
    fn keys_are_refreshed_in_tls_1_3_and_the_stream_goes_on() {
        for (version, refreshed) in [(&rustls::version::TLS13, true), (&rustls::version::TLS12, false)] {
            let (mut ours, mut theirs) = pair(true, version);
            carry(&mut ours, &mut theirs, &[usize::MAX]);
            for round in 0..3 {
                let mut message = Vec::new();
                ours.session.refresh_keys(&mut ours.inbox, &mut message).unwrap();
                assert_eq!(!message.is_empty(), refreshed);
                ours.wire.extend(message);
                ours.send(b"under new keys");
                theirs.send(b"and back");
                carry(&mut ours, &mut theirs, &[5]);
                assert_eq!(theirs.received, b"under new keys".repeat(round + 1));
                assert_eq!(ours.received, b"and back".repeat(round + 1));
            }
        }
    }

    /// Ends the peer's connection and goes on with its keys: records as no library would send them.
    struct Forger {
        key: LessSafeKey,
        iv: [u8; 12],
        sequence: u64,
    }

    impl Forger {
        fn of(theirs: Theirs) -> Self {
            let rustls::Connection::Client(connection) = theirs.connection else { panic!("a client") };
            let (sequence, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
            let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("AES-256-GCM") };
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
            Self { key, iv: iv.as_ref().try_into().unwrap(), sequence }
        }

        /// One TLS 1.3 record (RFC 8446 section 5.2).
        fn record(&mut self, content_type: u8, payload: &[u8]) -> Vec<u8> {
            let mut inner = [payload, &[content_type]].concat();
            let length = u16::try_from(inner.len() + AES_256_GCM.tag_len()).unwrap();
            let header = [&[23, 3, 3][..], &length.to_be_bytes()].concat();
            let mut nonce = self.iv;
            for (byte, part) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
                *byte ^= part;
            }
            self.sequence += 1;
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut inner).unwrap();
            [header, inner].concat()
        }
    }

    const HANDSHAKE: u8 = 22;
    const APPLICATION_DATA: u8 = 23;

    fn forged() -> (Ours, Forger) {
        let (mut ours, mut theirs) = pair(true, &rustls::version::TLS13);
        carry(&mut ours, &mut theirs, &[usize::MAX]);
        (ours, Forger::of(theirs))
    }

    #[test]
    fn half_a_key_update_does_not_disturb_what_we_send() {
        let (mut ours, mut forger) = forged();
        let key_update = [24, 0, 0, 1, 0];
        ours.receive(&forger.record(HANDSHAKE, &key_update[..2]));
        assert!(!ours.inbox.is_empty(), "half a message is kept");
        ours.send(b"in between");
        ours.session.close(&mut ours.inbox, &mut ours.wire).unwrap();
        ours.receive(&forger.record(HANDSHAKE, &key_update[2..]));
        assert!(ours.inbox.is_empty());
    }

    #[test]
    fn ten_thousand_tiny_records_in_one_read_are_one_piece_of_plaintext() {
        let (mut ours, mut forger) = forged();
        let burst: Vec<u8> = (0..10_000).flat_map(|_| forger.record(APPLICATION_DATA, b"x")).collect();
        ours.receive(&burst);
        assert_eq!(ours.received, [b'x'; 10_000]);
    }

    #[test]
    fn empty_records_without_end_are_refused() {
        let (mut ours, mut forger) = forged();
        let mut burst: Vec<u8> = (0..100).flat_map(|_| forger.record(APPLICATION_DATA, b"")).collect();
        assert!(ours.session.feed(&mut burst, &mut ours.received, &mut ours.wire).is_err());
    }
}
