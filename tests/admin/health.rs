//! Whether the process is well, and whether it can carry connections.

use crate::Scene;
use crate::http::{address, get, wait_for_readiness};
use crate::support::socket::{Backend, echo};
use crate::support::{Certs, Program, peer};

#[test]
fn a_gateway_with_all_it_needs_is_ready() {
    let scene = Scene::new(&[]);
    assert_eq!(get(scene.admin, "/healthz").body, "ok\n");
    assert_eq!(wait_for_readiness(scene.admin, true), "ready\n");
}

#[test]
fn a_gateway_whose_credential_is_not_there_yet_is_not_ready() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let (there, aside) = (certs.ingress(), certs.dir.path().join("aside"));
    std::fs::rename(&there, &aside).expect("moved");
    let more = ["--admin", "127.0.0.1:0", "--credentials-poll", "100ms"];
    let ingress = Program::ingress(&certs, backend.address, &more);
    let admin = address(&ingress);
    assert_eq!(get(admin, "/readyz").body, "not ready\n");
    let said = wait_for_readiness(admin, false);
    assert!(said.starts_with("not ready\nno usable credential default: "), "{said}");
    assert_eq!(get(admin, "/healthz").status, 200);
    std::fs::rename(&aside, &there).expect("moved");
    wait_for_readiness(admin, true);
}

#[test]
fn a_gateway_that_drains_is_not_ready_and_can_still_be_asked() {
    let mut scene = Scene::new(&["--drain-timeout", "1h"]);
    let mut client = peer::connect(scene.ingress.address, peer::good_client_config(&scene.certs));
    echo(&mut client, "open");
    scene.ingress.signal("TERM");
    let said = wait_for_readiness(scene.admin, false);
    assert!(said.contains("draining"), "{said}");
    assert_eq!(get(scene.admin, "/healthz").status, 200);
    drop(client);
    assert_eq!(scene.ingress.wait().code(), Some(0));
}
