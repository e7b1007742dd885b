//! Work that the load generator makes by itself: bytes, connections, requests.

use std::collections::BTreeMap;

use super::{Bench, FOREIGN_MAX, Measured, checked, turn};
use crate::Failure;
use crate::contender::{Contender, Pair, Terms};
use crate::load::order::{Job, Order, Report};
use crate::store::{Failed, Sample, Values};

/// Connections of the request scenarios.
const CONNECTIONS: usize = 64;
/// Requests a second of the paced one.
const RATE: u64 = 4_000;
/// Clients that connect again and again.
const WORKERS: usize = 32;
/// A measurement that was disturbed is made again, so often.
pub const ATTEMPTS: usize = 3;

/// What a report says, in figures.
pub type Figures = fn(&Report) -> Values;

/// A case of a scenario.
struct Case {
    name: &'static str,
    job: Job,
    beside: Option<Job>,
    warm_up: f64,
    measure: f64,
    figures: Figures,
}

pub fn bulk(bench: &Bench<'_>) -> Result<Measured, Failure> {
    let case =
        |name, job| Case { name, job, beside: None, warm_up: 0.3, measure: 1.5, figures: bulk_figures };
    let cases = [
        case("1 up", Job::Upload { connections: 1 }),
        case("1 down", Job::Download { connections: 1 }),
        case("16 up", Job::Upload { connections: 16 }),
        case("16 down", Job::Download { connections: 16 }),
    ];
    run(bench, &cases, Terms::Equal, true)
}

pub fn connections(bench: &Bench<'_>, terms: Terms) -> Result<Measured, Failure> {
    let job = Job::Connect { workers: WORKERS };
    let case =
        Case { name: "new", job, beside: None, warm_up: 0.3, measure: 2.5, figures: connection_figures };
    run(bench, &[case], terms, false)
}

pub fn requests(bench: &Bench<'_>) -> Result<Measured, Failure> {
    let job = Job::Request { connections: CONNECTIONS };
    let case =
        Case { name: "closed", job, beside: None, warm_up: 0.3, measure: 2.5, figures: request_figures };
    run(bench, &[case], Terms::Equal, false)
}

pub fn latency(bench: &Bench<'_>) -> Result<Measured, Failure> {
    let job = Job::Paced { connections: CONNECTIONS, rate: RATE };
    let case = Case { name: "open", job, beside: None, warm_up: 0.3, measure: 4.0, figures: request_figures };
    run(bench, &[case], Terms::Equal, false)
}

/// What a connection has of a busy neighbour: the same requests alone, beside one that sends as much as it can,
/// and beside many that connect again and again.
pub fn neighbour(bench: &Bench<'_>) -> Result<Measured, Failure> {
    let job = Job::Paced { connections: 8, rate: 1_000 };
    let case =
        |name, beside| Case { name, job, beside, warm_up: 0.3, measure: 1.5, figures: request_figures };
    let cases = [
        case("alone", None),
        case("beside bytes", Some(Job::Upload { connections: 1 })),
        case("beside connections", Some(Job::Connect { workers: WORKERS })),
    ];
    run(bench, &cases, Terms::Equal, false)
}

/// Every case in turn, in rounds over all contenders; pairs live as long as the scenario.
fn run(bench: &Bench<'_>, cases: &[Case], terms: Terms, bulk: bool) -> Result<Measured, Failure> {
    let (contenders, mut failures) = checked(bench, terms);
    let mut pairs = BTreeMap::new();
    for contender in &contenders {
        let pair = Pair::start(*contender, terms, bulk, None, None, &bench.setting())?;
        pairs.insert(*contender, pair);
    }
    let mut samples = Vec::new();
    for case in cases {
        for round in 0..bench.rounds() {
            for contender in turn(&contenders, round) {
                if failures
                    .iter()
                    .any(|failed: &Failed| failed.contender == contender && failed.case == case.name)
                {
                    continue;
                }
                let values = one(bench, case, &pairs[&contender]).or_else(|failure| {
                    eprintln!("once more: {} {}: {failure}", case.name, contender.title());
                    one(bench, case, &pairs[&contender])
                });
                match values {
                    Ok(values) => {
                        tell(case.name, contender, &values);
                        samples.push(Sample { case: case.name.into(), contender, round, values });
                    }
                    Err(failure) => {
                        eprintln!("FAILED: {} {}: {failure}", case.name, contender.title());
                        failures.push(Failed { case: case.name.into(), contender, why: failure.to_string() });
                    }
                }
            }
        }
    }
    Ok((samples, failures))
}

