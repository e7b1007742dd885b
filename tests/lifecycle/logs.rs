//! What it says, in both formats, and that nobody has to listen.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use crate::support::peer;
use crate::support::socket::{Backend, Ending, attempt, connect, echo};
use crate::support::{self, Certs, HOST, Program, Reader, path};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}

#[test]
fn the_ready_line_names_the_port_that_the_kernel_chose() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    assert_ne!(ingress.address.port(), 0);
    let ready: serde_json::Value = serde_json::from_str(&ingress.ready).expect("JSON");
    assert_eq!([&ready["event"], &ready["role"]], ["ready", "ingress"], "{ready}");
    assert_eq!(ready["hosts"], serde_json::json!([HOST]), "{ready}");
    assert_eq!(ready["upstream"], backend.address.to_string(), "{ready}");
    echo(&mut peer::connect(ingress.address, peer::good_client_config(&certs)), "there");
}

fn ingress_arguments(backend: &str, credentials: &str) -> Vec<String> {
    let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", backend, "--host", HOST];
    arguments.into_iter().chain(["--credentials", credentials]).map(str::to_owned).collect()
}

#[test]
fn text_is_the_format_unless_told_otherwise() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let arguments = ingress_arguments(&backend.address.to_string(), path(&certs.ingress()));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ingress = Program::launch(support::command(&arguments), Reader::Reads, Reader::Reads);
    let expected = format!(
        "twinlock ingress ready: listening on {} for {HOST}, backend {}\n",
        ingress.address, backend.address
    );
    assert_eq!(ingress.ready, expected);
    let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
    echo(&mut client, "there");
    peer::half_close(&mut client);
    let record = ingress.next_line("record");
    for part in [" ingress id=1 ", " received=5 sent=5 ", " outcome=completed closed_by=downstream\n"] {
        assert!(record.contains(part), "expected {part:?} in {record}");
    }
}

/// An egress whose upstream has no address, so that every connection is a record and, at this level, more
/// than one line of the operational log.
fn egress(certs: &Certs, output: Reader, errors: Reader) -> Program {
    let mut command = egress_to("absent.invalid", certs);
    command.env("TWINLOCK_LOG", "debug");
    Program::launch(command, output, errors)
}

fn egress_to(upstream: &str, certs: &Certs) -> Command {
    let credentials = certs.egress();
    let arguments = ["egress", "--listen", "127.0.0.1:0", "--upstream", upstream, "--sni", HOST];
    let more = ["--credentials", path(&credentials), "--log-format", "json"];
    support::command(&[&arguments[..], &more].concat())
}

/// More records, and more warnings, than a pipe holds (64 KiB).
const MANY: usize = 600;

fn connect_many(egress: &Program, times: usize) {
    for _ in 0..times {
        assert_eq!(attempt(egress.address, b""), Ending::Reset);
    }
}

#[test]
fn a_standard_output_that_nobody_reads_holds_nothing_up() {
    let certs = Certs::mint();
    let mut egress = egress(&certs, Reader::Sleeps, Reader::Reads);
    connect_many(&egress, MANY);
    // Nor does it keep the process from its end.
    assert_eq!(egress.stop().code(), Some(0));
}

#[test]
fn a_standard_output_whose_reader_is_gone_ends_nothing_and_is_told_once() {
    let certs = Certs::mint();
    let mut egress = egress(&certs, Reader::Leaves, Reader::Reads);
    connect_many(&egress, MANY);
    egress.wait_for_stderr("access log cannot be written");
    assert_eq!(egress.stop().code(), Some(0));
    assert_eq!(egress.said("access log cannot be written"), 1);
}

#[test]
fn a_standard_error_that_nobody_reads_holds_nothing_up() {
    let certs = Certs::mint();
    let mut egress = egress(&certs, Reader::Reads, Reader::Sleeps);
    connect_many(&egress, MANY);
    assert_eq!(egress.stop_and_take_records().len(), MANY);
}

#[test]
fn a_standard_error_whose_reader_is_gone_ends_nothing_and_costs_no_record() {
    let certs = Certs::mint();
    let mut egress = egress(&certs, Reader::Reads, Reader::Leaves);
    connect_many(&egress, MANY);
    let records = egress.stop_and_take_records();
    assert_eq!(records.len(), MANY);
    assert!(records.iter().all(|record| record["outcome"] == "unresolved"), "{:?}", records[0]);
}

#[test]
fn more_warnings_than_are_kept_are_dropped_and_do_not_keep_it_from_its_end() {
    /// Times a line of 800 bytes and more: above the 4 MiB that wait for a reader.
    const FLOOD: usize = 5_600;
    let certs = Certs::mint();
    // A name as long as names may be, to be told of in each line.
    let name = format!("{}invalid", format!("{}.", "x".repeat(60)).repeat(4));
    let mut command = egress_to(&name[name.len() - 240..], &certs);
    command.env("TWINLOCK_LOG", "debug");
    let mut egress = Program::launch(command, Reader::Reads, Reader::Sleeps);
    connect_many(&egress, FLOOD);
    assert_eq!(egress.stop_and_take_records().len(), FLOOD);
    assert_eq!(egress.wait().code(), Some(0));
}

#[test]
fn failures_that_are_alike_are_one_warning_and_a_count_and_each_of_them_is_a_record() {
    let certs = Certs::mint();
    let upstream = nobody();
    let mut egress = Program::launch(egress_to(&upstream.to_string(), &certs), Reader::Reads, Reader::Reads);
    connect_many(&egress, 100);
    let records = egress.stop_and_take_records();
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|record| record["outcome"] == "unreachable"), "{:?}", records[0]);
    let told = egress.stderr();
    let warnings: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let failures = warnings.iter().map(|warning| &warning["fields"]);
    let (mut first, mut counted) = (0, 0);
    for failure in failures.filter(|fields| fields["outcome"] == "unreachable") {
        assert!(
            failure["message"].as_str().is_some_and(|text| text.contains(&upstream.to_string())),
            "{failure}"
        );
        match failure["repeated"].as_u64() {
            Some(repeated) => counted += repeated,
            None => first += 1,
        }
    }
    assert!(first < 5, "{told}");
    assert_eq!(first + counted, 100, "{told}");
}

#[test]
fn what_a_stranger_does_is_never_a_warning() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    // Fewer than the descriptors of any machine are enough for: that is a warning of its own.
    let limits = ["--max-connections", "100", "--max-handshakes", "100"];
    let mut ingress = Program::ingress(&certs, backend.address, &limits);
    for _ in 0..3 {
        let mut stranger = connect(ingress.address);
        std::io::Write::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").expect("written");
        drop(stranger);
        assert_eq!(ingress.record()["closed_by"], "downstream");
    }
    ingress.stop();
    assert_eq!([ingress.said("WARN"), ingress.said("ERROR")], [0, 0], "{}", ingress.stderr());
}
