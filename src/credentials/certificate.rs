//! What a certificate says, for checks, records and people. Nothing here verifies anything.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use x509_parser::asn1_rs::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::plan::identity::{Digest, Fingerprints, PeerIdentity};

/// RSA keys below this many bits are refused.
const RSA_BITS_MIN: usize = 2048;

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who it is about, as RFC 4514 writes it; never an identity.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Whether the two are the same.
    pub self_issued: bool,
    /// The serial number, in upper-case hexadecimal as `openssl x509 -serial` shows it.
    pub serial: String,
    /// SHA-256 of the whole certificate and of its key.
    pub fingerprints: Fingerprints,
    /// The subject alternative names.
    pub names: PeerIdentity,
    /// When it begins to be valid, in seconds since 1970.
    pub not_before: i64,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
    /// The kind and size of its key.
    pub key: String,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// What its holder may be; `None` is not limited.
    pub purposes: Option<Purposes>,
    /// What is too weak about it.
    pub weakness: Option<String>,
    /// The name of its key, where it has one (RFC 5280 section 4.2.1.2).
    pub key_id: Option<Vec<u8>>,
    /// The name of the key that signed it (RFC 5280 section 4.2.1.1).
    pub issuer_key_id: Option<Vec<u8>>,
}

/// The uses that the extended key usage names (RFC 5280 section 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purposes {
    /// serverAuth.
    pub server: bool,
    /// clientAuth.
    pub client: bool,
}

impl Facts {
    /// Reads a certificate; the error says what is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let malformed = || "a certificate that does not parse".to_owned();
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err("bytes behind a certificate".to_owned());
        }
        let self_issued = certificate.subject().as_raw() == certificate.issuer().as_raw();
        let purposes = certificate.extended_key_usage().map_err(|_| malformed())?;
        // Certificates of X.509 version 1 have no extensions: an old root is its own word.
        let old_root = certificate.version() == X509Version::V1 && self_issued;
        Ok(Self {
            subject: printable(&certificate.subject().to_string()),
            issuer: printable(&certificate.issuer().to_string()),
            self_issued,
            serial: serial(&certificate),
            fingerprints: fingerprints(der, certificate.public_key().raw),
            names: names(&certificate),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            key: key(certificate.public_key()),
            is_ca: certificate.is_ca() || old_root,
            purposes: purposes.map(|purposes| Purposes {
                server: purposes.value.server_auth,
                client: purposes.value.client_auth,
            }),
            weakness: weakness(&certificate, self_issued),
            key_id: extension(&certificate, |extension| {
                let ParsedExtension::SubjectKeyIdentifier(id) = extension else { return None };
                Some(id.0.to_vec())
            }),
            issuer_key_id: extension(&certificate, |extension| {
                let ParsedExtension::AuthorityKeyIdentifier(id) = extension else { return None };
                Some(id.key_identifier.as_ref()?.0.to_vec())
            }),
        })
    }

    /// Subject, or its names where it has none.
    pub fn holder(&self) -> String {
        if self.subject.is_empty() { printable(&self.names.to_string()) } else { self.subject.clone() }
    }
}

/// The serial number, in upper-case hexadecimal as `openssl x509 -serial` shows it: without the zeros before it, one of
/// which DER writes where the number would look negative.
pub fn serial(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len().saturating_sub(1));
    hex(&bytes[zeros..]).to_uppercase()
}

/// What tells a certificate from all others, and its key, which is given as SubjectPublicKeyInfo.
pub fn fingerprints(der: &[u8], public_key: &[u8]) -> Fingerprints {
    let sha256 = |bytes: &[u8]| {
        let mut digest = Digest::default();
        digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        digest
    };
    Fingerprints { public_key: sha256(public_key), certificate: sha256(der) }
}

fn extension<T>(
    certificate: &X509Certificate<'_>,
    wanted: impl Fn(&ParsedExtension<'_>) -> Option<T>,
) -> Option<T> {
    certificate.extensions().iter().find_map(|extension| wanted(extension.parsed_extension()))
}

fn names(certificate: &X509Certificate<'_>) -> PeerIdentity {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let mut names = PeerIdentity::default();
    for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            names.dns_names.push((*name).to_owned());
        } else if let GeneralName::URI(uri) = name {
            names.uris.push((*uri).to_owned());
        } else if let GeneralName::IPAddress(bytes) = name {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            names.addresses.extend(four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(Into::into)));
        }
    }
    names
}

