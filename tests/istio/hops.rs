//! The hops between proxies of a mesh, byte by byte: what a sidecar sends, whom a gateway answers, and what
//! a server's sidecar does with what comes to it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use rustls::server::Acceptor;
use rustls::{AlertDescription, ClientConfig};
use tempfile::TempDir;

use crate::judge::head;
use crate::mesh::{
    Article, Credentials, EGRESS_HOST, INGRESS_ID, MYSQL_ID, SIDECAR_ID, anywhere, resolve, run,
};
use crate::routing::{entry, rule as rule_of};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, alert};
use crate::support::socket::{Backend, Ending, connect, echo, expect, noise, read_to_end};
use crate::support::{HOST, Program, path};

/// The ClientHello that a client would begin with.
fn hello(config: ClientConfig, sni: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    peer::session(sni, config).write_tls(&mut bytes).expect("a ClientHello");
    bytes
}

/// Reads a whole record.
fn read_record(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 5];
    stream.read_exact(&mut bytes).expect("a header");
    let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    bytes.resize(5 + length, 0);
    stream.read_exact(&mut bytes[5..]).expect("a record");
    bytes
}

/// The SNI and the protocols of a ClientHello.
fn asked_for(mut hello: &[u8]) -> (Option<String>, Vec<Vec<u8>>) {
    let mut acceptor = Acceptor::default();
    while !hello.is_empty() {
        acceptor.read_tls(&mut hello).expect("a ClientHello");
    }
    let accepted = acceptor.accept().expect("a ClientHello").expect("all of it");
    let asked = accepted.client_hello();
    let offered = asked.alpn().map(|offered| offered.map(<[u8]>::to_vec).collect());
    (asked.server_name().map(str::to_owned), offered.unwrap_or_default())
}

#[test]
fn r2_the_articles_sidecar_makes_one_tls_connection_to_the_egress_gateway() {
    let (credentials, gateway) = (Credentials::new(), Backend::start());
    let known = resolve(EGRESS_HOST, 15443, gateway.address);
    let sidecar =
        run(&["article/client"], &["sidecar"], &credentials.folder("sidecar"), &[anywhere(3306), known]);
    let mut application = connect(sidecar.address);
    application.write_all(b"SELECT 1").expect("written");
    let sent = read_record(&mut gateway.accept());
    assert_eq!(asked_for(&sent), (Some(HOST.into()), vec![b"istio".to_vec()]));
    // It was refused by the end that is none: the application is told so, and nobody tried again.
    assert_eq!(read_to_end(&mut application), (Vec::new(), Ending::Reset));
    assert_eq!(gateway.dialled(), 1);
}

#[test]
fn t9_without_an_sni_the_hello_names_nobody() {
    let server = Backend::start();
    let rule = "host: db.example, trafficPolicy: {tls: {mode: SIMPLE}}";
    let texts = [entry("db.example", 3306, "TCP", ""), rule_of("d", "default", rule)];
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("service.yaml"), texts.join("---\n")).expect("written");
    let known = resolve("db.example", 3306, server.address);
    let arguments =
        ["run", "--role=sidecar", "--listen=3306=127.0.0.1:0", "--credentials", path(folder.path())];
    let sidecar = Program::start(&[&arguments[..], &["--config", path(folder.path()), &known]].concat());
    let _application = connect(sidecar.address);
    let sent = read_record(&mut server.accept());
    assert_eq!(asked_for(&sent), (None, Vec::new()));
}

#[test]
fn r3_who_asks_for_no_host_of_a_gateway_is_shown_no_certificate() {
    let (credentials, backend) = (Credentials::new(), Backend::echo());
    let egress = run(
        &["tutorial/client"],
        &["egress"],
        &credentials.folder("egress"),
        &[anywhere(15443), resolve(HOST, 13306, backend.address)],
    );
    let config = || peer::client_config(&credentials.client_mesh.certificate, None, rustls::ALL_VERSIONS);
    let mut nameless = config();
    nameless.enable_sni = false;
    for request in
        [hello(config(), "other.example"), hello(nameless, HOST), b"SELECT 1 in plain sight".to_vec()]
    {
        let mut stream = connect(egress.address);
        stream.write_all(&request).expect("written");
        let (bytes, _) = read_to_end(&mut stream);
        // An alert at most: no ServerHello, and no certificate behind it.
        assert!(bytes.is_empty() || (bytes[0] == 21 && bytes.len() == 7), "{bytes:?}");
        assert_ne!(egress.record()["outcome"], "completed");
    }
    assert_eq!(backend.dialled(), 0);
}

