//! epoll, and the buffers that every connection of the generator shares.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// One read or write at most: as much as a large socket buffer gives, and still within a core's cache.
const BUFFER: usize = 256 * 1024;
/// Events taken at once.
const EVENTS: usize = 1024;

/// What is read goes nowhere and what is written means nothing, so one buffer of each serves all.
pub struct Buffers {
    pub incoming: Vec<u8>,
    pub outgoing: Vec<u8>,
}

impl Buffers {
    pub fn new() -> Self {
        // Not zeros: nothing on the way may find them easy.
        let outgoing = (0..BUFFER).map(|at| u8::try_from(at * 167 % 251).unwrap_or_default()).collect();
        Self { incoming: vec![0; BUFFER], outgoing }
    }
}

/// Which sockets can be read or written.
pub struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub fn add(&self, socket: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    pub fn modify(&self, socket: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    /// Waits at most this long, and puts what is ready into `events`.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Duration) -> io::Result<()> {
        events.clear();
        events.reserve(EVENTS);
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
