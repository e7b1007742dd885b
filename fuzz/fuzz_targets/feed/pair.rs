//! The session under test, driven as the program drives it, and a genuine peer for it: the same library's
//! buffered connection.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use twinlock::plan::limits::HANDSHAKE_BYTES_MAX;
use twinlock::plan::outcome::TlsFault;
use twinlock::tls::fault;
use twinlock::tls::plaintext::Plaintext;
use twinlock::tls::session::{Handshake, Session, sealed_len_max};

use crate::forger::{self, Forger};

/// What a session may say of its own accord: a certificate chain, tickets, a hello twice.
const FLIGHTS_BYTES_MAX: usize = 16 << 10;

/// New keys without data in between: an abuse from 32 on, which the library refuses.
const RENEWALS_MAX: usize = 16;

/// What kind of session it is, from the first byte of a script.
#[derive(Clone, Copy)]
pub struct Mode {
    pub stranger: bool,
    we_are_server: bool,
    tls13: bool,
    mutual: bool,
    /// The client's first guess of a group is not one of the server's (TLS 1.3 only).
    retry: bool,
}

impl From<u8> for Mode {
    fn from(bits: u8) -> Self {
        let bit = |index: u8| bits >> index & 1 == 1;
        Self { stranger: bit(0), we_are_server: bit(1), tls13: !bit(2), mutual: !bit(3), retry: bit(4) }
    }
}

/// The session under test, with the buffers that its driver would keep.
pub struct Ours {
    /// Until it is over.
    handshake: Option<Handshake>,
    session: Option<Session>,
    inbox: Vec<u8>,
    received: Plaintext,
    pub wire: Vec<u8>,
    pub sent: Vec<u8>,
    /// Why it has ended, if it has.
    pub fault: Option<TlsFault>,
    closed: bool,
    fed: usize,
    said: usize,
}

impl Ours {
    pub fn new(mode: Mode) -> Self {
        let handshake = if mode.we_are_server {
            Handshake::server(server_config(mode)).expect("a handshake")
        } else {
            Handshake::client(client_config(mode), name()).expect("a handshake")
        };
        let mut ours = Self {
            handshake: Some(handshake),
            session: None,
            inbox: Vec::new(),
            received: Plaintext::default(),
            wire: Vec::new(),
            sent: Vec::new(),
            fault: None,
            closed: false,
            fed: 0,
            said: 0,
        };
        ours.receive(&[]);
        ours
    }

    pub fn is_alive(&self) -> bool {
        self.fault.is_none() && !self.peer_closed()
    }

    pub fn peer_closed(&self) -> bool {
        self.session.as_ref().is_some_and(Session::peer_closed)
    }

    pub fn received(&self) -> &[u8] {
        self.received.as_slice()
    }

    pub fn kept(&self) -> usize {
        self.inbox.len()
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.is_alive() {
            return;
        }
        self.inbox.extend_from_slice(bytes);
        self.fed += bytes.len();
        let before = self.wire.len();
        if let Err(fault) = self.feed() {
            self.fault = Some(fault);
        }
        if self.inbox.len() > HANDSHAKE_BYTES_MAX {
            self.fault.get_or_insert_with(fault::too_large);
        }
        self.said += self.wire.len() - before;
        assert!(self.received().len() <= self.fed, "more plaintext than there was input");
        assert!(self.said <= FLIGHTS_BYTES_MAX + 2 * self.fed, "{} bytes said of {}", self.said, self.fed);
    }

    fn feed(&mut self) -> Result<(), TlsFault> {
        if let Some(mut handshake) = self.handshake.take() {
            let consumed = handshake.feed(&mut self.inbox, &mut self.wire)?;
            self.inbox.drain(..consumed);
            if handshake.is_going_on() {
                self.handshake = Some(handshake);
                return Ok(());
            }
            self.session = Some(handshake.into_session()?);
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let consumed = session.feed(&mut self.inbox, &mut self.received, &mut self.wire)?;
        self.inbox.drain(..consumed);
        Ok(())
    }

    pub fn send(&mut self, length: usize) {
        let Some(session) = self.session.as_mut().filter(|_| self.fault.is_none() && !self.closed) else {
            return;
        };
        let plain = pattern(self.sent.len(), length);
        let mut out = vec![0; sealed_len_max(plain.len())];
        let sealed = session.seal(&plain, &mut self.inbox, &mut out).expect("a healthy session seals");
        self.wire.extend_from_slice(&out[..sealed]);
        self.sent.extend(plain);
    }

    pub fn close(&mut self) {
        let healthy = self.fault.is_none() && !self.closed;
        if let Some(session) = self.session.as_mut().filter(|_| healthy) {
            session.close(&mut self.inbox, &mut self.wire).expect("a healthy session closes");
            self.closed = true;
        }
    }
}

/// The peer.
pub struct Theirs {
    mode: Mode,
    /// Taken when somebody goes on with its keys.
    connection: Option<Connection>,
    pub received: Vec<u8>,
    pub wire: Vec<u8>,
    sent: usize,
    closed: bool,
    /// Whether it has refused what we sent, alerts included.
    pub failed: bool,
    renewals: usize,
}

impl Theirs {
    /// Takes up to so many bytes off our wire. What we send somebody who has only its keys is lost.
    pub fn receive(&mut self, wire: &mut Vec<u8>, length: usize) {
        let length = length.min(wire.len());
        let bytes: Vec<u8> = wire.drain(..length).collect();
        let Some(connection) = self.connection.as_mut().filter(|_| !self.failed) else { return };
        let mut rest = &bytes[..];
        // It takes nothing behind a close_notify.
        while let Ok(1..) = connection.read_tls(&mut rest) {
            self.failed |= connection.process_new_packets().is_err();
            // WouldBlock is its way to say that there is no more.
            let _ = connection.reader().read_to_end(&mut self.received);
            if self.failed {
                break;
            }
        }
        self.flush();
    }

