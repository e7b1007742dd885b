//! `twinlock probe`: the verdict on a real handshake, whichever side refuses.

use serde_json::Value;

use crate::refusal::assert_refused;
use crate::support::authority::{Authority, Leaf};
use crate::support::peer::{self, Server};
use crate::support::socket::Backend;
use crate::support::{self, Certs, HOST, Program, path};

/// Probes an ingress with these credentials: exit code and findings.
fn probe(address: std::net::SocketAddr, certs: &Certs, more: &[&str]) -> (i32, Value) {
    let (address, credentials) = (address.to_string(), certs.egress());
    let arguments = ["probe", &address, "--credentials", path(&credentials), "--json"];
    let (code, out, err) = support::run(&[&arguments[..], more].concat());
    assert_eq!(err, "");
    (code, serde_json::from_str(&out).expect("JSON"))
}

#[test]
fn a_handshake_that_both_sides_accept_is_shown_with_what_was_agreed() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let (code, found) = probe(ingress.address, &certs, &["--sni", HOST]);
    assert_eq!((code, &found["accepted"]), (0, &Value::Bool(true)), "{found}");
    assert_eq!(found["tls"]["group"], "X25519MLKEM768", "{found}");
    assert_eq!(found["tls"]["version"], "TLSv1.3", "{found}");
    assert_eq!([&found["chain"][0]["role"], &found["chain"][0]["names"][0]], ["leaf", HOST], "{found}");
    assert!(found["chain"][0]["days_left"].as_i64().is_some_and(|days| (1..=2).contains(&days)), "{found}");
    let (code, text, _) = support::run(&[
        "probe",
        &ingress.address.to_string(),
        "--credentials",
        path(&certs.egress()),
        "--sni",
        HOST,
        "--tls-min",
        "1.3",
    ]);
    assert_eq!(code, 0);
    assert!(text.contains("verdict   accepted: both sides accepted each other"), "{text}");
}

#[test]
fn a_refusal_by_either_side_is_the_verdict_with_its_reason() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &["--allow-san", "somebody.else"]);
    let check = |address, certs: &Certs, sni: &str, reason: &str| {
        let (code, found) = probe(address, certs, &["--sni", sni]);
        assert_eq!((code, &found["accepted"]), (1, &Value::Bool(false)), "{found}");
        let said = found["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "expected {reason:?} in {found}");
    };
    // The other side has its say after our side of the handshake is over.
    check(ingress.address, &certs, HOST, "the peer sent the alert access_denied");
    check(ingress.address, &certs, "other.example", "the peer sent the alert unrecogni");
    let stranger = Certs::mint();
    // Its root goes by the same name, and has another key.
    check(ingress.address, &stranger, HOST, "bad_certificate: ");
    let root = Authority::of(&certs);
    let wrong = root.issue(&Leaf::server(&["wrong.example"]));
    let server = Server::start(peer::server_config(&wrong, Some(&root)));
    check(server.address, &certs, HOST, "wrong.example");
    check(([127, 0, 0, 1], 1).into(), &certs, HOST, "unreachable: ");
}

#[test]
fn credentials_that_a_gateway_would_refuse_are_refused_before_anything_is_sent() {
    let certs = Certs::mint();
    std::fs::write(certs.egress().join("tls.key"), "").expect("written");
    let backend = Backend::start();
    let (address, credentials) = (backend.address.to_string(), certs.egress());
    let arguments = ["probe", &address, "--credentials", path(&credentials), "--sni", HOST];
    assert_refused(&arguments, &["--credentials: expected at least one PEM section, found an empty file"]);
    assert_eq!(backend.dialled(), 0);
    assert_refused(&["probe", "a b", "--credentials", "x"], &["expected "]);
}
