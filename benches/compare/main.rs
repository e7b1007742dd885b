//! The comparison of twinlock with other proxies: see `benches/README.md` for the method.
//!
//! ```text
//! bash benches/compare/run
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who started it")]
#![allow(clippy::disallowed_methods, reason = "it measures time, and waits for other programs")]

mod arguments;
mod certs;
mod check;
mod contender;
mod database;
mod generator;
mod load;
mod machine;
mod process;
mod report;
mod scenario;
mod store;
mod usage;
mod wire;

use std::cell::RefCell;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use arguments::{Arguments, Scenario};
use certs::Certs;
use contender::{Programs, Terms};
use machine::Subject;
use process::{Cores, Ports, Registry};
use scenario::Bench;
use store::Store;

/// What can go wrong here is told to a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let ended = match arguments.split_first() {
        Some((first, rest)) if first == process::BECOME => Err(process::become_program(rest)),
        Some((first, rest)) if first == generator::LOAD => {
            load::follow(&rest.first().map(|order| order.to_string_lossy()).unwrap_or_default())
        }
        _ => run(&Arguments::parse()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("compare: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let programs = Programs { twinlock: arguments.twinlock.clone(), envoy: arguments.envoy.clone() };
    let subject = Subject::find_out(&programs)?;
    let store = Store::open(&arguments.results)?;
    if !arguments.report {
        measure(arguments, &programs, &subject, &store)?;
    }
    if arguments.smoke || arguments.check {
        return Ok(());
    }
    let results = store.of(&subject);
    println!("{}", report::markdown(&results));
    if arguments.print { Ok(()) } else { report::write(&results) }
}

fn measure(
    arguments: &Arguments,
    programs: &Programs,
    subject: &Subject,
    store: &Store,
) -> Result<(), Failure> {
    let directory = tempfile::Builder::new().prefix("compare-").tempdir()?;
    let registry = Registry::default();
    end_on_signals(&registry, &directory)?;
    let certs = Certs::make(directory.path())?;
    let cores = Cores::choose()?;
    let bench = Bench {
        arguments,
        programs,
        subject,
        cores,
        registry: &registry,
        ports: Ports::new()?,
        directory: directory.path(),
        certs: &certs,
        checks: RefCell::default(),
    };
    let mut failed = Vec::new();
    if arguments.check {
        for terms in [Terms::Equal, Terms::Defaults] {
            eprintln!("\n== check, {terms:?} terms");
            failed.extend(scenario::checked(&bench, terms).1);
        }
    }
    let asked = |scenario: &Scenario| arguments.scenario.is_empty() || arguments.scenario.contains(scenario);
    for scenario in Scenario::ALL.into_iter().filter(asked).filter(|_| !arguments.check) {
        eprintln!("\n== {}", scenario.name());
        let results = scenario::measure(scenario, &bench)?;
        failed.extend(results.failures.iter().cloned());
        if !arguments.smoke {
            store.save(&results)?;
        }
    }
    if arguments.smoke && !failed.is_empty() {
        return Err(format!("failed: {failed:?}").into());
    }
    Ok(())
}

/// Ends everything when told to end: what was started, what was written, this program.
fn end_on_signals(registry: &Registry, directory: &TempDir) -> Result<(), Failure> {
    let (registry, directory) = (registry.clone(), directory.path().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]
    };
    std::thread::spawn(move || {
        let [interrupt, terminate, hangup] = &mut signals;
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} _ = hangup.recv() => {} }
        });
        registry.kill_all();
        // What cannot be removed is left to the machine: there is nobody to tell.
        let _ = std::fs::remove_dir_all(&directory);
        std::process::exit(130);
    });
    Ok(())
}
