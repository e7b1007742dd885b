//! Where connections go: the R rows that are settled before a connection comes.

use twinlock::config::compile::Workload;
use twinlock::plan::{Entrance, Role, route};

use crate::judge::{at, behind, compile, head, known, upstream, warned, workload};

pub const SIDECAR: &[Role] = &[Role::Sidecar];
pub const INGRESS: &[Role] = &[Role::Ingress];

pub fn gateway(name: &str, servers: &[&str]) -> String {
    format!(
        "{}spec: {{selector: {{istio: ingressgateway}}, servers: [{}]}}\n",
        head("Gateway", name),
        servers.join(", ")
    )
}

pub fn server(port: u16, hosts: &str, tls: &str) -> String {
    let (protocol, tls) =
        if tls.is_empty() { ("TCP", String::new()) } else { ("TLS", format!(", tls: {tls}")) };
    format!(
        "{{port: {{number: {port}, name: p{port}-{}, protocol: {protocol}}}, hosts: [{hosts}]{tls}}}",
        hosts.len()
    )
}

pub const MUTUAL: &str = "{mode: MUTUAL, credentialName: c}";

pub fn tcp(name: &str, hosts: &str, gateways: &str, matched: &str, routes: &str) -> String {
    let matched = if matched.is_empty() { String::new() } else { format!("match: [{matched}], ") };
    format!(
        "{}spec: {{hosts: [{hosts}], gateways: [{gateways}], tcp: [{{{matched}route: [{routes}]}}]}}\n",
        head("VirtualService", name)
    )
}

pub fn to(host: &str, port: u16) -> String {
    format!("{{destination: {{host: {host}, port: {{number: {port}}}}}}}")
}

/// A service at one address, with this port and these more fields.
pub fn entry(host: &str, port: u16, protocol: &str, more: &str) -> String {
    let name = host.replace(['.', '*'], "-").trim_matches('-').to_owned();
    let address = if more.contains("endpoints") { "" } else { ", endpoints: [{address: 10.0.0.1}]" };
    format!(
        "{}spec: {{hosts: [\"{host}\"], ports: [{{number: {port}, name: p, protocol: {protocol}}}], resolution: STATIC{address}{more}}}\n",
        head("ServiceEntry", &name)
    )
}

pub fn errors(texts: &[&str], workload: &Workload) -> String {
    let (_, report) = compile(texts, workload);
    assert!(report.errors() > 0, "expected an error, found none");
    report.to_string()
}

fn two_backends() -> [String; 2] {
    [entry("x.example", 1, "TCP", ""), entry("y.example", 2, "TCP", "")]
}

#[test]
fn r1_a_short_name_is_of_the_namespace_and_one_with_a_dot_is_whole() {
    let gateway = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    let process = known(workload(INGRESS), "mysql.default.svc.cluster.local");
    let (listeners, report) = compile(&[&gateway, &tcp("v", "a.com", "g", "", &to("mysql", 3306))], &process);
    assert_eq!(report.errors(), 0, "{report}");
    assert_eq!(upstream(at(&listeners, 443)).name, "outbound|3306||mysql.default.svc.cluster.local");
    let told = errors(&[&gateway, &tcp("v", "a.com", "g", "", &to("mysql.default", 3306))], &process);
    assert!(
        told.contains(
            "expected a host that a ServiceEntry, a Service or --resolve defines, found \"mysql.default\""
        ),
        "{told}"
    );
}

#[test]
fn r6_a_host_belongs_to_one_server_of_a_port() {
    let texts =
        [gateway("g", &[&server(443, "a.com", MUTUAL)]), gateway("h", &[&server(443, "prod/a.com", MUTUAL)])];
    let told = errors(&[&texts[0], &texts[1]], &workload(INGRESS));
    assert!(told.contains("expected a host once a port, found it also at 0.yaml"), "{told}");
}

