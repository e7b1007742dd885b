//! Hops between two roles of one process, and what the command line says of names and places.

use twinlock::plan::Role;

use crate::judge::{at, compile, head, upstream, warned, workload};
use crate::routing::{SIDECAR, entry, errors, rule, to};
use crate::support::{self, path};

const BOTH: &[Role] = &[Role::Sidecar, Role::Egress];
const EGRESS: &str = "istio-egressgateway.istio-system.svc.cluster.local";

/// The article's way out: a rule for sidecars to the gateway, and one for the gateway to the service.
fn way_out(to_gateway: &str) -> [String; 3] {
    let routes = format!(
        "tcp: [{{match: [{{gateways: [mesh], port: 3306}}], route: [{to_gateway}]}}, {{match: [{{gateways: [out], port: 15443}}], route: [{}]}}]",
        to("db.example", 13306)
    );
    [
        entry("db.example", 3306, "TCP", "")
            .replace("protocol: TCP}]", "protocol: TCP}, {number: 13306, name: tls, protocol: TLS}]"),
        rule(
            "d",
            "default",
            &format!("host: {EGRESS}, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL, sni: db.example}}}}"),
        ),
        head("VirtualService", "v")
            + &format!("spec: {{hosts: [db.example], gateways: [mesh, out], {routes}}}\n"),
    ]
}

fn gateway(tls: &str) -> String {
    format!(
        "{}spec: {{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 15443, name: tls, protocol: TLS}}, hosts: [db.example], tls: {tls}}}]}}\n",
        head("Gateway", "out")
    )
}

