//! What AuthorizationPolicies compile to, and what cannot be enforced.

use twinlock::plan::Role;
use twinlock::plan::authorize::authorize;
use twinlock::plan::identity::PeerIdentity;
use twinlock::plan::rbac::Attempt;

use crate::judge::{compile, head, warned, workload};
use crate::routing::{INGRESS, MUTUAL, entry, errors, gateway, server, tcp, to};
use crate::support::authority::{Authority, Leaf};
use crate::support::{self, path};

/// A policy in the root namespace, which is that of the gateways.
pub fn policy(name: &str, spec: &str) -> String {
    policy_in("istio-system", name, "", spec)
}

pub fn policy_in(namespace: &str, name: &str, annotation: &str, spec: &str) -> String {
    let meta = format!("{{name: {name}, namespace: {namespace}{annotation}}}");
    head("AuthorizationPolicy", name).replace(&format!("{{name: {name}}}"), &meta)
        + &format!("spec: {{{spec}}}\n---\n")
}

pub fn named(policy: &str, rule: usize) -> String {
    format!("ns[istio-system]-policy[{policy}]-rule[{rule}]")
}

/// What becomes of a connection at the gateway, or the sidecar, that these guard.
pub fn judged(policies: &[String], role: Role, attempt: &Attempt<'_>) -> String {
    let mut process = workload(&[role]);
    process.trust_domain = "td.example".into();
    process.inbound.insert(3306, (twinlock::plan::Host::Address([127, 0, 0, 1].into()), 9));
    let server = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    let route = tcp("v", "a.com", "g", "", &to("x.example", 1));
    let texts = [policies.concat(), entry("x.example", 1, "TCP", ""), server, route];
    let texts: Vec<_> = texts.iter().filter(|text| !text.is_empty()).map(String::as_str).collect();
    let (listeners, report) = compile(&texts, &process);
    assert_eq!(report.errors(), 0, "{report}");
    let verdict = authorize(&listeners.last().expect("a listener").routes()[0].rules, attempt);
    match verdict.permit {
        Ok(_) => verdict.marks.allowed.map_or_else(String::new, |rule| rule.to_string()),
        Err(denied) => format!("-{}", denied.to_string().replace("rbac_access_denied_matched_policy", "")),
    }
}

#[test]
fn each_field_of_a_rule_says_what_istio_says() {
    let check = |rule: &str, name: &str, expected: bool| {
        let mut identity = PeerIdentity::default();
        if name.contains("://") {
            identity.uris.push(name.into());
        } else {
            identity.dns_names.push(name.into());
        }
        let attempt = Attempt {
            identity: (!name.is_empty()).then_some(&identity),
            source: "10.1.2.3".parse().ok(),
            destination: "192.0.2.1".parse().ok(),
            port: 443,
            sni: Some("a.com"),
        };
        let found = judged(&[policy("p", &format!("rules: [{rule}]"))], Role::Ingress, &attempt);
        let expected = if expected { named("p", 0) } else { "-[none]".into() };
        assert_eq!(found, expected, "{rule} for {name:?}");
    };
    let app = "spiffe://td.example/ns/prod/sa/app";
    let source = |field: &str| format!("{{from: [{{source: {{{field}}}}}]}}");
    let when = |key: &str, value: &str| format!("{{when: [{{key: \"{key}\", values: [\"{value}\"]}}]}}");
    // cluster.local is whatever the mesh is called.
    check(&source("principals: [cluster.local/ns/prod/sa/app]"), app, true);
    check(&source("principals: [td.example/ns/prod/sa/app]"), app, true);
    check(&source("principals: [other/ns/prod/sa/app]"), app, false);
    check(&source("namespaces: [prod]"), app, true);
    check(&source("namespaces: [\"p*d\"]"), app, true);
    check(&source("notNamespaces: [prod]"), app, false);
    check(&source("namespaces: [prod]"), "client.example", false);
    check(&source("serviceAccounts: [prod/app]"), app, true);
    check(&source("serviceAccounts: [app]"), app, false);
    check(&source("notServiceAccounts: [app]"), app, true);
    check(&source("trustDomains: [\"td.*\"]"), app, true);
    check(&source("ipBlocks: [10.1.0.0/16], principals: [\"*\"]"), app, true);
    check(&source("ipBlocks: [10.1.0.0/16], principals: [\"*\"]"), "", false);
    check(&source("ipBlocks: [10.2.0.0/16, 10.1.2.3]"), "", true);
    check(&source("notIpBlocks: [10.1.0.0/16]"), "", false);
    check(&source("remoteIpBlocks: [10.1.0.0/16]"), "", true);
    check("{from: [{source: {namespaces: [x]}}, {source: {ipBlocks: [10.0.0.0/8]}}]}", "", true);
    check("{to: [{operation: {ports: [\"443\"]}}]}", "", true);
    check("{to: [{operation: {notPorts: [\"443\"]}}]}", "", false);
    check("{from: [{source: {ipBlocks: [10.0.0.0/8]}}], to: [{operation: {ports: [\"1\"]}}]}", "", false);
    check(&when("source.ip", "10.0.0.0/8"), "", true);
    check(&when("remote.ip", "11.0.0.0/8"), "", false);
    check(&when("destination.ip", "192.0.2.0/24"), "", true);
    check(&when("destination.port", "443"), "", true);
    check(&when("source.namespace", "prod"), app, true);
    check(&when("source.principal", "*/sa/app"), app, true);
    check(&when("source.serviceAccount", "prod/app"), app, true);
    check("{when: [{key: connection.sni, notValues: [b.com]}]}", "", true);
    check("{when: [{key: connection.sni, values: [a.com], notValues: [\"a*\"]}]}", "", false);
    check(&when("request.headers[a]", "b"), "", false);
    // Beyond Istio: what else a certificate can say.
    check(&source("principals: [\"dns:client.example\"]"), "Client.example", true);
    check(&source("principals: [\"dns:*.example\"]"), "client.example", true);
    check(&source("principals: [\"dns:client.example\"]"), "spiffe://client.example/a", false);
    check(&source("principals: [\"uri:urn://a*\"]"), "urn://abc", true);
    check(&source("principals: [client.example]"), "client.example", false);
}

