//! (rules, connection) -> permit or denial. Only this file can make a [`Permit`].

use std::fmt;
use std::sync::Arc;

use super::identity::{PeerIdentity, SubjectAltName};
use super::rbac::{Action, Attempt, Force, Policy, RuleName};

/// Who may take a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Names of which a peer must have one. Empty: whoever the listener's own checks let in.
    pub names: Vec<SubjectAltName>,
    /// Every policy that applies; none lets in everybody whom the names let in.
    pub policies: Arc<[Policy]>,
}

/// Proof that a connection may go upstream; a dial consumes it.
#[derive(Debug)]
#[must_use = "a permit is spent on a dial"]
pub struct Permit {
    _only_authorize_makes_one: (),
}

/// A refusal, and which rule made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The peer has none of the names.
    Unnamed,
    /// A rule denies it.
    By(Arc<RuleName>),
    /// There are rules that allow, and none allows it.
    ByNone,
}

impl fmt::Display for Denied {
    /// As Envoy's records have it, where it has a word for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("no rule allows this identity"),
            Self::By(rule) => write!(f, "rbac_access_denied_matched_policy[{rule}]"),
            Self::ByNone => f.write_str("rbac_access_denied_matched_policy[none]"),
        }
    }
}

/// What the rules make of a connection.
#[derive(Debug)]
pub struct Verdict {
    /// Whether it may go on.
    pub permit: Result<Permit, Denied>,
    /// What is to be recorded of how that came about.
    pub marks: Marks,
}

/// What rules have said of a connection that is not in its outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The rule that allowed it.
    pub allowed: Option<Arc<RuleName>>,
    /// Why it would have been denied if those policies were in force that are only tried.
    pub shadow: Option<Denied>,
    /// The first rule that marks it.
    pub audited: Option<Arc<RuleName>>,
}

impl Marks {
    /// Whether there is nothing to record.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Rules {
    /// Whether the names let in a peer, whatever the policies say.
    pub fn names_let_in(&self, identity: Option<&PeerIdentity>) -> bool {
        let named = |identity: &PeerIdentity| self.names.iter().any(|name| name.matches(identity));
        self.names.is_empty() || identity.is_some_and(named)
    }
}

/// Decides whether a connection may take a route. A plaintext peer has no identity to show: a server-first
/// protocol on a plaintext listener has nobody to authorize, and a route that lists names is closed to it.
pub fn authorize(rules: &Rules, attempt: &Attempt<'_>) -> Verdict {
    if !rules.names_let_in(attempt.identity) {
        return Verdict { permit: Err(Denied::Unnamed), marks: Marks::default() };
    }
    let enforced = judge(&rules.policies, attempt, false);
    let tried = rules.policies.iter().any(|policy| policy.force == Force::DryRun);
    let shadow = if tried { judge(&rules.policies, attempt, true).err() } else { None };
    let audited = of(&rules.policies, Action::Audit, false).find_map(|policy| policy.matching(attempt));
    let mut marks = Marks { audited: audited.cloned(), ..Marks::default() };
    let permit = match enforced {
        Ok(allowed) => {
            (marks.allowed, marks.shadow) = (allowed, shadow);
            Ok(Permit { _only_authorize_makes_one: () })
        }
        Err(denied) => Err(denied),
    };
    Verdict { permit, marks }
}

/// DENY before ALLOW: the rule that allows, none where no policy asks for one; or why not.
fn judge(
    policies: &[Policy],
    attempt: &Attempt<'_>,
    with_tried: bool,
) -> Result<Option<Arc<RuleName>>, Denied> {
    if let Some(rule) = of(policies, Action::Deny, with_tried).find_map(|policy| policy.matching(attempt)) {
        return Err(Denied::By(rule.clone()));
    }
    let mut allowing = of(policies, Action::Allow, with_tried).peekable();
    if allowing.peek().is_none() {
        return Ok(None);
    }
    match allowing.find_map(|policy| policy.matching(attempt)) {
        Some(rule) => Ok(Some(rule.clone())),
        None => Err(Denied::ByNone),
    }
}

