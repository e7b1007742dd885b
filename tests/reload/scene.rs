//! A gateway with a folder of resources that the test edits.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::support::authority::{Authority, Leaf};
use crate::support::{HOST, Program, path, wait_until};

/// The folder, its credentials and the program that follows it.
pub struct Scene {
    pub folder: tempfile::TempDir,
    pub root: Authority,
    pub program: Program,
}

/// The arguments of a sidecar whose ports 3306 and 3307 are wherever the kernel likes.
pub const SIDECAR: &[&str] = &["--role=sidecar", "--listen=3306=127.0.0.1:0", "--listen=3307=127.0.0.1:0"];
/// The same of an ingress gateway, for 13306 and 13307.
pub const INGRESS: &[&str] = &["--role=ingress", "--listen=13306=127.0.0.1:0", "--listen=13307=127.0.0.1:0"];
/// Peers that must go do so at once.
pub const AT_ONCE: &str = "--revoked-grace=0s";

impl Scene {
    /// A gateway that finds these texts, and the credential `c` of a root of its own.
    pub fn new(arguments: &[&str], texts: &[(&str, &str)]) -> Self {
        Self::with(arguments, |scene| texts.iter().for_each(|(name, text)| write(scene, name, text)))
    }

    /// A gateway whose folder is filled like this.
    pub fn with(arguments: &[&str], fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, config, credentials) =
            (Authority::new(), folder.path().join("config"), folder.path().join("credentials"));
        for directory in [&config, &credentials] {
            std::fs::create_dir(directory).expect("a folder");
        }
        root.install(&root.issue(&Leaf::workload_of(&[HOST, "c.example"])), &credentials.join("c"));
        fill(&config);
        let mut all = vec!["run", "--config", path(&config), "--credentials", path(&credentials)];
        all.extend(arguments);
        let program = Program::start(&all);
        Self { folder, root, program }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// The directory of a credential.
    pub fn credential(&self, name: &str) -> PathBuf {
        self.folder.path().join("credentials").join(name)
    }

    /// Replaces a file, and waits for nothing.
    pub fn write(&self, name: &str, text: &str) {
        write(&self.config(), name, text);
    }

    /// Replaces a file, asks the program to look, and waits until it follows.
    pub fn follow(&self, name: &str, text: &str) {
        let before = self.loaded();
        self.write(name, text);
        self.program.signal("HUP");
        self.wait_for_load(before);
    }

    /// How many plans were loaded by now, the first not counted.
    pub fn loaded(&self) -> usize {
        self.program.said("configuration loaded")
    }

    pub fn wait_for_load(&self, before: usize) {
        wait_until("the next plan", || self.loaded() > before);
    }

    /// Where a listener is that has just opened.
    pub fn opened(&self, port: u16) -> SocketAddr {
        let ready = self.program.next_event("ready");
        assert_eq!(ready["port"], port, "{ready}");
        ready["listen"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let new = folder.join(format!(".{name}.new"));
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, folder.join(name)).expect("renamed");
}

fn head(kind: &str, name: &str) -> String {
    format!("---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
}

/// A service on a port that is at one address.
pub fn entry(host: &str, port: u16, backend: SocketAddr) -> String {
    let name = host.replace('.', "-");
    format!(
        "{}spec:\n  hosts: [{host}]\n  ports: [{{number: {port}, name: p, protocol: TCP}}]\n  resolution: STATIC\n  \
         endpoints: [{{address: {}, ports: {{p: {}}}}}]\n",
        head("ServiceEntry", &name),
        backend.ip(),
        backend.port()
    )
}

/// A gateway server on a port for [`HOST`], with this tls, that leads to a service.
pub fn server(port: u16, role: &str, tls: &str, to: &str) -> String {
    let protocol = if tls.is_empty() { "TCP" } else { "TLS" };
    let tls = if tls.is_empty() { String::new() } else { format!(", tls: {tls}") };
    format!(
        "{}spec:\n  selector: {{istio: {role}gateway}}\n  servers: [{{port: {{number: {port}, name: p, protocol: {protocol}}}, hosts: [{HOST}]{tls}}}]\n\
         {}spec: {{hosts: [{HOST}], gateways: [g{port}], tcp: [{{match: [{{port: {port}}}], route: [{{destination: {{host: {to}, port: {{number: 3306}}}}}}]}}]}}\n",
        head("Gateway", &format!("g{port}")),
        head("VirtualService", &format!("v{port}")),
    )
}

/// The tls of a server that lets in clients with one of these names; all of the CA's with none.
pub fn mutual(names: &[&str]) -> String {
    mutual_of("c", names)
}

pub fn mutual_of(credential: &str, names: &[&str]) -> String {
    let names =
        if names.is_empty() { String::new() } else { format!(", subjectAltNames: [{}]", names.join(", ")) };
    format!("{{mode: MUTUAL, credentialName: {credential}{names}}}")
}

/// How TLS is originated to a service: its server must have one of these names.
pub fn originate(host: &str, names: &[&str]) -> String {
    let mode = mutual(names).replacen('}', &format!(", sni: {HOST}}}"), 1);
    format!(
        "{}spec: {{host: {host}, trafficPolicy: {{tls: {mode}}}}}\n",
        head("DestinationRule", &host.replace('.', "-"))
    )
}
