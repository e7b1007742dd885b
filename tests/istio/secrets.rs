//! Which key material of a secret is used, and what becomes of connections while there is none: T10 to T14, and
//! the fields of a Gateway that name more than one secret.

use rustls::{AlertDescription, ClientConfig};

use crate::ingress::Ingress;
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, alert};
use crate::support::socket::echo;
use crate::support::{CLIENT, HOST};

const MUTUAL: &str = "{mode: MUTUAL, credentialName: c}";

/// Whom the gateway is taken for by this client, which it lets in.
fn shown(ingress: &Ingress, config: ClientConfig) -> Vec<u8> {
    let mut client = peer::connect(ingress.program.address, config);
    echo(&mut client, "let in");
    client.conn.peer_certificates().and_then(<[_]>::first).expect("a certificate").to_vec()
}

#[test]
fn t10_of_two_pairs_in_a_secret_cert_and_key_are_shown() {
    let mut expected = Vec::new();
    let ingress = Ingress::after(MUTUAL, |root, credentials| {
        let [usual, generic] = [(); 2].map(|()| root.issue(&Leaf::server(&[HOST])));
        root.install(&usual, &credentials.join("c"));
        generic.install_as(&credentials.join("c"), ["cert", "key"]);
        expected = generic.leaf().to_vec();
    });
    let client = ingress.client(&[CLIENT]);
    assert_eq!(shown(&ingress, ingress.config(Some(&client))), expected);
}

#[test]
fn t11_the_ca_in_the_secret_beside_counts_and_not_the_one_inside() {
    let beside = Authority::called("beside");
    let ingress = Ingress::after(MUTUAL, |root, credentials| {
        root.install(&root.issue(&Leaf::server(&[HOST])), &credentials.join("c"));
        std::fs::create_dir(credentials.join("c-cacert")).expect("a directory");
        std::fs::write(credentials.join("c-cacert/cacert"), &beside.pem).expect("written");
    });
    ingress.admits(Some(&beside.issue(&Leaf::client(&[CLIENT]))));
    ingress.refuses(Some(&ingress.client(&[CLIENT])), AlertDescription::UnknownCA);
}

#[test]
fn t12_a_secret_beside_without_a_ca_is_an_error_and_the_ca_inside_is_not_used() {
    let ingress = Ingress::after(MUTUAL, |root, credentials| {
        let server = root.issue(&Leaf::server(&[HOST]));
        root.install(&server, &credentials.join("c"));
        server.install_as(&credentials.join("c-cacert"), ["tls.crt", "tls.key"]);
    });
    ingress.program.wait_for_stderr("connections that need it are closed until there is a usable credential");
    ingress.refuses(Some(&ingress.client(&[CLIENT])), AlertDescription::InternalError);
    let record = ingress.program.record();
    assert_eq!(record["outcome"], "no_credential", "{record}");
}

#[test]
fn t13_a_server_whose_secret_has_no_ca_closes_and_the_others_work() {
    let servers = [(13306, MUTUAL), (13307, "{mode: MUTUAL, credentialName: whole}")];
    let ingress = Ingress::of(Authority::new(), &servers, |root, credentials| {
        let server = root.issue(&Leaf::server(&[HOST]));
        server.install_as(&credentials.join("c"), ["tls.crt", "tls.key"]);
        root.install(&server, &credentials.join("whole"));
    });
    let second = ingress.program.next_event("ready");
    let second = second["listen"].as_str().and_then(|address| address.parse().ok()).expect("an address");
    let client = ingress.client(&[CLIENT]);
    ingress.refuses(Some(&client), AlertDescription::InternalError);
    echo(&mut peer::connect(second, ingress.config(Some(&client))), "let in");
    // Once the CA is there, so are the connections.
    std::fs::write(ingress.credential("c").join("ca.crt"), &ingress.root.pem).expect("written");
    ingress.program.wait_for_stderr("credential loaded");
    ingress.admits(Some(&client));
}

