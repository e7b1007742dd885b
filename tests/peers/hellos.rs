//! What a stranger may send instead of a ClientHello, and the odd ways in which a good one may arrive.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;

use rustls::AlertDescription;

use crate::scene::{Refused, Scene};
use crate::support::peer;
use crate::support::socket::{self, Drip, Ending, echo, read_to_end};

/// A fatal alert before there are keys (RFC 8446 section 6): type, version, length, level, description.
fn assert_alert(bytes: &[u8], expected: AlertDescription) {
    let [21, 3, _, 0, 2, 2, description] = *bytes else { panic!("expected a fatal alert, found {bytes:?}") };
    assert_eq!(AlertDescription::from(description), expected);
}

/// Sends bytes, and hears the answer out.
fn answer(scene: &Scene, bytes: &[u8]) -> (Vec<u8>, Ending) {
    let mut client = socket::connect(scene.ingress.address);
    client.write_all(bytes).expect("written");
    read_to_end(&mut client)
}

/// What is not TLS is answered with this alert and a clean close, and recorded.
fn check(bytes: &[u8], expected: AlertDescription, refused: &Refused<'_>) {
    let mut scene = Scene::new();
    let (answer, ending) = answer(&scene, bytes);
    assert_alert(&answer, expected);
    assert_eq!(ending, Ending::Clean);
    scene.assert_refused(refused);
    scene.assert_nothing_else_recorded();
}

const NOT_TLS: Refused<'_> =
    Refused { outcome: "not_tls", detail: "expected a TLS record, found other bytes", identity: None };

/// The ClientHello of a good client.
fn hello(scene: &Scene) -> Vec<u8> {
    let mut session = peer::session(crate::support::HOST, peer::good_client_config(&scene.certs));
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).expect("a ClientHello");
    bytes
}

#[test]
fn plaintext_http_is_answered_with_an_alert_and_recorded_as_not_tls() {
    check(b"GET / HTTP/1.1\r\nHost: mysql\r\n\r\n", AlertDescription::DecodeError, &NOT_TLS);
}

#[test]
fn garbage_is_answered_with_an_alert_and_recorded_as_not_tls() {
    check(&[&[0xff; 64], &socket::noise(7, 1000)[..]].concat(), AlertDescription::DecodeError, &NOT_TLS);
}

/// A ClientHello as old clients send it: TLS 1.1, one suite, the SNI and these extensions.
fn hello_of_tls_1_1(extensions: &[u8]) -> Vec<u8> {
    let byte = |length: usize| u8::try_from(length).expect("a short hello");
    let name = crate::support::HOST.as_bytes();
    let length = byte(name.len());
    let mut hello = vec![3, 2];
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 2, 0x00, 0x2f]); // TLS_RSA_WITH_AES_128_CBC_SHA
    hello.extend([1, 0]); // no compression
    hello.extend([0, length + 9 + byte(extensions.len())]);
    hello.extend([0, 0, 0, length + 5, 0, length + 3, 0, 0, length]);
    hello.extend(name);
    hello.extend(extensions);
    let length = byte(hello.len());
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], &hello[..]].concat()
}

#[test]
fn a_client_of_tls_1_1_is_refused_and_recorded_as_having_nothing_in_common() {
    let detail = "expected TLS 1.2 or 1.3, found TLS 1.1";
    let refused = Refused { outcome: "nothing_in_common", detail, identity: None };
    check(&hello_of_tls_1_1(&[]), AlertDescription::ProtocolVersion, &refused);
    // Signature algorithms (RFC 5246 section 7.4.1.4.1), which some send whatever their version.
    let algorithms = [0, 13, 0, 4, 0, 2, 4, 3];
    check(&hello_of_tls_1_1(&algorithms), AlertDescription::ProtocolVersion, &refused);
}

#[test]
fn a_connection_that_closes_without_a_byte_is_recorded_as_no_hello() {
    let mut scene = Scene::new();
    drop(socket::connect(scene.ingress.address));
    let refused = Refused { outcome: "no_hello", detail: "closed before", identity: None };
    scene.assert_refused(&refused);
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_connection_that_is_reset_without_a_byte_is_recorded_as_reset() {
    let mut scene = Scene::new();
    socket::reset(socket::connect(scene.ingress.address));
    scene.assert_refused(&Refused { outcome: "reset", detail: "", identity: None });
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_client_that_closes_in_mid_hello_is_recorded_as_such() {
    let mut scene = Scene::new();
    let hello = hello(&scene);
    let mut client = socket::connect(scene.ingress.address);
    client.write_all(&hello[..hello.len() / 2]).expect("written");
    client.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(socket::ending(&mut client), Ending::Clean);
    let refused =
        Refused { outcome: "closed_in_handshake", detail: "closed in mid-handshake", identity: None };
    scene.assert_refused(&refused);
    scene.assert_nothing_else_recorded();
}

/// A client that sends only part of its handshake is reset when the time for all of it is over.
fn check_stall(take: impl Fn(&[u8]) -> usize) {
    // Long enough for the good clients of a busy machine.
    let mut scene = Scene::with(&["--handshake-timeout", "2s"]);
    let hello = hello(&scene);
    let mut client = socket::connect(scene.ingress.address);
    client.write_all(&hello[..take(&hello)]).expect("written");
    let (_, ending) = read_to_end(&mut client);
    assert_eq!(ending, Ending::Reset);
    scene.assert_refused(&Refused { outcome: "handshake_timeout", detail: "", identity: None });
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_client_that_says_nothing_is_reset_after_the_handshake_timeout() {
    check_stall(|_| 0);
}

#[test]
fn a_client_that_stalls_in_mid_hello_is_reset_after_the_handshake_timeout() {
    check_stall(|hello| hello.len() / 2);
}

#[test]
fn a_client_that_stalls_after_its_hello_is_reset_after_the_handshake_timeout() {
    check_stall(<[u8]>::len);
}

#[test]
fn a_handshake_that_arrives_byte_by_byte_succeeds() {
    let scene = Scene::new();
    let session = peer::session(crate::support::HOST, peer::good_client_config(&scene.certs));
    let mut client = rustls::StreamOwned::new(session, Drip(socket::connect(scene.ingress.address)));
    echo(&mut client, "drop by drop");
}

#[test]
fn a_handshake_split_over_many_small_records_succeeds() {
    let scene = Scene::new();
    for bytes_max in [32, 100, 1000] {
        let mut config = peer::good_client_config(&scene.certs);
        config.max_fragment_size = Some(bytes_max);
        let record = scene.admitted(config);
        assert_eq!(record["downstream"]["tls"]["version"], "TLSv1.3", "{record}");
    }
}

#[test]
fn a_handshake_message_without_end_is_cut_off_after_a_bounded_number_of_bytes() {
    /// More than the kernel can hold between two sockets.
    const BYTES_MAX: usize = 256 << 20;
    let mut scene = Scene::new();
    let mut client = socket::connect(scene.ingress.address);
    // A ClientHello that claims 65 520 bytes, and records of which each goes on with it.
    let record = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    let mut first = record.clone();
    first[5..9].copy_from_slice(&[1, 0, 0xff, 0xf0]);
    let mut sent = 0;
    let mut next = &first;
    let refusal = loop {
        match client.write_all(next) {
            Ok(()) => sent += next.len(),
            Err(error) => break error.kind(),
        }
        assert!(sent < BYTES_MAX, "nobody stops it");
        next = &record;
    };
    assert!(matches!(refusal, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refusal}");
    drop(client);
    scene.assert_refused(&Refused { outcome: "protocol_violation", detail: "", identity: None });
    scene.assert_nothing_else_recorded();
}
