//! What is on the wire between two programs: a proxy that keeps a copy, and the frame of TLS records.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

type Copied = Arc<Mutex<Vec<u8>>>;

/// Carries TCP to a target and keeps what passes; a byte is kept before it is passed on.
pub struct Recorder {
    pub address: SocketAddr,
    from_client: Copied,
    from_server: Copied,
}

impl Recorder {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let recorder = Self { address, from_client: Copied::default(), from_server: Copied::default() };
        let (outward, inward) = (recorder.from_client.clone(), recorder.from_server.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) =
                    (client.expect("a client"), TcpStream::connect(target).expect("a server"));
                let ends = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
                let (outward, inward) = (outward.clone(), inward.clone());
                std::thread::spawn(move || copy(client, server, &outward));
                std::thread::spawn(move || copy(ends.1, ends.0, &inward));
            }
        });
        recorder
    }

    /// Everything that clients have sent.
    pub fn client_bytes(&self) -> Vec<u8> {
        self.from_client.lock().expect("bytes").clone()
    }

    /// Everything that servers have sent.
    pub fn server_bytes(&self) -> Vec<u8> {
        self.from_server.lock().expect("bytes").clone()
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, copied: &Copied) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        copied.lock().expect("bytes").extend_from_slice(&buffer[..read]);
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}

pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The first TLS record, its header included (RFC 8446 section 5.1).
pub fn first_record(bytes: &[u8]) -> Option<&[u8]> {
    let [kind, 3, version, high, low, ..] = *bytes else { return None };
    let known = (0x14..=0x17).contains(&kind) && (1..=3).contains(&version);
    let record = bytes.get(..5 + usize::from(u16::from_be_bytes([high, low])))?;
    known.then_some(record)
}

/// Whether all of it is TLS 1.3 as a stranger sees it: a handshake in the clear of at most two records
/// (a hello, a change of cipher), then nothing but records of encrypted data.
pub fn is_tls(mut bytes: &[u8]) -> bool {
    let mut kinds = Vec::new();
    while let Some(record) = first_record(bytes) {
        kinds.push(record[0]);
        bytes = &bytes[record.len()..];
    }
    let encrypted = kinds.iter().position(|kind| *kind == 0x17);
    let clear = &kinds[..encrypted.unwrap_or(kinds.len())];
    bytes.is_empty()
        && matches!(clear, [0x16] | [0x16, 0x14])
        && encrypted.is_some_and(|start| kinds[start..].iter().all(|kind| *kind == 0x17))
}