fn all<'text>(texts: &'text [String], more: &[&'text str]) -> Vec<&'text str> {
    texts.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn a_hop_to_a_gateway_that_the_process_plays_is_taken_inside_it() {
    let texts = way_out(&to(EGRESS, 15443));
    let defined = gateway("{mode: ISTIO_MUTUAL}");
    let (listeners, report) = compile(&all(&texts, &[&defined]), &workload(BOTH));
    assert_eq!(report.errors(), 0, "{report}");
    let route = at(&listeners, 3306).routes()[0];
    assert_eq!(upstream(at(&listeners, 3306)).name, "outbound|13306||db.example");
    let [hop] = &route.inner_hops[..] else { panic!("{route:?}") };
    assert_eq!(
        (hop.gateway.as_str(), hop.port, hop.sni.as_deref()),
        ("default/out", 15443, Some("db.example"))
    );
    // Where no file defines it, its rules for the port apply all the same, and that is told.
    let (listeners, report) = compile(&all(&texts, &[]), &workload(BOTH));
    assert_eq!(report.errors(), 0, "{report}");
    assert_eq!(upstream(at(&listeners, 3306)).name, "outbound|13306||db.example");
    assert!(warned(
        &report,
        "no file defines this Gateway; the hop to it is taken inside this process, by its rules for port 15443"
    ));
    // As a process of its own it must be defined.
    let told = errors(&all(&texts, &[]), &workload(&[Role::Egress]));
    assert!(told.contains("expected a Gateway that some file defines, found \"default/out\""), "{told}");
    let told = errors(&all(&texts, &[]), &workload(SIDECAR));
    assert!(told.contains(&format!("found \"{EGRESS}\"")), "{told}");
}

#[test]
fn a_hop_inside_the_process_leaves_out_nothing_that_either_end_would_have_checked() {
    let texts = way_out(&to(EGRESS, 15443));
    for tls in [
        "{mode: MUTUAL, credentialName: c}",
        "{mode: ISTIO_MUTUAL, subjectAltNames: [\"spiffe://cluster.local/ns/a/sa/b\"]}",
        "{mode: SIMPLE, credentialName: c}",
    ] {
        let told = errors(&all(&texts, &[&gateway(tls)]), &workload(BOTH));
        assert!(told.contains("expected ISTIO_MUTUAL at both ends of a hop"), "{tls}: {told}");
    }
    let plain = texts[1].replace("{mode: ISTIO_MUTUAL, sni: db.example}", "{mode: DISABLE}");
    let told = errors(&[&texts[0], &plain, &texts[2]], &workload(BOTH));
    assert!(told.contains("expected ISTIO_MUTUAL with an sni in the DestinationRule for a hop"), "{told}");
    let shared = |host: &str, port| to(host, port).replacen("{destination", "{weight: 1, destination", 1);
    let texts = way_out(&format!("{}, {}", shared(EGRESS, 15443), shared("db.example", 13306)));
    let told = errors(&all(&texts, &[&gateway("{mode: ISTIO_MUTUAL}")]), &workload(BOTH));
    assert!(told.contains("expected one destination for a hop that is taken inside this process"), "{told}");
}

#[test]
fn a_policy_of_a_gateway_inside_the_process_is_refused_because_nobody_is_left_to_judge() {
    let texts = way_out(&to(EGRESS, 15443));
    let defined = gateway("{mode: ISTIO_MUTUAL}");
    let policy = |selector: &str| crate::policies::policy("p", &format!("{selector}rules: [{{}}]"));
    let everybody = policy("");
    let told = errors(&all(&texts, &[&defined, &everybody]), &workload(BOTH));
    assert!(
        told.contains("expected no policy for a hop that is taken inside this process, where nobody is left to judge, found AuthorizationPolicy istio-system/p (ALLOW, 1 rule)"),
        "{told}"
    );
    let other = policy("selector: {matchLabels: {istio: ingressgateway}}, ");
    assert_eq!(compile(&all(&texts, &[&defined, &other]), &workload(BOTH)).1.errors(), 0);
}

/// What `explain` says of a sidecar with one service, with these options.
fn explained(more: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("e.yaml"), entry("db.example", 3306, "TCP", "")).expect("written");
    let given = ["explain", "--config", path(folder.path()), "--role=sidecar"];
    support::run(&[&given[..], more].concat())
}

#[test]
fn a_place_that_is_told_counts_more_than_the_files_and_the_port_that_is_named_more_than_none() {
    let place = |more: &[&str]| {
        let (code, out, err) = explained(more);
        assert_eq!((code, err.as_str()), (0, ""));
        let line = out.lines().find(|line| line.contains("goes to")).expect("a route").to_owned();
        line.split(" at ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a place").to_owned()
    };
    assert_eq!(place(&[]), "10.0.0.1:3306");
    assert_eq!(place(&["--resolve=db.example=192.0.2.1"]), "192.0.2.1:3306");
    assert_eq!(place(&["--resolve=db.example=192.0.2.1:9"]), "192.0.2.1:9");
    assert_eq!(
        place(&["--resolve=db.example=192.0.2.1", "--resolve=db.example:3306=mysql.lan:9"]),
        "mysql.lan:9"
    );
    assert_eq!(place(&["--resolve=db.example:13306=192.0.2.1"]), "10.0.0.1:3306");
}

#[test]
fn what_is_told_in_the_wrong_form_is_refused_with_the_right_one() {
    for (flag, expected) in [
        ("--resolve=db.example", "expected HOST[:PORT]=ADDRESS[:PORT], found \"db.example\""),
        ("--resolve=db.example:x=10.0.0.1", "expected HOST[:PORT]=ADDRESS[:PORT]"),
        ("--listen=3306", "expected PORT=IP:PORT, found \"3306\""),
        ("--inbound=0=127.0.0.1:1", "expected PORT=HOST:PORT, found \"0=127.0.0.1:1\""),
        ("--labels=app", "expected KEY=VALUE, found \"app\""),
        ("--labels=server:app=db", "expected sidecar, egress or ingress, found \"server\""),
        ("--role=gateway", "expected sidecar, egress or ingress, found \"gateway\""),
        ("--trust-domain=a_/b", "--trust-domain: expected a DNS name"),
        ("--workload-credential=../w", "expected a plain name"),
    ] {
        let (code, out, err) = explained(&[flag]);
        assert_eq!((code, out.as_str()), (2, ""), "{flag}: {err}");
        assert!(err.contains(expected), "{flag}: {err}");
    }
}

#[test]
fn each_role_has_its_own_labels_and_namespace_where_that_is_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let gateways = gateway("{mode: PASSTHROUGH}").replace("istio: egressgateway", "team: payments");
    let texts = [
        entry("db.example", 3306, "TCP", "")
            .replace("{name: db-example}", "{name: db-example, namespace: pay}"),
        gateways.replace("{name: out}", "{name: out, namespace: pay}"),
        head("VirtualService", "v").replace("{name: v}", "{name: v, namespace: pay}")
            + &format!(
                "spec: {{hosts: [db.example], gateways: [out], exportTo: [\".\"], tls: [{{match: [{{sniHosts: [db.example]}}], route: [{}]}}]}}\n",
                to("db.example", 3306)
            ),
    ];
    std::fs::write(folder.path().join("e.yaml"), texts.join("---\n")).expect("written");
    let told = |more: &[&str]| {
        let given = ["explain", "--config", path(folder.path()), "--role=egress"];
        support::run(&[&given[..], more].concat())
    };
    let (code, out, err) = told(&["--labels=egress:team=payments", "--namespace=egress:pay"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("egress listens on 0.0.0.0:15443") && out.contains("outbound|3306||db.example"),
        "{out}"
    );
    // Of another namespace, it does not see what is exported to its own alone.
    let (code, _, err) = told(&["--labels=team=payments"]);
    assert!(code == 2 && err.contains("expected a tls rule that applies to this server"), "{err}");
    // And without the label the Gateway is not for it.
    let (code, _, err) = told(&["--namespace=pay"]);
    assert!(code == 2 && err.contains("expected something to listen on for this role"), "{err}");
}
