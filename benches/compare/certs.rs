//! The certificates of a run: P-256, one root for both sides, and two sets that must be refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
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
    next: AtomicU32,
    end: u32,
}

/// The files of a credential.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
const LINK: &str = "..data";

impl Mount {
    /// Issues so many generations of leaves under one root, and puts the first in place.
    pub fn make(within: &Path, generations: u32) -> Result<Self, Failure> {
        let [directory, made] = ["mounted", "made"].map(|name| within.join(name));
        for generation in 0..generations {
            mint(&made, HOST)?;
            for side in ["egress", "ingress"] {
                let place = directory.join(side).join(format!("..{generation}"));
                fs::create_dir_all(&place)?;
                for file in FILES {
                    fs::copy(made.join(side).join(file), place.join(file))?;
                }
            }
        }
        for side in ["egress", "ingress"] {
            for file in FILES {
                symlink(Path::new(LINK).join(file), directory.join(side).join(file))?;
            }
        }
        let mount = Self { directory, next: AtomicU32::new(0), end: generations };
        mount.rotate()?;
        Ok(mount)
    }

    /// Puts the next generation in place.
    pub fn rotate(&self) -> Result<(), Failure> {
        let generation = self.next.fetch_add(1, Ordering::Relaxed);
        if generation >= self.end {
            return Err("no generation of certificates is left".into());
        }
        for side in ["egress", "ingress"] {
            let side = self.directory.join(side);
            symlink(format!("..{generation}"), side.join("..new"))?;
            fs::rename(side.join("..new"), side.join(LINK))?;
        }
        Ok(())
    }
}
