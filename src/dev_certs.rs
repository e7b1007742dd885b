//! `twinlock dev-certs`: a root, a server certificate for the ingress and a client certificate for the egress.
//!
//! For development and rehearsal only: the root's key lies unencrypted beside the certificates. A root that
//! is already there is kept and only the leaves are issued again, which is how one rehearses a rotation.
//! Everything is made and checked before the first file is written.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RsaKeySize, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, UnixTime};
use time::OffsetDateTime;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use crate::credentials::read::lower;

/// How long before now a certificate becomes valid, for peers whose clocks are behind.
const BACKDATING: Duration = Duration::from_mins(5);
/// The least validity of a root, in days.
const ROOT_DAYS_MIN: u32 = 3650;
/// The longest common name (RFC 5280 appendix A.1, `ub-common-name`); a longer one is cut, the names count.
const COMMON_NAME_CHARS_MAX: usize = 64;

/// What to mint.
#[derive(Debug, Clone)]
pub struct Request {
    /// The directory to write to; made if it is missing.
    pub out: PathBuf,
    /// DNS names or IP addresses of the ingress certificate, at least one; the first label may be `*`.
    pub hosts: Vec<String>,
    /// DNS names or URIs (`spiffe://…`) of the egress certificate; none leaves it without a name.
    pub clients: Vec<String>,
    /// The kind of every key that is generated.
    pub key: KeyKind,
    /// Validity of the leaves from now, in days.
    pub days: u32,
}

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on the curve P-256.
    EcdsaP256,
    /// RSA of 2048 bits.
    Rsa2048,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// The root's certificate, `ca.crt`; its key, `ca.key`, is beside it.
    pub root: PathBuf,
    /// The ingress's directory: `tls.crt` (the leaf alone), `tls.key`, `ca.crt`.
    pub ingress: PathBuf,
    /// The egress's directory, with the same three files.
    pub egress: PathBuf,
    /// Whether the root was already there.
    pub root_reused: bool,
}

/// Makes a root, unless `request.out` holds one, and issues both leaves as of `now`.
pub fn mint(request: &Request, now: SystemTime) -> Result<Minted, DevCertsError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let host = request.hosts.first().ok_or_else(|| DevCertsError::Argument("a host", "none".into()))?;
    let mut server = certificate(host, now, request.days)?;
    server.subject_alt_names = names(&request.hosts, host_name, "a DNS name or an IP address as host")?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let client = request.clients.first().map_or("twinlock egress", String::as_str);
    let mut client = certificate(client, now, request.days)?;
    client.subject_alt_names = names(&request.clients, client_name, "a DNS name or a URI as client")?;
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];

    let found = Root::read(&request.out)?;
    let root_reused = found.is_some();
    let root = found.map_or_else(|| Root::generate(request, now), Ok)?;
    let ingress = root.issue(&server, request.key, KeyUsage::server_auth(), now)?;
    let egress = root.issue(&client, request.key, KeyUsage::client_auth(), now)?;

    if !root_reused {
        write_whole(&request.out, "ca.key", 0o600, &root.issuer.key().serialize_pem())?;
        write_whole(&request.out, "ca.crt", 0o644, &root.pem)?;
    }
    let sides = (request.out.join("ingress"), request.out.join("egress"));
    for (directory, leaf) in [(&sides.0, ingress), (&sides.1, egress)] {
        write_whole(directory, "ca.crt", 0o644, &root.pem)?;
        write_whole(directory, "tls.key", 0o600, &leaf.signing_key.serialize_pem())?;
        write_whole(directory, "tls.crt", 0o644, &leaf.cert.pem())?;
    }
    Ok(Minted { root: root.path, ingress: sides.0, egress: sides.1, root_reused })
}

type Result<T, E = DevCertsError> = std::result::Result<T, E>;
type Leaf = CertifiedKey<KeyPair>;

