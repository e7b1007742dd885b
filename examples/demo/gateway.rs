//! A gateway as a process of its own: this program, started again, runs the real `twinlock` command.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::Failure;

/// The argument that makes this program a gateway.
pub const ARGUMENT: &str = "gateway";
/// How long anything is waited for; only ever reached by a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the `twinlock` command, and ends with the demo even if that is killed: then standard input ends.
pub fn become_one(arguments: impl Iterator<Item = OsString>) -> u8 {
    std::thread::spawn(|| {
        // An error is an end, too.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
    twinlock::command::run(std::iter::once("twinlock".into()).chain(arguments))
}

/// A gateway that is running; killed when dropped.
pub struct Gateway {
    role: &'static str,
    child: Child,
    /// What it says: records, and its operational log.
    lines: UnboundedReceiver<Value>,
    /// What it has said and nobody has asked for.
    said: Vec<Value>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts `twinlock ROLE ARGUMENTS` on a free port and waits until it is ready.
    pub async fn start(role: &'static str, arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TWINLOCK_"))
        {
            command.env_remove(name);
        }
        command.args([ARGUMENT, role, "--listen", "127.0.0.1:0", "--log-format", "json"]);
        command.args(["--drain-timeout", "2s"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the demo, which then ends its gateways one after the other.
        let mut child = command.process_group(0).spawn()?;
        let (sender, lines) = unbounded_channel();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            gather(stdout, sender.clone());
            gather(stderr, sender);
        }
        let mut gateway = Self { role, child, lines, said: Vec::new(), address: ([0; 4], 0).into() };
        let ready = gateway.find("that it is ready", |line| line["event"] == "ready").await?;
        gateway.address = ready["listen"].as_str().unwrap_or_default().parse()?;
        Ok(gateway)
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The record of a connection, by its number.
    pub async fn record(&mut self, id: u64) -> Result<Value, Failure> {
        self.find("how the connection ended", |line| line["event"] == "close" && line["id"] == id).await
    }

    /// The next record, however long that takes.
    pub async fn next_record(&mut self) -> Result<Value, Failure> {
        loop {
            let line = self.lines.recv().await.ok_or_else(|| format!("the {} has ended", self.role))?;
            if line["event"] == "close" {
                return Ok(line);
            }
        }
    }

    /// Waits until it uses this generation of its credential.
    pub async fn generation(&mut self, generation: u64) -> Result<(), Failure> {
        let loaded = |line: &Value| line["fields"]["generation"] == generation;
        self.find("that it has loaded the new credential", loaded).await.map(|_| ())
    }

    /// The first line that is wanted, said or still to be said.
    async fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
        let search = async {
            loop {
                if let Some(at) = self.said.iter().position(&wanted) {
                    return Some(self.said.remove(at));
                }
                self.said.push(self.lines.recv().await?);
            }
        };
        if let Ok(Some(found)) = timeout(PATIENCE, search).await {
            return Ok(found);
        }
        let messages = self.said.iter().filter_map(|line| line["fields"]["message"].as_str());
        let messages = messages.collect::<Vec<_>>().join("; ");
        Err(format!("the {} did not say {what}; it said: {messages}", self.role).into())
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) -> Result<ExitStatus, Failure> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        // Its output ends when it does.
        let ended = async { while self.lines.recv().await.is_some() {} };
        timeout(PATIENCE, ended).await.map_err(|_| format!("the {} does not end", self.role))?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(stream: impl Read + Send + 'static, sender: UnboundedSender<Value>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let line =
                serde_json::from_str(&line).unwrap_or_else(|_| json!({ "fields": { "message": line } }));
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}
