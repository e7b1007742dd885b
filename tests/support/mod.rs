//! The harness: starts the real program on port 0 with certificates made for the test, and reads what
//! it says. Everything a test starts ends with the test.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod authority;
pub mod confined;
pub mod forger;
pub mod link;
pub mod peer;
pub mod socket;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use twinlock::clock;
use twinlock::dev_certs::{self, KeyKind, Request};

/// How long a test waits for what must happen. Generous: it is only ever reached by a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The SNI and certificate name of the ingress in tests.
pub const HOST: &str = "mysql.fqdn.example";
/// The name in the egress certificate.
pub const CLIENT: &str = "egress.example";

/// A root with an ingress and an egress credential, in a directory of its own.
pub struct Certs {
    pub dir: tempfile::TempDir,
}

impl Certs {
    pub fn mint() -> Self {
        let certs = Self { dir: tempfile::tempdir().expect("temporary directory") };
        certs.mint_again();
        certs
    }

    /// New leaves under the same root, in the same directories.
    pub fn mint_again(&self) {
        let request = Request {
            out: self.dir.path().to_owned(),
            hosts: vec![HOST.into(), "localhost".into()],
            clients: vec![CLIENT.into()],
            key: KeyKind::EcdsaP256,
            days: 2,
        };
        dev_certs::mint(&request, clock::wall()).expect("certificates");
    }

    pub fn ingress(&self) -> PathBuf {
        self.dir.path().join("ingress")
    }

    pub fn egress(&self) -> PathBuf {
        self.dir.path().join("egress")
    }
}

/// The real program, running.
pub struct Program {
    child: Running,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    /// Who reads the streams, and in the end what nobody reads and nobody closes.
    streams: [JoinHandle<Option<OwnedFd>>; 2],
    /// Its ready line.
    pub ready: String,
    /// Where it listens, from its ready line.
    pub address: SocketAddr,
}

/// What becomes of a standard stream of the program, once it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// It is read to its end.
    Reads,
    /// It is open, and never read again.
    Sleeps,
    /// It is closed.
    Leaves,
}

/// The program's binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_twinlock");

impl Program {
    /// Starts `twinlock ARGUMENTS --log-format json` and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.args(["--log-format", "json"]);
        Self::launch(command, Reader::Reads, Reader::Reads)
    }

    /// Starts a command that is or becomes the program, and waits until it is ready.
    pub fn launch(mut command: Command, output: Reader, errors: Reader) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = Running(child.expect("the program starts"));
        let (sender, lines) = channel();
        let stdout = child.0.stdout.take().expect("stdout");
        let hear = move |line: String| drop(sender.send(line));
        let first_line_then = hear_lines(stdout, 1, output, hear);
        let stderr = Arc::new(Mutex::new(String::new()));
        let heard = stderr.clone();
        let hear = move |line: String| heard.lock().expect("stderr").push_str(&line);
        let said = child.0.stderr.take().expect("stderr");
        let streams = [first_line_then, hear_lines(said, 0, errors, hear)];
        let nowhere = ([127, 0, 0, 1], 0).into();
        let mut program = Self { child, lines, stderr, streams, ready: String::new(), address: nowhere };
        program.ready = program.next_line("ready line");
        program.address = listen_address(&program.ready).expect("an address in the ready line");
        program
    }

    /// An ingress for [`HOST`] on 127.0.0.1, port 0.
    pub fn ingress(certs: &Certs, backend: SocketAddr, more: &[&str]) -> Self {
        let (backend, credentials) = (backend.to_string(), certs.ingress());
        let mut arguments = vec!["ingress", "--listen", "127.0.0.1:0", "--backend", &backend];
        arguments.extend(["--host", HOST, "--credentials", path(&credentials)]);
        arguments.extend(more);
        Self::start(&arguments)
    }

    /// An egress on 127.0.0.1, port 0, that sends [`HOST`] as SNI.
    pub fn egress(certs: &Certs, upstream: SocketAddr, more: &[&str]) -> Self {
        let (upstream, credentials) = (upstream.to_string(), certs.egress());
        let mut arguments = vec!["egress", "--listen", "127.0.0.1:0", "--upstream", &upstream];
        arguments.extend(["--sni", HOST, "--credentials", path(&credentials)]);
        arguments.extend(more);
        Self::start(&arguments)
    }

    /// The next line of standard output.
    pub fn next_line(&self, what: &str) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no {what} within {PATIENCE:?}; stderr: {}", self.stderr())
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("ended without {what}; stderr: {}", self.stderr())
            }
        }
    }

    /// The next line of standard output that is this event.
    pub fn next_event(&self, event: &str) -> Value {
        loop {
            let line = json(&self.next_line(event));
            if line["event"] == event {
                return line;
            }
        }
    }

    /// The next record of a connection.
    pub fn record(&self) -> Value {
        self.next_event("close")
    }

    /// The next record of a connection, if it has been written already.
    pub fn record_if_any(&self) -> Option<Value> {
        self.lines.try_recv().ok().map(|line| json(&line))
    }

    /// Asks for the end, waits for it and returns every record that was not taken before.
    pub fn stop_and_take_records(&mut self) -> Vec<Value> {
        self.stop();
        let rest: Vec<_> = self.lines.iter().map(|line| json(&line)).collect();
        rest.into_iter().filter(|line| line["event"] == "close").collect()
    }

    /// Asks for the end, waits for it and returns everything that was on standard output and not taken before, its
    /// ready line included.
    pub fn stop_and_take_log(&mut self) -> String {
        self.stop();
        [self.ready.clone()].into_iter().chain(self.lines.iter()).collect()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("stderr").clone()
    }

    /// How often a text is on standard error so far.
    pub fn said(&self, text: &str) -> usize {
        self.stderr().matches(text).count()
    }

    /// Waits until standard error contains a text.
    pub fn wait_for_stderr(&self, text: &str) {
        wait_until(&format!("{text:?} on standard error"), || self.stderr().contains(text));
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Sends a signal by name. Not by the program `kill`, which a small system may not have.
    pub fn signal(&self, name: &str) {
        let signal = match name {
            "TERM" => Signal::TERM,
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            "KILL" => Signal::KILL,
            other => panic!("no signal {other}"),
        };
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("sent");
    }

    /// Waits for the end, and for all that it said until then.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait();
        wait_until("the end of its streams", || self.streams.iter().all(JoinHandle::is_finished));
        status
    }

    /// Asks for the end and waits for it.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Program {
    #[allow(clippy::print_stderr, reason = "a test that fails shows what the program had to say")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.stderr();
            let last = said.char_indices().rev().nth(2000).map_or(0, |(index, _)| index);
            eprintln!("standard error of {}: {}", self.address, &said[last..]);
        }
    }
}

