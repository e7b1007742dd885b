//! Which DestinationRule applies, and what it says for a port and a subset.

use std::collections::{HashMap, HashSet};

use super::registry::Registry;
use super::{Compiler, Identity, ROOT_NAMESPACE, Workload, full_name, selects, visible, whole};
use crate::config::decode::{At, Labels};
use crate::config::resource::destination_rule::{
    ClientTls, ConnectionPool, DestinationRule, LoadBalancer, OutlierDetection, PortPolicy, ProxyProtocol,
    Subset, TcpPool, TrafficPolicy,
};
use crate::config::resource::{Resource, Resources};
use crate::config::validate::items;

/// The DestinationRules by namespace and host.
pub(super) struct Policies<'a> {
    exact: HashMap<(&'a str, String), Vec<&'a Resource<DestinationRule>>>,
    /// Namespace -> suffixes, the longest first.
    wildcards: HashMap<&'a str, Vec<(String, &'a Resource<DestinationRule>)>>,
    used: HashSet<(&'a str, &'a str)>,
}

/// What applies to one port and subset of a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy<'a> {
    pub balancer: Option<&'a LoadBalancer>,
    pub pool: Option<&'a ConnectionPool>,
    pub outlier: Option<&'a OutlierDetection>,
    pub tls: Option<&'a ClientTls>,
    pub tunnel: Option<crate::config::sources::Place>,
    pub proxy_protocol: Option<&'a ProxyProtocol>,
    /// The pool of the top level, whatever applies to the port: Istio reads what is about listeners from there.
    pub top_pool: Option<&'a TcpPool>,
    /// Whether the top level or the subset binds clients to endpoints by their address.
    pub by_source: bool,
    /// The labels of the subset.
    pub labels: Option<&'a Labels>,
    /// The rule whose parts these are.
    pub rule: Option<&'a Resource<DestinationRule>>,
    /// What is written at a higher level and has no effect because a port-level entry is taken whole.
    pub shadowed: Vec<crate::config::sources::Place>,
}

impl<'a> Policies<'a> {
    pub fn new(resources: &'a Resources, workload: &Workload) -> Self {
        let mut this = Self { exact: HashMap::new(), wildcards: HashMap::new(), used: HashSet::new() };
        for rule in &resources.destination_rules {
            let Some(host) = &rule.spec.host else { continue };
            let host = full_name(host, &rule.namespace, &workload.domain);
            if let Some(suffix) = host.strip_prefix('*') {
                this.wildcards.entry(&rule.namespace).or_default().push((suffix.to_owned(), rule));
            } else {
                this.exact.entry((&rule.namespace, host)).or_default().push(rule);
            }
        }
        for list in this.wildcards.values_mut() {
            list.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        }
        this
    }

