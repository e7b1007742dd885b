//! Which TLS the operator lets a hop speak: the oldest version, the key exchange, the cipher suites.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use serde_json::Value;

use crate::scene::{Refused, Scene};
use crate::support::authority::Identity;
use crate::support::peer::{self, ONLY_1_2, ONLY_1_3, alert};
use crate::support::socket::{self, Backend, Ending, connect, echo};
use crate::support::{Certs, Program};

const HYBRID: &str = "X25519MLKEM768";

/// The scene's good client, with these groups only.
fn with_groups(scene: &Scene, groups: &[&'static dyn SupportedKxGroup]) -> ClientConfig {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let mut roots = RootCertStore::empty();
    roots.add(scene.root.certificate.clone()).expect("a root");
    let provider = Arc::new(provider);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let identity = Identity::of(&scene.certs.egress());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_webpki_verifier(verifier.expect("a verifier"))
        .with_client_auth_cert(identity.chain, identity.key)
        .expect("an identity")
}

fn group(record: &Value) -> &Value {
    &record["downstream"]["tls"]["group"]
}

/// The client is told that there is nothing in common, and so is the reader of its record.
fn check_refused(scene: &mut Scene, config: ClientConfig, told: AlertDescription) {
    let mut client = scene.connect(config);
    assert_eq!(alert(&mut client), told);
    drop(client);
    scene.assert_refused(&Refused { outcome: "nothing_in_common", detail: "", identity: None });
}

#[test]
fn a_post_quantum_exchange_is_preferred_and_a_classical_one_accepted() {
    let scene = Scene::new();
    assert_eq!(group(&scene.admitted(with_groups(&scene, &[X25519MLKEM768, X25519]))), HYBRID);
    assert_eq!(group(&scene.admitted(with_groups(&scene, &[X25519]))), "X25519");
    assert_eq!(group(&scene.admitted(with_groups(&scene, &[SECP256R1]))), "secp256r1");
}

#[test]
fn handshakes_are_counted_by_side_version_and_group_and_told_in_the_end() {
    let mut scene = Scene::with(&["--workers", "3"]);
    let identity = Identity::of(&scene.certs.egress());
    let old = || peer::client_config(&scene.root.certificate, Some(&identity), ONLY_1_2);
    let mut egress = Program::egress(&scene.certs, scene.ingress.address, &[]);
    for _ in 0..4 {
        scene.admitted(with_groups(&scene, &[X25519]));
    }
    scene.admitted(old());
    scene.admitted(with_groups(&scene, &[SECP256R1]));
    echo(&mut connect(egress.address), "by way of both");
    // One that is refused has made none.
    let mut stranger = scene.connect(peer::client_config(&scene.root.certificate, None, ONLY_1_3));
    assert_eq!(alert(&mut stranger), AlertDescription::CertificateRequired);
    egress.stop();
    // The witness does not end by itself.
    scene.ingress.signal("TERM");
    scene.ingress.wait_for_stderr("stopped accepting");
    scene.ingress.stop();
    let told = |program: &Program| -> Vec<[String; 4]> {
        let said = program.stderr();
        let events = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let counts = events.filter(|event| event["fields"]["message"] == "handshakes made");
        let field = |event: &Value, name: &str| event["fields"][name].to_string().replace('"', "");
        counts.map(|event| ["side", "version", "group", "count"].map(|name| field(&event, name))).collect()
    };
    let down =
        |version: &str, group: &str, count: &str| ["downstream", version, group, count].map(str::to_owned);
    let expected = [
        ("TLSv1.2", "X25519", "1"),
        ("TLSv1.3", "X25519", "4"),
        ("TLSv1.3", HYBRID, "2"),
        ("TLSv1.3", "secp256r1", "1"),
    ];
    assert_eq!(told(&scene.ingress), expected.map(|(version, group, count)| down(version, group, count)));
    assert_eq!(told(&egress), [["upstream", "TLSv1.3", HYBRID, "1"].map(str::to_owned)]);
}

#[test]
fn where_a_post_quantum_exchange_is_required_a_client_without_it_is_refused() {
    let mut scene = Scene::with(&["--kx", "require-pq"]);
    let config = with_groups(&scene, &[X25519, SECP256R1]);
    check_refused(&mut scene, config, AlertDescription::HandshakeFailure);
    // The group does not exist in TLS 1.2.
    let identity = Identity::of(&scene.certs.egress());
    let config = peer::client_config(&scene.root.certificate, Some(&identity), ONLY_1_2);
    let mut client = scene.connect(config);
    assert_eq!(alert(&mut client), AlertDescription::ProtocolVersion);
    drop(client);
    assert_eq!(scene.ingress.record()["outcome"], "nothing_in_common");
    assert_eq!(group(&scene.admitted(with_groups(&scene, &[X25519, X25519MLKEM768]))), HYBRID);
}

#[test]
fn where_the_exchange_is_classical_the_hybrid_is_not_offered() {
    let mut scene = Scene::with(&["--kx", "classical"]);
    let config = with_groups(&scene, &[X25519MLKEM768]);
    check_refused(&mut scene, config, AlertDescription::HandshakeFailure);
    assert_eq!(group(&scene.admitted(with_groups(&scene, &[X25519MLKEM768, X25519]))), "X25519");
}

#[test]
fn an_egress_holds_to_the_policy_too() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let classical = Program::ingress(&certs, backend.address, &["--kx", "classical"]);
    let mut strict = Program::egress(&certs, classical.address, &["--kx", "require-pq"]);
    assert_eq!(socket::attempt(strict.address, b"never in the clear"), Ending::Reset);
    let records = strict.stop_and_take_records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["closed_by"], "upstream", "{records:?}");
    let hybrid = Program::ingress(&certs, backend.address, &[]);
    for (policy, expected) in [("require-pq", HYBRID), ("prefer-pq", HYBRID), ("classical", "X25519")] {
        let egress = Program::egress(&certs, hybrid.address, &["--kx", policy]);
        let mut client = connect(egress.address);
        echo(&mut client, "carried");
        drop(client);
        let record = egress.record();
        assert_eq!(record["upstream"]["tls"]["group"], expected, "{record}");
    }
    assert_eq!(backend.dialled(), 3);
}

