//! A thousand random changes of a credential directory: nothing mixed is ever shown, nobody is refused while
//! a good generation exists, nobody is cut off, every refusal has its reason, and nothing is left behind.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use rustls::ClientConfig;
use twinlock::clock;
use twinlock::credentials::needs::{Needs, Use};
use twinlock::credentials::store::{Change, Source, Store};
use twinlock::plan::CredentialName;
use twinlock::plan::route::HostPattern;

use crate::mount::{Mount, shown_at, wait_until_shown};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer;
use crate::support::socket::{Backend, echo};
use crate::support::{Certs, HOST, Program, path, wait_until};

const CHANGES: usize = 1_000;
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
        1 => (0..3_usize).prop_map(Act::Forbid),
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
            Act::Forbid(number) => {
                use std::os::unix::fs::PermissionsExt as _;
                // It may be gone already.
                drop(std::fs::set_permissions(file(number), std::fs::Permissions::from_mode(0o000)));
            }
            Act::Away => {
                let away = self.mount.directory.with_extension("away");
                std::fs::rename(&self.mount.directory, &away).expect("renamed");
                std::fs::rename(&away, &self.mount.directory).expect("renamed");
            }
        }
    }
}

/// Opening a FIFO for writing would wait for a reader, so what is in the way is removed by whoever writes.
fn clear(act: Act, stage: &Stage) {
    use std::os::unix::fs::FileTypeExt as _;
    let set = stage.mount.directory.join("..data");
    let clear = |name: &str| {
        let file = set.join(name);
        if file.symlink_metadata().is_ok_and(|found| found.file_type().is_fifo()) {
            std::fs::remove_file(&file).expect("removed");
        }
    };
    match act {
        Act::KeyAlone(_) => clear("tls.key"),
        Act::Half(number) | Act::Empty(number) => clear(FILES[number]),
        Act::Swap(_) | Act::Overwrite(_) | Act::Delete(_) | Act::Fifo(_) | Act::Forbid(_) | Act::Away => {}
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
        let store = Store::new(vec![Source { name: name.clone(), directory, needs }]);
        let slot = store.slot(&name).expect("a slot");
        slot.refresh(clock::wall());
        let known: HashSet<_> = stage.leaves.iter().map(|leaf| leaf.leaf().clone()).collect();
        let mut generation = 1;
        for act in acts {
            clear(act, &stage);
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
                Change::Refused(refusal) => prop_assert!(refusal.to_string().contains("tls.")
                    || refusal.to_string().contains("ca.crt"), "{}", refusal),
                Change::Unchanged(_) | Change::Held => {}
            }
            prop_assert_eq!(current.generation, generation);
        }
    }
}

/// Clients that come one after the other until told to stop: how many came, and what the refused were told.
fn come(address: SocketAddr, config: &ClientConfig, known: &HashSet<Vec<u8>>, stop: &AtomicBool) -> usize {
    let mut came = 0;
    while !stop.load(Ordering::Relaxed) {
        // It verifies the signature by the key of the certificate, so a mixed pair would fail here.
        let leaf = shown_at(address, config).unwrap_or_else(|| panic!("client {came} was refused"));
        assert!(known.contains(leaf.as_ref()), "client {came} was shown an unknown certificate");
        came += 1;
        pause(5);
    }
    came
}

#[allow(clippy::disallowed_methods, reason = "the pace of a load, not a wait for anything")]
fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Open descriptors and kilobytes of memory of the program.
fn holds(program: &Program) -> (usize, usize) {
    let process = format!("/proc/{}", program.pid());
    let descriptors = std::fs::read_dir(Path::new(&process).join("fd")).expect("descriptors").count();
    let status = std::fs::read_to_string(Path::new(&process).join("status")).expect("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
    (descriptors, resident.trim().trim_end_matches(" kB").parse().expect("a number"))
}

#[test]
fn a_thousand_changes_under_load_lose_nobody_and_leave_nothing_behind() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let mut stage = Stage::new(&certs);
    let server = backend.address.to_string();
    let directory = stage.mount.directory.clone();
    let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", &server, "--host", HOST];
    let more = ["--credentials", path(&directory), "--credentials-poll", "20ms"];
    let mut ingress = Program::start(&[&arguments[..], &more].concat());
    let config = peer::good_client_config(&certs);
    let known: HashSet<_> = stage.leaves.iter().map(|leaf| leaf.leaf().to_vec()).collect();
    let mut open: Vec<_> = (0..10).map(|_| peer::connect(ingress.address, config.clone())).collect();
    for client in &mut open {
        echo(client, "here first");
    }
    let before = holds(&ingress);

    let (stop, address) = (AtomicBool::new(false), ingress.address);
    let came: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| come(address, &config, &known, &stop))).collect();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..CHANGES {
            let drawn = act().new_tree(&mut runner).expect("an act").current();
            clear(drawn, &stage);
            stage.act(drawn);
            pause(10);
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    assert!(came > 200, "only {came} clients came");
    let last = stage.root.issue(&Leaf::server(&[HOST]));
    stage.mount.update(&stage.root, &last);
    wait_until_shown(&ingress, &config, &last);
    for client in &mut open {
        echo(client, "still here");
    }

    // A client that is gone may be a moment in the closing.
    wait_until("the descriptors", || holds(&ingress).0 <= before.0 + 5);
    let (_, resident) = holds(&ingress);
    assert!(resident < before.1 + 32 * 1024, "{resident} kB after {} kB", before.1);
    for client in &mut open {
        peer::half_close(client);
    }
    ingress.stop();
    let said = ingress.stderr();
    let refused: Vec<_> = said.lines().filter(|line| line.contains("credential refused")).collect();
    assert!(refused.len() > 20, "only {} refusals", refused.len());
    for line in refused {
        assert!(line.contains("expected ") || line.contains("cannot read "), "{line}");
    }
    assert!(ingress.said("credential loaded") > 20, "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
