//! Who may ask. A page that a browser shows must not reach the admin server by a name that leads here (DNS
//! rebinding), so only names that nobody else can have are answered.

use std::net::IpAddr;

use hyper::http::uri::Authority;

/// Whether a `Host` (RFC 9110 section 7.2) is this server: `localhost`, a loopback address, or the address at
/// which the connection came in.
pub fn is_ours(host: &str, local: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match literal.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            address.is_loopback() || address == local.to_canonical()
        }
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_have_are_ours() {
        let local: IpAddr = [10, 1, 2, 3].into();
        let ours = [
            "localhost",
            "LocalHost:15021",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.9.9.9:15021",
            "[::1]:15021",
            "[::ffff:127.0.0.1]",
            "10.1.2.3:15021",
        ];
        let foreign = [
            "",
            "evil.example",
            "evil.example:15021",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil@localhost",
            "10.1.2.4",
            "[fe80::1]:15021",
            "localhost/",
            "localhost evil",
        ];
        for host in ours {
            assert!(is_ours(host, local), "{host}");
        }
        for host in foreign {
            assert!(!is_ours(host, local), "{host}");
        }
    }
}
