//! What would happen to one connection that has not come yet, and what decides.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::clock;
use crate::credentials::certificate::{Facts, hex};
use crate::credentials::read::lower;
use crate::explain::{joined, lead, proof, ways};
use crate::plan::authorize::{Denied, Rules, Verdict, authorize};
use crate::plan::cluster::Balance;
use crate::plan::rbac::{Attempt, Policy, RuleName};
use crate::plan::{Accept, ClientCertificate, Entrance, Host, Plan, Route, route};
use crate::upstream::balance::{self, Draw};
use crate::upstream::roster::{Place, Roster};

/// A connection that has not come yet.
#[derive(Debug, Default)]
pub struct Question {
    /// The listener it would come to.
    pub listener: Option<SocketAddr>,
    /// The SNI it would send.
    pub sni: Option<String>,
    /// The address it would come from.
    pub source: Option<IpAddr>,
    /// The address it would be for, where that decides.
    pub destination: Option<IpAddr>,
    /// What its certificate says, if it shows one.
    pub peer: Option<Facts>,
}

/// What the first certificate of a file says of its holder.
pub fn peer(path: &Path) -> Result<Facts, String> {
    let pem = std::fs::read(path).map_err(|error| format!("cannot be read: {}", lower(&error)))?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|_| "expected a PEM certificate, found none")?;
    Facts::parse(&der)
}

/// What would happen to a connection, and what decides.
pub fn answer(plan: &Plan, question: &Question) -> Result<String, String> {
    let known =
        || plan.listeners.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>().join(", ");
    let listener = match (question.listener, &plan.listeners[..]) {
        (None, [only]) => only,
        (None, _) => return Err(format!("--listener: expected one of {}, found none", known())),
        (Some(wanted), all) => {
            let found = all.iter().find(|listener| {
                listener.address == wanted
                    || (listener.address.ip().is_unspecified() && listener.address.port() == wanted.port())
            });
            found.ok_or_else(|| format!("--listener: expected one of {}, found {wanted}", known()))?
        }
    };
    let mut text = format!("comes to {} {}    {}\n", listener.role, listener.address, listener.origin);
    if let Some(source) = question.source.filter(|source| !reaches(*source, listener.address.ip())) {
        let _ = writeln!(text, "is refused: {source} cannot reach {}", listener.address);
        return Ok(text);
    }
    let ways = ways(listener);
    let destination = question.destination.unwrap_or_else(|| listener.address.ip());
    let chosen = match &listener.entrance {
        Entrance::Plaintext(rows) => route::by_destination(rows, destination)
            .and_then(|row| rows.iter().position(|other| std::ptr::eq(other, row))),
        Entrance::Tls(table) => table
            .find(question.sni.as_deref(), || Some(destination))
            .and_then(|row| table.rows().iter().position(|other| std::ptr::eq(other, row))),
        Entrance::Permissive(..) => Some(usize::from(question.peer.is_none())),
    };
    let Some(way) = chosen.and_then(|index| ways.get(index)) else {
        let _ = writeln!(text, "is refused: no row for SNI {}", question.sni.as_deref().unwrap_or("none"));
        return Ok(text);
    };
    let _ = writeln!(text, "is decided by {}    {}", way.condition, way.origin);
    if let Some(accept) = way.accept {
        match refusal(accept, question.peer.as_ref()) {
            Some(why) => {
                let _ = writeln!(text, "is refused: {why}");
                return Ok(text);
            }
            None => {
                let _ = writeln!(text, "is admitted with {}", proof(way, listener));
            }
        }
    }
    let attempt = Attempt {
        identity: question.peer.as_ref().filter(|_| way.accept.is_some()).map(|peer| &peer.names),
        source: question.source,
        destination: Some(destination),
        port: listener.port,
        sni: question.sni.as_deref(),
    };
    if judged(&mut text, &way.route.rules, &attempt).is_err() {
        return Ok(text);
    }
    lead(&mut text, way.route);
    if let Some(source) = question.source {
        by_source(&mut text, way.route, source);
    }
    Ok(text)
}

