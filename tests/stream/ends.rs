//! How a stream ends is how it ends at the other side: a FIN as FIN, a reset as reset, and whatever
//! else cuts it short as reset.

use std::io::Write;
use std::net::Shutdown;

use crate::support::link::Link;
use crate::support::peer::{self, TlsClient};
use crate::support::socket::{
    Backend, Ending, ending, expect, noise, read_to_end, reset, write_until_stopped,
};
use crate::support::{Certs, Program};

const COMPLETED_BY_CLIENT: [[&str; 2]; 2] = [["completed", "downstream"]; 2];
const COMPLETED_BY_SERVER: [[&str; 2]; 2] = [["completed", "upstream"]; 2];

#[test]
fn a_client_that_ends_its_direction_still_receives_a_mebibyte() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    client.write_all(b"the question").expect("written");
    client.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(read_to_end(&mut server), (b"the question".to_vec(), Ending::Clean));
    let answer = noise(4, 1 << 20);
    server.write_all(&answer).expect("written");
    drop(server);
    let (found, ending) = read_to_end(&mut client);
    assert!(found == answer, "{} bytes arrived", found.len());
    assert_eq!(ending, Ending::Clean);
    link.assert_recorded(COMPLETED_BY_CLIENT);
}

#[test]
fn a_server_that_ends_its_direction_still_receives_a_mebibyte() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    server.write_all(b"goodbye").expect("written");
    server.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(read_to_end(&mut client), (b"goodbye".to_vec(), Ending::Clean));
    let rest = noise(5, 1 << 20);
    client.write_all(&rest).expect("written");
    drop(client);
    let (found, ending) = read_to_end(&mut server);
    assert!(found == rest, "{} bytes arrived", found.len());
    assert_eq!(ending, Ending::Clean);
    link.assert_recorded(COMPLETED_BY_SERVER);
}

#[test]
fn a_client_that_resets_resets_the_server() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    client.write_all(b"so far").expect("written");
    expect(&mut server, "so far");
    reset(client);
    assert_eq!(ending(&mut server), Ending::Reset);
    link.assert_recorded([["reset", "downstream"]; 2]);
}

#[test]
fn a_server_that_resets_resets_the_client() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    server.write_all(b"so far").expect("written");
    expect(&mut client, "so far");
    reset(server);
    assert_eq!(ending(&mut client), Ending::Reset);
    link.assert_recorded([["reset", "upstream"]; 2]);
}

#[test]
fn a_client_that_resets_after_it_ended_its_direction_resets_the_server() {
    let link = Link::new();
    let (client, mut server) = link.connect();
    client.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(ending(&mut server), Ending::Clean);
    reset(client);
    // The server has had its FIN and says nothing: the reset shows in what it may still send.
    crate::support::wait_until("the reset at the server", || server.write_all(b"x").is_err());
    link.assert_recorded([["reset", "downstream"]; 2]);
}

#[test]
fn a_connection_that_is_reset_after_half_of_it_ended_is_over_without_another_byte() {
    let link = Link::new();
    let (client, mut server) = link.connect();
    client.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(ending(&mut server), Ending::Clean);
    reset(client);
    // Nobody sends anything any more, and still it must not stay open for ever.
    link.assert_recorded([["reset", "downstream"]; 2]);
}

#[test]
fn a_client_that_resets_while_the_server_does_not_read_is_over_all_the_same() {
    let link = Link::new();
    let (mut client, mut server) = link.connect();
    write_until_stopped(&mut client, &noise(6, 1 << 20));
    reset(client);
    let record = link.egress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["reset", "downstream"], "{record}");
    let record = link.ingress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["reset", "downstream"], "{record}");
    assert_eq!(read_to_end(&mut server).1, Ending::Reset);
}

/// An ingress, a TLS client of it and its backend's end.
struct Direct {
    ingress: Program,
    client: TlsClient,
    server: std::net::TcpStream,
}

impl Direct {
    fn new(more: &[&str]) -> Self {
        let (certs, backend) = (Certs::mint(), Backend::start());
        let ingress = Program::ingress(&certs, backend.address, more);
        let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
        client.write_all(b"hello").expect("written");
        let mut server = backend.accept();
        expect(&mut server, "hello");
        Self { ingress, client, server }
    }

    fn assert_recorded(&self, expected: [&str; 2]) {
        let record = self.ingress.record();
        assert_eq!([&record["outcome"], &record["closed_by"]], expected, "{record}");
    }
}

#[test]
fn tls_that_ends_without_close_notify_is_a_reset_for_the_backend() {
    let mut direct = Direct::new(&[]);
    direct.client.sock.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(ending(&mut direct.server), Ending::Reset);
    direct.assert_recorded(["truncated", "downstream"]);
}