#[test]
fn r7_one_server_has_one_route_and_says_so() {
    let [x, y] = two_backends();
    let (first, second) =
        (tcp("v1", "a.com", "g", "", &to("x.example", 1)), tcp("v2", "b.com", "g", "", &to("y.example", 2)));
    let both = gateway("g", &[&server(443, "a.com, b.com", MUTUAL)]);
    let (listeners, report) = compile(&[&x, &y, &second, &first, &both], &workload(INGRESS));
    assert_eq!(report.errors(), 0, "{report}");
    for sni in ["a.com", "b.com"] {
        assert_eq!(behind(at(&listeners, 443), sni), Some("outbound|1||x.example"), "{sni}");
    }
    assert!(warned(&report, "one server has one route, that of VirtualService default/v1"));
}

#[test]
fn r8_of_two_servers_the_sni_decides() {
    let [x, y] = two_backends();
    let (first, second) =
        (tcp("v1", "a.com", "g", "", &to("x.example", 1)), tcp("v2", "b.com", "g", "", &to("y.example", 2)));
    let two = gateway("g", &[&server(443, "a.com", MUTUAL), &server(443, "\"*.b.com\", b.com", MUTUAL)]);
    let (listeners, report) = compile(&[&x, &y, &first, &second, &two], &workload(INGRESS));
    assert_eq!(report.errors(), 0, "{report}");
    assert_eq!(behind(at(&listeners, 443), "a.com"), Some("outbound|1||x.example"));
    assert_eq!(behind(at(&listeners, 443), "b.com"), Some("outbound|2||y.example"));
    assert_eq!(behind(at(&listeners, 443), "x.b.com"), Some("outbound|2||y.example"));
    assert_eq!(behind(at(&listeners, 443), "c.com"), None);
}

#[test]
fn r9_passthrough_terminates_nothing_and_shows_only_the_servers_hosts() {
    let x = entry("x.example", 1, "TCP", "");
    let gateway = gateway("g", &[&server(443, "\"*.com\"", "{mode: PASSTHROUGH}")]);
    let tls = format!(
        "{}spec: {{hosts: [\"*.com\", \"*.org\"], gateways: [g], tls: [{{match: [{{sniHosts: [a.com, b.org]}}], route: [{}]}}]}}\n",
        head("VirtualService", "v"),
        to("x.example", 1)
    );
    let (listeners, report) = compile(&[&x, &gateway, &tls], &workload(INGRESS));
    assert_eq!(report.errors(), 0, "{report}");
    let Entrance::Tls(table) = &at(&listeners, 443).entrance else { panic!("{listeners:?}") };
    assert!(table.find(Some("a.com"), || None).is_some_and(|row| row.accept.is_none()));
    assert!(table.find(Some("b.org"), || None).is_none() && table.find(None, || None).is_none());
    assert!(warned(&report, "no server of this port has the host \"b.org\""));
}

#[test]
fn r10_a_rule_of_the_wrong_kind_is_no_route() {
    let x = entry("x.example", 1, "TCP", "");
    let passed = gateway("g", &[&server(443, "a.com", "{mode: PASSTHROUGH}")]);
    let told = errors(&[&x, &passed, &tcp("v", "a.com", "g", "", &to("x.example", 1))], &workload(INGRESS));
    assert!(told.contains("expected a tls rule that applies to this server, found none"), "{told}");
    let ended = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    let tls = format!(
        "{}spec: {{hosts: [a.com], gateways: [g], tls: [{{match: [{{sniHosts: [a.com]}}], route: [{}]}}]}}\n",
        head("VirtualService", "v"),
        to("x.example", 1)
    );
    let told = errors(&[&x, &ended, &tls], &workload(INGRESS));
    assert!(told.contains("expected a tcp rule that applies to this server, found none"), "{told}");
}

