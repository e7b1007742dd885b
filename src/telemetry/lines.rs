//! Lines on their way to a reader, without ever keeping the writer of a line waiting.
//!
//! Whoever has a line appends it to a bounded buffer; one thread of its own takes what has gathered and
//! writes it at once. A reader that is slow or gone fills the buffer, and then lines are dropped and
//! counted: it neither blocks nor ends the gateway.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that wait for the writer at most.
const BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// After a write, lines gather this long before the next: one wake-up for many lines.
const GATHER: Duration = Duration::from_millis(10);
/// How long the end of the process waits for a reader that is slow or gone.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A bounded queue of lines with a writer behind it. Cheap to clone.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

struct Shared {
    /// What the lines are, for the one message that they are lost.
    what: &'static str,
    queue: Mutex<Queue>,
    /// Told when lines wait, and when the last of them are written.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: Vec<u8>,
    dropped: u64,
    writing: bool,
    closing: bool,
}

impl Lines {
    /// Starts the writer thread. `what` names the lines.
    pub fn start(
        what: &'static str,
        output: impl Write + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared { what, queue: Mutex::default(), changed: Condvar::new() });
        let writer = shared.clone();
        let thread = std::thread::Builder::new().name(what.into()).spawn(move || writer.run(output))?;
        Ok((Self(shared), thread))
    }

    /// Appends a line, which ends with its line feed.
    pub fn append(&self, line: &[u8]) {
        let mut queue = self.0.lock();
        if queue.lines.len() + line.len() > BUFFER_BYTES_MAX {
            queue.dropped += 1;
            return;
        }
        let idle = queue.lines.is_empty() && !queue.writing;
        queue.lines.extend_from_slice(line);
        drop(queue);
        if idle {
            self.0.changed.notify_all();
        }
    }

    /// Lines dropped so far because the reader did not keep up.
    pub fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Writes what waits and ends the writer; `false` if it had to give up on a reader that does not read.
    pub fn close(&self) -> bool {
        let mut queue = self.0.lock();
        queue.closing = true;
        self.0.changed.notify_all();
        let busy = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(queue, FLUSH_TIMEOUT, busy);
        let (queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let dropped = queue.dropped;
        // The warning may be for this very queue.
        drop(queue);
        if dropped > 0 {
            tracing::warn!(dropped, "lines of the {} were dropped: its reader did not keep up", self.0.what);
        }
        !timeout.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut output: impl Write) {
        let mut lines = Vec::new();
        let mut told = false;
        while self.take(&mut lines) {
            let written = output.write_all(&lines).and_then(|()| output.flush());
            if let Err(error) = written
                && !told
            {
                // Told once: the log must not become a second flood.
                told = true;
                tracing::warn!("the {} cannot be written, its lines are lost: {error}", self.what);
            }
            lines.clear();
        }
    }

    /// Waits for lines and swaps them with the empty buffer; `false` once closing and all is written.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        let mut queue = self.lock();
        if queue.writing {
            queue.writing = false;
            self.changed.notify_all();
            let gathered = self.changed.wait_timeout_while(queue, GATHER, |queue| !queue.closing);
            queue = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        let idle = |queue: &mut Queue| queue.lines.is_empty() && !queue.closing;
        queue = self.changed.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if queue.lines.is_empty() {
            return false;
        }
        std::mem::swap(lines, &mut queue.lines);
        queue.writing = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reader that takes one write whenever it is told to.
    struct Slow(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.recv().map_err(std::io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_not_time() {
        let ((go, gate), (sender, written)) = (channel(), channel());
        let (log, thread) = Lines::start("test", Slow(gate, sender)).unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        let lines = 3 * BUFFER_BYTES_MAX as u64 / line.len() as u64;
        (0..lines).for_each(|_| log.append(line.as_bytes()));
        assert!(log.dropped() >= lines / 3, "{} of {lines}", log.dropped());
        (0..lines).for_each(|_| go.send(()).unwrap());
        log.close();
        thread.join().unwrap();
        let bytes: usize = written.try_iter().map(|chunk| chunk.len()).sum();
        assert_eq!(bytes, usize::try_from(lines - log.dropped()).unwrap() * line.len());
    }

    #[test]
    fn a_reader_that_is_gone_ends_nothing() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (log, thread) = Lines::start("test", writer).unwrap();
        log.append(b"one\n");
        log.append(b"two\n");
        log.close();
        thread.join().unwrap();
    }
}