/// Why the certificate must not be relied on, whoever vouches for it.
fn weakness(certificate: &X509Certificate<'_>, self_issued: bool) -> Option<String> {
    if let Ok(PublicKey::RSA(rsa)) = certificate.public_key().parsed() {
        let bits = bits(rsa.modulus);
        if bits < RSA_BITS_MIN {
            return Some(format!("an RSA key of {bits} bits where {RSA_BITS_MIN} are the least"));
        }
    }
    // Nobody relies on the signature of a root: it is trusted because it is in the file.
    let weak = weak_hash(&certificate.signature_algorithm).filter(|_| !self_issued);
    weak.map(|hash| format!("a signature with {hash}"))
}

/// The hash of a signature algorithm, if it is one that can be forged.
pub fn weak_hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<&'static str> {
    match algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.2" | "1.2.840.113549.1.1.4" => Some("MD5"),
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.3.14.3.2.29" | "1.2.840.10040.4.3" => Some("SHA-1"),
        _ => None,
    }
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> String {
    if let Ok(PublicKey::RSA(rsa)) = info.parsed() {
        return format!("RSA {}", bits(rsa.modulus));
    }
    let id = info.algorithm.algorithm.to_id_string();
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match (id.as_str(), curve.as_ref().map(Oid::to_id_string).as_deref()) {
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => "ECDSA P-256".to_owned(),
        ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => "ECDSA P-384".to_owned(),
        ("1.2.840.10045.2.1", Some("1.3.132.0.35")) => "ECDSA P-521".to_owned(),
        ("1.2.840.10045.2.1", Some(curve)) => format!("ECDSA {curve}"),
        ("1.3.101.112", _) => "Ed25519".to_owned(),
        (other, _) => other.to_owned(),
    }
}

fn bits(modulus: &[u8]) -> usize {
    let significant = modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |start| &modulus[start..]);
    let unused = significant.first().map_or(0, |first| first.leading_zeros() as usize);
    significant.len() * 8 - unused
}

/// Text out of a certificate, safe for a line of a log: no line breaks and no other control characters.
pub fn printable(text: &str) -> String {
    let escape = |letter: char| {
        let control = letter.is_control().then(|| letter.escape_default());
        let plain = (!letter.is_control()).then_some(letter);
        control.into_iter().flatten().chain(plain)
    };
    text.chars().flat_map(escape).collect()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn the_facts_are_those_that_were_written() {
        let mut params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a name");
        params.subject_alt_names.push(SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.serial_number = Some(vec![0x0a, 0xbc].into());
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let facts = Facts::parse(certificate.der()).unwrap();
        assert!(facts.subject.contains("CN=a name"), "{}", facts.subject);
        assert_eq!((facts.subject.as_str(), facts.self_issued), (facts.issuer.as_str(), true));
        assert_eq!((facts.serial.as_str(), facts.key.as_str()), ("0ABC", "ECDSA P-256"));
        assert_eq!(facts.names.dns_names, ["a.example"]);
        assert_eq!(facts.names.addresses, [std::net::IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(facts.names.spiffe(), Some("spiffe://td/ns/a/sa/b"));
        assert_eq!(facts.purposes, Some(Purposes { server: false, client: true }));
        assert_eq!((facts.is_ca, facts.weakness.as_deref()), (false, None));
        assert!(facts.not_before < facts.not_after);
    }

    #[test]
    fn a_serial_number_has_no_zeros_before_it() {
        for (number, shown) in [(&[0x80, 1][..], "8001"), (&[0x7f], "7F"), (&[0], "00")] {
            let mut params = CertificateParams::default();
            params.serial_number = Some(number.to_vec().into());
            let key = KeyPair::generate().unwrap();
            assert_eq!(Facts::parse(params.self_signed(&key).unwrap().der()).unwrap().serial, shown);
        }
    }

    #[test]
    fn bits_are_counted_from_the_first_that_is_set() {
        assert_eq!(bits(&[0, 0x80, 0]), 16);
        assert_eq!(bits(&[0x7f, 0]), 15);
        assert_eq!(bits(&[]), 0);
    }

    #[test]
    fn what_is_no_certificate_is_an_error_at_every_length() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let der = certificate.der();
        for length in 0..der.len() {
            assert!(Facts::parse(&der[..length]).is_err(), "{length} bytes");
        }
        assert!(Facts::parse(&[der, &[0][..]].concat()).is_err());
    }
}
