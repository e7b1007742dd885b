//! One TLS session over borrowed buffers: `feed` takes records in, `seal` puts records out.
//!
//! A session owns keys and state and no buffer. Whoever drives it decides how much is read at once and where
//! the bytes live. A [`Handshake`] is rustls; the [`Session`] that comes of it is our own record layer over
//! the keys that were agreed on in TLS 1.3, and rustls to the end in TLS 1.2.

use std::sync::Arc;

use rustls::{ClientConfig, Error, ProtocolVersion, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};

use super::library::{CONTROL_RECORDS, Library, Write};
use super::plaintext::Plaintext;
use super::records::{HEADER, Records};
use super::{Agreed, fault};
use crate::plan::outcome::TlsFault;

/// What a record adds to its plaintext at most: header, inner type, tag, and explicit nonce of TLS 1.2.
const RECORD_OVERHEAD: usize = 5 + 1 + 16 + 8;
/// Plaintext of one record at most (RFC 8446 section 5.1).
const RECORD_PLAINTEXT_MAX: usize = 16 * 1024;
/// A record in any version at most: TLS 1.2 allows for more expansion (RFC 5246 section 6.2.3).
const RECORD_MAX: usize = HEADER + RECORD_PLAINTEXT_MAX + 2048;

/// The room that `seal` needs for this many bytes of plaintext.
pub const fn sealed_len_max(plain: usize) -> usize {
    plain + (plain / RECORD_PLAINTEXT_MAX + 1) * RECORD_OVERHEAD + CONTROL_RECORDS
}

/// A session whose handshake is going on.
pub struct Handshake {
    library: Library,
    /// Bytes at the front of the input that the library has seen and is not done with.
    seen: usize,
    /// A client speaks first.
    speaks: bool,
}

impl Handshake {
    /// The server side of a handshake.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { library: Library::server(config)?, seen: 0, speaks: false })
    }

    /// The client side of a handshake, which begins with a `feed` of nothing.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self { library: Library::client(config, name)?, seen: 0, speaks: true })
    }

    /// Takes in the whole records at the front of `records` until the handshake is over, and returns how many
    /// bytes of it are done with; the rest must be presented again, at the front, unaltered, with more behind
    /// it. What is to be sent is appended to `outgoing`, also when the call fails: the alert must reach the peer.
    ///
    /// The library is shown one record after the other, so that it never sees what comes behind the handshake.
    pub fn feed(&mut self, records: &mut [u8], outgoing: &mut Vec<u8>) -> Result<usize, TlsFault> {
        let (mut consumed, mut plain) = (0, Plaintext::default());
        while self.is_going_on() {
            let unseen = &records[consumed + self.seen..];
            let length = match first_record(unseen) {
                None if self.speaks => 0,
                None => break,
                Some(length) => length,
            };
            self.speaks = false;
            let end = consumed + self.seen + length;
            consumed += self.library.feed(&mut records[consumed..end], &mut plain, outgoing, &mut false)?;
            self.seen = end - consumed;
        }
        Ok(consumed)
    }

    /// Whether the handshake is still going on.
    pub fn is_going_on(&self) -> bool {
        self.library.common().is_handshaking()
    }

    /// What the handshake settled; `None` before it has.
    pub fn agreed(&self) -> Option<Agreed> {
        let common = self.library.common();
        Some(Agreed {
            version: common.protocol_version()?,
            cipher: common.negotiated_cipher_suite()?.suite(),
            group: common.negotiated_key_exchange_group()?.name(),
        })
    }

    /// The certificates that the peer presented, leaf first; empty if it showed none.
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.library.common().peer_certificates().unwrap_or_default()
    }

    /// The session, once the handshake is over. It begins with the bytes that [`Handshake::feed`] left.
    pub fn into_session(self) -> Result<Session, TlsFault> {
        let is_tls13 = self.library.common().protocol_version() == Some(ProtocolVersion::TLSv1_3);
        // What the library is not done with, it must be shown again.
        if !is_tls13 || self.seen > 0 {
            return Ok(Session::Library { library: self.library, peer_closed: false });
        }
        let (secrets, keys) = self.library.into_keys().map_err(|error| fault::describe(&error))?;
        Ok(Session::Records(Box::new(Records::new(secrets, keys)?)))
    }
}

