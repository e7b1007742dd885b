//! Whoever has the peer's secrets: records sealed with its keys, of any type and content.
//!
//! TLS 1.3 with AES-256-GCM and SHA-384 only (RFC 8446 sections 5.2 and 7.3).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA384, KeyType, Prk};
use rustls::KeyLog;

use crate::pair::Theirs;

pub const APPLICATION_DATA: u8 = 23;
const HEADER: usize = 5;

thread_local! {
    /// The secrets of the session at hand, by their label.
    static SECRETS: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
}

/// Hears of every secret.
pub struct Secrets;

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        SECRETS.with_borrow_mut(|secrets| secrets.insert(label.to_owned(), secret.to_vec()));
    }
}

pub fn forget_secrets() {
    SECRETS.with_borrow_mut(HashMap::clear);
}

pub struct Forger {
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: Vec<u8>,
    sequence: u64,
}

impl Forger {
    /// With the keys for application data that this side sends with.
    pub fn of_application_data(server: bool) -> Option<Self> {
        Self::of(if server { "SERVER_TRAFFIC_SECRET_0" } else { "CLIENT_TRAFFIC_SECRET_0" })
    }

    fn of_handshake(server: bool) -> Option<Self> {
        Self::of(if server { "SERVER_HANDSHAKE_TRAFFIC_SECRET" } else { "CLIENT_HANDSHAKE_TRAFFIC_SECRET" })
    }

    fn of(label: &str) -> Option<Self> {
        SECRETS.with_borrow(|secrets| secrets.get(label).cloned()).map(Self::new)
    }

    fn new(secret: Vec<u8>) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &expand(&secret, "key", 32)).expect("a key");
        Self { key: LessSafeKey::new(key), iv: expand(&secret, "iv", 12), secret, sequence: 0 }
    }

    /// Goes on with the next keys, as behind a KeyUpdate.
    pub fn renew(&mut self) {
        *self = Self::new(expand(&self.secret, "traffic upd", 48));
    }

    pub fn record(&mut self, content_type: u8, payload: &[u8]) -> Vec<u8> {
        let mut inner = [payload, &[content_type]].concat();
        let length = u16::try_from(inner.len() + AES_256_GCM.tag_len()).expect("at most twice a record");
        let header = [&[APPLICATION_DATA, 3, 3][..], &length.to_be_bytes()].concat();
        let nonce = self.next_nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut inner).expect("sealed");
        [header, inner].concat()
    }

    /// The inside of a record, its type at the end; `None` if it is of other keys.
    fn open(&mut self, header: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let mut inner = body.to_vec();
        let nonce = self.next_nonce();
        let length = self.key.open_in_place(nonce, Aad::from(header), &mut inner).ok()?.len();
        inner.truncate(length);
        Some(inner)
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce: [u8; 12] = self.iv[..].try_into().expect("12 bytes");
        for (byte, part) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= part;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Changes a byte of the encrypted part of a flight that waits on the wire, and seals it again.
pub fn alter_flight(theirs: &mut Theirs, mut at: usize, mask: u8) {
    let keys = || Forger::of_handshake(theirs.is_server());
    let (Some(mut opener), Some(mut sealer)) = (keys(), keys()) else { return };
    let wire = std::mem::take(&mut theirs.wire);
    let mut rest = &wire[..];
    while let Some((header, body, more)) = split_record(rest) {
        if header[0] != APPLICATION_DATA {
            theirs.wire.extend_from_slice(&rest[..HEADER + body.len()]);
        } else {
            let Some(mut inner) = opener.open(header, body) else { break };
            let Some(content_type) = inner.pop() else { break };
            match inner.get_mut(at) {
                Some(byte) => *byte ^= mask,
                None => at -= inner.len(),
            }
            theirs.wire.extend(sealer.record(content_type, &inner));
        }
        rest = more;
    }
    theirs.wire.extend_from_slice(rest);
}

/// The first record's header and body, and what is behind it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (body, more) = rest.split_at_checked(usize::from(u16::from_be_bytes([header[3], header[4]])))?;
    Some((header, body, more))
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label without context (RFC 8446 section 7.1).
fn expand(secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let label = [b"tls13 ", label.as_bytes()].concat();
    let sizes = [u16::try_from(length).expect("short").to_be_bytes().to_vec(), vec![label.len() as u8]];
    let info = [&sizes.concat()[..], &label, &[0]];
    let mut out = vec![0; length];
    let secret = Prk::new_less_safe(HKDF_SHA384, secret);
    secret.expand(&info, Length(length)).and_then(|key| key.fill(&mut out)).expect("a few bytes");
    out
}
