//! Strangers, other people's web pages, and requests that are slow or huge.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::http::{get, send};
use crate::support::socket::Backend;
use crate::support::{self, Certs, HOST, path};
use crate::{Scene, http};

#[test]
fn without_the_flag_nothing_can_be_asked() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let mut ingress = support::Program::ingress(&certs, backend.address, &[]);
    ingress.stop();
    assert_eq!(ingress.said("admin"), 0, "{}", ingress.stderr());
}

#[test]
fn a_host_that_somebody_else_could_have_is_refused() {
    let scene = Scene::new(&[]);
    let port = scene.admin.port();
    for (host, status) in [
        ("Host: localhost\r\n".to_owned(), 200),
        (format!("Host: localhost:{port}\r\n"), 200),
        (format!("Host: [::1]:{port}\r\n"), 200),
        (format!("Host: evil.example:{port}\r\n"), 421),
        (format!("Host: 127.0.0.1.evil.example:{port}\r\n"), 421),
        ("Host: localhost\r\nHost: evil.example\r\n".to_owned(), 421),
        (String::new(), 421),
    ] {
        for path in ["/healthz", "/readyz", "/metrics", "/certs"] {
            let response = send(scene.admin, &format!("GET {path} HTTP/1.1\r\n{host}\r\n"));
            assert_eq!(response.status, status, "{path} {host:?}: {response:?}");
            assert_eq!(response.body.contains("expected a host"), status == 421, "{response:?}");
        }
    }
    let absolute = "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(send(scene.admin, absolute).status, 421);
}

#[test]
fn what_is_not_there_or_not_meant_is_told() {
    let scene = Scene::new(&[]);
    let missing = get(scene.admin, "/");
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("/metrics"), "{missing:?}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let response = send(
            scene.admin,
            &format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\nx-twinlock: 1\r\n\r\n"),
        );
        assert_eq!(response.status, 405, "{method}");
        assert!(response.head.contains("allow: get"), "{response:?}");
    }
    let head = send(scene.admin, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let body = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(send(scene.admin, body).status, 413);
}

#[test]
fn a_request_that_is_huge_is_cut() {
    let scene = Scene::new(&[]);
    let name = "x".repeat(64 * 1024);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{name}: 1\r\n\r\n");
    assert_eq!(send(scene.admin, &request).status, 431);
    let many = "x: 1\r\n".repeat(100);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    assert_eq!(send(scene.admin, &request).status, 431);
    assert_eq!(get(scene.admin, "/healthz").status, 200);
}

#[test]
fn a_request_that_is_slow_is_cut_and_others_are_answered_meanwhile() {
    let scene = Scene::new(&[]);
    let mut slow = TcpStream::connect(scene.admin).expect("connected");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: ").expect("sent");
    slow.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    support::wait_until("the end of a slow request", || {
        assert_eq!(get(scene.admin, "/healthz").status, 200);
        let sent = slow.write_all(b"x");
        match slow.read(&mut [0; 512]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => sent.is_err() || error.kind() == ErrorKind::ConnectionReset,
        }
    });
}

#[test]
fn connections_beyond_a_few_are_closed_and_places_are_free_again() {
    let scene = Scene::new(&[]);
    let mut idle: Vec<_> = (0..200).map(|_| TcpStream::connect(scene.admin).expect("connected")).collect();
    let last = idle.last_mut().expect("one");
    last.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
    assert!(!last.read(&mut [0; 64]).is_ok_and(|read| read > 0), "nothing was asked");
    drop(idle);
    support::wait_until("a free place", || {
        let mut stream = TcpStream::connect(scene.admin).expect("connected");
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut response = String::new();
        let _ = stream.read_to_string(&mut response);
        response.contains("200 OK")
    });
}

#[test]
fn an_address_beyond_loopback_is_refused_unless_it_is_said_to_be_meant() {
    let certs = Certs::mint();
    let credentials = certs.ingress();
    let base = ["ingress", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1", "--host", HOST];
    let base = [&base[..], &["--credentials", path(&credentials)]].concat();
    let (code, _, err) = support::run(&[&base[..], &["--admin", "0.0.0.0:0"]].concat());
    assert_eq!(code, 2);
    assert!(err.contains("--admin: expected a loopback address"), "{err}");
    assert!(err.contains("--admin-reach any allows it") && err.contains("found 0.0.0.0:0"), "{err}");
    let backend = Backend::echo();
    let more = ["--admin", "0.0.0.0:0", "--admin-reach", "any"];
    let ingress = support::Program::ingress(&certs, backend.address, &more);
    let address = http::address(&ingress);
    assert_eq!(get(([127, 0, 0, 1], address.port()).into(), "/healthz").status, 200);
}

#[test]
fn an_address_that_is_taken_is_told() {
    let (certs, taken) = (Certs::mint(), TcpListener::bind("127.0.0.1:0").expect("bound"));
    let (credentials, address) = (certs.ingress(), taken.local_addr().expect("an address").to_string());
    let base = ["ingress", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1", "--host", HOST];
    let more = ["--credentials", path(&credentials), "--admin", &address];
    let (code, _, err) = support::run(&[&base[..], &more].concat());
    assert_eq!(code, 2);
    assert!(err.contains(&format!("--admin: the port is already in use: {address}")), "{err}");
}
