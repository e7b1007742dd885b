//! What the compiler says of a text, without starting anything.

use std::sync::Arc;

use twinlock::config::compile::{Resolve, Workload};
use twinlock::config::report::Report;
use twinlock::config::{istio, resource, validate};
use twinlock::plan::cluster::Cluster;
use twinlock::plan::{Entrance, Host, Listener, Role};

/// The head of a resource, in the namespace `default`.
pub fn head(kind: &str, name: &str) -> String {
    let group = match kind {
        "PeerAuthentication" | "AuthorizationPolicy" => "security.istio.io/v1",
        "Service" => "v1",
        _ => "networking.istio.io/v1",
    };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}}}\n")
}

/// A workload that plays these roles, as Istio's stock gateways and a sidecar in `default`.
pub fn workload(roles: &[Role]) -> Workload {
    Workload::stock(roles)
}

/// Makes a host known.
pub fn known(mut workload: Workload, host: &str) -> Workload {
    let to = Host::Address([127, 0, 0, 1].into());
    workload.resolve.push(Resolve { host: host.into(), port: None, to, to_port: None });
    workload
}

/// The listeners that texts compile to, and what is said of them.
pub fn compile(texts: &[&str], workload: &Workload) -> (Vec<Arc<Listener>>, Report) {
    let named = texts.iter().enumerate().map(|(index, text)| (format!("{index}.yaml"), (*text).to_owned()));
    istio::listeners(named.collect(), workload)
}

/// The errors of a text, none of which are about how resources fit together.
pub fn errors(text: &str) -> Vec<String> {
    let (resources, mut report) = resource::read(vec![("in.yaml".into(), text.into())]);
    validate::resources(&resources, &mut report);
    report.to_string().lines().map(str::to_owned).collect()
}

/// A text is refused for exactly these reasons: each error contains its text, in the order of the file.
pub fn refused(text: &str, expected: &[&str]) {
    let found = errors(text);
    assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
    for part in expected {
        assert!(found.iter().any(|line| line.contains(part)), "expected {part:?} in {found:#?} for\n{text}");
    }
}

/// A text stands by itself.
pub fn accepted(text: &str) {
    assert_eq!(errors(text), Vec::<String>::new(), "{text}");
}

/// The warnings of a report.
pub fn warned(report: &Report, text: &str) -> bool {
    report.warning_lines().iter().any(|line| line.contains(text))
}

/// The listener of a port.
pub fn at(listeners: &[Arc<Listener>], port: u16) -> &Listener {
    let found = listeners.iter().find(|listener| listener.address.port() == port);
    found.unwrap_or_else(|| panic!("no listener on {port}"))
}

/// The only upstream of a listener's only route.
pub fn upstream(listener: &Listener) -> &Arc<Cluster> {
    match listener.routes()[..] {
        [route] => match &route.targets[..] {
            [target] => &target.cluster,
            targets => panic!("expected one upstream, found {targets:?}"),
        },
        ref routes => panic!("expected one route, found {routes:?}"),
    }
}

/// The upstream behind an SNI.
pub fn behind<'plan>(listener: &'plan Listener, sni: &str) -> Option<&'plan str> {
    let Entrance::Tls(table) = &listener.entrance else { panic!("expected TLS, found {listener:?}") };
    table.find(Some(sni), || None).map(|row| row.route.targets[0].cluster.name.as_str())
}
