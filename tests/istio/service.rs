//! A sidecar with one service, `db.example` on port 3306: what its endpoints are and what policy it has is up to
//! the test.

use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::judge::head;
use crate::support::socket::{Backend, be_patient};
use crate::support::{PATIENCE, Program, path, wait_until};

/// The sidecar, and the folders that it reads.
pub struct Service {
    pub program: Program,
    config: TempDir,
    /// With a credential in a folder of its own for each credentialName.
    _credentials: Option<TempDir>,
}

impl Service {
    /// `entry` and `rule` are fields of the ServiceEntry and of the DestinationRule; an empty rule is none.
    pub fn start(entry: &str, rule: &str, more: &[&str]) -> Self {
        Self::with(None, entry, rule, more)
    }

    pub fn with(credentials: Option<TempDir>, entry: &str, rule: &str, more: &[&str]) -> Self {
        let config = tempfile::tempdir().expect("a directory");
        std::fs::write(config.path().join("service.yaml"), resources(entry, rule)).expect("written");
        let folder = credentials.as_ref().map_or(config.path(), TempDir::path);
        let mut arguments = vec!["run", "--role=sidecar", "--listen=3306=127.0.0.1:0"];
        arguments.extend(["--config", path(config.path()), "--credentials", path(folder)]);
        arguments.extend(more);
        let program = Program::start(&arguments);
        Self { program, config, _credentials: credentials }
    }

    /// Goes on with other endpoints and another policy.
    pub fn follow(&self, endpoints: &[SocketAddr], policy: &str) {
        let before = self.program.said("configuration loaded");
        let text = resources(&fixed(endpoints), &format!("trafficPolicy: {{{policy}}}"));
        std::fs::write(self.config.path().join("service.yaml"), text).expect("written");
        self.program.signal("HUP");
        wait_until("the next plan", || self.program.said("configuration loaded") > before);
    }

    /// With these endpoints and this traffic policy.
    pub fn at(endpoints: &[SocketAddr], policy: &str) -> Self {
        let rule = if policy.is_empty() { String::new() } else { format!("trafficPolicy: {{{policy}}}") };
        Self::start(&fixed(endpoints), &rule, &[])
    }

    /// Connects from an address of loopback.
    pub fn connect_from(&self, source: IpAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of this host");
        socket.connect_timeout(&self.program.address.into(), PATIENCE).expect("a connection");
        socket.into()
    }

    /// Which of the greeting backends answers a client at this address.
    pub fn ask_from(&self, source: IpAddr) -> u16 {
        greeted(&mut self.connect_from(source))
    }

    /// Which of the greeting backends answers.
    pub fn ask(&self) -> u16 {
        self.ask_from([127, 0, 0, 1].into())
    }
}

/// What a greeting backend says first: its port.
pub fn greeted(stream: &mut TcpStream) -> u16 {
    be_patient(stream);
    let mut port = [0; 5];
    std::io::Read::read_exact(stream, &mut port).expect("a greeting");
    String::from_utf8_lossy(&port).parse().expect("a port")
}

/// The text of both resources.
pub fn resources(entry: &str, rule: &str) -> String {
    let service = format!(
        "{}spec: {{hosts: [db.example], ports: [{{number: 3306, name: tcp, protocol: TCP}}], {entry}}}\n",
        head("ServiceEntry", "db")
    );
    if rule.is_empty() {
        return service;
    }
    format!("{service}---\n{}spec: {{host: db.example, {rule}}}\n", head("DestinationRule", "db"))
}

/// Endpoints by address.
pub fn fixed(endpoints: &[SocketAddr]) -> String {
    let endpoint =
        |address: &SocketAddr| format!("{{address: {}, ports: {{tcp: {}}}}}", address.ip(), address.port());
    let all: Vec<_> = endpoints.iter().map(endpoint).collect();
    format!("resolution: STATIC, endpoints: [{}]", all.join(", "))
}

/// So many backends that say who they are.
pub fn greeters<const COUNT: usize>() -> [Backend; COUNT] {
    [(); COUNT].map(|()| Backend::greeting())
}

pub fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}
