//! What the demo prints. Every address, name, number and date is from a record or an answer.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;

use mysql_async::Row;
use serde_json::Value;

use crate::Flags;
use crate::link::Link;

pub fn parts(link: &Link, flags: &Flags) {
    let kind = if flags.backend.is_some() { "yours" } else { "embedded in this demo" };
    println!("twinlock: one MySQL connection in three legs, the middle one over mutual TLS\n");
    println!("  server   {:<17} {kind}; plaintext", link.backend);
    let (there, here) = (&link.ingress, &link.egress);
    println!("  ingress  {:<17} process {}; mutual TLS in, plaintext out", there.address, there.process());
    println!("  egress   {:<17} process {}; plaintext in, mutual TLS out", here.address, here.process());
    println!("  certificates of both gateways, under a root of their own: {}", link.directory().display());
}

pub fn heading(number: u32, text: &str) {
    println!("\n{number}. {text}\n");
}

pub fn answer(query: &str, row: &Row) {
    println!("  {query}");
    for (index, column) in row.columns_ref().iter().enumerate() {
        println!("  {:>10}: {}", column.name_str(), cell(row, index));
    }
}

/// The three legs of a connection, as its two records tell them.
pub fn legs(egress: &Value, ingress: &Value, entrance: SocketAddr) {
    let (cipher, group) = (text(egress, "/upstream/tls/cipher"), text(egress, "/upstream/tls/group"));
    println!("\n  client   {}", text(egress, "/downstream/address"));
    println!("    |      {}: {}", version(egress, "/downstream"), bytes(egress));
    println!("  egress   {entrance}");
    println!("    #      {}, {cipher}, key exchange {group}", version(egress, "/upstream"));
    println!("    #      SNI: {}", text(ingress, "/sni"));
    println!("    #      the egress verified the ingress: {}", peer(egress, "/upstream/peer"));
    println!("    #      the ingress verified the egress: {}", peer(ingress, "/downstream/peer"));
    println!("  ingress  {}", text(egress, "/upstream/address"));
    println!("    |      {}: {}", version(ingress, "/upstream"), bytes(ingress));
    println!("  server   {}", text(ingress, "/upstream/address"));
}

pub fn session(what: &str, row: &Row) {
    println!("  {what}: session {} of the server", cell(row, row.len() - 1));
}

/// What the connections before and after the rotation saw; each as (egress, ingress).
pub fn certificates(before: &(Value, Value), after: &(Value, Value)) {
    println!("\n  {:<14} {:<29} egress valid until", "", "ingress valid until");
    for (name, (egress, ingress)) in [("connection 2", before), ("connection 3", after)] {
        let there = date(text(egress, "/upstream/peer/not_after"));
        println!("  {name:<14} {there:<29} {}", date(text(ingress, "/downstream/peer/not_after")));
    }
}

pub fn how_to_connect(link: &Link, flags: &Flags) {
    let password = if flags.password.is_some() { " --password" } else { "" };
    println!("\nStaying up. A client of your own can connect, and what is recorded of it is shown here:\n");
    println!(
        "  mariadb --host 127.0.0.1 --port {} --user {}{password} --skip-ssl\n",
        link.egress.address.port(),
        flags.user
    );
    println!("Ctrl-C ends everything.\n");
}

/// A record in one line.
pub fn line(record: &Value) {
    let (id, outcome, client) =
        (&record["id"], text(record, "/outcome"), text(record, "/downstream/address"));
    println!(
        "  connection {id} from {client}: {}, {}, {outcome}",
        version(record, "/upstream"),
        bytes(record)
    );
}

pub fn end([egress, ingress]: [ExitStatus; 2], directory: &Path) {
    println!("\negress ended ({egress}), ingress ended ({ingress}), removed {}", directory.display());
}

/// What protects a hop: `TLSv1.3` for people, or nothing.
fn version(record: &Value, hop: &str) -> String {
    let version = record.pointer(&format!("{hop}/tls/version")).and_then(Value::as_str);
    version.map_or_else(|| "plaintext".into(), |version| version.replace("TLSv", "mutual TLS "))
}

fn bytes(record: &Value) -> String {
    format!("{} bytes to the server, {} bytes back", record["bytes_received"], record["bytes_sent"])
}

fn peer(record: &Value, place: &str) -> String {
    let (name, expiry) = (format!("{place}/identity"), format!("{place}/not_after"));
    format!("{}, valid until {}", text(record, &name), date(text(record, &expiry)))
}

/// `2030-01-31T12:00:00.000Z` for people.
fn date(rfc_3339: &str) -> String {
    rfc_3339.replace('T', " ").replace(".000Z", " UTC")
}

fn text<'record>(record: &'record Value, place: &str) -> &'record str {
    record.pointer(place).and_then(Value::as_str).unwrap_or("-")
}

fn cell(row: &Row, index: usize) -> String {
    row.get::<Option<String>, _>(index).flatten().unwrap_or_else(|| "NULL".into())
}
