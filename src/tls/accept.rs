//! The server side: read the ClientHello, let the plan pick a row by its SNI, shake hands.
//!
//! A server configuration is made once per credential generation and shared by every connection of it.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureAlgorithm};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::exporter::SessionIds;
use super::generation::{Current, PerGeneration};
use super::handshake::{self, Established, Failure, HandshakeError};
use super::session::Handshake;
use super::standing::{Verdict, Verify};
use super::verify::ClientVerifier;
use super::{fault, policy};
use crate::credentials::bundle::Credential;
use crate::credentials::store::Store;
use crate::plan::limits::HANDSHAKE_BYTES_MAX;
use crate::plan::{Accept, ClientCertificate, Plan};

/// A fatal alert before there are keys: `unrecognized_name` (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// A fatal `decode_error`, for a ClientHello without end.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
/// A fatal `protocol_version`, for a client of TLS 1.1 or older.
const PROTOCOL_VERSION: [u8; 7] = [21, 3, 3, 0, 2, 2, 70];
/// A fatal `internal_error`, for a listener whose credential is not there.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// The first byte of TLS, whatever its version (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The TLS terminations of a plan, each with the configuration of its credential's generation.
pub struct Terminations {
    /// By the address of the part of the plan that each is for, which it keeps alive.
    entries: HashMap<usize, Arc<Termination>>,
}

struct Termination {
    accept: Arc<Accept>,
    configs: PerGeneration<Configs>,
}

impl Termination {
    fn configs(&self) -> Result<Arc<Configs>, Failure> {
        self.configs.get(|current| Configs::new(&self.accept, current))
    }
}

impl Verify for Termination {
    fn generation(&self) -> u64 {
        self.configs.current()
    }

    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Verdict> {
        let (configs, (leaf, rest)) = (self.configs().ok()?, chain.split_first()?);
        Some(Verdict { generation: configs.generation, until: configs.verifier.judge(leaf, rest, now) })
    }
}

/// One configuration for each protocol that can be agreed on, and one for none: rustls fails a handshake
/// without a protocol in common, where a mesh goes on without one.
struct Configs {
    generation: u64,
    verifier: Arc<ClientVerifier>,
    without_protocol: Arc<ServerConfig>,
    by_protocol: Vec<(&'static str, Arc<ServerConfig>)>,
}

impl Configs {
    fn new(accept: &Accept, current: &Current) -> Result<Self, Failure> {
        // The one that is there for its CA alone is the last.
        let (apart, alternatives) = if accept.ca == accept.credential {
            (None, current.others.as_slice())
        } else {
            current.others.split_last().map_or((None, &[][..]), |(ca, rest)| (Some(ca), rest))
        };
        let trust = apart.unwrap_or(&current.first).trust.clone();
        let verifier = Arc::new(ClientVerifier::new(trust, accept));
        let shown = std::iter::once(&current.first).chain(alternatives);
        let config = server_config(accept, Keys::of(shown)?, verifier.clone())?;
        let with = |protocol: &&'static str| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            (*protocol, Arc::new(config))
        };
        let by_protocol = accept.alpn.iter().map(with).collect();
        Ok(Self { generation: current.generation, verifier, without_protocol: Arc::new(config), by_protocol })
    }

    fn of(&self, hello: &Hello) -> Arc<ServerConfig> {
        let offered = |protocol: &str| hello.alpn.iter().any(|offer| offer == protocol.as_bytes());
        let agreed = self.by_protocol.iter().find(|(protocol, _)| offered(protocol));
        agreed.map_or(&self.without_protocol, |(_, config)| config).clone()
    }
}

/// What a client asked for in its ClientHello, and the bytes it was read from.
pub struct Hello {
    /// The SNI, as sent.
    pub sni: Option<String>,
    /// The protocols offered (RFC 7301).
    alpn: Vec<Vec<u8>>,
    inbox: Vec<u8>,
}

/// What a peer begins with, where it need not be TLS.
pub enum First {
    /// A ClientHello.
    Tls(Hello),
    /// Anything else, as far as it was read.
    Other(Vec<u8>),
}

/// The protocols by which the proxies of a mesh know each other.
const MESH: &[&str] = &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

