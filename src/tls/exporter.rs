//! A name for a session that both of its ends compute and nobody else can, with nothing added to the wire.
//!
//! In TLS 1.3 it is an exported value (RFC 8446 section 7.5) under a label of our own. TLS 1.2 has a secret that
//! serves as well, and no exporter that this library hands out here. rustls tells secrets to whoever logs
//! keys: what is kept of one is the name, and the secret itself for no longer than the call.

use std::cell::Cell;
use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use aws_lc_rs::hkdf::{Algorithm, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use rustls::KeyLog;

/// What the exporter is asked for.
const LABEL: &[u8] = b"EXPORTER-twinlock-session-id";

/// rustls' names of the secrets (the NSS key log format).
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";
const MASTER_SECRET: &str = "CLIENT_RANDOM";

/// The name of a session: the same at both ends, and different for every session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

thread_local! {
    /// Of the handshake that this thread is driving: from one `feed` to the `take` after it.
    static ID: Cell<Option<SessionId>> = const { Cell::new(None) };
}

/// Takes the name of the session whose secrets this thread has agreed on since the last call.
pub(crate) fn take() -> Option<SessionId> {
    ID.take()
}

/// Hears of the secret that names a session, and logs none.
#[derive(Debug)]
pub(crate) struct SessionIds;

impl KeyLog for SessionIds {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let id = match label {
            EXPORTER_SECRET => exported(secret),
            MASTER_SECRET => Some(of_tls12(secret, client_random)),
            _ => return,
        };
        ID.set(id);
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, EXPORTER_SECRET | MASTER_SECRET)
    }
}

/// HKDF-Expand-Label(Derive-Secret(secret, label, ""), "exporter", Hash(""), 16).
fn exported(secret: &[u8]) -> Option<SessionId> {
    let (algorithm, hash) = match secret.len() {
        32 => (HKDF_SHA256, &SHA256),
        48 => (HKDF_SHA384, &SHA384),
        _ => return None,
    };
    let empty = digest(hash, &[]);
    let mut derived = [0; 48];
    let derived = &mut derived[..secret.len()];
    expand(algorithm, secret, LABEL, empty.as_ref(), derived)?;
    let mut id = [0; 16];
    expand(algorithm, derived, b"exporter", empty.as_ref(), &mut id)?;
    Some(SessionId(id))
}

/// The master secret of TLS 1.2 is of this session alone, because sessions are not resumed; so is this.
fn of_tls12(secret: &[u8], client_random: &[u8]) -> SessionId {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, secret));
    context.update(LABEL);
    context.update(client_random);
    let mut id = [0; 16];
    id.copy_from_slice(&context.sign().as_ref()[..16]);
    SessionId(id)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label (RFC 8446 section 7.1).
fn expand(algorithm: Algorithm, secret: &[u8], label: &[u8], context: &[u8], out: &mut [u8]) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let [label_length, context_length] = [PREFIX.len() + label.len(), context.len()].map(u8::try_from);
    let (label_length, context_length) = ([label_length.ok()?], [context_length.ok()?]);
    let info = [&length[..], &label_length, PREFIX, label, &context_length, context];
    let key = Prk::new_less_safe(algorithm, secret);
    key.expand(&info, Length(out.len())).and_then(|key| key.fill(out)).ok()
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

    use super::super::PROVIDER;
    use super::*;

    /// The names that both ends give a session, and what the library itself exports.
    fn shake_hands(version: &'static SupportedProtocolVersion, suites: &[SupportedCipherSuite]) -> Names {
        let mut provider = rustls::crypto::CryptoProvider::clone(&PROVIDER);
        if !suites.is_empty() {
            provider.cipher_suites = suites.to_vec();
        }
        let provider = Arc::new(provider);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(leaf.der().clone()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let mut server = server.with_single_cert(vec![leaf.der().clone()], key).unwrap();
        server.key_log = Arc::new(SessionIds);
        let client =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.key_log = Arc::new(SessionIds);
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let (mut of_client, mut of_server) = (None, None);
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().unwrap();
            of_server = take().or(of_server);
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets().unwrap();
            of_client = take().or(of_client);
        }
        let library = client.export_keying_material([0; 16], LABEL, None).ok().map(SessionId);
        Names { of_client, of_server, library }
    }

    struct Names {
        of_client: Option<SessionId>,
        of_server: Option<SessionId>,
        library: Option<SessionId>,
    }

    #[test]
    fn both_ends_have_the_name_that_the_library_exports() {
        for suite in [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384] {
            let names = shake_hands(&TLS13, &[suite]);
            assert!(names.library.is_some());
            assert_eq!([names.of_client, names.of_server], [names.library; 2], "{suite:?}");
        }
    }

    #[test]
    fn in_tls_1_2_both_ends_agree_too_and_no_two_sessions_do() {
        let [one, other] = [(); 2].map(|()| shake_hands(&TLS12, &[]));
        assert!(one.of_client.is_some());
        assert_eq!(one.of_client, one.of_server);
        assert_ne!(one.of_client, other.of_client);
    }
}
