//! The application of the pair: a real MariaDB server, and unmodified clients that know nothing of TLS.

mod support;

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/wire.rs"]
mod wire;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Row, Value as Cell};
use serde_json::Value;
use twinlock::clock;
use twinlock::dev_certs::{self, KeyKind, Request};

use mariadb::{Counts, Finished, MariaDb, Task, client, connect, finish, sysbench};
use support::socket::noise;
use support::{CLIENT, Certs, HOST, Program};
use wire::{Recorder, contains, first_record, is_tls};

/// The two gateways in front of a server.
struct Pair {
    egress: Program,
    ingress: Program,
    certs: Certs,
}

impl Pair {
    fn to(backend: SocketAddr) -> Self {
        let certs = Certs::mint();
        let ingress = Program::ingress(&certs, backend, &[]);
        let egress = Program::egress(&certs, ingress.address, &[]);
        Self { egress, ingress, certs }
    }

    /// Where the application connects to.
    fn address(&self) -> SocketAddr {
        self.egress.address
    }

    /// The next record of each side, which agree that the connection ended well and on what was carried.
    fn completed(&self) -> (Value, Value) {
        let (egress, ingress) = (self.egress.record(), self.ingress.record());
        for record in [&egress, &ingress] {
            assert_eq!(record["outcome"], "completed", "{record}");
        }
        (egress, ingress)
    }
}

const QUERIES: &[&str] = &[
    "SELECT 1",
    "SELECT NULL, -1, 1.50, 'Grüße, 世界 🔐', x'00ff7f', DATE '2024-02-29', TIME '-838:59:59', ''",
    "SELECT @@version, @@hostname, @@port, DATABASE(), USER(), CURRENT_USER(), @@character_set_client",
    "SELECT seq, MD5(seq), IF(seq % 7, seq, NULL) FROM seq_1_to_20000",
    "SELECT REPEAT('x', 5000000)",
    "SELECT 1; SELECT 'two', 2; DO 0; SELECT 3",
    "CREATE TEMPORARY TABLE t (id INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, NULL); \
     START TRANSACTION; UPDATE t SET v = 'b'; ROLLBACK; SELECT * FROM t; SELECT ROW_COUNT()",
    "SELECT 1 / 0; SELECT CAST('12x' AS INT)",
    "SET @x = 41; PREPARE statement FROM 'SELECT ? + 1'; EXECUTE statement USING @x",
    "EXPLAIN SELECT * FROM seq_1_to_10 WHERE seq = 3",
    "SELEC 1",
    "SELECT * FROM absent",
    "SELECT 1; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'on purpose'; SELECT 2",
];

#[test]
fn queries_have_the_same_results_direct_and_through_the_pair() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    let pair = Pair::to(server.address);
    let mut failed = 0;
    for query in QUERIES {
        let direct = finish(&mut client(server.address, query));
        let through = finish(&mut client(pair.address(), query));
        assert!(!direct.output.is_empty() || !direct.errors.is_empty(), "{query} says nothing");
        failed += usize::from(direct.code != Some(0));
        assert_eq!(through, direct, "{query}");
        let (egress, ingress) = pair.completed();
        for count in ["bytes_received", "bytes_sent"] {
            assert!(egress[count].as_u64() > Some(0), "{egress}");
            assert_eq!(egress[count], ingress[count], "{query}");
        }
    }
    assert_eq!(failed, 3, "the queries that the server refuses");
}

#[test]
fn the_middle_hop_is_tls_and_carries_no_plaintext() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    let marker = "a-marker-that-is-nowhere-else";
    let query = format!("SELECT '{marker}'");
    let secrets = [marker, "SELECT", mariadb::USER, mariadb::DATABASE];

    // What the hop would carry without the gateways: the secrets, so that their absence means something.
    let open = Recorder::to(server.address);
    assert!(finish(&mut client(open.address, &query)).succeeded().contains(marker));
    for secret in secrets {
        assert!(contains(&open.client_bytes(), secret), "{secret} is in what a client sends");
    }
    assert!(contains(&open.server_bytes(), marker));
    assert!(!is_tls(&open.client_bytes()));

    let certs = Certs::mint();
    let ingress = Program::ingress(&certs, server.address, &[]);
    let middle = Recorder::to(ingress.address);
    let egress = Program::egress(&certs, middle.address, &[]);
    assert!(finish(&mut client(egress.address, &query)).succeeded().contains(marker));
    for record in [egress.record(), ingress.record()] {
        assert_eq!(record["outcome"], "completed", "{record}");
        assert_eq!(record["sni"], HOST, "{record}");
    }
    let (from_client, from_server) = (middle.client_bytes(), middle.server_bytes());
    for secret in secrets {
        assert!(
            !contains(&from_client, secret) && !contains(&from_server, secret),
            "{secret} is on the wire"
        );
    }
    assert!(is_tls(&from_client), "not TLS: {:?}", from_client.get(..64));
    assert!(is_tls(&from_server), "not TLS: {:?}", from_server.get(..64));
    let hello = first_record(&from_client).expect("a ClientHello");
    assert!(contains(hello, HOST), "the SNI is in the ClientHello");
    // TLS 1.3 encrypts the certificates: who they are is not on the wire either.
    assert!(!contains(&from_client[hello.len()..], HOST) && !contains(&from_server, HOST));
    assert!(!contains(&from_client, CLIENT));
}