impl Hello {
    /// Whether the client is a proxy of the mesh, by what it offers.
    pub fn is_of_the_mesh(&self) -> bool {
        self.alpn.iter().any(|offered| MESH.iter().any(|known| known.as_bytes() == offered))
    }

    /// The bytes as they were read, to be passed through.
    pub fn into_bytes(self) -> Vec<u8> {
        self.inbox
    }
}

impl Terminations {
    /// Prepares every termination of the plan.
    pub fn new(plan: &Plan, store: &Store) -> Self {
        let entries = plan.accepts().map(|accept| {
            let apart = Some(&accept.ca).filter(|ca| **ca != accept.credential);
            let others = accept.alternatives.iter().chain(apart);
            let configs = PerGeneration::new(store, &accept.credential, others);
            (address(accept), Arc::new(Termination { accept: accept.clone(), configs }))
        });
        Self { entries: entries.collect() }
    }

    /// What verifies the clients of a termination; `None` if the plan has no such one.
    pub(crate) fn verifier(&self, accept: &Arc<Accept>) -> Option<Arc<dyn Verify>> {
        Some(self.entries.get(&address(accept))?.clone())
    }

    fn entry(&self, accept: &Arc<Accept>) -> Result<(&Arc<Termination>, Arc<Configs>), Failure> {
        let entry = self.entries.get(&address(accept));
        let entry = entry.ok_or_else(|| Failure::NoCredential("the plan has no such termination".into()))?;
        Ok((entry, entry.configs()?))
    }
}

/// What tells the parts of a plan apart, as long as they live.
fn address(accept: &Arc<Accept>) -> usize {
    Arc::as_ptr(accept).addr()
}

/// Reads until the ClientHello is whole, however it is split, and answers bytes that are none.
pub async fn hello(stream: &TcpStream, deadline: Instant) -> Result<Hello, Failure> {
    hello_behind(Vec::new(), stream, deadline).await
}

/// Reads until it is plain whether this is TLS: it is if the first byte is that of a handshake record. Of
/// TLS the whole ClientHello is read.
pub async fn first_bytes(stream: &TcpStream, deadline: Instant) -> Result<First, Failure> {
    let mut read = Vec::new();
    let arrived = timeout_at(deadline, handshake::read_more(stream, &mut read)).await;
    match (arrived.unwrap_or(Err(Failure::Timeout))?, read.first()) {
        (0, _) => Err(Failure::NoHello),
        (_, Some(&HANDSHAKE_RECORD)) => hello_behind(read, stream, deadline).await.map(First::Tls),
        (_, _) => Ok(First::Other(read)),
    }
}

async fn hello_behind(mut inbox: Vec<u8>, stream: &TcpStream, deadline: Instant) -> Result<Hello, Failure> {
    let mut acceptor = Acceptor::default();
    let whole = async {
        if let Some(asked) = inspect(&mut acceptor, &inbox, 0, stream).await? {
            return Ok(asked);
        }
        loop {
            let start = inbox.len();
            if handshake::read_more(stream, &mut inbox).await? == 0 {
                let closed = Failure::Tls(fault::closed_in_handshake());
                return Err(if start == 0 { Failure::NoHello } else { closed });
            }
            if let Some(asked) = inspect(&mut acceptor, &inbox, start, stream).await? {
                return Ok(asked);
            }
            if inbox.len() > HANDSHAKE_BYTES_MAX {
                handshake::refuse(stream, &DECODE_ERROR).await;
                return Err(Failure::Tls(fault::too_large()));
            }
        }
    };
    let Asked { sni, alpn } = timeout_at(deadline, whole).await.unwrap_or(Err(Failure::Timeout))?;
    Ok(Hello { sni, alpn, inbox })
}

/// What of a ClientHello counts before the handshake.
struct Asked {
    sni: Option<String>,
    alpn: Vec<Vec<u8>>,
}

impl Asked {
    fn of(hello: &ClientHello<'_>) -> Self {
        let alpn = hello.alpn().map(|offered| offered.map(<[u8]>::to_vec).collect());
        Self { sni: hello.server_name().map(str::to_owned), alpn: alpn.unwrap_or_default() }
    }
}

