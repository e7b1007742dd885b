//! What is read and what is refused: the P rows.

use crate::judge::{accepted, compile, head, refused, workload};
use twinlock::config::resource;
use twinlock::config::sources::Reading;
use twinlock::plan::Role;

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/istio/manifests");

/// The files of a folder of manifests.
pub fn manifests(folder: &str) -> Vec<String> {
    let Reading { texts, unreadable, .. } =
        twinlock::config::sources::read(&[format!("{MANIFESTS}/{folder}").into()]);
    assert!(unreadable.is_empty() && !texts.is_empty(), "{folder}");
    texts.into_iter().map(|(_, text)| text).collect()
}

fn compiled(folder: &str, roles: &[Role]) -> twinlock::config::report::Report {
    let texts = manifests(folder);
    compile(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &workload(roles)).1
}

#[test]
fn p1_the_tutorials_client_side_loads_and_says_that_its_round_robin_counts_for_nothing() {
    let report = compiled("tutorial/client", &[Role::Sidecar, Role::Egress]);
    assert_eq!(report.errors(), 0, "{report}");
    let ineffective =
        report.warning_lines().into_iter().filter(|line| line.contains("loadBalancer: has no effect"));
    assert_eq!(ineffective.count(), 2, "15443 and 13306: {:?}", report.warning_lines());
    assert!(
        report.render(false).contains("note: 1.yaml:21:7: IstioOperator: kind: passed over")
            || report.render(false).contains("IstioOperator")
    );
}

#[test]
fn p2_the_tutorials_server_side_loads_and_kubernetes_kinds_are_passed_over() {
    let report = compiled("tutorial/server", &[Role::Ingress]);
    assert_eq!(report.errors(), 0, "{report}");
    for kind in ["Deployment", "PersistentVolumeClaim", "IstioOperator"] {
        assert!(
            report.render(false).contains(&format!("passed over, it is not for a gateway: {kind}")),
            "{kind}"
        );
    }
}

#[test]
fn p3_http_rules_are_refused_each_by_name() {
    let report = compiled("tutorial/httpbin/client", &[Role::Sidecar, Role::Egress]);
    for name in ["vs-alias", "direct-httpbin-through-egress-gateway"] {
        assert!(
            report.to_string().contains(&format!("VirtualService default/{name}: spec.http: ")),
            "{report}"
        );
    }
    let report = compiled("tutorial/httpbin/server", &[Role::Ingress]);
    assert!(report.to_string().contains("VirtualService default/virtual-service: spec.http: "), "{report}");
}

#[test]
fn p4_the_versions_of_a_group_mean_the_same() {
    let texts = manifests("tutorial/server");
    let plans = ["v1alpha3", "v1beta1", "v1"].map(|version| {
        let texts: Vec<_> = texts
            .iter()
            .map(|text| {
                text.replace("networking.istio.io/v1alpha3", &format!("networking.istio.io/{version}"))
            })
            .collect();
        let (listeners, report) =
            compile(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &workload(&[Role::Ingress]));
        assert_eq!(report.errors(), 0, "{report}");
        format!("{listeners:?}")
    });
    assert!(plans[0] == plans[1] && plans[1] == plans[2]);
}

#[test]
fn p5_a_version_that_there_is_not_is_refused() {
    let text = head("AuthorizationPolicy", "a").replace("security.istio.io/v1", "security.istio.io/v1alpha3");
    refused(
        &text,
        &[
            "apiVersion: expected one of the versions v1, v1beta1 of AuthorizationPolicy, found \"security.istio.io/v1alpha3\"",
        ],
    );
}

#[test]
fn p6_a_gateway_of_another_group_is_foreign() {
    let text =
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {anything: 1}\n";
    accepted(text);
    let (resources, report) = resource::read(vec![("in.yaml".into(), text.into())]);
    assert!(resources.gateways.is_empty() && report.render(false).contains("passed over"));
}

