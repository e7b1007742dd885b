//! Host names, host and port, subject alternative names: from text to what the plan holds.

use std::net::{IpAddr, SocketAddr};

use crate::plan::Host;
use crate::plan::identity::SubjectAltName;
use crate::plan::route::HostPattern;

/// A DNS name in lower case without its trailing dot: labels of letters, digits, hyphens and
/// underscores, at most 63 each and 253 in all; the last not all digits, which is how addresses are told apart.
pub fn dns(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() <= 253 && !numeric && name.split('.').all(label) {
        Ok(name)
    } else {
        Err(format!("expected a DNS name, found {text:?}"))
    }
}

/// A DNS name or an IP address.
pub fn host(text: &str) -> Result<Host, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(Host::Address(address)),
        Err(_) => dns(text)
            .map(Host::Name)
            .map_err(|_| format!("expected a host name or an IP address, found {text:?}")),
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT` or a bare IPv6 address.
pub fn host_port(text: &str, default_port: u16) -> Result<(Host, u16), String> {
    if text.parse::<IpAddr>().is_ok() {
        return host(text).map(|host| (host, default_port));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => {
            let port = port.parse().ok().filter(|port| *port != 0);
            (
                name,
                port.ok_or_else(|| {
                    format!("expected HOST:PORT with a port from 1 to 65535, found {text:?}")
                })?,
            )
        }
        None => (text, default_port),
    };
    host(name).map(|host| (host, port)).map_err(|_| format!("expected HOST:PORT, found {text:?}"))
}

/// `IP:PORT`; port 0 lets the kernel choose.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let with_localhost = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    with_localhost.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!("expected an IP address and a port such as 127.0.0.1:3306 or [::1]:3306, found {text:?}")
    })
}

/// `IP` or `IP:PORT` of a DNS server.
pub fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let at_usual_port = || text.parse().ok().map(|address| SocketAddr::new(address, 53));
    let given = text.parse::<SocketAddr>().ok().or_else(at_usual_port);
    given.filter(|server| server.port() != 0).ok_or_else(|| {
        format!("expected an IP address, with or without a port from 1 to 65535, found {text:?}")
    })
}

/// `name`, `*.name` or `*`.
pub fn host_pattern(text: &str) -> Result<HostPattern, String> {
    let expected = |_| format!("expected a DNS name or *.NAME, found {text:?}");
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    match text.strip_prefix("*.") {
        Some(suffix) => dns(suffix).map(|suffix| HostPattern::Suffix(format!(".{suffix}"))).map_err(expected),
        None => dns(text).map(HostPattern::Exact).map_err(expected),
    }
}

/// A DNS name, a URI (`scheme://…`) or an IP address.
pub fn subject_alt_name(text: &str) -> Result<SubjectAltName, String> {
    if let Ok(address) = text.parse() {
        return Ok(SubjectAltName::Address(address));
    }
    if is_subject(text) {
        return Err(format!(
            "expected a DNS name, a URI or an IP address, found a subject, which is never an identity: {text:?}"
        ));
    }
    let is_uri = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !rest.is_empty()
    });
    if is_uri && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Ok(SubjectAltName::Uri(text.to_owned()));
    }
    let literal_wildcard = text.strip_prefix("*.").map(|rest| dns(rest).map(|rest| format!("*.{rest}")));
    literal_wildcard
        .unwrap_or_else(|| dns(text))
        .map(SubjectAltName::Dns)
        .map_err(|_| format!("expected a DNS name, a URI or an IP address, found {text:?}"))
}

