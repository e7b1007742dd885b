//! Connections do not outlive what let them in, and those that nothing has happened to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustls::ClientConfig;

use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, TlsClient};
use crate::support::socket::{Backend, Ending, connect, echo, ending};
use crate::support::{CLIENT, Certs, HOST, Program, wait_until};

/// Soon after the reason has come, and spread over no time.
const AT_ONCE: [&str; 2] = ["--revoked-grace", "0s"];

fn config(root: &Authority, identity: &Identity) -> ClientConfig {
    peer::client_config(&root.certificate, Some(identity), rustls::ALL_VERSIONS)
}

/// A client on which something moves until it is cut or told to stop.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Busy {
    fn start(mut client: TlsClient) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut answer = [0; 4];
            while !told.load(Ordering::Relaxed) {
                let carried = client.write_all(b"busy").and_then(|()| client.read_exact(&mut answer));
                if carried.is_err() {
                    return true;
                }
            }
            peer::half_close(&mut client);
            ending(&mut client) != Ending::Clean
        });
        Self { stop, thread }
    }

    /// Waits until it is cut.
    fn cut(self) {
        wait_until("the cut", || self.thread.is_finished());
        assert!(self.thread.join().expect("a client"));
    }

    /// Stops it; it must have been left alone.
    fn unharmed(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(!self.thread.join().expect("a client"), "cut");
    }
}

#[test]
fn a_busy_client_is_cut_when_its_certificate_expires_and_its_neighbour_is_not() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let mut ingress = Program::ingress(&certs, backend.address, &["--revoked-grace", "1s"]);
    let brief = root.issue(&Leaf::client(&["brief.example"]).valid_in_seconds(-60, 10));
    let lasting = root.issue(&Leaf::client(&["lasting.example"]));
    let open = |identity: &Identity| {
        let mut client = peer::connect(ingress.address, config(&root, identity));
        echo(&mut client, "let in");
        client
    };
    let (cut, neighbour) = (Busy::start(open(&brief)), Busy::start(open(&lasting)));
    cut.cut();
    let record = ingress.record();
    assert_eq!(
        [&record["outcome"], &record["closed_by"]],
        ["peer_certificate_expired", "gateway"],
        "{record}"
    );
    assert_eq!(record["downstream"]["peer"]["identity"], "brief.example", "{record}");
    neighbour.unharmed();
    let rest = ingress.stop_and_take_records();
    assert_eq!(rest[0]["outcome"], "completed", "{rest:?}");
}

/// Each client's own certificate is good for a day; what vouches for some of them is not. No reload tells of it.
#[test]
fn a_client_is_cut_when_a_ca_of_its_chain_expires_and_one_of_a_ca_that_lasts_is_not() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let (brief, brief_root) =
        (root.intermediate_for_seconds(10), Authority::called_for_seconds("a brief root", 10));
    let bundled = root.intermediate_for_seconds(10).without_chain();
    let bundle = [&root, &brief_root, &bundled].map(|ca| ca.pem.as_str()).concat();
    std::fs::write(certs.ingress().join("ca.crt"), bundle).expect("written");
    let more = ["--credentials-poll", "1h", "--revoked-grace", "1s"];
    let mut ingress = Program::ingress(&certs, backend.address, &more);
    let open = |ca: &Authority, name: &str| {
        let identity = ca.issue(&Leaf::client(&[name]));
        let mut client = peer::connect(ingress.address, config(&root, &identity));
        echo(&mut client, "let in");
        Busy::start(client)
    };
    let lasting = root.intermediate();
    let cut = [open(&brief, "by.intermediate"), open(&brief_root, "by.root"), open(&bundled, "by.bundle")];
    let (neighbour, another) = (open(&root, "neighbour.example"), open(&lasting, "another.example"));
    cut.into_iter().for_each(Busy::cut);
    let mut told = Vec::new();
    for _ in 0..3 {
        let record = ingress.record();
        let outcome = [&record["outcome"], &record["closed_by"]];
        assert_eq!(outcome, ["peer_certificate_expired", "gateway"], "{record}");
        told.push(record["downstream"]["peer"]["identity"].as_str().expect("a name").to_owned());
    }
    told.sort_unstable();
    assert_eq!(told, ["by.bundle", "by.intermediate", "by.root"]);
    neighbour.unharmed();
    another.unharmed();
    let rest = ingress.stop_and_take_records();
    assert!(rest.iter().all(|record| record["outcome"] == "completed"), "{rest:?}");
    assert_eq!(ingress.said("credential loaded"), 0, "{}", ingress.stderr());
}

#[test]
fn an_egress_leaves_a_server_when_an_intermediate_of_its_chain_expires() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let brief = Authority::of(&certs).intermediate_for_seconds(10);
    brief.issue(&Leaf::server(&[HOST])).install(&certs.ingress());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let egress = Program::egress(&certs, ingress.address, &AT_ONCE);
    let mut client = connect(egress.address);
    echo(&mut client, "to a good server");
    assert_eq!(ending(&mut client), Ending::Reset);
    let record = egress.record();
    assert_eq!(
        [&record["outcome"], &record["closed_by"]],
        ["peer_certificate_expired", "gateway"],
        "{record}"
    );
}

