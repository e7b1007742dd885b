//! One hop of a connection: a socket, perhaps a TLS session on it, and the few bytes that neither the
//! kernel nor the peer would take yet.
//!
//! A socket that is dropped before both of its directions ended cleanly is reset, not closed: whatever
//! cut the connection short, the peer must not mistake it for a whole answer.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::scratch::{INBOX_BYTES_MAX, READ_BYTES, Scratch};
use crate::plan::cluster::Keepalive;
use crate::plan::outcome::TlsFault;
use crate::tls::fault;
use crate::tls::handshake::Established;
use crate::tls::session::{Session, sealed_len_max};

/// A socket that is reset when dropped, unless it was said to have ended cleanly.
pub struct Socket {
    stream: TcpStream,
    clean: bool,
    /// The last read brought something, and less than it could have.
    short: bool,
}

impl Socket {
    /// Takes a socket that was accepted into care; its options are those of its listener.
    pub fn accepted(stream: TcpStream) -> Self {
        Self { stream, clean: false, short: false }
    }

    /// Takes a socket that was dialled into care.
    pub fn dialled(stream: TcpStream, keepalive: Keepalive) -> Self {
        // Fails only on a socket that is broken already, which the first read will say.
        let _ = set_options(&stream, keepalive);
        Self { stream, clean: false, short: false }
    }

    /// Has the kernel give up a peer that takes nothing of what it was sent for this long; `None` changes nothing.
    pub fn user_timeout(&self, timeout: Option<Duration>) {
        if timeout.is_some() {
            // Fails only on a socket that is broken already.
            let _ = SockRef::from(&self.stream).set_tcp_user_timeout(timeout);
        }
    }

    /// Makes the close of a socket a reset.
    pub fn reset(socket: &impl AsFd) {
        // Fails only on a socket that is broken already.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once, if there is something to read.
    ///
    /// A short read is taken for all there is, and the next one waits for an event: that saves a call which
    /// would find nothing. But TCP urgent data cuts a read short too, with more behind it and no event to
    /// tell of it. `look` reads without waiting for one.
    fn poll_read(&mut self, buffer: &mut [u8], look: bool, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if look {
            self.short = false;
            match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::AGAIN) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok((read, _)) => return Poll::Ready(Ok(self.note_length(read, buffer.len()))),
            }
        }
        let mut unread = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut unread))?;
        let (read, room) = (unread.filled().len(), unread.capacity());
        Poll::Ready(Ok(self.note_length(read, room)))
    }

    /// Writes once, if there is room.
    fn poll_write(&mut self, bytes: &[u8], behind: Behind, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let flags = match behind {
            Behind::Nothing => return Pin::new(&mut self.stream).poll_write(cx, bytes),
            // The kernel keeps the last segment for what follows.
            Behind::Fin => SendFlags::MORE | SendFlags::NOSIGNAL,
        };
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = || Ok(send(&self.stream, bytes, flags)?);
            match self.stream.try_io(Interest::WRITABLE, sent) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn note_length(&mut self, read: usize, room: usize) -> usize {
        self.short = 0 < read && read < room;
        read
    }

    /// Nothing is owed to the peer any more: an ordinary close.
    pub fn ended_cleanly(&mut self) {
        self.clean = true;
    }
}

/// What follows the bytes that are written, at once.
#[derive(Clone, Copy)]
enum Behind {
    Nothing,
    /// The end of our direction: one segment for both, and one event for the peer.
    Fin,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.clean {
            Self::reset(&self.stream);
        }
    }
}

/// No delay, keepalive on. What a listener is given, the sockets it accepts inherit.
pub fn set_options(socket: &impl AsFd, keepalive: Keepalive) -> io::Result<()> {
    let Keepalive { time, interval, probes } = keepalive;
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    // The kernel counts in seconds, from one on.
    let [time, interval] = [time, interval].map(|time| time.max(Duration::from_secs(1)));
    options
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(probes))
}

