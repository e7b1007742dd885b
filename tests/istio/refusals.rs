//! The words with which each thing is refused or warned of that is not honoured, or that means nothing: a row for each.

use crate::judge::{compile, errors, head, warned, workload};
use crate::routing::{self, INGRESS, MUTUAL, SIDECAR, entry, gateway, rule, server, tcp, to};

/// A resource of a kind with this spec is refused with these words.
fn check(kind: &str, spec: &str, expected: &str) {
    let found = errors(&(head(kind, "x") + &format!("spec: {spec}\n")));
    assert!(found.iter().any(|line| line.contains(expected)), "expected {expected:?} of {spec}\n{found:#?}");
}

#[test]
fn a_gateway_says_what_is_wrong_with_it() {
    let server =
        |server: &str, expected: &str| check("Gateway", &format!("{{servers: [{server}]}}"), expected);
    let port = "port: {number: 1, name: a, protocol: TCP}";
    server(
        &format!("{{{port}, hosts: [a.b], bind: \"unix:///run/x\"}}"),
        "expected an IP address, found \"unix:///run/x\"",
    );
    server("{hosts: [a.b]}", "port: expected a port, found none");
    server("{port: {name: a, protocol: TCP}, hosts: [a.b]}", "number: expected a port number, found none");
    server("{port: {number: 1, protocol: TCP}, hosts: [a.b]}", "name: expected a name, found none");
    server("{port: {number: 1, name: a}, hosts: [a.b]}", "protocol: expected a protocol, found none");
    server("{port: {number: 1, name: a, protocol: UDP}, hosts: [a.b]}", "expected TCP, TLS, HTTPS, HTTP");
    server(&format!("{{{port}, hosts: [\"a b\"]}}"), "expected a DNS name, *.NAME or an IP address");
    server(&format!("{{{port}, hosts: [\"A_B/a.b\"]}}"), "expected a name of letters, digits and hyphens");
    let tls = |tls: &str, expected: &str| {
        server(
            &format!("{{port: {{number: 1, name: a, protocol: TLS}}, hosts: [a.b], tls: {tls}}}"),
            expected,
        );
    };
    tls(
        "{mode: MUTUAL, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}",
        "expected at least minProtocolVersion, found less",
    );
    tls("[MUTUAL]", "expected a mapping, found a list");
    tls(
        "{mode: MUTUAL, credentialName: c, subjectAltNames: a.b}",
        "expected a list, found the string \"a.b\"",
    );
    tls("{mode: MUTUAL, credentialName: [c]}", "expected a value, found a list");
    tls(
        "{mode: MUTUAL, credentialName: c, insecureSkipVerify: \"true\"}",
        "expected true or false, found the string \"true\"",
    );
    server("null", "expected an element, found nothing");
    let found =
        errors(&(head("Gateway", "a.b") + &format!("spec: {{servers: [{{{port}, hosts: [a.b]}}]}}\n")));
    assert!(found[0].contains("expected a name without dots, found \"a.b\""), "{found:?}");
    assert!(errors("a: b\n")[0].contains("expected a resource with apiVersion and kind, found none"));
    assert!(errors(&head("Gateway", "g"))[0].contains("spec: expected a spec, found none"));
    let nameless = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {}\nspec: {}\n";
    assert!(errors(nameless)[0].contains("metadata.name: expected a name, found none"));
}

#[test]
fn services_and_rules_say_what_is_wrong_with_them() {
    let route = |route: &str, expected: &str| {
        check("VirtualService", &format!("{{hosts: [a.b], tcp: [{{route: [{route}]}}]}}"), expected);
    };
    route("{weight: 1}", "destination: expected a destination, found none");
    route("{destination: {subset: s}}", "host: expected a host, found none");
    route("{destination: {host: a.b, port: {}}}", "number: expected a port number, found none");
    let entry = |more: &str, expected: &str| {
        let spec = format!(
            "{{hosts: [a.b], ports: [{{number: 1, name: a, protocol: TCP}}], resolution: STATIC, {more}}}"
        );
        check("ServiceEntry", &spec, expected);
    };
    entry(
        "endpoints: [{address: 10.0.0.1}], workloadSelector: {labels: {a: b}}",
        "expected endpoints or workloadSelector, found both",
    );
    entry("endpoints: [{labels: {a: b}}]", "address: expected an address, found none");
    entry("endpoints: [{address: \"unix:///run/x\"}]", "unix:///run/x");
    check("ServiceEntry", "{hosts: [a.b], ports: [{name: a}]}", "number: expected a port number, found none");
    check("ServiceEntry", "{hosts: [a.b], ports: [{number: 1}]}", "name: expected a name, found none");
    let policy = |policy: &str, expected: &str| {
        check("DestinationRule", &format!("{{host: a.b, trafficPolicy: {policy}}}"), expected);
    };
    check("DestinationRule", "{host: 10.0.0.1}", "expected a host name, found an address: \"10.0.0.1\"");
    check("DestinationRule", "{subsets: []}", "host: expected a host, found none");
    check("DestinationRule", "{host: a.b, subsets: [{labels: {a: b}}]}", "name: expected a name, found none");
    check(
        "DestinationRule",
        "{host: a.b, exportTo: [\"*\"], workloadSelector: {matchLabels: {a: b}}}",
        "expected only the own namespace beside a workloadSelector",
    );
    policy(
        "{tunnel: {protocol: CONNECT}, proxyProtocol: {version: V1}}",
        "expected tunnel or proxyProtocol, found both",
    );
    policy("{portLevelSettings: [{tls: {mode: SIMPLE}}]}", "number: expected a port number, found none");
    policy(
        "{portLevelSettings: [{port: {number: 1}}]}",
        "expected loadBalancer, connectionPool, outlierDetection or tls, found none",
    );
    policy(
        "{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
        "expected simple or consistentHash, found both",
    );
    policy("{connectionPool: {}}", "expected tcp or http, found neither");
    policy("{connectionPool: {tcp: {maxConnections: -1}}}", "expected a number of at least 0, found -1");
    policy("{outlierDetection: {maxEjectionPercent: 101}}", "expected a percentage from 0 to 100, found 101");
    policy(
        "{tls: {mode: DISABLE, credentialName: c}}",
        "expected no credentialName with DISABLE, which sends plaintext",
    );
}

