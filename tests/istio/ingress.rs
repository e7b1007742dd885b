//! Whom an ingress gateway lets in, by the TLS settings of its server: the T rows that are settled on the wire.

use std::path::PathBuf;

use rustls::{AlertDescription, ClientConfig};
use tempfile::TempDir;
use twinlock::credentials::certificate::{Facts, hex};

use crate::mesh::{DATABASE_HOST, anywhere, resolve};
use crate::routing::{gateway, server, tcp, to};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer::{self, ONLY_1_2, ONLY_1_3, TlsClient, alert};
use crate::support::socket::{Backend, echo};
use crate::support::{CLIENT, HOST, Program, path};

/// An ingress gateway with one server, a backend behind it, and a root of its own.
pub struct Ingress {
    folder: TempDir,
    pub root: Authority,
    pub backend: Backend,
    pub program: Program,
}

impl Ingress {
    /// With these TLS settings, and the credential `c`.
    pub fn with(tls: &str) -> Self {
        Self::after(tls, |root, credentials| {
            root.install(&root.issue(&Leaf::server(&[HOST])), &credentials.join("c"));
        })
    }

    /// The same, with credentials that are made first.
    pub fn after(tls: &str, prepare: impl FnOnce(&Authority, PathBuf)) -> Self {
        Self::under(Authority::new(), tls, prepare)
    }

    /// The same, under a root that there is already.
    pub fn under(root: Authority, tls: &str, prepare: impl FnOnce(&Authority, PathBuf)) -> Self {
        Self::of(root, &[(13306, tls)], prepare)
    }

    /// With several servers by their ports, each of which is moved to where the kernel chooses.
    pub fn of(root: Authority, servers: &[(u16, &str)], prepare: impl FnOnce(&Authority, PathBuf)) -> Self {
        let written: Vec<_> = servers.iter().map(|(port, tls)| server(*port, HOST, tls)).collect();
        let written: Vec<_> = written.iter().map(String::as_str).collect();
        let resources = gateway("g", &written) + "---\n" + &tcp("v", HOST, "g", "", &to(DATABASE_HOST, 3306));
        let backend = Backend::echo();
        let mut more = vec![resolve(DATABASE_HOST, 3306, backend.address)];
        more.extend(servers.iter().map(|(port, _)| anywhere(*port)));
        Self::by(root, backend, &resources, &more, prepare)
    }

    /// By these resources, and with these options.
    pub fn by(
        root: Authority,
        backend: Backend,
        resources: &str,
        more: &[String],
        prepare: impl FnOnce(&Authority, PathBuf),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let (config, credentials) = (folder.path().join("config"), folder.path().join("credentials"));
        std::fs::create_dir(&config).expect("a directory");
        std::fs::create_dir(&credentials).expect("a directory");
        std::fs::write(config.join("resources.yaml"), resources).expect("written");
        prepare(&root, credentials.clone());
        let mut arguments = vec!["run", "--role=ingress", "--config", path(&config)];
        arguments.extend(["--credentials", path(&credentials), "--credentials-poll=1h"]);
        arguments.extend(more.iter().map(String::as_str));
        let program = Program::start(&arguments);
        Self { folder, root, backend, program }
    }

    /// The folder of a credential.
    pub fn credential(&self, name: &str) -> PathBuf {
        self.folder.path().join("credentials").join(name)
    }

    pub fn config(&self, identity: Option<&Identity>) -> ClientConfig {
        peer::client_config(&self.root.certificate, identity, rustls::ALL_VERSIONS)
    }

    pub fn connect(&self, identity: Option<&Identity>) -> TlsClient {
        peer::connect(self.program.address, self.config(identity))
    }

    /// A client that is let in, and carried.
    pub fn admits(&self, identity: Option<&Identity>) {
        echo(&mut self.connect(identity), "let in");
    }

    /// A client that is told this, and the server is not dialled for it.
    pub fn refuses(&self, identity: Option<&Identity>, told: AlertDescription) {
        let dialled = self.backend.dialled();
        assert_eq!(alert(&mut self.connect(identity)), told);
        assert_eq!(self.backend.dialled(), dialled);
    }

    pub fn client(&self, names: &[&str]) -> Identity {
        self.root.issue(&Leaf::client(names))
    }
}

const MUTUAL: &str = "{mode: MUTUAL, credentialName: c}";

#[test]
fn t1_a_mutual_server_lets_in_those_whom_its_ca_vouches_for_as_clients() {
    let ingress = Ingress::with(MUTUAL);
    ingress.refuses(None, AlertDescription::CertificateRequired);
    let stranger = Authority::called("a stranger").issue(&Leaf::client(&[CLIENT]));
    ingress.refuses(Some(&stranger), AlertDescription::UnknownCA);
    ingress.admits(Some(&ingress.client(&[CLIENT])));
    let expired = ingress.root.issue(&Leaf::client(&[CLIENT]).expired());
    ingress.refuses(Some(&expired), AlertDescription::CertificateExpired);
    let server = ingress.root.issue(&Leaf::server(&[CLIENT]));
    ingress.refuses(Some(&server), AlertDescription::UnsupportedCertificate);
}

#[test]
fn t2_of_listed_names_a_client_must_carry_one_and_not_as_its_common_name() {
    let list = "{mode: MUTUAL, credentialName: c, subjectAltNames: [client.of.example]}";
    let ingress = Ingress::with(list);
    ingress.admits(Some(&ingress.client(&["client.of.example"])));
    ingress.refuses(Some(&ingress.client(&["other.of.example"])), AlertDescription::AccessDenied);
    ingress.admits(Some(&ingress.client(&["*.of.example"])));
    let by_common_name = ingress.root.issue(&Leaf::client(&["other.of.example"]).called("client.of.example"));
    ingress.refuses(Some(&by_common_name), AlertDescription::AccessDenied);
    // One label behind the star is a whole top-level domain, which nobody can have.
    let ingress = Ingress::with(&list.replace("client.of.example", "client.example"));
    ingress.refuses(Some(&ingress.client(&["*.example"])), AlertDescription::AccessDenied);
}

