//! What goes in comes out: in both directions, at any speed, whole.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use socket2::SockRef;

use crate::support::link::Link;
use crate::support::socket::{
    Backend, Ending, connect, echo, ending, expect, noise, read_to_end, write_until_stopped,
};
use crate::support::{self, Certs, HOST, Program, path};

const MIB: usize = 1 << 20;

#[test]
fn a_server_that_speaks_first_is_heard_by_a_client_that_is_silent() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    server.write_all(b"server first").expect("written");
    expect(&mut client, "server first");
}

/// Sends everything and ends; the other end says whether it got it.
fn transfer(mut from: TcpStream, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        from.write_all(&bytes).expect("written");
        from.shutdown(Shutdown::Write).expect("FIN");
    })
}

#[test]
fn both_directions_carry_16_mib_at_once_and_both_records_count_them() {
    let link = Link::new();
    let (client, server) = link.connect();
    let (outward, inward) = (noise(1, 16 * MIB), noise(2, 16 * MIB + 1));
    let ends = [
        (client.try_clone().expect("cloned"), &outward, server.try_clone().expect("cloned")),
        (server, &inward, client),
    ];
    let running = ends.map(|(from, bytes, mut to)| {
        let (sending, expected) = (transfer(from, bytes.clone()), bytes.clone());
        let receiving = std::thread::spawn(move || {
            let (found, ending) = read_to_end(&mut to);
            assert!(found == expected, "{} bytes arrived of {}", found.len(), expected.len());
            assert_eq!(ending, Ending::Clean);
        });
        [sending, receiving]
    });
    running.into_iter().flatten().for_each(|thread| thread.join().expect("carried"));
    for record in link.records() {
        assert_eq!(record["outcome"], "completed", "{record}");
        assert_eq!(record["bytes_received"].as_u64(), Some(outward.len() as u64), "{record}");
        assert_eq!(record["bytes_sent"].as_u64(), Some(inward.len() as u64), "{record}");
    }
}

/// The memory that a process uses now, in bytes.
fn resident_bytes(program: &Program) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).expect("its status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<usize>().ok()).expect("VmRSS") * 1024
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer_and_gets_everything_in_the_end() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    // Small buffers at both ends; what the kernel holds between the gateways is its own affair.
    SockRef::from(&client).set_send_buffer_size(64 << 10).expect("a small buffer");
    SockRef::from(&server).set_recv_buffer_size(64 << 10).expect("a small buffer");
    let before = [&link.egress, &link.ingress].map(resident_bytes);
    let chunk = noise(3, MIB);
    let sent = write_until_stopped(&mut client, &chunk);
    for (program, before) in [&link.egress, &link.ingress].into_iter().zip(before) {
        let grown = resident_bytes(program).saturating_sub(before);
        assert!(grown < 8 * MIB, "{grown} bytes more in the gateway");
    }
    client.shutdown(Shutdown::Write).expect("FIN");
    let mut received = 0;
    let mut found = vec![0; MIB];
    while received < sent {
        let due = MIB.min(sent - received);
        server.read_exact(&mut found[..due]).expect("the rest");
        assert!(found[..due] == chunk[..due], "other bytes after {received}");
        received += due;
    }
    assert_eq!(ending(&mut server), Ending::Clean);
}

#[test]
fn two_hundred_connections_at_once_do_not_mix() {
    let link = Link::to(Backend::echo());
    let mut clients: Vec<_> = (0..200).map(|_| connect(link.egress.address)).collect();
    let text = |index: usize| format!("connection {index}");
    for (index, client) in clients.iter_mut().enumerate() {
        client.write_all(text(index).as_bytes()).expect("written");
    }
    for (index, client) in clients.iter_mut().enumerate().rev() {
        expect(client, &text(index));
    }
    drop(clients);
    let mut ids: Vec<_> = (0..200).map(|_| link.egress.record()["id"].as_u64()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).map(Some).collect::<Vec<_>>(), "one record each");
}

#[test]
fn urgent_data_in_mid_stream_does_not_hold_up_what_comes_behind_it() {
    let link = Link::new();
    for stopped in ["egress", "ingress"] {
        let (mut client, mut server) = link.connect();
        let (from, to, gateway) = match stopped {
            "egress" => (&mut client, &mut server, &link.egress),
            _ => (&mut server, &mut client, &link.ingress),
        };
        // While it is stopped all of it gathers in one receive buffer, which a read returns only up to
        // the mark of the urgent byte.
        gateway.signal("STOP");
        from.write_all(b"before ").expect("written");
        SockRef::from(&*from).send_out_of_band(b"!").expect("sent");
        from.write_all(b"after").expect("written");
        gateway.signal("CONT");
        expect(to, "before after");
        from.write_all(b", and on").expect("written");
        expect(to, ", and on");
    }
}

#[test]
fn ipv6_is_carried_on_every_hop() {
    let (certs, backend) = (Certs::mint(), Backend::at("[::1]:0"));
    let (server, credentials) = (backend.address.to_string(), certs.ingress());
    let listen = ["--listen", "[::1]:0", "--credentials"];
    let ingress = ["ingress", "--backend", &server, "--host", HOST];
    let ingress = Program::start(&[&ingress[..], &listen, &[path(&credentials)]].concat());
    let (upstream, credentials) = (ingress.address.to_string(), certs.egress());
    let egress = ["egress", "--upstream", &upstream, "--sni", HOST];
    let egress = Program::start(&[&egress[..], &listen, &[path(&credentials)]].concat());
    let mut client = connect(egress.address);
    let mut server = backend.accept();
    client.write_all(b"over IPv6").expect("written");
    expect(&mut server, "over IPv6");
    server.write_all(b"and back").expect("written");
    expect(&mut client, "and back");
    let client_address = client.local_addr().expect("its address").to_string();
    drop((client, server));
    let record = egress.record();
    assert_eq!(record["downstream"]["address"], client_address, "{record}");
    assert_eq!(record["upstream"]["address"], ingress.address.to_string(), "{record}");
}

#[test]
fn one_gateway_listens_on_several_addresses() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let more = ["--listen", "127.0.0.2:0", "--listen", "[::1]:0"];
    let egress = Program::egress(&certs, ingress.address, &more);
    let others = [(); 2].map(|()| egress.next_event("ready")["listen"].to_string());
    for address in others.map(|text| text.trim_matches('"').parse().expect("an address")) {
        echo(&mut connect(address), "here too");
    }
    echo(&mut connect(egress.address), "and here");
}

#[test]
fn rsa_credentials_made_by_the_program_itself_work_on_both_sides() {
    let (directory, backend) = (tempfile::tempdir().expect("a directory"), Backend::echo());
    let (code, _, err) =
        support::run(&["dev-certs", "--rsa", "--out", path(directory.path()), "--host", HOST]);
    assert_eq!((code, err.as_str()), (0, ""));
    let certs = Certs { dir: directory };
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let egress = Program::egress(&certs, ingress.address, &[]);
    echo(&mut connect(egress.address), "by RSA");
}