#[test]
fn r29_a_client_that_has_said_all_still_hears_all() {
    let (credentials, database) = (Credentials::new(), Backend::start());
    let article = Article::to(database.address, &credentials);
    let mut client = connect(article.client.address);
    client.write_all(b"all there is to say").expect("written");
    client.shutdown(Shutdown::Write).expect("FIN");
    let mut server = database.accept();
    assert_eq!(read_to_end(&mut server), (b"all there is to say".to_vec(), Ending::Clean));
    let answer = noise(29, 1 << 20);
    let sent = answer.clone();
    let writer = std::thread::spawn(move || server.write_all(&sent).expect("written"));
    assert!(read_to_end(&mut client) == (answer, Ending::Clean));
    writer.join().expect("written");
    for side in [&article.client, &article.server] {
        assert_eq!(side.record()["outcome"], "completed");
    }
}

/// The sidecar of the server, with a policy for its port.
struct Inbound {
    _folder: TempDir,
    credentials: Credentials,
    application: Backend,
    sidecar: Program,
}

impl Inbound {
    fn with(mode: &str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let policy = head("PeerAuthentication", "p") + &format!("spec: {{mtls: {{mode: {mode}}}}}\n");
        std::fs::write(folder.path().join("policy.yaml"), policy).expect("written");
        let (credentials, application) = (Credentials::new(), Backend::start());
        let arguments =
            ["run", "--role=sidecar", "--config", path(folder.path()), "--listen=3306=127.0.0.1:0"];
        let inbound = format!("--inbound=3306={}", application.address);
        let own = credentials.folder("mysql");
        let application_at = ["--credentials", path(&own), &inbound];
        let sidecar = Program::start(&[&arguments[..], &application_at].concat());
        Self { _folder: folder, credentials, application, sidecar }
    }

    fn workload(&self, spiffe: &str) -> Identity {
        self.credentials.server_mesh.issue(&Leaf::workload(spiffe))
    }

