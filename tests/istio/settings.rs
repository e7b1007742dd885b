//! TLS settings that contradict themselves: the P rows about them, and T16.

use twinlock::config::{resource, validate};

use crate::judge::{accepted, head, refused, warned};

fn server_tls(tls: &str) -> String {
    head("Gateway", "g")
        + &format!(
            "spec: {{servers: [{{port: {{number: 1, name: a, protocol: TLS}}, hosts: [a.b], tls: {tls}}}]}}"
        )
}

#[test]
fn p14_to_p19_tls_settings_of_a_server_that_contradict_themselves_are_refused() {
    refused(
        &server_tls("{mode: ISTIO_MUTUAL, credentialName: x}"),
        &["expected no credentialName with ISTIO_MUTUAL"],
    );
    refused(
        &server_tls("{mode: MUTUAL}"),
        &[
            "expected credentialName, found none, and of files neither serverCertificate, privateKey, caCertificates",
        ],
    );
    refused(
        &server_tls("{mode: MUTUAL, credentialName: x, credentialNames: [y]}"),
        &["expected credentialName or credentialNames, found both"],
    );
    refused(
        &server_tls("{mode: MUTUAL, credentialName: x, caCrl: /crl}"),
        &["expected the CRL beside the CA of the credential"],
    );
    refused(
        &server_tls("{mode: SIMPLE, serverCertificate: /a, privateKey: /b, caCrl: /crl}"),
        &["expected no CRL with SIMPLE"],
    );
    refused(
        &server_tls("{credentialName: x}"),
        &["expected a mode beside credentialName, found none, which would mean PASSTHROUGH"],
    );
    refused(
        &server_tls("{mode: SIMPLE, credentialName: x, subjectAltNames: [a.b]}"),
        &["expected a mode that asks clients for a certificate beside subjectAltNames"],
    );
    refused(
        &server_tls("{mode: MUTUAL, credentialName: x, insecureSkipVerify: true}"),
        &["expected certificates to be verified, found true"],
    );
    for name in ["../x", "a/b", "sds://x"] {
        refused(
            &server_tls(&format!("{{mode: MUTUAL, credentialName: \"{name}\"}}")),
            &["expected a plain name, which is a folder below --credentials"],
        );
    }
}

#[test]
fn credentials_of_a_server_that_mean_nothing_are_refused() {
    let check = |tls: &str, expected: &str| refused(&server_tls(tls), &[expected]);
    check(
        "{mode: MUTUAL, credentialNames: [x, y, z]}",
        "expected at most 2 names, one a kind of key, found 3",
    );
    check(
        "{mode: MUTUAL, credentialNames: [x, x]}",
        "credentialNames[1]: expected each credential once, found it twice: \"x\"",
    );
    check("{mode: MUTUAL, credentialNames: []}", "expected credentialName, found none");
    check(
        "{mode: SIMPLE, credentialName: x, caCertCredentialName: y}",
        "expected a mode that asks clients for a certificate beside caCertCredentialName",
    );
    check("{mode: MUTUAL, caCertCredentialName: y}", "expected credentialName, found none");
    check("{mode: MUTUAL, credentialName: x, caCertCredentialName: ../y}", "expected a plain name");
    let hash = "00".repeat(32);
    check(
        &format!("{{mode: SIMPLE, credentialName: x, verifyCertificateHash: [\"{hash}\"]}}"),
        "expected a mode that asks clients for a certificate beside verifyCertificateHash",
    );
    check(
        "{mode: MUTUAL, credentialName: x, verifyCertificateSpki: [AAAA]}",
        "verifyCertificateSpki[0]: expected a SHA-256 in base64, found \"AAAA\"",
    );
    check("{mode: MUTUAL, credentialName: x, maxProtocolVersion: TLSV1_1}", "expected at least TLSV1_2");
    accepted(&server_tls("{mode: MUTUAL, credentialNames: [x, y], maxProtocolVersion: TLSV1_2}"));
}

fn client_tls(tls: &str) -> String {
    head("DestinationRule", "d") + &format!("spec: {{host: a.b, trafficPolicy: {{tls: {tls}}}}}")
}

#[test]
fn p18_p20_p21_tls_settings_of_a_client_that_contradict_themselves_are_refused() {
    refused(
        &client_tls("{credentialName: x}"),
        &["expected a mode beside credentialName, found none, which would mean plaintext"],
    );
    refused(
        &client_tls("{mode: MUTUAL, credentialName: x, caCertificates: /ca}"),
        &["expected credentialName or caCertificates, found both"],
    );
    refused(
        &client_tls("{mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a.b]}"),
        &["expected certificates to be verified"],
    );
    refused(
        &client_tls("{mode: MUTUAL}"),
        &["expected credentialName, or clientCertificate and privateKey, found neither"],
    );
    refused(
        &client_tls("{mode: ISTIO_MUTUAL, credentialName: x}"),
        &["expected no credentialName with ISTIO_MUTUAL"],
    );
    accepted(&client_tls("{mode: ISTIO_MUTUAL, sni: a.b, subjectAltNames: [\"spiffe://td/ns/a/sa/b\"]}"));
}

#[test]
fn t16_a_cipher_suite_that_is_none_is_a_warning() {
    let text = server_tls("{mode: MUTUAL, credentialName: x, cipherSuites: [bogus]}");
    let (resources, mut report) = resource::read(vec![("in.yaml".into(), text)]);
    validate::resources(&resources, &mut report);
    assert!(report.errors() == 0 && warned(&report, "the default ones are used: \"bogus\""), "{report}");
}
