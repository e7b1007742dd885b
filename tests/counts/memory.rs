//! The memory of the real program: at rest, for each idle connection, and after a burst.

use std::io::Write;
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::link::Link;
use crate::support::socket::expect;
use crate::support::{anonymous_bytes, wait_until};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What an idle connection costs a gateway, its TLS session and its record included.
const IDLE_BYTES_MAX: usize = 6 * KIB;
/// What a gateway needs that had connections and has none: buffers and tables, not its code.
const REST_BYTES_MAX: usize = 10 * MIB;

/// What a gateway may keep of a burst, some seconds later.
const KEPT_BYTES_MAX: usize = 2 * MIB;

/// Connections of a burst.
const CONNECTIONS: usize = 2_000;
/// Connections before anything is measured: code is paged in, buffers and tables are there.
const WARM_UP: usize = 100;

/// Two sockets a connection are the test's.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("raised");
}

/// Opens connections that carry a byte each way and are silent then.
fn open(link: &Link, count: usize) -> Vec<(TcpStream, TcpStream)> {
    let connected = (0..count).map(|_| {
        let (mut client, mut server) = link.connect();
        client.write_all(b"?").expect("written");
        expect(&mut server, "?");
        server.write_all(b"!").expect("written");
        expect(&mut client, "!");
        (client, server)
    });
    connected.collect()
}

/// Ends connections and waits until both gateways have recorded it.
fn close(link: &Link, connections: Vec<(TcpStream, TcpStream)>) {
    let count = connections.len();
    drop(connections);
    for program in [&link.egress, &link.ingress] {
        (0..count).for_each(|_| drop(program.record()));
    }
}

#[test]
fn an_idle_connection_costs_little_and_what_a_burst_took_is_given_back() {
    raise_descriptor_limit();
    let link = Link::new();
    let sides = || [("egress", &link.egress), ("ingress", &link.ingress)];
    close(&link, open(&link, WARM_UP));
    let at_rest = sides().map(|(_, program)| anonymous_bytes(program));
    let burst = open(&link, CONNECTIONS);
    for ((side, program), at_rest) in sides().into_iter().zip(at_rest) {
        assert!(at_rest <= REST_BYTES_MAX, "{side}: {at_rest} bytes at rest");
        let each = anonymous_bytes(program).saturating_sub(at_rest) / CONNECTIONS;
        assert!(each <= IDLE_BYTES_MAX, "{side}: {each} bytes an idle connection");
    }
    close(&link, burst);
    for ((side, program), at_rest) in sides().into_iter().zip(at_rest) {
        let given_back = || anonymous_bytes(program) <= at_rest + KEPT_BYTES_MAX;
        wait_until(&format!("the memory of the burst to be given back by the {side}"), given_back);
    }
}