#[test]
fn an_authorization_policy_says_what_is_wrong_with_it() {
    let rule =
        |rule: &str, expected: &str| check("AuthorizationPolicy", &format!("{{rules: [{rule}]}}"), expected);
    rule("{from: [{}]}", "source: expected a source, found none");
    rule("{to: [{}]}", "operation: expected an operation, found none");
    rule(
        "{from: [{source: {serviceAccounts: [a/b/c]}}]}",
        "expected NAMESPACE/NAME or NAME, found \"a/b/c\"",
    );
    rule("{from: [{source: {principals: [\"\"]}}]}", "expected a value, found an empty one");
    rule("{when: [{values: [a]}]}", "key: expected a key, found none");
    rule("{when: [{key: connection.sni}]}", "expected values or notValues, found neither");
    check(
        "AuthorizationPolicy",
        "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Gateway, name: g}]}",
        "expected selector or targetRefs, found both",
    );
}

/// What is said of resources that stand by themselves and do not fit together.
fn together(texts: &[&str], roles: &[twinlock::plan::Role], expected: &str) {
    let told = routing::errors(texts, &workload(roles));
    assert!(told.contains(expected), "expected {expected:?} in {told}");
}

#[test]
fn what_a_gateway_cannot_honour_is_refused_by_name() {
    let x = entry("x.example", 1, "TCP", "");
    let route = tcp("v", "a.com", "g", "", &to("x.example", 1));
    let serve =
        |servers: &[&str], expected: &str| together(&[&x, &route, &gateway("g", servers)], INGRESS, expected);
    serve(
        &[&server(443, "a.com", "{mode: AUTO_PASSTHROUGH}")],
        "expected a mode that says where connections go, found AUTO_PASSTHROUGH, which relays to any service",
    );
    for files in [
        "{mode: SIMPLE, serverCertificate: /a, privateKey: /b}",
        "{mode: MUTUAL, serverCertificate: /a, privateKey: /b, caCertificates: /c}",
        "{mode: SIMPLE, tlsCertificates: [{serverCertificate: /a, privateKey: /b}]}",
    ] {
        serve(
            &[&server(443, "a.com", files)],
            "expected credentialName, which is a folder below --credentials, found a file",
        );
    }
    let web = server(443, "a.com", MUTUAL).replace("protocol: TLS", "protocol: HTTPS");
    serve(
        &[&web],
        "expected protocol TCP or TLS, found HTTP, whose rules restrict what bytes alone cannot show",
    );
    serve(
        &[&server(443, "a.com", MUTUAL), &server(443, "plain.com", "")],
        "expected one server for a port without TLS, found another on 0.0.0.0:443",
    );
    for condition in ["destinationSubnets: [10.0.0.0/8]", "sourceLabels: {a: b}", "sourceNamespace: a"] {
        let name = condition.split(':').next().expect("a name");
        let narrow = tcp("v", "a.com", "g", &format!("{{{condition}}}"), &to("x.example", 1));
        together(
            &[&x, &narrow, &gateway("g", &[&server(443, "a.com", MUTUAL)])],
            INGRESS,
            &format!("expected no {name} in a rule for a gateway, where Istio does not look at it"),
        );
    }
}

