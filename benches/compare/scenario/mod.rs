//! The kinds of work, each measured in interleaved rounds.

mod idle;
mod load;
mod rotation;
mod scale;
mod sysbench;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use twinlock::telemetry::entry::timestamp;

use crate::Failure;
use crate::arguments::{Arguments, Scenario};
use crate::certs::Certs;
use crate::check::check;
use crate::contender::{Contender, Programs, Setting, Terms};
use crate::generator::Generators;
use crate::machine::Subject;
use crate::process::{Cores, Ports, Registry};
use crate::store::{Failed, Results, Sample};

/// Of a core, what others may take while something is measured.
pub const FOREIGN_MAX: f64 = 0.1;

/// What all scenarios of a run have in common.
pub struct Bench<'a> {
    pub arguments: &'a Arguments,
    pub programs: &'a Programs,
    pub subject: &'a Subject,
    pub cores: Cores,
    pub registry: &'a Registry,
    pub ports: Ports,
    /// For everything that the run writes; removed in the end.
    pub directory: &'a Path,
    pub certs: &'a Certs,
    /// Who does the job on which terms, as far as that was found out.
    pub checks: RefCell<BTreeMap<(Terms, Contender), Result<String, String>>>,
}

impl Bench<'_> {
    pub fn setting(&self) -> Setting<'_> {
        Setting {
            programs: self.programs,
            registry: self.registry,
            ports: &self.ports,
            core: self.cores.proxies,
            directory: self.directory,
            certs: &self.certs.directory,
        }
    }

    pub fn generators(&self) -> Generators<'_> {
        Generators { core: self.cores.load, registry: self.registry, directory: self.directory }
    }

    /// Seconds that a measurement takes: as long as it should, or hardly any in a smoke test.
    pub fn seconds(&self, should: f64) -> f64 {
        if self.arguments.smoke { 0.2 } else { should * self.arguments.stretch }
    }

    pub fn rounds(&self) -> usize {
        if self.arguments.smoke { 1 } else { self.arguments.rounds }
    }

    /// Those that take part and are installed.
    pub fn contenders(&self) -> Vec<Contender> {
        let asked = &self.arguments.contender;
        let asked = |contender: &Contender| match (asked.is_empty(), self.arguments.smoke) {
            (true, true) => matches!(contender, Contender::Twinlock | Contender::Haproxy | Contender::Plain),
            (true, false) => true,
            (false, _) => asked.contains(contender),
        };
        let (there, missing): (Vec<_>, Vec<_>) = Contender::ALL
            .into_iter()
            .filter(asked)
            .partition(|contender| contender.programs(self.programs).is_some());
        for contender in missing {
            eprintln!("skipped, it is not installed: {}", contender.title());
        }
        there
    }
}

/// Who of those that take part does the job on these terms, and who does not.
pub fn checked(bench: &Bench<'_>, terms: Terms) -> (Vec<Contender>, Vec<Failed>) {
    let (mut sound, mut failures) = (Vec::new(), Vec::new());
    for contender in bench.contenders() {
        match seen(bench, contender, terms) {
            Ok(_) => sound.push(contender),
            Err(why) => failures.push(Failed { case: "check".into(), contender, why }),
        }
    }
    (sound, failures)
}

/// What a contender agreed on in its first two handshakes, or why it does not do the job; found out once.
pub fn seen(bench: &Bench<'_>, contender: Contender, terms: Terms) -> Result<String, String> {
    let mut checks = bench.checks.borrow_mut();
    checks.entry((terms, contender)).or_insert_with(|| look(bench, contender, terms)).clone()
}

fn look(bench: &Bench<'_>, contender: Contender, terms: Terms) -> Result<String, String> {
    match check(contender, terms, &bench.setting(), bench.certs) {
        Ok(seen) => {
            let seen: Vec<_> = seen.iter().map(ToString::to_string).collect();
            let seen = seen.join(", then ");
            eprintln!("checked: {:16} {seen}", contender.title());
            Ok(seen)
        }
        Err(failure) => {
            eprintln!("FAILED: {}: {failure}", contender.title());
            Err(failure.to_string())
        }
    }
}

/// Measures one kind of work.
pub fn measure(scenario: Scenario, bench: &Bench<'_>) -> Result<Results, Failure> {
    let date = timestamp(SystemTime::now());
    let (samples, failures) = match scenario {
        Scenario::Bulk => load::bulk(bench)?,
        Scenario::Connections => load::connections(bench, Terms::Equal)?,
        Scenario::Defaults => load::connections(bench, Terms::Defaults)?,
        Scenario::Requests => load::requests(bench)?,
        Scenario::Latency => load::latency(bench)?,
        Scenario::Neighbour => load::neighbour(bench)?,
        Scenario::Idle => idle::measure(bench),
        Scenario::Sysbench => sysbench::measure(bench)?,
        Scenario::Rotation => rotation::measure(bench)?,
        Scenario::Scale => scale::measure(bench)?,
    };
    let terms = if scenario == Scenario::Defaults { Terms::Defaults } else { Terms::Equal };
    let seen = Contender::ALL.into_iter().filter_map(|contender| {
        let checks = bench.checks.borrow();
        let seen = checks.get(&(terms, contender))?.as_ref().ok()?;
        (!seen.is_empty()).then(|| (contender, seen.clone()))
    });
    let (subject, seen) = (bench.subject.clone(), seen.collect());
    Ok(Results { scenario, subject, date, seen, samples, failures })
}

/// What a scenario brings back.
pub type Measured = (Vec<Sample>, Vec<Failed>);

/// The order of contenders in a round: another begins each time, so that nobody always follows the same.
pub fn turn(contenders: &[Contender], round: usize) -> Vec<Contender> {
    let mut order = contenders.to_vec();
    if !order.is_empty() {
        order.rotate_left(round % contenders.len());
    }
    order
}