/// `spiffe://DOMAIN/PATH`, or with `/*` at its end every ID below.
pub fn spiffe(text: &str) -> Result<SubjectAltName, String> {
    let (id, below) = text.strip_suffix("/*").map_or((text, false), |id| (id, true));
    let parts: Vec<_> = id.strip_prefix("spiffe://").map_or(Vec::new(), |rest| rest.split('/').collect());
    // SPIFFE-ID, sections 2.1 and 2.2.
    let fits = |part: &&str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        !part.is_empty() && part.bytes().all(letter)
    };
    let whole = parts.len() > 1 || (below && parts.len() == 1);
    if !whole || !parts.iter().all(fits) || is_subject(text) {
        let why = if is_subject(text) { " a subject, which is never an identity:" } else { "" };
        return Err(format!("expected spiffe://DOMAIN/PATH or spiffe://DOMAIN/PATH/*, found{why} {text:?}"));
    }
    Ok(if below { SubjectAltName::SpiffeBelow(format!("{id}/")) } else { SubjectAltName::Uri(id.to_owned()) })
}

/// Whether a text is (part of) the subject of a certificate.
pub fn is_subject(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with("cn=") || lower.contains(",cn=") || lower.starts_with("/cn=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_are_checked_by_label() {
        for good in ["a", "mysql.fqdn.example", "MYSQL.example.", "x-1.y_2", "1.example"] {
            assert!(dns(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "*.a",
            "10.0.0.1",
            "a.1",
            "é",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(dns(bad).is_err(), "{bad}");
        }
        assert_eq!(dns("MYSQL.Example.").unwrap(), "mysql.example");
    }

    #[test]
    fn host_and_port_are_told_apart_also_in_ipv6() {
        let address = |text: &str| Host::Address(text.parse().unwrap());
        let check = |text: &str, expected: Option<(Host, u16)>| {
            assert_eq!(host_port(text, 9).ok(), expected, "{text}");
        };
        check("db.example:3307", Some((Host::Name("db.example".into()), 3307)));
        check("db.example", Some((Host::Name("db.example".into()), 9)));
        check("10.0.0.1", Some((address("10.0.0.1"), 9)));
        check("10.0.0.1:1", Some((address("10.0.0.1"), 1)));
        check("::1", Some((address("::1"), 9)));
        check("[::1]:5", Some((address("::1"), 5)));
        for bad in ["db:0", "db:65536", "db:x", ":3306", "", "a b:1", "http://db:1"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_name_to_accept_is_dns_uri_or_address_and_never_a_subject() {
        assert_eq!(subject_alt_name("A.example").unwrap(), SubjectAltName::Dns("a.example".into()));
        let spiffe = "spiffe://cluster.local/ns/Default/sa/app";
        assert_eq!(subject_alt_name(spiffe).unwrap(), SubjectAltName::Uri(spiffe.into()));
        assert_eq!(subject_alt_name("::1").unwrap(), SubjectAltName::Address("::1".parse().unwrap()));
        assert!(subject_alt_name("CN=client").unwrap_err().contains("never an identity"));
        assert!(subject_alt_name("://x").is_err());
    }

    #[test]
    fn a_spiffe_id_is_whole_or_everything_below_one() {
        let id = "spiffe://td/ns/a/sa/b";
        assert_eq!(spiffe(id).unwrap(), SubjectAltName::Uri(id.into()));
        let below = |text: &str, prefix: &str| {
            assert_eq!(spiffe(text).unwrap(), SubjectAltName::SpiffeBelow(prefix.into()));
        };
        below("spiffe://td/*", "spiffe://td/");
        below("spiffe://td/ns/a/*", "spiffe://td/ns/a/");
        for bad in [
            "",
            "*",
            "td/ns/a",
            "https://td/a",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/a*",
            "spiffe://*/a",
            "spiffe:///*",
        ] {
            assert!(spiffe(bad).is_err(), "{bad}");
        }
        assert!(spiffe("CN=client").unwrap_err().contains("never an identity"));
    }

    #[test]
    fn a_listener_is_an_address() {
        assert_eq!(listen_address("localhost:0").unwrap(), "127.0.0.1:0".parse().unwrap());
        assert!(listen_address("3306").unwrap_err().starts_with("expected an IP address and a port"));
    }
}
