//! Which file of a credential is what: the keys of a Kubernetes secret as Istio reads them, and their order.
//!
//! A credential is a directory; a root folder holds one for each name. `cert` and `key` come before
//! `tls.crt` and `tls.key`, `cacert` before `ca.crt`; a directory `NAME-cacert` beside `NAME` takes the
//! place of all CA files of `NAME`. A revocation list belongs to the CA file of its own family. Last come the names
//! of the files in which Istio and GKE give a workload its identity.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::read::{Content, Set};

/// Where a mounted secret's files are (the kubelet's atomic writer).
pub const DATA: &str = "..data";
/// What the name of a directory that holds a CA alone ends in.
const APART: &str = "-cacert";

/// Certificate chain and private key, in order of precedence.
const PAIRS: [[&str; 2]; 4] =
    [["cert", "key"], USUAL_PAIR, ["cert-chain.pem", "key.pem"], ["certificates.pem", "private_key.pem"]];
/// What is missed where nothing is there.
const USUAL_PAIR: [&str; 2] = ["tls.crt", "tls.key"];
/// CA certificates and their revocation list, in order of precedence.
const CAS: [(&str, Option<&str>); 4] = [
    ("cacert", Some("crl")),
    (USUAL_CA, Some("ca.crl")),
    ("root-cert.pem", None),
    ("ca_certificates.pem", None),
];
const USUAL_CA: &str = "ca.crt";

/// Every file that is read.
pub const FILES: [&str; 14] = [
    "cert",
    "key",
    "tls.crt",
    "tls.key",
    "cacert",
    "crl",
    "ca.crt",
    "ca.crl",
    "cert-chain.pem",
    "key.pem",
    "root-cert.pem",
    "certificates.pem",
    "private_key.pem",
    "ca_certificates.pem",
];

/// Whether a file of this name is a revocation list.
pub fn is_crl(name: &str) -> bool {
    CAS.iter().any(|(_, crl)| *crl == Some(name))
}

/// A file that is there and holds something.
#[derive(Debug)]
pub struct Named<'content> {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: &'content [u8],
}

/// What is not there.
#[derive(Debug, PartialEq, Eq)]
pub enum Lacking {
    /// A file.
    File(PathBuf),
    /// Anything in a file.
    Content(PathBuf),
    /// A CA in the directory that is there for nothing else.
    Ca(PathBuf),
}

/// The directory beside a credential's own that holds its CA, if it exists.
pub fn apart(directory: &Path) -> Option<PathBuf> {
    let name = directory.file_name()?;
    if is_apart(name) {
        return None;
    }
    let mut name = name.to_owned();
    name.push(APART);
    Some(directory.with_file_name(name))
}

/// Whether a directory of this name holds a CA and no key pair.
pub fn is_apart(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.ends_with(APART))
}

/// The directory of a credential in a root folder. The name becomes a path, so it must be a plain name:
/// a DNS subdomain, as Kubernetes asks of its secrets (RFC 1123).
pub fn directory(root: &Path, name: &str) -> Result<PathBuf, String> {
    let label = |label: &str| {
        let edge = |letter: Option<char>| letter.is_some_and(|letter| letter != '-');
        let known = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        label.chars().all(known) && edge(label.chars().next()) && edge(label.chars().last())
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(root.join(name))
    } else {
        Err(format!(
            "expected lower-case letters, digits, - and . as the name of a credential, found {name:?}"
        ))
    }
}

/// The certificate chain and its key: of the first family that is whole.
pub fn key_pair(content: &Content) -> Result<[Named<'_>; 2], Lacking> {
    let set = &content.own;
    let whole = PAIRS.iter().find(|pair| pair.iter().all(|name| set.holds(name)));
    // Of none that is whole, the one that somebody began is complained of.
    let count = |pair: &&[&str; 2]| pair.iter().filter(|name| set.get(name).is_some()).count();
    let begun = || PAIRS.iter().filter(|pair| count(pair) > 0).max_by_key(count);
    let [chain, key] = whole.or_else(begun).unwrap_or(&USUAL_PAIR);
    Ok([file(set, chain)?, file(set, key)?])
}

/// Whether anything of a key pair is there.
pub fn has_key_pair(content: &Content) -> bool {
    PAIRS.iter().flatten().any(|name| content.own.get(name).is_some())
}

/// The CA certificates, and the revocation lists that belong to them.
pub fn ca(content: &Content) -> Result<(Named<'_>, Option<Named<'_>>), Lacking> {
    let set = content.apart.as_ref().unwrap_or(&content.own);
    let Some((ca, crl)) = CAS.iter().find(|(ca, _)| set.holds(ca)) else {
        return Err(match &content.apart {
            Some(apart) => Lacking::Ca(apart.directory().to_owned()),
            // It is not there or empty, and so is what comes before it.
            None => file(set, USUAL_CA).err().unwrap_or_else(|| Lacking::File(set.path(USUAL_CA))),
        });
    };
    let crl = crl.and_then(|crl| Some(Named { path: set.path(crl), bytes: set.get(crl)? }));
    Ok((file(set, ca)?, crl))
}

/// Whether anything of a CA is there.
pub fn has_ca(content: &Content) -> bool {
    let has = |name: &str| content.own.get(name).is_some();
    content.apart.is_some() || CAS.iter().any(|(ca, crl)| has(ca) || crl.is_some_and(has))
}

/// Revocation lists that are there and belong to nothing that is used.
pub fn stray_crls(content: &Content, used: Option<&Path>) -> Vec<PathBuf> {
    let sets = std::iter::once(&content.own).chain(&content.apart);
    let all = sets.flat_map(|set| {
        let lists = CAS.iter().filter_map(|(_, crl)| *crl);
        lists.filter(|crl| set.get(crl).is_some()).map(|crl| set.path(crl))
    });
    all.filter(|path| Some(path.as_path()) != used).collect()
}

