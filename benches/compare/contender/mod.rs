//! Who is compared: how each program is told to be an egress and an ingress.
//!
//! Each is configured by somebody who wants it to win: one thread, since both sides of a pair share a core;
//! no log beyond its default; the buffer sizes that measured best. TLS 1.3 only, both sides verify.

mod envoy;
mod haproxy;
mod hitch;
mod nginx;
mod stunnel;
mod twinlock;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::process::{Launch, Ports, Process, Registry};

/// The name of the server, in its certificate and as SNI.
pub const HOST: &str = "mysql.fqdn.example";
/// The cipher suite of equal terms: the one that Envoy takes, which cannot be told to take another.
pub const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// A pair of proxies.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    Twinlock,
    Envoy,
    Haproxy,
    Nginx,
    Stunnel,
    /// hitch has no client side: HAProxy is the egress.
    Hitch,
    /// HAProxy relaying plaintext: the floor.
    Plain,
    /// No proxy at all, where that can be.
    #[value(skip)]
    Direct,
}

/// On which terms handshakes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Terms {
    /// X25519, one cipher suite, every handshake a full one.
    Equal,
    /// The groups and the resumption that each has by default.
    Defaults,
}

/// How one pair is wired: where everything is.
pub struct Wiring<'a> {
    /// For configuration files and logs.
    pub directory: &'a Path,
    /// Holds `egress/` and `ingress/`, each with tls.crt, tls.key, ca.crt, and tls.pem (certificate and key).
    pub certs: &'a Path,
    pub terms: Terms,
    /// Where the egress accepts.
    pub egress: u16,
    /// Where the egress connects to: the ingress, or somebody who looks at what passes.
    pub upstream: u16,
    /// Where the ingress accepts.
    pub ingress: u16,
    /// Where the ingress connects to.
    pub backend: u16,
    /// Whether many bytes will pass rather than many connections.
    pub bulk: bool,
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    pub twinlock: PathBuf,
    pub envoy: Option<PathBuf>,
}

impl Contender {
    pub const ALL: [Self; 7] =
        [Self::Twinlock, Self::Envoy, Self::Haproxy, Self::Nginx, Self::Stunnel, Self::Hitch, Self::Plain];

    /// What it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Twinlock => "twinlock",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx stream",
            Self::Stunnel => "stunnel",
            Self::Hitch => "HAProxy → hitch",
            Self::Plain => "HAProxy, no TLS",
            Self::Direct => "no proxy",
        }
    }

    /// Whether it does the same job as twinlock.
    pub fn is_rival(self) -> bool {
        !matches!(self, Self::Twinlock | Self::Plain | Self::Direct)
    }

    /// The programs of the pair: of the egress, of the ingress.
    pub fn programs(self, programs: &Programs) -> Option<[PathBuf; 2]> {
        let both = |program: PathBuf| [program.clone(), program];
        match self {
            Self::Twinlock => Some(both(programs.twinlock.clone())),
            Self::Envoy => programs.envoy.clone().map(both),
            Self::Haproxy | Self::Plain => find("haproxy").map(both),
            Self::Nginx => find("nginx").map(both),
            Self::Stunnel => find("stunnel4").or_else(|| find("stunnel")).map(both),
            Self::Hitch => Some([find("haproxy")?, find("hitch")?]),
            Self::Direct => None,
        }
    }

    /// What it says its version is.
    pub fn version(self, programs: &Programs) -> Option<String> {
        let [egress, ingress] = self.programs(programs)?;
        let (program, flag) = match self {
            Self::Twinlock | Self::Envoy | Self::Hitch | Self::Direct => (ingress, "--version"),
            Self::Haproxy | Self::Plain | Self::Nginx => (egress, "-v"),
            Self::Stunnel => (egress, "-version"),
        };
        version_of(&program, flag)
    }

    fn launches(self, programs: &Programs, wiring: &Wiring<'_>) -> Result<[Launch; 2], Failure> {
        let [egress, ingress] =
            self.programs(programs).ok_or_else(|| format!("{} is not installed", self.title()))?;
        Ok(match self {
            Self::Twinlock => [twinlock::egress(&egress, wiring), twinlock::ingress(&ingress, wiring)],
            Self::Envoy => [envoy::egress(&egress, wiring)?, envoy::ingress(&ingress, wiring)?],
            Self::Haproxy => [haproxy::egress(&egress, wiring)?, haproxy::ingress(&ingress, wiring)?],
            Self::Nginx => [nginx::egress(&egress, wiring)?, nginx::ingress(&ingress, wiring)?],
            Self::Stunnel => [stunnel::egress(&egress, wiring)?, stunnel::ingress(&ingress, wiring)?],
            Self::Hitch => [haproxy::egress(&egress, wiring)?, hitch::ingress(&ingress, wiring)?],
            Self::Direct => return Err("nothing can be started where there is no proxy".into()),
            Self::Plain => {
                [haproxy::plain_egress(&egress, wiring)?, haproxy::plain_ingress(&ingress, wiring)?]
            }
        })
    }
}

