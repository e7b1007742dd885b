//! Many reloads: nobody is refused, nobody is cut, and nothing is left behind.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::scene::{SIDECAR, Scene, entry};
use crate::support::socket::{Backend, connect, echo};
use crate::support::{Program, wait_until};

/// Connects, one connection behind the other, until told to stop.
fn keep_coming(address: SocketAddr, served: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        echo(&mut connect(address), "let in");
        served.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn twenty_reloads_refuse_nobody_and_cut_nobody() {
    let backends = [Backend::echo(), Backend::echo()];
    let text = |index: usize| entry("a.example", 3306, backends[index % 2].address);
    let mut scene = Scene::new(SIDECAR, &[("a.yaml", &text(0))]);
    let address = scene.program.address;
    let mut held: Vec<_> = (0..100).map(|_| connect(address)).collect();
    for client in &mut held {
        echo(client, "held");
    }
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| keep_coming(address, &served, &stop))).collect();
        for round in 1..=20 {
            // A port that comes and goes, and a route that changes each time.
            if round % 2 == 1 {
                scene.write("b.yaml", &entry("b.example", 3307, backends[0].address));
            } else {
                std::fs::remove_file(scene.config().join("b.yaml")).expect("removed");
            }
            let before = served.load(Ordering::Relaxed);
            scene.follow("a.yaml", &text(round));
            wait_until("connections under the new plan", || served.load(Ordering::Relaxed) >= before + 20);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("nobody was refused");
        }
    });
    for client in &mut held {
        echo(client, "held still");
    }
    drop(held);
    let served = served.load(Ordering::Relaxed) + 100;
    let records = scene.program.stop_and_take_records();
    assert_eq!(records.len(), served);
    assert!(records.iter().all(|record| record["outcome"] == "completed"));
    assert_eq!(scene.loaded(), 20);
}

fn descriptors(program: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("descriptors").count()
}

#[test]
fn a_hundred_reloads_leave_no_descriptor_behind() {
    let backend = Backend::echo();
    let scene = Scene::new(SIDECAR, &[("a.yaml", &entry("a.example", 3306, backend.address))]);
    let added = entry("b.example", 3307, backend.address);
    let round = || {
        scene.follow("b.yaml", &added);
        echo(&mut connect(scene.opened(3307)), "let in");
        scene.follow("b.yaml", "");
    };
    round();
    let before = descriptors(&scene.program);
    (0..50).for_each(|_| round());
    wait_until("the descriptors of before", || descriptors(&scene.program) <= before);
}
