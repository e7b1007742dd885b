//! Drives the handshake of either side over a socket, under one deadline.
//!
//! A handshake that fails still sends its alert, and the socket is then read dry for a moment before
//! it is closed, because a close with unread bytes is a reset, and a reset overtakes the alert.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use super::exporter::{self, SessionId};
use super::plaintext::Plaintext;
use super::session::{Handshake, Session};
use super::standing::{Shown, Verify, Voucher};
use super::{Agreed, fault, presented, verify};
use crate::plan::limits::HANDSHAKE_BYTES_MAX;
use crate::plan::outcome::TlsFault;

/// A session after its handshake, with what arrived behind it.
pub struct Established {
    /// The session.
    pub session: Session,
    /// Version, cipher and group.
    pub agreed: Agreed,
    /// The name of the session, the same at both of its ends.
    pub id: Option<SessionId>,
    /// The peer's certificate; `None` where the peer showed none.
    pub peer: Option<Arc<presented::Presented>>,
    /// Who let the peer in; `None` until somebody has.
    pub voucher: Option<Voucher>,
    /// When the first certificate of the peer's chain expires, in seconds since 1970.
    until: Duration,
    /// The certificates that the peer presented, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Plaintext that came in the same segments as the end of the handshake.
    pub plain: Plaintext,
    /// Part of a record that came with it.
    pub inbox: Vec<u8>,
}

impl Established {
    pub(crate) fn vouched_by(&self, verifier: Arc<dyn Verify>, generation: u64) -> Voucher {
        Voucher { verifier, generation, until: self.until }
    }

    /// What the peer has shown, to be judged again as long as it is connected.
    pub fn shown(&self) -> Option<Shown<'_>> {
        Some(Shown::Tls(&self.chain, self.peer.as_ref(), self.voucher.as_ref()?))
    }
}

/// Why there is no session.
#[derive(Debug)]
pub struct HandshakeError {
    /// What went wrong.
    pub failure: Failure,
    /// The certificate that the peer presented before it did.
    pub peer: Option<Arc<presented::Presented>>,
}

/// What went wrong with a handshake.
#[derive(Debug)]
pub enum Failure {
    /// Either side broke it off.
    Tls(TlsFault),
    /// The deadline passed.
    Timeout,
    /// The connection broke.
    Io(io::Error),
    /// There is no usable credential to do it with.
    NoCredential(String),
    /// The peer closed before it had sent a whole ClientHello.
    NoHello,
    /// No row of the listener answers to the SNI.
    NoRoute,
}

impl From<Failure> for HandshakeError {
    fn from(failure: Failure) -> Self {
        Self { failure, peer: None }
    }
}

/// Bytes read at once while a handshake goes on: a flight, as a rule; more room would only be cleared in vain.
const READ_BYTES: usize = 4 * 1024;
/// How long, and how much, a refused peer may still send before its socket is closed.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