/// The length of the first record if it is whole, or of everything if that is no record: for the library
/// to say so.
fn first_record(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let end = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    let is_one = matches!(header[0], 20..=24) && header[1] == 3 && end <= RECORD_MAX;
    if !is_one {
        return Some(bytes.len());
    }
    (end <= bytes.len()).then_some(end)
}

/// One TLS session, of either side.
pub enum Session {
    /// Our own record layer.
    Records(Box<Records>),
    /// The library.
    Library {
        /// Its connection.
        library: Library,
        /// The peer will send nothing more.
        peer_closed: bool,
    },
}

impl Session {
    /// Processes the whole records at the front of `records`, in place, and returns how many bytes of
    /// it are done with; the rest must be presented again, at the front, unaltered, with more behind
    /// it. Plaintext is appended to `plain`; what the protocol itself has to say (KeyUpdate, alerts) to
    /// `outgoing`, also when the call fails: the alert must reach the peer.
    pub fn feed(
        &mut self,
        records: &mut [u8],
        plain: &mut Plaintext,
        outgoing: &mut Vec<u8>,
    ) -> Result<usize, TlsFault> {
        match self {
            Self::Records(session) => session.feed(records, plain, outgoing),
            Self::Library { library, peer_closed } => library.feed(records, plain, outgoing, peer_closed),
        }
    }

    /// Encrypts `plain` into records at the front of `out`, and says how many bytes that made. `out`
    /// must have room for [`sealed_len_max`] bytes. `rest` is what [`Session::feed`] left of its input:
    /// the library looks at it also when it writes.
    pub fn seal(&mut self, plain: &[u8], rest: &mut [u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        match self {
            Self::Records(session) => session.seal(plain, out),
            Self::Library { library, peer_closed } => {
                library.write(Write::Data(plain), rest, out, peer_closed)
            }
        }
    }

    /// Says that nothing more will be sent (RFC 8446 section 6.1). Appends the alert to `outgoing`;
    /// `rest` is what [`Session::feed`] left of its input.
    pub fn close(&mut self, rest: &mut [u8], outgoing: &mut Vec<u8>) -> Result<(), TlsFault> {
        match self {
            Self::Records(session) => session.close(outgoing),
            Self::Library { library, peer_closed } => {
                let mut out = [0; CONTROL_RECORDS];
                let written = library.write(Write::CloseNotify, rest, &mut out, peer_closed)?;
                outgoing.extend_from_slice(&out[..written]);
            }
        }
        Ok(())
    }

    /// Goes on with new keys, and asks the peer to do the same (RFC 8446 section 4.6.3). Appends the message
    /// to `outgoing`. TLS 1.2 has no such message.
    pub fn refresh_keys(&mut self, outgoing: &mut Vec<u8>) -> Result<(), TlsFault> {
        match self {
            Self::Records(session) => session.refresh_keys(outgoing),
            Self::Library { .. } => Ok(()),
        }
    }

    /// Whether the peer has said that it will send nothing more.
    pub fn peer_closed(&self) -> bool {
        match self {
            Self::Records(session) => session.peer_closed(),
            Self::Library { peer_closed, .. } => *peer_closed,
        }
    }
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
    use crate::plan::outcome::TlsFaultKind;

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
        let mut server = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        server.enable_secret_extraction = true;
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
        handshake: Option<Handshake>,
        session: Option<Session>,
        version: &'static str,
        inbox: Vec<u8>,
        received: Plaintext,
        wire: Vec<u8>,
    }

    impl Ours {
        fn new(handshake: Handshake) -> Self {
            let mut ours = Self {
                handshake: Some(handshake),
                session: None,
                version: "none",
                inbox: Vec::new(),
                received: Plaintext::default(),
                wire: Vec::new(),
            };
            ours.receive(&[]);
            ours
        }

        fn receive(&mut self, bytes: &[u8]) {
            self.try_receive(bytes).unwrap();
        }

