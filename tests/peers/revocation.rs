//! Certificates that a CA has taken back: of clients and of servers, along the whole chain.

use rustls::{AlertDescription, Error};

use crate::scene::{Refused, Scene};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, Server, alert};
use crate::support::socket::{self, Backend, Ending, connect, echo};
use crate::support::{CLIENT, Certs, HOST, Program};

#[test]
fn a_revoked_client_is_refused_with_certificate_revoked_and_others_are_not() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let revoked = root.issue(&Leaf::client(&["revoked.example"]));
    std::fs::write(certs.ingress().join("ca.crl"), root.crl(&[&revoked], 1)).expect("written");
    let mut scene = Scene::on(certs, backend, &[]);
    for versions in [peer::ONLY_1_2, peer::ONLY_1_3] {
        let config = peer::client_config(&root.certificate, Some(&revoked), versions);
        let mut client = scene.connect(config);
        assert_eq!(alert(&mut client), AlertDescription::CertificateRevoked);
        drop(client);
        let record = scene.ingress.record();
        assert_eq!(record["outcome"], "certificate_revoked", "{record}");
        assert_eq!(record["downstream"]["peer"]["identity"], "revoked.example", "{record}");
    }
    let mut client = scene.connect(scene.config(&revoked));
    assert_eq!(alert(&mut client), AlertDescription::CertificateRevoked);
    drop(client);
    let refused = Refused {
        outcome: "certificate_revoked",
        detail: "found one that its CA has revoked",
        identity: Some("revoked.example"),
    };
    scene.assert_refused(&refused);
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_revoked_server_is_refused_by_the_egress() {
    let certs = Certs::mint();
    let root = Authority::of(&certs);
    let (good, bad) = (root.issue(&Leaf::server(&[HOST])), root.issue(&Leaf::server(&[HOST])));
    std::fs::write(certs.egress().join("ca.crl"), root.crl(&[&bad], 1)).expect("written");
    let server = Server::start(peer::server_config(&bad, Some(&root)));
    let mut egress = Program::egress(&certs, server.address, &[]);
    assert_eq!(socket::attempt(egress.address, b"never in the clear"), Ending::Reset);
    assert_eq!(server.failure(), Error::AlertReceived(AlertDescription::CertificateRevoked));
    let records = egress.stop_and_take_records();
    assert_eq!(records[0]["outcome"], "certificate_revoked", "{records:?}");
    let server = Server::start(peer::server_config(&good, Some(&root)));
    let egress = Program::egress(&certs, server.address, &[]);
    let _client = connect(egress.address);
    server.accept();
}

/// An ingress that knows these CAs and lists.
fn ingress(cas: &[&Authority], lists: &[String]) -> (Program, Certs, Backend) {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let bundle: String = cas.iter().map(|ca| ca.pem.as_str()).collect();
    let directory = certs.ingress();
    std::fs::write(directory.join("ca.crt"), Authority::of(&certs).pem + &bundle).expect("written");
    std::fs::write(directory.join("ca.crl"), lists.concat()).expect("written");
    let ingress = Program::ingress(&certs, backend.address, &[]);
    (ingress, certs, backend)
}

fn check(ingress: &Program, certs: &Certs, client: &Identity, outcome: &str) {
    let versions = rustls::ALL_VERSIONS;
    let config = peer::client_config(&Authority::of(certs).certificate, Some(client), versions);
    let mut client = peer::connect(ingress.address, config);
    if outcome == "completed" {
        echo(&mut client, "let in");
        peer::half_close(&mut client);
    } else {
        alert(&mut client);
    }
    let record = ingress.record();
    assert_eq!(record["outcome"], outcome, "{record}");
}

#[test]
fn a_revoked_intermediate_takes_its_clients_along_also_where_the_bundle_names_it() {
    let root = Authority::new();
    let (good, bad) = (root.intermediate(), root.intermediate());
    let of_bad = bad.issue(&Leaf::client(&[CLIENT]));
    let of_good = good.issue(&Leaf::client(&[CLIENT]));
    let lists = [root.crl_of(&[&bad.certificate]), good.crl(&[], 1), bad.crl(&[], 1)];
    // The intermediates are links of a chain there, not ends.
    let (ingress, certs, _backend) = ingress(&[&good, &bad, &root], &lists);
    check(&ingress, &certs, &of_bad, "certificate_revoked");
    check(&ingress, &certs, &of_good, "completed");
}

#[test]
fn a_ca_without_a_list_vouches_for_nobody_once_there_are_lists() {
    let (root, other) = (Authority::new(), Authority::called("one without a list"));
    let lists = [root.crl(&[], 1)];
    let (ingress, certs, _backend) = ingress(&[&root, &other], &lists);
    check(&ingress, &certs, &root.issue(&Leaf::client(&[CLIENT])), "completed");
    check(&ingress, &certs, &other.issue(&Leaf::client(&[CLIENT])), "certificate_revoked");
}

#[test]
fn an_expired_list_refuses_everybody_unless_told_only_to_warn() {
    let root = Authority::new();
    let client = root.issue(&Leaf::client(&[CLIENT]));
    let directory = |certs: &Certs| {
        std::fs::write(certs.ingress().join("ca.crt"), &root.pem).expect("written");
        std::fs::write(certs.ingress().join("ca.crl"), root.crl(&[], -1)).expect("written");
    };
    let (certs, backend) = (Certs::mint(), Backend::echo());
    directory(&certs);
    let ingress = Program::ingress(&certs, backend.address, &["--crl-expired", "warn"]);
    check(&ingress, &certs, &client, "completed");
    // It is valid when it is taken, and expires in use.
    let (certs, backend) = (Certs::mint(), Backend::echo());
    directory(&certs);
    std::fs::write(certs.ingress().join("ca.crl"), root.crl_for_seconds(&[], 3)).expect("written");
    let ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "100ms"]);
    check(&ingress, &certs, &client, "completed");
    ingress.wait_for_stderr("a revocation list should have been replaced by now");
    check(&ingress, &certs, &client, "certificate_revoked");
    std::fs::write(certs.ingress().join("ca.crl"), root.crl(&[], 1)).expect("written");
    ingress.wait_for_stderr("credential loaded");
    check(&ingress, &certs, &client, "completed");
}
