//! What services there are, where their endpoints are, and who sees them.

use twinlock::plan::identity::SubjectAltName;
use twinlock::plan::{Entrance, Host, Role, ServerIdentity};

use crate::judge::{at, behind, compile, head, upstream, warned, workload};
use crate::routing::{INGRESS, MUTUAL, SIDECAR, entry, errors, gateway, rule, server, tcp, to};
use crate::support::{self, path};

fn in_namespace(text: &str, name: &str, namespace: &str) -> String {
    text.replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, namespace: {namespace}}}"))
}

fn workload_entry(name: &str, address: &str, app: &str) -> String {
    head("WorkloadEntry", name)
        + &format!("spec: {{address: {address}, labels: {{app: {app}}}, serviceAccount: db}}\n")
}

fn endpoints(texts: &[&str]) -> Vec<Host> {
    let (listeners, report) = compile(texts, &workload(SIDECAR));
    assert_eq!(report.errors(), 0, "{report}");
    upstream(at(&listeners, 3306)).endpoints.iter().map(|endpoint| endpoint.host.clone()).collect()
}

#[test]
fn workload_entries_are_the_endpoints_of_whoever_selects_them_in_their_namespace() {
    let selecting = entry("db.example", 3306, "TCP", ", workloadSelector: {labels: {app: db}}")
        .replace(", endpoints: [{address: 10.0.0.1}]", "");
    let (one, two) = (workload_entry("one", "10.0.0.2", "db"), workload_entry("two", "10.0.0.3", "db"));
    let other = workload_entry("other", "10.0.0.4", "web");
    let far = in_namespace(&workload_entry("far", "10.0.0.5", "db"), "far", "elsewhere");
    let found = endpoints(&[&selecting, &one, &two, &other, &far]);
    assert_eq!(found, [[10, 0, 0, 2], [10, 0, 0, 3]].map(|address| Host::Address(address.into())));
    // The same for a Service, which a rule for sidecars names.
    let service = head("Service", "db") + "spec: {selector: {app: db}, ports: [{port: 3306, name: mysql}]}\n";
    let route = tcp("v", "db", "mesh", "", &to("db", 3306));
    let found = endpoints(&[&service, &route, &one, &two, &other, &far]);
    assert_eq!(found.len(), 2);
    let told = errors(&[&selecting, &other], &workload(SIDECAR));
    assert!(told.contains("expected at least one endpoint, found none: db.example"), "{told}");
}

#[test]
fn a_subset_has_the_endpoints_with_its_labels() {
    let service = entry(
        "db.example",
        3306,
        "TCP",
        ", endpoints: [{address: 10.0.0.1, labels: {version: v1}}, {address: 10.0.0.2, labels: {version: v2}}]",
    );
    let rule = rule("d", "default", "host: db.example, subsets: [{name: new, labels: {version: v2}}]");
    let route = tcp(
        "v",
        "db.example",
        "mesh",
        "",
        "{destination: {host: db.example, subset: new, port: {number: 3306}}}",
    );
    assert_eq!(endpoints(&[&service, &rule, &route]), [Host::Address([10, 0, 0, 2].into())]);
}

#[test]
fn what_is_not_exported_is_not_seen() {
    let gateway = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    let route = tcp("v", "a.com", "g", "", &to("db.example", 3306));
    let open = entry("db.example", 3306, "TCP", "");
    let look = |service: &str| compile(&[service, &gateway, &route], &workload(INGRESS)).1.errors();
    assert_eq!(look(&open), 0);
    // The gateway is in istio-system, the service in default.
    for hidden in ["[\".\"]", "[elsewhere]", "[\"~\"]"] {
        assert_eq!(look(&entry("db.example", 3306, "TCP", &format!(", exportTo: {hidden}"))), 1, "{hidden}");
    }
    assert_eq!(look(&entry("db.example", 3306, "TCP", ", exportTo: [istio-system]")), 0);
    let tls = "host: db.example, trafficPolicy: {tls: {mode: SIMPLE}}";
    let encrypted = |rule: &str| {
        let (listeners, _) = compile(&[&open, &gateway, &route, rule], &workload(INGRESS));
        upstream(at(&listeners, 443)).originate.is_some()
    };
    assert!(encrypted(&rule("d", "default", tls)));
    assert!(!encrypted(&rule("d", "default", &format!("{tls}, exportTo: [\".\"]"))));
}

