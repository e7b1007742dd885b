//! The client side: show the credential, send the SNI, verify the server's chain and name.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use rustls_pki_types::{IpAddr, ServerName, TrustAnchor};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::generation::PerGeneration;
use super::handshake::{self, Established, Failure, HandshakeError};
use super::session::Session;
use super::verify::{Chain, ServerNames, ServerVerifier};
use super::{fault, policy};
use crate::credentials::store::Store;
use crate::plan::{Host, Originate, Plan, ServerIdentity, Trust};

/// The TLS originations of a plan, each with the configuration of its credential's generation.
pub struct Originations {
    entries: Vec<Origination>,
    public_roots: Arc<Vec<TrustAnchor<'static>>>,
}

struct Origination {
    originate: Arc<Originate>,
    client: PerGeneration<Client>,
}

struct Client {
    config: Arc<ClientConfig>,
    /// What rustls is told the server is called: the SNI, if one is sent.
    name: ServerName<'static>,
}

impl Originations {
    /// Prepares every origination of the plan.
    pub fn new(plan: &Plan, store: &Store) -> Self {
        let entries: Vec<_> = plan
            .originates()
            .map(|originate| Origination {
                originate: originate.clone(),
                client: PerGeneration::new(store, &originate.credential),
            })
            .collect();
        let public = entries.iter().any(|entry| entry.originate.trust == Trust::Public);
        Self { entries, public_roots: Arc::new(if public { public_roots() } else { Vec::new() }) }
    }

    fn client(&self, originate: &Arc<Originate>) -> Result<Arc<Client>, Failure> {
        let entry = self.entries.iter().find(|entry| Arc::ptr_eq(&entry.originate, originate));
        let unprepared = || Failure::NoCredential("the plan has no such origination".into());
        entry.ok_or_else(unprepared)?.client.get(|credential| {
            let anchors = match originate.trust {
                Trust::Credential => &credential.anchors,
                Trust::Public => &self.public_roots,
            };
            client(originate, Chain::new(anchors.clone()), credential.certified_key.clone())
        })
    }
}

/// Shakes hands with a server.
pub async fn originate(
    originations: &Originations,
    originate: &Arc<Originate>,
    stream: &TcpStream,
    deadline: Instant,
) -> Result<Established, HandshakeError> {
    let client = originations.client(originate)?;
    let session = Session::client(client.config.clone(), client.name.clone())
        .map_err(|error| Failure::Tls(fault::describe(&error)))?;
    handshake::run(session, stream, Vec::new(), deadline).await
}

fn client(originate: &Originate, chain: Chain, certified_key: Arc<CertifiedKey>) -> Result<Client, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::NoCredential(why.to_string());
    let names = match &originate.server_name {
        ServerIdentity::Host(host) => ServerNames::Host(server_name(host).map_err(|error| unusable(&error))?),
        ServerIdentity::AnyOf(names) => ServerNames::AnyOf(names.clone()),
    };
    let mut config = ClientConfig::builder_with_provider(policy::provider(&originate.tls))
        .with_protocol_versions(&policy::versions(&originate.tls))
        .map_err(|error| unusable(&error))?
        .dangerous() // rustls' word for any verifier but its own: ours checks chain and name, see `verify`
        .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(chain, names)))
        .with_client_cert_resolver(Arc::new(OneKey(certified_key)));
    config.resumption = Resumption::disabled();
    config.enable_sni = originate.sni.is_some();
    // Without an SNI rustls still wants a name; the verifier does not look at it.
    let name = match &originate.sni {
        Some(sni) => ServerName::try_from(sni.clone()).map_err(|error| unusable(&error))?,
        None => ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])),
    };
    Ok(Client { config: Arc::new(config), name })
}

fn server_name(host: &Host) -> Result<ServerName<'static>, rustls_pki_types::InvalidDnsNameError> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress(IpAddr::from(*address))),
        Host::Name(name) => ServerName::try_from(name.clone()),
    }
}

/// The roots of the system where it has any, else those compiled in.
fn public_roots() -> Vec<TrustAnchor<'static>> {
    let native = rustls_native_certs::load_native_certs();
    let anchors: Vec<_> = native
        .certs
        .iter()
        .filter_map(|der| webpki::anchor_from_trusted_cert(der).ok().map(|anchor| anchor.to_owned()))
        .collect();
    if anchors.is_empty() {
        tracing::info!(
            roots = webpki_roots::TLS_SERVER_ROOTS.len(),
            "no system roots, using those compiled in"
        );
        return webpki_roots::TLS_SERVER_ROOTS.to_vec();
    }
    tracing::info!(roots = anchors.len(), "using the system's public roots");
    anchors
}

/// The certificate of the one credential, whatever CAs the server hints at: a server that refuses it
/// says so with an alert, which tells more than a missing certificate would.
#[derive(Debug)]
struct OneKey(Arc<CertifiedKey>);

impl ResolvesClientCert for OneKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
