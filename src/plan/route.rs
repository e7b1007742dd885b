//! (listener, SNI) -> row | no route. Pure.

use std::fmt;

use super::SniRoute;

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
}

impl HostPattern {
    /// Whether `name`, in lower case, is one of the names this pattern stands for.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Self::Any => true,
        }
    }

    /// How exact the pattern is: of two that match, the larger decides.
    fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (2, 0),
            Self::Suffix(suffix) => (1, suffix.len()),
            Self::Any => (0, 0),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// The row whose pattern matches the SNI most exactly; `None` where there is no SNI or no row for it.
pub fn by_sni<'rows>(rows: &'rows [SniRoute], sni: Option<&str>) -> Option<&'rows SniRoute> {
    let name = sni?.to_ascii_lowercase();
    rows.iter()
        .filter_map(|row| {
            let best =
                row.hosts.iter().filter(|host| host.matches(&name)).map(HostPattern::specificity).max()?;
            Some((best, row))
        })
        .max_by_key(|(best, _)| *best)
        .map(|(_, row)| row)
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
    fn the_exact_name_beats_the_wildcard_whatever_the_order() {
        let row = |hosts: Vec<HostPattern>, credential: &str| SniRoute {
            hosts,
            accept: std::sync::Arc::new(crate::plan::Accept {
                credential: crate::plan::CredentialName(credential.into()),
                client_names: Vec::new(),
                tls: crate::plan::policy::TlsPolicy::default(),
            }),
            route: std::sync::Arc::new(crate::plan::Route {
                rules: crate::plan::authorize::Rules::default(),
                cluster: crate::plan::Cluster {
                    host: crate::plan::Host::Name("db".into()),
                    port: 3306,
                    originate: None,
                },
            }),
        };
        let wide = || row(vec![HostPattern::Suffix(".example".into())], "wide");
        let wider = || row(vec![HostPattern::Any], "wider");
        let exact = || row(vec![HostPattern::Exact("a.example".into())], "exact");
        for rows in [vec![wide(), exact(), wider()], vec![exact(), wider(), wide()]] {
            let of = |sni: Option<&str>| by_sni(&rows, sni).map(|row| row.accept.credential.0.as_str());
            assert_eq!(of(Some("a.example")), Some("exact"));
            assert_eq!(of(Some("A.EXAMPLE")), Some("exact"));
            assert_eq!(of(Some("b.example")), Some("wide"));
            assert_eq!(of(Some("other")), Some("wider"));
            assert_eq!(of(None), None);
        }
    }
}
