//! The files of a configuration as they change: what is new is compiled once, and what is wrong with it is told once.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::report::Report;
use super::{Configuration, istio, sources};
use crate::cli::{ProcessFlags, RunFlags, WorkloadFlags};
use crate::credentials::held::Held;
use crate::credentials::levels::Levels;
use crate::credentials::read::Fingerprint;
use crate::credentials::watch::Reason;

/// Files that are edited one by one are compiled when they have rested for this long.
const REST: Duration = Duration::from_millis(500);

/// The files, and what is known of their content.
pub struct Folder {
    workload: WorkloadFlags,
    process: ProcessFlags,
    credentials: PathBuf,
    /// What is in use.
    used: Option<Fingerprint>,
    /// What was compiled last and cannot be used whatever else changes.
    refused: Option<Fingerprint>,
    held: Held,
    /// Why what is there is not in use, as it was told.
    told: Option<String>,
}

/// What a look at the files led to.
pub enum Look {
    /// There is nothing new, or nothing that was not told.
    Unchanged,
    /// What was refused has been taken back: the files are again what is in use.
    Restored,
    /// The content is new, and must rest before it is compiled.
    Held,
    /// The content is new and cannot be used, for these reasons, a line each.
    Refused(String),
    /// The content is new and right in itself.
    Compiled(Box<Configuration>, Fingerprint),
}

impl Folder {
    /// Reads and compiles the files for the first time.
    pub fn open(given: RunFlags) -> (Self, Option<Configuration>, Report) {
        let RunFlags { credentials, workload, process } = given;
        let read = sources::read(&workload.config);
        let used = Some(read.fingerprint());
        let (configuration, report) = istio::compile(read, &workload, &process, Some(&credentials));
        let (refused, held, told) = (None, Held::default(), None);
        (Self { workload, process, credentials, used, refused, held, told }, configuration, report)
    }

    /// Where a change can come from.
    pub fn levels(&self) -> Levels {
        sources::levels(&self.workload.config)
    }

    /// Reads the files, and compiles them if they are new or somebody wants to know.
    pub fn look(&mut self, now: SystemTime, reason: Reason) -> Look {
        let read = sources::read(&self.workload.config);
        let fingerprint = read.fingerprint();
        if self.used == Some(fingerprint) {
            self.refused = None;
            self.held.release();
            return if self.told.take().is_some() { Look::Restored } else { Look::Unchanged };
        }
        if reason == Reason::Due {
            if self.refused == Some(fingerprint) {
                return Look::Unchanged;
            }
            if !read.is_of_one_piece && self.held.hold(fingerprint, REST, now) {
                return Look::Held;
            }
        }
        let (configuration, report) =
            istio::compile(read, &self.workload, &self.process, Some(&self.credentials));
        if let Some(configuration) = configuration {
            return Look::Compiled(Box::new(configuration), fingerprint);
        }
        self.refused = Some(fingerprint);
        self.refuse(report.to_string(), reason)
    }

    /// Notes why content cannot be used, which is told once, and again to those who ask.
    pub fn refuse(&mut self, why: String, reason: Reason) -> Look {
        if reason == Reason::Due && self.told.as_ref() == Some(&why) {
            return Look::Unchanged;
        }
        self.told = Some(why.clone());
        Look::Refused(why)
    }

    /// Notes that this content is in use.
    pub fn take(&mut self, fingerprint: Fingerprint) {
        self.used = Some(fingerprint);
        (self.refused, self.told) = (None, None);
        self.held.release();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn entry(port: u16) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: n{port}}}\nspec: {{hosts: \
             [h{port}.example], ports: [{{number: {port}, name: p, protocol: TCP}}], resolution: STATIC, endpoints: \
             [{{address: 10.0.0.1}}]}}\n---\n"
        )
    }

    fn open(path: &std::path::Path) -> Folder {
        let arguments = ["twinlock", "run", "--role", "sidecar", "--credentials", "c", "--config"];
        let arguments = arguments.into_iter().map(Into::into).chain([path.as_os_str().to_owned()]);
        let Command::Run(given) = Cli::try_parse_from(arguments).unwrap().command else { panic!("run") };
        let (folder, configuration, report) = Folder::open(given);
        assert!(configuration.is_some(), "{report}");
        folder
    }

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_file_that_is_being_written_is_compiled_when_it_has_rested() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, entry(1)).unwrap();
        let mut folder = open(dir.path());
        let mut look = |now| folder.look(at(now), Reason::Due);
        assert!(matches!(look(0), Look::Unchanged));
        // What is there of it would do by itself, and is not what is meant.
        std::fs::write(&path, entry(2)).unwrap();
        assert!(matches!(look(1000), Look::Held));
        std::fs::write(&path, entry(1) + &entry(2)).unwrap();
        assert!(matches!(look(1400), Look::Held));
        assert!(matches!(look(1800), Look::Held));
        let Look::Compiled(configuration, fingerprint) = look(1900) else { panic!("not compiled") };
        assert_eq!(configuration.plan.listeners.len(), 2);
        folder.take(fingerprint);
        assert!(matches!(folder.look(at(2000), Reason::Due), Look::Unchanged));
    }

    #[test]
    fn who_asks_is_not_kept_waiting_and_what_is_wrong_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, entry(1)).unwrap();
        // A file is as good as a folder.
        let mut folder = open(&path);
        std::fs::write(&path, "kind: [").unwrap();
        assert!(matches!(folder.look(at(0), Reason::Due), Look::Held));
        assert!(
            matches!(folder.look(at(1), Reason::Asked), Look::Refused(why) if why.contains("a.yaml:2:1"))
        );
        assert!(matches!(folder.look(at(2), Reason::Due), Look::Unchanged));
        assert!(matches!(folder.look(at(3), Reason::Asked), Look::Refused(_)));
        std::fs::write(&path, entry(1)).unwrap();
        assert!(matches!(folder.look(at(4), Reason::Due), Look::Restored));
        assert!(matches!(folder.look(at(5), Reason::Due), Look::Unchanged));
    }
}
