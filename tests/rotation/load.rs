//! New connections that come when they are due, whatever became of those before them: an open loop.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use twinlock::clock;

use crate::support::{peer, wait_until};

/// From one connection to the next: a hundred a second.
const INTERVAL: Duration = Duration::from_millis(10);
/// Connections that are under way at once, at most.
const CLIENTS: usize = 4;
/// Connections at most, should nobody tell them to stop.
const CONNECTIONS_MAX: usize = 100_000;

/// A load that is running.
pub struct Load {
    start: Instant,
    due: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Makes connections while `body` runs, each of which must be served to its end; `judge` looks at what
    /// each was shown.
    pub fn run(
        address: SocketAddr,
        config: &ClientConfig,
        judge: impl Fn(&CertificateDer<'_>) + Sync,
        body: impl FnOnce(&Self),
    ) -> Served {
        let [due, begun, ended] = [const { AtomicUsize::new(0) }; 3];
        let load = Self { start: clock::now(), due, begun, ended, stop: AtomicBool::new(false) };
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| load.keep_coming(address, config, &judge));
            }
            // Whether it ends or fails, the clients end with it.
            let _stop = StopsWhenDropped(&load.stop);
            body(&load);
        });
        Served { connections: load.ended.into_inner(), time: clock::now().duration_since(load.start) }
    }

    /// Waits until a connection that begins from now on has been served.
    pub fn wait_for_another(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        // More have ended than had begun.
        wait_until("another connection", || self.ended.load(Ordering::SeqCst) > begun);
    }

    fn keep_coming(&self, address: SocketAddr, config: &ClientConfig, judge: impl Fn(&CertificateDer<'_>)) {
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.due.fetch_add(1, Ordering::Relaxed);
            assert!(number < CONNECTIONS_MAX, "nobody stops the load");
            let due = self.start + INTERVAL * u32::try_from(number).unwrap_or(u32::MAX);
            pause(due.saturating_duration_since(clock::now()));
            self.begun.fetch_add(1, Ordering::SeqCst);
            let shown = visit(address, config);
            judge(&shown.unwrap_or_else(|error| panic!("connection {number} was not served: {error}")));
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What a load came to.
#[derive(Debug)]
pub struct Served {
    pub connections: usize,
    pub time: Duration,
}

struct StopsWhenDropped<'flag>(&'flag AtomicBool);

impl Drop for StopsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Shakes hands, sends something there and back, and ends: the certificate that was shown. The signature is
/// verified by its key, so a mixed pair fails.
fn visit(address: SocketAddr, config: &ClientConfig) -> io::Result<CertificateDer<'static>> {
    let mut client = peer::connect(address, config.clone());
    let mut answer = [0; 5];
    client.write_all(b"hello")?;
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"hello");
    peer::half_close(&mut client);
    // Its close_notify: anything else is an error.
    assert_eq!(client.read(&mut answer)?, 0);
    let shown = client.conn.peer_certificates().and_then(<[_]>::first).cloned();
    shown.ok_or_else(|| io::Error::other("no certificate"))
}

#[allow(clippy::disallowed_methods, reason = "the pace of a load, not a wait for anything")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