thread_local! {
    /// Whose turn it is to compute a step of a handshake on this thread.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// Runs the handshake to its end. `inbox` is what was read of the peer already.
pub(crate) async fn run(
    mut handshake: Handshake,
    stream: &TcpStream,
    inbox: Vec<u8>,
    deadline: Instant,
) -> Result<Established, HandshakeError> {
    let mut flight = Flight { inbox, outgoing: Vec::new(), until: Duration::ZERO, id: None };
    presented::take();
    let mut peer = None;
    let ended = timeout_at(deadline, flight.drive(&mut handshake, stream, &mut peer)).await;
    let failure = match ended.unwrap_or(Err(Failure::Timeout)) {
        Ok(()) => match flight.establish(handshake, &mut peer) {
            Ok(established) => {
                // An answer to a KeyUpdate that came at once; it is a few bytes.
                let told = timeout_at(deadline, write_all(stream, &flight.outgoing)).await;
                told.unwrap_or(Err(Failure::Timeout))?;
                return Ok(established);
            }
            Err(fault) => Failure::Tls(fault),
        },
        Err(failure) => failure,
    };
    if let Failure::Tls(_) = failure {
        refuse(stream, &flight.outgoing).await;
    }
    Err(HandshakeError { failure, peer })
}

/// The bytes of a handshake on their way in and out.
struct Flight {
    inbox: Vec<u8>,
    outgoing: Vec<u8>,
    /// When the first certificate of the peer's chain expires, in seconds since 1970.
    until: Duration,
    /// The name of the session, once its secrets are agreed on.
    id: Option<SessionId>,
}

impl Flight {
    /// What comes of a handshake that is over, and of the bytes that came behind it.
    fn establish(
        &mut self,
        handshake: Handshake,
        peer: &mut Option<Arc<presented::Presented>>,
    ) -> Result<Established, TlsFault> {
        let agreed = handshake.agreed().ok_or_else(fault::closed_in_handshake)?;
        let chain = handshake.peer_chain().to_vec();
        let mut session = handshake.into_session()?;
        let mut plain = Plaintext::default();
        if !self.inbox.is_empty() {
            let consumed = session.feed(&mut self.inbox, &mut plain, &mut self.outgoing)?;
            self.inbox.drain(..consumed);
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.shrink_to_fit();
        let (id, peer, until) = (self.id, peer.take(), self.until);
        Ok(Established { session, agreed, id, peer, voucher: None, until, chain, plain, inbox })
    }

    async fn drive(
        &mut self,
        handshake: &mut Handshake,
        stream: &TcpStream,
        peer: &mut Option<Arc<presented::Presented>>,
    ) -> Result<(), Failure> {
        loop {
            self.step(handshake, stream, peer).await?;
            write_all(stream, &self.outgoing).await?;
            self.outgoing.clear();
            if self.inbox.len() > HANDSHAKE_BYTES_MAX {
                return Err(Failure::Tls(fault::too_large()));
            }
            if !handshake.is_going_on() {
                return Ok(());
            }
            if read_more(stream, &mut self.inbox).await? == 0 {
                return Err(Failure::Tls(fault::closed_in_handshake()));
            }
        }
    }

    /// Takes in what has arrived, and answers as far as the socket takes it at once.
    ///
    /// A step costs a thousand times what it costs to relay a few bytes. So between two of them, the thread
    /// looks at its sockets again and serves what is ready: however many clients shake hands, a connection
    /// that is established waits for one step at most.
    async fn step(
        &mut self,
        handshake: &mut Handshake,
        stream: &TcpStream,
        peer: &mut Option<Arc<presented::Presented>>,
    ) -> Result<(), Failure> {
        let turn = TURN.with(Arc::clone);
        // Nobody closes it.
        let _turn = turn.acquire().await;
        let fed = handshake.feed(&mut self.inbox, &mut self.outgoing);
        // Taken at once: after an await this thread may be in the middle of another handshake.
        if let Some(presented) = presented::take() {
            *peer = Some(presented);
        }
        if let Some(until) = verify::take_until() {
            self.until = until;
        }
        if let Some(id) = exporter::take() {
            self.id = Some(id);
        }
        let consumed = fed.map_err(|fault| Failure::Tls(verify::with_names(fault)))?;
        self.inbox.drain(..consumed);
        let sent = write_some(stream, &self.outgoing)?;
        self.outgoing.drain(..sent);
        yield_now().await;
        Ok(())
    }
}

/// Appends what the socket has to `inbox`; 0 at its end.
pub(crate) async fn read_more(stream: &TcpStream, inbox: &mut Vec<u8>) -> Result<usize, Failure> {
    loop {
        stream.readable().await.map_err(Failure::Io)?;
        let start = inbox.len();
        inbox.resize(start + READ_BYTES, 0);
        let read = stream.try_read(&mut inbox[start..]);
        inbox.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read.map_err(Failure::Io),
        }
    }
}

async fn write_all(stream: &TcpStream, bytes: &[u8]) -> Result<(), Failure> {
    let mut sent = write_some(stream, bytes)?;
    while sent < bytes.len() {
        stream.writable().await.map_err(Failure::Io)?;
        sent += write_some(stream, &bytes[sent..])?;
    }
    Ok(())
}

/// Writes what the socket takes at once, and says how much that was.
fn write_some(stream: &TcpStream, bytes: &[u8]) -> Result<usize, Failure> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.try_write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(Failure::Io(error)),
        }
    }
    Ok(sent)
}

/// Sends a last alert and makes sure that it arrives: FIN behind it, and no reset over it.
pub(crate) async fn refuse(stream: &TcpStream, alert: &[u8]) {
    let farewell = async {
        write_all(stream, alert).await?;
        socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write).map_err(Failure::Io)?;
        let mut drained = Vec::new();
        while drained.len() < LINGER_BYTES && read_more(stream, &mut drained).await? > 0 {}
        Ok::<(), Failure>(())
    };
    // Either way the socket is closed next; there is nothing to do about a peer that does not listen.
    let _ = timeout(LINGER, farewell).await;
}
