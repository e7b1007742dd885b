//! New connections without end: those that stall in the handshake, and those that make one after the other.
//! Who was there before goes on, and a good client that comes meanwhile is served.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::peer::{self, TlsClient};
use crate::support::socket::{Backend, connect, echo};
use crate::support::{Certs, Program, wait_until};

/// An ingress with one worker, and a client that was there before the flood.
struct Scene {
    certs: Certs,
    ingress: Program,
    settled: TlsClient,
}

impl Scene {
    fn new() -> Self {
        let (certs, backend) = (Certs::mint(), Backend::echo());
        let ingress = Program::ingress(&certs, backend.address, &["--workers", "1"]);
        let mut settled = peer::connect(ingress.address, peer::good_client_config(&certs));
        echo(&mut settled, "here first");
        Self { certs, ingress, settled }
    }

    /// A good client that comes now.
    fn newcomer(&self) -> TlsClient {
        let mut client = peer::connect(self.ingress.address, peer::good_client_config(&self.certs));
        echo(&mut client, "let in");
        client
    }

    /// The ClientHello of a good client.
    fn hello(&self) -> Vec<u8> {
        let mut session = peer::session(crate::support::HOST, peer::good_client_config(&self.certs));
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).expect("a ClientHello");
        bytes
    }
}

#[test]
fn clients_that_stall_anywhere_in_the_handshake_hold_nobody_up() {
    let mut scene = Scene::new();
    let hello = scene.hello();
    // Silent, in mid-hello, and behind a whole hello that has been answered and is never taken further.
    let lengths = [0, 1, hello.len() / 2, hello.len()];
    let stalled: Vec<TcpStream> = (0..400)
        .map(|index| {
            let mut client = connect(scene.ingress.address);
            client.write_all(&hello[..lengths[index % lengths.len()]]).expect("written");
            client
        })
        .collect();
    let last = stalled.last().expect("one of them");
    wait_until("the last to be answered", || last.peek(&mut [0; 1]).is_ok_and(|read| read > 0));
    for _ in 0..100 {
        echo(&mut scene.settled, "still here");
    }
    let mut newcomer = scene.newcomer();
    echo(&mut newcomer, "and on");
    drop(stalled);
}

#[test]
fn handshakes_without_end_leave_a_settled_connection_its_turns() {
    const HANDSHAKES: usize = 400;
    let mut scene = Scene::new();
    let (config, address) = (peer::good_client_config(&scene.certs), scene.ingress.address);
    let (made, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut answered = 0;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while made.fetch_add(1, Ordering::Relaxed) < HANDSHAKES {
                    echo(&mut peer::connect(address, config.clone()), "one more");
                }
                over.store(true, Ordering::Relaxed);
            });
        }
        while !over.load(Ordering::Relaxed) {
            echo(&mut scene.settled, "still here");
            answered += 1;
        }
        scene.newcomer();
    });
    assert!(answered >= HANDSHAKES / 8, "{answered} requests beside {HANDSHAKES} handshakes");
}
