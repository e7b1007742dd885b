//! A real DNS server, dnsmasq, on loopback, whose answers a test can change.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{path, wait_until};

/// What a machine needs for it.
pub const NEEDED: &[&str] = &["dnsmasq"];

/// Another process may take a port between the moment it was found free and the server's bind.
const PORTS_TRIED: usize = 5;

/// The server; killed when dropped.
pub struct Dnsmasq {
    child: Option<Child>,
    directory: TempDir,
    /// The server for names below `silent.example`.
    silent: UdpSocket,
    pub address: SocketAddr,
}

impl Dnsmasq {
    /// It answers for these names below `example`, with a TTL of one second; there is no other such name. For names
    /// below `silent.example` nobody ever answers.
    pub fn start(names: &[(&str, [u8; 4])]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server =
            Self { child: None, directory, silent: silent().0, address: ([127, 0, 0, 1], 0).into() };
        server.list(names);
        let found = (0..PORTS_TRIED).any(|_| {
            server.address = free_port();
            server.launch()
        });
        assert!(found, "dnsmasq does not start");
        server
    }

    /// Starts it where it was before.
    pub fn start_again(&mut self) {
        assert!(self.launch(), "dnsmasq does not start");
    }

    /// Whether it serves.
    fn launch(&mut self) -> bool {
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        command.args([
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--local=/example/",
            "--local-ttl=1",
        ]);
        command.args(["--pid-file=", "--log-facility=-", "--user=root"]);
        let silent = self.silent.local_addr().expect("its address").port();
        command.arg(format!("--server=/silent.example/127.0.0.1#{silent}"));
        command.arg(format!("--port={}", self.address.port())).arg(format!("--addn-hosts={}", self.listed()));
        // Debian has it where only root looks.
        let places = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        command.env("PATH", places).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("dnsmasq starts");
        let mut ended = false;
        wait_until("dnsmasq", || {
            ended = child.try_wait().expect("wait").is_some();
            ended || TcpListener::bind(self.address).is_err()
        });
        self.child = Some(child);
        !ended
    }

    fn listed(&self) -> String {
        path(&self.directory.path().join("hosts")).to_owned()
    }

    fn list(&self, names: &[(&str, [u8; 4])]) {
        let line = |(name, address): &(&str, [u8; 4])| format!("{} {name}\n", Ipv4Addr::from(*address));
        std::fs::write(self.listed(), names.iter().map(line).collect::<String>()).expect("written");
    }

    /// From now on it answers with these.
    pub fn answer(&self, names: &[(&str, [u8; 4])]) {
        self.list(names);
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::HUP).expect("sent");
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port of loopback that is free for TCP and UDP.
fn free_port() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp.local_addr().expect("its address");
    // Where it is taken for UDP, the server says so by ending.
    drop(UdpSocket::bind(address));
    address
}

/// A DNS server that takes queries and never answers.
pub fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}
