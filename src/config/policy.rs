//! The flags that say which TLS is spoken -> a policy under which at least one session can come about.

use super::report::Report;
use crate::cli::TlsFlags;
use crate::plan::policy::{Cipher, KeyExchange, TlsPolicy, TlsVersion};

/// Compiles the flags; `None` if one of them is not right.
pub fn tls(flags: &TlsFlags, report: &mut Report) -> Option<TlsPolicy> {
    let key_exchange = match flags.kx.as_str() {
        "prefer-pq" => Some(KeyExchange::PreferPostQuantum),
        "require-pq" => Some(KeyExchange::RequirePostQuantum),
        "classical" => Some(KeyExchange::Classical),
        other => {
            let problem = format!("expected prefer-pq, require-pq or classical, found {other:?}");
            report.note("--kx", Err(problem))
        }
    };
    let version_min = match flags.tls_min.as_deref() {
        None if key_exchange == Some(KeyExchange::RequirePostQuantum) => Some(TlsVersion::V1_3),
        None => Some(TlsVersion::V1_2),
        Some(text) => report.note("--tls-min", version(text, key_exchange)),
    };
    let ciphers: Vec<_> =
        flags.cipher.iter().filter_map(|name| report.note("--cipher", cipher(name))).collect();
    if ciphers.len() != flags.cipher.len() {
        return None;
    }
    let (version_min, key_exchange) = (version_min?, key_exchange?);
    let policy = TlsPolicy { version_min, key_exchange, ciphers, ..TlsPolicy::default() };
    if policy.speaks(TlsVersion::V1_2) || policy.speaks(TlsVersion::V1_3) {
        Some(policy)
    } else {
        // Of versions and groups alone something is always left.
        let listed = flags.cipher.join(",");
        report.note("--cipher", Err(format!("expected a cipher suite of TLS 1.3, found {listed:?}")))
    }
}

fn version(text: &str, key_exchange: Option<KeyExchange>) -> Result<TlsVersion, String> {
    match text {
        "1.2" if key_exchange == Some(KeyExchange::RequirePostQuantum) => {
            Err(format!("expected 1.3, which --kx require-pq needs, found {text:?}"))
        }
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        other => Err(format!("expected 1.2 or 1.3, found {other:?}")),
    }
}

fn cipher(name: &str) -> Result<Cipher, String> {
    Cipher::by_name(name).ok_or_else(|| {
        let all = Cipher::ALL.map(|cipher| cipher.to_string()).join(", ");
        format!("expected one of {all}, found {name:?}")
    })
}