/// A pair that runs.
pub struct Pair {
    pub egress: Process,
    pub ingress: Process,
    /// Where the egress accepts.
    pub target: SocketAddr,
    /// Where the ingress accepts.
    pub ingress_port: u16,
    /// Where the ingress connects to.
    pub backend: SocketAddr,
}

/// What a pair is started with.
pub struct Setting<'a> {
    pub programs: &'a Programs,
    pub registry: &'a Registry,
    pub ports: &'a Ports,
    pub core: usize,
    /// A directory that holds everything; each pair makes one of its own in it.
    pub directory: &'a Path,
    pub certs: &'a Path,
}

impl Pair {
    /// Starts both sides and waits until they listen. `upstream` is where the egress connects to, unless
    /// that is the ingress; `backend` is where the ingress does, unless that is a port of its own.
    pub fn start(
        contender: Contender,
        terms: Terms,
        bulk: bool,
        upstream: Option<u16>,
        backend: Option<u16>,
        setting: &Setting<'_>,
    ) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("pair-").tempdir_in(setting.directory)?.keep();
        let [egress, ingress, own] = setting.ports.free()?;
        let (upstream, backend) = (upstream.unwrap_or(ingress), backend.unwrap_or(own));
        let certs = setting.certs;
        let wiring = Wiring { directory: &directory, certs, terms, egress, upstream, ingress, backend, bulk };
        let [first, second] = contender.launches(setting.programs, &wiring)?;
        let start = |launch: &Launch, name: &str| {
            let log = directory.join(format!("{name}.log"));
            Process::start(launch, setting.core, &log, setting.registry, None)
        };
        let (first, second) = (start(&first, "egress")?, start(&second, "ingress")?);
        let side = |what: &'static str| move |failure| format!("{} {what}: {failure}", contender.title());
        let egress_process = first.listening().map_err(side("egress"))?;
        let ingress_process = second.listening().map_err(side("ingress"))?;
        Ok(Self {
            egress: egress_process,
            ingress: ingress_process,
            target: loopback(egress),
            ingress_port: ingress,
            backend: loopback(backend),
        })
    }

    /// The processes of each side.
    pub fn watch(&self) -> Result<Vec<Vec<i32>>, Failure> {
        Ok(vec![self.egress.pids_pinned()?, self.ingress.pids_pinned()?])
    }
}

/// This port of 127.0.0.1.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The first line of what a program says its version is.
pub fn version_of(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let lines = text.iter().flat_map(|text| text.lines()).map(str::trim);
    let line = lines.into_iter().find(|line| line.chars().any(|letter| letter.is_ascii_digit()))?;
    // Some begin with where they are, which is nobody's concern.
    Some(line.strip_prefix(&*program.to_string_lossy()).unwrap_or(line).trim().to_owned())
}

/// A program on the path, or where Debian puts servers.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    folders.map(|folder: PathBuf| folder.join(name)).find(|file| file.is_file())
}

/// Writes a configuration file of a pair and says where it is.
fn write(wiring: &Wiring<'_>, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = wiring.directory.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}