fn of(policies: &[Policy], action: Action, with_tried: bool) -> impl Iterator<Item = &Policy> {
    policies
        .iter()
        .filter(move |policy| policy.action == action && (with_tried || policy.force == Force::Enforced))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Origin;
    use crate::plan::rbac::{Condition, Rule, Values};

    fn check(names: &[&str], presented: Option<&[&str]>, permitted: bool) {
        let names = names.iter().map(|name| SubjectAltName::Dns((*name).into())).collect();
        let rules = Rules { names, ..Rules::default() };
        let identity = presented.map(|names| PeerIdentity {
            dns_names: names.iter().map(|name| (*name).into()).collect(),
            ..PeerIdentity::default()
        });
        let attempt = Attempt { identity: identity.as_ref(), ..at(1) };
        assert_eq!(authorize(&rules, &attempt).permit.is_ok(), permitted, "{rules:?} against {presented:?}");
    }

    #[test]
    fn a_peer_needs_one_of_the_names() {
        check(&[], None, true);
        check(&[], Some(&[]), true);
        check(&["a.example"], None, false);
        check(&["a.example"], Some(&[]), false);
        check(&["a.example"], Some(&["b.example"]), false);
        check(&["a.example", "b.example"], Some(&["b.example"]), true);
    }

    fn at(port: u16) -> Attempt<'static> {
        Attempt { identity: None, source: None, destination: None, port, sni: None }
    }

    /// A policy with a rule for each list of ports, of which an empty one means any.
    fn policy(action: Action, force: Force, ports: &[&[u16]]) -> Policy {
        let rules = ports.iter().enumerate().map(|(index, ports)| Rule {
            name: Arc::new(RuleName(format!("{action:?}{index}"))),
            parts: vec![ports.iter().map(|port| vec![Condition::Is(Values::Port(vec![*port]))]).collect()],
        });
        let (title, origin) = (format!("{action:?}"), Origin::default());
        Policy { title, action, force, rules: rules.collect(), origin }
    }

    /// What becomes of a connection to port 1: who decided, and what the tried would have done.
    fn decided(policies: Vec<Policy>) -> (String, String, String) {
        let rules = Rules { names: Vec::new(), policies: policies.into() };
        let Verdict { permit, marks } = authorize(&rules, &at(1));
        let text = |text: Option<String>| text.unwrap_or_default();
        let by = match permit {
            Ok(_) => format!("+{}", text(marks.allowed.map(|rule| rule.to_string()))),
            Err(denied) => format!("-{denied}"),
        };
        let by = by.replace("rbac_access_denied_matched_policy", "");
        let shadow = text(marks.shadow.map(|denied| denied.to_string()));
        let shadow = shadow.replace("rbac_access_denied_matched_policy", "");
        (by, shadow, text(marks.audited.map(|rule| rule.to_string())))
    }

    #[test]
    fn deny_comes_before_allow_and_without_a_policy_everybody_is_let_in() {
        use Action::{Allow, Audit, Deny};
        use Force::{DryRun, Enforced};
        let of = |action, ports: &[&[u16]]| policy(action, Enforced, ports);
        let tried = |action, ports: &[&[u16]]| policy(action, DryRun, ports);
        let check = |policies: Vec<Policy>, by: &str, shadow: &str, audited: &str| {
            let expected = (by.to_owned(), shadow.to_owned(), audited.to_owned());
            assert_eq!(decided(policies), expected);
        };
        check(vec![], "+", "", "");
        check(vec![of(Allow, &[])], "-[none]", "", "");
        check(vec![of(Allow, &[&[]])], "+Allow0", "", "");
        check(vec![of(Allow, &[&[2], &[1]])], "+Allow1", "", "");
        check(vec![of(Allow, &[&[2]]), of(Allow, &[&[1]])], "+Allow0", "", "");
        check(vec![of(Allow, &[&[]]), of(Deny, &[&[1]])], "-[Deny0]", "", "");
        check(vec![of(Deny, &[&[2]])], "+", "", "");
        check(vec![of(Audit, &[&[1]])], "+", "", "Audit0");
        check(vec![tried(Deny, &[&[1]])], "+", "[Deny0]", "");
        check(vec![tried(Allow, &[&[2]])], "+", "[none]", "");
        check(vec![of(Allow, &[&[1]]), tried(Allow, &[&[2]])], "+Allow0", "", "");
        check(vec![of(Deny, &[&[1]]), tried(Allow, &[&[1]])], "-[Deny0]", "", "");
        check(vec![of(Allow, &[&[2]]), tried(Allow, &[&[1]])], "-[none]", "", "");
        check(vec![tried(Audit, &[&[1]])], "+", "", "");
    }
}
