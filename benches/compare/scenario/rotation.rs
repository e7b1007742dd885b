//! New certificates every second under load, against the same load without.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::load::{request_figures, tell, undisturbed};
use super::{Bench, Measured, seen};
use crate::Failure;
use crate::certs::Mount;
use crate::check;
use crate::contender::{Contender, Pair, Setting, Terms};
use crate::load::order::{Job, Order};
use crate::process::pin;
use crate::store::{Sample, Values};

const INTERVAL: Duration = Duration::from_secs(1);
const SECONDS: f64 = 4.0;
/// More than a measurement can use up, attempts included.
const GENERATIONS_A_ROUND: u32 = 20;
/// How long the last rotation may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

pub fn measure(bench: &Bench<'_>) -> Result<Measured, Failure> {
    let contender = Contender::Twinlock;
    seen(bench, contender, Terms::Equal)?;
    let rounds = u32::try_from(bench.rounds())?;
    // Issued beforehand: to put one in place must cost the load generator, whose core this shares, nothing.
    let generations = 1 + rounds * 2 * GENERATIONS_A_ROUND;
    let mount = Arc::new(Mount::make(&bench.directory.join("mount"), generations)?);
    let setting = Setting { certs: &mount.directory, ..bench.setting() };
    let pair = Pair::start(contender, Terms::Equal, false, None, None, &setting)?;
    let jobs =
        [("paced", Job::Paced { connections: 64, rate: 4_000 }), ("new", Job::Connect { workers: 32 })];
    let mut samples = Vec::new();
    for round in 0..bench.rounds() {
        for (name, job) in jobs {
            for rotates in [false, true] {
                let values = one(bench, &pair, job, rotates.then_some(&mount))?;
                let case = format!("{name} {}", if rotates { "rotating" } else { "still" });
                tell(&case, contender, &values);
                samples.push(Sample { case, contender, round, values });
            }
        }
    }
    check_last(&pair, &mount.directory)?;
    Ok((samples, Vec::new()))
}

fn one(bench: &Bench<'_>, pair: &Pair, job: Job, mount: Option<&Arc<Mount>>) -> Result<Values, Failure> {
    let rotation = mount.map(|mount| Rotation::start(mount.clone(), bench.cores.load));
    let order = Order {
        target: pair.target,
        backend: Some(pair.backend),
        job,
        beside: None,
        warm_up: bench.seconds(0.5),
        measure: bench.seconds(SECONDS),
        watch: pair.watch()?,
        helpers: Vec::new(),
        cores: bench.cores.all(),
    };
    let report = undisturbed(bench, &order)?;
    let mut values = request_figures(&report);
    #[allow(clippy::cast_precision_loss, reason = "counts of a run of seconds")]
    {
        values.insert("failed".into(), report.failed as f64);
        values.insert("foreign".into(), report.foreign_cpu / report.seconds);
        if let Some(rotation) = rotation {
            values.insert("rotations".into(), rotation.stop()? as f64);
        }
    }
    Ok(values)
}

/// What was measured is worth nothing if the proxy did not take the certificates it was given.
fn check_last(pair: &Pair, certs: &Path) -> Result<(), Failure> {
    let newest = crate::certs::leaf(&certs.join("ingress"))?;
    let deadline = Instant::now() + SEEN_WITHIN;
    while check::presented(pair, certs)? != newest {
        if Instant::now() > deadline {
            return Err("the last certificate of the rotation is not used".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Somebody who rotates the certificates every second.
struct Rotation {
    stops: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Rotation {
    fn start(mount: Arc<Mount>, core: usize) -> Self {
        let (stops, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counter) = (stops.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            pin(core)?;
            while !told.load(Ordering::Relaxed) {
                mount.rotate()?;
                counter.fetch_add(1, Ordering::Relaxed);
                std::thread::park_timeout(INTERVAL);
            }
            Ok(())
        });
        Self { stops, count, thread }
    }

    /// Ends it and says how many rotations there were.
    fn stop(self) -> Result<u64, Failure> {
        self.stops.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| "the rotation panicked")??;
        Ok(self.count.load(Ordering::Relaxed))
    }
}
