//! The metrics of the process, of what is known at one moment. Labels hold what is configured, never what a
//! stranger has sent.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::exposition::{Exposition, Kind};
use super::state::State;
use super::{connections, process};
use crate::credentials::status::{self, Sample};

/// What each metric of credentials is.
const CREDENTIALS: [(&str, Kind, &str); 5] = [
    (status::NOT_AFTER, Kind::Gauge, "When a certificate in use expires, as Unix time in seconds."),
    (
        status::NEXT_UPDATE,
        Kind::Gauge,
        "When the successor of a revocation list in use is due, as Unix time.",
    ),
    (status::GENERATION, Kind::Gauge, "The number of the generation in use, 0 while there was none."),
    (status::RELOADS, Kind::Counter, "New contents of a credential directory, by what became of them."),
    (
        status::PUBLISHED_AT,
        Kind::Gauge,
        "When the generation in use was published, as Unix time, 0 for never.",
    ),
];

/// Every metric, in Prometheus' text format.
pub fn text(state: &State) -> String {
    let mut exposition = Exposition::default();
    credentials(&mut exposition, state);
    plan(&mut exposition, state);
    connections::add_to(&mut exposition, &state.connections.totals());
    let help = "TLS handshakes that were made.";
    let mut family = exposition.family("twinlock_handshakes_total", Kind::Counter, help);
    for made in &state.handshakes {
        let labels = [("side", made.side.label()), ("version", made.version), ("group", made.group)];
        family.sample(&labels, made.count);
    }
    let help = "Lines that were lost because the reader of a log did not keep up.";
    let mut family = exposition.family("twinlock_log_lines_dropped_total", Kind::Counter, help);
    for (log, dropped) in state.lines_dropped {
        family.sample(&[("log", log)], dropped);
    }
    process::add_to(&mut exposition);
    exposition.text()
}

fn credentials(exposition: &mut Exposition, state: &State) {
    let samples = status::samples(&state.credentials);
    for (name, kind, help) in CREDENTIALS {
        let mut family = exposition.family(name, kind, help);
        // A certificate may be twice in a file. Of what differs only in its date, the first to end counts.
        let mut earliest: BTreeMap<&[(&'static str, String)], i64> = BTreeMap::new();
        for Sample { labels, value, .. } in samples.iter().filter(|sample| sample.name == name) {
            earliest.entry(labels).and_modify(|known| *known = (*known).min(*value)).or_insert(*value);
        }
        for (labels, value) in earliest {
            let labels: Vec<_> = labels.iter().map(|(name, label)| (*name, label.as_str())).collect();
            family.sample(&labels, value);
        }
    }
}

fn plan(exposition: &mut Exposition, state: &State) {
    let plan = &state.plan;
    let help = "The number of the plan that is followed.";
    exposition.family("twinlock_plan_generation", Kind::Gauge, help).sample(&[], plan.generation);
    let help = "Configurations that were read and are new, by what became of them.";
    let mut family = exposition.family("twinlock_plan_reloads_total", Kind::Counter, help);
    family.sample(&[("result", "published")], plan.generation);
    family.sample(&[("result", "refused")], plan.refused);
    let at = plan.followed_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let help = "When the plan that is followed was published, as Unix time in seconds.";
    exposition
        .family("twinlock_plan_published_timestamp_seconds", Kind::Gauge, help)
        .sample(&[], at.map_or(0, |at| at.as_secs()));
}
