//! A plan's TLS policy in rustls' terms.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::PROVIDER;
use crate::plan::policy::{Cipher, KeyExchange, TlsPolicy, TlsVersion};

const CLASSICAL: [&dyn SupportedKxGroup; 3] = [kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// The cryptography that a policy leaves.
pub(crate) fn provider(policy: &TlsPolicy) -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&PROVIDER);
    provider.kx_groups = match policy.key_exchange {
        KeyExchange::PreferPostQuantum => [&[kx_group::X25519MLKEM768][..], &CLASSICAL].concat(),
        KeyExchange::RequirePostQuantum => vec![kx_group::X25519MLKEM768],
        KeyExchange::Classical => CLASSICAL.to_vec(),
    };
    if !policy.ciphers.is_empty() {
        provider.cipher_suites = policy.ciphers.iter().map(|cipher| suite(*cipher)).collect();
    }
    Arc::new(provider)
}

/// The versions that a policy leaves.
pub(crate) fn versions(policy: &TlsPolicy) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V1_3, &TLS13), (TlsVersion::V1_2, &TLS12)];
    all.into_iter().filter(|(version, _)| policy.speaks(*version)).map(|(_, version)| version).collect()
}

fn suite(cipher: Cipher) -> SupportedCipherSuite {
    match cipher {
        Cipher::Tls13Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
        Cipher::Tls13Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
        Cipher::Tls13Chacha20 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        Cipher::EcdsaAes256Gcm => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Cipher::EcdsaAes128Gcm => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Cipher::EcdsaChacha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Cipher::RsaAes256Gcm => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Cipher::RsaAes128Gcm => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Cipher::RsaChacha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}
