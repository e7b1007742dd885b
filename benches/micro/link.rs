//! Both ends of a link in one process: plans made from flags, credentials from a directory, handshakes over
//! loopback, all through the same doors as the program.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use twinlock::cli::{Cli, Command};
use twinlock::clock;
use twinlock::config::{Configuration, flags};
use twinlock::credentials::store::Store;
use twinlock::dev_certs::{self, KeyKind, Request};
use twinlock::plan::{Entrance, Originate};
use twinlock::tls::accept::{self, Terminations};
use twinlock::tls::handshake::Established;
use twinlock::tls::originate::{self, Originations};

/// The plans of both sides and what they need to shake hands.
pub struct Link {
    pub certs: TempDir,
    pub ingress: Configuration,
    originate: Arc<Originate>,
    terminations: Terminations,
    originations: Originations,
    runtime: Runtime,
}

/// The name of the host of this number.
pub fn host(number: usize) -> String {
    format!("mysql-{number}.fqdn.example")
}

impl Link {
    /// An ingress for so many hosts and an egress to the first of them, with these flags besides.
    pub fn new(more: &[&str], hosts: usize) -> Self {
        let certs = tempfile::tempdir().expect("a directory");
        let request = Request {
            out: certs.path().to_owned(),
            hosts: vec![host(0)],
            clients: vec!["egress.example".into()],
            key: KeyKind::EcdsaP256,
            days: 1,
        };
        dev_certs::mint(&request, clock::wall()).expect("certificates");
        let names: Vec<_> = (0..hosts).map(host).collect();
        let egress = ["--upstream", "127.0.0.1:1", "--sni", &names[0]];
        let ingress = ["--backend", "127.0.0.1:1", "--host", &names.join(",")];
        let configure = |side: &str, flags: &[&str]| {
            let directory = certs.path().join(side);
            let directory = directory.to_str().expect("a path in UTF-8");
            configuration(&[&["twinlock", side, "--credentials", directory], flags, more].concat())
        };
        let (egress, ingress) = (configure("egress", &egress), configure("ingress", &ingress));
        let terminations = Terminations::new(&ingress.plan, &store(&ingress));
        let originations = Originations::new(&egress.plan, &store(&egress));
        let originate = egress.plan.originates().next().expect("an origination").clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { certs, ingress, originate, terminations, originations, runtime }
    }

    /// A full handshake: the client's side and the server's side of a new session.
    pub fn shake_hands(&self) -> (Established, Established) {
        let Entrance::Tls(table) = &self.ingress.plan.listeners[0].entrance else { panic!("an ingress") };
        self.runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            let client =
                TcpStream::connect(listener.local_addr().expect("its address")).await.expect("connected");
            let (server, _) = listener.accept().await.expect("accepted");
            let deadline = Instant::now() + Duration::from_secs(10);
            let accepts = async {
                let hello = accept::hello(&server, deadline).await.expect("a ClientHello");
                let row = table.find(hello.sni.as_deref(), || None).expect("a route");
                let accept = row.accept.as_ref().expect("a termination");
                accept::accept(&self.terminations, accept, hello, &server, deadline).await
            };
            let originates = originate::originate(&self.originations, &self.originate, &client, deadline);
            let (client, server) = tokio::join!(originates, accepts);
            let end = |ended: Result<Established, _>| ended.map_err(|_| "no handshake").expect("a session");
            (end(client), end(server))
        })
    }
}

fn configuration(arguments: &[&str]) -> Configuration {
    let command = Cli::try_parse_from(arguments).expect("flags").command;
    let compiled = if let Command::Egress(flags) = &command {
        flags::egress(flags)
    } else if let Command::Ingress(flags) = &command {
        flags::ingress(flags)
    } else {
        panic!("expected egress or ingress, found {command:?}")
    };
    compiled.expect("a configuration")
}

fn store(configuration: &Configuration) -> Store {
    let store = Store::new(configuration.credentials.clone());
    store.refresh(clock::wall());
    store
}