#[test]
fn r11_a_destination_without_weight_among_several_gets_nothing_and_a_single_one_all() {
    let [x, y] = two_backends();
    let gateway = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    let weighted = |host: &str, port, weight| {
        to(host, port).replacen("{destination", &format!("{{weight: {weight}, destination"), 1)
    };
    let weights = |routes: &str| {
        let (listeners, report) =
            compile(&[&x, &y, &gateway, &tcp("v", "a.com", "g", "", routes)], &workload(INGRESS));
        assert_eq!(report.errors(), 0, "{report}");
        listeners[0].routes()[0].targets.iter().map(|target| target.weight).collect::<Vec<_>>()
    };
    assert_eq!(weights(&format!("{}, {}", weighted("x.example", 1, 1), weighted("y.example", 2, 3))), [1, 3]);
    assert_eq!(weights(&format!("{}, {}", weighted("x.example", 1, 5), to("y.example", 2))), [5]);
    assert_eq!(weights(&weighted("x.example", 1, 0)), [1]);
}

#[test]
fn r12_a_rule_for_another_port_leaves_the_service_and_warns() {
    let texts = [
        entry("db.example", 3306, "TCP", ""),
        entry("x.example", 1, "TCP", ""),
        tcp("v", "db.example", "mesh", "{port: 3307}", &to("x.example", 1)),
    ];
    let (listeners, report) = compile(&[&texts[0], &texts[1], &texts[2]], &workload(SIDECAR));
    assert_eq!(upstream(at(&listeners, 3306)).name, "outbound|3306||db.example");
    assert!(warned(&report, "the others go to the service directly"), "{:?}", report.warning_lines());
}

#[test]
fn r13_destination_subnets_decide_by_the_destination() {
    let texts = [
        entry("db.example", 3306, "TCP", ""),
        entry("x.example", 1, "TCP", ""),
        tcp("v", "db.example", "mesh", "{destinationSubnets: [10.0.0.0/8]}", &to("x.example", 1)),
    ];
    let (listeners, _) = compile(&[&texts[0], &texts[1], &texts[2]], &workload(SIDECAR));
    let Entrance::Plaintext(rows) = &at(&listeners, 3306).entrance else { panic!("{listeners:?}") };
    let to = |address: &str| {
        route::by_destination(rows, address.parse().expect("an address"))
            .map(|row| row.route.targets[0].cluster.name.as_str())
    };
    assert_eq!(to("10.1.2.3"), Some("outbound|1||x.example"));
    assert_eq!(to("192.0.2.1"), Some("outbound|3306||db.example"));
}

#[test]
fn r13_beside_a_name_destination_subnets_decide_as_well() {
    let matched = |name: &str, more: &str, host: &str, port| {
        format!("{{match: [{{sniHosts: [{name}]{more}}}], route: [{}]}}", to(host, port))
    };
    let rules = [
        matched("db.example", ", destinationSubnets: [10.0.0.0/8]", "x.example", 1),
        matched("db.example", "", "y.example", 2),
        matched("\"*.db.example\"", ", destinationSubnets: [10.0.0.0/8]", "x.example", 1),
    ];
    let tls = format!(
        "{}spec: {{hosts: [db.example, \"*.db.example\"], tls: [{}]}}\n",
        head("VirtualService", "v"),
        rules.join(", ")
    );
    let texts = [
        entry("db.example", 443, "TLS", ""),
        entry("x.example", 1, "TCP", ""),
        entry("y.example", 2, "TCP", ""),
        tls,
    ];
    let (listeners, report) =
        compile(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &workload(SIDECAR));
    assert_eq!(report.errors(), 0, "{report}");
    let Entrance::Tls(table) = &at(&listeners, 443).entrance else { panic!("{listeners:?}") };
    let to = |sni: &str, address: &str| {
        let row = table.find(Some(sni), || address.parse().ok());
        row.map(|row| row.route.targets[0].cluster.name.as_str())
    };
    assert_eq!(to("db.example", "10.1.2.3"), Some("outbound|1||x.example"));
    assert_eq!(to("db.example", "192.0.2.1"), Some("outbound|2||y.example"));
    assert_eq!(to("a.db.example", "10.1.2.3"), Some("outbound|1||x.example"));
    assert_eq!(to("a.db.example", "192.0.2.1"), None);
}