#[test]
fn sysbench_runs_through_the_pair_without_an_error() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    server.sql("CREATE DATABASE sysbench");
    let pair = Pair::to(server.address);
    finish(sysbench(pair.address(), "sysbench", 2, &[]).arg("prepare")).succeeded();
    let threads = 16;
    let run = finish(sysbench(pair.address(), "sysbench", threads, &["--time=10"]).arg("run")).succeeded();
    let counts = Counts::parse(&run);
    assert_eq!((counts.ignored_errors, counts.reconnects), (0, 0), "{run}");
    assert!(counts.transactions > u64::from(threads), "{run}");
    (0..threads).for_each(|_| drop(pair.completed()));
}

#[test]
fn prepared_statements_work_through_the_pair() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    let pair = Pair::to(server.address);
    block_on(async {
        let mut conn = connect(pair.address()).await;
        conn.query_drop(
            "CREATE TEMPORARY TABLE prepared \
             (id BIGINT PRIMARY KEY, n INT, f DOUBLE, s TEXT, b BLOB, at DATETIME(6))",
        )
        .await
        .expect("a table");
        let insert = conn.prep("INSERT INTO prepared VALUES (?, ?, ?, ?, ?, ?)").await.expect("prepared");
        let rows: Vec<Vec<Cell>> = (0..200).map(cells).collect();
        conn.exec_batch(&insert, &rows).await.expect("inserted");
        let select = conn.prep("SELECT * FROM prepared WHERE id >= ? ORDER BY id").await.expect("prepared");
        for from in [0, 199, 200] {
            let found: Vec<Row> = conn.exec(&select, (from,)).await.expect("selected");
            let found: Vec<_> = found.into_iter().map(Row::unwrap).collect();
            assert!(found == rows[from..], "{} rows from {from}", found.len());
        }
        conn.close(insert).await.expect("closed");
        let refused = conn.exec_drop("INSERT INTO prepared (id) VALUES (?)", (7,)).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("Duplicate entry")));
        conn.disconnect().await.expect("a clean end");
    });
    pair.completed();
}

/// A row with every kind of value.
fn cells(id: u8) -> Vec<Cell> {
    let text = if id.is_multiple_of(3) { Cell::NULL } else { Cell::from(format!("Zeile {id} 🔐")) };
    vec![
        Cell::Int(id.into()),
        Cell::Int(-i64::from(id)),
        Cell::Double(1.0 / f64::from(u32::from(id) + 1)),
        text,
        Cell::Bytes((0..id).collect()),
        Cell::Date(2024, 2, id % 28 + 1, 23, 59, 59, 999_999),
    ]
}

#[test]
fn a_blob_of_64_mib_is_the_same_on_both_sides() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    let pair = Pair::to(server.address);
    let blob = noise(1, 64 << 20);
    let sum = digest(&SHA256, &blob);
    block_on(async {
        let mut conn = connect(pair.address()).await;
        conn.query_drop("CREATE TEMPORARY TABLE blobs (data LONGBLOB) ENGINE=MyISAM").await.expect("a table");
        conn.exec_drop("INSERT INTO blobs VALUES (?)", (&blob,)).await.expect("up");
        let there = conn.query_first("SELECT UNHEX(SHA2(data, 256)) FROM blobs").await;
        let there: Option<Vec<u8>> = there.expect("a sum");
        assert_eq!(there.as_deref(), Some(sum.as_ref()));
        let back: Option<Vec<u8>> = conn.query_first("SELECT data FROM blobs").await.expect("down");
        let back = back.expect("a row");
        assert_eq!((back.len(), digest(&SHA256, &back).as_ref()), (blob.len(), sum.as_ref()));
        conn.disconnect().await.expect("a clean end");
    });
    let (egress, _) = pair.completed();
    for count in ["bytes_received", "bytes_sent"] {
        assert!(egress[count].as_u64() > Some(64 << 20), "{egress}");
    }
}

#[test]
fn load_data_local_works_through_the_pair() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    server.sql("CREATE DATABASE loading");
    let pair = Pair::to(server.address);
    let mut lines = String::new();
    for id in 0..50_000 {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{id}\tZeile {id}\t{}", if id % 5 == 0 { "\\N" } else { "x" });
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(lines.as_bytes()).expect("written");
    let load = |address, table: &str| {
        let statements = format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, name TEXT, flag CHAR(1)); \
             LOAD DATA LOCAL INFILE '{}' INTO TABLE {table}; \
             SELECT COUNT(*), SUM(id), SUM(flag IS NULL) FROM {table}",
            support::path(file.path())
        );
        finish(&mut client(address, &statements)).succeeded();
        finish(&mut client(address, &format!("CHECKSUM TABLE {table}"))).succeeded()
    };
    load(server.address, "loading.direct");
    load(pair.address(), "loading.through");
    let sums = server.sql("CHECKSUM TABLE loading.direct, loading.through");
    let sums: Vec<_> = sums.split_whitespace().skip(1).step_by(2).collect();
    assert!(sums.len() == 2 && sums[0] == sums[1] && sums[0] != "0", "{sums:?}");
    assert_eq!(server.sql("SELECT COUNT(*), SUM(flag IS NULL) FROM loading.through"), "50000\t10000\n");
    let (egress, _) = pair.completed();
    assert!(egress["bytes_received"].as_u64() > Some(lines.len() as u64), "{egress}");
}

