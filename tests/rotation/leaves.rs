//! New leaves under the same root.

use crate::mount::{Mount, shown, wait_until_shown};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, Server};
use crate::support::socket::{Backend, connect, echo};
use crate::support::{CLIENT, Certs, HOST, Program, path, wait_until, wait_until_watched};

/// Long enough for no poll to find anything within a test.
const NO_POLL: [&str; 2] = ["--credentials-poll", "1h"];

#[test]
fn fifty_connections_live_on_while_new_leaves_are_taken_on_both_sides() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &NO_POLL);
    let egress = Program::egress(&certs, ingress.address, &NO_POLL);
    let mut open: Vec<_> = (0..50).map(|_| connect(egress.address)).collect();
    for client in &mut open {
        echo(client, "old leaves");
    }
    // File by file, as a person would: what is half done is refused, then whole.
    certs.mint_again();
    let new = Identity::of(&certs.ingress());
    wait_until_shown(&ingress, &peer::good_client_config(&certs), &new);
    egress.wait_for_stderr("credential loaded");
    echo(&mut connect(egress.address), "new leaves");
    for client in &mut open {
        echo(client, "still the old ones");
    }
}

#[test]
fn an_egress_shows_its_new_leaf_to_the_next_server() {
    let certs = Certs::mint();
    let root = Authority::of(&certs);
    let server = Server::start(peer::server_config(&Identity::of(&certs.ingress()), Some(&root)));
    let egress = Program::egress(&certs, server.address, &NO_POLL);
    let shown = || {
        let _client = connect(egress.address);
        server.accept().conn.peer_certificates().and_then(<[_]>::first).cloned()
    };
    assert_eq!(shown().as_ref(), Some(Identity::of(&certs.egress()).leaf()));
    let new = root.issue(&Leaf::client(&[CLIENT]));
    new.install(&certs.egress());
    wait_until("the new certificate", || shown().as_ref() == Some(new.leaf()));
}

/// An ingress on a mounted secret.
struct Mounted {
    root: Authority,
    mount: Mount,
    ingress: Program,
    certs: Certs,
    _backend: Backend,
}

impl Mounted {
    fn new(more: &[&str]) -> Self {
        let (certs, backend) = (Certs::mint(), Backend::echo());
        let root = Authority::of(&certs);
        let directory = certs.dir.path().join("mount");
        let mount = Mount::new(directory, &root, &root.issue(&Leaf::server(&[HOST])));
        let server = backend.address.to_string();
        let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", &server, "--host", HOST];
        let credentials = ["--credentials", path(&mount.directory)];
        let ingress = Program::start(&[&arguments[..], &credentials, more].concat());
        Self { root, mount, ingress, certs, _backend: backend }
    }

    fn issue(&self) -> Identity {
        self.root.issue(&Leaf::server(&[HOST]))
    }
}

#[test]
fn a_mounted_secret_is_taken_when_its_data_link_is_swapped_again_and_again() {
    let mut mounted = Mounted::new(&NO_POLL);
    let config = peer::good_client_config(&mounted.certs);
    let mut open = peer::connect(mounted.ingress.address, config.clone());
    echo(&mut open, "first");
    for _ in 0..3 {
        let new = mounted.issue();
        mounted.mount.update(&mounted.root, &new);
        wait_until_shown(&mounted.ingress, &config, &new);
    }
    echo(&mut open, "still the first");
    peer::half_close(&mut open);
    mounted.ingress.stop();
    assert_eq!(mounted.ingress.said("credential refused"), 0, "{}", mounted.ingress.stderr());
    assert_eq!(mounted.ingress.said("credential loaded"), 3, "{}", mounted.ingress.stderr());
}

#[test]
fn a_broken_update_keeps_the_old_leaf_and_says_why_once_and_its_repair_is_taken() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let mut ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "20ms"]);
    let config = peer::good_client_config(&certs);
    let old = Identity::of(&certs.ingress());
    let key = certs.ingress().join("tls.key");
    std::fs::copy(certs.egress().join("tls.key"), &key).expect("copied");
    ingress.wait_for_stderr("credential refused");
    for _ in 0..20 {
        // Each makes it look again, and each handshake is longer than a poll.
        ingress.signal("HUP");
        assert_eq!(shown(&ingress, &config).as_ref(), Some(old.leaf()));
    }
    let said = ingress.stderr();
    assert!(said.contains("found the key of another certificate"), "{said}");
    assert!(said.contains(path(&key)), "{said}");
    let new = Authority::of(&certs).issue(&Leaf::server(&[HOST]));
    new.install(&certs.ingress());
    wait_until_shown(&ingress, &config, &new);
    ingress.stop();
    // The key is written before its certificate, so it may have been seen without.
    assert!((1..=2).contains(&ingress.said("credential refused")), "{}", ingress.stderr());
}