#[test]
fn p7_a_field_in_the_wrong_style_is_refused_with_the_right_one() {
    let text = head("Gateway", "g")
        + "spec: {servers: [{port: {number: 1, name: a, protocol: TLS}, hosts: [a.b], tls: {mode: MUTUAL, credential_name: x}}]}";
    let (_, report) = resource::read(vec![("in.yaml".into(), text)]);
    let told = report.render(false);
    assert!(
        told.contains("spec.servers[0].tls.credential_name: expected a known field")
            && told.contains("help: did you mean \"credentialName\"?"),
        "{told}"
    );
}

#[test]
fn p8_p9_p10_values_of_the_wrong_type_are_refused() {
    let server = |port: &str, mode: &str| {
        head("Gateway", "g")
            + &format!(
                "spec: {{servers: [{{port: {{number: {port}, name: a, protocol: TLS}}, hosts: [a.b], tls: {{mode: {mode}, credentialName: x}}}}]}}"
            )
    };
    refused(
        &server("\"3306\"", "MUTUAL"),
        &["spec.servers[0].port.number: expected an integer, found the string \"3306\""],
    );
    refused(
        &server("1", "mutual"),
        &[
            "spec.servers[0].tls.mode: expected one of PASSTHROUGH, SIMPLE, MUTUAL, AUTO_PASSTHROUGH, ISTIO_MUTUAL, OPTIONAL_MUTUAL (did you mean MUTUAL?), found the string \"mutual\"",
        ],
    );
    let pool = |field: &str, value: &str| {
        head("DestinationRule", "d")
            + &format!(
                "spec: {{host: a.b, trafficPolicy: {{connectionPool: {{tcp: {{{field}: {value}}}}}}}}}"
            )
    };
    refused(&pool("connectTimeout", "0s"), &["expected a duration of at least 1ms"]);
    refused(&pool("connectTimeout", "500us"), &["expected a duration such as"]);
    refused(
        &pool("connectTimeout", "10"),
        &["expected a duration such as 10s, 250ms or 1h30m, found the number 10"],
    );
    accepted(&pool("idleTimeout", "0s"));
    let labels = head("Gateway", "g")
        + "spec: {selector: {version: 1}, servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: [a.b]}]}";
    refused(&labels, &["spec.selector.version: expected a string, found the number 1"]);
}

#[test]
fn p11_a_resource_that_is_there_twice_is_refused() {
    let text = head("Gateway", "g")
        + "spec: {servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: [a.b]}]}\n";
    let (_, report) = compile(&[&text, &text], &workload(&[Role::Ingress]));
    assert!(report.to_string().contains("1.yaml:3:18: Gateway default/g: metadata.name: expected each resource once, found it also at 0.yaml:3"), "{report}");
}

#[test]
fn p12_a_list_is_what_it_holds() {
    let text = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: {servers: []}}\n";
    refused(text, &["Gateway default/g: spec.servers: expected at least one server"]);
}

#[test]
fn p13_six_problems_of_a_gateway_are_told_at_once() {
    let text = head("Gateway", "g")
        + "spec:
  servers:
  - port: {number: 1, name: a, protocol: TCP}
    hosts: [a.b]
  - port: {number: 2, name: a, protocol: TCP}
    hosts: [a.b]
  - port: {number: 3, name: c, protocol: TCP}
    hosts: []
  - port: {number: 4, name: d, protocol: TCP}
    hosts: [mysql]
  - port: {number: 5, name: e, protocol: TLS}
    hosts: [a.b]
  - port: {number: 6, name: f, protocol: TCP, targetPort: 7}
    hosts: [a.b]
    tls: {mode: MUTUAL, credentialName: x}
";
    refused(
        &text,
        &[
            "servers[1].port.name: expected each port name once, found it twice: \"a\"",
            "servers[2].hosts: expected at least one host",
            "servers[3].hosts[0]: expected a full DNS name, found a short one: \"mysql\"",
            "servers[4].tls: expected TLS settings for a port of protocol TLS",
            "servers[5].tls: expected no TLS settings",
            "servers[5].port.targetPort: expected no targetPort",
        ],
    );
}

