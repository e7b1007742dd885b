//! The part of a run that is counted: after the warm-up, from one look at the processes to another.

use std::time::{Duration, Instant};

use rustix::event::epoll::Event;

use super::order::{Job, Latency, Order, Report};
use crate::Failure;
use crate::usage::{Cpu, busy, percentile};

/// Counts from its beginning to its end.
pub struct Window {
    warm_up: Duration,
    measure: Duration,
    watch: Vec<Vec<i32>>,
    helpers: Vec<i32>,
    cores: Vec<usize>,
    uploads: bool,
    begins: Option<Instant>,
    started: Option<Start>,
    units: u64,
    latencies: Vec<u64>,
    /// The reactor's events, kept here between turns so that they are not allocated again.
    pub events: Vec<Event>,
}

struct Start {
    at: Instant,
    received: u64,
    cpu: Vec<Cpu>,
    own: Cpu,
    helpers: Cpu,
    busy: f64,
}

impl Window {
    pub fn new(order: &Order) -> Self {
        Self {
            warm_up: Duration::from_secs_f64(order.warm_up),
            measure: Duration::from_secs_f64(order.measure),
            watch: order.watch.clone(),
            helpers: order.helpers.clone(),
            cores: order.cores.clone(),
            uploads: matches!(order.job, Job::Upload { .. }) && order.backend.is_some(),
            begins: None,
            started: None,
            units: 0,
            latencies: Vec::with_capacity(1 << 20),
            events: Vec::new(),
        }
    }

    /// The load runs from now on.
    pub fn open(&mut self, now: Instant) {
        self.begins = Some(now + self.warm_up);
    }

    pub fn moved(&mut self, bytes: usize) {
        self.units += bytes as u64;
    }

    pub fn done(&mut self, took: Duration) {
        self.units += 1;
        if self.started.is_some() {
            self.latencies.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Begins or ends the counting when it is time; the report once it has ended.
    pub fn look(&mut self, now: Instant, received: u64, failed: u64) -> Result<Option<Report>, Failure> {
        let Some(start) = &self.started else {
            if self.begins.is_some_and(|begins| begins <= now) {
                self.units = 0;
                let cpu = self.sample()?;
                let (own, helpers, busy) = (Cpu::own()?, Cpu::of(&self.helpers)?, busy(&self.cores)?);
                self.started = Some(Start { at: Instant::now(), received, cpu, own, helpers, busy });
            }
            return Ok(None);
        };
        if now - start.at < self.measure {
            return Ok(None);
        }
        let cpu = self.sample()?;
        let cpu: Vec<_> = cpu.iter().zip(&start.cpu).map(|(end, start)| end.since(start)).collect();
        let units = if self.uploads { received - start.received } else { self.units };
        let seconds = (now - start.at).as_secs_f64();
        let own_cpu = Cpu::own()?.since(&start.own);
        let known = own_cpu + Cpu::of(&self.helpers)?.since(&start.helpers) + cpu.iter().sum::<f64>();
        let foreign_cpu = busy(&self.cores)? - start.busy - known;
        self.latencies.sort_unstable();
        let latency = (!self.latencies.is_empty()).then(|| latency(&self.latencies));
        Ok(Some(Report { units, seconds, cpu, own_cpu, foreign_cpu, failed, latency }))
    }

    /// The report of a run that counts nothing.
    pub fn nothing(&self, failed: u64) -> Report {
        let (units, cpu) = (self.units, Vec::new());
        Report { units, seconds: 0.0, cpu, own_cpu: 0.0, foreign_cpu: 0.0, failed, latency: None }
    }

    fn sample(&self) -> Result<Vec<Cpu>, Failure> {
        self.watch.iter().map(|group| Cpu::of(group)).collect()
    }
}

fn latency(sorted: &[u64]) -> Latency {
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a run of seconds")]
    let micros = |share: f64| percentile(sorted, share) as f64 / 1000.0;
    Latency { p50: micros(0.5), p99: micros(0.99), p999: micros(0.999), max: micros(1.0) }
}
