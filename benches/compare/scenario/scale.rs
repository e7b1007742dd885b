//! What a byte, a request, a connection cost while many others are open.

use rustix::process::{Resource, getrlimit};

use super::load::{Figures, bulk_figures, connection_figures, request_figures, tell, undisturbed};
use super::{Bench, Measured, seen};
use crate::Failure;
use crate::contender::{Contender, Pair, Terms};
use crate::generator::Running;
use crate::load::order::{Job, Order};
use crate::store::Sample;

/// Connections that work while the others are open.
const WORKING: usize = 10;
/// Open connections of the three pairs, the working ones included.
const FEW: usize = 10;
const MANY: usize = 1_000;
const MOST: usize = 10_000;
/// Descriptors that a process needs besides two for each connection.
const DESCRIPTORS_BESIDES: u64 = 150;

/// A pair with what is open on it.
struct Loaded {
    name: &'static str,
    open: usize,
    pair: Pair,
    server: Running,
    _held: Option<Running>,
}

pub fn measure(bench: &Bench<'_>) -> Result<Measured, Failure> {
    seen(bench, Contender::Twinlock, Terms::Equal)?;
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let fit = usize::try_from(hard.saturating_sub(DESCRIPTORS_BESIDES) / 2)?;
    let most = if bench.arguments.smoke { MANY } else { MOST.min(fit / 100 * 100) };
    let loaded = [("10", FEW), ("1000", MANY), ("most", most)]
        .into_iter()
        .map(|(name, open)| load(bench, name, open))
        .collect::<Result<Vec<_>, _>>()?;
    let work: [(&str, Job, Figures); 3] = [
        ("bytes", Job::Download { connections: 1 }, bulk_figures),
        ("requests", Job::Request { connections: WORKING }, request_figures),
        ("connections", Job::Connect { workers: WORKING }, connection_figures),
    ];
    let mut samples = Vec::new();
    for round in 0..bench.rounds() {
        for (work, job, figures) in work {
            for loaded in &loaded {
                let report = undisturbed(
                    bench,
                    &Order { helpers: loaded.server.pids()?, ..order(bench, &loaded.pair, job)? },
                )?;
                let mut values = figures(&report);
                values.insert("foreign".into(), report.foreign_cpu / report.seconds);
                #[allow(clippy::cast_precision_loss, reason = "a count of connections")]
                values.insert("open".into(), loaded.open as f64);
                let case = format!("{} {work}", loaded.name);
                tell(&case, Contender::Twinlock, &values);
                samples.push(Sample { case, contender: Contender::Twinlock, round, values });
            }
        }
    }
    Ok((samples, Vec::new()))
}

fn load(bench: &Bench<'_>, name: &'static str, open: usize) -> Result<Loaded, Failure> {
    let pair = Pair::start(Contender::Twinlock, Terms::Equal, false, None, None, &bench.setting())?;
    let server = Order { backend: Some(pair.backend), ..order(bench, &pair, Job::Serve)? };
    let server = bench.generators().hold(&server)?;
    let idle = open - WORKING;
    let held = if idle > 0 {
        Some(bench.generators().hold(&order(bench, &pair, Job::Hold { connections: idle })?)?)
    } else {
        None
    };
    Ok(Loaded { name, open, pair, server, _held: held })
}

fn order(bench: &Bench<'_>, pair: &Pair, job: Job) -> Result<Order, Failure> {
    Ok(Order {
        target: pair.target,
        // Each pair has a server of its own that lives as long as the pair.
        backend: None,
        job,
        beside: None,
        warm_up: bench.seconds(0.3),
        measure: bench.seconds(1.5),
        watch: pair.watch()?,
        helpers: Vec::new(),
        cores: bench.cores.all(),
    })
}
