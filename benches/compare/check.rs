//! Before anything is measured: does the pair do the job at all?
//!
//! Bytes must arrive as they were sent, what passes between the two must be TLS 1.3 and not the bytes
//! themselves, clients without a certificate of the CA must be refused, and so must a server of another name.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::Failure;
use crate::certs::{Certs, Identity};
use crate::contender::{Contender, HOST, Pair, Setting, Terms, loopback};
use crate::load::order::GREETING;
use crate::wire::{self, Wire};

/// Bytes that are sent each way and compared.
const LENGTH: usize = 8 << 20;
/// What would be seen on the wire if it were not encrypted.
const MARK: &[u8] = b"this must not be seen between the proxies";
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts a pair with somebody in between who looks, and puts it to the test. The handshakes that were seen.
pub fn check(
    contender: Contender,
    terms: Terms,
    setting: &Setting<'_>,
    certs: &Certs,
) -> Result<Vec<Wire>, Failure> {
    let between = TcpListener::bind(("127.0.0.1", 0))?;
    let backend = TcpListener::bind(("127.0.0.1", 0))?;
    let ports = (between.local_addr()?.port(), backend.local_addr()?.port());
    let pair = Pair::start(contender, terms, true, Some(ports.0), Some(ports.1), setting)?;
    let ingress = loopback(pair.ingress_port);
    let mut seen = Vec::new();
    // The second handshake shows whether the session of the first is resumed.
    for _ in 0..2 {
        let tap = carry(&pair, &between, &backend, ingress)?;
        if contender != Contender::Plain {
            if tap.shows(MARK) {
                return Err("plaintext was seen between the proxies".into());
            }
            seen.push(wire::server_hello(&tap.from_server)?);
        }
    }
    if contender != Contender::Plain {
        refuses_clients(ingress, &backend, certs)?;
        refuses_servers(&pair, &between, certs)?;
        let wrong = seen.iter().find(|wire| wire.version != wire::TLS_1_3);
        if let Some(wire) = wrong {
            return Err(format!("expected TLS 1.3, found {:#06x}", wire.version).into());
        }
        if terms == Terms::Equal
            && let Some(wire) = seen.iter().find(|wire| !wire.is_equal())
        {
            return Err(format!("expected a full handshake, X25519 and AES-128-GCM, found {wire}").into());
        }
    }
    Ok(seen)
}

/// Carries bytes both ways through the pair and compares them.
fn carry(
    pair: &Pair,
    between: &TcpListener,
    backend: &TcpListener,
    ingress: SocketAddr,
) -> Result<wire::Tap, Failure> {
    let mut client = connect(pair.target)?;
    let tap = wire::Tap::start(accept(between)?, connect(ingress)?)?;
    let mut server = accept(backend)?;
    let (up, down) = (bytes(1), bytes(2));
    let reply = down.clone();
    let answered: JoinHandle<std::io::Result<digest::Digest>> = std::thread::spawn(move || {
        server.write_all(&[b'G'; GREETING])?;
        let mut received = vec![0; LENGTH];
        server.read_exact(&mut received)?;
        server.write_all(&reply)?;
        // Until the client has had everything and closes.
        let _ = server.read(&mut [0]);
        Ok(digest::digest(&digest::SHA256, &received))
    });
    client.read_exact(&mut [0; GREETING])?;
    client.write_all(&up)?;
    let mut received = vec![0; LENGTH];
    client.read_exact(&mut received)?;
    drop(client);
    let arrived = answered.join().map_err(|_| "the server panicked")??;
    let same = |digest: digest::Digest, sent: &[u8]| {
        digest.as_ref() == digest::digest(&digest::SHA256, sent).as_ref()
    };
    if !same(arrived, &up) || !same(digest::digest(&digest::SHA256, &received), &down) {
        return Err("bytes did not arrive as they were sent".into());
    }
    tap.finish()
}

