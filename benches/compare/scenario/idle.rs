//! Memory: of a pair at rest, and of connections that are open and quiet.

use std::time::{Duration, Instant};

use super::load::tell;
use super::{Bench, Measured, checked, turn};
use crate::Failure;
use crate::contender::{Contender, Pair, Terms};
use crate::load::order::{Job, Order};
use crate::store::{Failed, Sample, Values};
use crate::usage::{Cpu, Memory};

const CONNECTIONS: usize = 5_000;
const CONNECTIONS_SMOKE: usize = 50;
/// Memory is the same every time: two rounds show that.
const ROUNDS_MAX: usize = 2;

/// A side is quiet when it spent less than this in one look.
const QUIET: f64 = 0.002;
const LOOK: Duration = Duration::from_millis(200);
const LOOKS_MAX: u32 = 25;

pub fn measure(bench: &Bench<'_>) -> Measured {
    let (contenders, mut failures) = checked(bench, Terms::Equal);
    let mut samples = Vec::new();
    for round in 0..bench.rounds().min(ROUNDS_MAX) {
        for contender in turn(&contenders, round) {
            match one(bench, contender) {
                Ok(values) => {
                    tell("idle", contender, &values);
                    samples.push(Sample { case: "idle".into(), contender, round, values });
                }
                Err(failure) => {
                    eprintln!("FAILED: idle {}: {failure}", contender.title());
                    failures.push(Failed { case: "idle".into(), contender, why: failure.to_string() });
                }
            }
        }
    }
    (samples, failures)
}

fn one(bench: &Bench<'_>, contender: Contender) -> Result<Values, Failure> {
    let pair = Pair::start(contender, Terms::Equal, false, None, None, &bench.setting())?;
    let connections = if bench.arguments.smoke { CONNECTIONS_SMOKE } else { CONNECTIONS };
    let order = Order {
        target: pair.target,
        backend: Some(pair.backend),
        job: Job::Hold { connections },
        beside: None,
        warm_up: 0.0,
        measure: 0.0,
        watch: Vec::new(),
        helpers: Vec::new(),
        cores: Vec::new(),
    };
    settle(&pair)?;
    let rest = memory(&pair)?;
    let started = Instant::now();
    let held = bench.generators().hold(&order)?;
    let opened = started.elapsed();
    settle(&pair)?;
    let full = memory(&pair)?;
    drop(held);
    let mut values = Values::from([("opening s".to_owned(), opened.as_secs_f64())]);
    for ((side, rest), full) in ["egress", "ingress"].iter().zip(rest).zip(full) {
        #[allow(clippy::cast_precision_loss, reason = "memory of a process in KiB")]
        let figures = [
            ("rest RSS MiB", rest.resident as f64 / 1024.0),
            ("rest PSS MiB", rest.proportional as f64 / 1024.0),
            ("KiB", full.proportional.saturating_sub(rest.proportional) as f64 / connections as f64),
        ];
        values.extend(figures.map(|(name, value)| (format!("{side} {name}"), value)));
    }
    Ok(values)
}

fn memory(pair: &Pair) -> Result<[Memory; 2], Failure> {
    Ok([Memory::of(&pair.egress.pids()?)?, Memory::of(&pair.ingress.pids()?)?])
}

/// Waits until neither side has anything left to do.
pub fn settle(pair: &Pair) -> Result<(), Failure> {
    let pids: Vec<_> = pair.watch()?.into_iter().flatten().collect();
    for _ in 0..LOOKS_MAX {
        let before = Cpu::of(&pids)?;
        std::thread::sleep(LOOK);
        if Cpu::of(&pids)?.since(&before) < QUIET {
            break;
        }
    }
    Ok(())
}
