//! Programs under test: started on a core of their own choosing, ended with everything they started.
//!
//! A program is started by way of this one ([`become_program`]), which puts itself on the right core, takes
//! all the descriptors it may have, and asks to be ended should the comparison end without doing so.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group};
use rustix::thread::CpuSet;

use crate::{Failure, usage};

/// The argument that makes this program become another.
pub const BECOME: &str = "become";

/// How long a program may take to do as it is told: to listen, to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// A program and its arguments.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The port that it listens on when it is ready.
    pub port: u16,
}

impl Launch {
    pub fn new(program: &Path, port: u16) -> Self {
        Self { program: program.to_owned(), arguments: Vec::new(), port }
    }

    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }
}

/// The cores of the comparison.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// Load generator, backend, database.
    pub load: usize,
    /// Both proxies of a pair.
    pub proxies: usize,
}

impl Cores {
    pub fn all(self) -> Vec<usize> {
        if self.load == self.proxies { vec![self.load] } else { vec![self.load, self.proxies] }
    }

    /// The first two cores that this process may use; one for both if there are no two.
    pub fn choose() -> Result<Self, Failure> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let load = cores.next().ok_or("no core to run on")?;
        Ok(Self { load, proxies: cores.next().unwrap_or(load) })
    }
}

/// Which groups of processes live, for whoever ends the comparison early.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Vec<Pid>>>);

impl Registry {
    fn edit(&self, edit: impl FnOnce(&mut Vec<Pid>)) {
        edit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Kills every group that lives.
    pub fn kill_all(&self) {
        self.edit(|groups| {
            for group in groups {
                // It may be ending already.
                let _ = kill_process_group(*group, Signal::KILL);
            }
        });
    }
}

/// A running program; it ends when this is dropped, with all it started.
pub struct Process {
    pub child: Child,
    registry: Registry,
    log: PathBuf,
    port: u16,
    core: usize,
}

impl Process {
    /// Starts a program on a core; what it prints goes to the log, unless `output` says otherwise.
    pub fn start(
        launch: &Launch,
        core: usize,
        log: &Path,
        registry: &Registry,
        streams: Option<(Stdio, Stdio)>,
    ) -> Result<Self, Failure> {
        let (input, output) = streams.unwrap_or_else(|| (Stdio::null(), Stdio::null()));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(BECOME).arg(core.to_string()).arg(&launch.program).args(&launch.arguments);
        command.stdin(input).stdout(output).stderr(File::create(log)?).process_group(0);
        let child = command.spawn()?;
        registry.edit(|groups| groups.push(group_of(&child)));
        Ok(Self { child, registry: registry.clone(), log: log.to_owned(), port: launch.port, core })
    }

    /// Waits until it listens.
    pub fn listening(mut self) -> Result<Self, Failure> {
        let port = self.port;
        let deadline = Instant::now() + PATIENCE;
        while !usage::listens(port)? {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended ({status}): {}", self.last_words()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("it does not listen on {port}: {}", self.last_words()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(self)
    }

    /// The process and its descendants.
    pub fn pids(&self) -> Result<Vec<i32>, Failure> {
        usage::tree(i32::try_from(self.child.id())?)
    }

    /// The same, all put on their core again: some programs choose one for themselves.
    pub fn pids_pinned(&self) -> Result<Vec<i32>, Failure> {
        let pids = self.pids()?;
        for thread in usage::threads(&pids)? {
            // It may have ended since.
            let _ = rustix::thread::sched_setaffinity(Pid::from_raw(thread), &only(self.core));
        }
        Ok(pids)
    }

    /// The end of what it said on standard error.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = group_of(&self.child);
        // The group keeps its number until its leader is reaped, so this ends nobody else.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        self.registry.edit(|groups| groups.retain(|other| *other != group));
    }
}

fn group_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// `become CORE PROGRAM ARGUMENT...`: returns only if it cannot.
pub fn become_program(arguments: &[OsString]) -> Failure {
    let [core, program, arguments @ ..] = arguments else { return "become: a core and a program".into() };
    if let Err(failure) = prepare(core) {
        return failure;
    }
    Command::new(program).args(arguments).exec().into()
}

fn prepare(core: &OsString) -> Result<(), Failure> {
    pin(core.to_string_lossy().parse()?)?;
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    Ok(())
}

/// Ports for servers: below those that the kernel gives to clients, so that no client takes one meanwhile.
#[derive(Debug)]
pub struct Ports {
    next: Cell<u16>,
    end: u16,
}

const PORT_FIRST: u16 = 10_000;

impl Ports {
    pub fn new() -> Result<Self, Failure> {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
        let end: u16 = range.split_whitespace().next().ok_or("an empty range of ports")?.parse()?;
        if end < PORT_FIRST + 1000 {
            return Err(format!(
                "expected room for servers below the ports of clients, which begin at {end}"
            )
            .into());
        }
        // Two comparisons at once begin at different places.
        let start = std::process::id() % u32::from(end - PORT_FIRST);
        Ok(Self { next: Cell::new(PORT_FIRST + u16::try_from(start)?), end })
    }

    /// Ports of 127.0.0.1 on which nobody listens, different ones each time.
    pub fn free<const N: usize>(&self) -> Result<[u16; N], Failure> {
        let mut ports = [0; N];
        for port in &mut ports {
            *port = (PORT_FIRST..self.end).find_map(|_| self.try_next()).ok_or("no port is free")?;
        }
        Ok(ports)
    }

    fn try_next(&self) -> Option<u16> {
        let port = self.next.get();
        self.next.set(if port + 1 < self.end { port + 1 } else { PORT_FIRST });
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    }
}

/// Puts this thread, and what it starts, on a core.
pub fn pin(core: usize) -> Result<(), Failure> {
    rustix::thread::sched_setaffinity(None, &only(core))?;
    Ok(())
}

fn only(core: usize) -> CpuSet {
    let mut cores = CpuSet::new();
    cores.set(core);
    cores
}