/// A gateway with these files for its CA and a list, and the client that the list revokes.
fn with_list(ca: &str, list: &str) -> (Ingress, Identity) {
    let root = Authority::new();
    let revoked = root.issue(&Leaf::client(&[CLIENT]));
    let ingress = Ingress::under(root, MUTUAL, |root, credentials| {
        let own = credentials.join("c");
        root.issue(&Leaf::server(&[HOST])).install_as(&own, ["tls.crt", "tls.key"]);
        std::fs::write(own.join(ca), &root.pem).expect("written");
        std::fs::write(own.join(list), root.crl(&[&revoked], 1)).expect("written");
    });
    (ingress, revoked)
}

#[test]
fn t14_a_revocation_list_counts_beside_the_ca_of_its_family_and_no_other() {
    for (ca, list) in [("ca.crt", "ca.crl"), ("cacert", "crl")] {
        let (ingress, revoked) = with_list(ca, list);
        ingress.refuses(Some(&revoked), AlertDescription::CertificateRevoked);
        ingress.admits(Some(&ingress.client(&[CLIENT])));
    }
    let (ingress, revoked) = with_list("cacert", "ca.crl");
    ingress.admits(Some(&revoked));
    // Which is not kept quiet.
    assert!(ingress.program.stderr().contains("ca.crl"), "{}", ingress.program.stderr());
}

#[test]
fn a_ca_in_a_secret_of_its_own_counts_and_not_the_one_inside() {
    let clients = Authority::called("of clients");
    let tls = "{mode: MUTUAL, credentialName: c, caCertCredentialName: clients}";
    let ingress = Ingress::after(tls, |root, credentials| {
        root.install(&root.issue(&Leaf::server(&[HOST])), &credentials.join("c"));
        std::fs::create_dir(credentials.join("clients")).expect("a directory");
        std::fs::write(credentials.join("clients/ca.crt"), &clients.pem).expect("written");
    });
    let client = clients.issue(&Leaf::client(&[CLIENT]));
    ingress.admits(Some(&client));
    ingress.refuses(Some(&ingress.client(&[CLIENT])), AlertDescription::UnknownCA);
    // It is renewed by itself: those of the old one are cut off, those of the new one let in.
    let mut open = ingress.connect(Some(&client));
    echo(&mut open, "let in");
    let next = Authority::called("of clients to come");
    std::fs::write(ingress.credential("clients").join("ca.crt"), &next.pem).expect("written");
    ingress.program.wait_for_stderr("credential loaded");
    ingress.admits(Some(&next.issue(&Leaf::client(&[CLIENT]))));
    ingress.refuses(Some(&client), AlertDescription::UnknownCA);
}

#[test]
fn of_two_certificates_a_client_is_shown_the_one_whose_key_it_knows() {
    let mut leaves = Vec::new();
    let tls = "{mode: MUTUAL, credentialNames: [c, d]}";
    let ingress = Ingress::after(tls, |root, credentials| {
        let (rsa, ecdsa) = (root.issue_rsa(&Leaf::server(&[HOST])), root.issue(&Leaf::server(&[HOST])));
        root.install(&rsa, &credentials.join("c"));
        // The CA is that of the first.
        Authority::called("beside").install(&ecdsa, &credentials.join("d"));
        leaves = vec![rsa.leaf().to_vec(), ecdsa.leaf().to_vec()];
    });
    let client = ingress.client(&[CLIENT]);
    for versions in [peer::ONLY_1_2, peer::ONLY_1_3] {
        let root = &ingress.root.certificate;
        let config = peer::client_config(root, Some(&client), versions);
        assert_eq!(shown(&ingress, config), leaves[1], "the cheaper one");
        let old = peer::client_that_knows_rsa_only(root, versions);
        let mut old = peer::connect(ingress.program.address, old);
        // It is refused for its missing certificate; ours it was shown before.
        assert_eq!(alert(&mut old), AlertDescription::CertificateRequired);
        let shown = old.conn.peer_certificates().and_then(<[_]>::first).expect("a certificate");
        assert_eq!(shown.as_ref(), leaves[0], "the one that it knows");
    }
}