#[test]
fn tls_that_ends_in_the_middle_of_a_record_is_a_reset_for_the_backend() {
    let mut direct = Direct::new(&[]);
    // The header of a record of application data, and half of what it announces.
    direct.client.sock.write_all(&[&[23, 3, 3, 0, 200][..], &[0; 100]].concat()).expect("written");
    direct.client.sock.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(ending(&mut direct.server), Ending::Reset);
    direct.assert_recorded(["truncated", "downstream"]);
}

#[test]
fn with_on_truncation_fin_it_is_a_clean_end_and_recorded_as_truncated_all_the_same() {
    let mut direct = Direct::new(&["--on-truncation", "fin"]);
    direct.client.sock.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(ending(&mut direct.server), Ending::Clean);
    direct.server.write_all(b"an answer").expect("written");
    expect(&mut direct.client, "an answer");
    direct.server.shutdown(Shutdown::Both).expect("FIN");
    assert_eq!(ending(&mut direct.client), Ending::Clean);
    direct.assert_recorded(["truncated", "downstream"]);
}

#[test]
fn close_notify_is_a_clean_end_for_the_backend_with_or_without_fin() {
    for fin in [true, false] {
        let mut direct = Direct::new(&[]);
        direct.client.conn.send_close_notify();
        direct.client.conn.complete_io(&mut direct.client.sock).expect("close_notify");
        if fin {
            direct.client.sock.shutdown(Shutdown::Write).expect("FIN");
        }
        assert_eq!(ending(&mut direct.server), Ending::Clean);
        direct.server.write_all(b"an answer").expect("written");
        direct.server.shutdown(Shutdown::Both).expect("FIN");
        assert_eq!(read_to_end(&mut direct.client), (b"an answer".to_vec(), Ending::Clean));
        direct.assert_recorded(["completed", "downstream"]);
    }
}

#[test]
fn a_tls_client_is_sent_close_notify_before_fin_when_the_backend_ends() {
    let mut direct = Direct::new(&[]);
    direct.server.shutdown(Shutdown::Write).expect("FIN");
    // Not truncated: close_notify came before the FIN.
    assert_eq!(ending(&mut direct.client), Ending::Clean);
    direct.client.write_all(b"still here").expect("written");
    expect(&mut direct.server, "still here");
}

#[test]
fn a_tls_client_that_resets_resets_the_backend() {
    let direct = Direct::new(&[]);
    reset(direct.client.sock.try_clone().expect("cloned"));
    let Direct { ingress, client, mut server } = direct;
    drop(client);
    assert_eq!(ending(&mut server), Ending::Reset);
    assert_eq!(ingress.record()["outcome"], "reset");
}

#[test]
fn a_wire_that_is_cut_between_the_gateways_is_a_reset_at_both_ends() {
    let (link, wire) = Link::over_a_wire();
    let (mut client, mut server) = link.connect();
    client.write_all(b"so far").expect("written");
    expect(&mut server, "so far");
    wire.cut();
    client.write_all(b"lost").expect("written");
    assert_eq!(ending(&mut server), Ending::Reset);
    assert_eq!(ending(&mut client), Ending::Reset);
    link.assert_recorded([["truncated", "upstream"], ["truncated", "downstream"]]);
}

#[test]
fn a_gateway_that_is_killed_is_a_reset_at_the_other_gateways_application() {
    let mut link = Link::new();
    let (mut client, mut server) = link.connect();
    client.write_all(b"so far").expect("written");
    expect(&mut server, "so far");
    link.egress.signal("KILL");
    link.egress.wait();
    assert_eq!(ending(&mut server), Ending::Reset);
    assert_eq!(link.ingress.record()["closed_by"], "downstream");

    let mut link = Link::new();
    let (mut client, mut server) = link.connect();
    server.write_all(b"so far").expect("written");
    expect(&mut client, "so far");
    link.ingress.signal("KILL");
    link.ingress.wait();
    assert_eq!(ending(&mut client), Ending::Reset);
    assert_eq!(link.egress.record()["closed_by"], "upstream");
}

#[test]
fn a_gateway_that_is_killed_in_mid_transfer_is_never_a_clean_end() {
    let mut link = Link::new();
    let (client, mut server) = link.connect();
    let mut sending = client.try_clone().expect("cloned");
    // It stops when the connection breaks.
    let chunk = noise(7, 64 << 10);
    let writer = std::thread::spawn(move || while sending.write_all(&chunk).is_ok() {});
    let mut first = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut server, &mut first).expect("a mebibyte");
    link.egress.signal("KILL");
    let (_, ending) = read_to_end(&mut server);
    assert_eq!(ending, Ending::Reset);
    link.egress.wait();
    writer.join().expect("the writer");
}