/// What is asked for, once the ClientHello is whole; `new` is where in `inbox` the latest bytes begin.
async fn inspect(
    acceptor: &mut Acceptor,
    inbox: &[u8],
    new: usize,
    stream: &TcpStream,
) -> Result<Option<Asked>, Failure> {
    let mut bytes = &inbox[new..];
    while !bytes.is_empty() {
        // The acceptor takes at most 4 KiB at a time.
        if acceptor.read_tls(&mut bytes).is_err() {
            // From a slice it fails only when its buffer is full, which is larger than any ClientHello.
            handshake::refuse(stream, &DECODE_ERROR).await;
            return Err(Failure::Tls(fault::too_large()));
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some(Asked::of(&accepted.client_hello()))),
            Ok(None) => {}
            Err((error, mut alert)) => {
                // The library may find something else amiss first, which an old version has no need of.
                if let Some(fault) = fault::old_version(inbox) {
                    handshake::refuse(stream, &PROTOCOL_VERSION).await;
                    return Err(Failure::Tls(fault));
                }
                let mut outgoing = Vec::new();
                alert.write_all(&mut outgoing).map_err(Failure::Io)?;
                handshake::refuse(stream, &outgoing).await;
                return Err(Failure::Tls(fault::describe(&error)));
            }
        }
    }
    Ok(None)
}

/// Shakes hands with the client that sent this ClientHello.
pub async fn accept(
    terminations: &Terminations,
    accept: &Arc<Accept>,
    hello: Hello,
    stream: &TcpStream,
    deadline: Instant,
) -> Result<Established, HandshakeError> {
    if let Some(fault) = fault::old_version(&hello.inbox) {
        handshake::refuse(stream, &PROTOCOL_VERSION).await;
        return Err(Failure::Tls(fault).into());
    }
    let (entry, configs) = match terminations.entry(accept) {
        Ok(found) => found,
        Err(failure) => {
            handshake::refuse(stream, &INTERNAL_ERROR).await;
            return Err(failure.into());
        }
    };
    let handshake = Handshake::server(configs.of(&hello));
    let handshake = handshake.map_err(|error| Failure::Tls(fault::describe(&error)))?;
    let mut established = handshake::run(handshake, stream, hello.inbox, deadline).await?;
    established.voucher = Some(established.vouched_by(entry.clone(), configs.generation));
    Ok(established)
}

/// Tells a client that no row of the listener answers to its SNI.
pub async fn refuse_name(stream: &TcpStream) {
    handshake::refuse(stream, &UNRECOGNIZED_NAME).await;
}

fn server_config(
    accept: &Accept,
    keys: Keys,
    verifier: Arc<ClientVerifier>,
) -> Result<ServerConfig, Failure> {
    let builder = ServerConfig::builder_with_provider(policy::provider(&accept.tls))
        .with_protocol_versions(&policy::versions(&accept.tls))
        .map_err(|error| Failure::NoCredential(error.to_string()))?;
    let builder = match accept.client {
        ClientCertificate::Required | ClientCertificate::Optional => {
            builder.with_client_cert_verifier(verifier)
        }
        ClientCertificate::NotAsked => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(keys));
    // Ciphers that an operator lists are in the operator's order.
    config.ignore_client_order = !accept.tls.ciphers.is_empty();
    // A resumed session repeats no check of the client, so there is none.
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true; // for the record layer of ours
    config.key_log = Arc::new(SessionIds);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The certificates of one server, those that cost least first: the SNI was judged before.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl Keys {
    fn of<'shown>(shown: impl Iterator<Item = &'shown Arc<Credential>>) -> Result<Self, Failure> {
        let missing = || Failure::NoCredential("it holds no certificate".into());
        let keys = shown.map(|credential| credential.certified_key.clone().ok_or_else(missing));
        let mut keys = keys.collect::<Result<Vec<_>, _>>()?;
        keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        Ok(Self(keys))
    }
}

impl ResolvesServerCert for Keys {
    /// The first whose signatures the client knows; a client that knows none is told so by the handshake.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(known).or(self.0.first()).cloned()
    }
}