        fn try_receive(&mut self, bytes: &[u8]) -> Result<(), TlsFault> {
            self.inbox.extend_from_slice(bytes);
            if let Some(mut handshake) = self.handshake.take() {
                let consumed = handshake.feed(&mut self.inbox, &mut self.wire)?;
                self.inbox.drain(..consumed);
                if handshake.is_going_on() {
                    self.handshake = Some(handshake);
                    return Ok(());
                }
                self.version = handshake.agreed().unwrap().version();
                self.session = Some(handshake.into_session()?);
            }
            let session = self.session.as_mut().unwrap();
            let consumed = session.feed(&mut self.inbox, &mut self.received, &mut self.wire)?;
            self.inbox.drain(..consumed);
            Ok(())
        }

        fn session(&mut self) -> &mut Session {
            self.session.as_mut().unwrap()
        }

        fn send(&mut self, plain: &[u8]) {
            let mut out = vec![0; sealed_len_max(plain.len())];
            let session = self.session.as_mut().unwrap();
            let sealed = session.seal(plain, &mut self.inbox, &mut out).unwrap();
            self.wire.extend_from_slice(&out[..sealed]);
        }

        fn close(&mut self) {
            self.session.as_mut().unwrap().close(&mut self.inbox, &mut self.wire).unwrap();
        }

        fn refresh_keys(&mut self) {
            self.session.as_mut().unwrap().refresh_keys(&mut self.wire).unwrap();
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
            (Handshake::server(configs.server).unwrap(), theirs.into())
        } else {
            let theirs = ServerConnection::new(configs.server).unwrap();
            (Handshake::client(configs.client, name()).unwrap(), theirs.into())
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
            prop_assert!(ours.session.is_some() && !theirs.connection.is_handshaking());
            prop_assert_eq!(ours.version, if tls13 { "TLSv1.3" } else { "TLSv1.2" });
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
            ours.close();
            theirs.connection.send_close_notify();
            theirs.flush();
            carry(&mut ours, &mut theirs, &pieces);
            prop_assert!(ours.received.as_slice() == from_them && theirs.received == from_us);
            prop_assert!(ours.session().peer_closed());
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
        let fault = ours.try_receive(&theirs.wire).unwrap_err();
        assert_eq!(fault.kind, TlsFaultKind::BadRecord);
        assert!(ours.received.as_slice().is_empty());
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
        assert_eq!(
            (ours.received.as_slice(), &theirs.received[..]),
            (&b"with new keys"[..], &b"and back"[..])
        );
    }

