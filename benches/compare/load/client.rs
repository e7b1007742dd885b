//! The client's side of one connection: what it waits for, and what it does when that has come.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use socket2::{Domain, Socket, Type};

use super::backend::{DOWNLOAD, ECHO, REQUEST, UPLOAD};
use super::order::{GREETING, Job};
use super::reactor::{Buffers, Reactor};

/// A connection to the egress.
pub struct Client {
    stream: TcpStream,
    phase: Phase,
    /// When what is measured began, or was meant to begin.
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Bytes of the greeting that are missing.
    Greeting(usize),
    /// Bytes of the reply that are missing.
    Reply(usize),
    Upload,
    Download,
    Idle,
}

/// What became of a connection when it was ready.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing worth telling.
    Some,
    /// The greeting has come, and the connection waits for its first request.
    Greeted,
    /// So many bytes were moved on a connection without end.
    Moved(usize),
    /// A reply is complete.
    Replied,
    /// It was refused, reset or ended early.
    Failed,
}

impl Client {
    /// Begins to connect.
    pub fn connect(target: SocketAddr, reactor: &Reactor, token: u64, now: Instant) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from(socket);
        reactor.add(&stream, token, EventFlags::IN)?;
        Ok(Self { stream, phase: Phase::Greeting(GREETING), since: now })
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    /// Begins what the job does after the greeting, or does again.
    pub fn begin(
        &mut self,
        job: Job,
        since: Instant,
        reactor: &Reactor,
        token: u64,
        buffers: &Buffers,
    ) -> io::Result<()> {
        let (kind, length, phase) = match job {
            Job::Upload { .. } => (UPLOAD, 64, Phase::Upload),
            Job::Download { .. } => (DOWNLOAD, 64, Phase::Download),
            Job::Request { .. } | Job::Paced { .. } => (REQUEST, 128, Phase::Reply(512)),
            Job::Connect { .. } | Job::Hold { .. } | Job::Serve => (ECHO, 64, Phase::Reply(64)),
        };
        let mut request = [0; 128];
        request[..length].copy_from_slice(&buffers.outgoing[..length]);
        request[0] = kind;
        // There is always room: nothing is in flight before a request.
        self.stream.write_all(&request[..length])?;
        self.phase = phase;
        if !matches!(job, Job::Connect { .. }) {
            self.since = since;
        }
        if phase == Phase::Upload {
            reactor.modify(&self.stream, token, EventFlags::OUT)?;
        }
        Ok(())
    }

    /// Reads or writes once.
    pub fn ready(&mut self, buffers: &mut Buffers) -> Progress {
        let moved = match self.phase {
            Phase::Upload => self.stream.write(&buffers.outgoing),
            Phase::Greeting(_) | Phase::Reply(_) | Phase::Download | Phase::Idle => {
                self.stream.read(&mut buffers.incoming)
            }
        };
        match moved {
            Ok(0) => Progress::Failed,
            Ok(count) => self.moved(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Progress::Some,
            Err(_) => Progress::Failed,
        }
    }

    fn moved(&mut self, count: usize) -> Progress {
        match &mut self.phase {
            Phase::Upload | Phase::Download => Progress::Moved(count),
            Phase::Idle => Progress::Failed,
            Phase::Greeting(missing) | Phase::Reply(missing) if count < *missing => {
                *missing -= count;
                Progress::Some
            }
            // More than was asked for is not what the server sends.
            Phase::Greeting(missing) | Phase::Reply(missing) if count > *missing => Progress::Failed,
            Phase::Greeting(_) => {
                self.phase = Phase::Idle;
                Progress::Greeted
            }
            Phase::Reply(_) => {
                self.phase = Phase::Idle;
                Progress::Replied
            }
        }
    }
}