#[test]
fn a_client_is_cut_when_a_list_appears_that_revokes_it_and_its_neighbour_is_not() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let mut ingress = Program::ingress(&certs, backend.address, &AT_ONCE);
    let (bad, good) = (root.issue(&Leaf::client(&["bad.example"])), root.issue(&Leaf::client(&[CLIENT])));
    let open = |identity: &Identity| {
        let mut client = peer::connect(ingress.address, config(&root, identity));
        echo(&mut client, "let in");
        client
    };
    let (mut idle, busy) = (open(&bad), Busy::start(open(&bad)));
    let (mut idle_neighbour, busy_neighbour) = (open(&good), Busy::start(open(&good)));
    std::fs::write(certs.ingress().join("ca.crl"), root.crl(&[&bad], 1)).expect("written");
    assert_eq!(ending(&mut idle), Ending::Reset);
    busy.cut();
    for _ in 0..2 {
        let record = ingress.record();
        assert_eq!(record["outcome"], "peer_certificate_revoked", "{record}");
        assert_eq!(record["downstream"]["peer"]["identity"], "bad.example", "{record}");
    }
    echo(&mut idle_neighbour, "left alone");
    busy_neighbour.unharmed();
    peer::half_close(&mut idle_neighbour);
    assert_eq!(ending(&mut idle_neighbour), Ending::Clean);
    let rest = ingress.stop_and_take_records();
    assert!(rest.iter().all(|record| record["outcome"] == "completed"), "{rest:?}");
}

#[test]
fn a_client_is_cut_when_its_ca_is_removed_and_one_of_another_ca_is_not() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let (root, other) = (Authority::of(&certs), Authority::new());
    let bundle = certs.ingress().join("ca.crt");
    std::fs::write(&bundle, format!("{}{}", root.pem, other.pem)).expect("written");
    let ingress = Program::ingress(&certs, backend.address, &AT_ONCE);
    let open = |issuer: &Authority| {
        let client = config(&root, &issuer.issue(&Leaf::client(&[CLIENT])));
        let mut client = peer::connect(ingress.address, client);
        echo(&mut client, "let in");
        client
    };
    let (mut stays, mut goes) = (open(&root), open(&other));
    std::fs::write(&bundle, &root.pem).expect("written");
    assert_eq!(ending(&mut goes), Ending::Reset);
    let record = ingress.record();
    assert_eq!(record["outcome"], "peer_ca_withdrawn", "{record}");
    echo(&mut stays, "left alone");
}

#[test]
fn an_egress_leaves_a_server_that_is_revoked() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let egress = Program::egress(&certs, ingress.address, &AT_ONCE);
    let mut client = connect(egress.address);
    echo(&mut client, "to a good server");
    let server = Identity::of(&certs.ingress());
    std::fs::write(certs.egress().join("ca.crl"), root.crl(&[&server], 1)).expect("written");
    assert_eq!(ending(&mut client), Ending::Reset);
    let record = egress.record();
    assert_eq!(record["outcome"], "peer_certificate_revoked", "{record}");
    // The operator chose the server, so the operational log hears of it.
    egress.wait_for_stderr("peer_certificate_revoked");
}

#[test]
fn a_list_that_revokes_nobody_who_is_here_cuts_nobody() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let more = [&AT_ONCE[..], &["--credentials-poll", "50ms"]].concat();
    let mut ingress = Program::ingress(&certs, backend.address, &more);
    let mut open = peer::connect(ingress.address, peer::good_client_config(&certs));
    echo(&mut open, "let in");
    for number in 1..=3 {
        let bad = root.issue(&Leaf::client(&["bad.example"]));
        std::fs::write(certs.ingress().join("ca.crl"), root.crl(&[&bad], 1)).expect("written");
        wait_until("the list", || ingress.said("credential loaded") >= number);
        // A new client is judged by the list, so it is in use.
        let mut client = peer::connect(ingress.address, config(&root, &bad));
        assert_eq!(peer::alert(&mut client), rustls::AlertDescription::CertificateRevoked);
        ingress.record();
    }
    echo(&mut open, "left alone");
    peer::half_close(&mut open);
    assert_eq!(ending(&mut open), Ending::Clean);
    let rest = ingress.stop_and_take_records();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0]["outcome"], "completed", "{rest:?}");
}

#[test]
fn a_connection_of_the_age_that_connections_may_reach_is_ended_and_a_young_one_is_served() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &["--max-connection-age", "3s"]);
    let open = || peer::connect(ingress.address, peer::good_client_config(&certs));
    let mut old = open();
    echo(&mut old, "young");
    assert_eq!(ending(&mut old), Ending::Reset);
    let record = ingress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["max_connection_age", "gateway"], "{record}");
    assert!(record["duration_ms"].as_u64().is_some_and(|age| age >= 2_000), "{record}");
    echo(&mut open(), "young again");
    assert_eq!(record["sni"], HOST);
}
