//! Open connections finish under the plan they began with, unless the new one takes back what let them in.

use std::net::SocketAddr;

use twinlock::credentials::certificate::{Facts, hex};

use crate::scene::{AT_ONCE, INGRESS, SIDECAR, Scene, entry, mutual, originate, server};
use crate::support::authority::{Identity, Leaf};
use crate::support::peer::{self, TlsClient};
use crate::support::socket::{Backend, Ending, connect, echo, ending};

fn ingress(backend: SocketAddr, tls: &str) -> Scene {
    let more = [INGRESS, &[AT_ONCE]].concat();
    let service = entry("db.example", 3306, backend);
    Scene::new(&more, &[("db.yaml", &service), ("g.yaml", &server(13306, "ingress", tls, "db.example"))])
}

fn named(scene: &Scene, name: &str) -> Identity {
    scene.root.issue(&Leaf::client(&[name]))
}

fn open(scene: &Scene, identity: Option<&Identity>) -> TlsClient {
    let config = peer::client_config(&scene.root.certificate, identity, rustls::ALL_VERSIONS);
    let mut client = peer::connect(scene.program.address, config);
    echo(&mut client, "let in");
    client
}

#[test]
fn a_name_that_is_listed_no_more_ends_its_connections_and_no_others() {
    let backend = Backend::echo();
    let scene = ingress(backend.address, &mutual(&["good.example", "bad.example"]));
    let (good, bad) = (named(&scene, "good.example"), named(&scene, "bad.example"));
    let (mut stays, mut goes) = (open(&scene, Some(&good)), open(&scene, Some(&bad)));
    scene.follow("g.yaml", &server(13306, "ingress", &mutual(&["good.example"]), "db.example"));
    assert_eq!(ending(&mut goes), Ending::Reset);
    let record = scene.program.record();
    assert_eq!(record["outcome"], "peer_permission_withdrawn", "{record}");
    assert_eq!(
        (&record["downstream"]["peer"]["identity"], &record["plan"]),
        (&"bad.example".into(), &1.into()),
        "{record}"
    );
    echo(&mut stays, "still permitted");
    open(&scene, Some(&good));
}

#[test]
fn a_pin_that_is_listed_no_more_ends_its_connections_and_no_others() {
    let backend = Backend::echo();
    let pinned = |identities: &[&Identity]| {
        let hash = |identity: &&Identity| {
            let facts = Facts::parse(identity.leaf()).expect("a certificate");
            format!("\"{}\"", hex(&facts.fingerprints.certificate))
        };
        let hashes: Vec<_> = identities.iter().map(hash).collect();
        format!("{{mode: MUTUAL, credentialName: c, verifyCertificateHash: [{}]}}", hashes.join(", "))
    };
    let scene = ingress(backend.address, &mutual(&[]));
    let (good, bad) = (named(&scene, "good.example"), named(&scene, "bad.example"));
    let follow = |identities: &[&Identity]| {
        scene.follow("g.yaml", &server(13306, "ingress", &pinned(identities), "db.example"));
    };
    follow(&[&good, &bad]);
    let (mut stays, mut goes) = (open(&scene, Some(&good)), open(&scene, Some(&bad)));
    follow(&[&good]);
    assert_eq!(ending(&mut goes), Ending::Reset);
    assert_eq!(scene.program.record()["outcome"], "peer_permission_withdrawn");
    echo(&mut stays, "still permitted");
    open(&scene, Some(&good));
}

#[test]
fn a_client_that_showed_no_certificate_goes_when_one_is_asked_for() {
    let backend = Backend::echo();
    let scene = ingress(backend.address, "{mode: SIMPLE, credentialName: c}");
    let (mut anonymous, mut known) = (open(&scene, None), None);
    for (tls, ends) in [("{mode: OPTIONAL_MUTUAL, credentialName: c}", false), (&mutual(&[]), true)] {
        scene.follow("g.yaml", &server(13306, "ingress", tls, "db.example"));
        known.get_or_insert_with(|| open(&scene, Some(&named(&scene, "known.example"))));
        if ends {
            assert_eq!(ending(&mut anonymous), Ending::Reset);
        } else {
            echo(&mut anonymous, "need not have one");
        }
    }
    assert_eq!(scene.program.record()["outcome"], "peer_permission_withdrawn");
    echo(known.as_mut().expect("a client"), "has shown one");
}

#[test]
fn plaintext_goes_when_tls_is_asked_for() {
    let backend = Backend::echo();
    let more = [INGRESS, &[AT_ONCE]].concat();
    let service = entry("db.example", 3306, backend.address);
    let plain = server(13306, "ingress", "", "db.example");
    let scene = Scene::new(&more, &[("db.yaml", &service), ("g.yaml", &plain)]);
    let mut client = connect(scene.program.address);
    echo(&mut client, "in plaintext");
    scene.follow("g.yaml", &server(13306, "ingress", &mutual(&[]), "db.example"));
    assert_eq!(ending(&mut client), Ending::Reset);
    let record = scene.program.record();
    assert_eq!(record["outcome"], "peer_permission_withdrawn", "{record}");
    open(&scene, Some(&named(&scene, "known.example")));
}