/// A process that ends with the test, however the test ends.
struct Running(Child);

impl Running {
    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the end of the program", || {
            ended = self.0.try_wait().expect("wait");
            ended.is_some()
        });
        ended.expect("ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes on the lines of a stream: all of them, or only the first so many, after which the stream is
/// closed or, kept in the thread's result, left unread.
fn hear_lines(
    stream: impl Read + Into<OwnedFd> + Send + 'static,
    first: usize,
    reader: Reader,
    hear: impl Fn(String) + Send + 'static,
) -> JoinHandle<Option<OwnedFd>> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut taken = 0;
        while reader == Reader::Reads || taken < first {
            let mut line = String::new();
            if !stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                return None;
            }
            hear(line);
            taken += 1;
        }
        (reader == Reader::Sleeps).then(|| stream.into_inner().into())
    })
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))
}

/// The address in a ready line of either format.
fn listen_address(ready: &str) -> Option<SocketAddr> {
    if ready.starts_with('{') {
        return json(ready)["listen"].as_str()?.parse().ok();
    }
    ready.split("listening on ").nth(1)?.split([',', ' ']).next()?.parse().ok()
}

/// The memory that is the program's alone and not a file's: heap and stacks, in bytes.
pub fn anonymous_bytes(program: &Program) -> usize {
    let path = format!("/proc/{}/smaps_rollup", program.pid());
    let text = std::fs::read_to_string(path).expect("its memory");
    let kib = text.lines().find_map(|line| line.strip_prefix("Anonymous:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<usize>().ok()).expect("Anonymous") * 1024
}

/// The program with these arguments and none of the caller's environment for it.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TWINLOCK_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program to its end: exit code, standard output, standard error.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    finish(command(arguments))
}

/// What the program prints with these arguments on a terminal, which `script` plays.
pub fn on_terminal(arguments: &[&str], no_colour: &str) -> String {
    let command = format!("{BINARY} {}", arguments.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).env("NO_COLOR", no_colour);
    finish(script).1
}

/// Runs a command to its end, which must not print more than a pipe holds: exit code, standard output,
/// standard error.
pub fn finish(mut command: Command) -> (i32, String, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Running(child.expect("starts"));
    let status = child.wait();
    let (mut out, mut err) = (String::new(), String::new());
    child.0.stdout.take().expect("stdout").read_to_string(&mut out).expect("UTF-8");
    child.0.stderr.take().expect("stderr").read_to_string(&mut err).expect("UTF-8");
    (status.code().unwrap_or(-1), out, err)
}

/// Asks until the answer is yes.
#[allow(clippy::disallowed_methods, reason = "the pause between two questions, not a wait for the answer")]
pub fn wait_until(what: &str, mut answer: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !answer() {
        assert!(clock::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the directory and its parent are watched: what changes from then on raises an event, if
/// there is anything that could.
pub fn wait_until_watched(program: &Program) {
    wait_until("the watches", || watches(program) >= 2);
}

/// How many directories the kernel watches for the program.
pub fn watches(program: &Program) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fdinfo", program.pid())).expect("descriptors");
    let info = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(entry.expect("a descriptor").path()).unwrap_or_default()
    };
    descriptors.map(info).map(|info| info.matches("inotify wd:").count()).sum()
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Whether what a test needs and a fresh machine may lack is there. In CI its absence is an error.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn has(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !on_path(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("TWINLOCK_TEST_REQUIRE_ALL").is_none(), "not installed: {missing:?}");
    eprintln!("SKIPPED: not installed: {missing:?}");
    false
}

fn on_path(program: &str) -> bool {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&directories).collect();
    places.push("/usr/sbin".into());
    places.iter().any(|place| place.join(program).is_file())
}
