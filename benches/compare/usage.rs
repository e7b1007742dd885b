//! What processes use, from /proc: CPU time of trees of processes, memory, listening ports.

use std::collections::BTreeMap;
use std::fs;

use crate::Failure;

/// CPU time that some processes have used so far.
#[derive(Debug)]
pub struct Cpu {
    /// Nanoseconds of each thread that lives, by the scheduler's own account.
    threads: BTreeMap<(i32, i32), u64>,
    /// Seconds of the processes, threads that ended included, in whole clock ticks.
    processes: f64,
}

impl Cpu {
    pub fn of(pids: &[i32]) -> Result<Self, Failure> {
        let mut threads = BTreeMap::new();
        let mut ticks = 0;
        for pid in pids {
            for thread in self::threads(&[*pid])? {
                // A thread may end between the listing and the look.
                let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")) else {
                    continue;
                };
                let spent = text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
                threads.insert((*pid, thread), spent);
            }
            let fields = stat(*pid)?;
            // utime and stime, fields 14 and 15 of proc(5); `stat` begins with field 3.
            ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        }
        #[allow(clippy::cast_precision_loss, reason = "ticks of a run")]
        let processes = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Self { threads, processes })
    }

    pub fn own() -> Result<Self, Failure> {
        Self::of(&[rustix::process::getpid().as_raw_pid()])
    }

    /// Seconds since then: to the nanosecond if the threads are still the same, else to the tick.
    pub fn since(&self, start: &Self) -> f64 {
        let whole = self.processes - start.processes;
        if !self.threads.keys().eq(start.threads.keys()) {
            return whole;
        }
        let spent: u64 = self.threads.iter().map(|(thread, spent)| spent - start.threads[thread]).sum();
        #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a run of seconds")]
        let seconds = spent as f64 / 1e9;
        // Threads that came and went in between are only in the account of the processes.
        if whole - seconds > UNSEEN { whole } else { seconds }
    }
}

/// More CPU seconds than whole clock ticks alone explain.
const UNSEEN: f64 = 0.05;

/// Seconds that some cores have been busy so far, whoever kept them so, in whole clock ticks.
pub fn busy(cores: &[usize]) -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/stat")?;
    let mut ticks = 0;
    for core in cores {
        let name = format!("cpu{core} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).ok_or("a core without a line")?;
        let fields: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        // user, nice, system, (idle, iowait,) irq, softirq, steal: proc_stat(5).
        ticks += [0, 1, 2, 5, 6, 7].iter().filter_map(|field| fields.get(*field)).sum::<u64>();
    }
    #[allow(clippy::cast_precision_loss, reason = "ticks since the machine started")]
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(seconds)
}

/// The threads of some processes.
pub fn threads(pids: &[i32]) -> Result<Vec<i32>, Failure> {
    let mut threads = Vec::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            threads.push(entry?.file_name().to_string_lossy().parse()?);
        }
    }
    Ok(threads)
}

/// A process and its descendants.
pub fn tree(root: i32) -> Result<Vec<i32>, Failure> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
        // It may have ended since it was listed.
        let Ok(fields) = stat(pid) else { continue };
        parents.push((pid, fields[1].parse::<i32>()?));
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(family)
}

/// The fields of /proc/PID/stat from the third on; the second may hold spaces and is skipped.
fn stat(pid: i32) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").ok_or("no command in /proc/PID/stat")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// Memory of some processes together, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident pages, each process's in full.
    pub resident: u64,
    /// Resident pages, shared ones in proportion.
    pub proportional: u64,
}

impl Memory {
    pub fn of(pids: &[i32]) -> Result<Self, Failure> {
        let mut sum = Self::default();
        for pid in pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let field = |name: &str| -> Result<u64, Failure> {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                let value = line.and_then(|line| line.split_whitespace().next());
                Ok(value.ok_or_else(|| format!("no {name} in smaps_rollup"))?.parse()?)
            };
            sum.resident += field("Rss:")?;
            sum.proportional += field("Pss:")?;
        }
        Ok(sum)
    }
}

/// Whether somebody listens on this port of 127.0.0.1 or of any address, asked without connecting to it.
pub fn listens(port: u16) -> Result<bool, Failure> {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp")?;
    let end = format!(":{port:04X}");
    Ok(table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        let state = fields.nth(1).unwrap_or_default();
        local.ends_with(&end) && state == LISTEN
    }))
}

/// The value below which this share of the sorted values lies.
pub fn percentile(sorted: &[u64], share: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}