#[test]
fn half_a_file_is_never_used() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &NO_POLL);
    let config = peer::good_client_config(&certs);
    let old = Identity::of(&certs.ingress());
    let file = certs.ingress().join("tls.crt");
    let whole = std::fs::read(&file).expect("a file");
    for length in [0, 1, whole.len() / 2, whole.len() - 20] {
        std::fs::write(&file, &whole[..length]).expect("written");
        ingress.signal("HUP");
        ingress.wait_for_stderr("credential refused");
        assert_eq!(shown(&ingress, &config).as_ref(), Some(old.leaf()), "{length} bytes");
    }
    let new = Authority::of(&certs).issue(&Leaf::server(&[HOST]));
    new.install(&certs.ingress());
    wait_until_shown(&ingress, &config, &new);
}

/// An ingress whose directory is a link to a place that nobody watches.
fn behind_links(more: &[&str]) -> (Certs, Authority, Program, Backend) {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let root = Authority::of(&certs);
    let elsewhere = certs.dir.path().join("elsewhere");
    root.install(&Identity::of(&certs.ingress()), &elsewhere.join("one/set"));
    std::os::unix::fs::symlink("one", elsewhere.join("current")).expect("a link");
    let directory = certs.dir.path().join("here/set");
    std::fs::create_dir(certs.dir.path().join("here")).expect("a directory");
    std::os::unix::fs::symlink(elsewhere.join("current/set"), &directory).expect("a link");
    let server = backend.address.to_string();
    let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", &server, "--host", HOST];
    let ingress = Program::start(&[&arguments[..], &["--credentials", path(&directory)], more].concat());
    wait_until_watched(&ingress);
    (certs, root, ingress, backend)
}

/// Swaps the place behind the link for one with a new leaf; nothing changes in a directory that is watched.
fn swap_behind_links(certs: &Certs, root: &Authority) -> Identity {
    let elsewhere = certs.dir.path().join("elsewhere");
    let new = root.issue(&Leaf::server(&[HOST]));
    root.install(&new, &elsewhere.join("two/set"));
    std::os::unix::fs::symlink("two", elsewhere.join("next")).expect("a link");
    std::fs::rename(elsewhere.join("next"), elsewhere.join("current")).expect("swapped");
    new
}

#[test]
fn a_link_that_is_swapped_on_the_way_to_the_directory_is_heard_of() {
    let (certs, root, ingress, _backend) = behind_links(&NO_POLL);
    let new = swap_behind_links(&certs, &root);
    wait_until_shown(&ingress, &peer::good_client_config(&certs), &new);
}

/// Writes a new leaf over the files of the ingress by names of theirs in a directory that nobody watches.
fn overwrite_by_other_names(certs: &Certs) -> Identity {
    let names = certs.dir.path().join("other-names");
    std::fs::create_dir(&names).expect("a directory");
    for name in ["tls.key", "tls.crt"] {
        std::fs::hard_link(certs.ingress().join(name), names.join(name)).expect("another name");
    }
    let new = Authority::of(certs).issue(&Leaf::server(&[HOST]));
    new.overwrite(&names);
    new
}

#[test]
fn a_change_that_no_event_tells_is_found_by_polling() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "200ms"]);
    wait_until_watched(&ingress);
    let new = overwrite_by_other_names(&certs);
    wait_until_shown(&ingress, &peer::good_client_config(&certs), &new);
}

#[test]
fn a_change_that_no_event_tells_is_taken_on_hangup() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &NO_POLL);
    wait_until_watched(&ingress);
    let old = Identity::of(&certs.ingress());
    let new = overwrite_by_other_names(&certs);
    let config = peer::good_client_config(&certs);
    assert_eq!(shown(&ingress, &config).as_ref(), Some(old.leaf()));
    ingress.signal("HUP");
    wait_until_shown(&ingress, &config, &new);
}

#[test]
fn a_new_leaf_that_is_expired_or_too_early_is_never_shown_and_one_whose_time_comes_is() {
    let mut mounted = Mounted::new(&["--credentials-poll", "50ms"]);
    let config = peer::good_client_config(&mounted.certs);
    let good = mounted.issue();
    mounted.mount.update(&mounted.root, &good);
    wait_until_shown(&mounted.ingress, &config, &good);
    mounted.mount.update(&mounted.root, &mounted.root.issue(&Leaf::server(&[HOST]).expired()));
    mounted.ingress.wait_for_stderr("found one that expired on");
    assert_eq!(shown(&mounted.ingress, &config).as_ref(), Some(good.leaf()));
    let early = mounted.root.issue(&Leaf::server(&[HOST]).valid_in_seconds(3, 3600));
    mounted.mount.update(&mounted.root, &early);
    mounted.ingress.wait_for_stderr("found one that is valid from");
    assert_eq!(shown(&mounted.ingress, &config).as_ref(), Some(good.leaf()));
    wait_until_shown(&mounted.ingress, &config, &early);
    mounted.ingress.stop();
    // The one that was too early was looked at often, and told of once.
    assert_eq!(mounted.ingress.said("found one that is valid from"), 1, "{}", mounted.ingress.stderr());
}

#[test]
fn a_change_right_after_the_start_is_not_missed() {
    for _ in 0..5 {
        let mut mounted = Mounted::new(&NO_POLL);
        let new = mounted.issue();
        mounted.mount.update(&mounted.root, &new);
        wait_until_shown(&mounted.ingress, &peer::good_client_config(&mounted.certs), &new);
    }
}