fn one(bench: &Bench<'_>, case: &Case, pair: &Pair) -> Result<Values, Failure> {
    let order = Order {
        target: pair.target,
        backend: Some(pair.backend),
        job: case.job,
        beside: case.beside,
        warm_up: bench.seconds(case.warm_up),
        measure: bench.seconds(case.measure),
        watch: pair.watch()?,
        helpers: Vec::new(),
        cores: bench.cores.all(),
    };
    let report = undisturbed(bench, &order)?;
    if report.units == 0 {
        return Err("nothing was done in the time there was".into());
    }
    let mut values = (case.figures)(&report);
    values.insert("generator".into(), report.own_cpu / report.seconds);
    values.insert("foreign".into(), report.foreign_cpu / report.seconds);
    #[allow(clippy::cast_precision_loss, reason = "a count of failures")]
    values.insert("failed".into(), report.failed as f64);
    Ok(values)
}

/// Runs an order, again if somebody else took much of the cores meanwhile; the least disturbed of the attempts.
pub fn undisturbed(bench: &Bench<'_>, order: &Order) -> Result<Report, Failure> {
    let mut best: Option<Report> = None;
    for _ in 0..ATTEMPTS {
        let report = bench.generators().run(order)?;
        let share = |report: &Report| report.foreign_cpu / report.seconds;
        let better = best.as_ref().is_none_or(|best| share(&report) < share(best));
        let quiet = share(&report) < FOREIGN_MAX || bench.arguments.smoke;
        if better {
            best = Some(report);
        }
        if quiet {
            break;
        }
        eprintln!("disturbed: somebody else used the cores of the comparison; once more");
    }
    best.ok_or_else(|| "no attempt was made".into())
}

/// Says what was measured, as it comes.
pub fn tell(case: &str, contender: Contender, values: &Values) {
    let values: Vec<_> = values.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    eprintln!("{case:8} {:16} {}", contender.title(), values.join("  "));
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run of seconds")]
pub fn bulk_figures(report: &Report) -> Values {
    let bytes = report.units as f64;
    let mut values = Values::from([("gbit".to_owned(), bytes * 8.0 / 1e9 / report.seconds)]);
    values.extend(cpu(report, "s/GB", 1e9));
    values
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run of seconds")]
pub fn connection_figures(report: &Report) -> Values {
    let mut values = Values::from([("rate".to_owned(), report.units as f64 / report.seconds)]);
    values.extend(cpu(report, "ms", 1e3));
    values.extend(quantiles(report));
    values
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run of seconds")]
pub fn request_figures(report: &Report) -> Values {
    let mut values = Values::from([("rate".to_owned(), report.units as f64 / report.seconds)]);
    values.extend(cpu(report, "us", 1e6));
    values.extend(quantiles(report));
    values
}

/// CPU time for a unit: of the pair, of each side.
#[allow(clippy::cast_precision_loss, reason = "counts of a run of seconds")]
fn cpu(report: &Report, unit: &str, scale: f64) -> Values {
    let each = |seconds: f64| seconds * scale / report.units as f64;
    let names = ["egress", "ingress"];
    let mut values: Values = names
        .iter()
        .zip(&report.cpu)
        .map(|(side, seconds)| (format!("{side} {unit}"), each(*seconds)))
        .collect();
    values.insert(format!("cpu {unit}"), each(report.cpu.iter().sum()));
    values
}

fn quantiles(report: &Report) -> Values {
    let Some(latency) = report.latency else { return Values::new() };
    [("p50", latency.p50), ("p99", latency.p99), ("p99.9", latency.p999)]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