    /// Sends so many bytes, if it can; says which.
    pub fn send(&mut self, length: usize) -> Vec<u8> {
        let plain = pattern(self.sent, length);
        let Some(connection) = self.connection.as_mut().filter(|_| !self.closed) else { return Vec::new() };
        if connection.is_handshaking() || self.failed {
            return Vec::new();
        }
        let written = connection.writer().write(&plain).expect("room for it");
        self.sent += written;
        if written > 0 {
            self.renewals = 0;
        }
        self.flush();
        plain[..written].to_vec()
    }

    pub fn renew_keys(&mut self) {
        let allowed = !self.closed && self.renewals < RENEWALS_MAX;
        let Some(connection) = self.connection.as_mut().filter(|_| allowed) else { return };
        self.renewals += 1;
        // Refused in TLS 1.2 and during the handshake.
        let _ = connection.refresh_traffic_keys();
        self.flush();
    }

    pub fn close(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if !connection.is_handshaking() && !self.closed {
            connection.send_close_notify();
            self.closed = true;
            self.flush();
        }
    }

    pub fn has_closed(&self) -> bool {
        self.closed
    }

    pub fn is_server(&self) -> bool {
        !self.mode.we_are_server
    }

    /// Ends the connection for somebody who goes on with its keys, which TLS 1.3 has.
    pub fn take_keys(&mut self) -> Option<Forger> {
        let handshaking = self.connection.as_ref().is_none_or(|connection| connection.is_handshaking());
        if !self.mode.tls13 || handshaking {
            return None;
        }
        self.connection = None;
        Forger::of_application_data(self.is_server())
    }

    fn flush(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        while connection.wants_write() {
            connection.write_tls(&mut self.wire).expect("into memory");
        }
    }
}

/// Both ends of a session, before its handshake.
pub fn pair(mode: Mode) -> (Ours, Theirs) {
    forger::forget_secrets();
    let connection = if mode.we_are_server {
        ClientConnection::new(client_config(mode), name()).expect("a session").into()
    } else {
        ServerConnection::new(server_config(mode)).expect("a session").into()
    };
    let mut theirs = Theirs {
        mode,
        connection: Some(connection),
        received: Vec::new(),
        wire: Vec::new(),
        sent: 0,
        closed: false,
        failed: false,
        renewals: 0,
    };
    theirs.flush();
    (Ours::new(mode), theirs)
}

/// So many bytes of a pattern that says where in it they are.
fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|at| (at % 251) as u8).collect()
}

fn name() -> ServerName<'static> {
    ServerName::try_from("server.example").expect("a name")
}

/// One root, and a certificate for each side.
struct Identities {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

static IDENTITIES: LazyLock<Identities> = LazyLock::new(|| {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().expect("a key");
    let root_certificate = root.self_signed(&root_key).expect("a root");
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["server.example".into()]).expect("a name");
    let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(root_certificate.der().clone()).expect("a root");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Identities { roots: Arc::new(roots), chain: vec![certificate.der().clone()], key }
});

/// One suite a version, so that whoever has the secrets knows what they are for.
fn provider(groups: &[&'static dyn rustls::crypto::SupportedKxGroup]) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites =
        vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384];
    provider.kx_groups = groups.to_vec();
    Arc::new(provider)
}

const ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn versions(mode: Mode) -> &'static [&'static SupportedProtocolVersion] {
    if mode.tls13 { ONLY_1_3 } else { ONLY_1_2 }
}

fn server_config(mode: Mode) -> Arc<ServerConfig> {
    let provider = provider(&[kx_group::X25519]);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(mode))
        .expect("versions");
    let roots = IDENTITIES.roots.clone();
    let builder = if mode.mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        builder.with_client_cert_verifier(verifier.expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = (IDENTITIES.chain.clone(), IDENTITIES.key.clone_key());
    let mut config = builder.with_single_cert(chain, key).expect("an identity");
    config.key_log = Arc::new(forger::Secrets);
    config.enable_secret_extraction = true;
    Arc::new(config)
}

fn client_config(mode: Mode) -> Arc<ClientConfig> {
    let groups: &[&dyn rustls::crypto::SupportedKxGroup] =
        if mode.retry { &[kx_group::SECP256R1, kx_group::X25519] } else { &[kx_group::X25519] };
    let provider = provider(groups);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(IDENTITIES.roots.clone(), provider.clone()).build();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(mode))
        .expect("versions")
        .with_webpki_verifier(verifier.expect("a verifier"));
    let (chain, key) = (IDENTITIES.chain.clone(), IDENTITIES.key.clone_key());
    let mut config = builder.with_client_auth_cert(chain, key).expect("an identity");
    config.key_log = Arc::new(forger::Secrets);
    config.enable_secret_extraction = true;
    Arc::new(config)
}
