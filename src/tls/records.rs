//! The record layer of an established TLS 1.3 session (RFC 8446 section 5), over keys that rustls agreed on.
//!
//! rustls shakes hands and derives every key, those of a KeyUpdate among them. What is left for this file is
//! to put records in and out without a copy and without an allocation, and to keep no more for that than two
//! keys. It refuses whatever the protocol does not allow, with the alert that the RFC names.

use std::ops::Range;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce};
use aws_lc_rs::aead::{NONCE_LEN, UnboundKey};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets};

use super::after::{self, After, Event, HANDSHAKE};
use super::plaintext::Plaintext;
use super::violation::Violation;
use crate::plan::outcome::TlsFault;

/// Plaintext of one record at most (section 5.1).
const PLAIN_MAX: usize = 1 << 14;
/// What a record adds to its plaintext at most when it is received (section 5.2).
const EXPANSION_MAX: usize = 256;
pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// What a record adds to its plaintext when it is sent: header, content type, tag.
const OVERHEAD: usize = HEADER + 1 + TAG;

const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
/// The version that every record names, whatever was agreed on (section 5.1).
const VERSION: [u8; 2] = [3, 3];

/// Records in a row that may carry no data: more of them have no purpose but to be worked on.
const WITHOUT_DATA_MAX: u8 = 32;

/// Both directions of a session, and the means to renew their keys.
pub struct Records {
    sealing: Direction,
    opening: Direction,
    keys: Keys,
    after: After,
    without_data: u8,
    /// The peer has asked for our next keys, and has no answer yet.
    keys_asked: bool,
    /// Our last record is sent: close_notify, or the alert that ended it all.
    ended: bool,
    peer_closed: bool,
}

/// Where the keys of the next generation come from.
pub(super) enum Keys {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Records {
    /// Goes on behind a handshake.
    pub(super) fn new(secrets: ExtractedSecrets, keys: Keys) -> Result<Self, TlsFault> {
        Ok(Self {
            sealing: Direction::new(secrets.tx)?,
            opening: Direction::new(secrets.rx)?,
            after: After::new(matches!(keys, Keys::Client(_))),
            keys,
            without_data: 0,
            keys_asked: false,
            ended: false,
            peer_closed: false,
        })
    }

    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Opens the whole records at the front of `records` and says how many bytes those are.
    pub(super) fn feed(
        &mut self,
        records: &[u8],
        plain: &mut Plaintext,
        outgoing: &mut Vec<u8>,
    ) -> Result<usize, TlsFault> {
        let opened = self.open_all(records, plain).and_then(|consumed| {
            // Once for all that was asked in one go (section 4.6.3).
            if std::mem::take(&mut self.keys_asked) && !self.ended {
                append(outgoing, |out| self.renew_sealing(after::KEYS_RENEWED, out))?;
            }
            Ok(consumed)
        });
        opened.map_err(|violation| {
            self.end_with(violation.alert(), outgoing);
            violation.into()
        })
    }