#[test]
fn p22_p23_other_parts_of_a_rule_are_checked() {
    let policy = |policy: &str| {
        head("DestinationRule", "d") + &format!("spec: {{host: a.b, trafficPolicy: {policy}}}")
    };
    refused(
        &policy("{outlierDetection: {consecutiveLocalOriginFailures: 3}}"),
        &["expected splitExternalLocalOriginErrors: true beside it"],
    );
    refused(&policy("{}"), &["spec.trafficPolicy: expected at least one field"]);
    refused(
        &(head("DestinationRule", "d") + "spec: {host: a.b, subsets: [{name: x}, {name: x}]}"),
        &["spec.subsets[1].name: expected each subset once, found it twice: \"x\""],
    );
}

#[test]
fn p24_seven_problems_of_service_entries_are_told_at_once() {
    let entry = |name: &str, spec: &str| format!("{}spec: {spec}\n---\n", head("ServiceEntry", name));
    let port = "ports: [{number: 1, name: a, protocol: TLS}]";
    let text = [
        entry("a", &format!("{{hosts: [\"*\"], {port}}}")),
        entry("b", &format!("{{hosts: [a.b], {port}, endpoints: [{{address: 10.0.0.1}}]}}")),
        entry("c", &format!("{{hosts: [a.b], {port}, resolution: DNS, addresses: [10.0.0.0/8]}}")),
        entry("d", &format!("{{hosts: [\"*.b\"], {port}, resolution: DNS}}")),
        entry("e", &format!("{{hosts: [a.b], {port}, resolution: DNS_ROUND_ROBIN, endpoints: [{{address: a.b}}, {{address: c.d}}]}}")),
        entry("f", "{hosts: [a.b], ports: [{number: 1, name: a, protocol: TLS}, {number: 1, name: b, protocol: TLS}]}"),
        entry("g", &format!("{{hosts: [a.b], {port}, resolution: STATIC, endpoints: [{{address: 10.0.0.1, ports: {{nope: 1}}}}]}}")),
    ]
    .concat();
    refused(
        &text,
        &[
            "ServiceEntry default/a: spec.hosts[0]: expected a host that is not *",
            "ServiceEntry default/b: spec.endpoints: expected no endpoints with resolution NONE",
            "ServiceEntry default/c: spec.addresses[0]: expected an address with this resolution",
            "ServiceEntry default/d: spec.hosts[0]: expected endpoints for a wildcard",
            "ServiceEntry default/e: spec.endpoints: expected at most one endpoint with DNS_ROUND_ROBIN, found 2",
            "ServiceEntry default/f: spec.ports[1].number: expected each port number once, found it twice: 1",
            "ServiceEntry default/g: spec.endpoints[0].ports.nope: expected the name of a port of the entry, found \"nope\"",
        ],
    );
}

#[test]
fn p25_several_hosts_need_something_that_tells_them_apart() {
    let entry = |protocol: &str, resolution: &str| {
        head("ServiceEntry", "e")
            + &format!(
                "spec: {{hosts: [a.b, c.d], ports: [{{number: 1, name: a, protocol: {protocol}}}], resolution: {resolution}}}"
            )
    };
    refused(&entry("TCP", "DNS"), &["expected one host for a port that is neither HTTP nor TLS"]);
    accepted(&entry("TCP", "NONE"));
    accepted(&entry("TLS", "DNS"));
}

fn service(spec: &str) -> String {
    head("VirtualService", "v") + &format!("spec: {spec}")
}

