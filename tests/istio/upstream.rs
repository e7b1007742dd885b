//! Which endpoint a connection goes to, and what becomes of one that fails: R24 and R26.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use twinlock::plan::Role;
use twinlock::plan::cluster::Balance;

use crate::judge::{at, compile, upstream, warned, workload};
use crate::parsing::manifests;
use crate::routing::SIDECAR;
use crate::service::{Service, addresses, fixed, greeted, greeters, resources};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::peer;
use crate::support::socket::{Backend, Ending, Refusing, attempt, connect, echo};
use crate::support::{self, Certs, HOST, wait_until};

/// Sixteen clients on one machine.
fn clients() -> impl Iterator<Item = IpAddr> {
    (10..26).map(|last| IpAddr::from([127, 0, 0, last]))
}

#[test]
fn r24_a_client_keeps_its_endpoint_and_one_that_goes_takes_only_its_own_clients_along() {
    let backends = greeters::<3>();
    let policy = "loadBalancer: {consistentHash: {useSourceIp: true}}";
    let all = Service::at(&addresses(&backends), policy);
    let before: Vec<u16> = clients().map(|client| all.ask_from(client)).collect();
    let again: Vec<u16> = clients().map(|client| all.ask_from(client)).collect();
    assert_eq!(before, again);
    assert!(before.iter().collect::<BTreeSet<_>>().len() > 1, "{before:?}");
    // Another process, and the endpoints in another order.
    let gone = before[0];
    let rest: Vec<SocketAddr> =
        addresses(&backends).into_iter().rev().filter(|address| address.port() != gone).collect();
    let fewer = Service::at(&rest, policy);
    for (client, before) in clients().zip(before) {
        let now = fewer.ask_from(client);
        assert!(now == before || before == gone, "{client} moved from {before} to {now}");
    }
}

#[test]
fn r24_r25_a_new_plan_goes_on_with_what_the_old_one_knew() {
    let backends = greeters::<3>();
    let policy =
        "loadBalancer: {consistentHash: {useSourceIp: true}}, connectionPool: {tcp: {maxConnections: 2}}";
    let service = Service::at(&addresses(&backends), policy);
    let before: Vec<u16> = clients()
        .map(|client| {
            let port = service.ask_from(client);
            // Its place is free again.
            service.program.record();
            port
        })
        .collect();
    let mut held = [(); 2].map(|()| connect(service.program.address));
    for client in &mut held {
        greeted(client);
    }
    let gone = before[0];
    let rest: Vec<_> = addresses(&backends).into_iter().filter(|address| address.port() != gone).collect();
    service.follow(&rest, policy);
    assert_eq!(attempt(service.program.address, b""), Ending::Reset);
    assert_eq!(service.program.record()["outcome"], "upstream_overflow");
    for client in &mut held {
        echo(client, "still served");
    }
    drop(held);
    for _ in 0..2 {
        assert_eq!(service.program.record()["outcome"], "completed");
    }
    for (client, before) in clients().zip(before) {
        let now = service.ask_from(client);
        service.program.record();
        assert!(now == before || before == gone, "{client} moved from {before} to {now}");
    }
}

#[test]
fn r26_an_ejection_outlives_the_plan() {
    let ([good], refusing) = (greeters::<1>(), Refusing::start());
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}";
    let all = [good.address, refusing.address];
    let service = Service::at(&all, policy);
    assert_eq!([service.ask(), service.ask()], [good.address.port(); 2]);
    service.program.wait_for_stderr("endpoint ejected for 30s");
    service.follow(&all, &format!("{policy}, connectionPool: {{tcp: {{connectTimeout: 5s}}}}"));
    let back = refusing.accept();
    assert!((0..10).all(|_| service.ask() == good.address.port()));
    assert!(nobody_came(&back));
}

#[test]
fn round_robin_takes_one_endpoint_after_the_other() {
    let backends = greeters::<3>();
    let service = Service::at(&addresses(&backends), "loadBalancer: {simple: ROUND_ROBIN}");
    let order: Vec<u16> = (0..9).map(|_| service.ask()).collect();
    assert!(order.chunks(3).all(|round| round.iter().collect::<BTreeSet<_>>().len() == 3), "{order:?}");
    assert_eq!(order[..3], order[3..6]);
}

