//! What a credential is to be used for, and so must contain.

use super::trust::CrlExpired;
use crate::plan::identity::{PeerIdentity, SubjectAltName};
use crate::plan::route::HostPattern;

/// What a credential is to be used for, and so must contain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// What the certificate is shown as. With no use at all no certificate is needed.
    pub uses: Vec<Use>,
    /// Whether there must be CAs to verify the other side.
    pub ca: bool,
    /// What becomes of a revocation list that should have been replaced.
    pub crl_expired: CrlExpired,
    /// Whether what is not needed is checked all the same, if it is there: to look into a directory
    /// whose use nobody has told.
    pub everything: bool,
}

/// One use of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// Shown to clients that ask for one of these hosts; with none, to those of a mesh, who ask for an identity.
    Server(Vec<HostPattern>),
    /// Shown to servers.
    Client,
}

impl Needs {
    /// Those of one use, and of verifying the other side.
    pub fn mutual(usage: Use) -> Self {
        Self { uses: vec![usage], ca: true, ..Self::default() }
    }

    /// Those of both: one credential can serve several listeners and routes.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.uses
            .extend(other.uses.into_iter().filter(|usage| !self.uses.contains(usage)).collect::<Vec<_>>());
        self.ca |= other.ca;
        self.everything |= other.everything;
        if other.crl_expired == CrlExpired::Refuse {
            self.crl_expired = CrlExpired::Refuse;
        }
        self
    }

    /// A host that the certificate would be shown for and does not carry. One that carries no DNS name at
    /// all is meant for clients that look for something else.
    pub fn uncovered<'needs>(&'needs self, names: &PeerIdentity) -> Option<&'needs HostPattern> {
        let hosts = self.uses.iter().flat_map(|usage| match usage {
            Use::Server(hosts) => hosts.as_slice(),
            Use::Client => &[],
        });
        let has_other_names = !names.uris.is_empty() || !names.addresses.is_empty();
        if names.dns_names.is_empty() && has_other_names {
            return None;
        }
        hosts.into_iter().find(|host| !covers(names, host))
    }
}

/// Whether a certificate with these names can be shown for some name of a host pattern.
fn covers(names: &PeerIdentity, host: &HostPattern) -> bool {
    match host {
        HostPattern::Exact(name) => SubjectAltName::Dns(name.clone()).matches(names),
        HostPattern::Suffix(suffix) => {
            names.dns_names.iter().any(|name| name.to_ascii_lowercase().ends_with(suffix.as_str()))
        }
        HostPattern::Any => !names.dns_names.is_empty(),
        // Asked for nothing, a certificate can promise nothing.
        HostPattern::Whatever => true,
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn check(hosts: &[HostPattern], dns: &[&str], uris: &[&str], uncovered: Option<&HostPattern>) {
        let needs = Needs::mutual(Use::Server(hosts.to_vec()));
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let names = PeerIdentity { dns_names: own(dns), uris: own(uris), addresses: Vec::new() };
        assert_eq!(needs.uncovered(&names), uncovered, "{hosts:?} by {dns:?} {uris:?}");
    }

    #[test]
    fn each_host_needs_a_name() {
        let exact = HostPattern::Exact("a.example".into());
        let below = HostPattern::Suffix(".example".into());
        check(from_ref(&exact), &["a.example"], &[], None);
        check(from_ref(&exact), &["*.example"], &[], None);
        check(from_ref(&exact), &["b.example"], &["spiffe://td/a"], Some(&exact));
        check(from_ref(&exact), &[], &[], Some(&exact));
        check(from_ref(&exact), &[], &["spiffe://td/a"], None);
        check(from_ref(&below), &["*.example"], &[], None);
        check(from_ref(&below), &["b.Example"], &[], None);
        check(from_ref(&below), &["example"], &[], Some(&below));
        check(&[HostPattern::Any], &["b.example"], &[], None);
        check(&[exact.clone(), below.clone()], &["a.example"], &[], None);
        check(&[below, exact.clone()], &["b.example"], &[], Some(&exact));
    }

    #[test]
    fn the_needs_of_two_are_those_of_both() {
        let server = Needs { crl_expired: CrlExpired::Warn, ..Needs::mutual(Use::Server(Vec::new())) };
        let client = Needs { uses: vec![Use::Client], ..Needs::default() };
        let both = server.clone().and(client.clone());
        assert_eq!(both.uses, [Use::Server(Vec::new()), Use::Client]);
        assert_eq!((both.ca, both.crl_expired), (true, CrlExpired::Refuse));
        assert_eq!(both.clone().and(client), both);
    }
}
