//! A plan as a person reads it: each listener, who may connect and how they must prove it, where they go and
//! what is proven there, each fact with the file and line that it comes from; and what would happen to one
//! connection.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::clock;
use crate::credentials::certificate::{Facts, hex};
use crate::credentials::read::lower;
use crate::plan::cluster::{Balance, Cluster, Idle, Outliers, Resolution};
use crate::plan::{
    Accept, ClientCertificate, Entrance, Host, Listener, Originate, Plan, Route, ServerIdentity, Trust, route,
};
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

/// One way through a listener: on what condition, what must be proven, where it leads.
struct Way<'plan> {
    condition: String,
    accept: Option<&'plan Accept>,
    route: &'plan Route,
    origin: String,
}

fn ways(listener: &Listener) -> Vec<Way<'_>> {
    match &listener.entrance {
        Entrance::Plaintext(rows) => rows
            .iter()
            .map(|row| Way {
                condition: if row.networks.is_empty() {
                    "any bytes".into()
                } else {
                    format!("bytes for {}", joined(&row.networks, ", "))
                },
                accept: None,
                route: &row.route,
                origin: row.route.origin.to_string(),
            })
            .collect(),
        Entrance::Tls(table) => table
            .rows()
            .iter()
            .map(|row| Way {
                condition: match joined(&row.networks, ", ") {
                    networks if networks.is_empty() => format!("TLS for {}", joined(&row.hosts, ", ")),
                    networks => format!("TLS for {} at {networks}", joined(&row.hosts, ", ")),
                },
                accept: row.accept.as_deref(),
                route: &row.route,
                origin: row.origin.to_string(),
            })
            .collect(),
        Entrance::Permissive(accept, route) => vec![
            Way {
                condition: "TLS of the mesh".into(),
                accept: Some(accept),
                route,
                origin: listener.origin.to_string(),
            },
            Way {
                condition: "anything else".into(),
                accept: None,
                route,
                origin: listener.origin.to_string(),
            },
        ],
    }
}

fn joined(parts: &[impl fmt::Display], between: &str) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// What a client must show.
fn proof(way: &Way<'_>, listener: &Listener) -> String {
    let Some(accept) = way.accept else {
        let passed = matches!(listener.entrance, Entrance::Tls(_));
        return if passed { "nothing here: TLS is passed through untouched" } else { "nothing" }.into();
    };
    let names = joined(&accept.client_names, " or ");
    let names = if names.is_empty() { "whatever its names".into() } else { format!("with the name {names}") };
    let pinned = match accept.client_pins.len() {
        0 => String::new(),
        pins => format!(", one of {pins} pinned"),
    };
    let certificate = format!("a certificate of the CA in {}, {names}{pinned}", accept.ca);
    match accept.client {
        ClientCertificate::Required => certificate,
        ClientCertificate::Optional => format!("nothing, or {certificate}"),
        ClientCertificate::NotAsked => "nothing".into(),
    }
}

/// What a client is shown.
fn shown(accept: &Accept) -> String {
    joined(&accept.shown().collect::<Vec<_>>(), " or ")
}

fn originated(originate: &Originate) -> String {
    let shown = match &originate.credential {
        Some(credential) if originate.shows_certificate => format!("shows {credential}"),
        _ => "shows no certificate".into(),
    };
    let ca = match (&originate.trust, &originate.credential) {
        (Trust::Credential, Some(credential)) => format!("the CA in {credential}"),
        (Trust::Credential | Trust::Public, _) => "the public CAs".into(),
    };
    let name = match &originate.server_name {
        ServerIdentity::Host(host) => host.to_string(),
        ServerIdentity::AnyOf(names) => joined(names, " or "),
    };
    let sni = originate.sni.as_deref().unwrap_or("no name");
    format!("TLS: {shown}, sends {sni} as SNI, expects a certificate of {ca} with the name {name}")
}

fn places(cluster: &Cluster) -> String {
    let places = cluster.endpoints.iter().map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port));
    places.collect::<Vec<_>>().join(", ")
}

