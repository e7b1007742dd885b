//! (listener, SNI or destination) -> row | no route. Pure.
//!
//! A table of names is looked up by hash, label by label, so that a thousand names cost what one costs.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::{DestinationRoute, SniRoute};

/// A host name, or a wildcard whose first label is `*` (Istio `Gateway.servers.hosts`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name, lower case.
    Exact(String),
    /// Any name that ends with this suffix, which begins with a dot: `*.example.com` is `.example.com`.
    /// As in Istio, several labels may stand in for the star.
    Suffix(String),
    /// `*`: any name, but not the absence of one.
    Any,
    /// Any name, and the absence of one (`*` of a Gateway).
    Whatever,
}

impl HostPattern {
    /// Whether `name`, in lower case, is one of the names this pattern stands for.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Self::Any | Self::Whatever => true,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Any | Self::Whatever => f.write_str("*"),
        }
    }
}

/// The rows of a TLS listener, found by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SniTable {
    rows: Vec<SniRoute>,
    exact: HashMap<String, Claims>,
    suffixes: HashMap<String, Claims>,
    any: Claims,
    nameless: Claims,
}

/// The rows that claim one name, in order; one of which the destination may be any ends the list.
type Claims = Vec<usize>;

impl SniTable {
    /// A table of these rows; of two that claim the same name for the same destination the first has it.
    pub fn new(rows: Vec<SniRoute>) -> Self {
        let mut table = Self::default();
        for (index, row) in rows.iter().enumerate() {
            let claim = |claims: &mut Claims| {
                if claims.last().is_none_or(|last| !rows[*last].networks.is_empty()) {
                    claims.push(index);
                }
            };
            for host in &row.hosts {
                match host {
                    HostPattern::Exact(name) => claim(table.exact.entry(name.clone()).or_default()),
                    HostPattern::Suffix(suffix) => claim(table.suffixes.entry(suffix.clone()).or_default()),
                    HostPattern::Any => claim(&mut table.any),
                    HostPattern::Whatever => {
                        claim(&mut table.any);
                        claim(&mut table.nameless);
                    }
                }
            }
        }
        table.rows = rows;
        table
    }

    /// Every row.
    pub fn rows(&self) -> &[SniRoute] {
        &self.rows
    }

    /// The row whose pattern matches the SNI most exactly, of those for the destination: the name itself, else
    /// the longest suffix, else any. `None` where there is no row for it. The destination is asked for only where
    /// it decides.
    pub fn find(&self, sni: Option<&str>, destination: impl Fn() -> Option<IpAddr>) -> Option<&SniRoute> {
        let of = |claims: &Claims| {
            let mut rows = claims.iter().filter_map(|index| self.rows.get(*index));
            rows.find(|row| row.networks.is_empty() || is_within(&row.networks, destination()))
        };
        let Some(name) = sni else { return of(&self.nameless) };
        let name = name.to_ascii_lowercase();
        let suffixes = name.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &name[at..]);
        let by_suffix = || {
            let mut long_enough = suffixes.filter(|suffix| suffix.len() > 1);
            long_enough.find_map(|suffix| self.suffixes.get(suffix).and_then(of))
        };
        self.exact.get(&name).and_then(of).or_else(by_suffix).or_else(|| of(&self.any))
    }
}

/// A range of addresses: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// Its first address.
    pub address: IpAddr,
    /// How many leading bits its addresses share.
    pub prefix: u8,
}

impl Network {
    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let shift = 32_u32.saturating_sub(self.prefix.into());
                u32::from(mine).checked_shr(shift) == u32::from(other).checked_shr(shift)
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let shift = 128_u32.saturating_sub(self.prefix.into());
                u128::from(mine).checked_shr(shift) == u128::from(other).checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The first row in whose networks the destination is.
pub fn by_destination(rows: &[DestinationRoute], destination: IpAddr) -> Option<&DestinationRoute> {
    rows.iter().find(|row| row.networks.is_empty() || is_within(&row.networks, Some(destination)))
}

fn is_within(networks: &[Network], address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &HostPattern, name: &str, expected: bool) {
        assert_eq!(pattern.matches(name), expected, "{pattern} against {name}");
    }

