//! The client side: show the credential, send the SNI, verify the server's chain and name.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, IpAddr, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::exporter::SessionIds;
use super::generation::PerGeneration;
use super::handshake::{self, Established, Failure, HandshakeError};
use super::session::Handshake;
use super::standing::{Verdict, Verify};
use super::verify::{ServerNames, ServerVerifier};
use super::{fault, policy};
use crate::credentials::store::Store;
use crate::credentials::trust::TrustBundle;
use crate::plan::{Host, Originate, Plan, ServerIdentity, Trust};

/// The TLS originations of a plan, each with the configuration of its credential's generation.
pub struct Originations {
    /// By the address of the part of the plan that each is for, which it keeps alive.
    entries: HashMap<usize, Arc<Origination>>,
}

struct Origination {
    originate: Arc<Originate>,
    client: Prepared,
    public_roots: Arc<TrustBundle>,
}

/// What a handshake begins with: made once, or once a generation of the credential.
enum Prepared {
    Once(OnceLock<Arc<Client>>),
    PerGeneration(PerGeneration<Client>),
}

struct Client {
    generation: u64,
    verifier: Arc<ServerVerifier>,
    config: Arc<ClientConfig>,
    /// What rustls is told the server is called: the SNI, if one is sent.
    name: ServerName<'static>,
}

impl Originations {
    /// Prepares every origination of the plan.
    pub fn new(plan: &Plan, store: &Store) -> Self {
        Self::of(plan.originates(), store)
    }

    /// Prepares these.
    pub fn of<'plan>(originates: impl Iterator<Item = &'plan Arc<Originate>>, store: &Store) -> Self {
        let originates: Vec<_> = originates.collect();
        let public = originates.iter().any(|originate| originate.trust == Trust::Public);
        let public_roots = Arc::new(if public { public_roots() } else { TrustBundle::default() });
        let entries = originates
            .into_iter()
            .map(|originate| {
                let client = match &originate.credential {
                    Some(credential) => Prepared::PerGeneration(PerGeneration::new(store, credential, None)),
                    None => Prepared::Once(OnceLock::new()),
                };
                let (originate, public_roots) = (originate.clone(), public_roots.clone());
                (address(&originate), Arc::new(Origination { originate, client, public_roots }))
            })
            .collect();
        Self { entries }
    }

    /// What verifies the servers of an origination; `None` if the plan has no such one.
    pub(crate) fn verifier(&self, originate: &Arc<Originate>) -> Option<Arc<dyn Verify>> {
        Some(self.entries.get(&address(originate))?.clone())
    }

    fn entry(&self, originate: &Arc<Originate>) -> Result<(&Arc<Origination>, Arc<Client>), Failure> {
        let entry = self.entries.get(&address(originate));
        let entry = entry.ok_or_else(|| Failure::NoCredential("the plan has no such origination".into()))?;
        Ok((entry, entry.client()?))
    }
}

impl Origination {
    fn client(&self) -> Result<Arc<Client>, Failure> {
        let (originate, public_roots) = (&self.originate, &self.public_roots);
        match &self.client {
            Prepared::Once(made) => {
                if let Some(made) = made.get() {
                    return Ok(made.clone());
                }
                let client = Arc::new(client(originate, public_roots.clone(), None, 0)?);
                Ok(made.get_or_init(|| client).clone())
            }
            Prepared::PerGeneration(generations) => generations.get(|current| {
                let credential = &current.first;
                let trust = match originate.trust {
                    Trust::Credential => credential.trust.clone(),
                    Trust::Public => public_roots.clone(),
                };
                let key = credential.certified_key.clone();
                let missing = || Failure::NoCredential("it holds no certificate".into());
                let key = if originate.shows_certificate { Some(key.ok_or_else(missing)?) } else { None };
                client(originate, trust, key, credential.generation)
            }),
        }
    }
}

impl Verify for Origination {
    fn generation(&self) -> u64 {
        match &self.client {
            Prepared::Once(_) => 0,
            Prepared::PerGeneration(generations) => generations.current(),
        }
    }

    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Verdict> {
        let (client, (leaf, rest)) = (self.client().ok()?, chain.split_first()?);
        Some(Verdict { generation: client.generation, until: client.verifier.judge(leaf, rest, now) })
    }
}

/// What tells the parts of a plan apart, as long as they live.
fn address(originate: &Arc<Originate>) -> usize {
    Arc::as_ptr(originate).addr()
}

/// Shakes hands with a server.
pub async fn originate(
    originations: &Originations,
    originate: &Arc<Originate>,
    stream: &TcpStream,
    deadline: Instant,
) -> Result<Established, HandshakeError> {
    let (entry, client) = originations.entry(originate)?;
    let handshake = Handshake::client(client.config.clone(), client.name.clone())
        .map_err(|error| Failure::Tls(fault::describe(&error)))?;
    let mut established = handshake::run(handshake, stream, Vec::new(), deadline).await?;
    established.voucher = Some(established.vouched_by(entry.clone(), client.generation));
    Ok(established)
}

fn client(
    originate: &Originate,
    trust: Arc<TrustBundle>,
    certified_key: Option<Arc<CertifiedKey>>,
    generation: u64,
) -> Result<Client, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::NoCredential(why.to_string());
    let names = match &originate.server_name {
        ServerIdentity::Host(host) => ServerNames::Host(server_name(host).map_err(|error| unusable(&error))?),
        ServerIdentity::AnyOf(names) => ServerNames::AnyOf(names.clone()),
    };
    let verifier = Arc::new(ServerVerifier::new(trust, names));
    let builder = ClientConfig::builder_with_provider(policy::provider(&originate.tls))
        .with_protocol_versions(&policy::versions(&originate.tls))
        .map_err(|error| unusable(&error))?
        .dangerous() // rustls' word for any verifier but its own: ours checks chain and name, see `verify`
        .with_custom_certificate_verifier(verifier.clone());
    let mut config = match certified_key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(OneKey(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = originate.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true; // for the record layer of ours
    config.key_log = Arc::new(SessionIds);
    config.enable_sni = originate.sni.is_some();
    // Without an SNI rustls still wants a name; the verifier does not look at it.
    let name = match &originate.sni {
        Some(sni) => ServerName::try_from(sni.clone()).map_err(|error| unusable(&error))?,
        None => ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])),
    };
    Ok(Client { generation, verifier, config: Arc::new(config), name })
}

fn server_name(host: &Host) -> Result<ServerName<'static>, rustls_pki_types::InvalidDnsNameError> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress(IpAddr::from(*address))),
        Host::Name(name) => ServerName::try_from(name.clone()),
    }
}

/// The roots of the system where it has any, else those compiled in.
fn public_roots() -> TrustBundle {
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
        return TrustBundle::of_roots(webpki_roots::TLS_SERVER_ROOTS.to_vec());
    }
    tracing::info!(roots = anchors.len(), "using the system's public roots");
    TrustBundle::of_roots(anchors)
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