#[test]
fn a_policy_with_labels_or_of_another_namespace_is_for_whom_it_means() {
    let deny = |namespace: &str, selector: &str| {
        let spec = format!("{selector}action: DENY, rules: [{{}}]");
        policy_in(namespace, "deny", "", &spec)
    };
    let denies = |policy: String, role: Role| judged(&[policy], role, &Attempt::default()).starts_with('-');
    assert!(denies(deny("istio-system", ""), Role::Ingress));
    assert!(denies(
        deny("istio-system", "selector: {matchLabels: {istio: ingressgateway}}, "),
        Role::Ingress
    ));
    assert!(!denies(
        deny("istio-system", "selector: {matchLabels: {istio: egressgateway}}, "),
        Role::Ingress
    ));
    assert!(!denies(deny("default", ""), Role::Ingress));
    assert!(denies(deny("default", ""), Role::Sidecar));
}

#[test]
fn a_policy_that_cannot_be_enforced_is_refused() {
    let refused = |policy: String, expected: &str| {
        let gateway = gateway("g", &[&server(443, "a.com", MUTUAL)]);
        let route = tcp("v", "a.com", "g", "", &to("x.example", 1));
        let entry = entry("x.example", 1, "TCP", "");
        let texts = [&entry, &gateway, &route, &policy].map(String::as_str);
        let told = errors(&texts, &workload(INGRESS));
        assert!(told.contains(expected), "expected {expected:?} in {told}");
        let elsewhere = policy.replace("istio-system", "elsewhere");
        let texts = [texts[0], texts[1], texts[2], &elsewhere];
        compile(&texts, &workload(INGRESS)).1
    };
    let elsewhere = refused(
        policy("c", "action: CUSTOM, provider: {name: opa}, rules: [{}]"),
        "spec.action: expected ALLOW, DENY or AUDIT, found CUSTOM, whose provider nobody here can ask",
    );
    assert_eq!(elsewhere.errors(), 0, "{elsewhere}");
    refused(
        policy("t", "targetRefs: [{kind: Gateway, name: g}], rules: [{}]"),
        "expected a selector, found an object of the Kubernetes Gateway API",
    );
    let half = ", annotations: {istio.io/dry-run: \"yes\"}";
    refused(
        policy_in("istio-system", "d", half, "rules: [{}]"),
        "expected \"true\" or \"false\", found \"yes\"",
    );
    for (principal, expected) in [
        ("CN=client", "found a subject, which is never an identity: \"CN=client\""),
        ("spiffe://td/ns/a/sa/b", "expected a SPIFFE ID without spiffe://"),
    ] {
        let rule = format!("rules: [{{from: [{{source: {{principals: [\"{principal}\"]}}}}]}}]");
        refused(policy("p", &rule), expected);
        refused(
            policy(
                "p",
                &format!("rules: [{{when: [{{key: source.principal, notValues: [\"{principal}\"]}}]}}]"),
            ),
            expected,
        );
    }
}