    #[test]
    fn patterns_match_as_istio_says() {
        let exact = HostPattern::Exact("mysql.example".into());
        check(&exact, "mysql.example", true);
        check(&exact, "a.mysql.example", false);
        let wildcard = HostPattern::Suffix(".example.com".into());
        check(&wildcard, "a.example.com", true);
        check(&wildcard, "a.b.example.com", true);
        check(&wildcard, "example.com", false);
        check(&wildcard, ".example.com", false);
        check(&wildcard, "badexample.com", false);
        check(&HostPattern::Any, "anything", true);
    }

    #[test]
    fn r5_the_exact_name_beats_the_wildcard_whatever_the_order() {
        let row = |hosts: Vec<HostPattern>, name: &str| SniRoute {
            hosts,
            networks: Vec::new(),
            accept: None,
            route: std::sync::Arc::new(crate::plan::Route {
                rules: crate::plan::authorize::Rules::default(),
                targets: Vec::new(),
                inner_hops: Vec::new(),
                origin: crate::plan::Origin::default(),
            }),
            origin: crate::plan::Origin(name.into()),
        };
        let wide = || row(vec![HostPattern::Suffix(".example".into())], "wide");
        let narrow = || row(vec![HostPattern::Suffix(".b.example".into())], "narrow");
        let wider = || row(vec![HostPattern::Any], "wider");
        let exact = || row(vec![HostPattern::Exact("a.example".into())], "exact");
        for rows in [vec![wide(), exact(), narrow(), wider()], vec![exact(), wider(), narrow(), wide()]] {
            let table = SniTable::new(rows);
            let of = |sni: Option<&str>| table.find(sni, || None).map(|row| row.origin.0.as_str());
            assert_eq!(of(Some("a.example")), Some("exact"));
            assert_eq!(of(Some("A.EXAMPLE")), Some("exact"));
            assert_eq!(of(Some("c.example")), Some("wide"));
            assert_eq!(of(Some("x.y.b.example")), Some("narrow"));
            assert_eq!(of(Some("other")), Some("wider"));
            assert_eq!(of(None), None);
        }
        let open = SniTable::new(vec![row(vec![HostPattern::Whatever], "open")]);
        assert!(open.find(None, || None).is_some() && open.find(Some("x"), || None).is_some());
        let mut near = exact();
        near.networks = vec![Network { address: [10, 0, 0, 0].into(), prefix: 8 }];
        near.origin = crate::plan::Origin("near".into());
        let table = SniTable::new(vec![near, exact(), wide()]);
        let of = |sni: &str, address: [u8; 4]| {
            table.find(Some(sni), || Some(address.into())).map(|row| row.origin.0.as_str())
        };
        assert_eq!(of("a.example", [10, 1, 2, 3]), Some("near"));
        assert_eq!(of("a.example", [192, 0, 2, 1]), Some("exact"));
        assert_eq!(of("c.example", [10, 1, 2, 3]), Some("wide"));
    }

    #[test]
    fn r4_a_wildcard_stands_for_one_or_more_labels() {
        let patterns = vec![HostPattern::Suffix(".example.com".into())];
        let route = std::sync::Arc::new(crate::plan::Route {
            rules: crate::plan::authorize::Rules::default(),
            targets: Vec::new(),
            inner_hops: Vec::new(),
            origin: crate::plan::Origin::default(),
        });
        let origin = crate::plan::Origin::default();
        let networks = Vec::new();
        let table = SniTable::new(vec![SniRoute { hosts: patterns, networks, accept: None, route, origin }]);
        for (sni, found) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
        ] {
            assert_eq!(table.find(Some(sni), || None).is_some(), found, "{sni}");
        }
    }

    #[test]
    fn an_address_is_in_a_network_of_its_family_only() {
        let network = |text: &str, prefix| Network { address: text.parse().unwrap(), prefix };
        for (network, address, inside) in [
            (network("10.0.0.0", 8), "10.255.1.2", true),
            (network("10.0.0.0", 8), "11.0.0.1", false),
            (network("0.0.0.0", 0), "11.0.0.1", true),
            (network("192.0.2.1", 32), "192.0.2.1", true),
            (network("10.0.0.0", 8), "::ffff:10.1.1.1", true),
            (network("10.0.0.0", 8), "::1", false),
            (network("2001:db8::", 32), "2001:db8:1::1", true),
            (network("::", 0), "::1", true),
        ] {
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
    }
}
