//! A thousand random changes of a credential directory under a hundred new connections a second: nothing
//! mixed is ever shown, nobody is refused while a good generation exists, nobody is cut off, every refusal has
//! its reason, and nothing is left behind.

use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use rustls::pki_types::CertificateDer;
use twinlock::clock;
use twinlock::credentials::needs::{Needs, Use};
use twinlock::credentials::store::{Change, Source, Store};
use twinlock::plan::CredentialName;
use twinlock::plan::route::HostPattern;

use crate::load::Load;
use crate::mount::{Mount, wait_until_shown};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::confined::bound_by_permissions;
use crate::support::socket::{Backend, echo};
use crate::support::{Certs, HOST, Program, Reader, anonymous_bytes, path, peer, wait_until};

const CHANGES: usize = 1_000;
/// Changes until the program holds whatever it comes to hold.
const WARM_UP: usize = 200;
/// What its memory may grow by after that, in bytes: it would be far more if each change or each connection
/// left anything.
const GROWTH_MAX: usize = 4 << 20;
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// What somebody does to a directory.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// As the kubelet does: all at once.
    Swap(usize),
    /// Key first, then certificate, over the files that are there.
    Overwrite(usize),
    /// A key alone.
    KeyAlone(usize),
    /// Half of a file.
    Half(usize),
    /// An empty file.
    Empty(usize),
    /// No file.
    Delete(usize),
    /// Something else in place of a file.
    Fifo(usize),
    /// A file that nobody may read, unless they may read everything.
    Forbid(usize),
    /// A file that may be read again.
    Allow(usize),
    /// A directory that nobody may look into, until the next change.
    Lock,
    /// The whole directory is gone for a moment.
    Away,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..100_usize).prop_map(Act::Swap),
        2 => (0..100_usize).prop_map(Act::Overwrite),
        1 => (0..100_usize).prop_map(Act::KeyAlone),
        1 => (0..3_usize).prop_map(Act::Half),
        1 => (0..3_usize).prop_map(Act::Empty),
        1 => (0..3_usize).prop_map(Act::Delete),
        1 => (0..3_usize).prop_map(Act::Fifo),
        2 => (0..3_usize).prop_map(Act::Forbid),
        2 => (0..3_usize).prop_map(Act::Allow),
        1 => Just(Act::Lock),
        1 => Just(Act::Away),
    ]
}

/// A mounted secret, and leaves to put there.
struct Stage {
    root: Authority,
    leaves: Vec<Identity>,
    mount: Mount,
}

impl Stage {
    fn new(certs: &Certs) -> Self {
        let root = Authority::of(certs);
        let leaves: Vec<_> = (0..20).map(|_| root.issue(&Leaf::server(&[HOST]))).collect();
        let mount = Mount::new(certs.dir.path().join("mount"), &root, &leaves[0]);
        Self { root, leaves, mount }
    }

    fn leaf(&self, number: usize) -> &Identity {
        &self.leaves[number % self.leaves.len()]
    }

