//! What a server is told of its client before everything else: R28.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::mariadb::{self, MariaDb, client, finish};
use crate::service::{Service, fixed};
use crate::support::authority::{Authority, Leaf};
use crate::support::socket::{ACCEPTING, Backend, connect, expect};
use crate::support::{self, Certs, HOST, Program, peer};

/// The addresses of a header of version 2 and its values, by the letter of the specification; nothing may be left.
fn strictly(stream: &mut impl Read) -> (SocketAddr, SocketAddr, Vec<(u8, Vec<u8>)>) {
    let mut take = |count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).expect("more of the header");
        bytes
    };
    assert_eq!(take(12), b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(take(2), [0x21, 0x11], "version 2, PROXY, TCP over IPv4");
    let length = u16::from_be_bytes(take(2).try_into().expect("two bytes"));
    let body = take(length.into());
    let address = |at: usize, port: usize| {
        let ip: [u8; 4] = body[at..at + 4].try_into().expect("four bytes");
        let port = u16::from_be_bytes(body[port..port + 2].try_into().expect("two bytes"));
        SocketAddr::from((Ipv4Addr::from(ip), port))
    };
    (address(0, 8), address(4, 10), values(&body[12..]))
}

fn values(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut values = Vec::new();
    while let [kind, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        values.push((*kind, more[..length].to_vec()));
        rest = &more[length..];
    }
    assert_eq!(rest, b"", "what is no value");
    values
}

/// A service that originates mutual TLS, with this more in its policy.
fn mutual(certs: &Certs, backend: SocketAddr, more: &str) -> Service {
    let credentials = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(certs.egress(), credentials.path().join("c")).expect("linked");
    let rule = format!(
        "workloadSelector: {{matchLabels: {{app: a}}}}, \
         trafficPolicy: {{tls: {{mode: MUTUAL, credentialName: c, sni: {HOST}}}, {more}}}"
    );
    Service::with(Some(credentials), &fixed(&[backend]), &rule, &["--labels=app=a"])
}

#[test]
fn r28_the_header_precedes_the_client_hello_and_tells_who_the_client_is() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let service = mutual(&certs, backend.address, "proxyProtocol: {version: V2}");
    let client = connect(service.program.address);
    let mut server = backend.accept();
    let (source, destination, more) = strictly(&mut server);
    assert_eq!(source, client.local_addr().expect("its address"));
    assert_eq!(destination, service.program.address);
    assert_eq!(more, [], "the hop begins in plaintext: nothing of what TLS hides");
    // Behind it comes TLS, and a server that has read the header shakes hands as ever.
    let identity = Authority::of(&certs).issue(&Leaf::server(&[HOST]));
    let config = peer::server_config(&identity, Some(&Authority::of(&certs)));
    let mut server = peer::accept_on(server, config);
    std::io::Write::write_all(&mut server, b"behind the header").expect("written");
    std::io::Write::flush(&mut server).expect("flushed");
    expect(&mut &client, "behind the header");
}

#[test]
fn r28_version_1_is_what_no_version_means() {
    let backend = Backend::start();
    for policy in ["proxyProtocol: {}", "proxyProtocol: {version: V1}"] {
        let service = Service::at(&[backend.address], policy);
        let client = connect(service.program.address);
        let (source, to) = (client.local_addr().expect("its address"), service.program.address);
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", source.port(), to.port());
        expect(&mut backend.accept(), &line);
    }
}

#[test]
fn r28_on_a_plaintext_hop_version_2_tells_of_the_clients_tls() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let ingress = Program::ingress(&certs, backend.address, &["--send-proxy-protocol", "v2"]);
    let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
    std::io::Write::write_all(&mut client, b"x").expect("written");
    let mut server = backend.accept();
    let (source, destination, more) = strictly(&mut server);
    assert_eq!((source, destination), (client.sock.local_addr().expect("its address"), ingress.address));
    let [(0x02, authority), (0x20, tls)] = &more[..] else { panic!("expected two values, found {more:?}") };
    assert_eq!(authority, HOST.as_bytes());
    assert_eq!(tls[..5], [0x07, 0, 0, 0, 0], "TLS, with a certificate, which was verified");
    let about = values(&tls[5..]);
    assert_eq!(about[0], (0x21, b"TLSv1.3".to_vec()));
    assert_eq!(about[1].0, 0x23);
    expect(&mut server, "x");
}

/// Gives an unmodified client another address than it would have: its bytes go on over this connection.
fn pass_on(near: &TcpListener, far: &TcpStream) {
    let (client, _) = near.accept().expect(ACCEPTING);
    std::thread::scope(|both| {
        for (mut from, mut to) in [(&client, far), (far, &client)] {
            both.spawn(move || {
                // However it ends: it is over.
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
}

#[test]
fn r28_mariadb_sees_the_address_of_the_client() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let database = MariaDb::shared();
    let source = IpAddr::from([127, 0, 0, 77]);
    database.sql(&format!(
        "CREATE USER IF NOT EXISTS {0}@{source} IDENTIFIED BY '{1}'; GRANT ALL ON *.* TO {0}@{source}",
        mariadb::USER,
        mariadb::PASSWORD
    ));
    for (policy, expected) in [("proxyProtocol: {version: V2}", source), ("", [127, 0, 0, 1].into())] {
        let service = Service::at(&[database.address], policy);
        let near = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = near.local_addr().expect("its address");
        let far = service.connect_from(source);
        std::thread::spawn(move || pass_on(&near, &far));
        let mut client = client(address, "SELECT SUBSTRING_INDEX(USER(), '@', -1)");
        let output = finish(&mut client).succeeded();
        assert_eq!(output.lines().last(), Some(expected.to_string().as_str()), "{policy}");
    }
}