#[test]
fn a_server_that_would_not_be_accepted_any_more_is_left() {
    let backend = Backend::echo();
    let far = ingress(backend.address, &mutual(&[]));
    let more = ["--role=egress", "--listen=3306=127.0.0.1:0", AT_ONCE];
    let service = entry("db.example", 3306, far.program.address);
    let way = server(3306, "egress", "", "db.example");
    let accepted = originate("db.example", &[HOST_OF_SERVER, "c.example"]);
    let scene = Scene::with(&more, |folder| {
        for (name, text) in [("db.yaml", &service), ("g.yaml", &way), ("d.yaml", &accepted)] {
            std::fs::write(folder.join(name), text).expect("written");
        }
        // One root on both sides.
        let credential = folder.with_file_name("credentials").join("c");
        far.root.install(&far.root.issue(&Leaf::client(&["egress.example"])), &credential);
    });
    let mut client = connect(scene.program.address);
    echo(&mut client, "to the server");
    scene.follow("d.yaml", &originate("db.example", &["c.example"]));
    echo(&mut client, "it has this name as well");
    scene.follow("d.yaml", &originate("db.example", &["another.example"]));
    assert_eq!(ending(&mut client), Ending::Reset);
    let record = scene.program.record();
    assert_eq!(
        (&record["outcome"], &record["upstream"]["peer"]["identity"]),
        (&"peer_permission_withdrawn".into(), &HOST_OF_SERVER.into()),
        "{record}"
    );
    // The operator chose the server, so the operational log hears of it.
    scene.program.wait_for_stderr("peer_permission_withdrawn");
}

const HOST_OF_SERVER: &str = crate::support::HOST;

#[test]
fn plaintext_to_a_server_goes_when_tls_is_asked_for() {
    let backend = Backend::echo();
    let more = [SIDECAR, &[AT_ONCE]].concat();
    let scene = Scene::new(&more, &[("a.yaml", &entry("a.example", 3306, backend.address))]);
    let (mut client, mut other) = (connect(scene.program.address), None);
    echo(&mut client, "in plaintext");
    scene.follow("b.yaml", &entry("b.example", 3307, backend.address));
    other.replace(connect(scene.opened(3307)));
    echo(other.as_mut().expect("a client"), "in plaintext, too");
    let simple = originate("a.example", &[]).replace("MUTUAL, credentialName: c", "SIMPLE");
    scene.follow("d.yaml", &simple);
    assert_eq!(ending(&mut client), Ending::Reset);
    assert_eq!(scene.program.record()["outcome"], "peer_permission_withdrawn");
    echo(other.as_mut().expect("a client"), "as before");
}

#[test]
fn a_connection_of_a_listener_that_is_gone_is_judged_by_its_credential_still() {
    let backend = Backend::echo();
    let scene = ingress(backend.address, &mutual(&[]));
    let (good, bad) = (named(&scene, "good.example"), named(&scene, "bad.example"));
    let (mut stays, mut goes) = (open(&scene, Some(&good)), open(&scene, Some(&bad)));
    // Neither the listener nor its credential is in the new plan.
    scene.follow("g.yaml", &server(13307, "ingress", "", "db.example"));
    echo(&mut connect(scene.opened(13307)), "another listener");
    echo(&mut goes, "not judged yet");
    std::fs::write(scene.credential("c").join("ca.crl"), scene.root.crl(&[&bad], 1)).expect("written");
    assert_eq!(ending(&mut goes), Ending::Reset);
    let mut records = [scene.program.record(), scene.program.record()];
    records.sort_by_key(|record| record["outcome"].as_str() == Some("completed"));
    assert_eq!(records[0]["outcome"], "peer_certificate_revoked", "{records:?}");
    echo(&mut stays, "left alone");
}

#[test]
fn plaintext_to_an_application_goes_when_its_policy_becomes_strict() {
    let backend = Backend::echo();
    let inbound = format!("--inbound=3306={}", backend.address);
    let more = [SIDECAR, &[AT_ONCE, &inbound]].concat();
    let policy = |mode: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
    };
    let scene = Scene::new(&more, &[("p.yaml", &policy("DISABLE"))]);
    let mut client = connect(scene.program.address);
    echo(&mut client, "in plaintext");
    scene.follow("p.yaml", &policy("PERMISSIVE"));
    echo(&mut client, "permitted");
    let mut second = connect(scene.program.address);
    echo(&mut second, "permitted, too");
    scene.follow("p.yaml", &policy("STRICT"));
    for mut client in [client, second] {
        assert_eq!(ending(&mut client), Ending::Reset);
        assert_eq!(scene.program.record()["outcome"], "peer_permission_withdrawn");
    }
}