/// The ingress must serve its client, and neither one without a certificate nor one of another CA.
fn refuses_clients(ingress: SocketAddr, backend: &TcpListener, certs: &Certs) -> Result<(), Failure> {
    let (root, own, foreign) = (certs.root()?, certs.identity("egress")?, certs.foreign_identity()?);
    let clients = [("its own", Some(own), true), ("no", None, false), ("a foreign", Some(foreign), false)];
    for (whose, identity, expected) in clients {
        let greeted = greeted(ingress, backend, root.clone(), identity)?;
        if greeted != expected {
            let found = if greeted { "was served" } else { "was refused" };
            return Err(format!("a client with {whose} certificate {found}").into());
        }
    }
    Ok(())
}

/// Whether a client with this identity gets the server's greeting.
fn greeted(
    ingress: SocketAddr,
    backend: &TcpListener,
    root: CertificateDer<'static>,
    identity: Option<Identity>,
) -> Result<bool, Failure> {
    let mut session = client(root, identity)?;
    let mut stream = connect(ingress)?;
    let listener = backend.try_clone()?;
    let refused = Arc::new(AtomicBool::new(false));
    let nobody_comes = refused.clone();
    let server = std::thread::spawn(move || {
        let mut server = accept_until(&listener, PATIENCE, &nobody_comes)?;
        server.write_all(&[b'G'; GREETING])?;
        let _ = server.read(&mut [0]);
        Ok::<(), Failure>(())
    });
    let mut greeting = [0; GREETING];
    let greeted = rustls::Stream::new(&mut session, &mut stream).read_exact(&mut greeting).is_ok();
    drop(stream);
    refused.store(!greeted, Ordering::Relaxed);
    // Its failure is that nobody came.
    let _ = server.join();
    Ok(greeted && greeting == [b'G'; GREETING])
}

/// The certificate that the ingress of a pair shows now.
pub fn presented(pair: &Pair, certs: &Path) -> Result<CertificateDer<'static>, Failure> {
    let root = CertificateDer::from_pem_file(certs.join("ingress/ca.crt"))?;
    let mut session = client(root, None)?;
    let mut stream = connect(loopback(pair.ingress_port))?;
    while session.peer_certificates().is_none() {
        if session.complete_io(&mut stream)? == (0, 0) {
            return Err("the ingress shows no certificate".into());
        }
    }
    let shown = session.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.ok_or("an empty chain")?.clone().into_owned())
}

fn client(root: CertificateDer<'static>, identity: Option<Identity>) -> Result<ClientConnection, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let config = match identity {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key)?,
        None => config.with_no_client_auth(),
    };
    Ok(ClientConnection::new(Arc::new(config), ServerName::try_from(HOST)?)?)
}

/// The egress must not go on with a server whose certificate, of the right CA, is for another name.
fn refuses_servers(pair: &Pair, between: &TcpListener, certs: &Certs) -> Result<(), Failure> {
    let (certificate, key) = certs.impostor_identity()?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let mut session = ServerConnection::new(Arc::new(config))?;
    let mut client = connect(pair.target)?;
    let mut stream = accept(between)?;
    // What the client says is what must not arrive, also where the handshake itself is gone through with.
    client.write_all(MARK)?;
    let received = rustls::Stream::new(&mut session, &mut stream).read(&mut [0; 64]);
    match received {
        Ok(1..) => Err("a server of another name was accepted".into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err("a server of another name was kept".into())
        }
        Ok(0) | Err(_) => Ok(()),
    }
}

fn bytes(seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed) * 0x9E37_79B9_7F4A_7C15;
    let mut bytes: Vec<u8> = (0..LENGTH)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .collect();
    for chunk in bytes.chunks_exact_mut(4096) {
        chunk[..MARK.len()].copy_from_slice(MARK);
    }
    bytes
}

fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    patient(TcpStream::connect_timeout(&address, PATIENCE)?)
}

fn accept(listener: &TcpListener) -> Result<TcpStream, Failure> {
    accept_until(listener, PATIENCE, &AtomicBool::new(false))
}

/// Waits for a connection, unless somebody knows that none will come.
fn accept_until(
    listener: &TcpListener,
    patience: Duration,
    nobody_comes: &AtomicBool,
) -> Result<TcpStream, Failure> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + patience;
    let waits = |now: Instant| now < deadline && !nobody_comes.load(Ordering::Relaxed);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return patient(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && waits(Instant::now()) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(format!("nobody connected: {error}").into()),
        }
    }
}

fn patient(stream: TcpStream) -> Result<TcpStream, Failure> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
