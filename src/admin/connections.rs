//! The metrics of connections, by listener as the configuration has it and by outcome as in records.

use std::collections::BTreeMap;

use super::exposition::{Exposition, Kind};
use crate::plan::outcome::Side;
use crate::telemetry::counts::{ListenerName, Totals};

/// Adds what was counted.
pub fn add_to(exposition: &mut Exposition, totals: &[(ListenerName, Totals)]) {
    let named = totals.iter().map(|(name, totals)| {
        ([name.role.to_string(), name.listen.to_string(), name.port.to_string()], totals)
    });
    let named: Vec<_> = named.collect();
    let help = "Connections that are open.";
    let mut family = exposition.family("twinlock_connections_active", Kind::Gauge, help);
    for (name, totals) in &named {
        family.sample(&of(name), totals.active());
    }
    let help = "Connections that were accepted.";
    let mut family = exposition.family("twinlock_connections_total", Kind::Counter, help);
    for (name, totals) in &named {
        family.sample(&of(name), totals.opened);
    }
    let help = "Connections that have ended, by their outcome.";
    let mut family = exposition.family("twinlock_connections_ended_total", Kind::Counter, help);
    for (name, totals) in &named {
        let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
        for (end, count) in &totals.ended {
            *outcomes.entry(end.outcome).or_default() += count;
        }
        for (outcome, count) in outcomes {
            let [role, listen, port] = of(name);
            family.sample(&[role, listen, port, ("outcome", outcome)], count);
        }
    }
    let help =
        "Bytes that came in from clients (downstream) and from servers (upstream), without those of TLS.";
    let mut family = exposition.family("twinlock_received_bytes_total", Kind::Counter, help);
    for (name, totals) in &named {
        for (from, bytes) in totals.bytes {
            let [role, listen, port] = of(name);
            family.sample(&[role, listen, port, ("from", from.label())], bytes);
        }
    }
    refused(exposition, totals);
}

fn refused(exposition: &mut Exposition, totals: &[(ListenerName, Totals)]) {
    let mut refused: BTreeMap<(Side, &str), u64> = BTreeMap::new();
    for (end, count) in totals.iter().flat_map(|(_, totals)| &totals.ended) {
        if let Some(side) = end.handshake {
            *refused.entry((side, end.outcome)).or_default() += count;
        }
    }
    let help = "TLS handshakes that failed, by the reason.";
    let mut family = exposition.family("twinlock_handshakes_refused_total", Kind::Counter, help);
    for ((side, reason), count) in refused {
        family.sample(&[("side", side.label()), ("reason", reason)], count);
    }
}

/// The labels of a listener.
fn of([role, listen, port]: &[String; 3]) -> [(&'static str, &str); 3] {
    [("role", role), ("listen", listen), ("port", port)]
}
