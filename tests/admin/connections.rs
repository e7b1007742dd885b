//! What the metrics count of connections, while they last and when they end.

use std::io::Write as _;
use std::net::TcpStream;

use crate::Scene;
use crate::http::{get, sample, wait_for_sample};
use crate::support::peer;
use crate::support::socket::echo;

/// A sample of the one listener.
fn of_listener(name: &str, more: &str) -> String {
    format!("{name}{{role=\"ingress\",listen=\"127.0.0.1:0\",port=\"0\"{more}}}")
}

#[test]
fn counters_move_during_a_connection_and_agree_with_its_record() {
    let scene = Scene::new(&[]);
    let active = of_listener("twinlock_connections_active", "");
    let bytes = |from: &str| of_listener("twinlock_received_bytes_total", &format!(",from=\"{from}\""));
    let is = |count: u32| move |value: f64| (value - f64::from(count)).abs() < 0.5;
    wait_for_sample(scene.admin, &active, is(0));
    let mut client = peer::connect(scene.ingress.address, peer::good_client_config(&scene.certs));
    echo(&mut client, "hello");
    wait_for_sample(scene.admin, &active, is(1));
    for from in ["downstream", "upstream"] {
        wait_for_sample(scene.admin, &bytes(from), is(5));
    }
    echo(&mut client, "more");
    wait_for_sample(scene.admin, &bytes("upstream"), is(9));
    peer::half_close(&mut client);
    let record = scene.ingress.record();
    assert_eq!([&record["bytes_received"], &record["bytes_sent"]], [9, 9], "{record}");
    wait_for_sample(scene.admin, &active, is(0));
    wait_for_sample(scene.admin, &of_listener("twinlock_connections_total", ""), is(1));
    let completed = of_listener("twinlock_connections_ended_total", ",outcome=\"completed\"");
    wait_for_sample(scene.admin, &completed, is(1));
    wait_for_sample(scene.admin, &bytes("downstream"), is(9));
}

#[test]
fn refused_clients_are_counted_by_the_reason_and_say_nothing_in_a_label() {
    let scene = Scene::new(&[]);
    for _ in 0..3 {
        let mut stranger = TcpStream::connect(scene.ingress.address).expect("connected");
        stranger.write_all(b"GET /stranger HTTP/1.1\r\n\r\n").expect("sent");
        assert_eq!(scene.ingress.record()["outcome"], "not_tls");
    }
    let refused = "twinlock_handshakes_refused_total{side=\"downstream\",reason=\"not_tls\"}";
    assert_eq!(sample(scene.admin, refused), Some(3.0));
    let ended = of_listener("twinlock_connections_ended_total", ",outcome=\"not_tls\"");
    assert_eq!(sample(scene.admin, &ended), Some(3.0));
    assert_eq!(sample(scene.admin, &of_listener("twinlock_connections_active", "")), Some(0.0));
    let metrics = get(scene.admin, "/metrics").body;
    assert!(!metrics.contains("stranger"), "{metrics}");
    crate::metrics::assert_promtool_is_content(&metrics);
}
