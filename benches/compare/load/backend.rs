//! The server behind the proxies: greets first, then does what the first byte of the client asks for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::event::epoll::EventFlags;

use super::order::GREETING;
use super::reactor::{Buffers, Reactor};

/// First byte of a client that wants 64 bytes for each 64 bytes.
pub const ECHO: u8 = b'E';
/// First byte of a client that wants 512 bytes for each 128 bytes.
pub const REQUEST: u8 = b'R';
/// First byte of a client that sends and wants nothing.
pub const UPLOAD: u8 = b'U';
/// First byte of a client that wants bytes without end.
pub const DOWNLOAD: u8 = b'D';

/// How many a burst of connections may wait; the kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;

/// The server's side of everything.
pub struct Backend {
    listener: TcpListener,
    served: Vec<Option<Served>>,
    free: Vec<usize>,
    /// Bytes received on uploads.
    pub received: u64,
}

struct Served {
    stream: TcpStream,
    trade: Option<Trade>,
    /// Bytes received towards the next reply.
    held: usize,
    /// Bytes still to be sent.
    owed: usize,
    /// Whether the reactor tells when there is room to send.
    awaits_room: bool,
}

#[derive(Clone, Copy)]
enum Trade {
    Exchange { take: usize, give: usize },
    Sink,
    Source,
}

impl Backend {
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { listener: socket.into(), served: Vec::new(), free: Vec::new(), received: 0 })
    }

    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Takes what waits to be accepted, and greets it.
    pub fn accept(&mut self, reactor: &Reactor, token: impl Fn(usize) -> u64) -> io::Result<()> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.served.len());
            reactor.add(&stream, token(index), EventFlags::IN)?;
            let greeted = (&stream).write(&[b'G'; GREETING]).is_ok_and(|sent| sent == GREETING);
            let served = Served { stream, trade: None, held: 0, owed: 0, awaits_room: false };
            if index == self.served.len() {
                self.served.push(None);
            }
            // A client that is gone already leaves a free place.
            if greeted {
                self.served[index] = Some(served);
            } else {
                self.free.push(index);
            }
        }
    }

    /// Moves one connection on.
    pub fn ready(&mut self, index: usize, token: u64, reactor: &Reactor, buffers: &mut Buffers) {
        let Some(Some(served)) = self.served.get_mut(index) else { return };
        let alive = served.receive(buffers, &mut self.received).and_then(|open| {
            served.send(buffers)?;
            served.watch(reactor, token)?;
            Ok(open)
        });
        if !matches!(alive, Ok(true)) {
            self.served[index] = None;
            self.free.push(index);
        }
    }
}

impl Served {
    /// `false` when the client has ended.
    fn receive(&mut self, buffers: &mut Buffers, received: &mut u64) -> io::Result<bool> {
        if matches!(self.trade, Some(Trade::Source)) {
            return Ok(true);
        }
        let count = match self.stream.read(&mut buffers.incoming) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        let trade = *self.trade.get_or_insert_with(|| trade_for(buffers.incoming[0]));
        match trade {
            Trade::Exchange { take, give } => {
                self.held += count;
                self.owed += self.held / take * give;
                self.held %= take;
            }
            Trade::Sink => *received += count as u64,
            Trade::Source => self.owed = usize::MAX,
        }
        Ok(true)
    }

    fn send(&mut self, buffers: &Buffers) -> io::Result<()> {
        if self.owed == 0 {
            return Ok(());
        }
        let length = self.owed.min(buffers.outgoing.len());
        match self.stream.write(&buffers.outgoing[..length]) {
            Ok(sent) if self.owed != usize::MAX => self.owed -= sent,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn watch(&mut self, reactor: &Reactor, token: u64) -> io::Result<()> {
        let awaits_room = self.owed > 0;
        if awaits_room != self.awaits_room {
            self.awaits_room = awaits_room;
            let flags = if awaits_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            reactor.modify(&self.stream, token, flags)?;
        }
        Ok(())
    }
}

fn trade_for(first: u8) -> Trade {
    match first {
        REQUEST => Trade::Exchange { take: 128, give: 512 },
        UPLOAD => Trade::Sink,
        DOWNLOAD => Trade::Source,
        _ => Trade::Exchange { take: 64, give: 64 },
    }
}
