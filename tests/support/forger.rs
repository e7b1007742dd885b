//! A client that has shaken hands and then seals its own records: of any type and content, as no library
//! would send them. TLS 1.3 with AES-256-GCM (RFC 8446 section 5.2).

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{ClientConfig, ConnectionTrafficSecrets};

use super::peer;

pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;

pub struct Forger {
    pub socket: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Forger {
    pub fn connect(address: SocketAddr, mut config: ClientConfig) -> Self {
        config.enable_secret_extraction = true;
        let mut client = peer::connect(address, config);
        while client.conn.is_handshaking() || client.conn.wants_write() {
            client.conn.complete_io(&mut client.sock).expect("a handshake");
        }
        let (sequence, secrets) = client.conn.dangerous_extract_secrets().expect("secrets").tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("not AES-256-GCM") };
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("a key"));
        let iv = iv.as_ref().try_into().expect("12 bytes");
        Self { socket: client.sock, key, iv, sequence }
    }

    /// One record, sealed with the next number.
    pub fn record(&mut self, content_type: u8, payload: &[u8]) -> Vec<u8> {
        let mut inner = [payload, &[content_type]].concat();
        let length = u16::try_from(inner.len() + AES_256_GCM.tag_len()).expect("a length");
        let header = [&[APPLICATION_DATA, 3, 3][..], &length.to_be_bytes()].concat();
        let mut nonce = self.iv;
        for (byte, part) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= part;
        }
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut inner).expect("sealed");
        [header, inner].concat()
    }

    pub fn send(&mut self, content_type: u8, payload: &[u8]) {
        let record = self.record(content_type, payload);
        self.socket.write_all(&record).expect("written");
    }
}
