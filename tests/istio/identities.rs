//! What each hop shows and asks for: the T rows that are settled before a connection comes.

use twinlock::plan::identity::SubjectAltName;
use twinlock::plan::policy::TlsVersion;
use twinlock::plan::{ClientCertificate, Entrance, Host, Originate, Role, ServerIdentity};

use crate::judge::{compile, head, upstream, warned, workload};
use crate::routing::{INGRESS, MUTUAL, SIDECAR, entry, errors, gateway, rule, server, tcp, to};

/// The TLS to a service with this rule.
fn originate(roles: &[Role], tls: &str, more: &str) -> std::sync::Arc<Originate> {
    let rule = rule("d", "default", &format!("host: db.example, trafficPolicy: {{tls: {tls}}}"));
    let gateway = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    let texts = [
        entry("db.example", 3306, "TCP", more),
        rule,
        gateway,
        tcp("v", "a.com", "g", "", &to("db.example", 3306)),
    ];
    let (listeners, report) =
        compile(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &workload(roles));
    assert_eq!(report.errors(), 0, "{report}");
    upstream(&listeners[0]).originate.clone().expect("TLS")
}

#[test]
fn t6_a_server_is_verified_by_name_also_where_istio_would_not() {
    let name = |tls: &str| originate(INGRESS, tls, "").server_name.clone();
    let host = |name: &str| ServerIdentity::Host(Host::Name(name.into()));
    assert_eq!(name("{mode: MUTUAL, credentialName: c}"), host("db.example"));
    assert_eq!(name("{mode: MUTUAL, credentialName: c, sni: other.example}"), host("other.example"));
    let shown = originate(INGRESS, "{mode: SIMPLE, credentialName: c}", "");
    assert!(!shown.shows_certificate && shown.credential.is_some());
}

#[test]
fn t7_the_rules_names_come_before_the_entrys() {
    let listed = |tls: &str, more: &str| match &originate(INGRESS, tls, more).server_name {
        ServerIdentity::AnyOf(names) => names.iter().map(ToString::to_string).collect(),
        other @ ServerIdentity::Host(_) => vec![format!("{other:?}")],
    };
    let rule = "{mode: MUTUAL, credentialName: c, subjectAltNames: [rule.example]}";
    assert_eq!(listed(rule, ""), ["rule.example"]);
    assert_eq!(
        listed("{mode: MUTUAL, credentialName: c}", ", subjectAltNames: [entry.example]"),
        ["entry.example"]
    );
    assert_eq!(listed(rule, ", subjectAltNames: [entry.example]"), ["rule.example"]);
}

#[test]
fn t8_a_server_of_the_mesh_is_the_account_that_is_known_or_of_its_namespace() {
    let names = |more: &str| match &originate(SIDECAR, "{mode: ISTIO_MUTUAL}", more).server_name {
        ServerIdentity::AnyOf(names) => names.clone(),
        ServerIdentity::Host(host) => panic!("expected identities, found {host}"),
    };
    assert_eq!(names(""), [SubjectAltName::SpiffeBelow("spiffe://cluster.local/ns/default/".into())]);
    assert_eq!(
        names(", endpoints: [{address: 10.0.0.1, serviceAccount: db}]"),
        [SubjectAltName::Uri("spiffe://cluster.local/ns/default/sa/db".into())]
    );
    let hop = originate(SIDECAR, "{mode: ISTIO_MUTUAL}", "");
    assert_eq!((hop.sni.as_deref(), hop.alpn), (Some("outbound_.3306_._.db.example"), &["istio"][..]));
}

#[test]
fn t9_without_an_sni_none_is_sent() {
    assert_eq!(originate(INGRESS, "{mode: SIMPLE, credentialName: c}", "").sni, None);
    let public = originate(SIDECAR, "{mode: SIMPLE}", "");
    assert_eq!(
        (&public.credential, &public.server_name),
        (&None, &ServerIdentity::Host(Host::Name("db.example".into())))
    );
}

#[test]
fn t15_the_oldest_version_is_that_of_the_server() {
    let gateway = gateway(
        "g",
        &[&server(443, "a.com", "{mode: MUTUAL, credentialName: c, minProtocolVersion: TLSV1_3}")],
    );
    let (listeners, report) = compile(
        &[&entry("x.example", 1, "TCP", ""), &gateway, &tcp("v", "a.com", "g", "", &to("x.example", 1))],
        &workload(INGRESS),
    );
    assert_eq!(report.errors(), 0, "{report}");
    let Entrance::Tls(table) = &listeners[0].entrance else { panic!("{listeners:?}") };
    let accept = table.rows()[0].accept.as_ref().expect("TLS that ends here");
    assert_eq!((accept.tls.version_min, accept.client), (TlsVersion::V1_3, ClientCertificate::Required));
}

