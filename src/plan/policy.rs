//! What TLS a hop may speak: the oldest version, the key exchange, the cipher suites.

use std::fmt;

/// The TLS that one side of a hop offers and accepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// Anything older is refused.
    pub version_min: TlsVersion,
    /// Anything newer is refused; not older than the oldest.
    pub version_max: TlsVersion,
    /// How keys are agreed on.
    pub key_exchange: KeyExchange,
    /// The cipher suites, best first; empty for all that are safe.
    pub ciphers: Vec<Cipher>,
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self {
            version_min: TlsVersion::V1_2,
            version_max: TlsVersion::V1_3,
            key_exchange: KeyExchange::default(),
            ciphers: Vec::new(),
        }
    }
}

/// A version of TLS; older ones than these do not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246, with the extended master secret and AEAD suites only.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// Which groups keys are agreed on with. X25519MLKEM768 joins a classical exchange with a post-quantum
/// one, so that traffic recorded today stays closed to the machines of tomorrow; it exists in TLS 1.3 only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum KeyExchange {
    /// X25519MLKEM768 with a peer that knows it, else X25519, P-256 or P-384.
    #[default]
    PreferPostQuantum,
    /// X25519MLKEM768, or no connection.
    RequirePostQuantum,
    /// X25519, P-256 or P-384.
    Classical,
}

/// A cipher suite that is safe to use: AEAD with forward secrecy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say what they are")]
pub enum Cipher {
    Tls13Aes256Gcm,
    Tls13Aes128Gcm,
    Tls13Chacha20,
    EcdsaAes256Gcm,
    EcdsaAes128Gcm,
    EcdsaChacha20,
    RsaAes256Gcm,
    RsaAes128Gcm,
    RsaChacha20,
}

impl Cipher {
    /// Every suite, best first.
    pub const ALL: [Self; 9] = [
        Self::Tls13Aes256Gcm,
        Self::Tls13Aes128Gcm,
        Self::Tls13Chacha20,
        Self::EcdsaAes256Gcm,
        Self::EcdsaAes128Gcm,
        Self::EcdsaChacha20,
        Self::RsaAes256Gcm,
        Self::RsaAes128Gcm,
        Self::RsaChacha20,
    ];

    /// The suite that IANA or OpenSSL (and so Istio's `cipherSuites`) calls by this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.iana() == name || cipher.openssl() == name)
    }

    /// The version of TLS that it belongs to.
    pub fn version(self) -> TlsVersion {
        match self {
            Self::Tls13Aes256Gcm | Self::Tls13Aes128Gcm | Self::Tls13Chacha20 => TlsVersion::V1_3,
            Self::EcdsaAes256Gcm
            | Self::EcdsaAes128Gcm
            | Self::EcdsaChacha20
            | Self::RsaAes256Gcm
            | Self::RsaAes128Gcm
            | Self::RsaChacha20 => TlsVersion::V1_2,
        }
    }

    fn iana(self) -> &'static str {
        match self {
            Self::Tls13Aes256Gcm => "TLS_AES_256_GCM_SHA384",
            Self::Tls13Aes128Gcm => "TLS_AES_128_GCM_SHA256",
            Self::Tls13Chacha20 => "TLS_CHACHA20_POLY1305_SHA256",
            Self::EcdsaAes256Gcm => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            Self::EcdsaAes128Gcm => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Self::EcdsaChacha20 => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            Self::RsaAes256Gcm => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            Self::RsaAes128Gcm => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            Self::RsaChacha20 => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        }
    }

    fn openssl(self) -> &'static str {
        match self {
            Self::Tls13Aes256Gcm | Self::Tls13Aes128Gcm | Self::Tls13Chacha20 => self.iana(),
            Self::EcdsaAes256Gcm => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::EcdsaAes128Gcm => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::EcdsaChacha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::RsaAes256Gcm => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::RsaAes128Gcm => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::RsaChacha20 => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.iana())
    }
}

impl TlsPolicy {
    /// Whether a session of this version can come about.
    pub fn speaks(&self, version: TlsVersion) -> bool {
        let post_quantum_only = self.key_exchange == KeyExchange::RequirePostQuantum;
        let has_group = !post_quantum_only || version == TlsVersion::V1_3;
        let has_cipher =
            self.ciphers.is_empty() || self.ciphers.iter().any(|cipher| cipher.version() == version);
        (self.version_min..=self.version_max).contains(&version) && has_group && has_cipher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cipher_is_found_by_either_name() {
        for cipher in Cipher::ALL {
            assert_eq!(Cipher::by_name(cipher.iana()), Some(cipher));
            assert_eq!(Cipher::by_name(cipher.openssl()), Some(cipher));
        }
        assert_eq!(Cipher::by_name("AES256-SHA"), None);
    }

    #[test]
    fn a_version_needs_a_group_and_a_cipher() {
        let check = |policy: &TlsPolicy, expected: [bool; 2]| {
            assert_eq!([TlsVersion::V1_2, TlsVersion::V1_3].map(|version| policy.speaks(version)), expected);
        };
        check(&TlsPolicy::default(), [true, true]);
        check(&TlsPolicy { version_min: TlsVersion::V1_3, ..TlsPolicy::default() }, [false, true]);
        let required = TlsPolicy { key_exchange: KeyExchange::RequirePostQuantum, ..TlsPolicy::default() };
        check(&required, [false, true]);
        let old = TlsPolicy { ciphers: vec![Cipher::RsaAes128Gcm], ..TlsPolicy::default() };
        check(&old, [true, false]);
        check(&TlsPolicy { version_min: TlsVersion::V1_3, ..old }, [false, false]);
        check(&TlsPolicy { version_max: TlsVersion::V1_2, ..TlsPolicy::default() }, [true, false]);
    }
}