    /// Seals into records at the front of `out`, and says how many bytes that made.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        if self.ended {
            return Err(Violation::Internal("data behind the last record").into());
        }
        let limit = self.keys.records_max();
        let mut written = 0;
        for piece in plain.chunks(PLAIN_MAX) {
            // One more is kept for the record that announces the next keys (section 5.5).
            if self.sealing.sequence >= limit - 1 {
                written += self.renew_sealing(after::KEYS_RENEWED, &mut out[written..])?;
            }
            written += self.sealing.seal(APPLICATION_DATA, piece, &mut out[written..])?;
        }
        Ok(written)
    }

    /// Says that nothing more will be sent.
    pub(super) fn close(&mut self, outgoing: &mut Vec<u8>) {
        self.end_with(Some(after::CLOSE_NOTIFY), outgoing);
    }

    /// Goes on with new keys and asks the peer to do the same.
    pub(super) fn refresh_keys(&mut self, outgoing: &mut Vec<u8>) -> Result<(), TlsFault> {
        if self.ended {
            return Ok(());
        }
        append(outgoing, |out| self.renew_sealing(after::KEYS_ASKED, out))?;
        Ok(())
    }

    fn end_with(&mut self, alert: Option<[u8; 2]>, outgoing: &mut Vec<u8>) {
        if let Some(alert) = alert
            && !std::mem::replace(&mut self.ended, true)
        {
            // It fails only if sealing does, and then there is nothing that could be said.
            let _ = append(outgoing, |out| self.sealing.seal(ALERT, &alert, out));
        }
        self.ended = true;
    }

    fn open_all(&mut self, records: &[u8], plain: &mut Plaintext) -> Result<usize, Violation> {
        let mut consumed = 0;
        while !self.peer_closed {
            let Some(body) = whole_record(&records[consumed..])? else { return Ok(consumed) };
            let header = &records[consumed..consumed + HEADER];
            self.open(header, &records[consumed + body.start..consumed + body.end], plain)?;
            consumed += body.end;
        }
        // What comes behind close_notify is ignored (section 6.1).
        Ok(records.len())
    }

    fn open(&mut self, header: &[u8], body: &[u8], plain: &mut Plaintext) -> Result<(), Violation> {
        let inner = self.opening.open(header, body, plain)?;
        // The content type is the last byte that is not padding (section 5.4).
        let last = inner.iter().rposition(|byte| *byte != 0);
        let (content, content_type) = match last {
            Some(last) if last <= PLAIN_MAX => (&inner[..last], inner[last]),
            Some(_) => return Err(Violation::Oversized),
            None => return Err(Violation::Unexpected("a record without a content type")),
        };
        if content_type == APPLICATION_DATA && !content.is_empty() {
            if self.after.is_in_a_message() {
                return Err(Violation::Unexpected("data in the middle of a handshake message"));
            }
            self.without_data = 0;
            let length = content.len();
            plain.keep(length);
            return Ok(());
        }
        self.without_data += 1;
        if self.without_data > WITHOUT_DATA_MAX {
            return Err(Violation::Unexpected("records without data, one after the other"));
        }
        match self.after.take(content_type, content)? {
            None => {}
            Some(Event::Closed) => self.peer_closed = true,
            Some(Event::KeysRenewed { asks_for_ours }) => {
                self.keys_asked |= asks_for_ours;
                self.opening = Direction::new(self.keys.next_opening().map_err(renewal)?)?;
            }
        }
        Ok(())
    }

    /// Announces our next keys with this message and goes on with them.
    fn renew_sealing(&mut self, message: [u8; 5], out: &mut [u8]) -> Result<usize, Violation> {
        let written = self.sealing.seal(HANDSHAKE, &message, out)?;
        self.sealing = Direction::new(self.keys.next_sealing().map_err(renewal)?)?;
        Ok(written)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn renewal(_error: Error) -> Violation {
    Violation::Internal("the next keys cannot be derived")
}

impl Keys {
    fn next_sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(connection) => connection.update_tx_secret(),
            Self::Client(connection) => connection.update_tx_secret(),
        }
    }

    fn next_opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(connection) => connection.update_rx_secret(),
            Self::Client(connection) => connection.update_rx_secret(),
        }
    }

    /// Records that may be sealed with one key (section 5.5).
    fn records_max(&self) -> u64 {
        let suite = match self {
            Self::Server(connection) => connection.negotiated_cipher_suite(),
            Self::Client(connection) => connection.negotiated_cipher_suite(),
        };
        suite.tls13().map_or(u64::MAX, |suite| suite.common.confidentiality_limit)
    }
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Violation> {
        let unusable = Violation::Internal("the library handed out keys of an unknown kind");
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(unusable),
        };
        let iv = iv.as_ref().try_into();
        let (Ok(key), Ok(iv)) = (UnboundKey::new(algorithm, key.as_ref()), iv) else { return Err(unusable) };
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// One record at the front of `out`, and its length.
    fn seal(&mut self, content_type: u8, plain: &[u8], out: &mut [u8]) -> Result<usize, Violation> {
        let short = Violation::Internal("no room for a record");
        let total = plain.len() + OVERHEAD;
        let (header, rest) = out.split_at_mut_checked(HEADER).ok_or(short)?;
        let (sealed, rest) = rest.split_at_mut_checked(plain.len()).ok_or(short)?;
        let (type_and_tag, _) = rest.split_at_mut_checked(1 + TAG).ok_or(short)?;
        let length = u16::try_from(total - HEADER).map_err(|_| short)?.to_be_bytes();
        header.copy_from_slice(&[APPLICATION_DATA, VERSION[0], VERSION[1], length[0], length[1]]);
        let nonce = self.next_nonce()?;
        let header = Aad::from(&*header);
        self.key
            .seal_out_of_place_scatter(nonce, header, plain, sealed, &[content_type], type_and_tag)
            .map_err(|_| Violation::Internal("a record cannot be sealed"))?;
        Ok(total)
    }

    /// The plaintext of a record, its type and padding at the end.
    fn open<'plain>(
        &mut self,
        header: &[u8],
        body: &[u8],
        plain: &'plain mut Plaintext,
    ) -> Result<&'plain [u8], Violation> {
        let (sealed, tag) = body.split_last_chunk::<TAG>().ok_or(Violation::BadMac)?;
        let opened = plain.room(sealed.len());
        let nonce = self.next_nonce()?;
        self.key
            .open_separate_gather(nonce, Aad::from(header), sealed, tag, opened)
            .map_err(|_| Violation::BadMac)?;
        Ok(opened)
    }

    /// The number of the record, in the IV (section 5.3).
    fn next_nonce(&mut self) -> Result<Nonce, Violation> {
        let mut nonce = self.iv;
        for (byte, part) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= part;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(Violation::Internal("no record number left"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Where the body of the first record is; `None` if the record is not whole yet.
fn whole_record(bytes: &[u8]) -> Result<Option<Range<usize>>, Violation> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    match header[0] {
        APPLICATION_DATA => {}
        20..=24 => return Err(Violation::Unexpected("a record that is not encrypted")),
        _ => return Err(Violation::NotTls),
    }
    if header[1] != VERSION[0] {
        return Err(Violation::NotTls);
    }
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > PLAIN_MAX + EXPANSION_MAX {
        return Err(Violation::Oversized);
    }
    let body = HEADER..HEADER + length;
    Ok((body.end <= bytes.len()).then_some(body))
}

/// Appends a short record that `seal` writes.
fn append(
    outgoing: &mut Vec<u8>,
    seal: impl FnOnce(&mut [u8]) -> Result<usize, Violation>,
) -> Result<(), Violation> {
    let mut out = [0; 64];
    let written = seal(&mut out)?;
    outgoing.extend_from_slice(&out[..written]);
    Ok(())
}