#[test]
fn r14_a_match_for_a_gateway_that_the_rule_is_not_bound_to_never_applies() {
    let texts = [
        entry("db.example", 3306, "TCP", ""),
        entry("x.example", 1, "TCP", ""),
        tcp("v", "db.example", "mesh", "{gateways: [other]}", &to("x.example", 1)),
    ];
    let (listeners, report) = compile(&[&texts[0], &texts[1], &texts[2]], &workload(SIDECAR));
    assert_eq!(upstream(at(&listeners, 3306)).name, "outbound|3306||db.example");
    assert!(warned(
        &report,
        "never applies: the gateways of the VirtualService do not include it: \"default/other\""
    ));
}

#[test]
fn r15_r16_a_virtual_service_that_may_not_bind_leaves_the_server_without_a_route() {
    let x = entry("x.example", 1, "TCP", "");
    let service = tcp("v", "a.com", "default/g", "", &to("x.example", 1));
    let in_dev = service.replace("{name: v}", "{name: v, namespace: dev}");
    let limited = gateway("g", &[&server(443, "prod/a.com", MUTUAL)]);
    assert!(
        errors(&[&x, &limited, &in_dev], &workload(INGRESS)).contains("expected a tcp rule that applies")
    );
    let open = gateway("g", &[&server(443, "a.com", MUTUAL)]);
    assert_eq!(compile(&[&x, &open, &in_dev], &workload(INGRESS)).1.errors(), 0);
    let private = service.replace("spec: {", "spec: {exportTo: [\".\"], ");
    assert!(errors(&[&x, &open, &private], &workload(INGRESS)).contains("expected a tcp rule that applies"));
}

#[test]
fn r17_the_port_of_an_endpoint_is_mapped_or_targeted_or_the_same() {
    let ports = |more: &str, endpoint: &str| {
        let text = format!(
            "{}spec: {{hosts: [db.example], ports: [{{number: 3306, name: tcp, protocol: TCP{more}}}], resolution: STATIC, endpoints: [{{address: 10.0.0.1{endpoint}}}]}}\n",
            head("ServiceEntry", "s")
        );
        let (listeners, report) = compile(&[&text], &workload(SIDECAR));
        assert_eq!(report.errors(), 0, "{report}");
        upstream(at(&listeners, 3306)).endpoints[0].port
    };
    assert_eq!(ports("", ""), 3306);
    assert_eq!(ports(", targetPort: 1000", ""), 1000);
    assert_eq!(ports(", targetPort: 1000", ", ports: {tcp: 2000}"), 2000);
}

pub fn rule(name: &str, namespace: &str, spec: &str) -> String {
    head("DestinationRule", name)
        .replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, namespace: {namespace}}}"))
        + &format!("spec: {{{spec}}}\n")
}

pub fn subset_route() -> String {
    tcp("v", "db.example", "mesh", "", "{destination: {host: db.example, subset: s, port: {number: 3306}}}")
}

#[test]
fn r18_the_clients_rule_wins_whole() {
    let service = entry("db.example", 3306, "TCP", "")
        .replace("{name: db-example}", "{name: db-example, namespace: service}");
    let (own, other) = (
        rule("own", "default", "host: db.example, trafficPolicy: {tls: {mode: DISABLE}}"),
        rule("other", "service", "host: db.example, subsets: [{name: s}]"),
    );
    let route = subset_route();
    assert_eq!(compile(&[&service, &other, &route], &workload(SIDECAR)).1.errors(), 0);
    let told = errors(&[&service, &own, &other, &route], &workload(SIDECAR));
    assert!(told.contains("expected a subset of the DestinationRule for db.example, found \"s\""), "{told}");
}

#[test]
fn r19_a_rule_of_a_third_namespace_is_not_used_and_says_so() {
    let third = rule("third", "elsewhere", "host: db.example, trafficPolicy: {tls: {mode: SIMPLE}}");
    let (listeners, report) = compile(&[&entry("db.example", 3306, "TCP", ""), &third], &workload(SIDECAR));
    assert!(upstream(at(&listeners, 3306)).originate.is_none());
    assert!(warned(
        &report,
        "rules are looked up in the namespaces of the client, of the service (default) and istio-system only"
    ));
}

