//! A certificate authority of the test's own: whatever certificate a scenario needs, good or bad.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use twinlock::clock;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Certs;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    /// What a leaf must bring along: nothing, if this is the root.
    chain_pem: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new() -> Self {
        Self::called("another root")
    }

    /// The same, by this name.
    pub fn called(name: &str) -> Self {
        Self::root(Self::params(name))
    }

    /// The same, for so many seconds.
    pub fn called_for_seconds(name: &str, seconds: i64) -> Self {
        Self::root(Self::params_for_seconds(name, seconds))
    }

    fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root");
        let (certificate, pem) = (root.der().clone(), root.pem());
        Self { issuer: Issuer::new(params, key), certificate, pem, chain_pem: String::new() }
    }

    /// One that this one vouches for.
    pub fn intermediate(&self) -> Self {
        self.vouch(Self::params("an intermediate"))
    }

    /// The same, for so many seconds.
    pub fn intermediate_for_seconds(&self, seconds: i64) -> Self {
        self.vouch(Self::params_for_seconds("a brief intermediate", seconds))
    }

    fn vouch(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("an intermediate");
        let (certificate, pem) = (signed.der().clone(), signed.pem());
        Self { issuer: Issuer::new(params, key), certificate, chain_pem: pem.clone(), pem }
    }

    /// The same, whose leaves bring nothing along.
    #[must_use]
    pub fn without_chain(self) -> Self {
        Self { chain_pem: String::new(), ..self }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    fn params_for_seconds(name: &str, seconds: i64) -> CertificateParams {
        let now = OffsetDateTime::from(clock::wall());
        let mut params = Self::params(name);
        (params.not_before, params.not_after) =
            (now - Duration::minutes(1), now + Duration::seconds(seconds));
        params
    }

    /// The root of these credentials.
    pub fn of(certs: &Certs) -> Self {
        let read = |name: &str| std::fs::read_to_string(certs.dir.path().join(name)).expect("a file");
        let (pem, key) = (read("ca.crt"), KeyPair::from_pem(&read("ca.key")).expect("a key"));
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let (_, root) = X509Certificate::from_der(&certificate).expect("a certificate");
        let name = root.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name.expect("a common name"));
        Self { issuer: Issuer::new(params, key), certificate, pem, chain_pem: String::new() }
    }

    /// Another one that goes by the name of the root of these credentials.
    pub fn named_like(certs: &Certs) -> Self {
        let (of, key) = (Self::of(certs), KeyPair::generate().expect("a key"));
        let mut params = Self::params("");
        let (_, root) = X509Certificate::from_der(&of.certificate).expect("a certificate");
        let name = root.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.expect("a common name"));
        let root = params.self_signed(&key).expect("a root");
        let (certificate, pem) = (root.der().clone(), root.pem());
        Self { issuer: Issuer::new(params, key), certificate, pem, chain_pem: String::new() }
    }

    /// What it has revoked, to be replaced in so many days.
    pub fn crl(&self, revoked: &[&Identity], days: i64) -> String {
        let revoked: Vec<_> = revoked.iter().map(|identity| identity.leaf()).collect();
        self.list(&revoked, Duration::days(days))
    }

    /// The same, to be replaced in so many seconds.
    pub fn crl_for_seconds(&self, revoked: &[&Identity], seconds: i64) -> String {
        let revoked: Vec<_> = revoked.iter().map(|identity| identity.leaf()).collect();
        self.list(&revoked, Duration::seconds(seconds))
    }

    /// That it has revoked these, to be replaced in a day.
    pub fn crl_of(&self, revoked: &[&CertificateDer<'_>]) -> String {
        self.list(revoked, Duration::days(1))
    }

    fn list(&self, revoked: &[&CertificateDer<'_>], until: Duration) -> String {
        let now = OffsetDateTime::from(clock::wall());
        let revoked = revoked.iter().map(|der| {
            let (_, leaf) = X509Certificate::from_der(der).expect("a certificate");
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(leaf.raw_serial()),
                revocation_time: now - Duration::minutes(1),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(2),
            next_update: now + until,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    pub fn issue(&self, leaf: &Leaf) -> Identity {
        self.issue_for(leaf, &KeyPair::generate().expect("a key"))
    }

    /// One with an RSA key.
    pub fn issue_rsa(&self, leaf: &Leaf) -> Identity {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        self.issue_for(leaf, &key.expect("a key"))
    }

    /// One for the key of another.
    pub fn issue_again(&self, leaf: &Leaf, other: &Identity) -> Identity {
        self.issue_for(leaf, &KeyPair::from_pem(&other.key_pem).expect("a key"))
    }

    fn issue_for(&self, leaf: &Leaf, key: &KeyPair) -> Identity {
        let certificate = leaf.0.signed_by(key, &self.issuer).expect("a certificate");
        Identity::parse(certificate.pem() + &self.chain_pem, key.serialize_pem())
    }

    /// Makes a directory a credential of this root.
    pub fn install(&self, identity: &Identity, directory: &Path) {
        std::fs::create_dir_all(directory).expect("a directory");
        write(directory, "ca.crt", &self.pem);
        identity.install(directory);
    }
}

/// What a certificate is to say.
pub struct Leaf(CertificateParams);

impl Leaf {
    /// For a client with these names: DNS, URI or address.
    pub fn client(names: &[&str]) -> Self {
        Self::new(names, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// For a server with these names.
    pub fn server(names: &[&str]) -> Self {
        Self::new(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client and server with these names.
    pub fn workload_of(names: &[&str]) -> Self {
        let mut leaf = Self::server(names);
        leaf.0.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        leaf
    }

    /// For a workload of a mesh, which is client and server under one name.
    pub fn workload(spiffe: &str) -> Self {
        Self::workload_of(&[spiffe])
    }

    fn new(names: &[&str], usage: ExtendedKeyUsagePurpose) -> Self {
        let mut params = CertificateParams::default();
        let name = |name: &&str| {
            let text = (*name).try_into().expect("ASCII");
            match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if name.contains("://") => SanType::URI(text),
                Err(_) => SanType::DnsName(text),
            }
        };
        params.subject_alt_names = names.iter().map(name).collect();
        params.extended_key_usages = vec![usage];
        params.is_ca = IsCa::ExplicitNoCa;
        Self(params).valid(-1, 1)
    }

    /// With this common name, which must count for nothing.
    pub fn called(mut self, name: &str) -> Self {
        self.0.distinguished_name.push(DnType::CommonName, name);
        self
    }

    /// Valid between these days from now.
    pub fn valid(mut self, from: i64, until: i64) -> Self {
        let now = OffsetDateTime::from(clock::wall());
        (self.0.not_before, self.0.not_after) = (now + Duration::days(from), now + Duration::days(until));
        self
    }

    /// Valid between these seconds from now.
    pub fn valid_in_seconds(mut self, from: i64, until: i64) -> Self {
        let now = OffsetDateTime::from(clock::wall());
        (self.0.not_before, self.0.not_after) =
            (now + Duration::seconds(from), now + Duration::seconds(until));
        self
    }

    pub fn expired(self) -> Self {
        self.valid(-3, -2)
    }

    /// Signed by nobody but itself.
    pub fn self_signed(&self) -> Identity {
        let key = KeyPair::generate().expect("a key");
        Identity::parse(self.0.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// A certificate, what it brings along of its chain, and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl Identity {
    /// What a credential directory holds.
    pub fn of(directory: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a file");
        Self::parse(read("tls.crt"), read("tls.key"))
    }

    fn parse(certificate_pem: String, key_pem: String) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes());
        Self {
            chain: chain.collect::<Result<_, _>>().expect("certificates"),
            key: PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).expect("a key"),
            certificate_pem,
            key_pem,
        }
    }

    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// Writes over the files of a directory, which stay the files that they are.
    pub fn overwrite(&self, directory: &Path) {
        std::fs::write(directory.join("tls.key"), &self.key_pem).expect("written");
        std::fs::write(directory.join("tls.crt"), &self.certificate_pem).expect("written");
    }

    /// Writes over the key, and leaves the certificate as it is.
    pub fn overwrite_key(&self, directory: &Path) {
        std::fs::write(directory.join("tls.key"), &self.key_pem).expect("written");
    }

    /// Writes the certificate and the key by other names.
    pub fn install_as(&self, directory: &Path, [certificate, key]: [&str; 2]) {
        std::fs::create_dir_all(directory).expect("a directory");
        write(directory, certificate, &self.certificate_pem);
        write(directory, key, &self.key_pem);
    }

    /// Puts the key and the certificate where they belong in a credential directory.
    pub fn install(&self, directory: &Path) {
        write(directory, "tls.key", &self.key_pem);
        write(directory, "tls.crt", &self.certificate_pem);
    }
}

/// Writes a file so that a reader sees all of the old one or all of the new one.
fn write(directory: &Path, name: &str, text: &str) {
    let temporary = directory.join(format!(".{name}.new"));
    std::fs::write(&temporary, text).expect("written");
    std::fs::rename(&temporary, directory.join(name)).expect("renamed");
}
