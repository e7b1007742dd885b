//! A real MariaDB server in a temporary directory, and the unmodified programs that talk to it.
//!
//! The server listens on loopback without TLS: whatever encryption there is on the way to it, is the
//! gateway's. It ends with the last test that uses it, and its directory goes with it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use crate::support;

/// What a machine needs for these tests.
pub const NEEDED: &[&str] = &["mariadbd", "mariadb-install-db", "mariadb", "sysbench"];

pub const USER: &str = "application_user";
pub const PASSWORD: &str = "not-a-secret";
/// The database that clients start in.
pub const DATABASE: &str = "scenario";

/// Another process may take a port between the moment it was found free and the server's bind.
const PORTS_TRIED: usize = 5;

/// The server; killed when dropped.
pub struct MariaDb {
    server: Running,
    directory: TempDir,
    pub address: SocketAddr,
}

impl MariaDb {
    /// The server that the tests of this binary share, as long as one of them holds it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<MariaDb>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server of one's own.
    pub fn start() -> Self {
        // Not below TMPDIR: the path of a socket is at most 107 bytes.
        let directory = tempfile::Builder::new().prefix("mariadb-").tempdir_in("/tmp").expect("directory");
        let mut install = program("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg("--skip-name-resolve").arg(option("--datadir=", &directory.path().join("data")));
        // A server that starts clears its temporary directory, also of what another is using there.
        install.env("TMPDIR", directory.path());
        as_root_if_root(&mut install);
        finish(&mut install).succeeded();
        let server = (0..PORTS_TRIED).find_map(|_| listen(directory.path()));
        let Some((server, address)) = server else {
            let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            panic!("the server does not start: {log}");
        };
        let server = Self { server, directory, address };
        server.sql(&format!(
            "CREATE DATABASE {DATABASE}; CREATE USER {USER}@127.0.0.1 IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON *.* TO {USER}@127.0.0.1"
        ));
        server
    }

    /// Runs statements as the administrator, over the server's own socket, and returns what they printed.
    pub fn sql(&self, statements: &str) -> String {
        let mut client = program("mariadb");
        client.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"]);
        client.arg(option("--socket=", &socket(self.directory.path()))).args(["--execute", statements]);
        finish(&mut client).succeeded()
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) {
        self.server.end();
    }
}

/// Starts the server on a port that was free; `None` if it was not, after all.
fn listen(directory: &Path) -> Option<(Running, SocketAddr)> {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let mut server = program("mariadbd");
    server.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-ssl", "--skip-name-resolve"]);
    // Clients elsewhere on loopback may say so, those that do not are who they are.
    server.arg("--proxy-protocol-networks=127.0.0.1");
    server.args(["--local-infile=1", "--max-allowed-packet=128M", "--character-set-server=utf8mb4"]);
    // Nobody will miss the data: speed before durability.
    server.args(["--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]);
    server.args([
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=32M",
        "--table-open-cache-instances=1",
    ]);
    server.arg(format!("--port={}", address.port())).arg(option("--socket=", &socket(directory)));
    server.arg(option("--datadir=", &directory.join("data")));
    server.arg(option("--pid-file=", &directory.join("pid")));
    server.arg(option("--log-error=", &directory.join("log")));
    server.env("TMPDIR", directory);
    as_root_if_root(&mut server);
    let mut server = Running(server.spawn().expect("mariadbd starts"));
    let mut ended = false;
    support::wait_until("the database server", || {
        ended = server.has_ended().is_some();
        ended || UnixStream::connect(socket(directory)).is_ok()
    });
    (!ended).then_some((server, address))
}

fn socket(directory: &Path) -> std::path::PathBuf {
    directory.join("socket")
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}{}", support::path(path))
}

/// The server refuses to run as root unless told to.
fn as_root_if_root(command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
}

/// A program of the system; servers are not always on a user's path.
fn program(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin")).stdin(Stdio::null());
    command
}

/// The `mariadb` client, about to run statements in [`DATABASE`] on this address.
pub fn client(address: SocketAddr, statements: &str) -> Command {
    let mut command = program("mariadb");
    command.args(["--no-defaults", "--protocol=tcp", "--skip-ssl", "--host=127.0.0.1"]);
    command.args(["--default-character-set=utf8mb4", "--max-allowed-packet=128M", "--local-infile=1"]);
    command.args(["--batch", "--show-warnings", "--user", USER]);
    command.arg(format!("--port={}", address.port())).arg(format!("--password={PASSWORD}"));
    command.args(["--execute", statements, DATABASE]);
    command
}

/// A connection of the client library.
pub async fn connect(address: SocketAddr) -> Conn {
    let options = OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .tcp_port(address.port())
        .user(Some(USER))
        .pass(Some(PASSWORD))
        .db_name(Some(DATABASE))
        .max_allowed_packet(Some(128 << 20))
        // It would ask the server for its socket and go around the gateways.
        .prefer_socket(false);
    Conn::new(options).await.expect("a connection")
}

/// `sysbench oltp_read_write` over 16 tables of 1000 rows, drawn evenly: transactions rarely meet, so
/// that an error is the way's and not a deadlock.
pub fn sysbench(address: SocketAddr, database: &str, threads: u32, more: &[&str]) -> Command {
    let mut command = program("sysbench");
    command.args(["oltp_read_write", "--tables=16", "--table-size=1000", "--rand-type=uniform"]);
    command.args(["--mysql-host=127.0.0.1", "--mysql-ssl=off", &format!("--mysql-port={}", address.port())]);
    command.arg(format!("--mysql-user={USER}")).arg(format!("--mysql-password={PASSWORD}"));
    command.arg(format!("--mysql-db={database}")).arg(format!("--threads={threads}")).args(more);
    command
}

/// What `sysbench ... run` counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    pub transactions: u64,
    pub ignored_errors: u64,
    pub reconnects: u64,
}

impl Counts {
    pub fn parse(output: &str) -> Self {
        let count = |label: &str| {
            let value = output.lines().find_map(|line| line.trim().strip_prefix(label));
            let value = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
            value.unwrap_or_else(|| panic!("no count of {label} in {output}"))
        };
        Self {
            transactions: count("transactions:"),
            ignored_errors: count("ignored errors:"),
            reconnects: count("reconnects:"),
        }
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("wait")
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a program ended, and what it printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

impl Finished {
    /// What it printed, if it did not fail.
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.output, self.errors);
        self.output
    }
}

/// A program that is running, its output gathered meanwhile.
pub struct Task {
    process: Running,
    output: JoinHandle<String>,
    errors: JoinHandle<String>,
}

impl Task {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let (output, errors) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        Self { process: Running(child), output: gather(output), errors: gather(errors) }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.has_ended().is_none()
    }

    /// Kills it: `kill -9`.
    pub fn kill(mut self) {
        self.process.end();
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let mut status = None;
        support::wait_until("the end of a program", || {
            status = self.process.has_ended();
            status.is_some()
        });
        let [output, errors] = [self.output, self.errors].map(|text| text.join().expect("its output"));
        Finished { code: status.and_then(|status| status.code()), output, errors }
    }
}

/// Runs a program to its end.
pub fn finish(command: &mut Command) -> Finished {
    Task::start(command).finish()
}

fn gather(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a readable stream");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
