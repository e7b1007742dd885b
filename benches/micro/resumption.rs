//! What resumption would save: handshakes of rustls alone, in memory, mutual, with P-256 keys, in full, resumed by
//! a ticket of TLS 1.3, and resumed with the chains of both sides verified again.
//!
//! The gateway resumes nothing (see benches/README.md); these are the figures that were weighed.

use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use rustix::time::{ClockId, clock_gettime};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{self, Ticketer, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tempfile::TempDir;
use twinlock::clock;
use twinlock::dev_certs::{self, KeyKind, Request};

const HOST: &str = "mysql.fqdn.example";

/// Both sides of one kind of handshake, each a benchmark of processor time.
pub fn resumption(criterion: &mut Criterion) {
    let certs = mint();
    let mut group = criterion.benchmark_group("handshake by rustls alone, both sides");
    for kx in [kx_group::X25519, kx_group::X25519MLKEM768] {
        for way in [Way::Full, Way::Resumed, Way::ResumedAndVerified] {
            let pair = Pair::new(&certs, kx, way);
            // Leaves a ticket behind, if there are any.
            pair.shake_hands();
            group.bench_function(format!("{:?} {way:?}", kx.name()), |bencher| {
                bencher.iter_custom(|rounds| {
                    let before = processor_time();
                    (0..rounds).for_each(|_| assert_eq!(pair.shake_hands(), Some(way.kind())));
                    processor_time().saturating_sub(before)
                });
            });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Full,
    Resumed,
    ResumedAndVerified,
}

impl Way {
    fn kind(self) -> HandshakeKind {
        match self {
            Self::Full => HandshakeKind::Full,
            Self::Resumed | Self::ResumedAndVerified => HandshakeKind::Resumed,
        }
    }
}

struct Pair {
    way: Way,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl Pair {
    fn new(certs: &TempDir, kx: &'static dyn SupportedKxGroup, way: Way) -> Self {
        let mut provider = CryptoProvider::clone(&aws_lc_rs::default_provider());
        provider.kx_groups = vec![kx];
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(certs.path().join("ca.crt")).expect("a root");
        roots.add(root).expect("a root");
        let roots = Arc::new(roots);
        let identity = |side: &str| {
            let file = |name: &str| certs.path().join(side).join(name);
            let leaf = CertificateDer::from_pem_file(file("tls.crt")).expect("a leaf");
            (vec![leaf], PrivateKeyDer::from_pem_file(file("tls.key")).expect("a key"))
        };
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let clients = clients.build().expect("a verifier");
        let (chain, key) = identity("ingress");
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(chain, key)
            .expect("an identity");
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let servers = servers.build().expect("a verifier");
        let (chain, key) = identity("egress");
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_webpki_verifier(servers.clone())
            .with_client_auth_cert(chain, key)
            .expect("an identity");
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if way.kind() == HandshakeKind::Resumed {
            server.ticketer = Ticketer::new().expect("a ticketer");
            server.send_tls13_tickets = 1;
        } else {
            server.send_tls13_tickets = 0;
            client.resumption = Resumption::disabled();
        }
        Self { way, client: Arc::new(client), server: Arc::new(server), clients, servers }
    }

    /// One handshake, up to the ticket for the next; of which kind it was.
    fn shake_hands(&self) -> Option<HandshakeKind> {
        let name = ServerName::try_from(HOST).expect("a name");
        let mut client = ClientConnection::new(self.client.clone(), name).expect("a client");
        let mut server = ServerConnection::new(self.server.clone()).expect("a server");
        let mut wire = Vec::with_capacity(8 * 1024);
        while client.wants_write() || server.wants_write() {
            carry(|wire| client.write_tls(wire), &mut wire);
            server.read_tls(&mut wire.as_slice()).expect("read");
            server.process_new_packets().expect("a client that is let in");
            carry(|wire| server.write_tls(wire), &mut wire);
            client.read_tls(&mut wire.as_slice()).expect("read");
            client.process_new_packets().expect("a server that is let in");
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        if self.way == Way::ResumedAndVerified {
            self.verify(client.peer_certificates(), server.peer_certificates());
        }
        server.handshake_kind()
    }

    /// Verifies the chains that came with a ticket as if they had just been shown.
    fn verify(&self, of_server: Option<&[CertificateDer<'_>]>, of_client: Option<&[CertificateDer<'_>]>) {
        let now = UnixTime::now();
        let name = ServerName::try_from(HOST).expect("a name");
        let (leaf, chain) = of_server.and_then(<[_]>::split_first).expect("a chain");
        self.servers.verify_server_cert(leaf, chain, &name, &[], now).expect("a good server");
        let (leaf, chain) = of_client.and_then(<[_]>::split_first).expect("a chain");
        self.clients.verify_client_cert(leaf, chain, now).expect("a good client");
    }
}

/// Puts all that a side has to say on the wire, in place of what is there.
fn carry(mut write: impl FnMut(&mut Vec<u8>) -> std::io::Result<usize>, wire: &mut Vec<u8>) {
    wire.clear();
    while write(wire).expect("written") > 0 {}
}

fn mint() -> TempDir {
    let certs = tempfile::tempdir().expect("a directory");
    let request = Request {
        out: certs.path().to_owned(),
        hosts: vec![HOST.into()],
        clients: vec!["egress.example".into()],
        key: KeyKind::EcdsaP256,
        days: 1,
    };
    dev_certs::mint(&request, clock::wall()).expect("certificates");
    certs
}

/// What this thread has had of a processor.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    let part = |part: i64| u64::try_from(part).expect("no time before its beginning");
    Duration::from_secs(part(spent.tv_sec)) + Duration::from_nanos(part(spent.tv_nsec))
}
