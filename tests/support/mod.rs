//! The harness: starts the real program on port 0 with certificates made for the test, and reads what
//! it says. Everything a test starts ends with the test.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
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
        dev_certs::mint(&request, SystemTime::now()).expect("certificates");
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
    child: Child,
    /// The lines of standard output, as JSON.
    lines: Receiver<Value>,
    stderr: Arc<Mutex<String>>,
    /// Where it listens, from its ready line.
    pub address: SocketAddr,
}

/// The program's binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_twinlock");

impl Program {
    /// Starts `twinlock ARGUMENTS --log-format json` and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .args(["--log-format", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (heard, mut said) = (stderr.clone(), BufReader::new(child.stderr.take().expect("stderr")));
        std::thread::spawn(move || {
            let mut line = String::new();
            while said.read_line(&mut line).is_ok_and(|read| read > 0) {
                heard.lock().expect("stderr").push_str(&line);
                line.clear();
            }
        });
        let mut program = Self { child, lines, stderr, address: ([127, 0, 0, 1], 0).into() };
        let ready = program.next_event("ready");
        program.address = ready["listen"].as_str().expect("listen").parse().expect("an address");
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

    /// The next line of standard output that is this event.
    pub fn next_event(&self, event: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line["event"] == event => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {event} within {PATIENCE:?}; stderr: {}", self.stderr())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without {event}; stderr: {}", self.stderr())
                }
            }
        }
    }

    /// The next record of a connection.
    pub fn record(&self) -> Value {
        self.next_event("close")
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("stderr").clone()
    }

    /// Waits until standard error contains a text.
    pub fn wait_for_stderr(&self, text: &str) {
        wait_until(&format!("{text:?} on standard error"), || self.stderr().contains(text));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `TERM`, `HUP`, `INT`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name}");
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the end of the program", || {
            ended = self.child.try_wait().expect("wait");
            ended.is_some()
        });
        ended.expect("ended")
    }

    /// Asks for the end and waits for it.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut status = None;
    wait_until("the end of the program", || {
        status = child.try_wait().expect("wait");
        status.is_some()
    });
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("stdout").read_to_string(&mut out).expect("UTF-8");
    child.stderr.take().expect("stderr").read_to_string(&mut err).expect("UTF-8");
    (status.and_then(|status| status.code()).unwrap_or(-1), out, err)
}

/// Asks until the answer is yes.
#[allow(clippy::disallowed_methods, reason = "the pause between two questions, not a wait for the answer")]
pub fn wait_until(what: &str, mut answer: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !answer() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Whether what a test needs and a fresh machine may lack is there. In CI its absence is an error.
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
