//! The files of a credential directory, whatever is in them.
//!
//! An input is a mode and a list of files. Of each, a byte says which it is and how its bytes are wrapped, and
//! a byte what they are: those of a genuine certificate, key or list made for this run, with some of them
//! altered, or those of the input. What must hold: nothing panics; what is accepted is whole, and its key is
//! that of its certificate; what is told is one line.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use twinlock::credentials::bundle::{self, aged};
use twinlock::credentials::layout::FILES;
use twinlock::credentials::needs::{Needs, Use};
use twinlock::credentials::read::{Content, Set};
use twinlock::plan::route::HostPattern;

/// Within the validity of the genuine certificates.
const NOW: u64 = 1_800_000_000;

/// Labels of PEM sections that bytes are wrapped in; none leaves them as they are.
const LABELS: [Option<&str>; 5] =
    [None, Some("CERTIFICATE"), Some("PRIVATE KEY"), Some("EC PRIVATE KEY"), Some("X509 CRL")];

fuzz_target!(|input: &[u8]| {
    let Some((&mode, mut rest)) = input.split_first() else { return };
    let (mut own, mut apart) = (BTreeMap::new(), BTreeMap::new());
    while let [which, source, behind @ ..] = rest {
        let (bytes, behind) = take(*source, behind);
        rest = behind;
        // Three bits below and one above: room for the names that came later.
        let name = FILES[usize::from(which & 7 | which >> 4 & 8) % FILES.len()];
        let label = LABELS[usize::from((which >> 3) & 7) % LABELS.len()];
        let files: &mut BTreeMap<_, Vec<u8>> = if which & 0x40 == 0 { &mut own } else { &mut apart };
        // The same file again is a file of several sections.
        files.entry(name).or_default().extend(wrap(label, &bytes));
    }
    let own = Set::new(PathBuf::from("set"), own);
    let apart = (mode & 8 != 0).then(|| Set::new(PathBuf::from("set-cacert"), apart));
    let content = Content { own, apart };
    let uses = match mode & 3 {
        0 => Vec::new(),
        1 => vec![Use::Client],
        2 => vec![Use::Server(vec![HostPattern::Exact("mysql.fqdn.example".into())])],
        _ => vec![Use::Server(vec![HostPattern::Any]), Use::Client],
    };
    let needs = Needs { uses, ca: mode & 4 != 0, everything: mode & 16 != 0, ..Needs::default() };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let found = bundle::check(&content, &needs, 1, None, now);
    let told = found.warnings.into_iter().chain(aged(&found.items, now));
    told.for_each(|warning| one_line(&warning.to_string()));
    match found.verdict {
        Err(refusal) => one_line(&refusal.to_string()),
        Ok(credential) => {
            assert!(needs.uses.is_empty() || credential.certified_key.is_some());
            assert!(!needs.ca || !credential.trust.is_empty());
            if let Some(pair) = &credential.certified_key {
                assert!(pair.keys_match().is_ok());
                let again = bundle::check(&content, &needs, 2, Some(&credential), now);
                assert!(again.verdict.is_ok(), "good once and not twice");
            }
        }
    }
});

/// The bytes of one file, and what is behind them in the input.
fn take(source: u8, input: &[u8]) -> (Vec<u8>, &[u8]) {
    if source & 0x80 == 0 {
        let (bytes, behind) = input.split_at(usize::from(source).min(input.len()));
        return (bytes.to_vec(), behind);
    }
    let mut bytes = GENUINE[usize::from(source & 7) % GENUINE.len()].clone();
    let mut rest = input;
    for _ in 0..(source >> 3) & 3 {
        let [high, low, altered, behind @ ..] = rest else { break };
        let place = usize::from(u16::from_be_bytes([*high, *low])) % bytes.len();
        bytes[place] = *altered;
        rest = behind;
    }
    (bytes, rest)
}

/// A leaf and its key, its CA, a list of that CA, and one that revokes the leaf, in DER.
static GENUINE: LazyLock<[Vec<u8>; 5]> = LazyLock::new(|| {
    let key = || KeyPair::generate().expect("a key");
    let (from, until) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (from, until);
    let ca_key = key();
    let ca = params.self_signed(&ca_key).expect("a CA");
    let issuer = Issuer::new(params, ca_key);
    let mut params = CertificateParams::new(vec!["mysql.fqdn.example".into()]).expect("a name");
    params.serial_number = Some(SerialNumber::from(7_u64));
    (params.not_before, params.not_after) = (from, until);
    let leaf_key = key();
    let leaf = params.signed_by(&leaf_key, &issuer).expect("a leaf");
    let list = |revoked: Vec<RevokedCertParams>| {
        let params = CertificateRevocationListParams {
            this_update: from,
            next_update: until,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).expect("a list").der().to_vec()
    };
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(7_u64),
        revocation_time: from,
        reason_code: None,
        invalidity_date: None,
    };
    [leaf.der().to_vec(), leaf_key.serialize_der(), ca.der().to_vec(), list(Vec::new()), list(vec![revoked])]
});

fn one_line(text: &str) {
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

fn wrap(label: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let Some(label) = label else { return bytes.to_vec() };
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64(bytes).as_bytes().chunks(64) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
    }
    let _ = writeln!(text, "-----END {label}-----");
    text.into_bytes()
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let padded = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
