//! TLS peers of the test's own, by the ordinary API of rustls: clients for the ingress, servers for the egress.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use super::authority::{Authority, Identity};
use super::socket::{self, ACCEPTING};
use super::{Certs, HOST, PATIENCE};

pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;
pub type TlsServer = StreamOwned<ServerConnection, TcpStream>;

pub const ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub const ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(root: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    Arc::new(roots)
}

/// A client that trusts this root and shows this certificate, or none.
pub fn client_config(
    root: &CertificateDer<'static>,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(root), provider()).build();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_webpki_verifier(verifier.expect("a verifier"));
    match identity {
        Some(identity) => config
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .expect("an identity"),
        None => config.with_no_client_auth(),
    }
}

/// The client that the ingress of these credentials is made for.
pub fn good_client_config(certs: &Certs) -> ClientConfig {
    let identity = Identity::of(&certs.egress());
    client_config(&Authority::of(certs).certificate, Some(&identity), rustls::ALL_VERSIONS)
}

/// Makes a client content with any name under its root: workloads of a mesh have none that it could ask for.
pub fn by_chain_alone(config: &mut ClientConfig, root: &CertificateDer<'static>) {
    config.dangerous().set_certificate_verifier(Arc::new(ByChain::of(root)));
}

/// A client without a certificate that knows no signatures but those of RSA keys.
pub fn client_that_knows_rsa_only(
    root: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut config = client_config(root, None, versions);
    let mut verifier = ByChain::of(root);
    verifier.schemes.retain(|scheme| {
        matches!(scheme, SignatureScheme::RSA_PSS_SHA256 | SignatureScheme::RSA_PKCS1_SHA256)
    });
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    config
}

#[derive(Debug)]
struct ByChain {
    inner: Arc<WebPkiServerVerifier>,
    schemes: Vec<SignatureScheme>,
}

impl ByChain {
    fn of(root: &CertificateDer<'static>) -> Self {
        let inner = WebPkiServerVerifier::builder_with_provider(roots(root), provider()).build();
        let inner = inner.expect("a verifier");
        Self { schemes: inner.supported_verify_schemes(), inner }
    }
}

impl ServerCertVerifier for ByChain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// Connects, with [`HOST`] as SNI; the handshake comes with the first read or write.
pub fn connect(address: SocketAddr, config: ClientConfig) -> TlsClient {
    connect_as(HOST, address, config)
}

/// Connects, with this SNI.
pub fn connect_as(sni: &str, address: SocketAddr, config: ClientConfig) -> TlsClient {
    StreamOwned::new(session(sni, config), socket::connect(address))
}

/// The client side of a session, without a socket.
pub fn session(sni: &str, config: ClientConfig) -> ClientConnection {
    let name = ServerName::try_from(sni.to_owned()).expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a session")
}

/// The alert with which the peer answers, at the latest, to the first read: in TLS 1.3 a client's
/// handshake is over before the server has seen its certificate.
pub fn alert(stream: &mut impl Read) -> AlertDescription {
    let error = stream.read(&mut [0; 1]).expect_err("an alert");
    match tls_error(&error) {
        Some(Error::AlertReceived(alert)) => *alert,
        other => panic!("expected an alert, found {other:?}: {error}"),
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Sends close_notify and FIN; the other direction stays open.
pub fn half_close(stream: &mut TlsClient) {
    stream.conn.send_close_notify();
    stream.conn.complete_io(&mut stream.sock).expect("close_notify");
    stream.sock.shutdown(Shutdown::Write).expect("FIN");
}

/// A server that shows this certificate and, where there is a root, asks for one that it issued.
pub fn server_config(identity: &Identity, clients: Option<&Authority>) -> ServerConfig {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let config = match clients {
        Some(root) => {
            let roots = roots(&root.certificate);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            config.with_client_cert_verifier(verifier.expect("a verifier"))
        }
        None => config.with_no_client_auth(),
    };
    config.with_single_cert(identity.chain.clone(), identity.key.clone_key()).expect("an identity")
}

/// A TLS server: connections wait here for the test, with their handshake done or failed.
pub struct Server {
    pub address: SocketAddr,
    accepted: Receiver<Result<TlsServer, io::Error>>,
}

impl Server {
    pub fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (sender, accepted) = channel();
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (sender, config) = (sender.clone(), config.clone());
                std::thread::spawn(move || {
                    // A test that has ended is not interested any more.
                    let _ = sender.send(shake_hands(socket.expect(ACCEPTING), config));
                });
            }
        });
        Self { address, accepted }
    }

    /// The next connection, which must succeed.
    pub fn accept(&self) -> TlsServer {
        self.next().expect("a handshake")
    }

    /// Why the next connection fails, which it must.
    pub fn failure(&self) -> Error {
        match self.next() {
            Ok(_) => panic!("expected a handshake that fails, found one that succeeded"),
            Err(error) => tls_error(&error).unwrap_or_else(|| panic!("not an error of TLS: {error}")).clone(),
        }
    }

    fn next(&self) -> Result<TlsServer, io::Error> {
        self.accepted.recv_timeout(PATIENCE).expect("a connection")
    }
}

/// The server side of TLS on a connection from which something was read before.
pub fn accept_on(socket: TcpStream, config: ServerConfig) -> TlsServer {
    shake_hands(socket, Arc::new(config)).expect("a handshake")
}

fn shake_hands(mut socket: TcpStream, config: Arc<ServerConfig>) -> Result<TlsServer, io::Error> {
    socket::be_patient(&socket);
    let mut session = ServerConnection::new(config).expect("a session");
    while session.is_handshaking() {
        if let Err(error) = session.complete_io(&mut socket) {
            // The alert is on its way; a close over unread bytes would be a reset and overtake it.
            let _ = socket.shutdown(Shutdown::Write);
            let _ = io::copy(&mut socket, &mut io::sink());
            return Err(error);
        }
    }
    Ok(StreamOwned::new(session, socket))
}
