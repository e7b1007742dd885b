//! Who may connect: AuthorizationPolicies, the Z rows.

use std::net::SocketAddr;

use serde_json::Value;
use twinlock::plan::Role;
use twinlock::plan::rbac::Attempt;

use crate::ingress::Ingress;
use crate::judge::head;
use crate::mesh::{DATABASE_HOST, anywhere, resolve};
use crate::policies::{judged, named, policy, policy_in};
use crate::routing::{MUTUAL, gateway, server, tcp, to};
use crate::support::authority::{Authority, Leaf};
use crate::support::socket::{Backend, Ending, attempt, connect, echo, ending};
use crate::support::{HOST, Program, path};

const APP: &str = "spiffe://cluster.local/ns/default/sa/app";
const OTHER: &str = "spiffe://cluster.local/ns/default/sa/other";

const DRY: &str = ", annotations: {istio.io/dry-run: \"true\"}";

/// An ingress gateway with mutual TLS that these policies guard.
fn guarded(policies: &[String]) -> Ingress {
    guarded_by(MUTUAL, policies)
}

fn guarded_by(tls: &str, policies: &[String]) -> Ingress {
    let resources = policies.concat()
        + &gateway("g", &[&server(13306, HOST, tls)])
        + "---\n"
        + &tcp("v", HOST, "g", "", &to(DATABASE_HOST, 3306));
    let backend = Backend::echo();
    let more = [resolve(DATABASE_HOST, 3306, backend.address), anywhere(13306)];
    Ingress::by(Authority::new(), backend, &resources, &more, |root, credentials| {
        root.install(&root.issue(&Leaf::server(&[HOST])), &credentials.join("c"));
    })
}

/// A client with this name is let in; what is recorded of it.
fn admitted(ingress: &Ingress, name: &str) -> Value {
    ingress.admits(Some(&ingress.client(&[name])));
    let record = ingress.program.record();
    assert!(record["upstream"]["address"].is_string(), "{record}");
    record
}

/// A client with this name is not, for this reason, and the server is not dialled for it.
fn denied(ingress: &Ingress, name: &str, by: &str) -> Value {
    let dialled = ingress.backend.dialled();
    assert_eq!(ending(&mut ingress.connect(Some(&ingress.client(&[name])))), Ending::Reset);
    assert_denied(&ingress.program, by, &ingress.backend, dialled)
}

fn assert_denied(program: &Program, by: &str, backend: &Backend, dialled: usize) -> Value {
    let record = program.record();
    let detail = format!("rbac_access_denied_matched_policy[{by}]");
    assert_eq!((&record["outcome"], &record["detail"]), (&"denied".into(), &detail.into()), "{record}");
    assert_eq!((&record["upstream"]["address"], backend.dialled()), (&Value::Null, dialled), "{record}");
    record
}

#[test]
fn z1_a_principal_that_is_allowed_is_let_in_and_nobody_else() {
    let rule = "{from: [{source: {principals: [cluster.local/ns/default/sa/app]}}]}";
    let ingress =
        guarded(&[policy("allow", &format!("rules: [{{to: [{{operation: {{ports: [\"1\"]}}}}]}}, {rule}]"))]);
    assert_eq!(admitted(&ingress, APP)["rule"], named("allow", 1).as_str());
    denied(&ingress, OTHER, "none");
    denied(&ingress, "app", "none");
}

#[test]
fn z2_allow_without_rules_denies_everybody() {
    denied(&guarded(&[policy("nobody", "")]), APP, "none");
    denied(&guarded(&[policy("nobody", "action: ALLOW")]), APP, "none");
}

