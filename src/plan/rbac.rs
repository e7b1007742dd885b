//! AuthorizationPolicies, compiled: what a rule asks of a connection, and whether a connection is like that.
//!
//! Every field of a rule becomes a [`Condition`], every `source` and `operation` a conjunction of these. What a
//! connection does not have, such as an identity or an SNI, is like no value.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::Origin;
use super::identity::PeerIdentity;
use super::route::Network;

/// A connection, as far as rules may ask about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempt<'a> {
    /// What its certificate says, if it has shown one.
    pub identity: Option<&'a PeerIdentity>,
    /// The address it comes from; unknown only where nobody has connected yet.
    pub source: Option<IpAddr>,
    /// The address it came to.
    pub destination: Option<IpAddr>,
    /// The port of the listener, as the configuration names it.
    pub port: u16,
    /// The name it asked for, if any.
    pub sni: Option<&'a str>,
}

/// One AuthorizationPolicy that applies to a listener.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    /// `namespace/name`.
    pub title: String,
    /// What becomes of connections that one of the rules matches.
    pub action: Action,
    /// Whether that becomes of them, or is only recorded.
    pub force: Force,
    /// Any of which may match; none matches nothing.
    pub rules: Vec<Rule>,
    /// Where it is written.
    pub origin: Origin,
}

/// What a policy does (Istio `AuthorizationPolicy.action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Lets in whom it matches; with one such policy, nobody else.
    Allow,
    /// Lets in nobody whom it matches.
    Deny,
    /// Marks them in the record.
    Audit,
}

/// Whether a policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is.
    Enforced,
    /// It is tried and recorded (annotation `istio.io/dry-run`).
    DryRun,
}

/// A rule: all of these, and of each any.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which it is.
    pub name: Arc<RuleName>,
    /// `from`, `to` and `when`: of each list one conjunction must hold; of an empty list none need.
    pub parts: Vec<Vec<Conjunction>>,
}

/// Conditions that must all hold.
pub type Conjunction = Vec<Condition>;

/// A rule, as Envoy's records name it: `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`.
#[derive(Debug, PartialEq, Eq)]
pub struct RuleName(pub String);

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One field of a rule.
#[derive(Debug, PartialEq, Eq)]
pub enum Condition {
    /// The connection is like one of the values.
    Is(Values),
    /// It is like none of them.
    IsNot(Values),
}

/// The values of a field.
#[derive(Debug, PartialEq, Eq)]
pub enum Values {
    /// Whose certificate it is (`principals`, `namespaces`, `serviceAccounts`, `trustDomains`).
    Peer(Vec<Name>),
    /// Where it comes from (`ipBlocks`, `remoteIpBlocks`).
    Source(Vec<Network>),
    /// Where it came to (`destination.ip`).
    Destination(Vec<Network>),
    /// At which port (`ports`).
    Port(Vec<u16>),
    /// What it asked for (`connection.sni`), lower case.
    Sni(Vec<Text>),
}

/// Something that a certificate can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Anything: a subject alternative name.
    Something,
    /// This SPIFFE ID, whole.
    Spiffe(Text),
    /// A SPIFFE ID of this trust domain.
    TrustDomain(Text),
    /// A SPIFFE ID of this namespace.
    Namespace(Text),
    /// The SPIFFE ID of this service account, in whatever trust domain.
    Account(String, String),
    /// This DNS name, lower case.
    Dns(Text),
    /// This URI.
    Uri(Text),
    /// This address.
    Address(IpAddr),
}

/// A pattern of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// Any that is not empty.
    Some,
    /// This.
    Exact(String),
    /// Any that begins like this.
    Prefix(String),
    /// Any that ends like this.
    Suffix(String),
    /// These parts with anything between them.
    Parts(Vec<String>),
}

impl Policy {
    /// The first rule that matches.
    pub fn matching(&self, attempt: &Attempt<'_>) -> Option<&Arc<RuleName>> {
        self.rules.iter().find(|rule| rule.matches(attempt)).map(|rule| &rule.name)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Allow => "ALLOW",
            Action::Deny => "DENY",
            Action::Audit => "AUDIT",
        };
        let dry = match self.force {
            Force::Enforced => "",
            Force::DryRun => ", dry run",
        };
        let rules = match self.rules.len() {
            1 => "1 rule".to_owned(),
            several => format!("{several} rules"),
        };
        write!(f, "AuthorizationPolicy {} ({action}{dry}, {rules})", self.title)
    }
}

impl Rule {
    fn matches(&self, attempt: &Attempt<'_>) -> bool {
        self.parts.iter().all(|part| {
            part.is_empty() || part.iter().any(|all| all.iter().all(|condition| condition.holds(attempt)))
        })
    }
}

impl Condition {
    fn holds(&self, attempt: &Attempt<'_>) -> bool {
        match self {
            Self::Is(values) => values.include(attempt),
            Self::IsNot(values) => !values.include(attempt),
        }
    }
}

impl Values {
    fn include(&self, attempt: &Attempt<'_>) -> bool {
        let within = |networks: &[Network], address: Option<IpAddr>| {
            address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
        };
        match self {
            Self::Peer(names) => {
                attempt.identity.is_some_and(|identity| names.iter().any(|name| name.matches(identity)))
            }
            Self::Source(networks) => within(networks, attempt.source),
            Self::Destination(networks) => within(networks, attempt.destination),
            Self::Port(ports) => ports.contains(&attempt.port),
            Self::Sni(texts) => attempt.sni.is_some_and(|sni| {
                let sni = sni.to_ascii_lowercase();
                texts.iter().any(|text| text.matches(&sni))
            }),
        }
    }
}