#[test]
fn r20_rules_for_one_host_join_their_subsets_and_the_first_policy_counts() {
    let one = rule("a", "default", "host: db.example, subsets: [{name: s}]");
    let two = rule(
        "b",
        "default",
        "host: db.example, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 2s}}}, subsets: [{name: t}]",
    );
    let three = rule(
        "c",
        "default",
        "host: db.example, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 3s}}}",
    );
    let (listeners, report) = compile(
        &[&entry("db.example", 3306, "TCP", ""), &three, &two, &one, &subset_route()],
        &workload(SIDECAR),
    );
    assert_eq!(report.errors(), 0, "{report}");
    assert_eq!(upstream(at(&listeners, 3306)).connect_timeout.as_secs(), 2);
}

#[test]
fn r21_the_exact_rule_inherits_nothing_from_a_wildcard() {
    let wide = rule("a", "default", "host: \"*.example\", trafficPolicy: {tls: {mode: SIMPLE}}");
    let exact = rule(
        "b",
        "default",
        "host: db.example, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 2s}}}",
    );
    let entry = entry("db.example", 3306, "TCP", "");
    let (listeners, _) = compile(&[&entry, &wide], &workload(SIDECAR));
    assert!(upstream(at(&listeners, 3306)).originate.is_some());
    let (listeners, _) = compile(&[&entry, &wide, &exact], &workload(SIDECAR));
    assert!(upstream(at(&listeners, 3306)).originate.is_none());
}

#[test]
fn r22_r23_a_port_level_entry_is_taken_whole() {
    let rule = rule(
        "a",
        "default",
        "host: db.example, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s}}}, subsets: [{name: s, trafficPolicy: {portLevelSettings: [{port: {number: 3306}, connectionPool: {tcp: {idleTimeout: 5s}}, tls: {mode: SIMPLE}}]}}]",
    );
    let (listeners, report) =
        compile(&[&entry("db.example", 3306, "TCP", ""), &rule, &subset_route()], &workload(SIDECAR));
    assert_eq!(report.errors(), 0, "{report}");
    assert_eq!(upstream(at(&listeners, 3306)).connect_timeout.as_secs(), 10);
    assert!(warned(&report, "tcp.idleTimeout: has no effect"), "{:?}", report.warning_lines());
}

#[test]
fn two_ports_that_are_moved_to_wherever_the_kernel_likes_stay_two() {
    let [x, y] = two_backends();
    let anywhere = |port: u16| (port, ([127, 0, 0, 1], 0).into());
    let servers = [server(443, "a.com", MUTUAL), server(8443, "a.com", MUTUAL)];
    let gateway = gateway("g", &[&servers[0], &servers[1]]);
    let rules = [(443, to("x.example", 1)), (8443, to("y.example", 2))];
    let rules =
        rules.map(|(port, to)| tcp(&format!("v{port}"), "a.com", "g", &format!("{{port: {port}}}"), &to));
    let mut gateways = workload(INGRESS);
    gateways.listen = [443, 8443].map(anywhere).into();
    let (listeners, report) = compile(&[&x, &y, &gateway, &rules[0], &rules[1]], &gateways);
    assert_eq!(report.errors(), 0, "{report}");
    let found: Vec<_> =
        listeners.iter().map(|listener| (listener.port, behind(listener, "a.com").unwrap())).collect();
    assert_eq!(found, [(443, "outbound|1||x.example"), (8443, "outbound|2||y.example")]);
    let mut sidecar = workload(SIDECAR);
    sidecar.listen = [1, 2].map(anywhere).into();
    let (listeners, report) = compile(&[&x, &y], &sidecar);
    assert_eq!((report.errors(), listeners.len()), (0, 2), "{report}");
}