    /// The rules for a host, all of one namespace, in order.
    fn rules(
        &self,
        host: &str,
        service_namespace: &str,
        who: &Identity,
    ) -> Vec<&'a Resource<DestinationRule>> {
        let own = who.namespace.as_str();
        let namespaces = [own, service_namespace, ROOT_NAMESPACE];
        for (index, namespace) in namespaces.into_iter().enumerate() {
            let seen = |rule: &&'a Resource<DestinationRule>| {
                let private = || items(rule.spec.export_to.as_ref()).iter().any(|text| text.value == ".");
                let shown = if index == 0 && own == ROOT_NAMESPACE {
                    private()
                } else {
                    visible(rule.spec.export_to.as_ref(), &rule.namespace, own)
                };
                let selector =
                    rule.spec.workload_selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
                let meant = selector.is_none() || (rule.namespace == own && selects(selector, &who.labels));
                shown && meant
            };
            let found = self.matching(namespace, host, &seen);
            if !found.is_empty() {
                // A rule for just these workloads beats the one for all.
                let narrow: Vec<_> =
                    found.iter().copied().filter(|rule| rule.spec.workload_selector.is_some()).collect();
                return if narrow.is_empty() { found } else { narrow };
            }
        }
        Vec::new()
    }

    fn matching(
        &self,
        namespace: &str,
        host: &str,
        seen: &dyn Fn(&&'a Resource<DestinationRule>) -> bool,
    ) -> Vec<&'a Resource<DestinationRule>> {
        let exact: Vec<_> = self
            .exact
            .get(&(namespace, host.to_owned()))
            .into_iter()
            .flatten()
            .copied()
            .filter(|rule| seen(rule))
            .collect();
        if !exact.is_empty() {
            return exact;
        }
        let wildcards = self.wildcards.get(namespace).map_or(&[][..], Vec::as_slice);
        let fits = |(suffix, rule): &&(String, &'a Resource<DestinationRule>)| {
            host.len() > suffix.len() && host.ends_with(suffix.as_str()) && seen(rule)
        };
        let Some((longest, _)) = wildcards.iter().find(fits) else { return Vec::new() };
        wildcards
            .iter()
            .filter(|(suffix, rule)| suffix == longest && seen(rule))
            .map(|(_, rule)| *rule)
            .collect()
    }

    /// What applies to a port and a subset; `Err` with the subsets that there are.
    pub fn effective(
        &mut self,
        host: &str,
        service_namespace: &str,
        who: &Identity,
        port: u16,
        subset: Option<&str>,
    ) -> Result<Policy<'a>, Vec<&'a str>> {
        let rules = self.rules(host, service_namespace, who);
        for rule in &rules {
            self.used.insert((&rule.namespace, &rule.name));
        }
        let top = rules.iter().find_map(|rule| Some((*rule, rule.spec.traffic_policy.as_ref()?)));
        let mut policy = top.map_or_else(Policy::default, |(rule, top)| base(rule, top, port));
        policy.rule = policy.rule.or(rules.first().copied());
        let Some(wanted) = subset else { return Ok(policy) };
        let subsets = || {
            rules
                .iter()
                .flat_map(|rule| items(rule.spec.subsets.as_ref()).iter().map(move |subset| (*rule, subset)))
        };
        let named = |subset: &&'a Subset| subset.name.as_ref().is_some_and(|name| name.value == wanted);
        let Some((rule, subset)) = subsets().find(|(_, subset)| named(subset)) else {
            return Err(subsets()
                .filter_map(|(_, subset)| subset.name.as_ref().map(|name| name.value.as_str()))
                .collect());
        };
        policy.labels = subset.labels.as_ref();
        if let Some(own) = &subset.traffic_policy {
            refine(&mut policy, rule, own, port);
        }
        Ok(policy)
    }

    pub fn is_used(&self, rule: &Resource<DestinationRule>) -> bool {
        self.used.contains(&(rule.namespace.as_str(), rule.name.as_str()))
    }
}

fn port_level(policy: &TrafficPolicy, port: u16) -> Option<&PortPolicy> {
    let is_for = |settings: &&PortPolicy| {
        let number = settings.port.as_ref().and_then(|selector| selector.number.as_ref());
        number.is_some_and(|number| number.value == i64::from(port))
    };
    items(policy.port_level_settings.as_ref()).iter().find(is_for)
}

