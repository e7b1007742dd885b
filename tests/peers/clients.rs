//! Clients that the ingress must refuse by their certificate or name, and those that it must let in.

use rustls::{AlertDescription, SupportedProtocolVersion};

use crate::scene::{Refused, Scene};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, ONLY_1_2, ONLY_1_3, alert};
use crate::support::socket::{Backend, echo};
use crate::support::{CLIENT, Certs, HOST, Program};

type Versions = &'static [&'static SupportedProtocolVersion];

/// A client with this certificate is refused with this alert, in both versions of TLS.
fn check(identity: &Identity, expected: AlertDescription, refused: &Refused<'_>) {
    for versions in [ONLY_1_3, ONLY_1_2] {
        check_version(Scene::new(), Some(identity), versions, expected, refused);
    }
}

fn check_version(
    mut scene: Scene,
    identity: Option<&Identity>,
    versions: Versions,
    expected: AlertDescription,
    refused: &Refused<'_>,
) {
    let config = peer::client_config(&scene.root.certificate, identity, versions);
    let mut client = scene.connect(config);
    assert_eq!(alert(&mut client), expected);
    drop(client);
    let record = scene.assert_refused(refused);
    assert_eq!(record["sni"], HOST, "{record}");
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_client_without_a_certificate_is_refused_with_certificate_required() {
    for versions in [ONLY_1_3, ONLY_1_2] {
        check_version(
            Scene::new(),
            None,
            versions,
            AlertDescription::CertificateRequired,
            &Refused {
                outcome: "no_certificate",
                detail: "expected a client certificate, found none",
                identity: None,
            },
        );
    }
}

#[test]
fn a_client_of_another_ca_is_refused_with_unknown_ca_and_recorded_by_name() {
    check(
        &Authority::new().issue(&Leaf::client(&["stranger.example"])),
        AlertDescription::UnknownCA,
        &Refused {
            outcome: "unknown_ca",
            detail: "found another issuer",
            identity: Some("stranger.example"),
        },
    );
}

#[test]
fn a_client_that_signed_its_own_certificate_is_refused_with_unknown_ca() {
    check(
        &Leaf::client(&[CLIENT]).self_signed(),
        AlertDescription::UnknownCA,
        &Refused { outcome: "unknown_ca", detail: "found another issuer", identity: Some(CLIENT) },
    );
}

/// A scene, and a certificate of its root.
fn check_issued(leaf: &Leaf, expected: AlertDescription, refused: &Refused<'_>) {
    for versions in [ONLY_1_3, ONLY_1_2] {
        let scene = Scene::new();
        let identity = scene.root.issue(leaf);
        check_version(scene, Some(&identity), versions, expected, refused);
    }
}

#[test]
fn a_client_whose_certificate_expired_is_refused_with_certificate_expired() {
    check_issued(
        &Leaf::client(&["late.example"]).expired(),
        AlertDescription::CertificateExpired,
        &Refused { outcome: "certificate_expired", detail: "expired", identity: Some("late.example") },
    );
}

#[test]
fn a_client_whose_certificate_is_not_valid_yet_is_refused_with_certificate_expired() {
    check_issued(
        &Leaf::client(&["early.example"]).valid(1, 2),
        AlertDescription::CertificateExpired,
        &Refused { outcome: "certificate_expired", detail: "not valid yet", identity: Some("early.example") },
    );
}

#[test]
fn a_client_with_a_server_certificate_is_refused_with_unsupported_certificate() {
    check_issued(
        &Leaf::server(&["server.example"]),
        AlertDescription::UnsupportedCertificate,
        &Refused { outcome: "wrong_purpose", detail: "", identity: Some("server.example") },
    );
}

#[test]
fn a_client_that_is_not_on_the_list_is_refused_with_access_denied() {
    for versions in [ONLY_1_3, ONLY_1_2] {
        let scene = Scene::with(&["--allow-san", CLIENT]);
        // Its subject names the one that is allowed, which counts for nothing.
        let identity = scene.root.issue(&Leaf::client(&["other.example"]).called(CLIENT));
        check_version(
            scene,
            Some(&identity),
            versions,
            AlertDescription::AccessDenied,
            &Refused {
                outcome: "not_allowed",
                detail: &format!("expected a certificate for {CLIENT}, found one for other.example"),
                identity: Some("other.example"),
            },
        );
    }
}

#[test]
fn a_client_on_the_list_is_let_in_by_dns_name_or_uri_and_recorded_by_it() {
    let uri = "spiffe://cluster.local/ns/db/sa/app";
    let scene = Scene::with(&["--allow-san", CLIENT, "--allow-san", uri, "--allow-san", "app.example"]);
    for names in [&[uri][..], &["app.example"], &["elsewhere.example", "app.example"]] {
        let identity = scene.root.issue(&Leaf::client(names));
        let record = scene.admitted(scene.config(&identity));
        assert_eq!(record["downstream"]["peer"]["identity"], names[0], "{record}");
    }
    // Byte for byte: another service account of the same namespace is somebody else.
    let identity = scene.root.issue(&Leaf::client(&["spiffe://cluster.local/ns/db/sa/app2"]));
    assert_eq!(alert(&mut scene.connect(scene.config(&identity))), AlertDescription::AccessDenied);
    scene.ingress.record();
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_client_is_let_in_by_its_spiffe_id_or_by_one_above_it() {
    let ids = ["--allow-san", CLIENT, "--allow-spiffe", "spiffe://td/ns/a/sa/b,spiffe://partner/pay/*"];
    let scene = Scene::with(&ids);
    for id in ["spiffe://td/ns/a/sa/b", "spiffe://partner/pay/roll"] {
        let identity = scene.root.issue(&Leaf::client(&[id]));
        assert_eq!(scene.admitted(scene.config(&identity))["downstream"]["peer"]["identity"], id);
    }
    for id in ["spiffe://td/ns/a/sa/c", "spiffe://partner/payroll", "spiffe://other/pay/roll"] {
        let identity = scene.root.issue(&Leaf::client(&[id]).called("spiffe://td/ns/a/sa/b"));
        let dialled = scene.backend.dialled();
        assert_eq!(alert(&mut scene.connect(scene.config(&identity))), AlertDescription::AccessDenied);
        assert_eq!(scene.ingress.record()["outcome"], "not_allowed");
        assert_eq!(scene.backend.dialled(), dialled);
    }
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_client_that_asks_for_another_host_is_refused_with_unrecognized_name() {
    let mut scene = Scene::new();
    let config = peer::good_client_config(&scene.certs);
    let mut client = peer::connect_as("other.example", scene.ingress.address, config);
    assert_eq!(alert(&mut client), AlertDescription::UnrecognisedName);
    drop(client);
    let refused = Refused { outcome: "no_route", detail: "none of the hosts", identity: None };
    let record = scene.assert_refused(&refused);
    assert_eq!(record["sni"], "other.example");
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_client_that_asks_for_no_host_is_refused_with_unrecognized_name() {
    let mut scene = Scene::new();
    let mut config = peer::good_client_config(&scene.certs);
    config.enable_sni = false;
    let mut client = scene.connect(config);
    assert_eq!(alert(&mut client), AlertDescription::UnrecognisedName);
    drop(client);
    let refused = Refused { outcome: "no_route", detail: "none of the hosts", identity: None };
    let record = scene.assert_refused(&refused);
    assert_eq!(record.get("sni"), None, "{record}");
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_host_is_matched_whatever_its_case() {
    let scene = Scene::new();
    let config = peer::good_client_config(&scene.certs);
    let mut client = peer::connect_as("MySQL.FQDN.Example", scene.ingress.address, config);
    echo(&mut client, "the same host");
}

#[test]
fn a_wildcard_host_answers_to_the_names_below_it_and_not_to_itself() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let names = ["*.example.com", "*.b.example.com", "example.com", HOST];
    root.install(&root.issue(&Leaf::server(&names)), &certs.ingress());
    let ingress = Program::ingress(&certs, backend.address, &["--host", "*.example.com"]);
    let connect = |sni: &str| peer::connect_as(sni, ingress.address, peer::good_client_config(&certs));
    for sni in ["a.example.com", "a.b.example.com"] {
        echo(&mut connect(sni), "below the star");
        assert_eq!(ingress.record()["sni"], sni);
    }
    for sni in ["example.com", "a.example.org"] {
        assert_eq!(alert(&mut connect(sni)), AlertDescription::UnrecognisedName, "{sni}");
        assert_eq!(ingress.record()["outcome"], "no_route", "{sni}");
    }
}

#[test]
fn a_client_of_tls_1_2_is_served_and_recorded_as_such() {
    let scene = Scene::new();
    let identity = Identity::of(&scene.certs.egress());
    for (versions, label) in [(ONLY_1_2, "TLSv1.2"), (ONLY_1_3, "TLSv1.3")] {
        let config = peer::client_config(&scene.root.certificate, Some(&identity), versions);
        let record = scene.admitted(config);
        assert_eq!(record["downstream"]["tls"]["version"], label, "{record}");
        assert_eq!(record["downstream"]["peer"]["identity"], CLIENT, "{record}");
        for field in ["cipher", "group"] {
            assert!(record["downstream"]["tls"][field].is_string(), "{record}");
        }
    }
    scene.assert_nothing_else_recorded();
}

#[test]
fn a_session_is_never_resumed_so_that_no_check_is_skipped() {
    let scene = Scene::new();
    for versions in [ONLY_1_2, ONLY_1_3] {
        let identity = Identity::of(&scene.certs.egress());
        let config = peer::client_config(&scene.root.certificate, Some(&identity), versions);
        for _ in 0..2 {
            let mut client = scene.connect(config.clone());
            echo(&mut client, "a full handshake");
            let kind = client.conn.handshake_kind();
            assert!(
                matches!(
                    kind,
                    Some(rustls::HandshakeKind::Full | rustls::HandshakeKind::FullWithHelloRetryRequest)
                ),
                "{kind:?}"
            );
            peer::half_close(&mut client);
            scene.ingress.record();
        }
    }
}

#[test]
fn a_client_is_let_in_through_an_intermediate_that_it_brings_along_and_not_without() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::new();
    let intermediate = root.intermediate();
    let (server, client) =
        (intermediate.issue(&Leaf::server(&[HOST])), intermediate.issue(&Leaf::client(&[CLIENT])));
    root.install(&server, &certs.ingress());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let config =
        |identity: &Identity| peer::client_config(&root.certificate, Some(identity), rustls::ALL_VERSIONS);
    // It trusts the root alone, so the ingress shows its own intermediate too.
    echo(&mut peer::connect(ingress.address, config(&client)), "through the intermediate");
    assert_eq!(ingress.record()["downstream"]["peer"]["identity"], CLIENT);

    let mut bare = client;
    bare.chain.truncate(1);
    assert_eq!(alert(&mut peer::connect(ingress.address, config(&bare))), AlertDescription::UnknownCA);
    assert_eq!(ingress.record()["outcome"], "unknown_ca");
}

#[test]
fn a_client_that_refuses_our_certificate_is_recorded_with_the_alert_that_it_sent() {
    let mut scene = Scene::new();
    let identity = Identity::of(&scene.certs.egress());
    let stranger = Authority::new();
    let config = peer::client_config(&stranger.certificate, Some(&identity), rustls::ALL_VERSIONS);
    let mut client = scene.connect(config);
    std::io::Write::write_all(&mut client, b"x").expect_err("a refusal");
    drop(client);
    let refused = Refused { outcome: "alert_received", detail: "unknown_ca", identity: None };
    scene.assert_refused(&refused);
    scene.assert_nothing_else_recorded();
}
