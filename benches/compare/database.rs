//! A real MariaDB server in the run's directory, and sysbench against it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::contender::find;
use crate::process::{Launch, Process, Registry};

const ROWS: u32 = 10_000;
const THREADS: u32 = 16;
const USER: &str = "bench";
const PASSWORD: &str = "not-a-secret";
const DATABASE: &str = "bench";

/// The server; it ends when this is dropped.
pub struct Database {
    _server: Process,
    pub port: u16,
    sysbench: PathBuf,
}

/// What sysbench counted.
#[derive(Debug)]
pub struct Counts {
    pub queries: f64,
    pub queries_a_second: f64,
}

impl Database {
    /// Starts a server on this core with a table to select from; `None` if there is no such server here.
    pub fn start(
        port: u16,
        core: usize,
        directory: &Path,
        registry: &Registry,
    ) -> Result<Option<Self>, Failure> {
        let programs = ["mariadbd", "mariadb-install-db", "mariadb", "sysbench"].map(find);
        let [Some(server), Some(install), Some(client), Some(sysbench)] = programs else { return Ok(None) };
        let directory = directory.join("mariadb");
        std::fs::create_dir(&directory)?;
        let option = |name: &str, value: &str| format!("--{name}={}", directory.join(value).display());
        let user = if rustix::process::geteuid().is_root() { &["--user=root"][..] } else { &[] };
        let mut command = Command::new(install);
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg(option("datadir", "data")).args(user).env("TMPDIR", &directory);
        finish(&mut command, &directory.join("install.log"))?;
        let launch = Launch::new(&server, port)
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-ssl", "--skip-name-resolve"])
            .args(["--skip-log-bin", "--innodb-buffer-pool-size=64M", "--performance-schema=off"])
            .arg(format!("--port={port}"))
            .args([
                option("socket", "s"),
                option("datadir", "data"),
                option("pid-file", "pid"),
                option("tmpdir", ""),
            ])
            .args(user);
        let server = Process::start(&launch, core, &directory.join("log"), registry, None)?.listening()?;
        let mut command = Command::new(client);
        command.args(["--no-defaults", "--user=root"]).arg(option("socket", "s")).arg(format!(
            "--execute=CREATE DATABASE {DATABASE}; CREATE USER {USER}@127.0.0.1 IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON {DATABASE}.* TO {USER}@127.0.0.1"
        ));
        finish(&mut command, &directory.join("client.log"))?;
        let database = Self { _server: server, port, sysbench };
        let mut prepare = Command::new(&database.sysbench);
        prepare.args(arguments(port)).arg("prepare");
        finish(&mut prepare, &directory.join("prepare.log"))?;
        Ok(Some(database))
    }

    /// Selects rows by their key through this port for so many seconds.
    pub fn select(
        &self,
        port: u16,
        seconds: f64,
        core: usize,
        directory: &Path,
        registry: &Registry,
    ) -> Result<Counts, Failure> {
        let launch = Launch::new(&self.sysbench, 0).args(arguments(port)).args([
            format!("--threads={THREADS}"),
            format!("--time={}", seconds.ceil()),
            "run".into(),
        ]);
        let log = directory.join("sysbench.log");
        let streams = Some((Stdio::null(), Stdio::piped()));
        let mut process = Process::start(&launch, core, &log, registry, streams)?;
        let mut text = String::new();
        process.child.stdout.take().ok_or("no output of sysbench")?.read_to_string(&mut text)?;
        Counts::parse(&text).ok_or_else(|| format!("sysbench: {text} {}", process.last_words()).into())
    }
}

impl Counts {
    fn parse(text: &str) -> Option<Self> {
        let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
        let errors: f64 = after("ignored errors:")?.split_whitespace().next()?.parse().ok()?;
        let (total, rest) = after("queries:")?.trim().split_once(" (")?;
        let counts = Self {
            queries: total.trim().parse().ok()?,
            queries_a_second: rest.split(' ').next()?.parse().ok()?,
        };
        (errors == 0.0 && counts.queries > 0.0).then_some(counts)
    }
}

fn arguments(port: u16) -> Vec<String> {
    let mut arguments = vec!["oltp_point_select".to_owned(), "--mysql-host=127.0.0.1".into()];
    arguments.extend([format!("--mysql-port={port}"), format!("--mysql-user={USER}")]);
    arguments.extend([format!("--mysql-password={PASSWORD}"), format!("--mysql-db={DATABASE}")]);
    arguments.extend(["--mysql-ssl=off".into(), "--tables=1".into(), format!("--table-size={ROWS}")]);
    arguments
}

fn finish(command: &mut Command, log: &Path) -> Result<(), Failure> {
    let file = File::create(log)?;
    let status = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status()?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read(log)?;
    Err(format!("{} {status}: {}", command.get_program().display(), String::from_utf8_lossy(&said)).into())
}
