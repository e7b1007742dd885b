//! What becomes of sockets and routes.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use crate::scene::{INGRESS, SIDECAR, Scene, entry, mutual, mutual_of, server};
use crate::support::authority::Leaf;
use crate::support::socket::{Backend, Ending, connect, echo, ending, expect};
use crate::support::{HOST, Program, peer, wait_until};

#[test]
fn a_new_port_opens_and_the_old_one_goes_on() {
    let backend = Backend::echo();
    let scene = Scene::new(SIDECAR, &[("a.yaml", &entry("a.example", 3306, backend.address))]);
    let mut open = connect(scene.program.address);
    echo(&mut open, "before");
    scene.write("b.yaml", &entry("b.example", 3307, backend.address));
    let added = scene.opened(3307);
    echo(&mut connect(added), "through the new one");
    echo(&mut open, "after");
    echo(&mut connect(scene.program.address), "through the old one");
    // The port is told first.
    scene.program.wait_for_stderr("configuration loaded");
    let stderr = scene.program.stderr();
    let line = stderr.lines().find(|line| line.contains("configuration loaded")).expect("told");
    assert!(line.contains("\"generation\":2") && line.contains(&format!("\"opened\":\"{added}\"")), "{line}");
    assert!(line.contains("\"closed\":\"\"") && line.contains("\"kept\":1"), "{line}");
}

#[test]
fn new_connections_take_the_new_route_and_open_ones_stay_where_they_are() {
    let (old, new) = (Backend::start(), Backend::start());
    let mut scene = Scene::new(SIDECAR, &[("a.yaml", &entry("a.example", 3306, old.address))]);
    let mut before = connect(scene.program.address);
    let mut served_by_old = old.accept();
    scene.follow("a.yaml", &entry("a.example", 3306, new.address));
    let after = connect(scene.program.address);
    let served_by_new = new.accept();
    before.write_all(b"still here").expect("written");
    expect(&mut served_by_old, "still here");
    assert_eq!((old.dialled(), new.dialled()), (1, 1));
    drop((before, after, served_by_old, served_by_new));
    let mut plans: Vec<_> = scene.program.stop_and_take_records();
    plans.sort_by_key(|record| record["id"].as_u64());
    assert_eq!([&plans[0]["plan"], &plans[1]["plan"]], [1, 2], "{plans:?}");
}

#[test]
fn a_listener_that_is_gone_accepts_no_more_and_its_connections_go_on() {
    let backend = Backend::echo();
    let (a, b) = (entry("a.example", 3306, backend.address), entry("b.example", 3307, backend.address));
    let scene = Scene::new(SIDECAR, &[("a.yaml", &a), ("b.yaml", &b)]);
    let removed = scene.opened(3307);
    let mut open = connect(removed);
    echo(&mut open, "before");
    std::fs::remove_file(scene.config().join("b.yaml")).expect("removed");
    scene.wait_for_load(0);
    wait_until("refused connections", || TcpStream::connect(removed).is_err());
    echo(&mut open, "after");
    echo(&mut connect(scene.program.address), "the other one");
    // And back again.
    scene.follow("b.yaml", &b);
    echo(&mut connect(scene.opened(3307)), "again");
    echo(&mut open, "still");
}

#[test]
fn a_port_that_cannot_be_had_leaves_everything_as_it_is_until_it_can() {
    let backend = Backend::echo();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let poll = [SIDECAR, &["--credentials-poll=50ms"]].concat();
    let scene = Scene::new(&poll, &[("a.yaml", &entry("a.example", 3306, backend.address))]);
    let elsewhere = Backend::start();
    scene.write("a.yaml", &entry("a.example", 3306, elsewhere.address));
    scene.write("b.yaml", &entry("b.example", port, backend.address));
    scene.program.wait_for_stderr(&format!("the port is already in use: 127.0.0.1:{port}"));
    echo(&mut connect(scene.program.address), "under the old plan");
    assert_eq!((scene.loaded(), scene.program.said("configuration refused")), (0, 1));
    drop(taken);
    scene.wait_for_load(0);
    assert_eq!(scene.program.said("configuration refused"), 1);
    echo(&mut connect(([127, 0, 0, 1], port).into()), "under the new plan");
}

fn client(scene: &Scene, address: std::net::SocketAddr) -> peer::TlsClient {
    let identity = scene.root.issue(&Leaf::client(&["client.example"]));
    let config = peer::client_config(&scene.root.certificate, Some(&identity), rustls::ALL_VERSIONS);
    peer::connect(address, config)
}

#[test]
fn a_credential_that_a_new_plan_names_is_loaded_before_the_plan_is_followed() {
    let backend = Backend::echo();
    let service = entry("db.example", 3306, backend.address);
    let one = server(13306, "ingress", &mutual(&[]), "db.example");
    let mut scene = Scene::new(INGRESS, &[("db.yaml", &service), ("one.yaml", &one)]);
    scene.root.install(&scene.root.issue(&Leaf::server(&[HOST])), &scene.credential("added"));
    scene.follow("two.yaml", &server(13307, "ingress", &mutual_of("added", &[]), "db.example"));
    let mut served = client(&scene, scene.opened(13307));
    echo(&mut served, "by the new credential");
    assert_eq!(scene.program.said("credential loaded"), 1);
    // It is watched, too.
    scene.root.install(&scene.root.issue(&Leaf::server(&[HOST])), &scene.credential("added"));
    wait_until("its renewal", || scene.program.said("credential loaded") == 2);
    // And the other one was not touched.
    assert!(!scene.program.stderr().contains("\"credential\":\"c\""), "{}", scene.program.stderr());
    drop(served);
    scene.program.stop();
}

#[test]
fn a_plan_for_which_a_credential_in_use_is_not_good_enough_is_refused() {
    let backend = Backend::echo();
    let service = entry("db.example", 3306, backend.address);
    let one = server(13306, "ingress", &mutual(&[]), "db.example");
    let scene = Scene::new(INGRESS, &[("db.yaml", &service), ("one.yaml", &one)]);
    // The certificate is for another host.
    let other = one.replace(HOST, "other.example");
    scene.write("one.yaml", &other);
    scene.program.signal("HUP");
    scene.program.wait_for_stderr("configuration refused");
    assert!(scene.program.stderr().contains("other.example"), "{}", scene.program.stderr());
    echo(&mut client(&scene, scene.program.address), "under the old plan");
    let good = scene.root.issue(&Leaf::server(&[HOST, "other.example"]));
    scene.root.install(&good, &scene.credential("c"));
    scene.program.signal("HUP");
    scene.wait_for_load(0);
    let stranger = client(&scene, scene.program.address);
    assert_eq!(peer::alert(&mut { stranger }), rustls::AlertDescription::UnrecognisedName);
}

#[test]
fn flags_have_no_folder_and_a_signal_reloads_nothing_but_credentials() {
    let (certs, backend) = (crate::support::Certs::mint(), Backend::echo());
    let mut ingress = Program::ingress(&certs, backend.address, &["--credentials-poll", "1h"]);
    certs.mint_again();
    ingress.signal("HUP");
    ingress.wait_for_stderr("credential loaded");
    let mut open = peer::connect(ingress.address, peer::good_client_config(&certs));
    echo(&mut open, "by the new credential");
    peer::half_close(&mut open);
    assert_eq!(ending(&mut open), Ending::Clean);
    assert_eq!(ingress.stop_and_take_records()[0]["plan"], 1);
    assert_eq!(ingress.said("configuration"), 0);
}