#[test]
fn a_client_killed_in_mid_query_ends_in_a_record() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    let pair = Pair::to(server.address);
    let task = Task::start(&mut client(pair.address(), "SELECT SLEEP(1000), 'killed in mid-query'"));
    let running = || {
        let count = "SELECT COUNT(*) FROM information_schema.processlist \
                     WHERE info LIKE 'SELECT SLEEP%' AND id <> CONNECTION_ID()";
        server.sql(count).trim() == "1"
    };
    support::wait_until("the query to run", running);
    task.kill();
    for record in [pair.egress.record(), pair.ingress.record()] {
        assert_eq!(record["closed_by"], "downstream", "{record}");
    }
    support::wait_until("the server to give the query up", || !running());
}

#[test]
fn a_server_that_is_gone_is_an_error_at_once_and_a_record_says_unreachable() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let mut server = MariaDb::start();
    let pair = Pair::to(server.address);
    block_on(async {
        let mut conn = connect(pair.address()).await;
        let one: Option<u8> = conn.query_first("SELECT 1").await.expect("an answer");
        assert_eq!(one, Some(1));
        server.kill();
        // An error for the connection that was open ...
        let lost = tokio::time::timeout(support::PATIENCE, conn.query_drop("SELECT 2")).await;
        assert!(lost.expect("at once").is_err());
    });
    pair.egress.record();
    pair.ingress.record();
    // ... and for the next one.
    let Finished { code, output, errors } = finish(&mut client(pair.address(), "SELECT 3"));
    assert_eq!((code, output.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("ERROR 2013"), "{errors}");
    let (egress, ingress) = (pair.egress.record(), pair.ingress.record());
    assert_eq!(ingress["outcome"], "unreachable", "{ingress}");
    assert_eq!(ingress["closed_by"], "upstream", "{ingress}");
    assert_eq!(egress["closed_by"], "upstream", "{egress}");
    assert_ne!(egress["outcome"], "completed", "{egress}");
    for record in [&egress, &ingress] {
        assert!(record["duration_ms"].as_u64() < Some(5000), "{record}");
    }
}

#[test]
fn certificates_are_rotated_under_sysbench_without_an_error() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let server = MariaDb::shared();
    server.sql("CREATE DATABASE rotation");
    finish(sysbench(server.address, "rotation", 2, &[]).arg("prepare")).succeeded();
    let pair = Pair::to(server.address);
    let threads = 4;
    let mut load = Task::start(sysbench(pair.address(), "rotation", threads, &["--time=8"]).arg("run"));
    support::wait_until("the load", || {
        let open = server.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'rotation'");
        open.trim() == threads.to_string()
    });
    let mut expiries = Vec::new();
    for generation in 2..=5 {
        rotate(&pair.certs, 10 * generation);
        for side in [&pair.egress, &pair.ingress] {
            side.wait_for_stderr(&format!("\"generation\":{generation}"));
        }
        assert!(finish(&mut client(pair.address(), "SELECT 1")).succeeded().contains('1'));
        let (egress, ingress) = pair.completed();
        expiries.push(egress["upstream"]["peer"]["not_after"].clone());
        expiries.push(ingress["downstream"]["peer"]["not_after"].clone());
    }
    assert!(load.is_running(), "the load outlives the rotations");
    let run = load.finish().succeeded();
    let counts = Counts::parse(&run);
    assert_eq!((counts.ignored_errors, counts.reconnects), (0, 0), "{run}");
    assert!(counts.transactions > u64::from(threads), "{run}");
    expiries.dedup();
    assert_eq!(expiries.len(), 4, "each new connection saw the certificates of its time: {expiries:?}");
    for _ in 0..threads {
        let (egress, _) = pair.completed();
        let expiry = &egress["upstream"]["peer"]["not_after"];
        assert!(!expiries.contains(expiry), "an open connection keeps what it began with: {egress}");
    }
}

/// New leaves under the same root, told apart by how long they are valid.
fn rotate(certs: &Certs, days: u32) {
    let request = Request {
        out: certs.dir.path().to_owned(),
        hosts: vec![HOST.into()],
        clients: vec![CLIENT.into()],
        key: KeyKind::EcdsaP256,
        days,
    };
    dev_certs::mint(&request, clock::wall()).expect("certificates");
}

fn block_on(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(50), scenario).await.expect("the scenario ends in time");
    });
}
