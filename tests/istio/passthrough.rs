//! TLS that is passed through by its SNI: the client's handshake is with the server behind the gateway.

use std::io::Write as _;

use rustls::{ClientConfig, StreamOwned};

use crate::ingress::Ingress;
use crate::judge::head;
use crate::mesh::{anywhere, resolve};
use crate::routing::{entry, gateway, server, to};
use crate::support::authority::{Authority, Leaf};
use crate::support::peer::{self, Server};
use crate::support::socket::{Backend, Drip, Ending, connect, expect, read_to_end};

/// A segment of TCP on an Ethernet holds no more.
const SEGMENT: usize = 1460;

/// A gateway with two names, each of which leads to a server of its own.
struct Passthrough {
    gateway: Ingress,
    /// The servers behind `a.example` and `b.example`, with the roots that vouch for them.
    servers: [(Server, Authority); 2],
}

/// The resources: one rule for each name.
fn resources() -> String {
    let rule = |name: &str, port| {
        format!("{{match: [{{sniHosts: [{name}]}}], route: [{}]}}", to(&format!("of-{name}"), port))
    };
    let tls = format!(
        "{}spec: {{hosts: [\"*.example\"], gateways: [g], tls: [{}, {}]}}\n",
        head("VirtualService", "v"),
        rule("a.example", 1),
        rule("b.example", 2)
    );
    [
        gateway("g", &[&server(443, "\"*.example\"", "{mode: PASSTHROUGH}")]),
        entry("of-a.example", 1, "TCP", ""),
        entry("of-b.example", 2, "TCP", ""),
        tls,
    ]
    .join("---\n")
}

impl Passthrough {
    fn new() -> Self {
        let servers = ["a.example", "b.example"].map(|name| {
            let root = Authority::called(name);
            let config = peer::server_config(&root.issue(&Leaf::server(&[name])), None);
            (Server::start(config), root)
        });
        let more = [
            anywhere(443),
            resolve("of-a.example", 1, servers[0].0.address),
            resolve("of-b.example", 2, servers[1].0.address),
        ];
        let gateway = Ingress::by(Authority::new(), Backend::echo(), &resources(), &more, |_, _| {});
        Self { gateway, servers }
    }

    fn config(&self, server: usize) -> ClientConfig {
        peer::client_config(&self.servers[server].1.certificate, None, rustls::ALL_VERSIONS)
    }
}

#[test]
fn r9_each_name_leads_to_its_server_which_the_client_verifies_itself() {
    let scene = Passthrough::new();
    for (index, name) in ["a.example", "B.Example"].into_iter().enumerate() {
        let mut client = peer::connect_as(name, scene.gateway.program.address, scene.config(index));
        client.write_all(b"end to end").expect("written");
        client.flush().expect("flushed");
        expect(&mut scene.servers[index].0.accept(), "end to end");
        peer::half_close(&mut client);
        let record = scene.gateway.program.record();
        assert_eq!(record["sni"].as_str().map(str::to_lowercase), Some(name.to_lowercase()), "{record}");
        assert_eq!(record["downstream"].get("tls"), None, "{record}");
    }
    // The name is covered by the host of the server, and no rule is for it.
    let mut stranger = connect(scene.gateway.program.address);
    let mut hello = Vec::new();
    peer::session("c.example", scene.config(0)).write_tls(&mut hello).expect("a ClientHello");
    stranger.write_all(&hello).expect("written");
    assert!(read_to_end(&mut stranger).0.len() <= 7, "more than an alert");
    assert_eq!(scene.gateway.program.record()["outcome"], "no_route");
}

#[test]
fn r9_not_a_byte_of_what_is_passed_through_is_changed() {
    let backend = Backend::start();
    let more = [anywhere(443), resolve("of-a.example", 1, backend.address)];
    let more = [&more[..], &[resolve("of-b.example", 2, backend.address)]].concat();
    let gateway = Ingress::by(Authority::new(), Backend::echo(), &resources(), &more, |_, _| {});
    let mut hello = Vec::new();
    let config = peer::client_config(&gateway.root.certificate, None, rustls::ALL_VERSIONS);
    peer::session("a.example", config).write_tls(&mut hello).expect("a ClientHello");
    // With its post-quantum key it is larger than a segment already.
    assert!(hello.len() > SEGMENT, "{} bytes", hello.len());
    let mut client = connect(gateway.program.address);
    client.write_all(&[&hello[..], b"and what follows at once"].concat()).expect("written");
    client.shutdown(std::net::Shutdown::Write).expect("FIN");
    let mut server = backend.accept();
    assert_eq!(read_to_end(&mut server), ([&hello[..], b"and what follows at once"].concat(), Ending::Clean));
}

#[test]
fn a_hello_that_is_split_over_segments_and_records_is_put_together_to_find_its_name() {
    let scene = Passthrough::new();
    let address = scene.gateway.program.address;
    for fragment in [None, Some(32), Some(200)] {
        let mut config = scene.config(1);
        config.max_fragment_size = fragment;
        let mut client = StreamOwned::new(peer::session("b.example", config), Drip(connect(address)));
        let handshake = std::thread::spawn(move || {
            client.write_all(b"piece by piece").expect("a handshake");
            client
        });
        expect(&mut scene.servers[1].0.accept(), "piece by piece");
        drop(handshake.join().expect("a client"));
    }
}

#[test]
fn a_hello_without_end_is_held_up_to_a_bound_and_dialled_for_nowhere() {
    let backend = Backend::start();
    let known = |name: &str, port| resolve(name, port, backend.address);
    let more = [anywhere(443), known("of-a.example", 1), known("of-b.example", 2)];
    let gateway = Ingress::by(Authority::new(), Backend::echo(), &resources(), &more, |_, _| {});
    let mut client = connect(gateway.program.address);
    // A ClientHello that claims 65 520 bytes, and records of which each goes on with it.
    let record = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    let mut first = record.clone();
    first[5..9].copy_from_slice(&[1, 0, 0xff, 0xf0]);
    let mut sent = 0;
    let mut next = &first;
    while client.write_all(next).is_ok() {
        sent += next.len();
        assert!(sent < 256 << 20, "nobody stops it");
        next = &record;
    }
    assert_eq!(gateway.program.record()["outcome"], "protocol_violation");
    assert_eq!(backend.dialled(), 0);
}
