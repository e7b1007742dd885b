//! What records say, held against the files that it is about.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use twinlock::clock;
use twinlock::plan::Role;
use twinlock::plan::authorize::{Denied, Marks};
use twinlock::plan::outcome::Outcome;
use twinlock::plan::rbac::RuleName;
use twinlock::telemetry::entry::{Entry, Hop};

use crate::support::authority::{Authority, Leaf};
use crate::support::link::Link;
use crate::support::socket::{Backend, Refusing, attempt, connect, echo};
use crate::support::{self, Certs, Program, path, peer};

/// The issuer, the serial number and the SHA-256 of a certificate, as `openssl` shows them.
fn shown_by_openssl(certificate: &Path) -> [String; 3] {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-nameopt", "RFC2253", "-issuer", "-serial", "-fingerprint", "-sha256"]);
    let (code, out, err) = support::finish({
        openssl.args(["-in", path(certificate)]);
        openssl
    });
    assert_eq!(code, 0, "{err}");
    let value = |line: &str| line.split_once('=').expect("a value").1.trim().to_owned();
    let [issuer, serial, sha256] = [0, 1, 2].map(|line| value(out.lines().nth(line).expect("a line")));
    [issuer, serial, sha256.replace(':', "").to_lowercase()]
}

fn recorded(peer: &Value) -> [String; 3] {
    ["issuer", "serial", "sha256"].map(|name| peer[name].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_record_tells_which_certificate_the_peer_has_shown() {
    if !support::has(&["openssl"]) {
        return;
    }
    let link = Link::to(Backend::echo());
    let shown =
        ["ingress", "egress"].map(|site| shown_by_openssl(&link.certs.dir.path().join(site).join("tls.crt")));
    let mut stream = connect(link.egress.address);
    echo(&mut stream, "there");
    drop(stream);
    let [egress, ingress] = link.records();
    assert_eq!([&egress["upstream"]["peer"], &ingress["downstream"]["peer"]].map(recorded), shown);
}

#[test]
fn of_a_client_that_is_refused_too() {
    if !support::has(&["openssl"]) {
        return;
    }
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let stranger = Authority::new().issue(&Leaf::client(&["stranger.example"]));
    stranger.install(certs.dir.path());
    let config =
        peer::client_config(&Authority::of(&certs).certificate, Some(&stranger), rustls::ALL_VERSIONS);
    peer::alert(&mut peer::connect(ingress.address, config));
    let record = ingress.record();
    assert_eq!(record["outcome"], "unknown_ca", "{record}");
    let shown = shown_by_openssl(&certs.dir.path().join("tls.crt"));
    assert_eq!(recorded(&record["downstream"]["peer"]), shown);
}

/// The fields that the description has, with their types.
fn described() -> BTreeMap<String, String> {
    let text = include_str!("../../config/records.md");
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| field "));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].to_owned(), cells[2].to_owned())).collect()
}

/// The fields of a record, with their types; those of both hops by the same names.
fn fields(prefix: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    let kind = match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = if matches!(name.as_str(), "downstream" | "upstream") { "HOP" } else { name };
                fields(&format!("{prefix}{}{name}", if prefix.is_empty() { "" } else { "." }), value, found);
            }
            return;
        }
        Value::Number(number) if number.is_u64() => "integer",
        Value::String(_) => "string",
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            panic!("{prefix} is {other}")
        }
    };
    found.insert(prefix.to_owned(), kind.to_owned());
}

/// The record of a connection of which every kind of rule has said something.
fn marked() -> Entry {
    let rule = || Arc::new(RuleName("ns[a]-policy[b]-rule[0]".into()));
    Entry {
        id: 1,
        plan: 1,
        role: Role::Ingress,
        start: clock::wall(),
        duration: Duration::ZERO,
        bytes_received: 0,
        bytes_sent: 0,
        sni: None,
        downstream: Hop::default(),
        upstream: Hop::default(),
        marks: Marks { allowed: Some(rule()), shadow: Some(Denied::By(rule())), audited: Some(rule()) },
        outcome: Outcome::IdleTimeout,
    }
}

#[test]
fn every_field_of_records_is_described_and_no_other() {
    let link = Link::to(Backend::echo());
    let mut stream = connect(link.egress.address);
    echo(&mut stream, "there");
    drop(stream);
    let certs = Certs::mint();
    let nobody = Refusing::start();
    let lost = Program::egress(&certs, nobody.address, &[]);
    attempt(lost.address, b"");
    let marked = serde_json::from_str(&marked().json()).expect("JSON");
    let mut found = BTreeMap::new();
    for record in link.records().iter().chain([&lost.record(), &marked]) {
        assert_eq!(record["schema"], 1, "{record}");
        fields("", record, &mut found);
    }
    assert_eq!(found, described());
}
