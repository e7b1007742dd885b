//! The metrics: right in form, and in what they count.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::Scene;
use crate::http::{get, sample, wait_for_sample};
use crate::support::socket::echo;
use crate::support::{has, peer};

/// Has Prometheus' own tool judge the metrics.
pub fn assert_promtool_is_content(metrics: &str) {
    if !has(&["promtool"]) {
        return;
    }
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("promtool");
    promtool.stdin.take().expect("stdin").write_all(metrics.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{metrics}");
}

#[test]
fn the_metrics_are_as_prometheus_wants_them() {
    let scene = Scene::new(&[]);
    let mut client = peer::connect(scene.ingress.address, peer::good_client_config(&scene.certs));
    echo(&mut client, "open");
    let response = get(scene.admin, "/metrics");
    assert_eq!(response.status, 200);
    assert!(response.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{response:?}");
    assert_promtool_is_content(&response.body);
    let documented = include_str!("../../README.md");
    let names = response.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let undocumented: Vec<_> = names.filter(|name| !documented.contains(&format!("`{name}`"))).collect();
    assert_eq!(undocumented, [""; 0]);
}

#[test]
fn credentials_are_told_with_the_dates_of_their_certificates() {
    let scene = Scene::new(&["--credentials-poll", "100ms"]);
    let admin = scene.admin;
    let generation = "twinlock_credential_generation{credential=\"default\"}";
    assert_eq!(sample(admin, generation), Some(1.0));
    let body = get(admin, "/metrics").body;
    for file in ["tls.crt", "ca.crt"] {
        let name = "twinlock_certificate_not_after_seconds";
        let labels = format!("{name}{{credential=\"default\",file=\"{file}\",");
        assert!(body.lines().any(|line| line.starts_with(&labels)), "{labels}: {body}");
    }
    scene.certs.mint_again();
    wait_for_sample(admin, generation, |value| value > 1.0);
    std::fs::write(scene.certs.ingress().join("tls.crt"), "broken").expect("written");
    let refused = "twinlock_credential_reloads_total{credential=\"default\",result=\"refused\"}";
    wait_for_sample(admin, refused, |value| value > 0.0);
}

#[test]
fn handshakes_are_counted_by_what_was_agreed_on() {
    let scene = Scene::new(&[]);
    let mut client = peer::connect(scene.ingress.address, peer::good_client_config(&scene.certs));
    echo(&mut client, "open");
    let metrics = get(scene.admin, "/metrics").body;
    let made: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("twinlock_handshakes_total{")).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(made[0].contains("side=\"downstream\",version=\"TLSv1.3\",group=\""), "{made:?}");
    assert!(made[0].ends_with("} 1"), "{made:?}");
}

#[test]
fn the_process_is_told_of() {
    let scene = Scene::new(&[]);
    let value = |name: &str| sample(scene.admin, name).unwrap_or_else(|| panic!("no {name}"));
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") > 5.0);
    let before = value("process_cpu_seconds_total");
    assert!(before > 0.0);
    wait_for_sample(scene.admin, "process_cpu_seconds_total", |now| now > before);
    assert!(value("twinlock_log_lines_dropped_total{log=\"access\"}") < 1.0);
}
