//! Names whose addresses change: R27, and what becomes of connections when DNS fails.

use std::net::SocketAddr;

use crate::dnsmasq::{self, Dnsmasq};
use crate::service::{Service, greeted, resources};
use crate::support::socket::{Backend, Ending, attempt, connect, echo};
use crate::support::{self, Program, Reader, confined, path, wait_until};

const NAME: &str = "db.example";
const FIRST: [u8; 4] = [127, 0, 0, 11];
const SECOND: [u8; 4] = [127, 0, 0, 12];

/// Two servers at one port of two addresses.
fn two_backends() -> [Backend; 2] {
    loop {
        let first = Backend::greeting_at("127.0.0.11:0");
        let port = first.address.port();
        // The port may be taken there by a connection of another test.
        if std::net::TcpListener::bind((std::net::Ipv4Addr::from(SECOND), port)).is_ok() {
            return [first, Backend::greeting_at(&format!("127.0.0.12:{port}"))];
        }
    }
}

/// A service by its name, asked for at this server, with a connect deadline that a busy machine keeps.
fn service(server: SocketAddr, resolution: &str, port: u16, more: &[&str]) -> Service {
    let entry = format!("resolution: {resolution}, endpoints: [{{address: {NAME}, ports: {{tcp: {port}}}}}]");
    let server = server.to_string();
    let arguments = [&["--dns-server", &server], more].concat();
    let robin = "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}";
    Service::start(&entry, robin, &arguments)
}

/// Where a new connection goes, or what became of it.
fn goes_to(service: &Service) -> String {
    let Some(mut client) = connected(service) else { return outcome(service) };
    client.set_nonblocking(false).expect("a mode");
    if std::io::Read::read_exact(&mut client, &mut [0; 5]).is_err() {
        return outcome(service);
    }
    drop(client);
    let record = service.program.record();
    let address: SocketAddr =
        record["upstream"]["address"].as_str().expect("an address").parse().expect("one");
    address.ip().to_string()
}

fn connected(service: &Service) -> Option<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect_timeout(&service.program.address, support::PATIENCE).ok()?;
    support::socket::be_patient(&stream);
    Some(stream)
}

fn outcome(service: &Service) -> String {
    service.program.record()["outcome"].as_str().expect("an outcome").to_owned()
}

#[test]
fn r27_new_connections_go_to_the_new_address_and_old_ones_live() {
    if !support::has(dnsmasq::NEEDED) {
        return;
    }
    let backends = two_backends();
    let server = Dnsmasq::start(&[(NAME, FIRST)]);
    let service = service(server.address, "DNS", backends[0].address.port(), &[]);
    let mut held = connect(service.program.address);
    greeted(&mut held);
    assert_eq!(goes_to(&service), "127.0.0.11");
    server.answer(&[(NAME, SECOND)]);
    wait_until("the new address", || goes_to(&service) == "127.0.0.12");
    assert_eq!(goes_to(&service), "127.0.0.12");
    echo(&mut held, "still served");
    assert_eq!(service.program.said("has other addresses now: 127.0.0.12"), 1);
}

#[test]
fn each_address_of_a_name_is_an_endpoint_and_one_that_goes_is_not_used_any_more() {
    if !support::has(dnsmasq::NEEDED) {
        return;
    }
    let backends = two_backends();
    let server = Dnsmasq::start(&[(NAME, FIRST), (NAME, SECOND)]);
    let service = service(server.address, "DNS", backends[0].address.port(), &[]);
    let mut all: Vec<_> = (0..4).map(|_| goes_to(&service)).collect();
    all.sort();
    assert_eq!(all, ["127.0.0.11", "127.0.0.11", "127.0.0.12", "127.0.0.12"]);
    server.answer(&[(NAME, SECOND)]);
    wait_until("fewer addresses", || service.program.said("has other addresses now") == 1);
    let left: Vec<_> = (0..4).map(|_| goes_to(&service)).collect();
    assert_eq!(left, ["127.0.0.12"; 4]);
    // No such name is an answer too.
    server.answer(&[]);
    wait_until("the end of the name", || goes_to(&service) == "unresolved");
}

#[test]
fn of_a_name_that_is_one_endpoint_the_first_address_that_answers_is_taken() {
    if !support::has(dnsmasq::NEEDED) {
        return;
    }
    let backend = Backend::greeting_at("127.0.0.12:0");
    // Nobody listens at the first.
    let server = Dnsmasq::start(&[(NAME, FIRST), (NAME, SECOND)]);
    let service = service(server.address, "DNS_ROUND_ROBIN", backend.address.port(), &[]);
    let all: Vec<_> = (0..4).map(|_| goes_to(&service)).collect();
    assert_eq!(all, ["127.0.0.12"; 4]);
}