/// What holds for the connections to an upstream, as far as anybody has said anything.
fn terms(cluster: &Cluster) -> Vec<String> {
    let Cluster { pool, outliers, proxy_header, .. } = cluster;
    let several = cluster.endpoints.len() > 1 || cluster.resolution == Resolution::Endpoints;
    let ejects = |Outliers { failures, ejection_base, .. }: &Outliers| {
        format!("leaves an endpoint alone for {ejection_base:?} after {failures} failures in a row")
    };
    [
        several.then(|| format!("chooses endpoints {}", cluster.balance)),
        outliers.as_ref().map(ejects),
        pool.connections_max.map(|max| format!("at most {max} connections")),
        match pool.idle {
            Idle::AsProcess => None,
            Idle::Never => Some("idle for as long as they like".into()),
            Idle::After(time) => Some(format!("idle for {time:?} at most")),
        },
        pool.age_max.map(|age| format!("open for {age:?} at most")),
        proxy_header.map(|version| format!("told who the client is by PROXY {version:?}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// For a person.
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    for listener in &plan.listeners {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} listens on {}    {}", listener.role, listener.address, listener.origin);
        for way in ways(listener) {
            let _ = writeln!(text, "  {}    {}", way.condition, way.origin);
            let _ = writeln!(text, "    must show {}", proof(&way, listener));
            if let Some(accept) = way.accept {
                let _ = writeln!(text, "    is shown {}", shown(accept));
            }
            lead(&mut text, way.route);
        }
        text.push('\n');
    }
    text
}

fn lead(text: &mut String, route: &Route) {
    for hop in &route.inner_hops {
        let sni = hop.sni.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "    through gateway {} port {}, SNI {sni}, inside this process    {}",
            hop.gateway, hop.port, hop.origin
        );
    }
    let total: u64 = route.targets.iter().map(|target| u64::from(target.weight)).sum();
    for target in &route.targets {
        let share =
            if route.targets.len() > 1 { format!(" ({} of {total})", target.weight) } else { String::new() };
        let _ = writeln!(
            text,
            "    goes to {}{share} at {}    {}",
            target.cluster.name,
            places(&target.cluster),
            route.origin
        );
        let how = target
            .cluster
            .originate
            .as_ref()
            .map_or("plaintext".to_owned(), |originate| originated(originate));
        let _ = writeln!(text, "      by {how}    {}", target.cluster.origin);
        let terms = terms(&target.cluster);
        if !terms.is_empty() {
            let _ = writeln!(text, "      {}", terms.join(", "));
        }
    }
}

/// For a machine.
pub fn json(plan: &Plan) -> String {
    let listeners: Vec<Value> = plan
        .listeners
        .iter()
        .map(|listener| {
            let ways: Vec<Value> = ways(listener).iter().map(|way| {
                let targets: Vec<Value> = way.route.targets.iter().map(|target| json!({
                    "cluster": target.cluster.name, "weight": target.weight, "endpoints": places(&target.cluster),
                    "terms": terms(&target.cluster),
                    "tls": target.cluster.originate.as_ref().map(|originate| originated(originate)),
                    "origin": target.cluster.origin.to_string(),
                })).collect();
                let hops: Vec<Value> = way.route.inner_hops.iter().map(|hop| json!({
                    "gateway": hop.gateway, "port": hop.port, "sni": hop.sni, "origin": hop.origin.to_string(),
                })).collect();
                json!({
                    "condition": way.condition, "must_show": proof(way, listener),
                    "is_shown": way.accept.map(shown),
                    "inner_hops": hops, "targets": targets, "origin": way.origin,
                })
            }).collect();
            json!({
                "role": listener.role.to_string(), "address": listener.address.to_string(),
                "origin": listener.origin.to_string(), "ways": ways,
            })
        })
        .collect();
    format!("{}\n", json!({ "listeners": listeners }))
}

/// For Graphviz.
pub fn dot(plan: &Plan) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = "digraph plan {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for listener in &plan.listeners {
        let from = quoted(&format!("{} {}", listener.role, listener.address));
        for way in ways(listener) {
            for target in &way.route.targets {
                let to = quoted(&format!("{}\n{}", target.cluster.name, places(&target.cluster)));
                let line = if target.cluster.originate.is_some() { "bold" } else { "dashed" };
                let label = quoted(&way.condition);
                let _ = writeln!(text, "  {from} -> {to} [label={label}, style={line}];");
            }
        }
    }
    text.push_str("}\n");
    text
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
    lead(&mut text, way.route);
    if let Some(source) = question.source {
        by_source(&mut text, way.route, source);
    }
    Ok(text)
}

/// What the address that a connection comes from decides.
fn by_source(text: &mut String, route: &Route, source: IpAddr) {
    let clusters = route.targets.iter().map(|target| &target.cluster);
    let mut asked = clusters.filter(|cluster| cluster.balance == Balance::SourceAddress).peekable();
    if asked.peek().is_none() {
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
