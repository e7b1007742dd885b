//! The record of one connection, and its two forms: a line of JSON, a line of text.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::plan::Role;
use crate::plan::authorize::Marks;
use crate::plan::outcome::{Blame, Outcome};

/// The version of the records' description in `config/records.md`. It grows when a field goes away or means something
/// else.
pub const SCHEMA: u64 = 1;

/// Everything that is recorded of one connection.
#[derive(Debug)]
pub struct Entry {
    /// Counts the connections of this process, from 1.
    pub id: u64,
    /// The generation of the plan that it followed.
    pub plan: u64,
    /// Which end of the link this process is.
    pub role: Role,
    /// When the connection was accepted.
    pub start: SystemTime,
    /// From accept to close.
    pub duration: Duration,
    /// Bytes of plaintext from the client.
    pub bytes_received: u64,
    /// Bytes of plaintext to the client.
    pub bytes_sent: u64,
    /// The SNI: sent to the server where TLS is originated, else received from the client.
    pub sni: Option<String>,
    /// The hop to the client.
    pub downstream: Hop,
    /// The hop to the server.
    pub upstream: Hop,
    /// What rules have said of it, beside what its end tells.
    pub marks: Marks,
    /// How it ended.
    pub outcome: Outcome,
}

/// One hop of a connection.
#[derive(Debug, Default, Serialize)]
pub struct Hop {
    /// The name and port that were dialled; upstream only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// What the handshake settled; absent on a plaintext hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HopTls>,
    /// Who the peer's certificate says it is, also where it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// What a handshake settled.
#[derive(Debug, Serialize)]
pub struct HopTls {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// The key-exchange group, by its IANA name.
    pub group: &'static str,
    /// The name of the session, in hex: the other end's record has the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// The holder of a certificate.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// The subject alternative name a person would call it by.
    pub identity: String,
    /// The subject; never an identity.
    pub subject: String,
    /// Who signed the certificate, by its own word; of a peer that was refused, nobody has checked it.
    pub issuer: String,
    /// The certificate's serial number, in upper-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub sha256: String,
    /// When the certificate expires, RFC 3339.
    pub not_after: String,
}

const RFC_3339_MILLIS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A point in time as RFC 3339 with milliseconds, in UTC.
pub fn timestamp(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&RFC_3339_MILLIS).unwrap_or_default()
}

#[derive(Serialize)]
struct Json<'entry> {
    schema: u64,
    time: String,
    event: &'static str,
    id: u64,
    plan: u64,
    role: String,
    duration_ms: u128,
    bytes_received: u64,
    bytes_sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'entry str>,
    downstream: &'entry Hop,
    upstream: &'entry Hop,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'entry str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<&'entry str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    flags: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'entry str,
    closed_by: &'static str,
}

impl Entry {
    /// One line of JSON, with its line feed.
    pub fn json(&self) -> String {
        let account = self.outcome.account();
        let json = Json {
            schema: SCHEMA,
            time: timestamp(self.start),
            event: "close",
            id: self.id,
            plan: self.plan,
            role: self.role.to_string(),
            duration_ms: self.duration.as_millis(),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            sni: self.sni.as_deref(),
            downstream: &self.downstream,
            upstream: &self.upstream,
            rule: self.marks.allowed.as_ref().map(|rule| rule.0.as_str()),
            shadow: self.marks.shadow.as_ref().map(ToString::to_string),
            audit: self.marks.audited.as_ref().map(|rule| rule.0.as_str()),
            outcome: account.label,
            flags: account.flags,
            detail: account.detail,
            closed_by: closed_by(account.blame),
        };
        // Strings and numbers only: this cannot fail, and a record must not end the gateway if it does.
        let mut line = serde_json::to_string(&json).unwrap_or_default();
        line.push('\n');
        line
    }

