//! What the system says of the process.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

use super::exposition::{Exposition, Kind};

/// Adds what the system says; what it does not say is left out. The names are those of Prometheus' own libraries.
pub fn add_to(exposition: &mut Exposition) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = format!("{}.{:09}", cpu.tv_sec, cpu.tv_nsec);
    let help = "CPU time that the process has used, in seconds.";
    exposition.family("process_cpu_seconds_total", Kind::Counter, help).sample(&[], cpu);
    if let Some(bytes) = resident_bytes() {
        let help = "Memory of the process that is resident, in bytes.";
        exposition.family("process_resident_memory_bytes", Kind::Gauge, help).sample(&[], bytes);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is there only to count the others.
        let open = descriptors.count().saturating_sub(1);
        let help = "File descriptors that are open.";
        exposition.family("process_open_fds", Kind::Gauge, help).sample(&[], open);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