fn file<'content>(set: &'content Set, name: &str) -> Result<Named<'content>, Lacking> {
    let path = set.path(name);
    match set.get(name) {
        None => Err(Lacking::File(path)),
        Some([]) => Err(Lacking::Content(path)),
        Some(bytes) => Ok(Named { path, bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(directory: &str, files: &[(&'static str, &str)]) -> Set {
        let files = files.iter().map(|(name, text)| (*name, text.as_bytes().to_vec()));
        Set::new(directory.into(), files.collect())
    }

    fn own(files: &[(&'static str, &str)]) -> Content {
        Content { own: set("mysql", files), apart: None }
    }

    fn paths<'content>(files: impl IntoIterator<Item = Named<'content>>) -> Vec<String> {
        files.into_iter().map(|file| file.path.display().to_string()).collect()
    }

    #[test]
    fn the_first_whole_pair_is_taken() {
        let check = |files: &[(&'static str, &str)], expected: Result<[&str; 2], Lacking>| {
            let content = own(files);
            let found = key_pair(&content).map(paths);
            assert_eq!(found, expected.map(|names| names.map(|name| format!("mysql/{name}")).to_vec()));
        };
        let (generic, tls) = ([("cert", "c"), ("key", "k")], [("tls.crt", "c"), ("tls.key", "k")]);
        check(&tls, Ok(["tls.crt", "tls.key"]));
        check(&[generic, tls].concat(), Ok(["cert", "key"]));
        check(&[&generic[..1], &tls].concat(), Ok(["tls.crt", "tls.key"]));
        check(&[("cert", "c"), ("key", ""), tls[0], tls[1]], Ok(["tls.crt", "tls.key"]));
        check(&[], Err(Lacking::File("mysql/tls.crt".into())));
        check(&tls[..1], Err(Lacking::File("mysql/tls.key".into())));
        check(&generic[..1], Err(Lacking::File("mysql/key".into())));
        check(&[("tls.crt", ""), ("tls.key", "k")], Err(Lacking::Content("mysql/tls.crt".into())));
        let istio = [("cert-chain.pem", "c"), ("key.pem", "k")];
        check(&istio, Ok(["cert-chain.pem", "key.pem"]));
        check(&[istio, tls].concat(), Ok(["tls.crt", "tls.key"]));
        check(&istio[..1], Err(Lacking::File("mysql/key.pem".into())));
        let gke = ["certificates.pem", "private_key.pem"];
        check(&gke.map(|name| (name, "x")), Ok(gke));
    }

    #[test]
    fn the_ca_comes_from_the_directory_beside_and_then_from_nowhere_else() {
        let check = |content: &Content, expected: Result<(&str, Option<&str>), Lacking>| {
            let text = |file: Named<'_>| file.path.display().to_string();
            let found = ca(content).map(|(ca, crl)| (text(ca), crl.map(text)));
            assert_eq!(found, expected.map(|(ca, crl)| (ca.to_owned(), crl.map(str::to_owned))));
        };
        let both = own(&[("ca.crt", "a"), ("ca.crl", "l"), ("cacert", "b")]);
        check(&both, Ok(("mysql/cacert", None)));
        assert_eq!(stray_crls(&both, None), [PathBuf::from("mysql/ca.crl")]);
        check(
            &own(&[("ca.crt", "a"), ("ca.crl", "l"), ("crl", "m")]),
            Ok(("mysql/ca.crt", Some("mysql/ca.crl"))),
        );
        check(&own(&[("ca.crt", "a"), ("cacert", "")]), Ok(("mysql/ca.crt", None)));
        check(&own(&[("root-cert.pem", "a"), ("ca.crl", "l")]), Ok(("mysql/root-cert.pem", None)));
        check(&own(&[("ca_certificates.pem", "a")]), Ok(("mysql/ca_certificates.pem", None)));
        check(&own(&[("root-cert.pem", "a"), ("ca.crt", "b")]), Ok(("mysql/ca.crt", None)));
        check(&own(&[]), Err(Lacking::File("mysql/ca.crt".into())));
        check(&own(&[("ca.crt", "")]), Err(Lacking::Content("mysql/ca.crt".into())));
        let apart = |files| Content { apart: Some(set("mysql-cacert", files)), ..own(&[("ca.crt", "a")]) };
        check(
            &apart(&[("cacert", "b"), ("crl", "l")]),
            Ok(("mysql-cacert/cacert", Some("mysql-cacert/crl"))),
        );
        check(&apart(&[("ca.crt", "b"), ("crl", "l")]), Ok(("mysql-cacert/ca.crt", None)));
        check(&apart(&[("tls.crt", "c")]), Err(Lacking::Ca("mysql-cacert".into())));
    }

    #[test]
    fn a_name_that_is_no_plain_name_does_not_become_a_path() {
        let root = Path::new("/root");
        for name in ["mysql", "mysql-cacert", "a.b-c.d", "0"] {
            assert_eq!(directory(root, name), Ok(root.join(name)));
        }
        let long = "a".repeat(254);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "../a",
            "a..b",
            "-a",
            "a-",
            "A",
            "a b",
            "kubernetes://a",
            "a\0",
            "é",
            &long,
        ] {
            assert!(directory(root, name).is_err(), "{name:?}");
        }
        assert_eq!(apart(Path::new("/root/mysql")), Some("/root/mysql-cacert".into()));
        assert_eq!(apart(Path::new("mysql")), Some("mysql-cacert".into()));
        assert_eq!(apart(Path::new("/root/mysql-cacert")), None);
        assert_eq!(apart(Path::new("..")), None);
    }
}
