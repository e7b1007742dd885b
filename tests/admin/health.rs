//! Whether the process is well, and whether it can carry connections.

use crate::Scene;
use crate::http::{address, get, sample, wait_for_readiness, wait_for_sample};
use crate::support::socket::{Backend, echo};
use crate::support::{Certs, Program, path, peer};

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

#[test]
fn egress_has_an_admin_server_too() {
    let certs = Certs::mint();
    let egress = Program::egress(&certs, ([127, 0, 0, 1], 1).into(), &["--admin", "127.0.0.1:0"]);
    // Ready although its upstream is not: nobody was dialled.
    wait_for_readiness(address(&egress), true);
}

/// A sidecar's way to a host that is reached in plaintext.
const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: default}
spec:
  hosts: [a.example]
  ports: [{number: 3306, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
";

#[test]
fn a_gateway_by_resources_tells_of_configurations_that_were_followed_and_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, credentials) = (folder.path().join("config"), folder.path().join("credentials"));
    for directory in [&config, &credentials] {
        std::fs::create_dir(directory).expect("a folder");
    }
    let file = config.join("a.yaml");
    std::fs::write(&file, ENTRY).expect("written");
    let resources = ["run", "--config", path(&config), "--credentials", path(&credentials)];
    let process = ["--role=sidecar", "--listen=3306=127.0.0.1:0", "--admin=127.0.0.1:0"];
    let sidecar = Program::start(&[&resources[..], &process].concat());
    let admin = address(&sidecar);
    wait_for_readiness(admin, true);
    let reloads = |result: &str| format!("twinlock_plan_reloads_total{{result=\"{result}\"}}");
    std::fs::write(&file, "kind: Nonsense").expect("written");
    sidecar.signal("HUP");
    wait_for_sample(admin, &reloads("refused"), |value| value > 0.0);
    wait_for_sample(admin, "twinlock_plan_generation", |value| value < 1.5);
    std::fs::write(&file, ENTRY.replace("127.0.0.1", "127.0.0.2")).expect("written");
    sidecar.signal("HUP");
    wait_for_sample(admin, "twinlock_plan_generation", |value| value > 1.5);
    wait_for_sample(admin, &reloads("published"), |value| value > 1.5);
    assert!(sample(admin, "twinlock_plan_published_timestamp_seconds") > Some(1e9));
    wait_for_readiness(admin, true);
}
