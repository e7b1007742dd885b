//! The load generator as a child process.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ChildStdout, Stdio};

use crate::Failure;
use crate::load::READY;
use crate::load::order::{Order, Report};
use crate::process::{Launch, Process, Registry};

/// The argument that makes this program the load generator.
pub const LOAD: &str = "load";

/// What starts generators.
pub struct Generators<'a> {
    pub core: usize,
    pub registry: &'a Registry,
    /// For what they say on standard error.
    pub directory: &'a Path,
}

impl Generators<'_> {
    /// Runs an order to its end, which its own deadlines bound.
    pub fn run(&self, order: &Order) -> Result<Report, Failure> {
        let mut running = self.start(order, Stdio::null())?;
        running.report()
    }

    /// Starts an order that holds, and waits until it has all it holds.
    pub fn hold(&self, order: &Order) -> Result<Running, Failure> {
        let mut running = self.start(order, Stdio::piped())?;
        let mut line = String::new();
        running.output.read_line(&mut line)?;
        if line.trim() == READY { Ok(running) } else { Err(running.words(&line)) }
    }

    fn start(&self, order: &Order, input: Stdio) -> Result<Running, Failure> {
        let program = std::env::current_exe()?;
        let launch = Launch::new(&program, 0).arg(LOAD).arg(serde_json::to_string(order)?);
        let log = self.directory.join("load.log");
        let streams = Some((input, Stdio::piped()));
        let mut process = Process::start(&launch, self.core, &log, self.registry, streams)?;
        let output = process.child.stdout.take().ok_or("no standard output of the load generator")?;
        Ok(Running { process, output: BufReader::new(output) })
    }
}

/// A generator that runs; it ends when this is dropped.
pub struct Running {
    process: Process,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// The generator's processes.
    pub fn pids(&self) -> Result<Vec<i32>, Failure> {
        self.process.pids()
    }

    fn report(&mut self) -> Result<Report, Failure> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(|_| self.words(&text))
    }

    fn words(&self, output: &str) -> Failure {
        format!("load generator: {}{}", output.trim(), self.process.last_words()).into()
    }
}
