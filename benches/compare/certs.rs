//! The certificates of a run: P-256, one root for both sides, and two sets that must be refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use twinlock::dev_certs::{self, KeyKind, Request};

use crate::Failure;
use crate::contender::HOST;

const CLIENT: &str = "egress.example";
const IMPOSTOR: &str = "impostor.example";

/// A certificate and its key.
pub type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// Where they are.
pub struct Certs {
    /// Holds `ca.crt`, `ca.key`, `egress/` and `ingress/`.
    pub directory: PathBuf,
    foreign: PathBuf,
    impostor: PathBuf,
}

impl Certs {
    pub fn make(within: &Path) -> Result<Self, Failure> {
        let [directory, foreign, impostor] = ["certs", "foreign", "impostor"].map(|name| within.join(name));
        mint(&directory, HOST)?;
        mint(&foreign, HOST)?;
        fs::create_dir(&impostor)?;
        for file in ["ca.crt", "ca.key"] {
            fs::copy(directory.join(file), impostor.join(file))?;
        }
        mint(&impostor, IMPOSTOR)?;
        for side in ["egress", "ingress"] {
            let side = directory.join(side);
            let both = fs::read_to_string(side.join("tls.crt"))? + &fs::read_to_string(side.join("tls.key"))?;
            fs::write(side.join("tls.pem"), both)?;
        }
        Ok(Self { directory, foreign, impostor })
    }

    pub fn root(&self) -> Result<CertificateDer<'static>, Failure> {
        Ok(CertificateDer::from_pem_file(self.directory.join("ca.crt"))?)
    }

    /// What a side of the pair has.
    pub fn identity(&self, side: &str) -> Result<Identity, Failure> {
        identity(&self.directory.join(side))
    }

    /// A client of another root.
    pub fn foreign_identity(&self) -> Result<Identity, Failure> {
        identity(&self.foreign.join("egress"))
    }

    /// A server of the same root and another name.
    pub fn impostor_identity(&self) -> Result<Identity, Failure> {
        identity(&self.impostor.join("ingress"))
    }
}

/// A root, unless there is one, and a leaf for each side.
pub fn mint(directory: &Path, host: &str) -> Result<(), Failure> {
    let request = Request {
        out: directory.to_owned(),
        hosts: vec![host.into()],
        clients: vec![CLIENT.into()],
        key: KeyKind::EcdsaP256,
        days: 2,
    };
    dev_certs::mint(&request, SystemTime::now())?;
    Ok(())
}

fn identity(directory: &Path) -> Result<Identity, Failure> {
    Ok((leaf(directory)?, PrivateKeyDer::from_pem_file(directory.join("tls.key"))?))
}

/// The certificate that a side has now.
pub fn leaf(directory: &Path) -> Result<CertificateDer<'static>, Failure> {
    Ok(CertificateDer::from_pem_file(directory.join("tls.crt"))?)
}

/// Credentials as Kubernetes mounts them: a swap of one link changes all files of a side at once.
pub struct Mount {
    /// Holds `egress/` and `ingress/`.
    pub directory: PathBuf,
    /// Where new ones are made before they are put in place.
    made: PathBuf,
    generation: AtomicU64,
}

/// The files of a credential.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
const LINK: &str = "..data";

impl Mount {
    pub fn make(within: &Path) -> Result<Self, Failure> {
        let [directory, made] = ["mounted", "made"].map(|name| within.join(name));
        for side in ["egress", "ingress"] {
            fs::create_dir_all(directory.join(side))?;
            for file in FILES {
                symlink(Path::new(LINK).join(file), directory.join(side).join(file))?;
            }
        }
        let mount = Self { directory, made, generation: AtomicU64::new(0) };
        mount.rotate()?;
        Ok(mount)
    }

    /// Issues new leaves under the same root and puts them in place.
    pub fn rotate(&self) -> Result<(), Failure> {
        mint(&self.made, HOST)?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        for side in ["egress", "ingress"] {
            let (from, to) = (self.made.join(side), self.directory.join(side));
            let name = format!("..{generation}");
            fs::create_dir(to.join(&name))?;
            for file in FILES {
                fs::copy(from.join(file), to.join(&name).join(file))?;
            }
            symlink(&name, to.join("..new"))?;
            fs::rename(to.join("..new"), to.join(LINK))?;
            // The one before the last: whoever reads the last one may still do so.
            if let Some(old) = generation.checked_sub(2) {
                fs::remove_dir_all(to.join(format!("..{old}")))?;
            }
        }
        Ok(())
    }
}