    /// What a client speaks that trusts the mesh. It knows the server by its SPIFFE ID, so its name does not count.
    fn config(&self, identity: Option<&Identity>, protocols: &str) -> ClientConfig {
        let root = &self.credentials.server_mesh.certificate;
        let mut config = peer::client_config(root, identity, rustls::ALL_VERSIONS);
        peer::by_chain_alone(&mut config, root);
        config.alpn_protocols = protocols.split(' ').map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// TLS that ends at the sidecar: the application sees what is inside. `istio` is agreed on if it is offered,
    /// and nothing else: its sibling begins with messages of its own.
    fn terminates(&self, config: ClientConfig) {
        let offered = config.alpn_protocols.contains(&b"istio".to_vec());
        let mut client = peer::connect(self.sidecar.address, config);
        client.write_all(b"from within").expect("written");
        client.flush().expect("flushed");
        let mut application = self.application.accept();
        expect(&mut application, "from within");
        application.write_all(b"answered").expect("written");
        expect(&mut client, "answered");
        assert_eq!(client.conn.alpn_protocol(), offered.then_some(&b"istio"[..]));
    }

    /// Bytes of which the application sees each as it was sent, and its own come back as they are.
    fn carries(&self, bytes: &[u8]) {
        let mut client = connect(self.sidecar.address);
        client.write_all(bytes).expect("written");
        let mut application = self.application.accept();
        let mut arrived = vec![0; bytes.len()];
        application.read_exact(&mut arrived).expect("what was sent");
        assert_eq!(arrived, bytes);
        application.write_all(b"answered").expect("written");
        expect(&mut client, "answered");
    }
}

#[test]
fn t20_permissive_ends_tls_of_the_mesh_and_carries_all_else_as_it_is() {
    let inbound = Inbound::with("PERMISSIVE");
    let ingress = inbound.workload(INGRESS_ID);
    for protocols in [
        "istio",
        "istio-peer-exchange",
        "istio-peer-exchange istio",
        "istio-http/1.0",
        "istio-http/1.1",
        "istio-h2",
    ] {
        inbound.terminates(inbound.config(Some(&ingress), protocols));
        let record = inbound.sidecar.record();
        assert_eq!(
            (&record["sni"], &record["downstream"]["peer"]["identity"]),
            (&HOST.into(), &INGRESS_ID.into())
        );
    }
    // Of the mesh by what it offers, and with nothing to prove it.
    let mut stranger = peer::connect(inbound.sidecar.address, inbound.config(None, "istio"));
    assert_eq!(alert(&mut stranger), AlertDescription::CertificateRequired);
    inbound.carries(&hello(inbound.config(None, "mysql"), HOST));
    inbound.carries(b"in plain sight");
    // TLS of the application's own, through to its end.
    let own = Authority::new();
    let server = peer::server_config(&own.issue(&Leaf::server(&[HOST])), None);
    let config = peer::client_config(&own.certificate, None, rustls::ALL_VERSIONS);
    let mut client = peer::connect(inbound.sidecar.address, config);
    let handshake = std::thread::spawn(move || {
        client.write_all(b"end to end").expect("a handshake");
        client
    });
    let mut application = peer::accept_on(inbound.application.accept(), server);
    expect(&mut application, "end to end");
    drop(handshake.join().expect("a client"));
}

#[test]
fn t20_strict_ends_all_tls_and_closes_the_rest() {
    let inbound = Inbound::with("STRICT");
    let ingress = inbound.workload(INGRESS_ID);
    for protocols in ["istio", "anything"] {
        inbound.terminates(inbound.config(Some(&ingress), protocols));
    }
    let mut stranger = peer::connect(inbound.sidecar.address, inbound.config(None, "istio"));
    assert_eq!(alert(&mut stranger), AlertDescription::CertificateRequired);
    let elsewhere = inbound.workload("spiffe://elsewhere/ns/default/sa/app");
    let mut foreign = peer::connect(inbound.sidecar.address, inbound.config(Some(&elsewhere), "istio"));
    assert_eq!(alert(&mut foreign), AlertDescription::AccessDenied);
    let mut plain = connect(inbound.sidecar.address);
    plain.write_all(b"in plain sight").expect("written");
    let (bytes, _) = read_to_end(&mut plain);
    assert!(bytes.len() <= 7, "{bytes:?}");
    assert_eq!(inbound.application.dialled(), 2);
}

#[test]
fn t20_disabled_carries_everything_and_awaits_nothing() {
    let inbound = Inbound::with("DISABLE");
    inbound.carries(&hello(inbound.config(None, "istio"), HOST));
    inbound.carries(b"in plain sight");
    // A server that speaks first.
    let mut client = connect(inbound.sidecar.address);
    inbound.application.accept().write_all(b"greetings").expect("written");
    expect(&mut client, "greetings");
}

#[test]
fn a_workload_identity_is_read_by_the_names_that_istio_and_gke_give_its_files() {
    let names = [
        (["cert-chain.pem", "key.pem"], "root-cert.pem"),
        (["certificates.pem", "private_key.pem"], "ca_certificates.pem"),
    ];
    for (pair, root) in names {
        let (credentials, application) = (Credentials::new(), Backend::echo());
        let own = credentials.folder("mysql").join("workload");
        std::fs::remove_dir_all(&own).expect("removed");
        credentials.server_mesh.issue(&Leaf::workload(MYSQL_ID)).install_as(&own, pair);
        std::fs::write(own.join(root), &credentials.server_mesh.pem).expect("written");
        let sidecar = run(
            &["tutorial/server"],
            &["sidecar"],
            &credentials.folder("mysql"),
            &["--labels=app=mysql".into(), format!("--inbound=3306={}", application.address), anywhere(3306)],
        );
        let root = &credentials.server_mesh.certificate;
        let identity = credentials.server_mesh.issue(&Leaf::workload(SIDECAR_ID));
        let mut config = peer::client_config(root, Some(&identity), rustls::ALL_VERSIONS);
        peer::by_chain_alone(&mut config, root);
        config.alpn_protocols = vec![b"istio".to_vec()];
        echo(&mut peer::connect(sidecar.address, config), "carried");
    }
}
