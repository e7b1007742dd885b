//! How many connections an upstream may have, and how long they last: R25, and `connectionPool.tcp`.

use std::io::ErrorKind;

use crate::judge::{at, compile, upstream, warned, workload};
use crate::routing::SIDECAR;
use crate::service::{Service, addresses, fixed, greeted, greeters, resources};
use crate::support::socket::{Backend, Ending, attempt, connect, echo, ending};
use crate::support::wait_until;

#[test]
fn r25_a_connection_over_the_limit_is_closed_at_once_and_the_next_is_served_after_one_has_ended() {
    let backends = greeters::<2>();
    let service = Service::at(&addresses(&backends), "connectionPool: {tcp: {maxConnections: 2}}");
    let mut open = [(); 2].map(|()| connect(service.program.address));
    for client in &mut open {
        greeted(client);
    }
    assert_eq!(attempt(service.program.address, b""), Ending::Reset);
    let record = service.program.record();
    let told = [&record["outcome"], &record["flags"], &record["closed_by"]];
    assert_eq!(told, ["upstream_overflow", "UO", "gateway"], "{record}");
    assert!(record["upstream"]["address"].is_null(), "nobody was dialled: {record}");
    let [mut first, second] = open;
    drop(second);
    assert_eq!(service.program.record()["flags"], serde_json::Value::Null);
    let mut third = connect(service.program.address);
    greeted(&mut third);
    echo(&mut first, "still served");
    echo(&mut third, "served too");
}

#[test]
fn idle_and_old_connections_end_when_the_rule_says_so() {
    let backends = greeters::<1>();
    for (pool, outcome, flags) in [
        ("idleTimeout: 1s", "idle_timeout", None),
        ("maxConnectionDuration: 2s, idleTimeout: 0s", "max_connection_age", Some("DT")),
    ] {
        // What the process says of idle connections does not count, even where it is stricter.
        let rule = format!("trafficPolicy: {{connectionPool: {{tcp: {{{pool}}}}}}}");
        let usual = if flags.is_some() { "1s" } else { "1h" };
        let service = Service::start(&fixed(&addresses(&backends)), &rule, &["--idle-timeout", usual]);
        let mut client = connect(service.program.address);
        greeted(&mut client);
        assert_eq!(ending(&mut client), Ending::Reset);
        let record = service.program.record();
        assert_eq!(record["outcome"], outcome, "{record}");
        assert_eq!(record["flags"].as_str(), flags, "{record}");
    }
}

#[test]
fn r23_how_long_connections_last_is_said_at_the_top_level_only() {
    let tcp = |more: &str| format!("connectionPool: {{tcp: {{{more}}}}}");
    let lasting = "idleTimeout: 5s, maxConnectionDuration: 6s";
    let judged = |policy: &str| {
        let text = resources(&fixed(&[([10, 0, 0, 1], 1).into()]), &format!("trafficPolicy: {{{policy}}}"));
        let (listeners, report) = compile(&[&text], &workload(SIDECAR));
        assert_eq!(report.errors(), 0, "{report}");
        let pool = upstream(at(&listeners, 3306)).pool.clone();
        (pool.age_max.map(|age| age.as_secs()), pool.connections_max, report)
    };
    let port = |policy: &str| format!("portLevelSettings: [{{port: {{number: 3306}}, {policy}}}]");
    let (age, _, report) = judged(&tcp(lasting));
    assert_eq!((age, report.warnings()), (Some(6), 0), "{:?}", report.warning_lines());
    let (age, _, report) = judged(&port(&tcp(lasting)));
    assert_eq!(age, None);
    for field in ["idleTimeout", "maxConnectionDuration"] {
        let told = format!("{field}: has no effect, in Istio neither");
        assert!(warned(&report, &told), "{:?}", report.warning_lines());
    }
    // What is about the port is taken from its entry whole, what is about the listener from the top.
    let (age, max, report) = judged(&format!("{}, {}", tcp(lasting), port(&tcp("maxConnections: 7"))));
    assert_eq!((age, max, report.warnings()), (Some(6), Some(7), 0), "{:?}", report.warning_lines());
    assert_eq!(judged(&tcp("maxConnections: 0")).1, None);
}

/// What the kernel's list of sockets says of the timer of one that is connected to this port: which it is, and
/// when it goes off, in hundredths of a second.
fn timer(port: u16) -> Option<(u8, u64)> {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the list of sockets");
    sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, remote) = fields.get(2)?.split_once(':')?;
        let established = fields.get(3) == Some(&"01");
        let (which, when) = fields.get(5)?.split_once(':')?;
        (established && remote == format!("{port:04X}"))
            .then(|| (which.parse().unwrap_or(0), u64::from_str_radix(when, 16).unwrap_or(0)))
    })
}

/// The number of the timer of keepalive in the kernel's list.
const KEEPALIVE: u8 = 2;

#[test]
fn keepalive_is_as_the_rule_says() {
    let backends = greeters::<1>();
    let policy = "connectionPool: {tcp: {tcpKeepalive: {time: 1000s, interval: 7s, probes: 3}}}";
    let service = Service::at(&addresses(&backends), policy);
    let mut client = connect(service.program.address);
    greeted(&mut client);
    let port = backends[0].address.port();
    wait_until("the timer of keepalive, a thousand seconds on", || {
        timer(port).is_some_and(|(which, when)| which == KEEPALIVE && (90_000..=100_000).contains(&when))
    });
}

/// Writes until the other end has had enough; says how it said so.
fn write_on(stream: &mut std::net::TcpStream) -> ErrorKind {
    let chunk = vec![0; 64 << 10];
    loop {
        if let Err(error) = std::io::Write::write(stream, &chunk) {
            return error.kind();
        }
    }
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_after_the_user_timeout() {
    let backend = Backend::start();
    let service = Service::start(&fixed(&[backend.address]), "", &["--user-timeout", "1s"]);
    for deaf in ["upstream", "downstream"] {
        let (mut client, mut server) = (connect(service.program.address), backend.accept());
        let end = if deaf == "upstream" { write_on(&mut client) } else { write_on(&mut server) };
        assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end}");
        let record = service.program.record();
        assert_eq!([&record["outcome"], &record["closed_by"]], ["reset", deaf], "{record}");
    }
}
