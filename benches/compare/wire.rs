//! What passes between the two proxies, seen by somebody in the middle.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// The version on the wire (RFC 8446 section 4.2.1).
pub const TLS_1_3: u16 = 0x0304;

/// What is kept of each direction.
const KEPT: usize = 1 << 20;

/// Carries one connection between the proxies and keeps the beginning of what it saw.
pub struct Tap {
    up: Option<JoinHandle<Vec<u8>>>,
    down: Option<JoinHandle<Vec<u8>>>,
    pub from_client: Vec<u8>,
    pub from_server: Vec<u8>,
}

impl Tap {
    pub fn start(client: TcpStream, server: TcpStream) -> Result<Self, Failure> {
        let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
        let up = Some(std::thread::spawn(move || copy(client, server)));
        let down = Some(std::thread::spawn(move || copy(server_too, client_too)));
        Ok(Self { up, down, from_client: Vec::new(), from_server: Vec::new() })
    }

    /// Waits for the end of the connection.
    pub fn finish(mut self) -> Result<Self, Failure> {
        let kept = |handle: Option<JoinHandle<Vec<u8>>>| {
            handle.map_or(Ok(Vec::new()), |handle| handle.join().map_err(|_| "the tap panicked"))
        };
        self.from_client = kept(self.up.take())?;
        self.from_server = kept(self.down.take())?;
        Ok(self)
    }

    /// Whether these bytes were seen, in either direction.
    pub fn shows(&self, bytes: &[u8]) -> bool {
        [&self.from_client, &self.from_server]
            .iter()
            .any(|kept| kept.windows(bytes.len()).any(|window| window == bytes))
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    // However it ends, the other side is told that it ended; what was carried is judged by its hash.
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let room = KEPT - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    kept
}

/// What a ServerHello says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    pub version: u16,
    pub cipher: u16,
    pub group: u16,
    /// Whether it continues an earlier session.
    pub resumed: bool,
}

impl Wire {
    /// Whether this is what equal terms are: AES-128-GCM, X25519, a full handshake.
    pub fn is_equal(&self) -> bool {
        (self.cipher, self.group, self.resumed) == (0x1301, 0x001d, false)
    }

    fn cipher_name(&self) -> String {
        match self.cipher {
            0x1301 => "AES-128-GCM".into(),
            0x1302 => "AES-256-GCM".into(),
            0x1303 => "ChaCha20-Poly1305".into(),
            other => format!("{other:#06x}"),
        }
    }

    fn group_name(&self) -> String {
        match self.group {
            0x0017 => "P-256".into(),
            0x001d => "X25519".into(),
            0x11ec => "X25519MLKEM768".into(),
            other => format!("{other:#06x}"),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.resumed { "resumed" } else { "full" };
        write!(f, "{} {} {how}", self.cipher_name(), self.group_name())
    }
}

/// The random that makes a ServerHello a HelloRetryRequest (RFC 8446 section 4.1.3), its beginning.
const RETRY: [u8; 8] = [0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11];

/// Finds the ServerHello in what a server sent (RFC 8446 sections 4.1.3 and 5.1).
pub fn server_hello(mut bytes: &[u8]) -> Result<Wire, Failure> {
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let record = rest.get(..length).ok_or("expected a whole record")?;
        // 22 is handshake, 2 is ServerHello.
        if *kind == 22 && record.first() == Some(&2) && record.get(6..14) != Some(&RETRY) {
            return parse(record).ok_or_else(|| "expected a ServerHello".into());
        }
        bytes = &rest[length..];
    }
    Err("expected TLS, found no ServerHello".into())
}

fn parse(hello: &[u8]) -> Option<Wire> {
    let number = |at: usize| Some(u16::from_be_bytes([*hello.get(at)?, *hello.get(at + 1)?]));
    // Type 1, length 3, version 2, random 32.
    let session = usize::from(*hello.get(38)?);
    let mut at = 39 + session;
    let mut wire = Wire { version: number(4)?, cipher: number(at)?, group: 0, resumed: false };
    at += 2 + 1;
    let end = at + 2 + usize::from(number(at)?);
    at += 2;
    while at < end {
        let (extension, length) = (number(at)?, usize::from(number(at + 2)?));
        match extension {
            41 => wire.resumed = true,
            43 => wire.version = number(at + 4)?,
            51 => wire.group = number(at + 4)?,
            _ => {}
        }
        at += 4 + length;
    }
    Some(wire)
}
