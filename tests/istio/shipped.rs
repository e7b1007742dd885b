//! What is shipped under `config/`, and the commands that look at resources without running them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use twinlock::config::resource::{destination_rule, gateway, security, service_entry, virtual_service};

use crate::mesh::{Credentials, manifests};
use crate::support::{self, path};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config");

/// The folders of resources that are shipped, and the roles that they are for.
const FOLDERS: &[(&str, &[&str])] = &[
    ("mysql/client", &["--role=sidecar", "--role=egress"]),
    (
        "mysql/client",
        &["--role=sidecar", "--resolve=istio-egressgateway.istio-system.svc.cluster.local=127.0.0.1"],
    ),
    ("mysql/client", &["--role=egress"]),
    ("mysql/server", &["--role=ingress"]),
    ("mysql/server", &["--role=sidecar", "--labels=app=mysql", "--inbound=3306=127.0.0.1:3307"]),
];

fn look(command: &str, folder: &str, more: &[&str]) -> (i32, String, String) {
    support::run(&[&[command, "--config", folder], more].concat())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_file_that_is_shipped_is_checked_and_is_right() {
    let mut checked = Vec::new();
    for (folder, roles) in FOLDERS {
        let folder = format!("{CONFIG}/{folder}");
        let (code, out, err) = look("check", &folder, roles);
        assert_eq!((code, err.as_str()), (0, ""), "{folder} {roles:?}: {out}");
        assert!(out.contains("0 errors, "), "{out}");
        checked.extend(files(Path::new(&folder)));
    }
    let shipped = files(Path::new(CONFIG)).into_iter();
    let shipped: Vec<_> =
        shipped.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
    assert!(shipped.len() >= 7, "{shipped:?}");
    for file in shipped {
        assert!(checked.contains(&file), "nobody checks {}", file.display());
    }
}

#[test]
fn the_table_of_fields_has_every_field_and_no_other() {
    let table = std::fs::read_to_string(format!("{CONFIG}/README.md")).expect("the table");
    let fields: [&[&str]; 37] = [
        gateway::Gateway::FIELDS,
        gateway::Server::FIELDS,
        gateway::Port::FIELDS,
        gateway::ServerTls::FIELDS,
        virtual_service::VirtualService::FIELDS,
        virtual_service::TcpRoute::FIELDS,
        virtual_service::TlsRoute::FIELDS,
        virtual_service::TcpMatch::FIELDS,
        virtual_service::TlsMatch::FIELDS,
        virtual_service::RouteDestination::FIELDS,
        virtual_service::Destination::FIELDS,
        virtual_service::PortSelector::FIELDS,
        destination_rule::DestinationRule::FIELDS,
        destination_rule::WorkloadSelector::FIELDS,
        destination_rule::Subset::FIELDS,
        destination_rule::TrafficPolicy::FIELDS,
        destination_rule::PortPolicy::FIELDS,
        destination_rule::ClientTls::FIELDS,
        destination_rule::LoadBalancer::FIELDS,
        destination_rule::ConsistentHash::FIELDS,
        destination_rule::ConnectionPool::FIELDS,
        destination_rule::TcpPool::FIELDS,
        destination_rule::TcpKeepalive::FIELDS,
        destination_rule::ProxyProtocol::FIELDS,
        destination_rule::OutlierDetection::FIELDS,
        service_entry::ServiceEntry::FIELDS,
        service_entry::EntrySelector::FIELDS,
        service_entry::WorkloadEntry::FIELDS,
        security::PeerAuthentication::FIELDS,
        security::MutualTls::FIELDS,
        security::AuthorizationPolicy::FIELDS,
        security::Rule::FIELDS,
        security::From::FIELDS,
        security::Source::FIELDS,
        security::To::FIELDS,
        security::Operation::FIELDS,
        security::Condition::FIELDS,
    ];
    let known: Vec<&str> = fields.into_iter().flatten().copied().collect();
    for field in &known {
        assert!(table.contains(&format!("\n| {field} | ")), "no row for {field}");
    }
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let is_field = |name: &&str| name.chars().all(char::is_alphanumeric) && *name != "field";
    for row in rows.filter(is_field) {
        assert!(known.contains(&row), "a row for {row}, which is no field");
    }
}

#[test]
fn check_says_by_its_exit_code_whether_there_are_errors_or_with_strict_warnings() {
    let (client, server) = (manifests("article/client"), manifests("article/server"));
    let both = ["--role=sidecar", "--role=egress"];
    assert_eq!(look("check", &client, &both).0, 0);
    assert_eq!(look("check", &client, &[&both[..], &["--strict"]].concat()).0, 1);
    assert_eq!(look("check", &client, &["--role=egress"]).0, 2);
    let known = "--resolve=mysql.default.svc.cluster.local=127.0.0.1";
    assert_eq!(look("check", &server, &["--role=ingress", known, "--strict"]).0, 0);
    let (code, out, _) = look("check", &server, &["--role=ingress", "--format=json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["errors"]), (2, &1.into()));
    let problem = &report["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["field"]),
        (&15.into(), &"spec.tcp[0].route[0].destination.host".into()),
        "{problem}"
    );
    assert!(problem["file"].as_str().is_some_and(|file| file.ends_with("virtual-service.yaml")));
    assert!(!out.contains('\u{1b}'));
}

/// One of everything that a report can tell.
const MISTAKEN: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: apps}
spec:
  host: db.example
  trafficPolicy:
    tls: {mode: MUTUAL, credentialname: c}
    portLevelSettings: [{port: {number: 3306}, tls: {mode: SIMPEL}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec: {servers: [{port: {number: 1, name: a, protocol: TLS}, hosts: [a.b], tls: {mode: PASSTHROUGH, credentialName: c}}]}
---
{apiVersion: v1, kind: Pod}
";

#[test]
fn a_report_tells_all_at_once_where_what_and_what_was_meant_and_counts_last() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("in.yaml");
    std::fs::write(&file, MISTAKEN).expect("written");
    let (code, out, _) = look("check", path(&file), &["--role=ingress"]);
    let expected = "\
error: in.yaml:7:25: DestinationRule apps/d: spec.trafficPolicy.tls.credentialname: expected a known field, found \"credentialname\"
  7 |     tls: {mode: MUTUAL, credentialname: c}
    |                         ^
  help: did you mean \"credentialName\"?
error: in.yaml:8:60: DestinationRule apps/d: spec.trafficPolicy.portLevelSettings[0].tls.mode: expected one of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL (did you mean SIMPLE?), found the string \"SIMPEL\"
  8 |     portLevelSettings: [{port: {number: 3306}, tls: {mode: SIMPEL}}]
    |                                                            ^
warning: in.yaml:13:117: Gateway default/g: spec.servers[0].tls.credentialName: credentialName has no effect with PASSTHROUGH, where TLS does not end here
  13 | spec: {servers: [{port: {number: 1, name: a, protocol: TLS}, hosts: [a.b], tls: {mode: PASSTHROUGH, credentialName: c}}]}
     |                                                                                                                     ^
note: in.yaml:15:24: Pod: kind: passed over, it is not for a gateway: Pod
  15 | {apiVersion: v1, kind: Pod}
     |                        ^
2 errors, 1 warning
";
    assert_eq!((code, out.replace(&format!("{}/", path(folder.path())), "").as_str()), (2, expected));
    if !support::has(&["script"]) {
        return;
    }
    let arguments = ["check", "--role=ingress", "--config", path(&file)];
    let shown = support::on_terminal(&arguments, "");
    assert!(
        shown.contains("\x1b[1;31merror\x1b[0m: ") && shown.contains("\x1b[1;33mwarning\x1b[0m: "),
        "{shown}"
    );
    assert!(!support::on_terminal(&arguments, "1").contains('\x1b'));
}

#[test]
fn check_judges_the_credentials_too_if_there_are_any() {
    let credentials = Credentials::new();
    let folder = credentials.folder("ingress");
    let more = [
        "--role=ingress",
        "--resolve=mysql.default.svc.cluster.local=127.0.0.1",
        "--credentials",
        path(&folder),
    ];
    let (code, out, _) = look("check", &manifests("article/server"), &more);
    assert_eq!(code, 0, "{out}");
    std::fs::remove_file(folder.join("mysql-credential/tls.key")).expect("removed");
    let (code, out, _) = look("check", &manifests("article/server"), &more);
    assert!(code == 2 && out.contains("--credentials: ") && out.contains("mysql-credential"), "{out}");
}

#[test]
fn what_cannot_be_honoured_does_not_start_and_leaves_no_port_open() {
    let more = ["--role=egress", "--credentials=absent"];
    let (code, out, err) = look("run", &manifests("article/client"), &more);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(
        err.contains("expected a Gateway that some file defines") && err.ends_with("1 error, 1 warning\n"),
        "{err}"
    );
    let (code, _, err) = look("check", &format!("{CONFIG}/absent"), &["--role=egress"]);
    assert!(code == 2 && err.is_empty(), "{err}");
}

#[test]
fn explain_tells_who_may_connect_where_and_which_line_says_so() {
    let roles = ["--role=sidecar", "--role=egress"];
    let (code, out, err) = look("explain", &manifests("article/client"), &roles);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in [
        "sidecar listens on 127.0.0.1:3306",
        "service-entry.yaml:10 (ServiceEntry default/mysql-external)",
        "through gateway default/istio-egressgateway-mysql port 15443, SNI mysql.fqdn.example, inside this process",
        "goes to outbound|13306||mysql.fqdn.example at mysql.fqdn.example:13306",
        "by TLS: shows client-credential, sends mysql.fqdn.example as SNI, expects a certificate of the CA in client-credential with the name mysql.fqdn.example",
    ] {
        assert!(out.contains(part), "expected {part:?} in {out}");
    }
    let (_, out, _) =
        look("explain", &manifests("article/client"), &[&roles[..], &["--format=json"]].concat());
    let plan: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(plan["listeners"][0]["ways"][0]["inner_hops"][0]["port"], 15443);
    let (_, out, _) =
        look("explain", &manifests("article/client"), &[&roles[..], &["--format=dot"]].concat());
    assert!(out.starts_with("digraph plan {") && out.contains("\"sidecar 127.0.0.1:3306\" -> "), "{out}");
}

#[test]
fn explain_says_what_would_become_of_a_connection() {
    let credentials = Credentials::new();
    let certificate = credentials.folder("egress").join("client-credential/tls.crt");
    let ask = |more: &[&str]| {
        let known = ["--role=ingress", "--resolve=mysql.default.svc.cluster.local=127.0.0.1"];
        let (code, out, err) = look("explain", &manifests("article/server"), &[&known[..], more].concat());
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let admitted = ask(&["--sni=mysql.fqdn.example", "--peer-cert", path(&certificate)]);
    assert!(
        admitted.contains("is decided by TLS for mysql.fqdn.example")
            && admitted.contains("goes to outbound|3306||mysql.default.svc.cluster.local at 127.0.0.1:3306"),
        "{admitted}"
    );
    assert!(ask(&["--sni=other.example"]).contains("is refused: no row for SNI other.example"));
    assert!(ask(&["--sni=mysql.fqdn.example"]).contains("is refused: expected a certificate, found none"));
}

#[test]
fn explain_says_what_the_source_of_a_connection_decides() {
    let ask = |source: &str, listener: &str| {
        let more = ["--role=sidecar", "--role=egress", "--listener", listener, "--source", source];
        let (code, out, err) = look("explain", &manifests("article/client"), &more);
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let refused = ask("192.0.2.7", "127.0.0.1:3306");
    assert!(refused.contains("is refused: 192.0.2.7 cannot reach 127.0.0.1:3306"), "{refused}");
    assert!(!refused.contains("goes to"), "{refused}");
    let admitted = ask("127.0.0.1", "127.0.0.1:3306");
    assert!(
        admitted.contains("goes to outbound|13306||mysql.fqdn.example")
            && admitted.contains("the source 127.0.0.1 decides nothing: no rule asks for it"),
        "{admitted}"
    );
    assert!(ask("::1", "127.0.0.1:3306").contains("::1 cannot reach"));
    // Where a DestinationRule asks for it, the answer is the endpoint that the client will get.
    let hashed = tempfile::tempdir().expect("a directory");
    let endpoints = "endpoints: [{address: 10.0.0.1}, {address: 10.0.0.2}, {address: 10.0.0.3}]";
    let service = crate::routing::entry("db.example", 3306, "TCP", &format!(", {endpoints}"));
    let rule = crate::routing::rule(
        "d",
        "default",
        "host: db.example, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}",
    );
    std::fs::write(hashed.path().join("d.yaml"), service + "---\n" + &rule).expect("written");
    let endpoint = |source: &str| {
        let more = ["--role=sidecar", "--listen=3306=0.0.0.0:3306", "--source", source];
        let (_, out, _) = look("explain", path(hashed.path()), &more);
        let line = out.lines().find(|line| line.starts_with("the source")).expect("an answer").to_owned();
        line.split(": ").nth(1).expect("an endpoint").to_owned()
    };
    let clients: Vec<_> = (1..20).map(|client| endpoint(&format!("192.0.2.{client}"))).collect();
    assert!(clients.iter().all(|endpoint| endpoint.starts_with("10.0.0.")), "{clients:?}");
    assert!(clients.iter().any(|endpoint| *endpoint != clients[0]), "{clients:?}");
    assert_eq!(endpoint("192.0.2.1"), clients[0]);

    let wrong = ["--role=sidecar", "--role=egress", "--source=here"];
    let (code, _, err) = look("explain", &manifests("article/client"), &wrong);
    assert_eq!((code, err.as_str()), (2, "twinlock: --source: expected an IP address, found \"here\"\n"));
}

#[test]
fn explain_judges_a_certificate_by_its_pin_as_well() {
    let credentials = Credentials::new();
    let folder = tempfile::tempdir().expect("a directory");
    let pinned = crate::routing::gateway(
        "g",
        &[&crate::routing::server(
            443,
            "a.com",
            &format!(
                "{{mode: MUTUAL, credentialNames: [c, d], caCertCredentialName: e, verifyCertificateHash: [\"{}\"]}}",
                "00".repeat(32)
            ),
        )],
    );
    let rule = crate::routing::tcp("v", "a.com", "g", "", &crate::routing::to("db.example", 3306));
    std::fs::write(folder.path().join("g.yaml"), pinned + "---\n" + &rule).expect("written");
    let certificate = credentials.folder("egress").join("client-credential/tls.crt");
    let known = ["--role=ingress", "--resolve=db.example=127.0.0.1"];
    let (_, out, _) = look("explain", path(folder.path()), &known);
    assert!(
        out.contains("must show a certificate of the CA in e, whatever its names, one of 1 pinned")
            && out.contains("is shown c or d"),
        "{out}"
    );
    let more = [&known[..], &["--sni=a.com", "--peer-cert", path(&certificate)]].concat();
    let (_, out, _) = look("explain", path(folder.path()), &more);
    assert!(
        out.contains("is refused: expected a certificate that is pinned, found one with the SHA-256"),
        "{out}"
    );
}