/// Which rules decide, and the refusal if they refuse.
fn judged(text: &mut String, rules: &Rules, attempt: &Attempt<'_>) -> Result<(), Denied> {
    let Verdict { permit, marks } = authorize(rules, attempt);
    let origin_of = |rule: &RuleName| {
        let of = |policy: &&Policy| policy.rules.iter().any(|other| *other.name == *rule);
        rules.policies.iter().find(of).map(|policy| policy.origin.to_string()).unwrap_or_default()
    };
    let marked = [("is allowed by", &marks.allowed), ("is marked by", &marks.audited)];
    for (how, rule) in marked.into_iter().filter_map(|(how, rule)| Some((how, rule.as_ref()?))) {
        let _ = writeln!(text, "{how} {rule}    {}", origin_of(rule));
    }
    if let Some(denied) = &marks.shadow {
        let _ = writeln!(text, "would be refused if what is only tried were in force: {denied}");
    }
    permit.map(drop).inspect_err(|denied| {
        let _ = match denied {
            Denied::By(rule) => writeln!(text, "is refused: {denied}    {}", origin_of(rule)),
            Denied::Unnamed | Denied::ByNone => writeln!(text, "is refused: {denied}"),
        };
    })
}

/// What the address that a connection comes from decides.
fn by_source(text: &mut String, route: &Route, source: IpAddr) {
    let clusters = route.targets.iter().map(|target| &target.cluster);
    let mut asked = clusters.filter(|cluster| cluster.balance == Balance::SourceAddress).peekable();
    if asked.peek().is_none() && route.rules.policies.is_empty() {
        let _ = writeln!(text, "the source {source} decides nothing: no rule asks for it");
    }
    for cluster in asked {
        let named = cluster.endpoints.iter().any(|endpoint| matches!(endpoint.host, Host::Name(_)));
        let unresolved = vec![None; cluster.endpoints.len()];
        let roster = Roster::new(cluster.clone(), unresolved, |name| Arc::new(Place::new(name)));
        let draw = Draw { random: 0, turn: 0, source: balance::source_key(source) };
        let chosen = roster.choose(&[], draw, clock::now()).and_then(|index| roster.member(index));
        let _ = match chosen.filter(|_| !named) {
            Some(member) => {
                writeln!(text, "the source {source} decides: {}, unless it fails", member.place.name)
            }
            None => writeln!(text, "the source {source} decides between the addresses of {}", cluster.name),
        };
    }
}

/// Whether a packet from this address can arrive at that one.
fn reaches(source: IpAddr, listener: IpAddr) -> bool {
    let (source, bound) = (source.to_canonical(), listener.to_canonical());
    // [::] takes both families, if the system does not say otherwise.
    let family = source.is_ipv4() == bound.is_ipv4() || listener == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    family && (source.is_loopback() || !bound.is_loopback())
}

/// Why a client would be refused by what its certificate says; whether its chain is good is for the handshake.
fn refusal(accept: &Accept, peer: Option<&Facts>) -> Option<String> {
    match (accept.client, peer) {
        (ClientCertificate::Required, None) => Some("expected a certificate, found none".into()),
        (ClientCertificate::Required | ClientCertificate::Optional, Some(peer)) => {
            let (names, pins) = (&accept.client_names, &accept.client_pins);
            if !names.is_empty() && !names.iter().any(|name| name.matches(&peer.names)) {
                let expected = joined(names, " or ");
                return Some(format!("expected a certificate for {expected}, found one for {}", peer.names));
            }
            let pinned = pins.is_empty() || pins.iter().any(|pin| pin.matches(&peer.fingerprints));
            (!pinned).then(|| {
                let found = hex(&peer.fingerprints.certificate);
                format!("expected a certificate that is pinned, found one with the SHA-256 {found}")
            })
        }
        (ClientCertificate::Optional | ClientCertificate::NotAsked, _) => None,
    }
}
