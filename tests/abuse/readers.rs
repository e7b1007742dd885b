//! Peers that do not read: what they keep waiting costs a bounded amount of memory, and nobody else.

use std::net::TcpStream;

use socket2::SockRef;

use crate::support::link::Link;
use crate::support::socket::{echo, noise, write_until_stopped};
use crate::support::{Program, anonymous_bytes};

const KIB: usize = 1 << 10;
const CONNECTIONS: usize = 8;

/// What a connection of which neither end reads may hold: for each direction one read, sealed, and the part
/// of a record or message that is not whole.
const STUCK_BYTES_MAX: usize = 2 * (256 + 64 + 16) * KIB;

/// Small buffers at the ends; what the kernel holds between the gateways is its own affair.
fn small(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(64 << 10).expect("a small buffer");
    socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
}

#[test]
fn connections_of_which_neither_end_reads_hold_a_bounded_amount() {
    let link = Link::new();
    let sides = || [("egress", &link.egress), ("ingress", &link.ingress)];
    let (mut first, mut other) = link.connect();
    let at_rest = sides().map(|(_, program): (_, &Program)| anonymous_bytes(program));
    let mut ends: Vec<_> = (0..CONNECTIONS).map(|_| link.connect()).collect();
    let chunk = noise(11, 1 << 20);
    std::thread::scope(|scope| {
        for (client, server) in &mut ends {
            for stream in [client, server] {
                small(stream);
                scope.spawn(|| write_until_stopped(stream, &chunk));
            }
        }
    });
    for ((side, program), at_rest) in sides().into_iter().zip(at_rest) {
        let each = anonymous_bytes(program).saturating_sub(at_rest) / CONNECTIONS;
        assert!(each <= STUCK_BYTES_MAX, "{side}: {each} bytes a stuck connection");
    }
    // Others are served as ever: one that was there, and a new one.
    let serving =
        std::thread::spawn(move || std::io::copy(&mut other.try_clone().expect("cloned"), &mut other));
    echo(&mut first, "still here");
    drop(first);
    serving.join().expect("served").expect("a clean end");
}