#[test]
fn while_dns_fails_the_last_answer_serves_and_when_it_is_back_it_counts_again() {
    if !support::has(dnsmasq::NEEDED) {
        return;
    }
    let backends = two_backends();
    let mut server = Dnsmasq::start(&[(NAME, FIRST)]);
    let port = backends[0].address.port();
    let lasting = service(server.address, "DNS", port, &[]);
    let strict = service(server.address, "DNS", port, &["--dns-stale", "0s"]);
    assert_eq!([goes_to(&lasting), goes_to(&strict)], ["127.0.0.11", "127.0.0.11"]);
    server.stop();
    // Nobody connects: it is noticed all the same, before anybody would have to wait.
    lasting
        .program
        .wait_for_stderr("is not resolved any more, the last answer serves for 3600s behind its time");
    wait_until("the end of the answer", || goes_to(&strict) == "unresolved");
    assert_eq!(goes_to(&lasting), "127.0.0.11");
    server.start_again();
    lasting.program.wait_for_stderr("is resolved again: 127.0.0.11");
    server.answer(&[(NAME, SECOND)]);
    wait_until("the new address", || goes_to(&lasting) == "127.0.0.12");
    wait_until("an answer", || goes_to(&strict) == "127.0.0.12");
}

#[test]
fn a_dns_server_that_never_answers_ends_in_the_connect_deadline_and_one_that_lies_in_nothing() {
    if !support::has(dnsmasq::NEEDED) {
        return;
    }
    let (_silent, address) = dnsmasq::silent();
    let backend = Backend::greeting_at("127.0.0.1:0");
    let port = backend.address.port();
    let waiting = service(address, "DNS", port, &["--connect-timeout", "1s"]);
    assert_eq!(attempt(waiting.program.address, b""), Ending::Reset);
    assert_eq!(outcome(&waiting), "connect_timeout");
    // 0.0.0.0 would be this very host.
    let liar = Dnsmasq::start(&[(NAME, [0, 0, 0, 0])]);
    let service = service(liar.address, "DNS", port, &[]);
    assert_eq!(goes_to(&service), "unresolved");
    assert_eq!(backend.dialled(), 0);
}

#[test]
fn a_name_that_nobody_answers_for_keeps_no_connection_from_the_other_endpoints() {
    if !support::has(dnsmasq::NEEDED) {
        return;
    }
    let backend = Backend::greeting_at("127.0.0.11:0");
    let (server, port) = (Dnsmasq::start(&[(NAME, FIRST)]), backend.address.port());
    let endpoint = |name: &str| format!("{{address: {name}, ports: {{tcp: {port}}}}}");
    let entry =
        format!("resolution: DNS, endpoints: [{}, {}]", endpoint("db.silent.example"), endpoint(NAME));
    let arguments = ["--connect-timeout", "4s", "--dns-server", &server.address.to_string()];
    let service = Service::start(&entry, "", &arguments);
    let all: Vec<_> = (0..20).map(|_| goes_to(&service)).collect();
    assert_eq!(all, vec!["127.0.0.11"; 20]);
}

#[test]
fn search_domains_and_ndots_are_those_of_the_system() {
    if !support::has(dnsmasq::NEEDED) {
        return;
    }
    let backend = Backend::greeting_at("127.0.0.11:0");
    let server = Dnsmasq::start(&[("db.short.here.example", FIRST)]);
    let (config, server_address) = (tempfile::tempdir().expect("a directory"), server.address.to_string());
    let system = config.path().join("resolv.conf");
    std::fs::write(&system, "nameserver 192.0.2.1\nsearch nowhere.example here.example\noptions ndots:2\n")
        .expect("written");
    let port = backend.address.port();
    let entry = format!("resolution: DNS, endpoints: [{{address: db.short, ports: {{tcp: {port}}}}}]");
    std::fs::create_dir(config.path().join("resources")).expect("a folder");
    std::fs::write(config.path().join("resources/service.yaml"), resources(&entry, "")).expect("written");
    let folder = config.path().join("resources");
    let arguments = [
        "run",
        "--role=sidecar",
        "--listen=3306=127.0.0.1:0",
        "--log-format=json",
        "--config",
        path(&folder),
        "--credentials",
        path(&folder),
        "--dns-server",
        &server_address,
    ];
    let Some(command) = confined::with_resolv_conf(&system, &arguments) else { return };
    let program = Program::launch(command, Reader::Reads, Reader::Reads);
    assert_eq!(greeted(&mut connect(program.address)), port);
}
