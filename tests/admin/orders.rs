//! What the process can be told over HTTP, and the certificates it says are in use.

use serde_json::Value;

use crate::Scene;
use crate::http::{Response, address, get, send, wait_for_readiness, wait_for_sample};
use crate::support::peer::{self, TlsClient};
use crate::support::socket::{Backend, Ending, echo, ending};
use crate::support::{Certs, Program, path, run, wait_until, wait_until_watched};

/// Tells the gateway of a scene what a path says, with these headers.
fn post(scene: &Scene, path: &str, headers: &str) -> Response {
    send(scene.admin, &format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"))
}

fn connect(scene: &Scene) -> TlsClient {
    let mut client = peer::connect(scene.ingress.address, peer::good_client_config(&scene.certs));
    echo(&mut client, "open");
    client
}

#[test]
fn an_order_without_the_header_is_refused_and_not_obeyed() {
    let scene = Scene::new(&[]);
    let from_a_form = "Origin: http://evil.example\r\nContent-Type: text/plain\r\n";
    for path in ["/reload", "/drain"] {
        for headers in ["", "x-twinlock: 0\r\n", from_a_form] {
            let response = post(&scene, path, headers);
            assert_eq!(response.status, 403, "{response:?}");
            assert!(response.body.contains("x-twinlock: 1"), "{response:?}");
        }
        assert_eq!(get(scene.admin, path).status, 405, "{path}");
        let foreign = format!("POST {path} HTTP/1.1\r\nHost: evil.example\r\nx-twinlock: 1\r\n\r\n");
        assert_eq!(send(scene.admin, &foreign).status, 421);
    }
    connect(&scene);
    assert_eq!(get(scene.admin, "/readyz").status, 200);
    assert_eq!(scene.ingress.said("told by the admin server"), 0);
}

#[test]
fn told_to_reload_it_looks_at_what_no_event_tells_of() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let (file, other_name) = (certs.ingress().join("tls.crt"), certs.dir.path().join("other/tls.crt"));
    std::fs::create_dir(certs.dir.path().join("other")).expect("a directory");
    std::fs::hard_link(&file, &other_name).expect("another name");
    let more = ["--admin", "127.0.0.1:0", "--credentials-poll", "1h"];
    let ingress = Program::ingress(&certs, backend.address, &more);
    let admin = address(&ingress);
    let scene = Scene { certs, ingress, admin, _backend: backend };
    wait_until_watched(&scene.ingress);
    std::fs::write(&other_name, "broken").expect("written");
    let refused = "twinlock_credential_reloads_total{credential=\"default\",result=\"refused\"}";
    let response = post(&scene, "/reload", "x-twinlock: 1\r\nContent-Length: 0\r\n");
    assert_eq!((response.status, response.body.as_str()), (202, "told to reload\n"));
    wait_for_sample(admin, refused, |value| value > 0.0);
    scene.ingress.wait_for_stderr("told by the admin server");
}

#[test]
fn told_to_drain_it_lets_connections_finish_and_one_signal_behind_it_cuts_none() {
    let mut scene = Scene::new(&["--drain-timeout", "1h"]);
    let mut client = connect(&scene);
    for _ in 0..3 {
        assert_eq!(post(&scene, "/drain", "x-twinlock: 1\r\n").status, 202);
        assert!(wait_for_readiness(scene.admin, false).contains("draining"));
    }
    scene.ingress.signal("TERM");
    echo(&mut client, "still served");
    peer::half_close(&mut client);
    assert_eq!(ending(&mut client), Ending::Clean);
    assert_eq!(scene.ingress.record()["outcome"], "completed");
    assert_eq!(scene.ingress.wait().code(), Some(0));
}

#[test]
fn told_to_drain_a_second_signal_behind_it_cuts() {
    let mut scene = Scene::new(&["--drain-timeout", "1h"]);
    let mut client = connect(&scene);
    assert_eq!(post(&scene, "/drain", "x-twinlock: 1\r\n").status, 202);
    wait_for_readiness(scene.admin, false);
    scene.ingress.signal("TERM");
    scene.ingress.signal("INT");
    assert_eq!(ending(&mut client), Ending::Reset);
    assert_eq!(scene.ingress.wait().code(), Some(1));
}

#[test]
fn a_gateway_without_connections_that_is_told_to_drain_answers_and_ends() {
    let mut scene = Scene::new(&["--drain-timeout", "1h"]);
    assert_eq!(post(&scene, "/drain", "x-twinlock: 1\r\n").status, 202);
    assert_eq!(scene.ingress.wait().code(), Some(0));
}

#[test]
fn the_certificates_in_use_are_told_as_the_command_tells_those_in_a_directory() {
    let scene = Scene::new(&["--credentials-poll", "100ms"]);
    let certificates = || -> Value {
        let response = get(scene.admin, "/certs");
        assert!(response.head.contains("content-type: application/json"), "{response:?}");
        serde_json::from_str(&response.body).expect("JSON")
    };
    let (code, command, _) = run(&["certs", "--json", path(&scene.certs.ingress())]);
    let command: Value = serde_json::from_str(&command).expect("JSON");
    assert_eq!(code, 0);
    let told = certificates();
    assert_eq!(told[0]["name"], "default");
    for field in ["directory", "usable", "revocation_lists"] {
        assert_eq!(told[0][field], command[0][field], "{field}");
    }
    // The days that are left change with the clock.
    let shown = |sheets: &Value| -> Vec<Value> {
        let mut all = sheets[0]["certificates"].as_array().expect("certificates").clone();
        for one in &mut all {
            one["days_left"] = Value::Null;
        }
        all
    };
    assert_eq!(shown(&told), shown(&command));
    assert_eq!(shown(&told).len(), 2);
    std::fs::write(scene.certs.ingress().join("tls.crt"), "broken").expect("written");
    wait_until("a problem", || certificates()[0]["problem"].is_string());
    // What is in use stays in use, and is told.
    let told = certificates();
    assert_eq!(told[0]["usable"], true);
    assert_eq!(shown(&told), shown(&command));
}
