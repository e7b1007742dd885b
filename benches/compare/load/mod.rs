//! The load generator: one thread, one epoll, both ends of every connection unless told otherwise.
//!
//! It runs as a process of its own, so that its CPU time can be told and its descriptors are its own.

pub mod order;

mod backend;
mod client;
mod pace;
mod reactor;
mod window;

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use self::backend::Backend;
use self::client::{Client, Progress};
use self::order::{Job, Order, Report};
use self::pace::Pace;
use self::reactor::{Buffers, Reactor};
use self::window::Window;
use crate::Failure;

/// The word on standard output when a job that holds has all it holds.
pub const READY: &str = "ready";

/// Connections that are being set up at once.
const OPENING_MAX: usize = 64;
/// What may go wrong before a run is given up.
const FAILED_MAX: u64 = 1000;
/// Time to open every connection.
const OPENING_TIMEOUT: Duration = Duration::from_mins(1);
/// A wait of the reactor, so that time is looked at.
const TICK: Duration = Duration::from_millis(5);

const LISTENER: u64 = u64::MAX;
const SERVED: u64 = 1 << 32;

/// Follows an order and prints its report.
pub fn follow(order: &str) -> Result<(), Failure> {
    let order: Order = serde_json::from_str(order)?;
    let mut generator = Generator::new(order)?;
    let holds = matches!(generator.order.job, Job::Hold { .. } | Job::Serve);
    let report = if holds { generator.hold()? } else { generator.run()? };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

struct Generator {
    order: Order,
    reactor: Reactor,
    buffers: Buffers,
    backend: Option<Backend>,
    clients: Vec<Option<Client>>,
    opening: usize,
    pace: Option<Pace>,
    window: Window,
    failed: u64,
}

impl Generator {
    fn new(order: Order) -> io::Result<Self> {
        let reactor = Reactor::new()?;
        let backend = order.backend.map(Backend::listen).transpose()?;
        if let Some(backend) = &backend {
            reactor.add(backend.listener(), LISTENER, EventFlags::IN)?;
        }
        let pace = match order.job {
            Job::Paced { rate, .. } => Some(Pace::new(rate)),
            Job::Upload { .. }
            | Job::Download { .. }
            | Job::Connect { .. }
            | Job::Request { .. }
            | Job::Hold { .. }
            | Job::Serve => None,
        };
        let window = Window::new(&order);
        let (buffers, clients) = (Buffers::new(), Vec::new());
        Ok(Self { order, reactor, buffers, backend, clients, opening: 0, pace, window, failed: 0 })
    }

    fn run(&mut self) -> Result<Report, Failure> {
        self.open_all()?;
        self.open_beside()?;
        let mut now = Instant::now();
        self.window.open(now);
        if let Some(pace) = &mut self.pace {
            pace.start(now);
        }
        loop {
            self.turn(if self.pace.is_some() { Duration::ZERO } else { TICK })?;
            now = Instant::now();
            self.send_due(now)?;
            let received = self.backend.as_ref().map_or(0, |backend| backend.received);
            if let Some(report) = self.window.look(now, received, self.failed)? {
                return Ok(report);
            }
            if self.failed > FAILED_MAX {
                return Err(format!("connections failed: {}", self.failed).into());
            }
        }
    }

    /// Opens everything, says so, and keeps it until standard input ends.
    fn hold(&mut self) -> Result<Report, Failure> {
        self.open_all()?;
        let mut out = io::stdout();
        writeln!(out, "{READY}")?;
        out.flush()?;
        if self.order.job == Job::Serve {
            let ended = std::thread::spawn(|| io::stdin().read_to_end(&mut Vec::new()));
            while !ended.is_finished() {
                self.turn(TICK)?;
            }
        } else {
            io::stdin().read_to_end(&mut Vec::new())?;
            self.turn(Duration::ZERO)?;
        }
        Ok(self.window.nothing(self.failed))
    }

    /// Opens the connections that the job wants, until each has got what it needs to begin.
    fn open_all(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + OPENING_TIMEOUT;
        let wanted = self.order.job.connections();
        let sets_up = !matches!(self.order.job, Job::Connect { .. });
        while self.clients.len() < wanted || (sets_up && self.opening > 0) {
            while self.clients.len() < wanted && self.opening < OPENING_MAX {
                self.clients.push(None);
                self.open(self.clients.len() - 1)?;
            }
            if !sets_up && self.clients.len() == wanted {
                break;
            }
            self.turn(TICK)?;
            if self.failed > 0 {
                return Err("a connection failed while it was opened".into());
            }
            if Instant::now() > deadline {
                return Err(format!("connections that did not open: {} of {wanted}", self.opening).into());
            }
        }
        Ok(())
    }

    /// Opens the connections of those who are not counted.
    fn open_beside(&mut self) -> Result<(), Failure> {
        for _ in 0..self.order.beside.map_or(0, Job::connections) {
            self.clients.push(None);
            self.open(self.clients.len() - 1)?;
        }
        Ok(())
    }

    fn is_counted(&self, index: usize) -> bool {
        index < self.order.job.connections()
    }

    fn job(&self, index: usize) -> Job {
        self.order.beside.filter(|_| !self.is_counted(index)).unwrap_or(self.order.job)
    }

    fn open(&mut self, index: usize) -> io::Result<()> {
        let client = Client::connect(self.order.target, &self.reactor, index as u64, Instant::now())?;
        self.clients[index] = Some(client);
        self.opening += 1;
        Ok(())
    }

    /// Handles what is ready.
    fn turn(&mut self, timeout: Duration) -> Result<(), Failure> {
        let mut events = std::mem::take(&mut self.window.events);
        self.reactor.wait(&mut events, timeout)?;
        for event in &events {
            let token = event.data.u64();
            match (&mut self.backend, usize::try_from(token & (SERVED - 1))?) {
                (Some(backend), _) if token == LISTENER => {
                    backend.accept(&self.reactor, |index| SERVED | index as u64)?;
                }
                (Some(backend), index) if token & SERVED != 0 => {
                    backend.ready(index, token, &self.reactor, &mut self.buffers);
                }
                (_, index) => self.client_ready(index)?,
            }
        }
        self.window.events = events;
        Ok(())
    }

    fn client_ready(&mut self, index: usize) -> Result<(), Failure> {
        let Some(Some(client)) = self.clients.get_mut(index) else { return Ok(()) };
        let progress = client.ready(&mut self.buffers);
        match progress {
            Progress::Moved(bytes) if self.is_counted(index) => self.window.moved(bytes),
            Progress::Some | Progress::Moved(_) => {}
            Progress::Greeted => self.greeted(index)?,
            Progress::Replied => self.replied(index)?,
            Progress::Failed => {
                self.failed += 1;
                self.clients[index] = None;
                if !matches!(self.job(index), Job::Connect { .. }) {
                    return Err("a connection was refused, reset or ended early".into());
                }
                self.opening -= 1;
                self.open(index)?;
            }
        }
        Ok(())
    }

    fn greeted(&mut self, index: usize) -> Result<(), Failure> {
        match self.job(index) {
            Job::Paced { .. } => {
                self.opening -= 1;
                if let Some(pace) = &mut self.pace {
                    pace.idle(index);
                }
                Ok(())
            }
            Job::Hold { .. } | Job::Connect { .. } => self.begin(index, Instant::now()),
            Job::Upload { .. } | Job::Download { .. } | Job::Request { .. } | Job::Serve => {
                self.opening -= 1;
                self.begin(index, Instant::now())
            }
        }
    }

    fn replied(&mut self, index: usize) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(Some(client)) = self.clients.get(index) else { return Ok(()) };
        let took = now - client.since();
        match self.job(index) {
            Job::Hold { .. } => self.opening -= 1,
            Job::Connect { .. } => {
                if self.is_counted(index) {
                    self.window.done(took);
                }
                self.clients[index] = None;
                self.opening -= 1;
                self.open(index)?;
            }
            Job::Paced { .. } => {
                self.window.done(took);
                if let Some(pace) = &mut self.pace {
                    pace.idle(index);
                }
            }
            Job::Request { .. } => {
                self.window.done(took);
                self.begin(index, now)?;
            }
            Job::Upload { .. } | Job::Download { .. } | Job::Serve => {}
        }
        Ok(())
    }

    /// Sends the requests that are due, as far as connections are free.
    fn send_due(&mut self, now: Instant) -> Result<(), Failure> {
        while let Some((index, due)) = self.pace.as_mut().and_then(|pace| pace.next(now)) {
            self.begin(index, due)?;
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, since: Instant) -> Result<(), Failure> {
        let job = self.job(index);
        if let Some(Some(client)) = self.clients.get_mut(index) {
            client.begin(job, since, &self.reactor, index as u64, &self.buffers)?;
        }
        Ok(())
    }
}
