//! One connection that keeps a worker as busy as it can, and its neighbours, which get their turn all the same.
//!
//! Counted, not timed: so many requests of a neighbour are answered while the busy one sends so much.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::forger::{APPLICATION_DATA, Forger};
use crate::support::link::Link;
use crate::support::socket::{connect, expect};
use crate::support::{Certs, Program, peer, socket};

const MIB: usize = 1 << 20;

/// Requests that are answered until told to stop.
fn requests(client: &mut TcpStream, server: &mut TcpStream, stop: &AtomicBool) -> usize {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        client.write_all(b"request").expect("written");
        expect(server, "request");
        server.write_all(b"answer").expect("written");
        expect(client, "answer");
        answered += 1;
    }
    answered
}

/// How many requests of a neighbour are answered while this goes on.
fn meanwhile(mut client: TcpStream, mut server: TcpStream, busy: impl FnOnce()) -> usize {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| requests(&mut client, &mut server, &stop));
        busy();
        stop.store(true, Ordering::Relaxed);
        neighbour.join().expect("served")
    })
}

/// Reads so many bytes and forgets them.
fn discard(mut stream: TcpStream, length: usize) {
    let mut buffer = vec![0; MIB];
    let mut left = length;
    while left > 0 {
        left -= stream.read(&mut buffer).expect("read");
    }
}

#[test]
fn a_bulk_transfer_leaves_a_neighbour_on_the_same_worker_its_turns() {
    const SENT: usize = 256 * MIB;
    let link = Link::with(&["--workers", "1"]);
    let (client, server) = link.connect();
    let (mut from, to) = link.connect();
    let answered = meanwhile(client, server, || {
        let reading = std::thread::spawn(move || discard(to, SENT));
        let chunk = vec![7; MIB];
        (0..SENT / MIB).for_each(|_| from.write_all(&chunk).expect("written"));
        reading.join().expect("received");
    });
    // A request crosses a worker four times, and each time it waits for a turn of the transfer at most.
    assert!(answered >= SENT / (16 * MIB), "{answered} requests in {SENT} bytes");
}

#[test]
fn a_flood_of_tiny_records_leaves_a_neighbour_on_the_same_worker_its_turns() {
    const RECORDS: usize = 400_000;
    let (certs, backend) = (Certs::mint(), socket::Backend::start());
    let ingress = Program::ingress(&certs, backend.address, &["--workers", "1"]);
    let egress = Program::egress(&certs, ingress.address, &[]);
    let client = connect(egress.address);
    let server = backend.accept();
    let mut forger = Forger::connect(ingress.address, peer::good_client_config(&certs));
    let flood: Vec<u8> = (0..RECORDS).flat_map(|_| forger.record(APPLICATION_DATA, b"x")).collect();
    let to = backend.accept();
    let answered = meanwhile(client, server, || {
        let reading = std::thread::spawn(move || discard(to, RECORDS));
        forger.socket.write_all(&flood).expect("written");
        reading.join().expect("received");
    });
    // A request crosses this worker twice, and each time it waits for half a mebibyte of the flood at most.
    assert!(answered >= flood.len() / (2 * MIB), "{answered} requests in {} bytes", flood.len());
}
