//! Whatever is put in place of a credential that is in use: it is named with its reason, and never served.

use std::ffi::OsStr;
use std::fs::{File, create_dir, remove_dir_all, remove_file, write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::mount::{shown, wait_until_shown};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer;
use crate::support::socket::Backend;
use crate::support::{Certs, HOST, Program, path};

/// An ingress whose directory is spoiled and mended again and again.
struct Stage {
    certs: Certs,
    root: Authority,
    ingress: Program,
    _backend: Backend,
}

impl Stage {
    fn new(more: &[&str]) -> Self {
        let (certs, backend) = (Certs::mint(), Backend::echo());
        let ingress = Program::ingress(&certs, backend.address, more);
        Self { root: Authority::of(&certs), certs, ingress, _backend: backend }
    }

    /// Spoils the directory; what it holds then must be told by its path and by this reason, and the
    /// certificate that was good must still be shown. Then a new one must be taken.
    fn check(&self, spoil: impl FnOnce(&Path), file: &str, reason: &str) {
        let (directory, config) = (self.certs.ingress(), peer::good_client_config(&self.certs));
        let good = Identity::of(&directory);
        let told = self.ingress.stderr().len();
        spoil(&directory);
        self.ingress.signal("HUP");
        // The directory itself, without a slash, where it is not of a file.
        let place = if file.is_empty() { directory.clone() } else { directory.join(file) };
        let is_refusal = |line: &str| {
            line.contains("credential refused") && line.contains(reason) && line.contains(path(&place))
        };
        let refused = || self.ingress.stderr()[told..].lines().any(is_refusal);
        crate::support::wait_until(&format!("{reason:?} of {file:?}"), refused);
        assert_eq!(shown(&self.ingress, &config).as_ref(), Some(good.leaf()), "{reason}");
        drop(remove_dir_all(&directory).or_else(|_| remove_file(&directory)));
        let new = self.root.issue(&Leaf::server(&[HOST]));
        self.root.install(&new, &directory);
        wait_until_shown(&self.ingress, &config, &new);
    }

    /// Puts this leaf in place of the one that is there.
    fn check_leaf(&self, leaf: &Identity, reason: &str) {
        self.check(|directory| leaf.install(directory), "tls.crt", reason);
    }
}

#[test]
fn what_is_no_file_of_the_kind_is_named_and_never_served() {
    let stage = Stage::new(&["--credentials-poll", "1h"]);
    let fifo = |file: &Path| mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let in_place_of = |name: &'static str, put: &dyn Fn(&Path), reason: &str| {
        let spoil = |directory: &Path| {
            remove_file(directory.join(name)).expect("removed");
            put(&directory.join(name));
        };
        stage.check(spoil, name, reason);
    };
    in_place_of("tls.crt", &|_| (), "expected a file, found none");
    in_place_of("tls.key", &|file| write(file, "").expect("written"), "found an empty file");
    in_place_of("ca.crt", &fifo, "expected a regular file, found something else");
    in_place_of("tls.crt", &|file| create_dir(file).expect("made"), "expected a regular file");
    in_place_of("tls.key", &|file| symlink("tls.key", file).expect("a link"), "too many levels of symbolic");
    let large = |file: &Path| File::create(file).and_then(|file| file.set_len(1 << 30)).expect("a gigabyte");
    in_place_of("tls.crt", &large, "expected a file of at most 1048576 bytes, found a larger one");
    let der = |file: &Path| write(file, [0x30, 0x82, 1, 2]).expect("written");
    in_place_of("tls.crt", &der, "expected valid PEM, found DER");
    let half = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    in_place_of("ca.crt", &|file| write(file, half).expect("written"), "expected valid PEM");
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    in_place_of("tls.key", &|file| write(file, key).expect("written"), "expected an ECDSA, Ed25519 or RSA");

    let whole = |put: &dyn Fn(&Path), reason: &str| {
        let spoil = |directory: &Path| {
            remove_dir_all(directory).expect("removed");
            put(directory);
        };
        stage.check(spoil, "", reason);
    };
    whole(&|_| (), "no such file or directory");
    whole(&|place| write(place, "a file").expect("written"), "not a directory");
    whole(&|place| symlink("ingress", place).expect("a link"), "too many levels of symbolic links");
    let data = |directory: &Path| symlink("..gone", directory.join("..data")).expect("a link");
    stage.check(data, "..data", "no such file or directory");
}

