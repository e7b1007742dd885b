//! What Istio's resources cost: compiling ten thousand of them, and finding the route of a connection among a
//! thousand names. Plain timing: the median of several runs is all that is wanted.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark reads the clock and prints")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use twinlock::config::compile::Workload;
use twinlock::config::istio;
use twinlock::plan::{Entrance, Role};

/// Links, each of a ServiceEntry, a DestinationRule, a Gateway and a VirtualService.
const LINKS: usize = 2500;
const RUNS: usize = 7;
const NAMES: usize = 1000;
const LOOKUPS: usize = 200_000;

fn main() {
    let text = resources(LINKS, |link| 20_000 + link % 100);
    let mut times: Vec<Duration> = (0..RUNS).map(|_| time(|| drop(black_box(compiled(&text))))).collect();
    times.sort();
    println!(
        "compile {} resources: {:?} (median of {RUNS}, slowest {:?})",
        LINKS * 4,
        times[RUNS / 2],
        times[RUNS - 1]
    );

    let text = resources(NAMES, |_| 443);
    let listeners = compiled(&text);
    let Entrance::Tls(table) = &listeners[0].entrance else { unreachable!("the gateway speaks TLS") };
    let names: Vec<_> = (0..NAMES).map(|link| format!("host-{link}.example")).collect();
    let total = time(|| {
        for lookup in 0..LOOKUPS {
            let row = black_box(table.find(Some(&names[lookup % NAMES]), || None));
            black_box(row.and_then(|row| row.route.choose(lookup as u64)));
        }
    });
    let each = total / u32::try_from(LOOKUPS).unwrap_or(u32::MAX);
    println!("route among {} names: {each:?} a connection", table.rows().len());
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn resources(links: usize, port: impl Fn(usize) -> usize) -> String {
    let mut text = String::new();
    for link in 0..links {
        let head = |kind: &str| {
            format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x-{link}}}\n")
        };
        let host = format!("host-{link}.example");
        let port = port(link);
        let _ = writeln!(
            text,
            "{}spec:\n  hosts: [{host}]\n  ports: [{{number: 3306, name: tcp, protocol: TLS}}]\n  resolution: STATIC\n  endpoints: [{{address: 10.0.0.1}}]\n---",
            head("ServiceEntry")
        );
        let _ = writeln!(
            text,
            "{}spec:\n  host: {host}\n  trafficPolicy:\n    tls: {{mode: MUTUAL, credentialName: c-{link}, sni: {host}}}\n---",
            head("DestinationRule")
        );
        let _ = writeln!(
            text,
            "{}spec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  - port: {{number: {port}, name: tls, protocol: TLS}}\n    hosts: [{host}]\n    tls: {{mode: MUTUAL, credentialName: s-{link}}}\n---",
            head("Gateway")
        );
        let _ = writeln!(
            text,
            "{}spec:\n  hosts: [{host}]\n  gateways: [x-{link}]\n  tcp:\n  - route:\n    - destination: {{host: {host}, port: {{number: 3306}}}}\n---",
            head("VirtualService")
        );
    }
    text
}

fn compiled(text: &str) -> Vec<std::sync::Arc<twinlock::plan::Listener>> {
    let texts = vec![("bench.yaml".into(), text.to_owned())];
    let (listeners, report) = istio::listeners(texts, &Workload::stock(&[Role::Ingress]));
    assert!(report.is_empty(), "{report}");
    listeners
}