#[test]
fn a_warning_names_each_field_that_is_for_http() {
    let http = policy(
        "http",
        "action: DENY, rules: [{from: [{source: {requestPrincipals: [a], ipBlocks: [10.0.0.0/8]}}], to: [{operation: {hosts: [a]}}], when: [{key: \"request.headers[a]\", values: [b]}]}]",
    );
    let gateway = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    let route = tcp("v", "a.com", "g", "", &to("x.example", 1));
    let (_, report) =
        compile(&[&http, &entry("x.example", 1, "TCP", ""), &gateway, &route], &workload(INGRESS));
    for field in ["from[0].source.requestPrincipals", "to[0].operation.hosts", "when[0].key"] {
        assert!(
            warned(&report, &format!("spec.rules[0].{field}: is for HTTP")),
            "{:?}",
            report.warning_lines()
        );
    }
    // What is left counts.
    let at = |source: &str| Attempt { source: source.parse().ok(), ..Attempt::default() };
    assert_eq!(
        judged(std::slice::from_ref(&http), Role::Ingress, &at("10.0.0.1")),
        format!("-[{}]", named("http", 0))
    );
    assert_eq!(judged(&[http], Role::Ingress, &at("11.0.0.1")), "");
}

#[test]
fn explain_says_which_policies_guard_a_listener_and_which_rule_decides() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = Authority::new();
    let app = root.issue(&Leaf::client(&["spiffe://cluster.local/ns/default/sa/app"]));
    app.install(folder.path());
    let allow = "rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/app]}}]}]";
    let dry = ", annotations: {istio.io/dry-run: \"true\"}";
    let resources = policy("allow", allow)
        + &policy("block", "action: DENY, rules: [{from: [{source: {ipBlocks: [192.0.2.0/24]}}]}]")
        + &policy_in("istio-system", "tried", dry, "action: DENY, rules: [{}]")
        + &[entry("x.example", 1, "TCP", ""), gateway("g", &[&server(443, "a.com", MUTUAL)])].join("---\n")
        + "---\n"
        + &tcp("v", "a.com", "g", "", &to("x.example", 1));
    let file = folder.path().join("resources.yaml");
    std::fs::write(&file, resources).expect("written");
    let explain = |more: &[&str]| {
        let given = ["explain", "--role=ingress", "--config", path(&file)];
        let (code, out, err) = support::run(&[&given[..], more].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    };
    let plan = explain(&[]);
    for part in [
        "is judged by AuthorizationPolicy istio-system/allow (ALLOW, 1 rule)    ",
        "is judged by AuthorizationPolicy istio-system/tried (DENY, dry run, 1 rule)    ",
        "resources.yaml:1 (AuthorizationPolicy istio-system/allow)",
    ] {
        assert!(plan.contains(part), "expected {part:?} in {plan}");
    }
    assert!(
        explain(&["--format=json"])
            .contains("\"policy\":\"AuthorizationPolicy istio-system/block (DENY, 1 rule)\"")
    );
    let certificate = folder.path().join("tls.crt");
    let ask = |source: &str| explain(&["--sni=a.com", "--peer-cert", path(&certificate), "--source", source]);
    let allowed = ask("198.51.100.1");
    assert!(
        allowed.contains(&format!("is allowed by {}    ", named("allow", 0)))
            && allowed.contains(&format!(
                "would be refused if what is only tried were in force: rbac_access_denied_matched_policy[{}]",
                named("tried", 0)
            ))
            && allowed.contains("goes to outbound|1||x.example"),
        "{allowed}"
    );
    let refused = ask("192.0.2.1");
    assert!(
        refused
            .contains(&format!("is refused: rbac_access_denied_matched_policy[{}]    ", named("block", 0)))
            && !refused.contains("goes to"),
        "{refused}"
    );
    root.issue(&Leaf::client(&["other.example"])).install(folder.path());
    assert!(ask("198.51.100.1").contains("is refused: rbac_access_denied_matched_policy[none]\n"));
}