/// A sidecar with two inbound ports and plaintext clients, which this policy guards; and where they are.
fn sidecar(backend: SocketAddr, policies: &[String], mode: &str) -> (Program, SocketAddr) {
    let folder = tempfile::tempdir().expect("a directory");
    let peers = head("PeerAuthentication", "p") + &format!("spec: {{mtls: {{mode: {mode}}}}}\n");
    std::fs::write(folder.path().join("r.yaml"), policies.concat() + &peers).expect("written");
    let inbound = [3306, 3307].map(|port| format!("--inbound={port}={backend}"));
    let listen = [anywhere(3306), anywhere(3307)];
    let credentials = folder.path().join("credentials");
    std::fs::create_dir(&credentials).expect("a directory");
    let mut arguments = vec!["run", "--role=sidecar", "--config", path(folder.path())];
    arguments.extend(["--credentials", path(&credentials)]);
    arguments.extend(inbound.iter().chain(&listen).map(String::as_str));
    let program = Program::start(&arguments);
    let second = program.next_event("ready")["listen"].as_str().and_then(|text| text.parse().ok());
    (program, second.expect("an address"))
}

#[test]
fn z3_deny_of_a_port_comes_before_allow_of_everything() {
    let backend = Backend::echo();
    let policies = [
        policy("all", "rules: [{}]"),
        policy("port", "action: DENY, rules: [{to: [{operation: {ports: [\"3306\"]}}]}]"),
    ];
    let (program, other) = sidecar(backend.address, &policies, "DISABLE");
    assert_eq!(attempt(program.address, b"hello"), Ending::Reset);
    assert_denied(&program, &named("port", 0), &backend, 0);
    echo(&mut connect(other), "let in");
    assert_eq!(program.record()["rule"], named("all", 0).as_str());
}

#[test]
fn z4_an_allow_rule_with_a_field_of_http_allows_nothing() {
    let ingress = guarded(&[policy("http", "rules: [{to: [{operation: {paths: [/a]}}]}]")]);
    denied(&ingress, APP, "none");
    let place = "spec.rules[0].to[0].operation.paths: is for HTTP: its whole rule allows nothing";
    ingress.program.wait_for_stderr(place);
}

#[test]
fn z5_a_deny_rule_with_nothing_but_fields_of_http_denies_everybody() {
    let ingress = guarded(&[policy("http", "action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]")]);
    denied(&ingress, APP, &named("http", 0));
    let place = "spec.rules[0].to[0].operation.methods: is for HTTP and left out";
    ingress.program.wait_for_stderr(place);
}

#[test]
fn z6_a_principal_may_be_a_pattern_and_plaintext_has_none() {
    let allow = |principal: &str| {
        policy("p", &format!("rules: [{{from: [{{source: {{principals: [\"{principal}\"]}}}}]}}]"))
    };
    let ingress = guarded(&[allow("*")]);
    admitted(&ingress, OTHER);
    admitted(&ingress, "egress.example");
    let ingress = guarded(&[allow("cluster.local/ns/def*")]);
    admitted(&ingress, APP);
    denied(&ingress, "spiffe://cluster.local/ns/other/sa/app", "none");
    let ingress = guarded(&[allow("*/sa/app")]);
    admitted(&ingress, APP);
    denied(&ingress, OTHER, "none");
    denied(&ingress, "egress.example", "none");
    for mode in ["DISABLE", "PERMISSIVE"] {
        let backend = Backend::echo();
        let (program, _) = sidecar(backend.address, &[allow("*")], mode);
        assert_eq!(attempt(program.address, b"hello"), Ending::Reset);
        assert_denied(&program, "none", &backend, 0);
    }
}

#[test]
fn z7_who_has_no_identity_is_none_of_those_that_are_excluded() {
    let spec =
        "action: DENY, rules: [{from: [{source: {notPrincipals: [cluster.local/ns/default/sa/app]}}]}]";
    let ingress = guarded_by("{mode: OPTIONAL_MUTUAL, credentialName: c}", &[policy("unknown", spec)]);
    assert_eq!(ending(&mut ingress.connect(None)), Ending::Reset);
    assert_denied(&ingress.program, &named("unknown", 0), &ingress.backend, 0);
    denied(&ingress, OTHER, &named("unknown", 0));
    admitted(&ingress, APP);
}

