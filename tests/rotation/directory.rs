//! A credential directory that goes away and comes back.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::mount::{shown, wait_until_shown};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::socket::{Backend, Ending, connect, echo, ending};
use crate::support::{self, Certs, HOST, Program, Reader, path, peer, wait_until_watched};

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
fn an_ingress_waits_for_a_directory_that_is_not_there_yet() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let config = peer::good_client_config(&certs);
    let (root, identity) = (Authority::of(&certs), Identity::of(&certs.ingress()));
    let away = certs.dir.path().join("away");
    rename(&certs.ingress(), &away);
    let ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "1h"]);
    ingress.wait_for_stderr("connections that need it are closed until there is a usable credential");
    assert!(ingress.stderr().contains(&format!("cannot read {}", path(&certs.ingress()))));
    let alert = peer::alert(&mut peer::connect(ingress.address, config.clone()));
    assert_eq!(alert, rustls::AlertDescription::InternalError);
    let record = ingress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["no_credential", "gateway"], "{record}");
    // File by file: what lacks one is refused, not used.
    root.install(&identity, &certs.ingress());
    wait_until_shown(&ingress, &config, &identity);
    assert!(away.is_dir());
}

#[test]
fn an_egress_waits_for_a_directory_that_is_not_there_yet_and_sends_nothing_meanwhile() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let away = certs.dir.path().join("away");
    rename(&certs.egress(), &away);
    let mut egress = Program::egress(&certs, ingress.address, &["--credentials-poll", "1h"]);
    egress.wait_for_stderr("connections that need it are closed until there is a usable credential");
    assert_eq!(ending(&mut connect(egress.address)), Ending::Reset);
    let record = egress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["no_credential", "gateway"], "{record}");
    // The other side was dialled and told nothing, not even the name.
    let record = ingress.record();
    assert!(record["sni"].is_null() && record["bytes_received"] == 0, "{record}");
    rename(&away, &certs.egress());
    egress.wait_for_stderr("credential loaded");
    echo(&mut connect(egress.address), "served");
    egress.stop();
    assert_eq!(egress.said("credential refused"), 0, "{}", egress.stderr());
}

#[test]
fn a_directory_that_was_misspelt_is_told_with_the_one_that_was_probably_meant() {
    let certs = Certs::mint();
    for (name, told) in [("ingres", Some("ingress")), ("elsewhere", None)] {
        let directory = certs.dir.path().join(name);
        let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1", "--host", HOST];
        let mut ingress = Program::start(&[&arguments[..], &["--credentials", path(&directory)]].concat());
        ingress.stop();
        let said = ingress.stderr();
        let told = told.map(|name| format!("(did you mean {}?)", path(&certs.dir.path().join(name))));
        assert!(told.as_ref().is_none_or(|told| said.contains(told)), "{said}");
        assert_eq!(told.is_some(), said.contains("did you mean"), "{said}");
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