#[test]
fn servers_of_several_gateways_share_a_port_and_addresses_keep_them_apart() {
    let backends = [entry("x.example", 1, "TCP", ""), entry("y.example", 2, "TCP", "")];
    let routes =
        [tcp("v1", "a.com", "g", "", &to("x.example", 1)), tcp("v2", "b.com", "h", "", &to("y.example", 2))];
    let look = |servers: [String; 2]| {
        let [g, h] = [("g", &servers[0]), ("h", &servers[1])].map(|(name, server)| gateway(name, &[server]));
        let texts = [&backends[0], &backends[1], &routes[0], &routes[1], &g, &h].map(String::as_str);
        let (listeners, report) = compile(&texts, &workload(INGRESS));
        assert_eq!(report.errors(), 0, "{report}");
        listeners
    };
    let shared = look([server(443, "a.com", MUTUAL), server(443, "b.com", MUTUAL)]);
    assert_eq!(shared.len(), 1);
    assert_eq!(behind(&shared[0], "a.com"), Some("outbound|1||x.example"));
    assert_eq!(behind(&shared[0], "b.com"), Some("outbound|2||y.example"));
    let bound =
        |server: &str, address: &str| server.replacen("{port", &format!("{{bind: {address}, port"), 1);
    let apart = look([
        bound(&server(443, "a.com", MUTUAL), "10.0.0.1"),
        bound(&server(443, "b.com", ""), "10.0.0.2"),
    ]);
    let addresses: Vec<_> = apart.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:443", "10.0.0.2:443"]);
    assert!(matches!(apart[1].entrance, Entrance::Plaintext(_)));
}

#[test]
fn the_names_of_the_cluster_and_of_the_mesh_are_those_that_are_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let mesh = rule("d", "apps", "host: db, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    let service =
        in_namespace(&(head("Service", "db") + "spec: {ports: [{port: 3306, name: mysql}]}\n"), "db", "apps");
    let route =
        in_namespace(&tcp("v", "db", "mesh", "{sourceLabels: {app: web}}", &to("db", 3306)), "v", "apps");
    std::fs::write(folder.path().join("mesh.yaml"), [mesh, service, route].join("---\n")).expect("written");
    let told = |more: &[&str]| {
        let given = ["explain", "--config", path(folder.path()), "--role=sidecar"];
        let (code, out, err) = support::run(&[&given[..], more].concat());
        assert_eq!(code, 0, "{err}");
        out
    };
    let names = ["--domain=corp.example", "--trust-domain=td.example"];
    let own = ["--namespace=apps", "--labels=app=web"];
    let out = told(&[&names[..], &own].concat());
    for part in [
        "outbound|3306||db.apps.svc.corp.example at db.apps.svc.corp.example:3306    ",
        "with the name spiffe://td.example/ns/apps/*",
        "outbound_.3306_._.db.apps.svc.corp.example as SNI",
    ] {
        assert!(out.contains(part), "expected {part:?} in {out}");
    }
    // Without the label the rule is not for this workload.
    assert!(!told(&names).contains("VirtualService"));
}

#[test]
fn names_that_a_service_entry_lists_are_those_that_a_server_of_the_mesh_may_have() {
    let service = entry("db.example", 3306, "TCP", ", subjectAltNames: [\"spiffe://other/ns/a/sa/b\"]");
    let rule = rule("d", "default", "host: db.example, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    let (listeners, report) = compile(&[&service, &rule], &workload(&[Role::Sidecar]));
    assert!(!warned(&report, "subjectAltNames"));
    let originate = upstream(at(&listeners, 3306)).originate.clone().expect("TLS");
    let listed = ServerIdentity::AnyOf(vec![SubjectAltName::Uri("spiffe://other/ns/a/sa/b".into())]);
    assert_eq!(originate.server_name, listed);
}