#[test]
fn t15_a_version_that_the_flags_exclude_leaves_nothing_to_speak() {
    let only_1_2 = "{mode: MUTUAL, credentialName: c, maxProtocolVersion: TLSV1_2}";
    let gateway = gateway("g", &[&server(443, "a.com", only_1_2)]);
    let texts = [entry("x.example", 1, "TCP", ""), gateway, tcp("v", "a.com", "g", "", &to("x.example", 1))];
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    assert_eq!(compile(&texts, &workload(INGRESS)).1.errors(), 0);
    let mut strict = workload(INGRESS);
    strict.tls.version_min = TlsVersion::V1_3;
    let told = errors(&texts, &strict);
    assert!(
        told.contains("expected a version that --tls-min, --kx and --cipher leave, found TLSV1_2"),
        "{told}"
    );
}

#[test]
fn t19_a_credential_that_a_sidecar_may_not_use_never_becomes_plaintext() {
    let rule =
        rule("d", "default", "host: db.example, trafficPolicy: {tls: {mode: MUTUAL, credentialName: c}}");
    let entry = entry("db.example", 3306, "TCP", "");
    let (listeners, report) = compile(&[&entry, &rule], &workload(SIDECAR));
    assert!(listeners.is_empty() && warned(&report, "without it plaintext would be sent"), "{listeners:?}");
    let told = errors(
        &[&entry, &rule, &tcp("v", "db.example", "mesh", "", &to("db.example", 3306))],
        &workload(SIDECAR),
    );
    assert!(told.contains("expected no credentialName for a sidecar"), "{told}");
    let selected = rule.replace("spec: {", "spec: {workloadSelector: {matchLabels: {}}, ");
    assert_eq!(compile(&[&entry, &selected], &workload(SIDECAR)).1.errors(), 0);
}

#[test]
fn t20_the_mode_of_an_inbound_port_is_that_of_the_narrowest_policy() {
    let policy = |name: &str, namespace: &str, spec: &str| {
        head("PeerAuthentication", name)
            .replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, namespace: {namespace}}}"))
            + &format!("spec: {{{spec}}}\n")
    };
    let mut process = workload(SIDECAR);
    process.inbound.insert(3306, (Host::Address([127, 0, 0, 1].into()), 3307));
    process.roles.get_mut(&Role::Sidecar).expect("the role").labels.insert("app".into(), "db".into());
    let mode = |texts: &[&str]| match &compile(texts, &process).0[0].entrance {
        Entrance::Plaintext(_) => "DISABLE",
        Entrance::Permissive(..) => "PERMISSIVE",
        Entrance::Tls(_) => "STRICT",
    };
    let mesh = policy("a", "istio-system", "mtls: {mode: STRICT}");
    let namespace = policy("b", "default", "mtls: {mode: DISABLE}");
    let own = policy(
        "c",
        "default",
        "selector: {matchLabels: {app: db}}, mtls: {mode: UNSET}, portLevelMtls: {3306: {mode: PERMISSIVE}}",
    );
    let port_only = own.replace("3306", "3307");
    assert_eq!(mode(&[]), "PERMISSIVE");
    assert_eq!(mode(&[&mesh]), "STRICT");
    assert_eq!(mode(&[&mesh, &namespace]), "DISABLE");
    assert_eq!(mode(&[&mesh, &namespace, &own]), "PERMISSIVE");
    assert_eq!(mode(&[&mesh, &namespace, &port_only]), "DISABLE");
}

#[test]
fn permissive_is_warned_of_where_the_server_speaks_first() {
    let service =
        |port: &str| format!("{}spec: {{selector: {{app: db}}, ports: [{port}]}}\n", head("Service", "db"));
    let check = |number: u16, texts: &[&str], expected: bool| {
        let mut process = workload(SIDECAR);
        process.inbound.insert(number, (Host::Address([127, 0, 0, 1].into()), 9));
        process.roles.get_mut(&Role::Sidecar).expect("the role").labels.insert("app".into(), "db".into());
        let (_, report) = compile(texts, &process);
        assert_eq!(report.errors(), 0, "{report}");
        let found = warned(&report, "because the server speaks first and PERMISSIVE looks at the client");
        assert_eq!(found, expected, "{texts:?} {:?}", report.warning_lines());
    };
    check(3306, &[], true);
    check(9000, &[], false);
    check(9000, &[&service("{port: 80, targetPort: 9000, name: tcp-mysql}")], true);
    check(9000, &[&service("{port: 9000, name: db, appProtocol: mysql}")], true);
    check(9000, &[&service("{port: 9000, name: http}")], false);
    let strict = head("PeerAuthentication", "p") + "spec: {mtls: {mode: STRICT}}\n";
    check(3306, &[&strict], false);
    check(3306, &[&strict.replace("STRICT", "DISABLE")], false);
    check(3306, &[&strict.replace("STRICT", "PERMISSIVE")], true);
}

#[test]
fn a_gateway_that_is_misspelt_is_refused_with_the_right_one() {
    let gateway = gateway("gateway-mysql", &[&server(443, "a.com", MUTUAL)]);
    let (_, report) = compile(
        &[
            &entry("x.example", 1, "TCP", ""),
            &gateway,
            &tcp("v", "a.com", "gateway-mysq", "", &to("x.example", 1)),
        ],
        &workload(INGRESS),
    );
    let told = report.render(false);
    assert!(
        told.contains("expected a Gateway that some file defines, found \"default/gateway-mysq\"")
            && told.contains("did you mean \"default/gateway-mysql\"?"),
        "{told}"
    );
}
