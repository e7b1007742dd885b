//! (rules, identity) -> permit or denial. Only this file can make a [`Permit`].

use super::identity::{PeerIdentity, SubjectAltName};

/// Who may take a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Names of which a peer must have one. Empty: whoever the listener's own checks let in.
    pub names: Vec<SubjectAltName>,
}

/// Proof that a connection may go upstream; a dial consumes it.
#[derive(Debug)]
#[must_use = "a permit is spent on a dial"]
pub struct Permit {
    _only_authorize_makes_one: (),
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied;

/// Decides whether a peer may take a route. `identity` is `None` for a plaintext peer, who has none
/// to show: a server-first protocol on a plaintext listener has nobody to authorize, and a route
/// that lists names is closed to it.
pub fn authorize(rules: &Rules, identity: Option<&PeerIdentity>) -> Result<Permit, Denied> {
    let named = |identity: &PeerIdentity| rules.names.iter().any(|name| name.matches(identity));
    if rules.names.is_empty() || identity.is_some_and(named) {
        Ok(Permit { _only_authorize_makes_one: () })
    } else {
        Err(Denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], presented: Option<&[&str]>, permitted: bool) {
        let rules = Rules { names: names.iter().map(|name| SubjectAltName::Dns((*name).into())).collect() };
        let identity = presented.map(|names| PeerIdentity {
            dns_names: names.iter().map(|name| (*name).into()).collect(),
            ..PeerIdentity::default()
        });
        assert_eq!(
            authorize(&rules, identity.as_ref()).is_ok(),
            permitted,
            "{names:?} against {presented:?}"
        );
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
}
