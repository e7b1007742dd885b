//! A new root: whoever the old one vouched for is a stranger from then on.

use rustls::AlertDescription;

use crate::mount::wait_until_shown;
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, alert};
use crate::support::socket::{Backend, Ending, connect, echo, ending};
use crate::support::{CLIENT, Certs, HOST, Program};

#[test]
fn after_the_root_is_replaced_its_old_clients_are_refused_and_its_new_ones_let_in() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let more = ["--credentials-poll", "1h", "--revoked-grace", "0s"];
    let ingress = Program::ingress(&certs, backend.address, &more);
    let old_root = Authority::of(&certs);
    let old = Identity::of(&certs.egress());
    let mut open = peer::connect(ingress.address, peer::good_client_config(&certs));
    echo(&mut open, "under the old root");

    let new_root = Authority::new();
    let (leaf, client) = (new_root.issue(&Leaf::server(&[HOST])), new_root.issue(&Leaf::client(&[CLIENT])));
    new_root.install(&leaf, &certs.ingress());
    let versions = rustls::ALL_VERSIONS;
    let config = peer::client_config(&new_root.certificate, Some(&client), versions);
    wait_until_shown(&ingress, &config, &leaf);
    echo(&mut peer::connect(ingress.address, config), "under the new root");

    let config = peer::client_config(&new_root.certificate, Some(&old), versions);
    assert_eq!(alert(&mut peer::connect(ingress.address, config)), AlertDescription::UnknownCA);
    // Nobody vouches any more for the one that is open.
    assert_eq!(ending(&mut open), Ending::Reset);
    assert_ne!(old_root.certificate, new_root.certificate);
}

#[test]
fn with_both_roots_in_the_bundle_clients_of_either_are_let_in() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let (old_root, new_root) = (Authority::of(&certs), Authority::new());
    let bundle = format!("{}{}", old_root.pem, new_root.pem);
    std::fs::write(certs.ingress().join("ca.crt"), bundle).expect("written");
    let ingress = Program::ingress(&certs, backend.address, &[]);
    for identity in [Identity::of(&certs.egress()), new_root.issue(&Leaf::client(&[CLIENT]))] {
        let config = peer::client_config(&old_root.certificate, Some(&identity), rustls::ALL_VERSIONS);
        echo(&mut peer::connect(ingress.address, config), "let in");
    }
}

#[test]
fn an_egress_trusts_a_server_of_the_new_root_once_its_bundle_has_it() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "1h"]);
    let egress = Program::egress(&certs, ingress.address, &["--credentials-poll", "1h"]);
    echo(&mut connect(egress.address), "under the old root");
    let (old_root, new_root) = (Authority::of(&certs), Authority::new());
    // First the bundle of the egress, then the leaf of the ingress: the order that loses nothing.
    let bundle = format!("{}{}", old_root.pem, new_root.pem);
    std::fs::write(certs.egress().join("ca.crt"), bundle).expect("written");
    egress.wait_for_stderr("credential loaded");
    let leaf = new_root.issue(&Leaf::server(&[HOST]));
    leaf.install(&certs.ingress());
    let config = peer::client_config(
        &new_root.certificate,
        Some(&Identity::of(&certs.egress())),
        rustls::ALL_VERSIONS,
    );
    wait_until_shown(&ingress, &config, &leaf);
    echo(&mut connect(egress.address), "under the new root");
}

#[test]
fn a_root_that_is_replaced_file_by_file_is_never_used_with_the_leaf_of_the_old_one() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let mut ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "50ms"]);
    let old = Identity::of(&certs.egress());
    let (old_root, new_root) = (Authority::of(&certs), Authority::new());
    let versions = rustls::ALL_VERSIONS;
    std::fs::write(certs.ingress().join("ca.crt"), &new_root.pem).expect("written");
    ingress.wait_for_stderr("waiting whether more changes");
    // Until the rest is there, the old set is whole and in use.
    let config = peer::client_config(&old_root.certificate, Some(&old), versions);
    echo(&mut peer::connect(ingress.address, config), "under the old root");
    let (leaf, client) = (new_root.issue(&Leaf::server(&[HOST])), new_root.issue(&Leaf::client(&[CLIENT])));
    leaf.install(&certs.ingress());
    let config = peer::client_config(&new_root.certificate, Some(&client), versions);
    wait_until_shown(&ingress, &config, &leaf);
    echo(&mut peer::connect(ingress.address, config), "under the new root");
    ingress.stop();
    assert_eq!(ingress.said("credential loaded"), 1, "{}", ingress.stderr());
}
