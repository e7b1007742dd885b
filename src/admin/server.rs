//! HTTP/1 on a thread of its own: whatever is asked, no connection of the gateway waits for it. One request a
//! connection, within a deadline, of a bounded size; more connections than a few are closed.

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::answer::{Subject, answer};

/// Connections at once.
const CONNECTIONS_MAX: u32 = 64;
/// Of a request's line and headers together.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// For the head of a request, and as much again for the whole of it and its response.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the process waits for responses.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Between attempts while the process has no descriptors left.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A server that runs.
pub struct Server {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// Starts to serve a socket.
pub fn start(socket: TcpListener, subject: Subject) -> std::io::Result<Server> {
    socket.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let socket = {
        let _its = runtime.enter();
        tokio::net::TcpListener::from_std(socket)?
    };
    let (stop, stopping) = watch::channel(false);
    let thread = std::thread::Builder::new().name("admin".into());
    let thread = thread.spawn(move || runtime.block_on(serve(socket, Arc::new(subject), stopping)))?;
    Ok(Server { stop, thread })
}

impl Server {
    /// Takes no more requests, and waits a moment for responses that are under way.
    pub fn stop(self) {
        // Fails where the thread has ended by itself.
        let _ = self.stop.send(true);
        if self.thread.join().is_err() {
            tracing::error!("the admin server panicked");
        }
    }
}

async fn serve(socket: tokio::net::TcpListener, subject: Arc<Subject>, mut stopping: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(BACK_OFF).await;
            continue;
        };
        // One too many is closed.
        if let (Ok(place), Ok(local)) = (places.clone().try_acquire_owned(), stream.local_addr()) {
            let subject = subject.clone();
            tokio::spawn(async move {
                let _place = place;
                let _ = timeout(CONNECTION_TIMEOUT, one_request(stream, local.ip(), &subject)).await;
            });
        }
    }
    drop(socket);
    let _ = timeout(FLUSH_TIMEOUT, places.acquire_many(CONNECTIONS_MAX)).await;
}

/// Reads a request and responds. What is wrong with it, hyper tells its sender.
async fn one_request(stream: TcpStream, local: IpAddr, subject: &Subject) {
    let service = service_fn(|request| {
        let response = answer(&request, local, subject);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("admin request cut: {error}");
    }
}