impl Name {
    fn matches(&self, identity: &PeerIdentity) -> bool {
        let id = identity.spiffe();
        let path = id.and_then(|id| id.strip_prefix("spiffe://")?.split_once('/'));
        match self {
            Self::Something => {
                !(identity.uris.is_empty() && identity.dns_names.is_empty() && identity.addresses.is_empty())
            }
            Self::Spiffe(text) => id.is_some_and(|id| text.matches(id)),
            Self::TrustDomain(text) => path.is_some_and(|(domain, _)| text.matches(domain)),
            Self::Namespace(text) => {
                let namespace = path.and_then(|(_, path)| path.strip_prefix("ns/")?.split_once('/'));
                namespace.is_some_and(|(namespace, _)| text.matches(namespace))
            }
            Self::Account(namespace, account) => {
                let found = path.and_then(|(_, path)| path.strip_prefix("ns/")?.split_once("/sa/"));
                found == Some((namespace, account))
            }
            Self::Dns(text) => identity.dns_names.iter().any(|name| text.matches(&name.to_ascii_lowercase())),
            Self::Uri(text) => identity.uris.iter().any(|uri| text.matches(uri)),
            Self::Address(address) => identity.addresses.contains(address),
        }
    }
}

impl Text {
    /// Reads Istio's pattern of a string: `*` is any that is not empty, at one end it is whatever is there, and
    /// anywhere else it is itself.
    pub fn pattern(text: &str) -> Self {
        match (text, text.strip_suffix('*'), text.strip_prefix('*')) {
            ("*", _, _) => Self::Some,
            (_, Some(prefix), _) => Self::Prefix(prefix.to_owned()),
            (_, None, Some(suffix)) => Self::Suffix(suffix.to_owned()),
            (_, None, None) => Self::Exact(text.to_owned()),
        }
    }

    /// Reads a pattern in which every `*` is any text.
    pub fn wild(text: &str) -> Self {
        Self::Parts(text.split('*').map(str::to_owned).collect())
    }

    /// Whether a text is like this.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Some => !text.is_empty(),
            Self::Exact(exact) => exact == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Parts(parts) => in_order(parts, text),
        }
    }
}

/// Whether a text is these parts with anything between them.
fn in_order(parts: &[String], text: &str) -> bool {
    let [first, between @ .., last] = parts else {
        return parts.first().is_some_and(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for part in between {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spiffe(id: &str) -> PeerIdentity {
        PeerIdentity { uris: vec![id.into()], ..PeerIdentity::default() }
    }

    #[test]
    fn z6_a_star_is_any_text_at_an_end_and_itself_elsewhere() {
        for (pattern, text, expected) in [
            ("*", "a", true),
            ("*", "", false),
            ("abc*", "abcd", true),
            ("abc*", "abc", true),
            ("abc*", "xabc", false),
            ("*/sa/app", "td/ns/a/sa/app", true),
            ("*/sa/app", "td/ns/a/sa/apple", false),
            ("a*c", "abc", false),
            ("a*c", "a*c", true),
            ("abc", "ABC", false),
        ] {
            assert_eq!(Text::pattern(pattern).matches(text), expected, "{pattern} {text}");
        }
        for (pattern, text, expected) in [
            ("prod", "prod", true),
            ("prod", "prod-a", false),
            ("prod*", "prod-a", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*", "a", true),
            ("aa*aa", "aaa", false),
        ] {
            assert_eq!(Text::wild(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_name_is_looked_for_where_it_belongs_and_nowhere_else() {
        let peer = spiffe("spiffe://td/ns/prod/sa/app");
        let check = |name: Name, expected: bool| assert_eq!(name.matches(&peer), expected, "{name:?}");
        check(Name::Spiffe(Text::pattern("spiffe://td/ns/prod/sa/app")), true);
        check(Name::TrustDomain(Text::pattern("td")), true);
        check(Name::TrustDomain(Text::pattern("*app")), false);
        check(Name::Namespace(Text::wild("pr*")), true);
        check(Name::Namespace(Text::wild("*app")), false);
        check(Name::Account("prod".into(), "app".into()), true);
        check(Name::Account("prod".into(), "ap".into()), false);
        check(Name::Something, true);
        check(Name::Dns(Text::Some), false);
        assert!(!Name::Something.matches(&PeerIdentity::default()));
        let nested = spiffe("spiffe://td/ns/evil/sa/x/ns/prod/sa/app");
        assert!(!Name::Namespace(Text::wild("prod")).matches(&nested));
        assert!(!Name::Account("prod".into(), "app".into()).matches(&nested));
    }

    #[test]
    fn what_a_connection_does_not_have_is_like_no_value() {
        let nothing = Attempt { identity: None, source: None, destination: None, port: 1, sni: None };
        let any = "0.0.0.0".parse().unwrap();
        for values in [
            || Values::Peer(vec![Name::Something]),
            || Values::Sni(vec![Text::Some]),
            || Values::Port(vec![2]),
        ] {
            assert!(!Condition::Is(values()).holds(&nothing) && Condition::IsNot(values()).holds(&nothing));
        }
        let networks = vec![Network { address: any, prefix: 0 }];
        assert!(!Condition::Is(Values::Source(networks.clone())).holds(&nothing));
        assert!(Condition::IsNot(Values::Destination(networks)).holds(&nothing));
    }
}
