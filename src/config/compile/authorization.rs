//! AuthorizationPolicies -> what the plan evaluates: those of the workload's namespace and of the root, each whose
//! selector means the workload. What only HTTP could show is warned of by name, and never lets in more: it drops
//! the whole rule of an ALLOW, and only itself elsewhere.

use std::sync::Arc;

use super::{Compiler, ROOT_NAMESPACE, selects};
use crate::config::decode::{At, Strings};
use crate::config::resource::Resource;
use crate::config::resource::security::{self, AuthorizationPolicy, Operation, Source};
use crate::config::sources::Place;
use crate::config::validate::{items, network};
use crate::plan::Role;
use crate::plan::rbac::{Action, Condition, Conjunction, Force, Name, Policy, Rule, RuleName, Text, Values};

/// The annotation by which a policy is only tried.
const DRY_RUN: &str = "istio.io/dry-run";

/// What stands for the mesh's own trust domain, whatever that is.
const ANY_MESH: &str = "cluster.local/";

impl<'a> Compiler<'a> {
    /// Every policy that guards the listeners of a role.
    pub fn authorization(&mut self, role: Role) -> Arc<[Policy]> {
        if let Some(known) = self.guards.get(&role) {
            return known.clone();
        }
        let identity = self.identity(role);
        let own = [identity.namespace.as_str(), ROOT_NAMESPACE];
        let applies = |policy: &&'a Resource<AuthorizationPolicy>| {
            let selector = policy.spec.selector.as_ref();
            own.contains(&policy.namespace.as_str())
                && selects(selector.and_then(|selector| selector.match_labels.as_ref()), &identity.labels)
        };
        let applying: Vec<_> = self.resources.authorization_policies.iter().filter(applies).collect();
        let policies: Arc<[Policy]> =
            applying.into_iter().filter_map(|policy| self.authorization_policy(policy)).collect();
        self.guards.insert(role, policies.clone());
        policies
    }

    fn authorization_policy(&mut self, policy: &Resource<AuthorizationPolicy>) -> Option<Policy> {
        let spec = &policy.spec;
        if let Some(targets) = spec.target_ref.as_ref().or(spec.target_refs.as_ref()) {
            self.refuse(targets.place, "expected a selector, found an object of the Kubernetes Gateway API");
            return None;
        }
        let action = match spec.action.as_ref().map_or(security::Action::Allow, |action| action.value.0) {
            security::Action::Allow => Action::Allow,
            security::Action::Deny => Action::Deny,
            security::Action::Audit => Action::Audit,
            security::Action::Custom => {
                let place = spec.action.as_ref().map_or(policy.place, |action| action.place);
                self.refuse(
                    place,
                    "expected ALLOW, DENY or AUDIT, found CUSTOM, whose provider nobody here can ask",
                );
                return None;
            }
        };
        let force = self.force(policy)?;
        let mut rules = Vec::new();
        for (index, rule) in items(spec.rules.as_ref()).iter().enumerate() {
            let name = format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name);
            let mut reader = Reader { compiler: self, namespace: &policy.namespace, action, http: false };
            let parts = reader.parts(rule);
            if !(reader.http && action == Action::Allow) {
                rules.push(Rule { name: Arc::new(RuleName(name)), parts });
            }
        }
        let title = format!("{}/{}", policy.namespace, policy.name);
        Some(Policy { title, action, force, rules, origin: self.origin(super::whole(policy)) })
    }

    fn force(&mut self, policy: &Resource<AuthorizationPolicy>) -> Option<Force> {
        let annotations = policy.meta.annotations.as_ref().map_or(&[][..], |table| &table.value.0);
        let Some((_, value)) = annotations.iter().find(|(name, _)| name.value == DRY_RUN) else {
            return Some(Force::Enforced);
        };
        match value.as_str() {
            "true" => Some(Force::DryRun),
            "false" => Some(Force::Enforced),
            other => {
                self.refuse(value.place, format!("expected \"true\" or \"false\", found {other:?}"));
                None
            }
        }
    }

    /// Tells an error once, however many roles it concerns.
    fn refuse(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        if self.told.insert((place, message.clone())) {
            self.error(place, message);
        }
    }
}

/// Reads one rule.
struct Reader<'r, 'a> {
    compiler: &'r mut Compiler<'a>,
    namespace: &'r str,
    action: Action,
    /// Whether there was a field in it that only HTTP could meet.
    http: bool,
}

impl Reader<'_, '_> {
    fn parts(&mut self, rule: &security::Rule) -> Vec<Vec<Conjunction>> {
        let sources = items(rule.from.as_ref()).iter().filter_map(|from| from.source.as_ref());
        let from = sources.map(|source| self.source(source)).collect();
        let operations = items(rule.to.as_ref()).iter().filter_map(|to| to.operation.as_ref());
        let to = operations.map(|operation| self.operation(operation)).collect();
        let mut when = Vec::new();
        for condition in items(rule.when.as_ref()) {
            self.condition(condition, &mut when);
        }
        vec![from, to, vec![when]]
    }