/// The certificate authority of a set, and the file its certificate is in or will be.
struct Root {
    path: PathBuf,
    pem: String,
    der: CertificateDer<'static>,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Root {
    fn generate(request: &Request, now: Duration) -> Result<Self> {
        let key = generate_key(request.key)?;
        let mut params = certificate("twinlock development root", now, request.days.max(ROOT_DAYS_MIN))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).map_err(DevCertsError::Crypto)?;
        let (path, not_after) = (request.out.join("ca.crt"), params.not_after);
        Ok(Self { path, pem: root.pem(), der: root.into(), not_after, issuer: Issuer::new(params, key) })
    }

    /// The root that is already in `directory`; `None` if neither its certificate nor its key is. If `openssl`
    /// made it, leaves repeat its common name and key identifier, and `issue` tells whether that is enough.
    fn read(directory: &Path) -> Result<Option<Self>> {
        let (path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        if let (Ok(false), Ok(false)) = (path.try_exists(), key_path.try_exists()) {
            return Ok(None);
        }
        let read =
            |path: &Path| fs::read_to_string(path).map_err(|error| DevCertsError::File(path.into(), error));
        let (pem, key) = (read(&path)?, read(&key_path)?);
        let unfit = |path: &Path, found: &str| DevCertsError::Root(path.into(), found.into());
        let key = KeyPair::from_pem(&key).map_err(|_| unfit(&key_path, "no private key"))?;
        let der = CertificateDer::from_pem_slice(pem.as_ref()).map_err(|_| unfit(&path, "no certificate"))?;
        let root = X509Certificate::from_der(&der).ok().map(|(_, root)| root).filter(|root| root.is_ca());
        let root = root.ok_or_else(|| unfit(&path, "no certificate authority"))?;
        let not_after = root.validity().not_after.to_datetime();
        let common_name = root.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name.unwrap_or_default());
        for extension in root.extensions() {
            if let ParsedExtension::SubjectKeyIdentifier(identifier) = extension.parsed_extension() {
                params.key_identifier_method = KeyIdMethod::PreSpecified(identifier.0.to_vec());
            }
        }
        Ok(Some(Self { path, pem, der, not_after, issuer: Issuer::new(params, key) }))
    }

    /// Issues a leaf that whoever trusts this root accepts; a root that was found may be unable to.
    fn issue(&self, leaf: &CertificateParams, key: KeyKind, usage: KeyUsage, now: Duration) -> Result<Leaf> {
        let unfit = |found: String| DevCertsError::Root(self.path.clone(), found);
        if self.not_after < leaf.not_after {
            return Err(unfit(format!("one that expires before its leaves, on {}", self.not_after)));
        }
        let signing_key = generate_key(key)?;
        let cert = leaf.signed_by(&signing_key, &self.issuer).map_err(DevCertsError::Crypto)?;
        let verify = || {
            let (anchors, now) = ([anchor_from_trusted_cert(&self.der)?], UnixTime::since_unix_epoch(now));
            let leaf = EndEntityCert::try_from(cert.der())?;
            leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &[], now, usage, None, None).map(|_| ())
        };
        verify().map_err(|error: webpki::Error| unfit(format!("one that its leaves fail on, {error}")))?;
        Ok(Leaf { cert, signing_key })
    }
}

/// What all have in common, and a leaf's usage. The serial number is a digest of the key, which is always new.
fn certificate(name: &str, now: Duration, days: u32) -> Result<CertificateParams> {
    let date = |at: Duration| OffsetDateTime::from_unix_timestamp(at.as_secs().cast_signed());
    let beyond = |_| DevCertsError::Argument("days until a date before the year 10000", days.to_string());
    let common_name: String = name.chars().take(COMMON_NAME_CHARS_MAX).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(now.saturating_sub(BACKDATING)).map_err(beyond)?;
    params.not_after =
        date(now.saturating_add(Duration::from_hours(24 * u64::from(days)))).map_err(beyond)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn names(names: &[String], san: fn(&str) -> Option<SanType>, expected: &'static str) -> Result<Vec<SanType>> {
    let refused = |name: &String| DevCertsError::Argument(expected, format!("`{name}`"));
    names.iter().map(|name| san(name).ok_or_else(|| refused(name))).collect()
}

fn host_name(name: &str) -> Option<SanType> {
    name.parse::<IpAddr>().ok().map(SanType::IpAddress).or_else(|| dns_name(name))
}

/// A DNS name as certificates have it (RFC 6125 section 6.4): `*` as the first label, no dot at the end.
fn dns_name(name: &str) -> Option<SanType> {
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).ok().filter(|_| !name.ends_with('.'))?;
    name.try_into().ok().map(SanType::DnsName)
}