/// One hop, ready to be relayed.
pub struct Leg {
    socket: Socket,
    session: Option<Session>,
    /// The beginning of a record, or of a message of several, of which the rest has not arrived.
    inbox: Vec<u8>,
    /// What was read before the relay began: plaintext behind the handshake, or the ClientHello passed through.
    early: Box<[u8]>,
    /// What the socket would not take yet.
    outbox: Option<Box<Outbox>>,
    sending: Sending,
}

/// Bytes on their way to a socket, of which the first are sent.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

/// How far our direction of the hop has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// The last bytes, close_notify among them, wait in the outbox; FIN comes behind them.
    Ending,
    Ended,
}

/// What a read brought.
pub enum Received {
    /// Plaintext, in the scratch buffer named.
    Input(usize),
    /// Plaintext, in [`Scratch::plain`].
    Plain,
    /// Nothing yet for the other side: part of a record, or a message of the protocol itself.
    Nothing,
    /// The peer ended its direction cleanly, behind what is in [`Scratch::plain`].
    End,
    /// TLS ended without close_notify.
    Truncated,
}

/// Why a hop is broken.
pub enum Broken {
    /// The socket.
    Io(io::Error),
    /// The peer's TLS.
    Tls(TlsFault),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TlsFault> for Broken {
    fn from(fault: TlsFault) -> Self {
        Self::Tls(fault)
    }
}

impl Leg {
    /// A plaintext hop.
    pub fn plaintext(socket: Socket) -> Self {
        Self::new(socket, None, Vec::new(), Box::default())
    }

    /// A plaintext hop of which the beginning has been read already.
    pub fn passthrough(socket: Socket, read: Vec<u8>) -> Self {
        Self::new(socket, None, Vec::new(), read.into_boxed_slice())
    }

    /// A TLS hop.
    pub fn tls(socket: Socket, established: Established) -> Self {
        let early = established.plain.into_boxed_slice();
        Self::new(socket, Some(established.session), established.inbox, early)
    }

    fn new(socket: Socket, session: Option<Session>, inbox: Vec<u8>, early: Box<[u8]>) -> Self {
        Self { socket, session, inbox, early, outbox: None, sending: Sending::Open }
    }