    fn source(&mut self, source: &Source) -> Conjunction {
        let only_http = [&source.request_principals, &source.not_request_principals];
        only_http.into_iter().flatten().for_each(|list| self.only_http(list.place));
        let mut all = Vec::new();
        let domain = &self.compiler.workload.trust_domain;
        let principals = |text: &str| principal(text, domain);
        both(&mut all, source.principals.as_ref(), source.not_principals.as_ref(), |list| {
            peers(list, principals)
        });
        both(&mut all, source.namespaces.as_ref(), source.not_namespaces.as_ref(), |list| {
            peers(list, namespace)
        });
        let accounts = |text: &str| account(text, self.namespace);
        both(&mut all, source.service_accounts.as_ref(), source.not_service_accounts.as_ref(), |list| {
            peers(list, accounts)
        });
        let domains = |text: &str| Name::TrustDomain(Text::pattern(text));
        both(&mut all, source.trust_domains.as_ref(), source.not_trust_domains.as_ref(), |list| {
            peers(list, domains)
        });
        let sources = |list: &[At<String>]| Values::Source(networks(list));
        both(&mut all, source.ip_blocks.as_ref(), source.not_ip_blocks.as_ref(), sources);
        both(&mut all, source.remote_ip_blocks.as_ref(), source.not_remote_ip_blocks.as_ref(), sources);
        all
    }

    fn operation(&mut self, operation: &Operation) -> Conjunction {
        let only_http = [
            &operation.hosts,
            &operation.not_hosts,
            &operation.methods,
            &operation.not_methods,
            &operation.paths,
            &operation.not_paths,
        ];
        only_http.into_iter().flatten().for_each(|list| self.only_http(list.place));
        let mut all = Vec::new();
        both(&mut all, operation.ports.as_ref(), operation.not_ports.as_ref(), ports);
        all
    }

    fn condition(&mut self, condition: &security::Condition, all: &mut Conjunction) {
        let Some(key) = &condition.key else { return };
        let domain = &self.compiler.workload.trust_domain;
        let read: &dyn Fn(&[At<String>]) -> Values = match key.as_str() {
            "source.ip" | "remote.ip" => &|list| Values::Source(networks(list)),
            "destination.ip" => &|list| Values::Destination(networks(list)),
            "destination.port" => &ports,
            "source.principal" => &|list| peers(list, |text| principal(text, domain)),
            "source.namespace" => &|list| peers(list, namespace),
            "source.serviceAccount" => &|list| peers(list, |text| account(text, self.namespace)),
            "connection.sni" => &|list| {
                Values::Sni(list.iter().map(|text| Text::pattern(&text.to_ascii_lowercase())).collect())
            },
            _ => return self.only_http(key.place),
        };
        both(all, condition.values.as_ref(), condition.not_values.as_ref(), read);
    }

    /// A field that only HTTP could meet.
    fn only_http(&mut self, place: Place) {
        self.http = true;
        let message = match self.action {
            Action::Allow => "is for HTTP: its whole rule allows nothing",
            Action::Deny | Action::Audit => {
                "is for HTTP and left out: the rule matches whatever else it says"
            }
        };
        self.compiler.warn(place, message);
    }
}

/// The conditions of a field and of its counterpart that begins with `not`.
fn both(
    all: &mut Conjunction,
    any: Option<&Strings>,
    none: Option<&Strings>,
    read: impl Fn(&[At<String>]) -> Values,
) {
    all.extend(any.map(|list| Condition::Is(read(&list.value))));
    all.extend(none.map(|list| Condition::IsNot(read(&list.value))));
}

fn peers(list: &[At<String>], read: impl Fn(&str) -> Name) -> Values {
    Values::Peer(list.iter().map(|text| read(text)).collect())
}

/// What cannot be read has been told by the rules of its field.
fn networks(list: &[At<String>]) -> Vec<crate::plan::route::Network> {
    list.iter().filter_map(|text| network(text).ok()).collect()
}

fn ports(list: &[At<String>]) -> Values {
    Values::Port(list.iter().filter_map(|text| text.parse().ok()).collect())
}

/// A SPIFFE ID without its scheme; or, beyond Istio, `dns:`, `uri:` or `ip:` and what else a certificate can say.
fn principal(text: &str, trust_domain: &str) -> Name {
    match text.split_once(':') {
        _ if text == "*" => Name::Something,
        Some(("dns", name)) => Name::Dns(Text::pattern(&name.to_ascii_lowercase())),
        Some(("uri", uri)) => Name::Uri(Text::pattern(uri)),
        // What is no address has been told.
        Some(("ip", address)) => address.parse().map_or(Name::Dns(Text::Exact(String::new())), Name::Address),
        _ => Name::Spiffe(match (text.strip_prefix('*'), text.strip_prefix(ANY_MESH)) {
            (Some(_), _) => Text::pattern(text),
            (None, Some(path)) => Text::pattern(&format!("spiffe://{trust_domain}/{path}")),
            (None, None) => Text::pattern(&format!("spiffe://{text}")),
        }),
    }
}

fn namespace(text: &str) -> Name {
    Name::Namespace(Text::wild(text))
}

/// `NAMESPACE/NAME`, or `NAME` in the namespace of the policy.
fn account(text: &str, own: &str) -> Name {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    Name::Account(namespace.to_owned(), name.to_owned())
}