#[test]
fn what_must_not_be_shown_or_trusted_is_named_and_never_served() {
    let stage = Stage::new(&["--credentials-poll", "1h"]);
    let root = &stage.root;
    let server = || Leaf::server(&[HOST]);
    let other = root.issue(&server());
    stage.check(
        |directory| other.overwrite_key(directory),
        "tls.key",
        "found the key of another certificate",
    );
    stage.check_leaf(&root.issue(&server().expired()), "found one that expired on ");
    stage.check_leaf(&root.issue(&server().valid(1, 2)), "found one that is valid from ");
    stage.check_leaf(&root.issue(&Leaf::client(&[HOST])), "expected a certificate for servers");
    stage.check_leaf(&root.issue(&Leaf::server(&["other.example"])), "expected a certificate for the host");
    let impostor = Authority::named_like(&stage.certs);
    stage.check_leaf(&impostor.issue(&server()), "expected a chain that a CA of the bundle issued");
    let of_ca = |directory: &Path| {
        for name in ["crt", "key"] {
            let ca = stage.certs.dir.path().join(format!("ca.{name}"));
            std::fs::copy(ca, directory.join(format!("tls.{name}"))).expect("copied");
        }
    };
    stage.check(of_ca, "tls.crt", "found a CA (");
    let leaf_as_ca = |directory: &Path| {
        std::fs::copy(directory.join("tls.crt"), directory.join("ca.crt")).expect("copied");
    };
    stage.check(leaf_as_ca, "ca.crt", "found a certificate that may sign no others (");

    let list = |list: String, reason: &str| {
        stage.check(|directory| write(directory.join("ca.crl"), list).expect("written"), "ca.crl", reason);
    };
    list(Authority::new().crl(&[], 1), "found a revocation list of another CA (");
    list(impostor.crl(&[], 1), "found a revocation list that is not signed by the CA it names (");
    list(root.crl(&[], -1), "found one whose successor was due on ");
    list(String::new(), "expected at least one PEM X509 CRL, found none");
}

#[test]
fn entries_of_any_name_beside_the_files_change_nothing() {
    let mut stage = Stage::new(&["--credentials-poll", "20ms"]);
    let directory = stage.certs.ingress();
    for name in [&b"not-\xff-utf8"[..], b"..2026", b"tls.crt.bak", b"\n"] {
        write(directory.join(OsStr::from_bytes(name)), "anything").expect("written");
        create_dir(directory.join(OsStr::from_bytes(&[name, b"-cacert"].concat()))).expect("made");
    }
    let config = peer::good_client_config(&stage.certs);
    let new = stage.root.issue(&Leaf::server(&[HOST]));
    new.install(&directory);
    wait_until_shown(&stage.ingress, &config, &new);
    stage.ingress.stop();
    assert_eq!(stage.ingress.said("credential loaded"), 1, "{}", stage.ingress.stderr());
    // Which files it came from.
    assert!(stage.ingress.stderr().contains("\"tls.crt,ca.crt\""), "{}", stage.ingress.stderr());
}

#[test]
fn what_expires_while_it_is_in_use_is_told_once() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let (root, brief) = (Authority::of(&certs), Authority::called_for_seconds("a brief root", 10));
    write(certs.ingress().join("ca.crt"), format!("{}{}", root.pem, brief.pem)).expect("written");
    root.issue(&Leaf::server(&[HOST]).valid_in_seconds(-60, 10)).install(&certs.ingress());
    let mut ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "50ms"]);
    ingress.wait_for_stderr("own certificate expired, peers will refuse it: ");
    ingress.wait_for_stderr("a CA expired, what it alone vouches for is refused: CN=a brief root, ");
    for _ in 0..20 {
        // Each makes it look again, and each handshake is longer than a poll.
        ingress.signal("HUP");
        drop(shown(&ingress, &peer::good_client_config(&certs)));
    }
    ingress.stop();
    assert_eq!((ingress.said("own certificate expired"), ingress.said("a CA expired")), (1, 1));
    assert_eq!(ingress.said("credential refused"), 0, "{}", ingress.stderr());
}
