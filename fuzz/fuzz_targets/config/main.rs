//! Istio's resources, as whatever text: read, judged by themselves, compiled together.
//!
//! What must hold: it ends; the same text says the same again; the report can be shown; and a plan is there only
//! without errors, every route of it with somewhere to go.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinlock::config::compile::Workload;
use twinlock::config::istio;
use twinlock::plan::Role;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (report, plan) = judge(text);
    assert_eq!((report, plan), judge(text), "the same text says the same");
});

fn judge(text: &str) -> (String, String) {
    let workload = Workload::stock(&[Role::Sidecar, Role::Egress, Role::Ingress]);
    let (listeners, report) = istio::listeners(vec![("input.yaml".into(), text.into())], &workload);
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
