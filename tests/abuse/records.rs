//! Records that no library would send: empty, tiny, too large, or pieces of a message without end.

use std::io::Write;
use std::net::TcpStream;

use serde_json::Value;

use crate::support::forger::{APPLICATION_DATA, Forger, HANDSHAKE};
use crate::support::link::Link;
use crate::support::socket::{Backend, Ending, ending, expect};
use crate::support::{Certs, Program, peer};

/// An ingress, a client of it that seals its own records, and its backend's end.
struct Scene {
    ingress: Program,
    client: Forger,
    server: TcpStream,
}

impl Scene {
    fn new() -> Self {
        let (certs, backend) = (Certs::mint(), Backend::start());
        let ingress = Program::ingress(&certs, backend.address, &[]);
        let mut client = Forger::connect(ingress.address, peer::good_client_config(&certs));
        client.send(APPLICATION_DATA, b"hello");
        let mut server = backend.accept();
        expect(&mut server, "hello");
        Self { ingress, client, server }
    }

    /// The backend is reset, and the record says what the client did.
    fn assert_refused(mut self, outcome: &str, detail: &str) -> Value {
        assert_eq!(ending(&mut self.server), Ending::Reset);
        let record = self.ingress.record();
        assert_eq!([&record["outcome"], &record["closed_by"]], [outcome, "downstream"], "{record}");
        assert!(record["detail"].as_str().is_some_and(|found| found.contains(detail)), "{record}");
        record
    }
}

#[test]
fn a_few_empty_records_among_others_are_allowed() {
    let mut scene = Scene::new();
    for _ in 0..100 {
        scene.client.send(APPLICATION_DATA, b"");
        scene.client.send(APPLICATION_DATA, b"data");
        expect(&mut scene.server, "data");
    }
}

#[test]
fn empty_records_without_end_are_refused() {
    let mut scene = Scene::new();
    let burst: Vec<u8> = (0..1_000).flat_map(|_| scene.client.record(APPLICATION_DATA, b"")).collect();
    scene.client.socket.write_all(&burst).expect("written");
    scene.assert_refused("protocol_violation", "records without data");
}

#[test]
fn a_record_with_more_plaintext_than_a_record_may_have_is_refused() {
    let mut scene = Scene::new();
    scene.client.send(APPLICATION_DATA, &vec![b'x'; (16 << 10) + 1]);
    scene.assert_refused("bad_record", "");
}

#[test]
fn a_record_that_announces_more_than_a_record_may_have_is_refused_before_it_has_arrived() {
    let mut scene = Scene::new();
    scene.client.socket.write_all(&[23, 3, 3, 0xff, 0xff, 0, 0, 0]).expect("written");
    scene.assert_refused("bad_record", "excess record size");
}

#[test]
fn a_message_of_the_protocol_without_end_is_refused_while_it_is_small() {
    let mut scene = Scene::new();
    // A session ticket of 16 MiB, which a client has no business to send, in records that are allowed.
    scene.client.send(HANDSHAKE, &[4, 0xff, 0xff, 0xff]);
    for _ in 0..1_000 {
        let piece = scene.client.record(HANDSHAKE, &[0; 1 << 10]);
        if scene.client.socket.write_all(&piece).is_err() {
            break;
        }
    }
    scene.assert_refused("protocol_violation", "");
}

#[test]
fn new_keys_without_end_are_refused() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
    client.write_all(b"hello").expect("written");
    let mut server = backend.accept();
    expect(&mut server, "hello");
    for _ in 0..1_000 {
        client.conn.refresh_traffic_keys().expect("renewed");
        if client.conn.complete_io(&mut client.sock).is_err() {
            break;
        }
    }
    assert_eq!(ending(&mut server), Ending::Reset);
    let record = ingress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["protocol_violation", "downstream"], "{record}");
}

#[test]
fn single_bytes_in_turn_arrive_one_by_one() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    for _ in 0..2_000 {
        client.write_all(b"?").expect("written");
        expect(&mut server, "?");
        server.write_all(b"!").expect("written");
        expect(&mut client, "!");
    }
}

#[test]
fn single_bytes_both_ways_at_once_arrive_in_order() {
    const COUNT: usize = 20_000;
    let link = Link::new();
    let (client, server) = link.connect();
    let text: Vec<u8> = (0..COUNT).map(|index| b"abcdefghijklmnopqrstuvw"[index % 23]).collect();
    let text = String::from_utf8(text).expect("ASCII");
    let ends = [(&client, &server), (&server, &client)];
    std::thread::scope(|scope| {
        for (mut from, mut to) in ends {
            let text = &text;
            scope.spawn(move || {
                for byte in text.as_bytes() {
                    from.write_all(&[*byte]).expect("written");
                }
            });
            scope.spawn(move || expect(&mut to, text));
        }
    });
}