    #[test]
    fn keys_are_refreshed_in_tls_1_3_and_the_stream_goes_on() {
        for (version, refreshed) in [(&rustls::version::TLS13, true), (&rustls::version::TLS12, false)] {
            let (mut ours, mut theirs) = pair(true, version);
            carry(&mut ours, &mut theirs, &[usize::MAX]);
            for round in 0..3 {
                ours.refresh_keys();
                assert_eq!(!ours.wire.is_empty(), refreshed);
                ours.send(b"under new keys");
                theirs.send(b"and back");
                carry(&mut ours, &mut theirs, &[5]);
                assert_eq!(theirs.received, b"under new keys".repeat(round + 1));
                assert_eq!(ours.received.as_slice(), b"and back".repeat(round + 1));
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
        ours.send(b"in between");
        ours.close();
        ours.receive(&forger.record(HANDSHAKE, &key_update[2..]));
        assert!(ours.inbox.is_empty());
    }

    #[test]
    fn ten_thousand_tiny_records_in_one_read_are_one_piece_of_plaintext() {
        let (mut ours, mut forger) = forged();
        let burst: Vec<u8> = (0..10_000).flat_map(|_| forger.record(APPLICATION_DATA, b"x")).collect();
        ours.receive(&burst);
        assert_eq!(ours.received.as_slice(), [b'x'; 10_000]);
    }

    #[test]
    fn empty_records_without_end_are_refused() {
        let (mut ours, mut forger) = forged();
        let burst: Vec<u8> = (0..100).flat_map(|_| forger.record(APPLICATION_DATA, b"")).collect();
        assert!(ours.try_receive(&burst).is_err());
    }

    fn refused(content_type: u8, payload: &[u8]) -> (TlsFault, Vec<u8>) {
        let (mut ours, mut forger) = forged();
        let record = forger.record(content_type, payload);
        let fault = ours.try_receive(&record).unwrap_err();
        assert!(ours.received.as_slice().is_empty());
        (fault, ours.wire)
    }

    #[test]
    fn records_that_no_library_would_send_are_refused_with_an_alert() {
        let large = vec![7; 16 * 1024 + 1];
        for (content_type, payload) in [
            (HANDSHAKE, &b""[..]),
            (HANDSHAKE, &[1, 0, 0, 0]),
            (20, &[1]),
            (APPLICATION_DATA, &large),
            (0, &[0; 100]),
        ] {
            let (fault, wire) = refused(content_type, payload);
            assert!(!wire.is_empty(), "{content_type}: {fault:?}: the peer is told");
        }
        // An alert is not answered.
        let (fault, wire) = refused(21, &[2, 40]);
        assert_eq!((fault.kind, wire), (TlsFaultKind::AlertReceived, Vec::new()));
    }

    #[test]
    fn a_record_that_is_not_encrypted_is_refused_behind_the_handshake() {
        for plain in
            [&[21, 3, 3, 0, 2, 1, 0][..], &[20, 3, 3, 0, 1, 1], b"GET / HTTP/1.1", &[23, 3, 3, 0x41, 1]]
        {
            let (mut ours, _) = forged();
            assert!(ours.try_receive(plain).is_err(), "{plain:?}");
            assert!(!ours.session().peer_closed());
        }
    }

    #[test]
    fn what_comes_behind_close_notify_is_ignored_and_nothing_is_sent_behind_ours() {
        let (mut ours, mut forger) = forged();
        let alert = forger.record(21, &[1, 0]);
        ours.receive(&[&alert[..], b"anything"].concat());
        assert!(ours.session().peer_closed() && ours.inbox.is_empty());
        ours.close();
        let said = ours.wire.len();
        ours.close();
        ours.refresh_keys();
        assert_eq!(ours.wire.len(), said);
        assert!(ours.session().seal(b"late", &mut [], &mut [0; 512]).is_err());
    }

    #[test]
    fn key_updates_without_end_are_refused() {
        let (mut ours, mut theirs) = pair(true, &rustls::version::TLS13);
        carry(&mut ours, &mut theirs, &[usize::MAX]);
        let mut refused = false;
        for _ in 0..100 {
            theirs.connection.refresh_traffic_keys().unwrap();
            theirs.flush();
            refused |= ours.try_receive(&std::mem::take(&mut theirs.wire)).is_err();
        }
        assert!(refused);
    }

    /// The provider's suite, but its keys are used up after a handful of records.
    fn short_lived_keys() -> Arc<rustls::crypto::CryptoProvider> {
        let mut provider = rustls::crypto::CryptoProvider::clone(&PROVIDER);
        let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384.tls13().unwrap();
        let suite = Box::leak(Box::new(rustls::Tls13CipherSuite {
            common: rustls::crypto::CipherSuiteCommon {
                suite: suite.common.suite,
                hash_provider: suite.common.hash_provider,
                confidentiality_limit: 5,
            },
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: None,
        }));
        provider.cipher_suites = vec![rustls::SupportedCipherSuite::Tls13(suite)];
        Arc::new(provider)
    }

    #[test]
    fn keys_are_renewed_before_they_have_sealed_too_many_records() {
        let mut ours_are_short = configs(&rustls::version::TLS13);
        let server = ServerConfig::clone(&ours_are_short.server);
        let resolver = server.cert_resolver.clone();
        let mut server = ServerConfig::builder_with_provider(short_lived_keys())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        server.enable_secret_extraction = true;
        ours_are_short.server = Arc::new(server);
        let theirs =
            ClientConnection::new(ours_are_short.client.clone(), ServerName::try_from("localhost").unwrap());
        let mut theirs =
            Theirs { connection: theirs.unwrap().into(), received: Vec::new(), wire: Vec::new() };
        theirs.flush();
        let mut ours = Ours::new(Handshake::server(ours_are_short.server).unwrap());
        carry(&mut ours, &mut theirs, &[usize::MAX]);
        for _ in 0..30 {
            ours.send(b"row");
        }
        let records = ours.wire.len();
        carry(&mut ours, &mut theirs, &[usize::MAX]);
        assert_eq!(theirs.received, b"row".repeat(30));
        // Four rows a key, each of 25 bytes, and then a KeyUpdate of 27.
        assert_eq!(records, 30 * 25 + 7 * 27);
    }
}