#[test]
fn p26_rules_that_cannot_route_are_refused() {
    refused(&service("{hosts: [a.b]}"), &["expected at least one of tcp, tls and http"]);
    refused(
        &service("{hosts: [a.b], tls: [{match: [{port: 1}], route: [{destination: {host: a.b}}]}]}"),
        &["sniHosts: expected at least one name"],
    );
    refused(
        &service("{hosts: [a.b], tls: [{match: [{sniHosts: [c.d]}], route: [{destination: {host: a.b}}]}]}"),
        &["expected a name that is covered by the hosts"],
    );
    refused(
        &service("{hosts: [a.b], tcp: [{route: [{destination: {host: a.b}, weight: -1}]}]}"),
        &["expected a weight of at least 0, found -1"],
    );
    refused(
        &service("{hosts: [a.b], tcp: [{route: [{destination: {host: a.b}}, {destination: {host: c.d}}]}]}"),
        &["expected weights above 0 among several destinations"],
    );
    refused(
        &service(
            "{hosts: [a.b], tcp: [{match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: a.b}}]}]}",
        ),
        &["expected no sourceSubnet, which Istio accepts and never enforces"],
    );
}

#[test]
fn p27_p28_hosts_must_not_overlap_and_a_star_is_for_gateways_only() {
    let tcp = "tcp: [{route: [{destination: {host: a.b}}]}]";
    refused(
        &service(&format!("{{hosts: [\"*.foo.com\", \"*.com\"], {tcp}}}")),
        &["expected hosts that do not overlap"],
    );
    refused(
        &service(&format!("{{hosts: [\"*\"], gateways: [mesh, g], {tcp}}}")),
        &["expected a host that is not * for sidecars"],
    );
    accepted(&service(&format!("{{hosts: [\"*\"], gateways: [g], {tcp}}}")));
}

#[test]
fn p29_export_to_says_each_namespace_once() {
    let exported = |to: &str| {
        service(&format!(
            "{{hosts: [a.b], exportTo: {to}, tcp: [{{route: [{{destination: {{host: a.b}}}}]}}]}}"
        ))
    };
    refused(&exported("[\"*\", a]"), &["expected nothing beside it"]);
    refused(&exported("[\".\", default]"), &["expected each namespace once, found it twice: \"default\""]);
    refused(&exported("[\"~\"]"), &["expected *, . or a namespace"]);
    accepted(&exported("[\".\", other]"));
}

#[test]
fn p30_peer_authentication_is_checked() {
    let policy = |spec: &str| head("PeerAuthentication", "p") + &format!("spec: {spec}");
    refused(&policy("{portLevelMtls: {1: {mode: STRICT}}}"), &["expected a selector with labels beside it"]);
    refused(
        &policy("{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}"),
        &["expected a port from 1 to 65535, found \"0\""],
    );
    refused(&policy("{mtls: {mode: BLAH}}"), &["expected one of UNSET, DISABLE, PERMISSIVE, STRICT"]);
}

#[test]
fn p31_authorization_policies_are_checked() {
    let policy = |spec: &str| head("AuthorizationPolicy", "p") + &format!("spec: {spec}");
    refused(&policy("{action: DENY}"), &["expected rules for an action that is not ALLOW"]);
    refused(&policy("{provider: {name: x}, rules: [{}]}"), &["expected no provider without action CUSTOM"]);
    refused(&policy("{rules: [{from: []}]}"), &["expected at least one entry, found an empty list"]);
    refused(
        &policy("{rules: [{from: [{source: {}}]}]}"),
        &["spec.rules[0].from[0].source: expected at least one field"],
    );
    refused(
        &policy("{rules: [{to: [{operation: {ports: [\"99999\"]}}]}]}"),
        &["expected a port from 1 to 65535, found \"99999\""],
    );
    refused(
        &policy("{rules: [{when: [{key: source.colour, values: [x]}]}]}"),
        &["expected one of source.ip"],
    );
    refused(
        &policy("{rules: [{from: [{source: {serviceAccounts: [a/b], principals: [x]}}]}]}"),
        &["expected serviceAccounts or principals and namespaces, found both"],
    );
    accepted(&policy("{rules: [{from: [{source: {principals: [\"cluster.local/ns/a/sa/b\"]}}]}]}"));
}
