//! Plain sockets of the test's own: backends, how a stream ends, and a wire that can be damaged.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::PATIENCE;

pub const ACCEPTING: &str = "a connection to accept";

/// Connects; every read and write has a deadline.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    be_patient(&stream);
    stream
}

pub fn be_patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_nodelay(true).expect("no delay");
}

/// How a stream ended for its reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN, behind close_notify where there is TLS.
    Clean,
    /// FIN without close_notify.
    Truncated,
    /// RST.
    Reset,
}

/// Reads to the end: what arrived, and how it ended.
pub fn read_to_end(stream: &mut impl Read) -> (Vec<u8>, Ending) {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let ending = match ended.map_err(|error| error.kind()) {
        Ok(_) => Ending::Clean,
        Err(ErrorKind::UnexpectedEof) => Ending::Truncated,
        Err(ErrorKind::ConnectionReset) => Ending::Reset,
        Err(other) => panic!("expected an end of the stream, found {other} after {} bytes", bytes.len()),
    };
    (bytes, ending)
}

/// How a stream ends that has nothing more to say.
pub fn ending(stream: &mut impl Read) -> Ending {
    let (bytes, ending) = read_to_end(stream);
    assert!(bytes.is_empty(), "expected nothing more, found {} bytes and {ending:?}", bytes.len());
    ending
}

/// Connects, writes and says how it ends. A reset is told once, to whoever asks first: that may be the
/// connect or the write.
pub fn attempt(address: SocketAddr, bytes: &[u8]) -> Ending {
    let written = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        be_patient(&stream);
        stream.write_all(bytes)?;
        Ok(stream)
    });
    match written {
        Ok(mut stream) => ending(&mut stream),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ending::Reset,
        Err(error) => panic!("expected an end of the stream, found {error}"),
    }
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(stream);
}

/// A socket that sends every byte by itself.
pub struct Drip(pub TcpStream);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Drip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Sends a text to a peer that sends back what it gets.
pub fn echo(stream: &mut (impl Read + Write), text: &str) {
    stream.write_all(text.as_bytes()).expect("written");
    stream.flush().expect("flushed");
    expect(stream, text);
}

/// Reads a text.
pub fn expect(stream: &mut impl Read, text: &str) {
    let mut found = vec![0; text.len()];
    stream.read_exact(&mut found).expect("an answer");
    assert_eq!(String::from_utf8_lossy(&found), text);
}

/// Writes a chunk again and again, until nothing was taken for a second; says how many bytes were taken.
pub fn write_until_stopped(stream: &mut TcpStream, chunk: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a deadline");
    let mut sent = 0;
    let stopped = loop {
        match stream.write(&chunk[sent % chunk.len()..]) {
            Ok(written) => sent += written,
            Err(error) => break error.kind(),
        }
        assert!(sent < 192 << 20, "nothing stops the writer");
    };
    assert_eq!(stopped, ErrorKind::WouldBlock);
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    sent
}

/// Bytes that look random and are the same for the same seed (xorshift).
pub fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A plaintext server: connections wait here for the test, or are served by [`Backend::echo`].
pub struct Backend {
    pub address: SocketAddr,
    accepted: Receiver<TcpStream>,
    dialled: Arc<AtomicUsize>,
}

impl Backend {
    pub fn start() -> Self {
        Self::at("127.0.0.1:0")
    }

    pub fn at(address: &str) -> Self {
        Self::serve(address, None)
    }

    /// One that sends back what it gets, and ends when its client does.
    pub fn echo() -> Self {
        Self::serve("127.0.0.1:0", Some(send_back))
    }

    /// One that says its port, in five digits, and then sends back what it gets.
    pub fn greeting() -> Self {
        Self::greeting_at("127.0.0.1:0")
    }

    /// The same, at this address.
    pub fn greeting_at(address: &str) -> Self {
        Self::serve(address, Some(greet))
    }

    fn serve(address: &str, service: Option<fn(&TcpStream)>) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("its address");
        let (sender, accepted) = channel();
        let dialled = Arc::new(AtomicUsize::new(0));
        let backend = Self { address, accepted, dialled: dialled.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect(ACCEPTING);
                dialled.fetch_add(1, Ordering::Relaxed);
                be_patient(&stream);
                if let Some(service) = service {
                    std::thread::spawn(move || service(&stream));
                } else if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        backend
    }

    /// The next connection.
    pub fn accept(&self) -> TcpStream {
        self.accepted.recv_timeout(PATIENCE).expect(ACCEPTING)
    }

    /// How many connections there were so far.
    pub fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Relaxed)
    }
}

fn greet(mut stream: &TcpStream) {
    let port = stream.local_addr().expect("its address").port();
    // A client that has gone again is not interested.
    let _ = write!(stream, "{port:05}");
    send_back(stream);
}

fn send_back(stream: &TcpStream) {
    let (mut from, mut to) = (stream, stream);
    // However the client ends: this is over.
    let _ = io::copy(&mut from, &mut to);
    let _ = stream.shutdown(Shutdown::Write);
}

/// A port that refuses connections until it is told to accept them.
pub struct Refusing {
    pub address: SocketAddr,
    socket: socket2::Socket,
}

impl Refusing {
    pub fn start() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
        Self { address, socket }
    }

    /// From now on connections are accepted, by the kernel at first.
    pub fn accept(self) -> TcpListener {
        self.socket.listen(128).expect("it listens");
        self.socket.into()
    }
}

/// A wire between the two gateways that can be damaged.
pub struct Wire {
    pub address: SocketAddr,
    damage: Arc<Damage>,
}

#[derive(Default)]
struct Damage {
    /// The next bytes from the client have a bit flipped.
    flip: AtomicBool,
    /// The next bytes from the client are lost, and both ends get a FIN.
    cut: AtomicBool,
}

impl Wire {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let damage = Arc::new(Damage::default());
        let wire = Self { address, damage: damage.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.expect(ACCEPTING), connect(target));
                be_patient(&client);
                let ends = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
                let damage = damage.clone();
                std::thread::spawn(move || carry(&client, &server, &damage));
                std::thread::spawn(move || carry(&ends.1, &ends.0, &Damage::default()));
            }
        });
        wire
    }

    pub fn flip_a_bit(&self) {
        self.damage.flip.store(true, Ordering::Relaxed);
    }

    pub fn cut(&self) {
        self.damage.cut.store(true, Ordering::Relaxed);
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, damage: &Damage) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        let chunk = &mut buffer[..read];
        if damage.cut.load(Ordering::Relaxed) {
            let _ = from.shutdown(Shutdown::Write);
            break;
        }
        if damage.flip.swap(false, Ordering::Relaxed)
            && let Some(last) = chunk.last_mut()
        {
            *last ^= 1;
        }
        if read == 0 || to.write_all(chunk).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