    fn act(&mut self, act: Act) {
        permit(&self.mount.directory, 0o755);
        clear(act, self);
        let set = self.mount.directory.join("..data");
        let file = |number: usize| set.join(FILES[number]);
        match act {
            Act::Swap(number) => {
                let leaf = &self.leaves[number % self.leaves.len()];
                self.mount.update(&self.root, leaf);
            }
            Act::Overwrite(number) => {
                // What is not a file any more is made one again.
                for number in 0..FILES.len() {
                    drop(std::fs::remove_file(file(number)));
                }
                std::fs::write(file(2), &self.root.pem).expect("written");
                self.leaf(number).overwrite(&set);
            }
            Act::KeyAlone(number) => self.leaf(number).overwrite_key(&set),
            Act::Half(number) => {
                let whole = std::fs::read(file(number)).ok().filter(|whole| !whole.is_empty());
                let whole = whole.unwrap_or_else(|| b"-----BEGIN CERTIFICATE-----\nMIIB".to_vec());
                std::fs::write(file(number), &whole[..whole.len() / 2]).expect("written");
            }
            Act::Empty(number) => std::fs::write(file(number), "").expect("written"),
            // It may be gone already.
            Act::Delete(number) => drop(std::fs::remove_file(file(number))),
            Act::Fifo(number) => {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                drop(std::fs::remove_file(file(number)));
                let mode = Mode::RUSR | Mode::WUSR;
                mknodat(CWD, file(number), FileType::Fifo, mode, 0).expect("a FIFO");
            }
            Act::Forbid(number) => permit(&file(number), 0o000),
            Act::Allow(number) => permit(&file(number), 0o644),
            Act::Lock => permit(&self.mount.directory, 0o000),
            Act::Away => {
                let away = self.mount.directory.with_extension("away");
                std::fs::rename(&self.mount.directory, &away).expect("renamed");
                std::fs::rename(&away, &self.mount.directory).expect("renamed");
            }
        }
    }
}

fn permit(path: &Path, mode: u32) {
    // It may be gone already.
    drop(std::fs::set_permissions(path, Permissions::from_mode(mode)));
}

impl Drop for Stage {
    fn drop(&mut self) {
        // So that it can be removed.
        permit(&self.mount.directory, 0o755);
    }
}