/// A DNS name, or a URI with an authority, as far as its characters tell (RFC 3986).
fn client_name(name: &str) -> Option<SanType> {
    let Some((scheme, rest)) = name.split_once("://") else { return dns_name(name) };
    let whole = !scheme.is_empty() && !rest.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
    name.try_into().ok().filter(|_| whole).map(SanType::URI)
}

fn generate_key(kind: KeyKind) -> Result<KeyPair> {
    match kind {
        KeyKind::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
    .map_err(DevCertsError::Crypto)
}

/// Writes a file, born with `mode`, so that a reader sees all of the old one or all of the new one.
fn write_whole(directory: &Path, name: &str, mode: u32, text: &str) -> Result<()> {
    let (path, temporary) = (directory.join(name), directory.join(format!(".{name}.new")));
    let write = || {
        fs::create_dir_all(directory)?;
        let _ = fs::remove_file(&temporary); // what an interrupted run left may have any mode
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|error| DevCertsError::File(path.clone(), error))
}

/// Why nothing, or not everything, was minted.
#[derive(Debug)]
pub enum DevCertsError {
    /// The request asks for what a certificate cannot say: what was expected, what was found.
    Argument(&'static str, String),
    /// The root that is there cannot issue the leaves: its certificate or key, what was found in it.
    Root(PathBuf, String),
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
    /// A key or a certificate cannot be made.
    Crypto(rcgen::Error),
}

impl std::error::Error for DevCertsError {}

impl fmt::Display for DevCertsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(expected, found) => write!(f, "expected {expected}, found {found}"),
            Self::Root(path, found) => write!(f, "{}: expected a root, found {found}", path.display()),
            Self::File(path, error) => write!(f, "{}: {}", path.display(), lower(error)),
            Self::Crypto(error) => write!(f, "no certificate was made: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls_pki_types::ServerName;
    use x509_parser::prelude::GeneralName;
    use x509_parser::public_key::PublicKey;

    use super::*;

    /// In January 2027.
    const NOW: Duration = Duration::from_hours(500_000);

    fn now() -> SystemTime {
        UNIX_EPOCH + NOW
    }

    fn request(out: &Path) -> Request {
        Request {
            out: out.into(),
            hosts: vec!["mysql.fqdn.example".into(), "localhost".into()],
            clients: vec!["client.example".into()],
            key: KeyKind::EcdsaP256,
            days: 90,
        }
    }

    /// The only certificate of a file.
    fn read(path: &Path) -> CertificateDer<'static> {
        let found = CertificateDer::pem_file_iter(path).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let [certificate] = found.try_into().expect("one certificate");
        certificate
    }

    fn alternative_names(der: &[u8]) -> Vec<String> {
        let (_, leaf) = X509Certificate::from_der(der).unwrap();
        let Some(names) = leaf.subject_alternative_name().unwrap() else { return Vec::new() };
        let text = |name: &GeneralName<'_>| {
            let GeneralName::IPAddress(address) = name else { return name.to_string() };
            format!("IP {address:?}")
        };
        names.value.general_names.iter().map(text).collect()
    }

    fn verify(minted: &Minted, leaf: &Path, usage: KeyUsage, at: SystemTime) -> Result<(), webpki::Error> {
        let (root, leaf) = (read(&minted.root), read(&leaf.join("tls.crt")));
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap());
        let anchors = [anchor_from_trusted_cert(&root)?];
        let leaf = EndEntityCert::try_from(&leaf)?;
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &[], at, usage, None, None).map(|_| ())
    }

    fn error(request: &Request) -> String {
        mint(request, now()).unwrap_err().to_string()
    }

    #[test]
    fn layout_and_modes() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path().join("made/too");
        let minted = mint(&request(&out), now()).unwrap();
        let (ingress, egress) = (out.join("ingress"), out.join("egress"));
        let expected = Minted { root: out.join("ca.crt"), ingress, egress, root_reused: false };
        assert_eq!(minted, expected);

        let mut files = Vec::new();
        for directory in [&out, &minted.ingress, &minted.egress] {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    let path = entry.path().strip_prefix(&out).unwrap().to_str().unwrap().to_owned();
                    files.push((path, entry.metadata().unwrap().permissions().mode() & 0o777));
                }
            }
        }
        files.sort();
        let files: Vec<_> = files.iter().map(|(path, mode)| (path.as_str(), *mode)).collect();
        let keys = ["ca.key", "egress/tls.key", "ingress/tls.key"];
        let all = [
            "ca.crt",
            "ca.key",
            "egress/ca.crt",
            "egress/tls.crt",
            "egress/tls.key",
            "ingress/ca.crt",
            "ingress/tls.crt",
            "ingress/tls.key",
        ];
        assert_eq!(files.iter().map(|(path, _)| *path).collect::<Vec<_>>(), all);
        for (path, mode) in files {
            assert!(mode == 0o600 || !keys.contains(&path), "{path} {mode:o}");
        }
        for side in [&minted.ingress, &minted.egress] {
            assert_eq!(read(&side.join("ca.crt")), read(&minted.root));
            let key = KeyPair::from_pem(&fs::read_to_string(side.join("tls.key")).unwrap()).unwrap();
            let leaf = read(&side.join("tls.crt"));
            let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
            assert_eq!(
                leaf.public_key().subject_public_key.data.as_ref(),
                rcgen::PublicKeyData::der_bytes(&key)
            );
        }
    }

    #[test]
    fn each_leaf_verifies_for_its_own_usage_and_time() {
        let out = tempfile::tempdir().unwrap();
        let minted = mint(&request(out.path()), now()).unwrap();
        let day = Duration::from_hours(24);
        for (leaf, own, other) in [
            (
                &minted.ingress,
                KeyUsage::server_auth as fn() -> KeyUsage,
                KeyUsage::client_auth as fn() -> KeyUsage,
            ),
            (&minted.egress, KeyUsage::client_auth, KeyUsage::server_auth),
        ] {
            let check = |usage: fn() -> KeyUsage, at| verify(&minted, leaf, usage(), at);
            assert_eq!(check(own, now()), Ok(()));
            assert_eq!(check(own, now() - BACKDATING), Ok(()));
            assert_eq!(check(own, now() + 90 * day), Ok(()));
            let refused = [
                check(other, now()).unwrap_err(),
                check(own, now() - BACKDATING - Duration::from_secs(1)).unwrap_err(),
                check(own, now() + 90 * day + Duration::from_secs(1)).unwrap_err(),
            ];
            assert!(matches!(
                refused,
                [
                    webpki::Error::RequiredEkuNotFoundContext(_),
                    webpki::Error::CertNotValidYet { .. },
                    webpki::Error::CertExpired { .. }
                ]
            ));
        }
    }

    #[test]
    fn extensions_are_those_of_a_root_and_its_leaves() {
        let out = tempfile::tempdir().unwrap();
        let minted = mint(&request(out.path()), now()).unwrap();
        let root = read(&minted.root);
        let (_, root) = X509Certificate::from_der(&root).unwrap();
        assert_eq!(root.subject().to_string(), "CN=twinlock development root");
        let constraints = root.basic_constraints().unwrap().unwrap().value;
        assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
        let usage = root.key_usage().unwrap().unwrap().value;
        assert_eq!(usage.to_string(), "Key Cert Sign, CRL Sign");
        let lifetime = root.validity().not_after.timestamp() - root.validity().not_before.timestamp();
        assert_eq!(lifetime, 3650 * 24 * 60 * 60 + 300);

        let identifier = |certificate: &X509Certificate<'_>, of_authority: bool| {
            certificate.extensions().iter().find_map(|extension| {
                let parsed = extension.parsed_extension();
                if let (ParsedExtension::SubjectKeyIdentifier(own), false) = (parsed, of_authority) {
                    Some(own.0.to_vec())
                } else if let (ParsedExtension::AuthorityKeyIdentifier(authority), true) =
                    (parsed, of_authority)
                {
                    authority.key_identifier.as_ref().map(|identifier| identifier.0.to_vec())
                } else {
                    None
                }
            })
        };
        for (side, subject) in [(&minted.ingress, "mysql.fqdn.example"), (&minted.egress, "client.example")] {
            let leaf = read(&side.join("tls.crt"));
            let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
            assert_eq!(leaf.subject().to_string(), format!("CN={subject}"));
            assert_eq!(leaf.key_usage().unwrap().unwrap().value.to_string(), "Digital Signature");
            assert!(!leaf.is_ca());
            assert!(identifier(&root, false).is_some());
            assert_eq!(identifier(&leaf, true), identifier(&root, false));
        }
    }

    #[test]
    fn minting_again_reuses_the_root_and_changes_the_leaves() {
        let out = tempfile::tempdir().unwrap();
        let first = mint(&request(out.path()), now()).unwrap();
        let contents = |minted: &Minted| {
            let files = [out.path().join("ca.crt"), out.path().join("ca.key")].into_iter();
            let leaves =
                [&minted.ingress, &minted.egress].map(|side| [side.join("tls.crt"), side.join("tls.key")]);
            files.chain(leaves.into_iter().flatten()).map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
        };
        let before = contents(&first);
        // Left by a run that was interrupted, and readable by all.
        fs::write(first.ingress.join(".tls.key.new"), "half a fi").unwrap();
        let second = mint(&request(out.path()), now() + Duration::from_hours(24)).unwrap();
        let after = contents(&second);

        assert_eq!(second, Minted { root_reused: true, ..first });
        assert_eq!(before[..2], after[..2]);
        for (before, after) in before[2..].iter().zip(&after[2..]) {
            assert_ne!(before, after);
        }
        assert_eq!(
            verify(&second, &second.ingress, KeyUsage::server_auth(), now() + Duration::from_hours(24)),
            Ok(())
        );
        let mode = fs::metadata(second.ingress.join("tls.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!second.ingress.join(".tls.key.new").exists());
    }

    #[test]
    fn names_become_alternative_names_of_their_kind() {
        let out = tempfile::tempdir().unwrap();
        let long = "spiffe://cluster.local/ns/a-rather-long-namespace/sa/a-rather-long-service-account";
        let hosts = ["*.fqdn.example", "10.1.2.3", "::1"].map(String::from).to_vec();
        let clients = [long, "client.example"].map(String::from).to_vec();
        let minted = mint(&Request { hosts, clients, ..request(out.path()) }, now()).unwrap();

        let ingress = read(&minted.ingress.join("tls.crt"));
        let expected = [
            "DNSName(*.fqdn.example)",
            "IP [10, 1, 2, 3]",
            "IP [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]",
        ];
        assert_eq!(alternative_names(&ingress), expected);
        let leaf = EndEntityCert::try_from(&ingress).unwrap();
        for (host, good) in [("a.fqdn.example", true), ("10.1.2.3", true), ("::1", true), ("10.1.2.4", false)]
        {
            let name = ServerName::try_from(host).unwrap();
            assert_eq!(leaf.verify_is_valid_for_subject_name(&name).is_ok(), good, "{host}");
        }

        let egress = read(&minted.egress.join("tls.crt"));
        assert_eq!(alternative_names(&egress), [format!("URI({long})"), "DNSName(client.example)".into()]);
        let (_, egress) = X509Certificate::from_der(&egress).unwrap();
        let name = egress.subject().iter_common_name().next().unwrap().as_str().unwrap();
        assert_eq!(name, &long[..64]);
    }

    #[test]
    fn without_a_client_the_egress_has_no_name() {
        let out = tempfile::tempdir().unwrap();
        let minted = mint(&Request { clients: Vec::new(), ..request(out.path()) }, now()).unwrap();
        let leaf = read(&minted.egress.join("tls.crt"));
        assert_eq!(alternative_names(&leaf), Vec::<String>::new());
        assert_eq!(X509Certificate::from_der(&leaf).unwrap().1.subject().to_string(), "CN=twinlock egress");
        assert_eq!(verify(&minted, &minted.egress, KeyUsage::client_auth(), now()), Ok(()));
    }

    #[test]
    fn rsa_keys_have_2048_bits() {
        let out = tempfile::tempdir().unwrap();
        for reused in [false, true] {
            let minted = mint(&Request { key: KeyKind::Rsa2048, ..request(out.path()) }, now()).unwrap();
            assert_eq!(minted.root_reused, reused);
            for path in [minted.root.clone(), minted.ingress.join("tls.crt"), minted.egress.join("tls.crt")] {
                let der = read(&path);
                let (_, certificate) = X509Certificate::from_der(&der).unwrap();
                let PublicKey::RSA(key) = certificate.public_key().parsed().unwrap() else {
                    panic!("{path:?}")
                };
                assert_eq!(key.key_size(), 2048);
            }
            assert_eq!(verify(&minted, &minted.ingress, KeyUsage::server_auth(), now()), Ok(()));
        }
    }

    #[test]
    fn bad_names_are_refused_with_their_text_and_nothing_is_written() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path().join("out");
        for bad in [
            "",
            "bad host",
            "a..b",
            "-a",
            "a.example.",
            "10.0.0.300",
            "[::1]",
            "spiffe://a/b",
            "*",
            "ü.example",
        ] {
            let hosts = vec!["good.example".into(), bad.into()];
            let expected = format!("expected a DNS name or an IP address as host, found `{bad}`");
            assert_eq!(error(&Request { hosts, ..request(&out) }), expected);
        }
        for bad in ["", "10.0.0.1", "://a", "spiffe://", "spiffe://a/b c", "spiffe:a", "spiffe://ü/a"] {
            let clients = vec![bad.into()];
            let expected = format!("expected a DNS name or a URI as client, found `{bad}`");
            assert_eq!(error(&Request { clients, ..request(&out) }), expected);
        }
        assert_eq!(error(&Request { hosts: Vec::new(), ..request(&out) }), "expected a host, found none");
        let days = error(&Request { days: u32::MAX, ..request(&out) });
        assert_eq!(days, "expected days until a date before the year 10000, found 4294967295");
        assert!(!out.exists());
    }

    #[test]
    fn a_root_that_cannot_issue_is_refused_and_left_alone() {
        let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let minted = mint(&request(mine.path()), now()).unwrap();
        mint(&request(other.path()), now()).unwrap();
        let leaf = fs::read(minted.ingress.join("tls.crt")).unwrap();
        let check = |file: &str, content: Option<&[u8]>, days: u32, expected: &str| {
            let path = mine.path().join(file);
            let good = fs::read(&path).unwrap();
            content.map_or_else(
                || fs::remove_file(&path).unwrap(),
                |content| fs::write(&path, content).unwrap(),
            );
            assert_eq!(
                error(&Request { days, ..request(mine.path()) }),
                format!("{}{expected}", mine.path().display())
            );
            fs::write(&path, good).unwrap();
            assert_eq!(fs::read(minted.ingress.join("tls.crt")).unwrap(), leaf);
        };
        let key = fs::read(other.path().join("ca.key")).unwrap();
        let foreign =
            "/ca.crt: expected a root, found one that its leaves fail on, InvalidSignatureForPublicKey";
        check("ca.key", Some(&key), 90, foreign);
        check("ca.key", Some(b"nonsense"), 90, "/ca.key: expected a root, found no private key");
        check("ca.key", None, 90, "/ca.key: no such file or directory");
        check("ca.crt", None, 90, "/ca.crt: no such file or directory");
        check("ca.crt", Some(b"nonsense"), 90, "/ca.crt: expected a root, found no certificate");
        check("ca.crt", Some(&leaf), 90, "/ca.crt: expected a root, found no certificate authority");
        let early = "/ca.crt: expected a root, found one that expires before its leaves, on 2037-01-12 8:00:00.0 +00:00:00";
        check("ca.key", Some(&fs::read(mine.path().join("ca.key")).unwrap()), 3651, early);
    }

    #[test]
    fn a_root_made_elsewhere_issues_under_its_own_name_and_identifier() {
        let out = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = certificate("my own root", NOW, 100).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1, 2, 3]);
        fs::write(out.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(out.path().join("ca.key"), key.serialize_pem()).unwrap();

        let minted = mint(&request(out.path()), now()).unwrap();
        assert!(minted.root_reused);
        assert_eq!(verify(&minted, &minted.egress, KeyUsage::client_auth(), now()), Ok(()));
        let leaf = read(&minted.egress.join("tls.crt"));
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(leaf.issuer().to_string(), "CN=my own root");
        let has_identifier = leaf.extensions().iter().any(|extension| {
            let ParsedExtension::AuthorityKeyIdentifier(found) = extension.parsed_extension() else {
                return false;
            };
            found.key_identifier.as_ref().is_some_and(|identifier| identifier.0 == [1, 2, 3])
        });
        assert!(has_identifier);
    }
}