#[test]
fn z8_an_sni_is_matched_by_its_end_and_its_absence_by_nothing() {
    let spec = "rules: [{when: [{key: connection.sni, values: [\"*.fqdn.example\"]}]}]";
    let ingress = guarded(&[policy("sni", spec)]);
    admitted(&ingress, APP);
    let verdict = |sni: Option<&str>| {
        let attempt = Attempt { sni, ..Attempt::default() };
        judged(&[policy("sni", spec)], Role::Ingress, &attempt)
    };
    assert_eq!(verdict(Some("MYSQL.fqdn.example")), named("sni", 0));
    assert_eq!(verdict(Some("fqdn.example")), "-[none]");
    assert_eq!(verdict(None), "-[none]");
    let backend = Backend::echo();
    let (program, _) = sidecar(backend.address, &[policy("sni", spec)], "DISABLE");
    assert_eq!(attempt(program.address, b"hello"), Ending::Reset);
    assert_denied(&program, "none", &backend, 0);
}

#[test]
fn z9_a_dry_run_is_recorded_and_not_enforced() {
    let spec = "action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/app]}}]}]";
    let ingress = guarded(&[
        policy_in("istio-system", "tried", DRY, spec),
        policy("mark", "action: AUDIT, rules: [{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]"),
    ]);
    let record = admitted(&ingress, APP);
    let shadow = format!("rbac_access_denied_matched_policy[{}]", named("tried", 0));
    assert_eq!((&record["shadow"], &record["rule"]), (&shadow.into(), &Value::Null), "{record}");
    assert_eq!(record["audit"], named("mark", 0).as_str());
    assert_eq!(admitted(&ingress, OTHER)["shadow"], Value::Null);
    // What would allow nobody denies nobody either while it is tried.
    let ingress = guarded(&[policy_in("istio-system", "nobody", DRY, "")]);
    assert_eq!(admitted(&ingress, APP)["shadow"], "rbac_access_denied_matched_policy[none]");
}

#[test]
fn z10_the_policies_of_the_namespace_and_of_the_root_count_together() {
    let deny = policy("deny", "action: DENY, rules: [{}]");
    let own = policy_in("default", "own", "", "rules: [{}]");
    let backend = Backend::echo();
    let (program, _) = sidecar(backend.address, &[deny, own.clone()], "DISABLE");
    assert_eq!(attempt(program.address, b"hello"), Ending::Reset);
    assert_denied(&program, &named("deny", 0), &backend, 0);
    let (program, _) = sidecar(backend.address, &[own], "DISABLE");
    echo(&mut connect(program.address), "let in");
    assert_eq!(program.record()["rule"], "ns[default]-policy[own]-rule[0]");
}

#[test]
fn tls_that_is_passed_through_is_judged_by_its_address_and_name() {
    let rule = |block: &str| {
        policy(
            "p",
            &format!(
                "action: DENY, rules: [{{from: [{{source: {{ipBlocks: [{block}]}}}}], when: [{{key: connection.sni, values: [{HOST}]}}]}}]"
            ),
        )
    };
    let resources = |block: &str| {
        rule(block)
            + &gateway("g", &[&server(13306, HOST, "{mode: PASSTHROUGH}")])
            + "---\n"
            + &head("VirtualService", "v")
            + &format!(
                "spec: {{hosts: [{HOST}], gateways: [g], tls: [{{match: [{{sniHosts: [{HOST}]}}], route: [{}]}}]}}\n",
                to(DATABASE_HOST, 3306)
            )
    };
    let start = |block: &str| {
        let backend = Backend::start();
        let more = [resolve(DATABASE_HOST, 3306, backend.address), anywhere(13306)];
        Ingress::by(Authority::new(), backend, &resources(block), &more, |_, _| ())
    };
    let ingress = start("127.0.0.0/8");
    assert_eq!(ending(&mut ingress.connect(None)), Ending::Reset);
    assert_denied(&ingress.program, &named("p", 0), &ingress.backend, 0);
    let ingress = start("192.0.2.0/24");
    let mut client = ingress.connect(None);
    let sent = std::thread::spawn(move || drop(client.conn.complete_io(&mut client.sock)));
    drop(ingress.backend.accept());
    sent.join().expect("over");
}
