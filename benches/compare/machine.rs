//! What was measured and on what: machine, program, versions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::contender::{Contender, Programs, find, version_of};

/// The machine, and the twinlock that runs on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    /// SHA-256 of the program, abbreviated.
    pub program: String,
    /// Where in history it was built, with `+` if the sources had changes.
    pub commit: String,
    /// What each program says its version is.
    pub versions: BTreeMap<String, String>,
}

impl Subject {
    pub fn find_out(programs: &Programs) -> Result<Self, Failure> {
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = cpu.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let processor = format!(
            "{} (family {}, model {})",
            field("model name").unwrap_or_else(|| "unknown".into()),
            field("cpu family").unwrap_or_else(|| "?".into()),
            field("model").unwrap_or_else(|| "?".into()),
        );
        Ok(Self {
            processor,
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            program: fingerprint(&programs.twinlock)?,
            commit: commit(),
            versions: versions(programs),
        })
    }

    /// Whether figures of the two may stand in one table.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.processor, self.cores, &self.kernel, &self.program)
            == (&other.processor, other.cores, &other.kernel, &other.program)
    }
}

fn fingerprint(program: &Path) -> Result<String, Failure> {
    let digest = digest::digest(&digest::SHA256, &fs::read(program)?);
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    Ok(format!("{:016x}", u64::from_be_bytes(first)))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".into() };
    let changes =
        git(&["status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.toml", "Cargo.lock"]);
    if changes.is_some_and(|changes| !changes.is_empty()) { commit + "+" } else { commit }
}

fn versions(programs: &Programs) -> BTreeMap<String, String> {
    let contenders = Contender::ALL.into_iter().filter(|contender| *contender != Contender::Plain);
    let contenders = contenders.filter_map(|contender| {
        let name = if contender == Contender::Hitch { "hitch" } else { contender.title() };
        Some((name.to_owned(), contender.version(programs)?))
    });
    let others = [
        ("MariaDB", "mariadbd", "--version"),
        ("sysbench", "sysbench", "--version"),
        ("OpenSSL", "openssl", "version"),
    ];
    let others = others
        .into_iter()
        .filter_map(|(title, program, flag)| Some((title.to_owned(), version_of(&find(program)?, flag)?)));
    contenders.chain(others).collect()
}
