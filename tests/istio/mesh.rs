//! Processes of a mesh on one machine: the folders of manifests, credentials for each role, and the ports
//! that the kernel chose.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::authority::{Authority, Leaf};
use crate::support::{HOST, Program};

pub const SIDECAR_ID: &str = "spiffe://cluster.local/ns/default/sa/application";
pub const EGRESS_ID: &str = "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account";
pub const INGRESS_ID: &str = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account";
pub const MYSQL_ID: &str = "spiffe://cluster.local/ns/default/sa/mysql";

/// A folder of manifests.
pub fn manifests(folder: &str) -> String {
    format!("{}/tests/istio/manifests/{folder}", env!("CARGO_MANIFEST_DIR"))
}

/// Three roots that know nothing of each other, and what each role has of them.
pub struct Credentials {
    folder: TempDir,
    /// The mesh of the client's cluster.
    pub client_mesh: Authority,
    /// The mesh of the server's cluster.
    pub server_mesh: Authority,
    /// Between the clusters.
    pub private: Authority,
}

impl Credentials {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let [client_mesh, server_mesh, private] = [(); 3].map(|()| Authority::new());
        let this = Self { folder, client_mesh, server_mesh, private };
        this.client_mesh
            .install(&this.client_mesh.issue(&Leaf::workload(SIDECAR_ID)), &this.of("sidecar", "workload"));
        this.client_mesh
            .install(&this.client_mesh.issue(&Leaf::workload(EGRESS_ID)), &this.of("egress", "workload"));
        this.server_mesh
            .install(&this.server_mesh.issue(&Leaf::workload(INGRESS_ID)), &this.of("ingress", "workload"));
        this.server_mesh
            .install(&this.server_mesh.issue(&Leaf::workload(MYSQL_ID)), &this.of("mysql", "workload"));
        this.renew_private();
        this
    }

    /// New certificates of the private root, at both ends.
    pub fn renew_private(&self) {
        let (client, server) = (Leaf::client(&["egress.example"]), Leaf::server(&[HOST]));
        self.private.install(&self.private.issue(&client), &self.of("egress", "client-credential"));
        self.private.install(&self.private.issue(&server), &self.of("ingress", "mysql-credential"));
    }

    /// A new private root at both ends: first it is trusted beside the old one, then, once that is `known`, it
    /// issues what is shown.
    pub fn replace_private_root(&self, known: impl FnOnce()) {
        let next = Authority::called("the next private root");
        let ends = [("egress", "client-credential"), ("ingress", "mysql-credential")];
        let directories = ends.map(|(role, name)| self.of(role, name));
        for directory in &directories {
            let both = format!("{}{}", self.private.pem, next.pem);
            std::fs::write(directory.join("ca.crt"), both).expect("written");
        }
        known();
        let leaves = [Leaf::client(&["egress.example"]), Leaf::server(&[HOST])];
        for (leaf, directory) in leaves.iter().zip(&directories) {
            next.issue(leaf).install(directory);
        }
    }

    /// New certificates of both meshes, at the ends of the outer hops.
    pub fn renew_meshes(&self) {
        self.client_mesh.issue(&Leaf::workload(EGRESS_ID)).install(&self.of("egress", "workload"));
        self.server_mesh.issue(&Leaf::workload(MYSQL_ID)).install(&self.of("mysql", "workload"));
    }

    /// The folder of credentials of a role.
    pub fn folder(&self, role: &str) -> PathBuf {
        self.folder.path().join(role)
    }

    fn of(&self, role: &str, name: &str) -> PathBuf {
        let folder = self.folder(role).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}

/// `twinlock run` with these folders of manifests and roles.
pub fn run(folders: &[&str], roles: &[&str], credentials: &Path, more: &[String]) -> Program {
    Program::start(
        &arguments(folders, roles, credentials, more).iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn arguments(folders: &[&str], roles: &[&str], credentials: &Path, more: &[String]) -> Vec<String> {
    let mut arguments = vec!["run".to_owned(), "--credentials".to_owned(), credentials.display().to_string()];
    for folder in folders {
        arguments.extend(["--config".to_owned(), manifests(folder)]);
    }
    for role in roles {
        arguments.extend(["--role".to_owned(), (*role).to_owned()]);
    }
    arguments.extend_from_slice(more);
    arguments
}

/// Listens on a port of the kernel's choice instead of this one.
pub fn anywhere(port: u16) -> String {
    format!("--listen={port}=127.0.0.1:0")
}

/// Says where a host is.
pub fn resolve(host: &str, port: u16, address: SocketAddr) -> String {
    format!("--resolve={host}:{port}={address}")
}

pub const DATABASE_HOST: &str = "mysql.default.svc.cluster.local";
pub const EGRESS_HOST: &str = "istio-egressgateway.istio-system.svc.cluster.local";

/// The article's two sides, as they are printed: the client's sidecar and egress gateway in one process, and
/// the server's ingress gateway.
pub struct Article {
    pub client: Program,
    pub server: Program,
}

impl Article {
    pub fn to(database: SocketAddr, credentials: &Credentials) -> Self {
        let server = run(
            &["article/server"],
            &["ingress"],
            &credentials.folder("ingress"),
            &[anywhere(13306), resolve(DATABASE_HOST, 3306, database)],
        );
        let client = run(
            &["article/client"],
            &["sidecar", "egress"],
            &credentials.folder("egress"),
            &[anywhere(3306), resolve(HOST, 13306, server.address)],
        );
        Self { client, server }
    }
}