/// Opening a FIFO for writing would wait for a reader, and a file that is forbidden is forbidden to us, too: what
/// is in the way is removed by whoever writes.
fn clear(act: Act, stage: &Stage) {
    use std::os::unix::fs::FileTypeExt as _;
    let set = stage.mount.directory.join("..data");
    let clear = |name: &str| {
        let file = set.join(name);
        if file.symlink_metadata().is_ok_and(|found| found.file_type().is_fifo()) {
            std::fs::remove_file(&file).expect("removed");
        }
        permit(&file, 0o644);
    };
    match act {
        Act::KeyAlone(_) => clear("tls.key"),
        Act::Half(number) | Act::Empty(number) => clear(FILES[number]),
        Act::Swap(_)
        | Act::Overwrite(_)
        | Act::Delete(_)
        | Act::Fifo(_)
        | Act::Forbid(_)
        | Act::Allow(_)
        | Act::Lock
        | Act::Away => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_changes_publishes_a_mixed_pair_or_loses_the_last_good_one(
        acts in prop::collection::vec(act(), 1..40)
    ) {
        let certs = Certs::mint();
        let mut stage = Stage::new(&certs);
        let needs = Needs::mutual(Use::Server(vec![HostPattern::Exact(HOST.into())]));
        let name = CredentialName("mount".into());
        let directory = stage.mount.directory.clone();
        let store = Store::new(vec![Source { name: name.clone(), directory: directory.clone(), needs }]);
        let slot = store.slot(&name).expect("a slot");
        slot.refresh(clock::wall());
        let known: HashSet<_> = stage.leaves.iter().map(|leaf| leaf.leaf().clone()).collect();
        let mut generation = 1;
        for act in acts {
            stage.act(act);
            let change = slot.refresh(clock::wall());
            let current = slot.current().expect("the last good one stays");
            let pair = current.certified_key.as_ref().expect("a pair");
            prop_assert!(pair.keys_match().is_ok());
            prop_assert!(known.contains(&pair.cert[0]));
            prop_assert!(!current.trust.is_empty());
            match change {
                Change::Published { generation: published, .. } => {
                    prop_assert_eq!(published, generation + 1);
                    generation = published;
                }
                Change::Refused(refusal) => {
                    prop_assert!(refusal.to_string().contains(path(&directory)), "{}", refusal);
                }
                Change::Unchanged(_) | Change::Held => {}
            }
            prop_assert_eq!(current.generation, generation);
        }
    }
}

/// Open descriptors of the program, and the memory that is its alone, in bytes.
fn holds(program: &Program) -> (usize, usize) {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("descriptors").count();
    (descriptors, anonymous_bytes(program))
}

#[test]
fn a_thousand_changes_under_a_hundred_new_connections_a_second_lose_nobody_and_leave_nothing_behind() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let mut stage = Stage::new(&certs);
    let (server, directory) = (backend.address.to_string(), stage.mount.directory.clone());
    let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", &server, "--host", HOST];
    let more = ["--credentials", path(&directory), "--credentials-poll", "20ms", "--log-format", "json"];
    // Changes of permissions must bite.
    let Some(command) = bound_by_permissions(certs.dir.path(), &[&arguments[..], &more].concat()) else {
        return;
    };
    let mut ingress = Program::launch(command, Reader::Reads, Reader::Reads);
    let config = peer::good_client_config(&certs);
    let known: HashSet<_> = stage.leaves.iter().map(|leaf| leaf.leaf().to_vec()).collect();
    let mut open: Vec<_> = (0..10).map(|_| peer::connect(ingress.address, config.clone())).collect();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut before = None;
    let judge =
        |shown: &CertificateDer<'_>| assert!(known.contains(shown.as_ref()), "an unknown certificate");
    let load = Load::run(ingress.address, &config, judge, |load| {
        for change in 0..CHANGES {
            if change == WARM_UP {
                before = Some(holds(&ingress));
            }
            if change % 100 == 0 {
                for client in &mut open {
                    echo(client, "still here");
                }
            }
            stage.act(act().new_tree(&mut runner).expect("an act").current());
            // The kernel's events wait for each other, an order does not: it looks at nearly every change.
            ingress.signal("HUP");
            // However slow the machine is, each change has a connection that began after it.
            load.wait_for_another();
        }
    });
    tell(&format!("{CHANGES} changes, {} connections in {:?}", load.connections, load.time));
    assert!(load.connections >= CHANGES, "{load:?}");

    stage.act(Act::Allow(0));
    let last = stage.root.issue(&Leaf::server(&[HOST]));
    stage.mount.update(&stage.root, &last);
    wait_until_shown(&ingress, &config, &last);
    for client in &mut open {
        echo(client, "still here");
    }
    let before = before.expect("what it held");
    // A client that is gone may be a moment in the closing.
    wait_until("the descriptors", || holds(&ingress).0 <= before.0 + 5);
    let after = holds(&ingress);
    tell(&format!("descriptors and bytes: {before:?}, and in the end {after:?}"));
    assert!(after.1 < before.1 + GROWTH_MAX, "{after:?} after {before:?}");
    for client in &mut open {
        peer::half_close(client);
    }
    let records = ingress.stop_and_take_records();
    let completed = records.iter().filter(|record| record["outcome"] == "completed").count();
    assert_eq!(completed, load.connections + open.len());
    check_refusals(&ingress);
}

/// What the program said of changes that it did not take.
fn check_refusals(ingress: &Program) {
    let said = ingress.stderr();
    let refused: Vec<_> = said.lines().filter(|line| line.contains("credential refused")).collect();
    assert!(refused.len() > 100, "only {} refusals", refused.len());
    for line in &refused {
        assert!(line.contains("expected ") || line.contains("cannot read "), "{line}");
    }
    let denied = |what: &str| {
        refused.iter().filter(|line| line.contains("permission denied") && line.contains(what)).count()
    };
    // A file, and the directory itself.
    let (files, directories) =
        (denied("/tls.crt:") + denied("/tls.key:") + denied("/ca.crt:"), denied("/mount"));
    assert!(files > 10 && directories > files, "{files} files and {directories} in all could not be read");
    assert!(ingress.said("credential loaded") > 100, "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[allow(clippy::print_stderr, reason = "figures for whoever asks for them with --nocapture")]
fn tell(text: &str) {
    eprintln!("{text}");
}