    /// Reads once, if there is something to read. `look` does not wait for an event to say so.
    pub fn poll_receive(
        &mut self,
        scratch: &mut Scratch,
        look: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Received, Broken>> {
        if !self.early.is_empty() {
            scratch.plain.clear();
            scratch.plain.extend_from_slice(&std::mem::take(&mut self.early));
            return Poll::Ready(Ok(Received::Plain));
        }
        let Some(session) = &mut self.session else {
            let read = ready!(self.socket.poll_read(&mut scratch.input[..READ_BYTES], look, cx))?;
            return Poll::Ready(Ok(if read == 0 { Received::End } else { Received::Input(read) }));
        };
        scratch.plain.clear();
        if session.peer_closed() {
            return Poll::Ready(Ok(Received::End));
        }
        let kept = self.inbox.len();
        let room = &mut scratch.input[kept..kept + READ_BYTES];
        let read = ready!(self.socket.poll_read(room, look, cx))?;
        if read == 0 {
            return Poll::Ready(Ok(Received::Truncated));
        }
        let records = &mut scratch.input[..kept + read];
        records[..kept].copy_from_slice(&self.inbox);
        scratch.protocol.clear();
        let fed = session.feed(records, &mut scratch.plain, &mut scratch.protocol);
        append(&mut self.outbox, &scratch.protocol);
        let rest = &records[fed?..];
        if rest.len() > INBOX_BYTES_MAX {
            return Poll::Ready(Err(Broken::Tls(fault::too_large())));
        }
        keep(&mut self.inbox, rest);
        let ended = session.peer_closed();
        Poll::Ready(Ok(match (scratch.plain.as_slice().is_empty(), ended) {
            (false, _) => Received::Plain,
            (true, true) => Received::End,
            (true, false) => Received::Nothing,
        }))
    }

    /// Sends plaintext. What the socket does not take is kept, so the next call must wait until
    /// [`Leg::poll_flush`] is ready.
    pub fn send(&mut self, plain: &[u8], sealed: &mut [u8], cx: &mut Context<'_>) -> Result<(), Broken> {
        let bytes = match &mut self.session {
            None => plain,
            Some(session) => {
                debug_assert!(sealed.len() >= sealed_len_max(plain.len()));
                let written = session.seal(plain, &mut self.inbox, sealed)?;
                &sealed[..written]
            }
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.socket.poll_write(rest, Behind::Nothing, cx) {
                Poll::Ready(written) => rest = &rest[written?..],
                Poll::Pending => break,
            }
        }
        append(&mut self.outbox, rest);
        Ok(())
    }

    /// Writes what is kept, and the FIN behind it if this direction is ending; ready when nothing is left.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let Some(outbox) = &mut self.outbox {
            // After our end, it is an answer of the protocol to a peer that we have told we are done.
            while outbox.sent < outbox.bytes.len() && self.sending != Sending::Ended {
                let rest = &outbox.bytes[outbox.sent..];
                let behind = if self.sending == Sending::Ending { Behind::Fin } else { Behind::Nothing };
                outbox.sent += ready!(self.socket.poll_write(rest, behind, cx))?;
            }
            self.outbox = None;
        }
        if self.sending == Sending::Ending {
            SockRef::from(&self.socket.stream).shutdown(Shutdown::Write)?;
            self.sending = Sending::Ended;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our direction: close_notify, where there is TLS, and FIN.
    pub fn end(&mut self) -> Result<(), Broken> {
        if self.sending == Sending::Open {
            if let Some(session) = &mut self.session {
                let mut alert = Vec::new();
                session.close(&mut self.inbox, &mut alert)?;
                append(&mut self.outbox, &alert);
            }
            self.sending = Sending::Ending;
        }
        Ok(())
    }

    /// Where the peer has connected to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.stream.local_addr()
    }

    /// Whether there may be more to read that no event will tell of.
    pub fn may_hold_more(&self) -> bool {
        self.socket.short
    }

    /// Goes on with new keys, where there is TLS; the message waits for the next flush.
    pub fn refresh_keys(&mut self) -> Result<(), Broken> {
        if self.sending == Sending::Open
            && let Some(session) = &mut self.session
        {
            let mut message = Vec::new();
            session.refresh_keys(&mut message)?;
            append(&mut self.outbox, &message);
        }
        Ok(())
    }

    /// Whether the socket has failed since it was last used.
    pub fn is_broken(&self) -> bool {
        !matches!(SockRef::from(&self.socket.stream).take_error(), Ok(None))
    }

    /// Whether our direction has ended, to the last byte.
    pub fn has_ended(&self) -> bool {
        self.sending == Sending::Ended
    }

    /// Both directions have ended: an ordinary close.
    pub fn ended_cleanly(&mut self) {
        self.socket.ended_cleanly();
    }

    /// The peer broke TLS: it is sent the alert that says how, if it takes it at once, and an ordinary
    /// close, since a reset would overtake the alert.
    pub fn send_alert(&mut self, cx: &mut Context<'_>) {
        let sent = matches!(self.poll_flush(cx), Poll::Ready(Ok(())));
        if sent {
            self.socket.ended_cleanly();
        }
    }
}

fn append(outbox: &mut Option<Box<Outbox>>, bytes: &[u8]) {
    if !bytes.is_empty() {
        outbox.get_or_insert_default().bytes.extend_from_slice(bytes);
    }
}

/// Keeps what is left of the input; gives the memory back when there is nothing to keep.
fn keep(inbox: &mut Vec<u8>, rest: &[u8]) {
    if rest.is_empty() {
        *inbox = Vec::new();
    } else {
        inbox.clear();
        inbox.extend_from_slice(rest);
    }
}
