//! `twinlock certs`: what it shows, what it finds wrong, and what it makes of folders that are no credentials.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use crate::refusal::assert_refused;
use crate::support::authority::{Authority, Leaf};
use crate::support::{self, Certs, HOST, path};

fn sheets(arguments: &[&str]) -> (i32, Vec<Value>) {
    let (code, out, err) = support::run(&[&["certs", "--json"], arguments].concat());
    assert_eq!(err, "");
    (code, serde_json::from_str(&out).expect("JSON"))
}

#[test]
fn what_openssl_reads_in_a_certificate_is_what_is_shown_of_it() {
    if !support::has(&["openssl"]) {
        return;
    }
    let certs = Certs::mint();
    let (code, sheets) = sheets(&[path(&certs.ingress())]);
    assert_eq!((code, sheets.len()), (0, 1), "{sheets:?}");
    let leaf = &sheets[0]["certificates"][0];
    let file = certs.ingress().join("tls.crt");
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["x509", "-in", path(&file), "-noout", "-serial", "-fingerprint", "-sha256", "-enddate"]);
    openssl.args(["-dateopt", "iso_8601"]);
    let (_, said, _) = support::finish(openssl);
    let text = |field: &str| leaf[field].as_str().expect("text").to_owned();
    assert!(said.contains(&format!("serial={}\n", text("serial"))), "{said} {leaf}");
    let fingerprint = said.replace(':', "").to_lowercase();
    assert!(fingerprint.contains(&format!("fingerprint={}\n", text("sha256"))), "{said} {leaf}");
    assert!(said.contains(&text("not_after").replace('T', " ")), "{said} {leaf}");
    assert_eq!([&leaf["role"], &leaf["key"], &leaf["file"]], ["leaf", "ECDSA P-256", path(&file)]);
    assert_eq!(leaf["names"], serde_json::json!([HOST, "localhost"]));
    assert_eq!(leaf["issuer"], sheets[0]["certificates"][1]["subject"], "{sheets:?}");
}

#[test]
fn a_folder_of_credentials_is_shown_whole_with_what_is_wrong_in_each() {
    let certs = Certs::mint();
    let root = Authority::of(&certs);
    let folder = certs.dir.path().join("all");
    let directory = |name: &str| folder.join(name);
    let good = root.issue(&Leaf::server(&[HOST]));
    for name in ["good", "expired", "mixed", "listed", "stale", "..2026"] {
        root.install(&good, &directory(name));
    }
    root.issue(&Leaf::server(&[HOST]).expired()).install(&directory("expired"));
    std::fs::copy(certs.egress().join("tls.key"), directory("mixed").join("tls.key")).expect("copied");
    std::fs::write(directory("listed").join("ca.crl"), root.crl(&[&good], 5)).expect("written");
    std::fs::write(directory("stale").join("ca.crl"), root.crl(&[], -1)).expect("written");
    std::fs::create_dir(directory("empty")).expect("a directory");
    std::fs::create_dir(directory("ca-cacert")).expect("a directory");
    std::fs::write(directory("ca-cacert").join("cacert"), &root.pem).expect("written");
    std::fs::create_dir(folder.join(OsStr::from_bytes(b"not-\xff-utf8"))).expect("a directory");
    let (code, sheets) = sheets(&[path(&folder)]);
    assert_eq!(code, 1);
    let found = |name: &str| sheets.iter().find(|sheet| sheet["name"] == name).expect("a sheet");
    let problem = |name: &str| found(name)["problem"].as_str().unwrap_or("none").to_owned();
    for name in ["good", "listed", "ca-cacert"] {
        assert_eq!(problem(name), "none");
        assert_eq!(found(name)["usable"], true);
    }
    assert!(problem("expired").contains("found one that expired on"), "{}", problem("expired"));
    assert!(problem("mixed").contains("found the key of another certificate"), "{}", problem("mixed"));
    assert!(problem("stale").contains("successor was due on"), "{}", problem("stale"));
    assert!(problem("empty").contains("found none of its files"), "{}", problem("empty"));
    assert!(problem("not-\u{fffd}-utf8").contains("found none of its files"));
    assert_eq!(sheets.len(), 8, "what begins with two dots is no credential");
    let list = &found("listed")["revocation_lists"][0];
    assert_eq!(list["revoked"], 1, "{list}");
    assert!(list["days_left"] == 4 || list["days_left"] == 5, "{list}");
    assert!(found("listed")["warnings"][0].as_str().is_some_and(|text| text.contains("is revoked")));
    // What is refused is shown all the same.
    let left = found("expired")["certificates"][0]["days_left"].as_i64().expect("a number");
    assert!((-3..=-2).contains(&left), "{left}");
}

#[test]
fn ten_thousand_folders_are_a_matter_of_moments() {
    let certs = Certs::mint();
    let folder = certs.dir.path().join("many");
    for number in 0..10_000 {
        std::fs::create_dir_all(folder.join(format!("c{number}"))).expect("a directory");
    }
    let root = Authority::of(&certs);
    root.install(&root.issue(&Leaf::server(&[HOST])), &folder.join("c500"));
    let arguments = ["certs", "--json", path(&folder)];
    let mut command = support::command(&arguments);
    let output = certs.dir.path().join("output");
    command.stdout(std::fs::File::create(&output).expect("a file"));
    let status = command.status().expect("the program runs");
    assert_eq!(status.code(), Some(1));
    let sheets: Vec<Value> = serde_json::from_slice(&std::fs::read(&output).expect("output")).expect("JSON");
    assert_eq!(sheets.len(), 10_000);
    assert_eq!(sheets.iter().filter(|sheet| sheet["usable"] == true).count(), 1);
}

#[test]
fn a_terminal_is_shown_colours_and_nothing_else_is() {
    let certs = Certs::mint();
    let directory = certs.ingress();
    let (code, plain, _) = support::run(&["certs", path(&directory)]);
    assert_eq!(code, 0);
    assert!(plain.contains("days left") && !plain.contains('\x1b'), "{plain}");
    if !support::has(&["script"]) {
        return;
    }
    let arguments = ["certs", path(&directory)];
    let shown = support::on_terminal(&arguments, "");
    assert!([1, 2].iter().any(|days| shown.contains(&format!("\x1b[31m{days} days left\x1b[0m"))), "{shown}");
    assert!(!support::on_terminal(&arguments, "1").contains('\x1b'));
}

#[test]
fn a_directory_that_is_none_is_named() {
    let certs = Certs::mint();
    let absent = certs.dir.path().join("absent");
    assert_refused(&["certs", path(&absent)], &["cannot read "]);
    let empty = certs.dir.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    assert_refused(
        &["certs", path(&empty)],
        &["expected a credential or a folder of credentials, found neither"],
    );
    assert_refused(&["certs"], &["<DIR>"]);
}
