//! Many reloads: nobody is refused, nobody is cut, and nothing is left behind.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::scene::{INGRESS, SIDECAR, Scene, entry, mutual, server};
use crate::support::authority::Leaf;
use crate::support::socket::{Backend, connect, echo};
use crate::support::{Program, peer, wait_until};

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
        for round in 1_usize..=20 {
            // A port that comes and goes, and a route that changes each time.
            if round.is_multiple_of(2) {
                std::fs::remove_file(scene.config().join("b.yaml")).expect("removed");
            } else {
                scene.write("b.yaml", &entry("b.example", 3307, backends[0].address));
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

#[test]
fn handshakes_under_way_are_not_disturbed_by_reloads() {
    let backend = Backend::echo();
    let service = entry("db.example", 3306, backend.address);
    // Each time somebody else is listed as well, and sometimes there is another port.
    let text = |round: usize| {
        let other = format!("other{round}.example");
        let one = server(13306, "ingress", &mutual(&["client.example", &other]), "db.example");
        if round.is_multiple_of(2) {
            one
        } else {
            one + &server(13307, "ingress", &mutual(&[]), "db.example")
        }
    };
    let mut scene = Scene::new(INGRESS, &[("db.yaml", &service), ("g.yaml", &text(0))]);
    let identity = scene.root.issue(&Leaf::client(&["client.example"]));
    let config = peer::client_config(&scene.root.certificate, Some(&identity), rustls::ALL_VERSIONS);
    let address = scene.program.address;
    let mut held = peer::connect(address, config.clone());
    echo(&mut held, "held");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let keep_coming = || {
        while !stop.load(Ordering::Relaxed) {
            echo(&mut peer::connect(address, config.clone()), "let in");
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(keep_coming)).collect();
        for round in 1..=20 {
            scene.follow("g.yaml", &text(round));
        }
        wait_until("connections under the last plan", || served.load(Ordering::Relaxed) > 20);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("nobody was refused");
        }
    });
    echo(&mut held, "held still");
    drop(held);
    let records = scene.program.stop_and_take_records();
    assert!(records.len() > 20 && scene.loaded() == 20, "{} {}", records.len(), scene.loaded());
    let told = |record: &serde_json::Value| record["outcome"].as_str().unwrap_or_default().to_owned();
    // The clients close without close_notify.
    let other: Vec<_> = records.iter().map(told).filter(|outcome| outcome != "truncated").collect();
    assert_eq!(other, Vec::<String>::new());
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
