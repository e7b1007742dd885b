//! What a connection and a request take from the allocator, counted in this process: both gateways run in
//! it, so there is one test here and nothing else that allocates while it counts.
//!
//! Only Rust's allocations are seen, not those that the cryptography makes in C.

#[path = "../support/mod.rs"]
mod support;

use std::alloc::System;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use clap::Parser as _;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::mpsc;
use twinlock::cli::{Cli, Command};
use twinlock::config::flags;
use twinlock::gateway::{Gateway, Signal};
use twinlock::plan::LogFormat;
use twinlock::telemetry::access_log::AccessLog;
use twinlock::telemetry::lines::Lines;

use support::{Certs, HOST, PATIENCE, path, socket};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A connection through both gateways, its two handshakes, its records and its end included.
const OF_CONNECTION_MAX: usize = 400;

/// Allocations so far, and buffers that were made larger.
fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// A gateway of this process; ends with the test.
struct InProcess {
    address: SocketAddr,
    lines: Receiver<String>,
    _signals: mpsc::Sender<Signal>,
}

impl InProcess {
    fn start(arguments: &[&str]) -> Self {
        let more = ["--listen", "127.0.0.1:0", "--workers", "1", "--log-format", "json"];
        let cli = Cli::try_parse_from([&["twinlock"], arguments, &more].concat()).expect("options");
        let configuration = if let Command::Egress(given) = &cli.command {
            flags::egress(given)
        } else if let Command::Ingress(given) = &cli.command {
            flags::ingress(given)
        } else {
            panic!("no gateway: {:?}", cli.command)
        };
        let gateway = Gateway::prepare(configuration.expect("a configuration"), None).expect("prepared");
        let (sender, lines) = channel();
        let (signals, obeyed) = mpsc::channel(1);
        let (records, _) = Lines::start("access log", Told(sender)).expect("a writer");
        let (events, _) = Lines::start("operational log", io::sink()).expect("a writer");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let log = AccessLog::new(LogFormat::Json, records);
            runtime.expect("a runtime").block_on(gateway.run(log, events, obeyed)).expect("it runs");
        });
        let ready = lines.recv_timeout(PATIENCE).expect("a ready line");
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
        let address = ready["listen"].as_str().expect("an address").parse().expect("an address");
        Self { address, lines, _signals: signals }
    }

    /// Waits for the record of a connection.
    fn ended(&self) {
        self.lines.recv_timeout(PATIENCE).expect("a record");
    }
}

/// Passes on what is written to it.
struct Told(Sender<String>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(bytes).lines() {
            // A test that has ended is not interested any more.
            let _ = self.0.send(line.to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers 128 bytes with 512, one connection after the other.
fn serve(listener: &TcpListener) {
    let (mut request, answer) = ([0; 128], [2; 512]);
    while let Ok((mut stream, _)) = listener.accept() {
        while stream.read_exact(&mut request).is_ok() && stream.write_all(&answer).is_ok() {}
    }
}

fn request(stream: &mut TcpStream) {
    stream.write_all(&[1; 128]).expect("written");
    stream.read_exact(&mut [0; 512]).expect("an answer");
}

/// Allocations of each of so many repetitions, rounded: a clock may tick meanwhile.
fn each(count: usize, mut work: impl FnMut()) -> usize {
    let before = allocations();
    (0..count).for_each(|_| work());
    (allocations() - before + count / 2) / count
}

#[test]
fn a_request_allocates_nothing_and_a_connection_little() {
    let certs = Certs::mint();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || serve(&listener));
    let (ingress, egress) = (certs.ingress(), certs.egress());
    let ingress =
        InProcess::start(&["ingress", "--backend", &server, "--host", HOST, "--credentials", path(&ingress)]);
    let upstream = ingress.address.to_string();
    let egress =
        InProcess::start(&["egress", "--upstream", &upstream, "--sni", HOST, "--credentials", path(&egress)]);

    let connection = || {
        let mut client = socket::connect(egress.address);
        request(&mut client);
        drop(client);
        egress.ended();
        ingress.ended();
    };
    // What is made once: configurations of TLS, buffers, tables.
    each(20, connection);
    let of_connection = each(100, connection);

    let mut client = socket::connect(egress.address);
    each(100, || request(&mut client));
    let of_request = each(2_000, || request(&mut client));

    // A request and its answer, two records on the hop between the gateways, need none.
    assert_eq!(of_request, 0, "allocations a request");
    assert!(of_connection <= OF_CONNECTION_MAX, "{of_connection} allocations a connection");
}
