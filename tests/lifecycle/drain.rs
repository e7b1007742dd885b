//! Signals: what open connections are granted, and what the exit code says of it.

use std::io::ErrorKind;
use std::net::TcpStream;

use crate::support::peer::{self, TlsClient};
use crate::support::socket::{self, Backend, Ending, connect, echo, ending};
use crate::support::{Certs, Program};

/// An ingress with an open connection to a backend that sends back what it gets.
struct Busy {
    ingress: Program,
    client: TlsClient,
    _backend: Backend,
}

impl Busy {
    fn new(more: &[&str]) -> Self {
        let (certs, backend) = (Certs::mint(), Backend::echo());
        let ingress = Program::ingress(&certs, backend.address, more);
        let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
        echo(&mut client, "open");
        Self { ingress, client, _backend: backend }
    }

    /// Once it says that it stopped accepting, it has.
    fn wait_until_closed_to_new_clients(&self) {
        self.ingress.wait_for_stderr("stopped accepting");
        let refused = TcpStream::connect(self.ingress.address).expect_err("a refusal");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    /// The connection was cut: a reset, one record that says so, and exit code 1.
    fn assert_cut(mut self) {
        assert_eq!(ending(&mut self.client), Ending::Reset);
        let record = self.ingress.record();
        assert_eq!([&record["outcome"], &record["closed_by"]], ["drained", "gateway"], "{record}");
        assert_eq!(self.ingress.wait().code(), Some(1));
    }
}

#[test]
fn a_gateway_without_connections_ends_at_once_with_success() {
    for signal in ["TERM", "INT"] {
        let certs = Certs::mint();
        let mut ingress = Program::ingress(&certs, ([127, 0, 0, 1], 1).into(), &["--drain-timeout", "1h"]);
        ingress.signal(signal);
        assert_eq!(ingress.wait().code(), Some(0), "{signal}: {}", ingress.stderr());
    }
}

#[test]
fn a_connection_that_ends_in_time_is_granted_its_end_and_new_ones_are_refused_meanwhile() {
    for signal in ["TERM", "INT"] {
        let mut busy = Busy::new(&["--drain-timeout", "1h"]);
        busy.ingress.signal(signal);
        busy.wait_until_closed_to_new_clients();
        echo(&mut busy.client, "still served");
        peer::half_close(&mut busy.client);
        assert_eq!(ending(&mut busy.client), Ending::Clean);
        assert_eq!(busy.ingress.record()["outcome"], "completed");
        assert_eq!(busy.ingress.wait().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_connection_that_does_not_end_is_reset_after_the_drain_timeout_and_the_exit_code_says_so() {
    for signal in ["TERM", "INT"] {
        let busy = Busy::new(&["--drain-timeout", "300ms"]);
        busy.ingress.signal(signal);
        busy.assert_cut();
    }
}

#[test]
fn a_second_signal_cuts_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let busy = Busy::new(&["--drain-timeout", "1h"]);
        busy.ingress.signal(first);
        busy.wait_until_closed_to_new_clients();
        busy.ingress.signal(second);
        busy.assert_cut();
    }
}

#[test]
fn a_drain_timeout_of_nothing_cuts_at_once() {
    let busy = Busy::new(&["--drain-timeout", "0s"]);
    busy.ingress.signal("TERM");
    busy.assert_cut();
}

#[test]
fn a_handshake_under_way_is_cut_like_any_connection() {
    let certs = Certs::mint();
    let more = ["--drain-timeout", "300ms", "--handshake-timeout", "1h"];
    let mut ingress = Program::ingress(&certs, ([127, 0, 0, 1], 1).into(), &more);
    let mut silent = connect(ingress.address);
    // The next one is accepted behind it.
    socket::reset(connect(ingress.address));
    assert_eq!(ingress.record()["id"], 2);
    ingress.signal("TERM");
    assert_eq!(ending(&mut silent), Ending::Reset);
    let record = ingress.record();
    assert_eq!([&record["outcome"], &record["id"].to_string().into()], ["drained", "1"], "{record}");
    assert_eq!(ingress.wait().code(), Some(1));
}

#[test]
fn a_hangup_does_not_end_it() {
    let mut busy = Busy::new(&[]);
    busy.ingress.signal("HUP");
    echo(&mut busy.client, "still served");
    peer::half_close(&mut busy.client);
    assert_eq!(busy.ingress.stop().code(), Some(0));
}
