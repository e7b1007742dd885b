//! A plan as a person reads it: each listener, who may connect and how they must prove it, where they go and
//! what is proven there, each fact with the file and line that it comes from.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::plan::cluster::{Cluster, Idle, Outliers, Resolution};
use crate::plan::{
    Accept, ClientCertificate, Entrance, Listener, Originate, Plan, Route, ServerIdentity, Trust,
};

/// One way through a listener: on what condition, what must be proven, where it leads.
pub(crate) struct Way<'plan> {
    pub(crate) condition: String,
    pub(crate) accept: Option<&'plan Accept>,
    pub(crate) route: &'plan Route,
    pub(crate) origin: String,
}

pub(crate) fn ways(listener: &Listener) -> Vec<Way<'_>> {
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

pub(crate) fn joined(parts: &[impl fmt::Display], between: &str) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// What a client must show.
pub(crate) fn proof(way: &Way<'_>, listener: &Listener) -> String {
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
            for policy in way.route.rules.policies.iter() {
                let _ = writeln!(text, "    is judged by {policy}    {}", policy.origin);
            }
            lead(&mut text, way.route);
        }
        text.push('\n');
    }
    text
}

pub(crate) fn lead(text: &mut String, route: &Route) {
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
                let policies: Vec<Value> = way.route.rules.policies.iter().map(|policy| json!({
                    "policy": policy.to_string(), "origin": policy.origin.to_string(),
                })).collect();
                json!({
                    "condition": way.condition, "policies": policies, "must_show": proof(way, listener),
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
