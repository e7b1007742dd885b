//! Upstreams of the egress: those it must not trust, those that are not there, and what the plaintext
//! client sees, which is always a reset and never an empty answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use rustls::{AlertDescription, Error};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, Server};
use crate::support::socket::{self, Backend, Ending, echo};
use crate::support::{CLIENT, Certs, HOST, Program};

/// What no upstream may ever see in plaintext.
const SECRET: &[u8] = b"SECRET of the plaintext client";

/// A plaintext client of the egress is reset; the one record of it, which blames the upstream.
fn reset_client(egress: &mut Program, outcome: &str) -> Value {
    assert_eq!(socket::attempt(egress.address, SECRET), Ending::Reset);
    let mut records = egress.stop_and_take_records();
    let record = records.remove(0);
    assert!(records.is_empty(), "{record} {records:?}");
    assert_eq!([&record["outcome"], &record["closed_by"]], [outcome, "upstream"], "{record}");
    assert_eq!(record["role"], "egress", "{record}");
    record
}

/// What the egress is told of its peer, and tells it.
struct Refused<'a> {
    outcome: &'a str,
    detail: &'a str,
    alert: AlertDescription,
}

/// A server that the egress refuses.
fn check(certs: &Certs, server: &Identity, more: &[&str], expected: &Refused<'_>) -> Value {
    let server = Server::start(peer::server_config(server, Some(&Authority::of(certs))));
    let mut egress = Program::egress(certs, server.address, more);
    let record = reset_client(&mut egress, expected.outcome);
    assert_eq!(server.failure(), Error::AlertReceived(expected.alert));
    let detail = record["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(expected.detail), "expected {:?} in {record}", expected.detail);
    assert_eq!(record["sni"], HOST, "{record}");
    assert_eq!(record["upstream"]["address"], server.address.to_string(), "{record}");
    assert_eq!([&record["bytes_received"], &record["bytes_sent"]], [0, 0], "{record}");
    // The operator chose the upstream, so the operational log hears of it, once.
    assert_eq!(egress.said(expected.outcome), 1, "{}", egress.stderr());
    record
}

#[test]
fn a_server_of_another_ca_is_refused_with_unknown_ca_and_recorded_by_name() {
    let server = Authority::new().issue(&Leaf::server(&[HOST]));
    let expected =
        Refused { outcome: "unknown_ca", detail: "found another issuer", alert: AlertDescription::UnknownCA };
    let record = check(&Certs::mint(), &server, &[], &expected);
    assert_eq!(record["upstream"]["peer"]["identity"], HOST, "{record}");
}

#[test]
fn a_server_with_another_name_is_refused_and_recorded_by_name() {
    let certs = Certs::mint();
    let server = Authority::of(&certs).issue(&Leaf::server(&["impostor.example"]).called(HOST));
    let detail = &format!("expected a certificate for {HOST}, found one for impostor.example");
    let expected = Refused { outcome: "wrong_name", detail, alert: AlertDescription::BadCertificate };
    let record = check(&certs, &server, &[], &expected);
    assert_eq!(record["upstream"]["peer"]["identity"], "impostor.example", "{record}");
}

#[test]
fn a_server_whose_certificate_expired_is_refused_with_certificate_expired() {
    let certs = Certs::mint();
    let server = Authority::of(&certs).issue(&Leaf::server(&[HOST]).expired());
    let expected = Refused {
        outcome: "certificate_expired",
        detail: "expired",
        alert: AlertDescription::CertificateExpired,
    };
    check(&certs, &server, &[], &expected);
}

#[test]
fn a_server_with_a_client_certificate_is_refused_with_unsupported_certificate() {
    let certs = Certs::mint();
    let server = Authority::of(&certs).issue(&Leaf::client(&[HOST]));
    let expected =
        Refused { outcome: "wrong_purpose", detail: "", alert: AlertDescription::UnsupportedCertificate };
    check(&certs, &server, &[], &expected);
}

#[test]
fn a_server_without_any_of_the_listed_names_is_refused_even_if_it_has_that_of_the_sni() {
    let certs = Certs::mint();
    let server = Authority::of(&certs).issue(&Leaf::server(&[HOST]));
    let detail =
        &format!("expected a certificate for spiffe://td/ns/a/sa/b or other.example, found one for {HOST}");
    let expected = Refused { outcome: "wrong_name", detail, alert: AlertDescription::BadCertificate };
    check(&certs, &server, &["--san", "spiffe://td/ns/a/sa/b,other.example"], &expected);
}

#[test]
fn a_server_with_one_of_the_listed_names_is_accepted_by_dns_name_or_uri() {
    let (uri, certs) = ("spiffe://td/ns/db/sa/mysql", Certs::mint());
    for names in [&[uri][..], &["listed.example"]] {
        let identity = Authority::of(&certs).issue(&Leaf::server(names));
        let server = Server::start(peer::server_config(&identity, Some(&Authority::of(&certs))));
        let egress = Program::egress(&certs, server.address, &["--san", uri, "--san", "listed.example"]);
        let mut client = socket::connect(egress.address);
        let mut accepted = server.accept();
        assert_eq!(accepted.conn.server_name(), Some(HOST), "the SNI is still that of --sni");
        accepted.write_all(b"greeting").expect("written");
        socket::expect(&mut client, "greeting");
        drop((client, accepted));
        let record = egress.record();
        assert_eq!(record["upstream"]["peer"]["identity"], names[0], "{record}");
    }
}

/// An egress that is told nothing but an address, and so must find that in the certificate.
fn egress_by_address(certs: &Certs, upstream: SocketAddr) -> Program {
    let (upstream, credentials) = (upstream.to_string(), certs.egress());
    let arguments = ["egress", "--listen", "127.0.0.1:0", "--upstream", &upstream];
    Program::start(&[&arguments[..], &["--credentials", crate::support::path(&credentials)]].concat())
}

#[test]
fn a_server_that_is_known_by_its_address_is_verified_by_it_and_sent_no_sni() {
    let certs = Certs::mint();
    let root = Authority::of(&certs);
    let identity = root.issue(&Leaf::server(&["127.0.0.1"]));
    let server = Server::start(peer::server_config(&identity, Some(&root)));
    let egress = egress_by_address(&certs, server.address);
    let mut client = socket::connect(egress.address);
    let mut accepted = server.accept();
    assert_eq!(accepted.conn.server_name(), None);
    accepted.write_all(b"greeting").expect("written");
    socket::expect(&mut client, "greeting");

    let other = root.issue(&Leaf::server(&["127.0.0.2", HOST]));
    let server = Server::start(peer::server_config(&other, Some(&root)));
    let record = reset_client(&mut egress_by_address(&certs, server.address), "wrong_name");
    assert!(record["detail"].as_str().is_some_and(|text| text.contains("127.0.0.1")), "{record}");
}

#[test]
fn with_public_roots_a_server_of_a_private_root_is_refused() {
    let certs = Certs::mint();
    let server = Identity::of(&certs.ingress());
    let expected =
        Refused { outcome: "unknown_ca", detail: "found another issuer", alert: AlertDescription::UnknownCA };
    check(&certs, &server, &["--ca", "public"], &expected);
}

#[test]
fn a_server_that_asks_for_no_client_certificate_is_served() {
    let certs = Certs::mint();
    let server = Server::start(peer::server_config(&Identity::of(&certs.ingress()), None));
    let egress = Program::egress(&certs, server.address, &[]);
    let mut client = socket::connect(egress.address);
    let mut accepted = server.accept();
    client.write_all(b"to the server").expect("written");
    socket::expect(&mut accepted, "to the server");
    accepted.write_all(b"to the client").expect("written");
    socket::expect(&mut client, "to the client");
}

#[test]
fn our_certificate_is_shown_to_a_server_that_asks_for_one() {
    let certs = Certs::mint();
    let root = Authority::of(&certs);
    let server = Server::start(peer::server_config(&Identity::of(&certs.ingress()), Some(&root)));
    let egress = Program::egress(&certs, server.address, &[]);
    let _client = socket::connect(egress.address);
    let accepted = server.accept();
    let shown = accepted.conn.peer_certificates().and_then(<[_]>::first);
    assert_eq!(shown, Some(Identity::of(&certs.egress()).leaf()));
}

#[test]
fn a_refusal_that_comes_after_the_client_side_of_the_handshake_resets_the_plaintext_client() {
    let certs = Certs::mint();
    // It trusts the clients of another root, and says so when ours has finished.
    let server = Server::start(peer::server_config(&Identity::of(&certs.ingress()), Some(&Authority::new())));
    let mut egress = Program::egress(&certs, server.address, &[]);
    let record = reset_client(&mut egress, "alert_received");
    assert!(matches!(server.failure(), Error::InvalidCertificate(_)));
    let detail = record["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("unknown_ca") || detail.contains("decrypt_error"), "{record}");
    assert_eq!(record["upstream"]["tls"]["version"], "TLSv1.3", "{record}");
}

#[test]
fn an_upstream_that_refuses_connections_resets_the_client_and_is_recorded_as_unreachable() {
    let certs = Certs::mint();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let mut egress = Program::egress(&certs, address, &[]);
    let record = reset_client(&mut egress, "unreachable");
    assert!(record["detail"].as_str().is_some_and(|text| text.contains(&address.to_string())), "{record}");
    assert_eq!(record["upstream"]["name"], address.to_string(), "{record}");
}

#[test]
fn an_upstream_that_does_not_answer_is_given_up_after_the_connect_timeout() {
    let certs = Certs::mint();
    // With a backlog of nothing and one connection in it, the kernel drops whatever asks next.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    deaf.listen(0).expect("listening");
    let address = deaf.local_addr().expect("its address").as_socket().expect("IPv4");
    let _first = socket::connect(address);
    let mut egress = Program::egress(&certs, address, &["--connect-timeout", "300ms"]);
    let record = reset_client(&mut egress, "connect_timeout");
    assert_eq!(record["upstream"]["name"], address.to_string(), "{record}");
}

#[test]
fn an_upstream_name_that_does_not_resolve_resets_the_client_and_is_recorded_as_unresolved() {
    let certs = Certs::mint();
    let credentials = certs.egress();
    let credentials = crate::support::path(&credentials);
    let arguments = ["egress", "--listen", "127.0.0.1:0", "--upstream", "absent.invalid"];
    let mut egress = Program::start(&[&arguments[..], &["--credentials", credentials]].concat());
    let record = reset_client(&mut egress, "unresolved");
    assert!(record["detail"].as_str().is_some_and(|text| text.contains("absent.invalid")), "{record}");
    assert_eq!(record["upstream"]["name"], "absent.invalid:13306", "{record}");
}

/// An upstream that is no TLS server says this; everything it ever hears.
fn heard_by_upstream(says: &[u8], more: &[&str], outcome: &str) -> Vec<u8> {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let mut egress = Program::egress(&certs, backend.address, more);
    let says = says.to_owned();
    let upstream = std::thread::spawn(move || {
        let mut stream = backend.accept();
        stream.write_all(&says).expect("written");
        let mut heard = Vec::new();
        // However it ends: what counts is what came before.
        let _ = stream.read_to_end(&mut heard);
        heard
    });
    reset_client(&mut egress, outcome);
    upstream.join().expect("what it heard")
}

fn assert_no_plaintext(heard: &[u8]) {
    assert_eq!(heard.first(), Some(&22), "a ClientHello comes first");
    assert!(!heard.windows(6).any(|window| window == &SECRET[..6]), "plaintext on the wire");
}

#[test]
fn an_upstream_that_stalls_in_the_handshake_is_given_up_after_the_handshake_timeout() {
    let heard = heard_by_upstream(&[], &["--handshake-timeout", "300ms"], "handshake_timeout");
    assert_no_plaintext(&heard);
}

#[test]
fn an_upstream_that_speaks_plaintext_hears_no_byte_of_the_client() {
    // As a MySQL server greets, and as a web server answers.
    for says in [&b"J\0\0\0\x0a8.0.36\0"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        assert_no_plaintext(&heard_by_upstream(says, &[], "not_tls"));
    }
}

#[test]
fn an_upstream_that_closes_in_the_handshake_resets_the_client() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let mut egress = Program::egress(&certs, backend.address, &[]);
    let upstream = std::thread::spawn(move || {
        let mut stream = backend.accept();
        stream.read_exact(&mut [0; 100]).expect("part of a ClientHello");
        stream.shutdown(std::net::Shutdown::Write).expect("FIN");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    reset_client(&mut egress, "closed_in_handshake");
    upstream.join().expect("it ends");
}

#[test]
fn an_egress_serves_again_when_its_upstream_does() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let egress = Program::egress(&certs, address, &[]);
    assert_eq!(socket::attempt(egress.address, b"nobody"), Ending::Reset);
    let (address, credentials) = (address.to_string(), certs.ingress());
    let arguments = ["ingress", "--listen", &address, "--host", HOST, "--credentials"];
    let backend = backend.address.to_string();
    let more = [crate::support::path(&credentials), "--backend", &backend];
    let ingress = Program::start(&[&arguments[..], &more].concat());
    echo(&mut socket::connect(egress.address), "somebody");
    assert_eq!(ingress.record()["downstream"]["peer"]["identity"], CLIENT);
}
