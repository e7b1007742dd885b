//! Credential directories that cannot be used.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::refusal::assert_refused;
use crate::support::authority::{Authority, Leaf};
use crate::support::socket::Backend;
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
fn a_directory_in_a_folder_that_is_missing_is_named() {
    let certs = Certs::mint();
    let absent = certs.dir.path().join("absent/ingress");
    ingress_with(&absent, &format!("--credentials: cannot read {}: no such file", absent.display()));
    egress_with(&absent, &format!("--credentials: cannot read {}: no such file", absent.display()));
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

/// An own certificate that a peer would refuse is not begun with.
fn check_own(leaf: &Leaf, problem: &str) {
    let certs = Certs::mint();
    Authority::of(&certs).issue(leaf).install(&certs.ingress());
    ingress_with(&certs.ingress(), problem);
}

#[test]
fn an_own_certificate_that_is_not_valid_now_is_refused() {
    check_own(&Leaf::server(&[HOST]).expired(), "expected a valid certificate, found one that expired on ");
    check_own(
        &Leaf::server(&[HOST]).valid(1, 2),
        "expected a valid certificate, found one that is valid from ",
    );
}

#[test]
fn an_own_certificate_for_another_use_is_refused() {
    check_own(&Leaf::client(&[HOST]), "expected a certificate for servers (extended key usage), found one");
    let certs = Certs::mint();
    Authority::of(&certs).issue(&Leaf::server(&["egress.example"])).install(&certs.egress());
    egress_with(&certs.egress(), "expected a certificate for clients (extended key usage), found one");
}

#[test]
fn an_own_certificate_for_another_host_is_refused_and_one_without_dns_names_is_told_of() {
    let problem = format!("expected a certificate for the host {HOST}, found one for other.example: ");
    check_own(&Leaf::server(&["other.example"]), &problem);
    check_own(
        &Leaf::server(&[]),
        &format!("expected a certificate for the host {HOST}, found one for no name: "),
    );
    let certs = Certs::mint();
    Authority::of(&certs).issue(&Leaf::server(&["spiffe://td/ns/a/sa/b"])).install(&certs.ingress());
    Program::ingress(&certs, ([127, 0, 0, 1], 1).into(), &[]).wait_for_stderr("carries no DNS name");
}

#[test]
fn a_ca_in_place_of_a_certificate_and_a_certificate_in_place_of_a_ca_are_refused() {
    let certs = Certs::mint();
    for name in ["tls.crt", "tls.key"] {
        let of_ca = certs.dir.path().join(name.replace("tls", "ca"));
        std::fs::copy(of_ca, certs.ingress().join(name)).expect("copied");
    }
    let found = "expected the certificate of a server or client, found a CA (";
    ingress_with(&certs.ingress(), found);
    let certs = Certs::mint();
    std::fs::copy(certs.ingress().join("tls.crt"), certs.ingress().join("ca.crt")).expect("copied");
    ingress_with(&certs.ingress(), "expected CA certificates, found a certificate that may sign no others (");
}

#[test]
fn der_is_named_as_such() {
    let certs = Certs::mint();
    for name in FILES {
        let file = certs.ingress().join(name);
        let original = std::fs::read(&file).expect("a file");
        std::fs::write(&file, [0x30, 0x82, 1, 2]).expect("written");
        ingress_with(&certs.ingress(), &format!("expected valid PEM, found DER: {}", file.display()));
        std::fs::write(&file, original).expect("written");
    }
}

#[test]
fn a_revocation_list_that_cannot_be_relied_on_is_refused() {
    let check = |list: &str, problem: &str| {
        let certs = Certs::mint();
        std::fs::write(certs.ingress().join("ca.crl"), list).expect("written");
        ingress_with(&certs.ingress(), problem);
        ingress_with(&certs.ingress(), "/ca.crl");
    };
    let another = Authority::new();
    check(&another.crl(&[], 1), "found a revocation list of another CA (");
    check("", "expected at least one PEM X509 CRL, found none");
    check("-----BEGIN X509 CRL-----\nMIIB\n", "expected valid PEM");
    check(
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        "found a revocation list that cannot be used",
    );
    let certs = Certs::mint();
    let impostor = Authority::named_like(&certs);
    std::fs::write(certs.ingress().join("ca.crl"), impostor.crl(&[], 1)).expect("written");
    ingress_with(&certs.ingress(), "found a revocation list that is not signed by the CA it names (");
    std::fs::write(certs.ingress().join("ca.crl"), Authority::of(&certs).crl(&[], -1)).expect("written");
    ingress_with(&certs.ingress(), "found one whose successor was due on ");
    let warned = Program::ingress(&certs, ([127, 0, 0, 1], 1).into(), &["--crl-expired", "warn"]);
    warned.wait_for_stderr("should have been replaced by now");
}

/// Runs openssl, which must succeed.
fn openssl(directory: &Path, arguments: &str) {
    let mut command = std::process::Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(directory);
    let (code, _, err) = crate::support::finish(command);
    assert_eq!(code, 0, "openssl {arguments}: {err}");
}

#[test]
fn weak_material_is_refused_by_name() {
    if !crate::support::has(&["openssl"]) {
        return;
    }
    let make = |request: &str, sign: &str| {
        let certs = Certs::mint();
        let directory = certs.ingress();
        openssl(
            &directory,
            &format!("req -new {request} -nodes -keyout tls.key -subj /CN=weak -out request.pem"),
        );
        std::fs::write(directory.join("extensions"), format!("subjectAltName=DNS:{HOST}")).expect("written");
        let ca = "-CA ../ca.crt -CAkey ../ca.key -CAcreateserial -days 1 -extfile extensions";
        openssl(&directory, &format!("x509 -req -in request.pem {ca} {sign} -out tls.crt"));
        certs
    };
    let weak_key = make("-newkey rsa:1024", "-sha256");
    ingress_with(&weak_key.ingress(), "found an RSA key of 1024 bits where 2048 are the least (CN=weak): ");
    let weak_hash = make("-newkey rsa:2048", "-sha1");
    ingress_with(&weak_hash.ingress(), "found a signature with SHA-1 (CN=weak): ");
    let strong = make("-newkey rsa:2048", "-sha256");
    Program::ingress(&strong, ([127, 0, 0, 1], 1).into(), &[]);
}

#[test]
fn keys_of_every_format_are_accepted() {
    if !crate::support::has(&["openssl"]) {
        return;
    }
    let nowhere = ([127, 0, 0, 1], 1).into();
    for (kind, generate, convert) in [
        (
            "EC PRIVATE KEY",
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
            "ec -in key.pem",
        ),
        (
            "RSA PRIVATE KEY",
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem",
            "rsa -traditional -in key.pem",
        ),
        ("PRIVATE KEY", "genpkey -algorithm ED25519 -out key.pem", "pkey -in key.pem"),
    ] {
        let certs = Certs::mint();
        let directory = certs.ingress();
        openssl(&directory, generate);
        openssl(&directory, &format!("{convert} -out tls.key"));
        let key = std::fs::read_to_string(directory.join("tls.key")).expect("a key");
        assert!(key.contains(&format!("-----BEGIN {kind}-----")), "{key}");
        openssl(&directory, "req -new -key tls.key -subj /CN=any -out request.pem");
        std::fs::write(directory.join("extensions"), format!("subjectAltName=DNS:{HOST}")).expect("written");
        let ca = "-CA ../ca.crt -CAkey ../ca.key -CAcreateserial -days 1 -extfile extensions";
        openssl(&directory, &format!("x509 -req -in request.pem {ca} -out tls.crt"));
        Program::ingress(&certs, nowhere, &[]);
    }
}

#[test]
fn the_files_of_the_other_family_come_first_and_a_directory_beside_takes_the_place_of_the_ca() {
    let certs = Certs::mint();
    let directory = certs.ingress();
    for (from, to) in [("tls.crt", "cert"), ("tls.key", "key"), ("ca.crt", "cacert")] {
        std::fs::copy(directory.join(from), directory.join(to)).expect("copied");
        // Not looked at.
        std::fs::write(directory.join(from), "junk").expect("written");
    }
    Program::ingress(&certs, ([127, 0, 0, 1], 1).into(), &[]);
    let beside = certs.dir.path().join("ingress-cacert");
    std::fs::create_dir(&beside).expect("a directory");
    let problem =
        format!("expected CA certificates in cacert or ca.crt, found neither: {}", beside.display());
    ingress_with(&directory, &problem);
    std::fs::copy(directory.join("cacert"), beside.join("ca.crt")).expect("copied");
    Program::ingress(&certs, ([127, 0, 0, 1], 1).into(), &[]);
}

#[test]
fn a_ca_that_was_given_a_new_key_is_told_from_one_that_did_not_sign() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let file = certs.ingress().join("ca.crt");
    // The leaf names the key that signed it, and it is none of this CA of the same name.
    std::fs::write(&file, Authority::named_like(&certs).pem).expect("written");
    let ingress = Program::ingress(&certs, backend.address, &[]);
    ingress.wait_for_stderr("own certificate is issued by none of the CAs beside it");
    // A leaf that names no key says that this one signed it, and it did not.
    let impostor = Authority::named_like(&certs);
    impostor.issue(&Leaf::server(&[HOST])).install(&certs.ingress());
    std::fs::write(&file, Authority::of(&certs).pem).expect("written");
    ingress_with(&certs.ingress(), "found one that it did not");
}
