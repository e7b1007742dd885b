//! Credential directories that cannot be used.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::refusal::assert_refused;
use crate::support::authority::{Authority, Leaf};
use crate::support::{Certs, HOST, Program, path};

fn ingress_with(credentials: &Path, problem: &str) {
    let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1", "--host", HOST];
    let more = ["--credentials", path(credentials)];
    assert_refused(&[&arguments[..], &more].concat(), &[problem]);
}

fn egress_with(credentials: &Path, problem: &str) {
    let arguments = ["egress", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--sni", HOST];
    let more = ["--credentials", path(credentials)];
    assert_refused(&[&arguments[..], &more].concat(), &[problem]);
}

const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Each file in turn is spoiled, and named in the refusal, on both sides.
fn check_each_file(spoil: impl Fn(&Path), problem: &str) {
    for name in FILES {
        let certs = Certs::mint();
        for (directory, refused) in
            [(certs.ingress(), ingress_with as fn(&Path, &str)), (certs.egress(), egress_with)]
        {
            let file = directory.join(name);
            let original = std::fs::read(&file).expect("a file");
            std::fs::remove_file(&file).expect("removed");
            spoil(&file);
            refused(&directory, problem);
            refused(&directory, &format!("{}", file.display()));
            remove(&file);
            std::fs::write(&file, original).expect("written");
        }
    }
}

fn remove(path: &Path) {
    // It may be a file, a directory or nothing.
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir(path);
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let certs = Certs::mint();
    let absent = certs.dir.path().join("absent");
    ingress_with(&absent, &format!("--credentials: cannot read {}: no such file", absent.display()));
}

#[test]
fn an_empty_directory_is_refused_by_the_first_file_it_lacks() {
    let certs = Certs::mint();
    let empty = certs.dir.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    ingress_with(&empty, &format!("expected a file, found none: {}/tls.crt", empty.display()));
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let certs = Certs::mint();
    ingress_with(&certs.ingress().join("tls.crt"), "tls.crt: not a directory");
}

#[test]
fn a_directory_that_is_a_loop_of_links_is_refused() {
    let certs = Certs::mint();
    let link = certs.dir.path().join("loop");
    symlink("loop", &link).expect("a link");
    ingress_with(&link, "too many levels of symbolic links");
}

#[test]
fn each_file_that_is_missing_is_named() {
    check_each_file(|_| (), "expected a file, found none");
}

#[test]
fn each_file_that_is_empty_is_named() {
    check_each_file(|file| std::fs::write(file, "").expect("written"), "expected at least one PEM");
}

#[test]
fn each_file_that_holds_something_else_is_named() {
    let text = "# a comment, and no PEM\n";
    check_each_file(|file| std::fs::write(file, text).expect("written"), "expected at least one PEM");
}

#[test]
fn each_file_that_is_a_directory_is_named() {
    check_each_file(|file| std::fs::create_dir(file).expect("a directory"), "expected a regular file");
}

#[test]
fn each_file_that_cannot_be_read_is_named() {
    // Permissions do not stop root; a loop stops everybody.
    check_each_file(|file| symlink(file, file).expect("a link"), "too many levels of symbolic links");
}

#[test]
fn each_file_that_is_too_large_is_named() {
    let large = vec![b'#'; 2 << 20];
    check_each_file(|file| std::fs::write(file, &large).expect("written"), "1048576 bytes, found a larger");
}

#[test]
fn each_file_that_is_a_fifo_is_named_and_does_not_hold_the_program_up() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let fifo = |file: &Path| mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    check_each_file(fifo, "expected a regular file");
}

#[test]
fn each_file_of_half_a_pem_section_is_named() {
    let half = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    let check = |name: &str, half: &str| {
        let certs = Certs::mint();
        std::fs::write(certs.ingress().join(name), half).expect("written");
        ingress_with(&certs.ingress(), &format!("{}/{name}", certs.ingress().display()));
        ingress_with(&certs.ingress(), "expected valid PEM");
    };
    check("tls.crt", half);
    check("ca.crt", half);
    check("tls.key", "-----BEGIN PRIVATE KEY-----\nMIGH\n");
}

#[test]
fn pem_around_something_that_is_no_certificate_is_refused() {
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for name in ["tls.crt", "ca.crt"] {
        let certs = Certs::mint();
        std::fs::write(certs.ingress().join(name), junk).expect("written");
        ingress_with(&certs.ingress(), name);
    }
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    let certs = Certs::mint();
    std::fs::copy(certs.egress().join("tls.key"), certs.ingress().join("tls.key")).expect("copied");
    ingress_with(&certs.ingress(), "found the key of another certificate");
}

#[test]
fn an_encrypted_key_is_refused() {
    let certs = Certs::mint();
    let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGH\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(certs.ingress().join("tls.key"), key).expect("written");
    ingress_with(&certs.ingress(), "tls.key");
}

#[test]
fn an_egress_with_public_roots_needs_no_ca_file() {
    let certs = Certs::mint();
    std::fs::remove_file(certs.egress().join("ca.crt")).expect("removed");
    egress_with(&certs.egress(), "expected a file, found none");
    Program::egress(&certs, ([127, 0, 0, 1], 1).into(), &["--ca", "public"]);
}

/// The ingress starts with a certificate of its own that is not valid now, and says so once.
fn check_own_validity(leaf: &Leaf, warning: &str) {
    let certs = Certs::mint();
    Authority::of(&certs).issue(leaf).install(&certs.ingress());
    let ingress = Program::ingress(&certs, ([127, 0, 0, 1], 1).into(), &[]);
    ingress.wait_for_stderr(warning);
    let directory: PathBuf = certs.ingress();
    assert_eq!(ingress.said(path(&directory)), 1, "{}", ingress.stderr());
    assert_eq!(ingress.said("WARN"), 1, "{}", ingress.stderr());
}

#[test]
fn an_own_certificate_that_expired_is_a_warning() {
    check_own_validity(&Leaf::server(&[HOST]).expired(), "own certificate expired");
}

#[test]
fn an_own_certificate_that_is_not_valid_yet_is_a_warning() {
    check_own_validity(&Leaf::server(&[HOST]).valid(1, 2), "own certificate becomes valid only in");
}