#[test]
fn what_an_upstream_cannot_honour_is_refused_by_name() {
    let x = entry("x.example", 1, "TCP", "");
    let ruled = |policy: &str, expected: &str| {
        let rule = rule("d", "default", &format!("host: x.example, trafficPolicy: {policy}"));
        together(&[&x, &rule], SIDECAR, expected);
    };
    ruled("{tunnel: {protocol: CONNECT, targetHost: a.b, targetPort: 1}}", "tunnel");
    ruled(
        "{loadBalancer: {simple: PASSTHROUGH}}",
        "expected an algorithm that chooses, found PASSTHROUGH, which needs captured connections",
    );
    ruled(
        "{loadBalancer: {consistentHash: {httpHeaderName: x}}}",
        "expected useSourceIp, found a key that is in HTTP only",
    );
    ruled(
        "{tls: {mode: SIMPLE, caCertificates: /ca.pem}}",
        "expected credentialName, which is a folder below --credentials, found a file",
    );
    let nowhere = x.replace("resolution: STATIC, endpoints: [{address: 10.0.0.1}]", "resolution: NONE");
    together(
        &[&nowhere],
        SIDECAR,
        "expected endpoints or DNS, found resolution NONE, which needs captured connections: x.example",
    );
    let mixed = entry(
        "x.example",
        1,
        "TCP",
        ", location: MESH_INTERNAL, endpoints: [{address: 10.0.0.1, serviceAccount: a}, {address: 10.0.0.2}]",
    );
    together(
        &[&mixed],
        SIDECAR,
        "expected endpoints that all are in the mesh or all are not, found both: x.example",
    );
    let route = |destination: &str| tcp("v", "x.example", "mesh", "", destination);
    together(&[&x, &route(&to("x.example", 2))], SIDECAR, "expected a port of the service (1), found 2");
    together(
        &[&x, &route("{destination: {host: x.example, subset: s, port: {number: 1}}}")],
        SIDECAR,
        "expected a subset of the DestinationRule for x.example, found \"s\"",
    );
}

#[test]
fn what_shares_a_port_without_anything_to_tell_it_apart_is_refused() {
    let (x, y) = (entry("x.example", 1, "TCP", ""), entry("y.example", 1, "TCP", ""));
    together(
        &[&x, &y],
        SIDECAR,
        "expected one service a port, because nothing tells them apart, found another at 0.yaml",
    );
    let tls = entry("y.example", 1, "TLS", "");
    together(&[&x, &tls], SIDECAR, "expected either TLS or bytes on one port, found both on 127.0.0.1:1");
    let again = x.replace("{name: x-example}", "{name: again}");
    together(&[&x, &again], SIDECAR, "expected one definition of a host in a namespace, found another at");
    let mut moved = workload(SIDECAR);
    let other = entry("z.example", 2, "TCP", "");
    let place = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    moved.listen.extend([(1, place), (2, place)]);
    let told = routing::errors(&[&x, &other], &moved);
    assert!(told.contains("expected one listener an address, found another of"), "{told}");
    let mut serving = workload(SIDECAR);
    serving
        .roles
        .get_mut(&twinlock::plan::Role::Sidecar)
        .expect("the role")
        .labels
        .insert("app".into(), "db".into());
    let service = head("Service", "db") + "spec: {selector: {app: db}, ports: [{port: 3306, name: mysql}]}\n";
    let told = routing::errors(&[&service], &serving);
    assert!(
        told.contains("expected --inbound 3306=HOST:PORT, because this workload serves the port"),
        "{told}"
    );
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let x = entry("x.example", 1, "TCP", "");
    let check = |texts: &[&str], expected: &str| {
        let (_, report) = compile(texts, &workload(SIDECAR));
        assert_eq!(report.errors(), 0, "{report}");
        assert!(warned(&report, expected), "expected {expected:?} in {:#?}", report.warning_lines());
    };
    let ruled = |policy: &str, expected: &str| {
        check(&[&x, &rule("d", "default", &format!("host: x.example, trafficPolicy: {policy}"))], expected);
    };
    ruled("{connectionPool: {http: {maxRetries: 1}}}", "has no effect, it is for HTTP");
    ruled(
        "{loadBalancer: {simple: RANDOM, localityLbSetting: {enabled: true}}}",
        "has no effect: every endpoint is as near",
    );
    ruled(
        "{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 7}}}",
        "has no effect: clients are bound to endpoints without a ring",
    );
    check(&[&x, &rule("d", "default", "host: y.example")], "no ServiceEntry or Service has this host");
    let near =
        entry("x.example", 1, "TCP", ", endpoints: [{address: 10.0.0.1, locality: here, network: lan}]");
    check(&[&near], "has no effect: every endpoint is as near as any other");
    let tls = format!(
        "{}spec: {{hosts: [x.example], tls: [{{match: [{{sniHosts: [x.example]}}], route: [{}]}}]}}\n",
        head("VirtualService", "v"),
        to("x.example", 1)
    );
    check(&[&x, &tls], "tls rules have no effect on a port that is not of protocol TLS");
    let both = tcp("v", "x.example", "mesh", "", &to("x.example", 1))
        .replace("tcp: [", "http: [{route: []}], tcp: [");
    check(&[&x, &both], "http rules have no effect: connections are carried by the tcp and tls rules");
}
