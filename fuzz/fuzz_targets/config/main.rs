//! Istio's resources, as whatever text: read, judged by themselves, compiled together.
//!
//! What must hold: it ends; the same text says the same again; the report can be shown; and a plan is there only
//! without errors, every route of it with somewhere to go.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use twinlock::config::compile::{self, Identity, Workload};
use twinlock::config::{resource, validate};
use twinlock::plan::policy::TlsPolicy;
use twinlock::plan::{CredentialName, Role};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (report, plan) = judge(text);
    assert_eq!((report, plan), judge(text), "the same text says the same");
});

fn judge(text: &str) -> (String, String) {
    let (resources, mut report) = resource::read(vec![("input.yaml".into(), text.into())]);
    validate::resources(&resources, &mut report);
    let listeners = if report.errors() == 0 {
        compile::listeners(&resources, &workload(), &mut report)
    } else {
        Vec::new()
    };
    if report.errors() == 0 {
        for route in listeners.iter().flat_map(|listener| listener.routes()) {
            assert!(!route.targets.is_empty(), "a route without an upstream");
            assert!(route.targets.iter().all(|target| !target.cluster.endpoints.is_empty()));
            assert!(route.choose(7).is_some());
        }
    }
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(json["errors"], report.errors());
    assert!(!report.render(false).contains('\u{1b}'), "nothing of the text steers a terminal");
    (report.render(false), format!("{listeners:?}").lines().take(100).collect())
}

fn workload() -> Workload {
    let identity = |namespace: &str, label: &str| Identity {
        namespace: namespace.into(),
        labels: BTreeMap::from([("istio".to_owned(), label.to_owned())]),
    };
    Workload {
        roles: BTreeMap::from([
            (Role::Sidecar, identity("default", "none")),
            (Role::Egress, identity("istio-system", "egressgateway")),
            (Role::Ingress, identity("istio-system", "ingressgateway")),
        ]),
        trust_domain: "cluster.local".into(),
        domain: "cluster.local".into(),
        credential: CredentialName("workload".into()),
        resolve: Vec::new(),
        listen: BTreeMap::new(),
        inbound: BTreeMap::new(),
        tls: TlsPolicy::default(),
        connect_timeout: Duration::from_secs(10),
    }
}
