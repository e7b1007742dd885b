//! What a verified certificate says its holder is, and how a configured name is compared with it.
//!
//! The subject's common name is never an identity.

use std::fmt;
use std::net::IpAddr;

/// The subject alternative names of a verified leaf certificate (RFC 5280 section 4.2.1.6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// URIs, as written; a SPIFFE ID is one of these.
    pub uris: Vec<String>,
    /// DNS names, as written; the first label may be `*`.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
}

impl PeerIdentity {
    /// Every name, as people write it.
    pub fn names(&self) -> Vec<String> {
        let written = self.uris.iter().chain(&self.dns_names).cloned();
        written.chain(self.addresses.iter().map(ToString::to_string)).collect()
    }

    /// The SPIFFE ID, if the certificate carries one.
    pub fn spiffe(&self) -> Option<&str> {
        self.uris.iter().map(String::as_str).find(|uri| uri.starts_with("spiffe://"))
    }
}

impl fmt::Display for PeerIdentity {
    /// The one name a person would call the peer by: SPIFFE ID, else URI, else DNS name, else address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.spiffe().or_else(|| self.uris.first().map(String::as_str)) {
            return f.write_str(name);
        }
        match (self.dns_names.first(), self.addresses.first()) {
            (Some(name), _) => f.write_str(name),
            (None, Some(address)) => address.fmt(f),
            (None, None) => f.write_str("-"),
        }
    }
}

/// SHA-256 of what tells one certificate from all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of its public key, as SubjectPublicKeyInfo (RFC 5280 section 4.1); a renewed certificate may keep it.
    pub public_key: Digest,
    /// Of the certificate itself.
    pub certificate: Digest,
}

/// A SHA-256.
pub type Digest = [u8; 32];

/// A certificate that the operator accepts, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pin {
    /// Any with this public key (Istio `verifyCertificateSpki`).
    PublicKey(Digest),
    /// This one (Istio `verifyCertificateHash`).
    Certificate(Digest),
}

impl Pin {
    /// Whether this is the certificate.
    pub fn matches(&self, found: &Fingerprints) -> bool {
        match self {
            Self::PublicKey(digest) => *digest == found.public_key,
            Self::Certificate(digest) => *digest == found.certificate,
        }
    }
}

/// A subject alternative name that the operator accepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubjectAltName {
    /// A DNS name, lower case. The *certificate's* wildcard may stand for one label of it.
    Dns(String),
    /// A URI, compared byte for byte.
    Uri(String),
    /// An address, compared as such.
    Address(IpAddr),
    /// Any SPIFFE ID below this one, which ends with a slash: those of a trust domain, or of a namespace.
    SpiffeBelow(String),
}

impl SubjectAltName {
    /// Whether one of the names of `identity` is this one.
    pub fn matches(&self, identity: &PeerIdentity) -> bool {
        match self {
            Self::Dns(name) => identity.dns_names.iter().any(|presented| dns_matches(presented, name)),
            Self::Uri(uri) => identity.uris.contains(uri),
            Self::Address(address) => identity.addresses.contains(address),
            Self::SpiffeBelow(prefix) => {
                identity.spiffe().is_some_and(|id| id.len() > prefix.len() && id.starts_with(prefix.as_str()))
            }
        }
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::SpiffeBelow(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// RFC 6125 section 6.4.3 with the wildcard as a whole left-most label only.
fn dns_matches(presented: &str, expected: &str) -> bool {
    let presented = presented.to_ascii_lowercase();
    if presented == expected {
        return true;
    }
    let (Some(suffix), Some((label, rest))) = (presented.strip_prefix("*."), expected.split_once('.')) else {
        return false;
    };
    !label.is_empty() && label != "*" && suffix == rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, presented: &str, matches: bool) {
        let identity = PeerIdentity { dns_names: vec![presented.into()], ..PeerIdentity::default() };
        assert_eq!(
            SubjectAltName::Dns(expected.into()).matches(&identity),
            matches,
            "{expected} in {presented}"
        );
    }

    #[test]
    fn a_dns_name_is_compared_as_rfc_6125_says() {
        check("client.example", "client.example", true);
        check("client.example", "CLIENT.example", true);
        check("client.example", "*.example", true);
        check("a.client.example", "*.example", false);
        check("client.example", "other.example", false);
        check("client.example", "*", false);
        check("client.example", "c*.example", false);
        check("*.example", "*.example", true);
        check("*.example", "client.example", false);
        check("example", "*.example", false);
    }

    #[test]
    fn a_uri_is_compared_byte_for_byte_and_never_with_a_dns_name() {
        let uri = "spiffe://td/ns/a/sa/b";
        let identity =
            PeerIdentity { uris: vec![uri.into()], dns_names: vec!["td".into()], addresses: vec![] };
        assert!(SubjectAltName::Uri(uri.into()).matches(&identity));
        assert!(!SubjectAltName::Uri("spiffe://td/ns/a/sa/B".into()).matches(&identity));
        assert!(!SubjectAltName::Dns(uri.into()).matches(&identity));
        assert_eq!(identity.to_string(), uri);
        assert_eq!(identity.spiffe(), Some(uri));
    }

    #[test]
    fn a_spiffe_id_is_below_its_trust_domain_and_namespace_and_no_other() {
        let identity = PeerIdentity { uris: vec!["spiffe://td/ns/a/sa/b".into()], ..PeerIdentity::default() };
        let below = |prefix: &str| SubjectAltName::SpiffeBelow(prefix.into()).matches(&identity);
        assert!(below("spiffe://td/") && below("spiffe://td/ns/a/"));
        assert!(!below("spiffe://t/") && !below("spiffe://td/ns/b/") && !below("spiffe://td/ns/a/sa/b/"));
        assert!(!SubjectAltName::SpiffeBelow("spiffe://td/".into()).matches(&PeerIdentity::default()));
    }

    #[test]
    fn a_pin_is_of_the_key_or_of_the_certificate_and_never_of_the_other() {
        let found = Fingerprints { public_key: [1; 32], certificate: [2; 32] };
        assert!(Pin::PublicKey([1; 32]).matches(&found) && Pin::Certificate([2; 32]).matches(&found));
        assert!(!Pin::PublicKey([2; 32]).matches(&found) && !Pin::Certificate([1; 32]).matches(&found));
    }

    #[test]
    fn an_address_is_compared_as_an_address() {
        let address: IpAddr = "::1".parse().unwrap();
        let identity = PeerIdentity { addresses: vec![address], ..PeerIdentity::default() };
        assert!(SubjectAltName::Address("0:0:0:0:0:0:0:1".parse().unwrap()).matches(&identity));
        assert!(!SubjectAltName::Address("127.0.0.1".parse().unwrap()).matches(&identity));
    }
}
