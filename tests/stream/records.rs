//! TLS records between the gateways and their peers: damaged, tiny, or of the protocol itself.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::authority::Identity;
use crate::support::link::Link;
use crate::support::peer::{self, TlsServer};
use crate::support::socket::{self, Backend, Ending, connect, echo, ending, expect};
use crate::support::{Certs, Program};

#[test]
fn a_damaged_record_is_a_reset_at_both_ends_and_recorded_as_bad_record() {
    let (link, wire) = Link::over_a_wire();
    let (mut client, mut server) = link.connect();
    client.write_all(b"so far").expect("written");
    expect(&mut server, "so far");
    wire.flip_a_bit();
    client.write_all(b"changed on the way").expect("written");
    assert_eq!(ending(&mut server), Ending::Reset);
    assert_eq!(ending(&mut client), Ending::Reset);
    let [egress, ingress] = link.records();
    assert_eq!([&ingress["outcome"], &ingress["closed_by"]], ["bad_record", "downstream"], "{ingress}");
    assert_eq!([&egress["outcome"], &egress["closed_by"]], ["alert_received", "upstream"], "{egress}");
    let detail = egress["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("bad_record_mac"), "{egress}");
}

#[test]
fn plaintext_behind_the_handshake_is_a_reset_for_the_backend() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
    client.write_all(b"hello").expect("written");
    let mut server = backend.accept();
    expect(&mut server, "hello");
    client.sock.write_all(b"SELECT 1; SELECT 2; SELECT 3").expect("written");
    assert_eq!(ending(&mut server), Ending::Reset);
    assert_eq!(ingress.record()["closed_by"], "downstream");
}

#[test]
fn ten_thousand_records_of_one_byte_arrive_whole() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).expect("a handshake");
    }
    let text: Vec<u8> = (0..10_000_u32).map(|index| (index % 251) as u8).collect();
    client.conn.set_buffer_limit(None);
    let mut wire = Vec::new();
    for byte in &text {
        client.conn.writer().write_all(&[*byte]).expect("sealed");
        while client.conn.wants_write() {
            client.conn.write_tls(&mut wire).expect("a record");
        }
    }
    assert!(wire.len() > 10_000 * 20, "one record a byte");
    client.sock.write_all(&wire).expect("written");
    let mut server = backend.accept();
    let mut found = vec![0; text.len()];
    server.read_exact(&mut found).expect("all of it");
    assert!(found == text, "other bytes");
}

#[test]
fn a_client_that_renews_its_keys_in_mid_stream_is_answered_and_disturbs_nothing() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
    echo(&mut client, "old keys");
    for _ in 0..3 {
        client.conn.refresh_traffic_keys().expect("renewed");
        echo(&mut client, "new keys");
    }
}

/// Shakes hands and keeps back what the server would say next: its session tickets, as records.
fn accept_and_keep_tickets(listener: &TcpListener, config: ServerConfig) -> (TlsServer, Vec<u8>) {
    let (mut socket, _) = listener.accept().expect("a connection");
    socket::be_patient(&socket);
    let mut session = ServerConnection::new(Arc::new(config)).expect("a session");
    while session.is_handshaking() {
        while session.wants_write() {
            session.write_tls(&mut socket).expect("written");
        }
        session.read_tls(&mut socket).expect("read");
        session.process_new_packets().expect("a handshake");
    }
    let mut tickets = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut tickets).expect("a record");
    }
    (StreamOwned::new(session, socket), tickets)
}

#[test]
fn a_message_of_the_protocol_that_arrives_in_pieces_holds_nothing_up() {
    let certs = Certs::mint();
    let mut config = peer::server_config(&Identity::of(&certs.ingress()), None);
    // A session ticket is then longer than a record.
    config.max_fragment_size = Some(32);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let egress = Program::egress(&certs, listener.local_addr().expect("its address"), &[]);
    let mut client = connect(egress.address);
    let (mut server, tickets) = accept_and_keep_tickets(&listener, config);
    let first = 5 + usize::from(u16::from_be_bytes([tickets[3], tickets[4]]));
    assert!(tickets.len() > 2 * first, "a ticket in several records");
    server.sock.write_all(&tickets[..first]).expect("written");
    // The other direction goes on while half a message waits for its rest; when the first of these has
    // arrived, the half has been read.
    for text in ["meanwhile", "and again"] {
        client.write_all(text.as_bytes()).expect("written");
        expect(&mut server, text);
    }
    server.sock.write_all(&tickets[first..]).expect("written");
    server.write_all(b"and on").expect("written");
    expect(&mut client, "and on");
}

#[test]
fn both_ends_name_a_session_alike_and_no_two_sessions_alike() {
    let link = Link::new();
    let mut names = Vec::new();
    for _ in 0..3 {
        let (client, server) = link.connect();
        drop((client, server));
        let name = |record: Value, hop: &str| record[hop]["tls"]["session"].as_str().map(str::to_owned);
        let [egress, ingress] =
            [name(link.egress.record(), "upstream"), name(link.ingress.record(), "downstream")];
        assert!(egress.as_ref().is_some_and(|name| name.len() == 32), "{egress:?}");
        assert_eq!(egress, ingress);
        assert!(!names.contains(&egress));
        names.push(egress);
    }
}
