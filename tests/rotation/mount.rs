//! What a gateway shows and says while its credentials change, and a directory as Kubernetes mounts one.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use crate::support::authority::{Authority, Identity};
use crate::support::{Program, peer, wait_until};

/// The certificate that the ingress shows to a new client; `None` if the two do not come to terms.
pub fn shown(ingress: &Program, config: &ClientConfig) -> Option<CertificateDer<'static>> {
    shown_at(ingress.address, config)
}

/// The same, by its address.
pub fn shown_at(address: SocketAddr, config: &ClientConfig) -> Option<CertificateDer<'static>> {
    let mut client = peer::connect(address, config.clone());
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).ok()?;
    }
    client.conn.peer_certificates()?.first().cloned()
}

/// Waits until new handshakes are made with this certificate.
pub fn wait_until_shown(ingress: &Program, config: &ClientConfig, identity: &Identity) {
    wait_until("the new certificate", || shown(ingress, config).as_ref() == Some(identity.leaf()));
}

/// A secret as the kubelet mounts it: files are links through `..data`, which is swapped at once.
pub struct Mount {
    pub directory: PathBuf,
    versions: usize,
}

impl Mount {
    pub fn new(directory: PathBuf, root: &Authority, identity: &Identity) -> Self {
        std::fs::create_dir_all(&directory).expect("a directory");
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), directory.join(name)).expect("a link");
        }
        let mut mount = Self { directory, versions: 0 };
        mount.update(root, identity);
        mount
    }

    /// Writes a new version beside the old one, swaps `..data`, and removes the old one.
    pub fn update(&mut self, root: &Authority, identity: &Identity) {
        self.swap(|version| root.install(identity, version));
    }

    /// The same, and the new version lacks a file.
    pub fn update_without(&mut self, root: &Authority, identity: &Identity, file: &str) {
        self.swap(|version| {
            root.install(identity, version);
            std::fs::remove_file(version.join(file)).expect("removed");
        });
    }

    fn swap(&mut self, write: impl FnOnce(&Path)) {
        self.versions += 1;
        let version = format!("..version_{}", self.versions);
        write(&self.directory.join(&version));
        let link = self.directory.join("..data_tmp");
        symlink(&version, &link).expect("a link");
        std::fs::rename(&link, self.directory.join("..data")).expect("swapped");
        let old = self.directory.join(format!("..version_{}", self.versions - 1));
        // Before the first there is none.
        let _ = std::fs::remove_dir_all(old);
    }
}