#[test]
fn a_version_below_the_oldest_is_refused_on_both_sides() {
    let mut scene = Scene::with(&["--tls-min", "1.3"]);
    let identity = Identity::of(&scene.certs.egress());
    let config = |versions| peer::client_config(&scene.root.certificate, Some(&identity), versions);
    let (old, new) = (config(ONLY_1_2), config(ONLY_1_3));
    check_refused(&mut scene, old, AlertDescription::ProtocolVersion);
    assert_eq!(scene.admitted(new)["downstream"]["tls"]["version"], "TLSv1.3");

    let old_cipher = ["--cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"];
    let ingress = Program::ingress(&scene.certs, scene.backend.address, &old_cipher);
    let egress = Program::egress(&scene.certs, ingress.address, &["--tls-min", "1.3"]);
    assert_eq!(socket::attempt(egress.address, b"never in the clear"), Ending::Reset);
    let record = egress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["alert_received", "upstream"], "{record}");
    let egress = Program::egress(&scene.certs, ingress.address, &[]);
    echo(&mut connect(egress.address), "in the version that is left");
    assert_eq!(egress.record()["upstream"]["tls"]["version"], "TLSv1.2");
}

#[test]
fn of_the_listed_ciphers_the_first_that_both_know_is_used() {
    let list = "TLS_CHACHA20_POLY1305_SHA256,TLS_AES_128_GCM_SHA256,ECDHE-ECDSA-CHACHA20-POLY1305";
    let scene = Scene::with(&["--cipher", list]);
    let identity = Identity::of(&scene.certs.egress());
    for (versions, cipher) in [
        (ONLY_1_3, "TLS_CHACHA20_POLY1305_SHA256"),
        (ONLY_1_2, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ] {
        let config = peer::client_config(&scene.root.certificate, Some(&identity), versions);
        let record = scene.admitted(config);
        assert_eq!(record["downstream"]["tls"]["cipher"], cipher, "{record}");
    }
    let egress =
        Program::egress(&scene.certs, scene.ingress.address, &["--cipher", "TLS_AES_128_GCM_SHA256"]);
    echo(&mut connect(egress.address), "carried");
    assert_eq!(egress.record()["upstream"]["tls"]["cipher"], "TLS_AES_128_GCM_SHA256");
}
