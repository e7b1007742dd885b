//! The server side: read the ClientHello, let the plan pick a row by its SNI, shake hands.
//!
//! A server configuration is made once per credential generation and shared by every connection of it.

use std::sync::Arc;

use rustls::server::{Acceptor, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, server};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::generation::PerGeneration;
use super::handshake::{self, Established, Failure, HandshakeError};
use super::session::Session;
use super::verify::{Chain, ClientVerifier};
use super::{fault, policy};
use crate::credentials::bundle::Credential;
use crate::credentials::store::Store;
use crate::plan::limits::HANDSHAKE_BYTES_MAX;
use crate::plan::{Accept, Plan};

/// A fatal alert before there are keys: `unrecognized_name` (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// A fatal `decode_error`, for a ClientHello without end.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
/// A fatal `internal_error`, for a listener whose credential is not there.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// The TLS terminations of a plan, each with the configuration of its credential's generation.
pub struct Terminations {
    entries: Vec<Termination>,
}

struct Termination {
    accept: Arc<Accept>,
    config: PerGeneration<ServerConfig>,
}

/// What a client asked for in its ClientHello, and the bytes it was read from.
pub struct Hello {
    /// The SNI, as sent.
    pub sni: Option<String>,
    inbox: Vec<u8>,
}

impl Terminations {
    /// Prepares every termination of the plan.
    pub fn new(plan: &Plan, store: &Store) -> Self {
        let entries = plan.accepts().map(|accept| Termination {
            accept: accept.clone(),
            config: PerGeneration::new(store, &accept.credential),
        });
        Self { entries: entries.collect() }
    }

    fn config(&self, accept: &Arc<Accept>) -> Result<Arc<ServerConfig>, Failure> {
        let entry = self.entries.iter().find(|entry| Arc::ptr_eq(&entry.accept, accept));
        let unprepared = || Failure::NoCredential("the plan has no such termination".into());
        entry.ok_or_else(unprepared)?.config.get(|credential| server_config(accept, credential))
    }
}

/// Reads until the ClientHello is whole, however it is split, and answers bytes that are none.
pub async fn hello(stream: &TcpStream, deadline: Instant) -> Result<Hello, Failure> {
    let mut inbox = Vec::new();
    let mut acceptor = Acceptor::default();
    let whole = async {
        loop {
            let start = inbox.len();
            if handshake::read_more(stream, &mut inbox).await? == 0 {
                let closed = Failure::Tls(fault::closed_in_handshake());
                return Err(if start == 0 { Failure::NoHello } else { closed });
            }
            if let Some(sni) = inspect(&mut acceptor, &inbox[start..], stream).await? {
                return Ok(sni);
            }
            if inbox.len() > HANDSHAKE_BYTES_MAX {
                handshake::refuse(stream, &DECODE_ERROR).await;
                return Err(Failure::Tls(fault::too_large()));
            }
        }
    };
    let sni = timeout_at(deadline, whole).await.unwrap_or(Err(Failure::Timeout))?;
    Ok(Hello { sni, inbox })
}

/// The SNI, once the ClientHello is whole.
async fn inspect(
    acceptor: &mut Acceptor,
    mut bytes: &[u8],
    stream: &TcpStream,
) -> Result<Option<Option<String>>, Failure> {
    while !bytes.is_empty() {
        // The acceptor takes at most 4 KiB at a time.
        if acceptor.read_tls(&mut bytes).is_err() {
            // From a slice it fails only when its buffer is full, which is larger than any ClientHello.
            handshake::refuse(stream, &DECODE_ERROR).await;
            return Err(Failure::Tls(fault::too_large()));
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some(accepted.client_hello().server_name().map(str::to_owned))),
            Ok(None) => {}
            Err((error, mut alert)) => {
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
    let config = match terminations.config(accept) {
        Ok(config) => config,
        Err(failure) => {
            handshake::refuse(stream, &INTERNAL_ERROR).await;
            return Err(failure.into());
        }
    };
    let session = Session::server(config).map_err(|error| Failure::Tls(fault::describe(&error)))?;
    handshake::run(session, stream, hello.inbox, deadline).await
}

/// Tells a client that no row of the listener answers to its SNI.
pub async fn refuse_name(stream: &TcpStream) {
    handshake::refuse(stream, &UNRECOGNIZED_NAME).await;
}

fn server_config(accept: &Accept, credential: &Credential) -> Result<ServerConfig, Failure> {
    let chain = Chain::new(credential.anchors.clone());
    let verifier = ClientVerifier::new(chain, accept.client_names.clone());
    let mut config = ServerConfig::builder_with_provider(policy::provider(&accept.tls))
        .with_protocol_versions(&policy::versions(&accept.tls))
        .map_err(|error| Failure::NoCredential(error.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(OneKey(credential.certified_key.clone())));
    // Ciphers that an operator lists are in the operator's order.
    config.ignore_client_order = !accept.tls.ciphers.is_empty();
    // A resumed session repeats no check of the client, so there is none.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The certificate of the one credential: the SNI was judged before.
#[derive(Debug)]
struct OneKey(Arc<CertifiedKey>);

impl ResolvesServerCert for OneKey {
    fn resolve(&self, _hello: server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