#[test]
fn by_default_the_endpoint_with_fewer_connections_is_taken() {
    let backends = greeters::<2>();
    let service = Service::at(&addresses(&backends), "");
    let mut held: Vec<_> = (0..10).map(|_| connect(service.program.address)).collect();
    let of: Vec<u16> = held.iter_mut().map(greeted).collect();
    let [one, other] = [backends[0].address.port(), backends[1].address.port()];
    assert_eq!(of.iter().filter(|port| **port == one).count(), 5, "{of:?}");
    // All that leave were at one of the two: the next ones go there.
    let mut at_other: Vec<_> = held.into_iter().zip(of).filter(|(_, port)| *port == other).collect();
    for _ in 0..5 {
        assert_eq!(service.program.record()["outcome"], "completed");
    }
    let refilled: Vec<u16> = (0..5)
        .map(|_| {
            let mut next = connect(service.program.address);
            let port = greeted(&mut next);
            at_other.push((next, port));
            port
        })
        .collect();
    assert_eq!(refilled, [one; 5]);
}

#[test]
fn explain_says_what_holds_for_the_connections() {
    let config = tempfile::tempdir().expect("a directory");
    let rule = "trafficPolicy: {outlierDetection: {maxEjectionPercent: 50}, proxyProtocol: {version: V2}, \
                connectionPool: {tcp: {maxConnections: 7, idleTimeout: 60s, maxConnectionDuration: 1h}}}";
    let endpoints = fixed(&[([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 1).into()]);
    std::fs::write(config.path().join("service.yaml"), resources(&endpoints, rule)).expect("written");
    let (code, out, err) =
        support::run(&["explain", "--role=sidecar", "--config", support::path(config.path())]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let expected = "chooses endpoints by the fewer connections of two, leaves an endpoint alone for 30s after 5 \
                    failures in a row, at most 7 connections, idle for 60s at most, open for 3600s at most, \
                    told who the client is by PROXY V2";
    assert!(out.contains(expected), "{out}");
}

#[test]
fn load_balancing_is_what_the_narrowest_level_says() {
    let at_level = |policy: &str, subset: &str| {
        let rule = format!("trafficPolicy: {{{policy}}}, subsets: [{{name: s{subset}}}]");
        let endpoints = fixed(&[([10, 0, 0, 1], 1).into()]);
        let text = resources(&endpoints, &rule);
        let route = if subset.is_empty() { String::new() } else { crate::routing::subset_route() };
        let (listeners, report) = compile(&[&text, &route], &workload(SIDECAR));
        assert_eq!(report.errors(), 0, "{report}");
        (upstream(at(&listeners, 3306)).balance, report)
    };
    let robin = "loadBalancer: {simple: ROUND_ROBIN}";
    let port = |policy: &str| format!(", portLevelSettings: [{{port: {{number: 3306}}, {policy}}}]");
    let connect = "connectionPool: {tcp: {connectTimeout: 1s}}";
    let source = "loadBalancer: {consistentHash: {useSourceIp: true}}";
    assert_eq!(at_level(connect, "").0, Balance::LeastRequest);
    assert_eq!(at_level(robin, "").0, Balance::RoundRobin);
    let (balance, report) = at_level(&format!("{robin}{}", port(connect)), "");
    assert_eq!(balance, Balance::LeastRequest);
    assert!(warned(&report, "loadBalancer: has no effect on this port"), "{:?}", report.warning_lines());
    let random = port("loadBalancer: {simple: RANDOM}");
    assert_eq!(at_level(&format!("{robin}{random}"), "").0, Balance::Random);
    let of_subset = |policy: &str| format!(", trafficPolicy: {{{policy}}}");
    assert_eq!(at_level(robin, &of_subset(connect)).0, Balance::RoundRobin);
    assert_eq!(at_level(robin, &of_subset(source)).0, Balance::SourceAddress);
    assert_eq!(at_level(source, "").0, Balance::SourceAddress);
    // The address counts at the top level or in a subset only.
    let (balance, report) = at_level(&format!("{connect}{}", port(source)), "");
    assert_eq!(balance, Balance::Random);
    assert!(warned(&report, "only by useSourceIp, at the top level"), "{:?}", report.warning_lines());
    assert_eq!(at_level(&format!("{source}{}", port(source)), "").0, Balance::SourceAddress);
}

#[test]
fn what_would_hold_for_a_hop_that_is_not_made_is_warned_of() {
    let more = "            outlierDetection: {maxEjectionPercent: 100}\n            connectionPool: {tcp: {maxConnections: 1}}\n";
    let tls = "            tls:\n              mode: ISTIO_MUTUAL";
    let texts: Vec<_> =
        manifests("article/client").iter().map(|text| text.replace(tls, &format!("{more}{tls}"))).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let (_, report) = compile(&texts, &workload(&[Role::Sidecar, Role::Egress]));
    assert_eq!(report.errors(), 0, "{report}");
    for field in ["outlierDetection", "connectionPool"] {
        let told = format!("{field}: has no effect on a hop that is taken inside this process");
        assert!(warned(&report, &told), "{:?}", report.warning_lines());
    }
}

/// Nobody came to a port.
fn nobody_came(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).expect("a mode");
    listener.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn r26_five_refused_connects_eject_an_endpoint_for_thirty_seconds_and_no_client_notices() {
    let ([good], refusing) = (greeters::<1>(), Refusing::start());
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {maxEjectionPercent: 100}";
    let service = Service::at(&[good.address, refusing.address], policy);
    let told = "endpoint ejected for 30s after 5 failures in a row, the last: cannot connect to";
    for _ in 0..5 {
        assert_eq!(service.program.said(told), 0);
        assert_eq!([service.ask(), service.ask()], [good.address.port(); 2]);
    }
    service.program.wait_for_stderr(told);
    assert_eq!(service.program.said("WARN"), 1, "{}", service.program.stderr());
    // It would accept now, and is left alone.
    let back = refusing.accept();
    assert!((0..20).all(|_| service.ask() == good.address.port()));
    assert!(nobody_came(&back));
}

#[test]
fn r26_an_endpoint_that_was_ejected_is_used_again_when_its_time_is_over() {
    let ([good], refusing) = (greeters::<1>(), Refusing::start());
    let policy = "outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 1s, maxEjectionPercent: 50}";
    let service = Service::at(&[good.address, refusing.address], policy);
    wait_until("an ejection", || {
        assert_eq!(service.ask(), good.address.port());
        service.program.said("endpoint ejected for 1s after 2 failures") == 1
    });
    let back = refusing.accept();
    back.set_nonblocking(true).expect("a mode");
    wait_until("a connection to the endpoint that is back", || {
        let held = connect(service.program.address);
        let came = back.accept().is_ok();
        drop(held);
        came
    });
}

#[test]
fn r26_with_every_endpoint_ejected_connections_are_closed_at_once_and_say_why() {
    let refusing = [Refusing::start(), Refusing::start()];
    let outliers = "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}";
    let all = [refusing[0].address, refusing[1].address];
    let service = Service::at(&all, outliers);
    let outcome = |service: &Service| {
        assert_eq!(attempt(service.program.address, b""), Ending::Reset);
        let record = service.program.record();
        (record["outcome"].clone(), record["flags"].clone())
    };
    assert_eq!(outcome(&service), ("unreachable".into(), "UF,URX".into()));
    assert_eq!(outcome(&service), ("no_healthy_upstream".into(), "UH".into()));
    // With too few left they are used all the same; and by default no more than a tenth is ejected, or one.
    let panicking = Service::at(&all, &outliers.replace("100}", "100, minHealthPercent: 50}"));
    let tenth = Service::at(&all, "outlierDetection: {consecutive5xxErrors: 1}");
    for service in [panicking, tenth] {
        for _ in 0..4 {
            assert_eq!(outcome(&service).0, "unreachable");
        }
    }
}

/// A service at these endpoints by mutual TLS, that ejects an endpoint after so many failures.
fn mutual(certs: &Certs, endpoints: &[SocketAddr], failures: u32, more: &[&str]) -> Service {
    let credentials = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(certs.egress(), credentials.path().join("c")).expect("linked");
    let rule = format!(
        "workloadSelector: {{matchLabels: {{app: a}}}}, trafficPolicy: {{tls: {{mode: MUTUAL, credentialName: c, sni: {HOST}}}, \
         loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {{consecutive5xxErrors: {failures}, maxEjectionPercent: 100}}}}"
    );
    Service::with(Some(credentials), &fixed(endpoints), &rule, &[&["--labels=app=a"], more].concat())
}

#[test]
fn an_endpoint_that_stalls_in_the_handshake_is_passed_over_after_the_handshake_deadline() {
    let (certs, stalled) = (Certs::mint(), Backend::start());
    let identity = Authority::of(&certs).issue(&Leaf::server(&[HOST]));
    let good = peer::Server::start(peer::server_config(&identity, None));
    let service = mutual(&certs, &[stalled.address, good.address], 1, &["--handshake-timeout", "1s"]);
    let clients = [(); 2].map(|()| connect(service.program.address));
    let servers = [(); 2].map(|()| good.accept());
    drop((clients, servers));
    service.program.wait_for_stderr("after 1 failures in a row, the last: handshake_timeout");
}

/// A port whose host answers nothing: the kernel drops who comes while as many wait as may.
fn black_hole() -> (TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
    let hole = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    hole.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    hole.listen(0).expect("it listens");
    let hole = TcpListener::from(hole);
    let address = hole.local_addr().expect("its address");
    let brief = std::time::Duration::from_millis(200);
    let waiting: Vec<_> =
        (0..8).map_while(|_| std::net::TcpStream::connect_timeout(&address, brief).ok()).collect();
    assert!(waiting.len() < 8, "the queue has an end");
    (hole, waiting, address)
}

#[test]
fn an_endpoint_that_answers_nothing_has_its_share_of_the_connect_deadline_and_no_more() {
    let ([good], (_hole, _waiting, nowhere)) = (greeters::<1>(), black_hole());
    let policy = |timeout: &str| {
        format!(
            "loadBalancer: {{simple: ROUND_ROBIN}}, connectionPool: {{tcp: {{connectTimeout: {timeout}}}}}, \
             outlierDetection: {{consecutive5xxErrors: 1, maxEjectionPercent: 100}}"
        )
    };
    let service = Service::at(&[nowhere, good.address], &policy("4s"));
    assert_eq!([service.ask(), service.ask()], [good.address.port(); 2]);
    service.program.wait_for_stderr("after 1 failures in a row, the last: no answer in time");
    let alone = Service::at(&[nowhere], &policy("1s"));
    assert_eq!(attempt(alone.program.address, b""), Ending::Reset);
    let record = alone.program.record();
    assert_eq!([&record["outcome"], &record["flags"]], ["connect_timeout", "UF,URX"], "{record}");
}

#[test]
fn r26_an_endpoint_that_does_not_shake_hands_is_passed_over_and_ejected_too() {
    let certs = Certs::mint();
    let identity = Authority::of(&certs).issue(&Leaf::server(&[HOST]));
    let good = peer::Server::start(peer::server_config(&identity, None));
    let stranger: Identity = Authority::new().issue(&Leaf::server(&[HOST]));
    let bad = peer::Server::start(peer::server_config(&stranger, None));
    let service = mutual(&certs, &[bad.address, good.address], 3, &[]);
    for _ in 0..6 {
        let mut client = connect(service.program.address);
        let mut server = good.accept();
        std::io::Write::write_all(&mut server, b"greeting").expect("written");
        std::io::Write::flush(&mut server).expect("flushed");
        support::socket::expect(&mut client, "greeting");
        drop((server, client));
        let record = service.program.record();
        assert_eq!(record["upstream"]["address"], good.address.to_string(), "{record}");
    }
    service
        .program
        .wait_for_stderr("endpoint ejected for 30s after 3 failures in a row, the last: unknown_ca");
    for _ in 0..3 {
        bad.failure();
    }
}
