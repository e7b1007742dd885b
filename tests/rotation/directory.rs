//! A credential directory that goes away and comes back.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::mount::{shown, wait_until_shown, wait_until_watched};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::socket::Backend;
use crate::support::{self, Certs, HOST, Program, Reader, path, peer};

/// Takes the directory away and makes it again with a new leaf, twice; only events tell of it.
fn check(certs: &Certs, ingress: &Program) {
    let (root, config) = (Authority::of(certs), peer::good_client_config(certs));
    let directory = certs.ingress();
    let mut current = Identity::of(&directory);
    for round in 1..=2 {
        std::fs::remove_dir_all(&directory).expect("removed");
        support::wait_until("the refusal", || ingress.said("cannot read") >= round);
        assert_eq!(shown(ingress, &config).as_ref(), Some(current.leaf()));
        current = root.issue(&Leaf::server(&[HOST]));
        root.install(&current, &directory);
        wait_until_shown(ingress, &config, &current);
        // What is there now is watched, not what was.
        current = root.issue(&Leaf::server(&[HOST]));
        current.install(&directory);
        wait_until_shown(ingress, &config, &current);
    }
}

#[test]
fn a_directory_that_is_deleted_and_made_again_is_followed() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "1h"]);
    check(&certs, &ingress);
}

#[test]
fn a_directory_named_without_its_parent_is_followed_too() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let server = backend.address.to_string();
    let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", &server, "--host", HOST];
    let more = ["--credentials", "ingress", "--credentials-poll", "1h", "--log-format", "json"];
    let mut command = support::command(&[&arguments[..], &more].concat());
    command.current_dir(certs.dir.path());
    let ingress = Program::launch(command, Reader::Reads, Reader::Reads);
    check(&certs, &ingress);
}

#[test]
fn a_directory_that_is_replaced_at_once_is_followed() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "1h"]);
    let (root, config) = (Authority::of(&certs), peer::good_client_config(&certs));
    let beside = |name: &str| certs.dir.path().join(name);
    for round in 1..=3 {
        let new = root.issue(&Leaf::server(&[HOST]));
        root.install(&new, &beside("next"));
        rename(&certs.ingress(), &beside(&format!("old-{round}")));
        rename(&beside("next"), &certs.ingress());
        wait_until_shown(&ingress, &config, &new);
    }
    assert!(Path::new(path(&certs.ingress())).is_dir());
}

#[test]
fn a_directory_that_is_a_link_is_followed_to_where_it_leads_now() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let (root, config) = (Authority::of(&certs), peer::good_client_config(&certs));
    let beside = |name: &str| certs.dir.path().join(name);
    rename(&certs.ingress(), &beside("version-0"));
    symlink("version-0", certs.ingress()).expect("a link");
    let ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "1h"]);
    wait_until_watched(&ingress);
    for version in 1..=3 {
        let (new, name) = (root.issue(&Leaf::server(&[HOST])), format!("version-{version}"));
        root.install(&new, &beside(&name));
        symlink(name, beside("next")).expect("a link");
        rename(&beside("next"), &certs.ingress());
        wait_until_shown(&ingress, &config, &new);
    }
}

#[test]
fn a_directory_that_stays_away_is_told_of_once() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let mut ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "20ms"]);
    let config = peer::good_client_config(&certs);
    let leaf = Identity::of(&certs.ingress());
    rename(&certs.ingress(), &certs.dir.path().join("away"));
    ingress.wait_for_stderr("cannot read");
    for _ in 0..20 {
        // Each makes it look again, and each handshake is longer than a poll.
        ingress.signal("HUP");
        assert_eq!(shown(&ingress, &config).as_ref(), Some(leaf.leaf()));
    }
    ingress.stop();
    assert_eq!(ingress.said("cannot read"), 1, "{}", ingress.stderr());
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("renamed");
}