#[test]
fn t3_a_spiffe_id_is_compared_whole() {
    let list = "{mode: MUTUAL, credentialName: c, subjectAltNames: [\"spiffe://td/ns/a/sa/b\"]}";
    let ingress = Ingress::with(list);
    ingress.admits(Some(&ingress.client(&["spiffe://td/ns/a/sa/b"])));
    for other in ["spiffe://td/ns/a/sa/bb", "spiffe://td/ns/a/sa", "spiffe://TD/ns/a/sa/b", "td"] {
        ingress.refuses(Some(&ingress.client(&[other])), AlertDescription::AccessDenied);
    }
}

#[test]
fn t4_an_optional_certificate_may_be_missing_and_not_be_bad() {
    let ingress = Ingress::with("{mode: OPTIONAL_MUTUAL, credentialName: c}");
    ingress.admits(None);
    let stranger = Authority::called("a stranger").issue(&Leaf::client(&[CLIENT]));
    ingress.refuses(Some(&stranger), AlertDescription::UnknownCA);
    ingress.admits(Some(&ingress.client(&[CLIENT])));
}

/// The pins of a certificate, as Istio's documentation has them made with openssl.
fn pins(identity: &Identity) -> [String; 3] {
    let facts = Facts::parse(identity.leaf()).expect("a certificate");
    let plain = hex(&facts.fingerprints.certificate).to_uppercase();
    let colons: Vec<_> = plain.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair)).collect();
    [base64(&facts.fingerprints.public_key), plain.clone(), colons.join(":")]
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let letter = char::from(LETTERS[bits >> (18 - 6 * digit) & 63]);
            text.push(if digit > chunk.len() { '=' } else { letter });
        }
    }
    text
}

#[test]
fn t5_a_client_is_let_in_by_the_pin_of_its_certificate_or_of_its_key() {
    // Whoever is pinned is known before the gateway is, so its root is made first, too.
    let root = Authority::new();
    let [mut by_key, by_hash, by_colons, other] = [(); 4].map(|()| root.issue(&Leaf::client(&[CLIENT])));
    let ([key, _, _], [_, hash, _], [_, _, colons]) = (pins(&by_key), pins(&by_hash), pins(&by_colons));
    let tls = format!(
        "{{mode: MUTUAL, credentialName: c, verifyCertificateSpki: [\"{key}\"], verifyCertificateHash: [\"{hash}\", \"{colons}\"]}}"
    );
    let ingress = Ingress::under(root, &tls, |root, credentials| {
        root.install(&root.issue(&Leaf::server(&[HOST])), &credentials.join("c"));
    });
    for pinned in [&by_key, &by_hash, &by_colons] {
        ingress.admits(Some(pinned));
        ingress.program.record();
    }
    ingress.refuses(Some(&other), AlertDescription::AccessDenied);
    let record = ingress.program.record();
    let detail = record["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("expected a certificate that is pinned, found one with the SHA-256 "),
        "{record}"
    );
    // The pin is beside the CA, not instead of it: the same key, vouched for by somebody else.
    let stranger = Authority::called("a stranger");
    by_key.chain = stranger.issue_again(&Leaf::client(&[CLIENT]), &by_key).chain;
    ingress.refuses(Some(&by_key), AlertDescription::UnknownCA);
}

#[test]
fn t15_a_server_speaks_no_version_beside_those_it_is_told() {
    let check = |limit: &str, spoken, refused| {
        let ingress = Ingress::with(&format!("{{mode: MUTUAL, credentialName: c, {limit}}}"));
        let client = ingress.client(&[CLIENT]);
        let connect = |versions| {
            let config = peer::client_config(&ingress.root.certificate, Some(&client), versions);
            peer::connect(ingress.program.address, config)
        };
        echo(&mut connect(spoken), "let in");
        assert_eq!(alert(&mut connect(refused)), AlertDescription::ProtocolVersion, "{limit}");
    };
    check("minProtocolVersion: TLSV1_3", ONLY_1_3, ONLY_1_2);
    check("maxProtocolVersion: TLSV1_2", ONLY_1_2, ONLY_1_3);
}

#[test]
fn t17_a_protocol_that_is_not_known_here_is_no_reason_to_refuse() {
    let ingress = Ingress::with(MUTUAL);
    let mut config = ingress.config(Some(&ingress.client(&[CLIENT])));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = peer::connect(ingress.program.address, config);
    echo(&mut client, "let in");
    assert_eq!(client.conn.alpn_protocol(), None);
}

#[test]
fn two_ports_that_are_both_moved_to_where_the_kernel_chooses_are_two_sockets() {
    let servers = [(13306, MUTUAL), (13307, "{mode: SIMPLE, credentialName: c}")];
    let ingress = Ingress::of(Authority::new(), &servers, |root, credentials| {
        root.install(&root.issue(&Leaf::server(&[HOST])), &credentials.join("c"));
    });
    let second = ingress.program.next_event("ready");
    let second = second["listen"].as_str().and_then(|address| address.parse().ok()).expect("an address");
    ingress.refuses(None, AlertDescription::CertificateRequired);
    echo(&mut peer::connect(second, ingress.config(None)), "let in");
}
