//! Secrets that change under a running gateway: the W rows. (That nothing is lost of a thousand random changes
//! is shown in the tests of rotation.)

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, ClientConfig};
use twinlock::clock;

use crate::ingress::Ingress;
use crate::mount::{Mount, shown, shown_at, wait_until_shown};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, alert};
use crate::support::socket::echo;
use crate::support::{CLIENT, HOST, wait_until};

const MUTUAL: &str = "{mode: MUTUAL, credentialName: c}";

/// A gateway on a mounted secret, and a client that it lets in.
fn mounted() -> (Ingress, Mount, ClientConfig) {
    let mut mount = None;
    let ingress = Ingress::after(MUTUAL, |root, credentials| {
        mount = Some(Mount::new(credentials.join("c"), root, &root.issue(&Leaf::server(&[HOST]))));
    });
    let config = ingress.config(Some(&ingress.client(&[CLIENT])));
    (ingress, mount.expect("mounted"), config)
}

/// Connects again and again at this pace, until told to stop; says how many times. Each must come to terms.
fn come(address: SocketAddr, config: &ClientConfig, every: Duration, stop: &AtomicBool, came: &AtomicUsize) {
    let mut next = clock::now();
    while !stop.load(Ordering::Relaxed) {
        assert!(shown_at(address, config).is_some(), "client {} was refused", came.load(Ordering::Relaxed));
        came.fetch_add(1, Ordering::Relaxed);
        next += every;
        pause_until(next);
    }
}

#[allow(clippy::disallowed_methods, reason = "the pace of a load, not a wait for anything")]
fn pause_until(next: Instant) {
    std::thread::sleep(next.saturating_duration_since(clock::now()));
}

#[test]
fn w1_a_mounted_secret_is_swapped_under_a_hundred_connections_a_second_and_nobody_is_refused() {
    let (ingress, mut mount, config) = mounted();
    let mut open = peer::connect(ingress.program.address, config.clone());
    echo(&mut open, "before");
    let (stop, came) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = ingress.program.address;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| come(address, &config, Duration::from_millis(40), &stop, &came));
        }
        for swap in 1..=5 {
            wait_until("connections between two swaps", || came.load(Ordering::Relaxed) >= 20 * swap);
            let next = ingress.root.issue(&Leaf::server(&[HOST]));
            mount.update(&ingress.root, &next);
            wait_until_shown(&ingress.program, &config, &next);
        }
        stop.store(true, Ordering::Relaxed);
    });
    echo(&mut open, "and after");
    assert_eq!(ingress.program.said("credential loaded"), 5, "{}", ingress.program.stderr());
    assert_eq!(ingress.program.said("credential refused"), 0, "{}", ingress.program.stderr());
}

#[test]
fn w2_a_swap_that_takes_the_ca_away_keeps_the_last_good_one_and_says_so() {
    let (ingress, mut mount, config) = mounted();
    let before = shown(&ingress.program, &config);
    // The file is not in the next version of the secret.
    mount.update_without(&ingress.root, &ingress.root.issue(&Leaf::server(&[HOST])), "ca.crt");
    ingress.program.wait_for_stderr("credential refused");
    assert!(ingress.program.stderr().contains("ca.crt"), "{}", ingress.program.stderr());
    assert_eq!(shown(&ingress.program, &config), before);
    // Clients are verified as before.
    assert_eq!(alert(&mut ingress.connect(None)), AlertDescription::CertificateRequired);
}

#[test]
fn w3_a_new_certificate_whose_key_comes_later_is_never_shown_with_the_old_key() {
    let ingress = Ingress::with(MUTUAL);
    let config = ingress.config(Some(&ingress.client(&[CLIENT])));
    let (directory, before) = (ingress.credential("c"), shown(&ingress.program, &config));
    let next = ingress.root.issue(&Leaf::server(&[HOST]));
    next.install_as(&directory, ["tls.crt", "key-that-comes-later"]);
    ingress.program.wait_for_stderr("credential refused");
    // A client verifies the signature by the key of the certificate: a mixed pair would be seen here.
    for _ in 0..20 {
        ingress.program.signal("HUP");
        assert_eq!(shown(&ingress.program, &config), before);
    }
    std::fs::rename(directory.join("key-that-comes-later"), directory.join("tls.key")).expect("renamed");
    wait_until_shown(&ingress.program, &config, &next);
}

#[test]
fn w4_a_secret_beside_that_appears_later_switches_the_ca() {
    let ingress = Ingress::with(MUTUAL);
    let old: Identity = ingress.client(&[CLIENT]);
    ingress.admits(Some(&old));
    let beside = Authority::called("beside");
    let prepared = ingress.credential("prepared");
    std::fs::create_dir(&prepared).expect("a directory");
    std::fs::write(prepared.join("cacert"), &beside.pem).expect("written");
    std::fs::rename(&prepared, ingress.credential("c-cacert")).expect("renamed");
    ingress.program.wait_for_stderr("credential loaded");
    ingress.admits(Some(&beside.issue(&Leaf::client(&[CLIENT]))));
    ingress.refuses(Some(&old), AlertDescription::UnknownCA);
}
