//! The header that tells a server who its client is, in front of everything else (HAProxy's PROXY protocol,
//! versions 1 and 2). Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::plan::cluster::ProxyHeader;

/// What a header tells of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Told<'connection> {
    /// Where the client is.
    pub client: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
    /// The SNI that it sent. Only version 2 has room for this and the next.
    pub authority: Option<&'connection str>,
    /// The TLS that it spoke.
    pub tls: Option<ToldTls>,
}

/// What a header tells of the client's TLS.
#[derive(Debug, Clone, Copy)]
pub struct ToldTls {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// Whether the client has shown a certificate, which was verified.
    pub certificate: bool,
}

/// The header.
pub fn header(version: ProxyHeader, told: Told<'_>) -> Vec<u8> {
    match version {
        ProxyHeader::V1 => version_1(told.client, told.destination).into_bytes(),
        ProxyHeader::V2 => version_2(told),
    }
}

/// Section 2.1: one line of at most 107 bytes.
fn version_1(client: SocketAddr, destination: SocketAddr) -> String {
    let (from, to) = of_one_family(client.ip(), destination.ip());
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), destination.port())
}

/// Section 2.2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, for a connection that another has made.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const AUTHORITY: u8 = 0x02;
const TLS: u8 = 0x20;
const TLS_VERSION: u8 = 0x21;
const TLS_CIPHER: u8 = 0x23;
/// The client spoke TLS; it has shown a certificate on this connection, and on its session.
const SPOKE_TLS: u8 = 0x01;
const SHOWED_CERTIFICATE: u8 = 0x02 | 0x04;

fn version_2(told: Told<'_>) -> Vec<u8> {
    let (from, to) = of_one_family(told.client.ip(), told.destination.ip());
    let mut body = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => body.extend(address.octets()),
            IpAddr::V6(address) => body.extend(address.octets()),
        }
    }
    body.extend(told.client.port().to_be_bytes());
    body.extend(told.destination.port().to_be_bytes());
    if let Some(authority) = told.authority {
        value(&mut body, AUTHORITY, authority.as_bytes());
    }
    if let Some(tls) = told.tls {
        let showed = if tls.certificate { SHOWED_CERTIFICATE } else { 0 };
        let mut about = vec![SPOKE_TLS | showed];
        // 0 says that what was shown has been verified.
        about.extend(u32::from(!tls.certificate).to_be_bytes());
        value(&mut about, TLS_VERSION, tls.version.as_bytes());
        value(&mut about, TLS_CIPHER, tls.cipher.as_bytes());
        value(&mut body, TLS, &about);
    }
    let family = if from.is_ipv4() { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 };
    let mut header = [SIGNATURE, &[PROXY, family]].concat();
    header.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend(body);
    header
}

/// Appends a type, a length and a value (section 2.2.1). No value here is long: an SNI has 255 bytes at most.
fn value(body: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    body.push(kind);
    body.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(bytes);
}

/// Both ends in the form of one family: as they are, or both as IPv6.
fn of_one_family(one: IpAddr, other: IpAddr) -> (IpAddr, IpAddr) {
    let mapped = |address: IpAddr| -> Ipv6Addr {
        match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        }
    };
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.into(), other.into()),
        (one, other) => (mapped(one).into(), mapped(other).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(client: &str, destination: &str) -> Told<'a> {
        let address = |text: &str| text.parse().unwrap();
        Told { client: address(client), destination: address(destination), authority: None, tls: None }
    }

    #[test]
    fn version_1_is_a_line() {
        for (client, destination, expected) in [
            ("192.0.2.1:4000", "10.0.0.1:3306", "PROXY TCP4 192.0.2.1 10.0.0.1 4000 3306\r\n"),
            ("[2001:db8::1]:4000", "[::1]:3306", "PROXY TCP6 2001:db8::1 ::1 4000 3306\r\n"),
            ("192.0.2.1:4000", "[::1]:3306", "PROXY TCP6 ::ffff:192.0.2.1 ::1 4000 3306\r\n"),
            ("[::ffff:192.0.2.1]:1", "10.0.0.1:2", "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n"),
        ] {
            let found = header(ProxyHeader::V1, told(client, destination));
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        }
    }

    #[test]
    fn version_2_is_as_the_specification_draws_it() {
        let found = header(ProxyHeader::V2, told("192.0.2.1:4000", "10.0.0.1:3306"));
        let expected = [
            &b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c"[..],
            &[192, 0, 2, 1, 10, 0, 0, 1, 0x0f, 0xa0, 0x0c, 0xea],
        ];
        assert_eq!(found, expected.concat());
        let six = header(ProxyHeader::V2, told("[2001:db8::1]:1", "[::1]:2"));
        assert_eq!((&six[12..16], six.len()), (&[0x21, 0x21, 0, 36][..], 16 + 36));
    }

    #[test]
    fn version_2_tells_of_the_clients_tls() {
        let tls = ToldTls { version: "TLSv1.3", cipher: "X", certificate: true };
        let told = Told { authority: Some("a.b"), tls: Some(tls), ..told("192.0.2.1:1", "10.0.0.1:2") };
        let found = header(ProxyHeader::V2, told);
        let values = b"\x02\x00\x03a.b\x20\x00\x13\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.3\x23\x00\x01X";
        assert_eq!(&found[16 + 12..], values);
        assert_eq!(usize::from(found[15]), found.len() - 16);
    }
}
