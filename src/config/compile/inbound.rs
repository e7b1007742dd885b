//! The inbound listeners of a sidecar: what PeerAuthentication asks of those who connect to the application.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Compiler, ROOT_NAMESPACE, selects};
use crate::config::resource::Resource;
use crate::config::resource::security::{MtlsMode, MutualTls, PeerAuthentication};
use crate::config::resource::service::{Port, Service};
use crate::plan::authorize::Rules;
use crate::plan::cluster::Cluster;
use crate::plan::identity::SubjectAltName;
use crate::plan::route::{HostPattern, SniTable};
use crate::plan::{Accept, DestinationRoute, Entrance, Listener, Origin, Role, Route, SniRoute, Target};

/// Protocols whose server speaks first: as ports are called, and their numbers (IANA).
const SERVER_FIRST: &[(&str, &[u16])] = &[
    ("mysql", &[3306]),
    ("mariadb", &[]),
    ("smtp", &[25, 587]),
    ("ftp", &[21]),
    ("ssh", &[22]),
    ("pop3", &[110]),
    ("imap", &[143]),
];

impl<'a> Compiler<'a> {
    /// The inbound listeners: one for each `--inbound`.
    pub fn inbound(&mut self, listeners: &mut Vec<Listener>) {
        self.check_served();
        if self.workload.inbound.is_empty() {
            return;
        }
        let policies = self.authorization(Role::Sidecar);
        for (port, (host, app_port)) in &self.workload.inbound {
            let cluster = Cluster::single(
                Role::Sidecar,
                format!("inbound|{port}||"),
                host.clone(),
                *app_port,
                self.workload.connect_timeout,
                "--inbound",
            );
            let (mode, origin) = self.mtls(*port);
            if matches!(mode, MtlsMode::Permissive | MtlsMode::Unset) {
                self.warn_of_silence(*port);
            }
            let route = Arc::new(Route {
                rules: Rules { policies: policies.clone(), ..Rules::default() },
                targets: vec![Target { weight: 1, cluster: Arc::new(cluster) }],
                inner_hops: Vec::new(),
                origin: Origin("--inbound".into()),
            });
            let mesh = format!("spiffe://{}/", self.workload.trust_domain);
            let accept = Arc::new(Accept {
                client_names: vec![SubjectAltName::SpiffeBelow(mesh)],
                ..self.mesh_accept()
            });
            let entrance = match mode {
                MtlsMode::Disable => {
                    Entrance::Plaintext(vec![DestinationRoute { networks: Vec::new(), route }])
                }
                MtlsMode::Permissive | MtlsMode::Unset => Entrance::Permissive(accept, route),
                MtlsMode::Strict => Entrance::Tls(SniTable::new(vec![SniRoute {
                    hosts: vec![HostPattern::Whatever],
                    networks: Vec::new(),
                    accept: Some(accept),
                    route,
                    origin: origin.clone(),
                }])),
            };
            let address = self.address(*port, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            listeners.push(Listener { role: Role::Sidecar, address, port: *port, entrance, origin });
        }
    }

    /// PERMISSIVE awaits the client's first bytes, and a client of some protocols awaits the server's.
    fn warn_of_silence(&mut self, port: u16) {
        let served = self.served().find(|served| served.target() == i64::from(port));
        let by_name = served.and_then(|served| {
            let named = [served.app_protocol.as_ref(), served.name.as_ref()].into_iter().flatten();
            let words = named.flat_map(|text| text.split('-').map(str::to_ascii_lowercase));
            let mut known = words.filter_map(|word| SERVER_FIRST.iter().find(|(name, _)| *name == word));
            known.next()
        });
        let known = by_name.or_else(|| SERVER_FIRST.iter().find(|(_, numbers)| numbers.contains(&port)));
        let Some((name, _)) = known else { return };
        let message = format!(
            "plaintext clients wait here for --handshake-timeout and are closed, because the server speaks first and PERMISSIVE looks at the client's first bytes; STRICT and DISABLE do not: port {port}, {name}"
        );
        match served.map(|served| served.port.place) {
            Some(place) => self.warn(place, message),
            None => self.report.caution("--inbound", message),
        }
    }

    /// The ports of Services that select this workload.
    fn served(&self) -> impl Iterator<Item = &'a Port> + use<'a> {
        let identity = self.identity(Role::Sidecar);
        let serving = move |service: &&Resource<Service>| {
            let selector = service.spec.selector.as_ref().filter(|selector| !selector.value.0.is_empty());
            selector.is_some()
                && service.namespace == identity.namespace
                && selects(selector, &identity.labels)
        };
        self.resources.services.iter().filter(serving).flat_map(|service| &service.spec.ports)
    }

    /// A Service that selects this workload is served by it, so it must be known where the application is.
    fn check_served(&mut self) {
        for port in self.served() {
            let number = port.target();
            if !u16::try_from(number).is_ok_and(|number| self.workload.inbound.contains_key(&number)) {
                let message = format!(
                    "expected --inbound {number}=HOST:PORT, because this workload serves the port, found none"
                );
                self.report.error(port.port.place, message);
            }
        }
    }

    /// The mode of a port, and who says so: the narrowest scope that says anything.
    fn mtls(&self, port: u16) -> (MtlsMode, Origin) {
        let identity = self.identity(Role::Sidecar);
        let own = |policy: &&Resource<PeerAuthentication>| policy.namespace == identity.namespace;
        let labels = |policy: &Resource<PeerAuthentication>| {
            policy
                .spec
                .selector
                .as_ref()
                .and_then(|selector| selector.match_labels.clone())
                .filter(|labels| !labels.value.0.is_empty())
        };
        let workload = self.resources.peer_authentications.iter().filter(own).find(|policy| {
            let labels = labels(policy);
            labels.is_some() && selects(labels.as_ref(), &identity.labels)
        });
        let of = |mtls: Option<&MutualTls>| {
            mtls.and_then(|mtls| mtls.mode.as_ref())
                .map(|mode| mode.value.0)
                .filter(|mode| *mode != MtlsMode::Unset)
        };
        if let Some(policy) = workload {
            let ports = policy.spec.port_level_mtls.as_ref().map_or(&[][..], |ports| &ports.value.0);
            let of_port = ports.iter().find(|(name, _)| name.parse() == Ok(port));
            let mode = of(of_port.map(|(_, mtls)| mtls)).or(of(policy.spec.mtls.as_ref()));
            if let Some(mode) = mode {
                return (mode, self.origin(policy.place));
            }
        }
        match self.scope(&identity.namespace) {
            Some((mode, policy)) => (mode, self.origin(policy.place)),
            None => (
                MtlsMode::Permissive,
                Origin("--inbound, PERMISSIVE unless a PeerAuthentication says otherwise".into()),
            ),
        }
    }

    /// The policy of a namespace, else that of the mesh.
    fn scope(&self, namespace: &str) -> Option<(MtlsMode, &Resource<PeerAuthentication>)> {
        let wide = |policy: &Resource<PeerAuthentication>| {
            policy
                .spec
                .selector
                .as_ref()
                .and_then(|selector| selector.match_labels.as_ref())
                .is_none_or(|labels| labels.value.0.is_empty())
        };
        let of = |namespace: &str| {
            let policies = self.resources.peer_authentications.iter();
            let policy =
                policies.filter(|policy| policy.namespace == namespace).find(|policy| wide(policy))?;
            let mode = policy.spec.mtls.as_ref()?.mode.as_ref()?.value.0;
            (mode != MtlsMode::Unset).then_some((mode, policy))
        };
        of(namespace).or_else(|| of(ROOT_NAMESPACE))
    }

    /// What is asked of all workloads of a namespace.
    pub fn mtls_of_namespace(&self, namespace: &str) -> Option<MtlsMode> {
        self.scope(namespace).map(|(mode, _)| mode)
    }
}
