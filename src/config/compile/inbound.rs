//! The inbound listeners of a sidecar: what PeerAuthentication asks of those who connect to the application.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::tls::MESH_PROTOCOL;
use super::{Compiler, ROOT_NAMESPACE, selects};
use crate::config::resource::Resource;
use crate::config::resource::security::{MtlsMode, MutualTls, PeerAuthentication};
use crate::plan::authorize::Rules;
use crate::plan::cluster::Cluster;
use crate::plan::identity::SubjectAltName;
use crate::plan::route::{HostPattern, SniTable};
use crate::plan::{
    Accept, ClientCertificate, DestinationRoute, Entrance, Listener, Origin, Role, Route, SniRoute, Target,
};

impl Compiler<'_> {
    /// The inbound listeners: one for each `--inbound`.
    pub fn inbound(&mut self, listeners: &mut Vec<Listener>) {
        self.check_served();
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
            let route = Arc::new(Route {
                rules: Rules::default(),
                targets: vec![Target { weight: 1, cluster: Arc::new(cluster) }],
                inner_hops: Vec::new(),
                origin: Origin("--inbound".into()),
            });
            let accept = Arc::new(Accept {
                credential: self.workload.credential.clone(),
                client: ClientCertificate::Required,
                client_names: vec![SubjectAltName::SpiffeBelow(format!(
                    "spiffe://{}/",
                    self.workload.trust_domain
                ))],
                alpn: MESH_PROTOCOL,
                tls: self.workload.tls.clone(),
            });
            let entrance = match mode {
                MtlsMode::Disable => {
                    Entrance::Plaintext(vec![DestinationRoute { networks: Vec::new(), route }])
                }
                MtlsMode::Permissive | MtlsMode::Unset => Entrance::Permissive(accept, route),
                MtlsMode::Strict => Entrance::Tls(SniTable::new(vec![SniRoute {
                    hosts: vec![HostPattern::Whatever],
                    accept: Some(accept),
                    route,
                    origin: origin.clone(),
                }])),
            };
            let address = self.address(*port, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            listeners.push(Listener { role: Role::Sidecar, address, port: *port, entrance, origin });
        }
    }

    /// A Service that selects this workload is served by it, so it must be known where the application is.
    fn check_served(&mut self) {
        let identity = self.identity(Role::Sidecar);
        for service in &self.resources.services {
            let selector = service.spec.selector.as_ref().filter(|selector| !selector.value.0.is_empty());
            if selector.is_none()
                || service.namespace != identity.namespace
                || !selects(selector, &identity.labels)
            {
                continue;
            }
            for port in &service.spec.ports {
                let number = port.target_port.unwrap_or(port.port.value);
                if !u16::try_from(number).is_ok_and(|number| self.workload.inbound.contains_key(&number)) {
                    let message = format!(
                        "expected --inbound {number}=HOST:PORT, because this workload serves the port, found none"
                    );
                    self.report.error(port.port.place, message);
                }
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