/// What a port-level entry hides: it is taken whole, with defaults for what it does not say.
fn shadowed(policy: &TrafficPolicy, settings: &PortPolicy) -> Vec<crate::config::sources::Place> {
    [
        policy.load_balancer.as_ref().filter(|_| settings.load_balancer.is_none()).map(|part| part.place),
        policy
            .connection_pool
            .as_ref()
            .filter(|pool| settings.connection_pool.is_none() && is_of_ports(pool))
            .map(|part| part.place),
        policy
            .outlier_detection
            .as_ref()
            .filter(|_| settings.outlier_detection.is_none())
            .map(|part| part.place),
        policy.tls.as_ref().filter(|_| settings.tls.is_none()).map(|part| part.place),
        policy.proxy_protocol.as_ref().map(|part| part.place),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether a pool has anything that a port-level entry would hide.
fn is_of_ports(pool: &ConnectionPool) -> bool {
    pool.http.is_some()
        || pool.tcp.as_ref().is_none_or(|tcp| {
            tcp.max_connections.is_some() || tcp.connect_timeout.is_some() || tcp.tcp_keepalive.is_some()
        })
}

fn is_by_source(balancer: Option<&LoadBalancer>) -> bool {
    let hash = balancer.and_then(|balancer| balancer.consistent_hash.as_ref());
    hash.and_then(|hash| hash.use_source_ip.as_ref()).is_some_and(|at| at.value)
}

fn of_port<'a>(rule: &'a Resource<DestinationRule>, settings: &'a PortPolicy) -> Policy<'a> {
    Policy {
        balancer: settings.load_balancer.as_ref(),
        pool: settings.connection_pool.as_ref(),
        outlier: settings.outlier_detection.as_ref(),
        tls: settings.tls.as_ref(),
        rule: Some(rule),
        ..Policy::default()
    }
}

fn base<'a>(rule: &'a Resource<DestinationRule>, top: &'a TrafficPolicy, port: u16) -> Policy<'a> {
    let place = |part: &At<crate::config::decode::Opaque>| part.place;
    let tunnel = top.tunnel.as_ref().map(place);
    let top_pool = top.connection_pool.as_ref().and_then(|pool| pool.tcp.as_ref());
    let by_source = is_by_source(top.load_balancer.as_ref());
    if let Some(settings) = port_level(top, port) {
        let shadowed = shadowed(top, settings);
        return Policy { tunnel, top_pool, by_source, shadowed, ..of_port(rule, settings) };
    }
    Policy {
        top_pool,
        by_source,
        balancer: top.load_balancer.as_ref(),
        pool: top.connection_pool.as_ref(),
        outlier: top.outlier_detection.as_ref(),
        tls: top.tls.as_ref(),
        tunnel,
        proxy_protocol: top.proxy_protocol.as_ref(),
        rule: Some(rule),
        ..Policy::default()
    }
}

/// A subset's own policy: part by part, unless it has an entry for the port, which is taken whole.
fn refine<'a>(
    policy: &mut Policy<'a>,
    rule: &'a Resource<DestinationRule>,
    own: &'a TrafficPolicy,
    port: u16,
) {
    policy.by_source |= is_by_source(own.load_balancer.as_ref());
    if let Some(settings) = port_level(own, port) {
        let labels = policy.labels;
        let mut hidden = std::mem::take(&mut policy.shadowed);
        hidden.extend(shadowed(own, settings));
        *policy = Policy {
            shadowed: hidden,
            labels,
            tunnel: policy.tunnel,
            proxy_protocol: policy.proxy_protocol,
            top_pool: policy.top_pool,
            by_source: policy.by_source,
            ..of_port(rule, settings)
        };
        return;
    }
    policy.rule = Some(rule);
    policy.balancer = own.load_balancer.as_ref().or(policy.balancer);
    policy.pool = own.connection_pool.as_ref().or(policy.pool);
    policy.outlier = own.outlier_detection.as_ref().or(policy.outlier);
    policy.tls = own.tls.as_ref().or(policy.tls);
    policy.tunnel = own.tunnel.as_ref().map(|part| part.place).or(policy.tunnel);
    policy.proxy_protocol = own.proxy_protocol.as_ref().or(policy.proxy_protocol);
}

impl Compiler<'_> {
    /// Rules that can never apply: in a namespace where nobody looks, or for a host that nobody knows.
    pub fn check_unused_rules(&mut self) {
        for rule in &self.resources.destination_rules {
            let Some(host) = rule.spec.host.as_ref().filter(|_| !self.policies.is_used(rule)) else {
                continue;
            };
            let name = full_name(host, &rule.namespace, &self.workload.domain);
            if name.starts_with('*') {
                continue;
            }
            let definers = self.registry.namespaces(&name);
            let clients = self.workload.roles.values().map(|identity| identity.namespace.as_str());
            let looked_at = clients.chain([ROOT_NAMESPACE]).any(|namespace| namespace == rule.namespace);
            if definers.is_empty() && !is_resolved(self.workload, &name) {
                let meant = crate::config::report::similar(&name, Registry::hosts(&self.registry));
                let meant = meant.map(|meant| format!(", perhaps {meant} is meant")).unwrap_or_default();
                self.report
                    .warning(host.place, format!("no ServiceEntry or Service has this host{meant}: {name}"));
            } else if !looked_at && !definers.contains(&rule.namespace.as_str()) && !definers.is_empty() {
                self.report.warning(whole(rule), format!("has no effect: rules are looked up in the namespaces of the client, of the service ({}) and {ROOT_NAMESPACE} only", definers.join(", ")));
            }
        }
    }
}

fn is_resolved(workload: &Workload, host: &str) -> bool {
    workload.resolve.iter().any(|resolve| resolve.host == host)
}