    /// One line of text, with its line feed: `key=value`, the same order always, `-` for what is absent.
    pub fn text(&self) -> String {
        let account = self.outcome.account();
        let mut line = String::with_capacity(320);
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "{} {} id={} plan={} duration_ms={} received={} sent={} client={} upstream={} address={} sni={}",
            timestamp(self.start),
            self.role,
            self.id,
            self.plan,
            self.duration.as_millis(),
            self.bytes_received,
            self.bytes_sent,
            or_dash(self.downstream.address),
            or_dash(self.upstream.name.as_deref()),
            or_dash(self.upstream.address),
            or_dash(self.sni.as_deref().map(escaped)),
        );
        for (name, hop) in [("down", &self.downstream), ("up", &self.upstream)] {
            if let Some(tls) = &hop.tls {
                let _ = write!(line, " {name}_tls={},{},{}", tls.version, tls.cipher, tls.group);
                if let Some(session) = &tls.session {
                    let _ = write!(line, " {name}_session={session}");
                }
            }
            if let Some(peer) = &hop.peer {
                let _ = write!(line, " {name}_peer={}", escaped(&peer.identity));
            }
        }
        let marks = &self.marks;
        let named = [("rule", &marks.allowed), ("audit", &marks.audited)];
        for (name, rule) in named.into_iter().filter_map(|(name, rule)| Some((name, rule.as_ref()?))) {
            let _ = write!(line, " {name}={rule}");
        }
        if let Some(denied) = &marks.shadow {
            let _ = write!(line, " shadow={denied}");
        }
        let _ = write!(line, " outcome={} closed_by={}", account.label, closed_by(account.blame));
        if !account.flags.is_empty() {
            let _ = write!(line, " flags={}", account.flags);
        }
        if !account.detail.is_empty() {
            let _ = write!(line, " detail=\"{}\"", escaped(account.detail));
        }
        line.push('\n');
        line
    }
}

fn closed_by(blame: Blame) -> &'static str {
    match blame {
        Blame::Peer(side) => side.label(),
        Blame::Gateway => "gateway",
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Text that a peer chose, made safe for a line: no control characters, no quotes, no line breaks.
fn escaped(text: &str) -> String {
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::outcome::{Side, TlsFault, TlsFaultKind};

    fn entry() -> Entry {
        Entry {
            id: 7,
            plan: 1,
            role: Role::Ingress,
            start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            duration: Duration::from_millis(250),
            bytes_received: 10,
            bytes_sent: 20,
            sni: Some("mysql.example".into()),
            downstream: Hop {
                address: Some("127.0.0.1:4000".parse().unwrap()),
                peer: Some(Peer {
                    identity: "evil\n\"name".into(),
                    subject: "CN=x".into(),
                    issuer: "CN=root".into(),
                    serial: "0A".into(),
                    sha256: "00".into(),
                    not_after: "2030-01-01T00:00:00.000Z".into(),
                }),
                ..Hop::default()
            },
            upstream: Hop::default(),
            marks: Marks::default(),
            outcome: Outcome::Handshake(
                Side::Downstream,
                TlsFault { kind: TlsFaultKind::UnknownCa, detail: "another issuer".into() },
            ),
        }
    }

    #[test]
    fn json_is_one_line_whatever_a_peer_calls_itself() {
        let line = entry().json();
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["outcome"], "unknown_ca");
        assert_eq!(value["closed_by"], "downstream");
        assert_eq!(value["downstream"]["peer"]["identity"], "evil\n\"name");
        assert_eq!(value["upstream"], serde_json::json!({}));
    }

    #[test]
    fn text_is_one_line_whatever_a_peer_calls_itself() {
        let line = entry().text();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r#"down_peer=evil\n\"name"#), "{line}");
        assert!(line.contains("address=- sni=mysql.example"), "{line}");
        assert!(
            line.ends_with("outcome=unknown_ca closed_by=downstream detail=\"another issuer\"\n"),
            "{line}"
        );
    }
}
