//! What the pieces of a connection cost, each by itself: TLS records, a handshake, a route, an identity, a
//! record of the log.
//!
//! ```text
//! cargo bench --bench micro
//! ```
#![allow(missing_docs, reason = "criterion's macros make functions without")]

mod link;
mod resumption;

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use twinlock::clock;
use twinlock::plan::authorize::Marks;
use twinlock::plan::outcome::{Outcome, Side};
use twinlock::plan::{Entrance, Role};
use twinlock::telemetry::entry::{Entry, Hop, HopTls, Peer};
use twinlock::tls::plaintext::Plaintext;
use twinlock::tls::presented;
use twinlock::tls::session::sealed_len_max;

use link::Link;

/// Plaintext of a record, in bytes: a query, a row, a segment, a full record, what the relay reads at once.
const SIZES: [usize; 5] = [128, 512, 4 * 1024, 16 * 1024, 128 * 1024];
const CIPHERS: [&str; 2] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"];

fn seal(criterion: &mut Criterion) {
    for cipher in CIPHERS {
        let link = Link::new(&["--cipher", cipher], 1);
        let mut group = criterion.benchmark_group(format!("seal {cipher}"));
        for size in SIZES {
            let (mut client, _) = link.shake_hands();
            let (plain, mut out) = (vec![7; size], vec![0; sealed_len_max(size)]);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| client.session.seal(black_box(&plain), &mut [], &mut out).expect("sealed"));
            });
        }
    }
}

/// Only the opening is timed: a record opens once, so each is sealed just before.
fn open(criterion: &mut Criterion) {
    for cipher in CIPHERS {
        let link = Link::new(&["--cipher", cipher], 1);
        let mut group = criterion.benchmark_group(format!("open {cipher}"));
        for size in SIZES {
            let (mut client, mut server) = link.shake_hands();
            let (plain, mut records) = (vec![7; size], vec![0; sealed_len_max(size)]);
            let (mut opened, mut outgoing) = (Plaintext::with_room(size + 1), Vec::new());
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        let sealed = client.session.seal(&plain, &mut [], &mut records).expect("sealed");
                        opened.clear();
                        let start = clock::now();
                        let fed = server.session.feed(&mut records[..sealed], &mut opened, &mut outgoing);
                        spent += start.elapsed();
                        assert_eq!((fed, opened.as_slice().len()), (Ok(sealed), size));
                    }
                    spent
                });
            });
        }
    }
}

/// Both sides over loopback on one thread, every check included.
fn handshake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake, both sides");
    for kx in ["classical", "prefer-pq"] {
        let link = Link::new(&["--kx", kx], 1);
        group.bench_function(kx, |bencher| bencher.iter(|| link.shake_hands()));
    }
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route by SNI");
    for hosts in [1, 1000] {
        let link = Link::new(&[], hosts);
        let Entrance::Tls(table) = &link.ingress.plan.listeners[0].entrance else { panic!("an ingress") };
        let name = link::host(hosts - 1);
        group.bench_function(format!("one of {hosts}"), |bencher| {
            bencher.iter(|| table.find(black_box(Some(name.as_str())), || None).expect("a route"));
        });
        group.bench_function(format!("none of {hosts}"), |bencher| {
            bencher.iter(|| table.find(black_box(Some("somebody.else.example")), || None).is_none());
        });
    }
}

fn identity(criterion: &mut Criterion) {
    let link = Link::new(&[], 1);
    let certificate =
        CertificateDer::from_pem_file(link.certs.path().join("egress/tls.crt")).expect("a leaf");
    criterion.bench_function("identity of a certificate", |bencher| {
        bencher.iter(|| presented::read(black_box(&certificate)).expect("an identity"));
    });
}

fn access_log(criterion: &mut Criterion) {
    let hop = |identity: &str| Hop {
        name: Some("127.0.0.1:3306".into()),
        address: Some(([127, 0, 0, 1], 3306).into()),
        tls: Some(HopTls {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            group: "X25519MLKEM768",
            session: Some("00112233445566778899aabbccddeeff".into()),
        }),
        peer: Some(Peer {
            identity: identity.into(),
            subject: "CN=egress.example".into(),
            issuer: "CN=twinlock development root".into(),
            serial: "609B52851358F4C4E709318948BA30B2608A9980".into(),
            sha256: "be3e174112bb979a25825b133cc6cb8dd86b7284af7a943f168f05d310885848".into(),
            not_after: "2026-12-21T23:36:11.000Z".into(),
        }),
    };
    let entry = Entry {
        id: 1,
        plan: 1,
        role: Role::Ingress,
        start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_303_000_123),
        duration: Duration::from_millis(285),
        bytes_received: 123_456,
        bytes_sent: 7_890,
        sni: Some("mysql.fqdn.example".into()),
        downstream: hop("egress.example"),
        upstream: Hop { tls: None, peer: None, ..hop("") },
        marks: Marks::default(),
        outcome: Outcome::Completed { first: Side::Downstream },
    };
    let mut group = criterion.benchmark_group("record of a connection");
    group.bench_function("text", |bencher| bencher.iter(|| black_box(&entry).text()));
    group.bench_function("json", |bencher| bencher.iter(|| black_box(&entry).json()));
}

criterion_group!(benches, seal, open, handshake, resumption::resumption, route, identity, access_log);
criterion_main!(benches);
