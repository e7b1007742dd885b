//! The whole way from an unmodified client to a real MariaDB, by the resources as they are printed.

use std::net::SocketAddr;

use rustls::server::Acceptor;

use crate::mariadb::{self, Counts, MariaDb, Task, client, finish, sysbench};
use crate::mesh::{
    Article, Credentials, DATABASE_HOST, EGRESS_HOST, EGRESS_ID, INGRESS_ID, MYSQL_ID, SIDECAR_ID, anywhere,
    resolve, run,
};
use crate::support::authority::{Authority, Identity};
use crate::support::peer;
use crate::support::{self, HOST, Program};
use crate::wire::{Recorder, contains, first_record, is_tls};

const MARKER: &str = "a-marker-that-is-nowhere-else";

fn select(address: SocketAddr) -> String {
    finish(&mut client(address, &format!("SELECT '{MARKER}'"))).succeeded()
}

#[test]
fn the_articles_resources_as_printed_carry_sysbench_without_an_error() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let database = MariaDb::shared();
    let article = Article::to(database.address, &Credentials::new());
    database.sql("CREATE DATABASE IF NOT EXISTS article");
    let through = article.client.address;
    finish(&mut sysbench(through, "article", 1, &["prepare"])).succeeded();
    let output = finish(&mut sysbench(through, "article", 8, &["--time=5", "run"])).succeeded();
    let counts = Counts::parse(&output);
    assert!(counts.transactions > 0, "{output}");
    assert_eq!((counts.ignored_errors, counts.reconnects), (0, 0), "{output}");
    let record = article.client.record();
    assert_eq!((&record["outcome"], &record["role"]), (&"completed".into(), &"sidecar".into()), "{record}");
    assert_eq!(record["upstream"]["name"], "outbound|13306||mysql.fqdn.example");
    assert_eq!(
        (&record["sni"], &record["upstream"]["peer"]["identity"]),
        (&HOST.into(), &HOST.into()),
        "{record}"
    );
    let record = article.server.record();
    assert_eq!(
        (&record["role"], &record["downstream"]["peer"]["identity"]),
        (&"ingress".into(), &"egress.example".into()),
        "{record}"
    );
}

/// The tutorial's four proxies, with a recorder on each encrypted hop.
struct Tutorial {
    sidecar: Program,
    egress: Program,
    ingress: Program,
    mysql: Program,
    hops: [Recorder; 3],
}

impl Tutorial {
    fn to(database: SocketAddr, credentials: &Credentials) -> Self {
        let mysql = run(
            &["tutorial/server"],
            &["sidecar"],
            &credentials.folder("mysql"),
            &["--labels=app=mysql".into(), format!("--inbound=3306={database}"), anywhere(3306)],
        );
        let last = Recorder::to(mysql.address);
        let ingress = run(
            &["tutorial/server", "lab/server"],
            &["ingress"],
            &credentials.folder("ingress"),
            &[anywhere(13306), resolve(DATABASE_HOST, 3306, last.address)],
        );
        let middle = Recorder::to(ingress.address);
        let egress = run(
            &["tutorial/client"],
            &["egress"],
            &credentials.folder("egress"),
            &[anywhere(15443), resolve(HOST, 13306, middle.address)],
        );
        let first = Recorder::to(egress.address);
        let sidecar = run(
            &["tutorial/client"],
            &["sidecar"],
            &credentials.folder("sidecar"),
            &[anywhere(3306), resolve(EGRESS_HOST, 15443, first.address)],
        );
        Self { sidecar, egress, ingress, mysql, hops: [first, middle, last] }
    }
}

#[test]
fn the_tutorials_four_processes_make_three_encrypted_hops_under_three_roots() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let database = MariaDb::shared();
    let credentials = Credentials::new();
    let tutorial = Tutorial::to(database.address, &credentials);
    assert!(select(tutorial.sidecar.address).contains(MARKER));

    let mesh_sni = format!("outbound_.3306_._.{DATABASE_HOST}");
    for (hop, sni) in tutorial.hops.iter().zip([HOST, HOST, &mesh_sni]) {
        let (sent, received) = (hop.client_bytes(), hop.server_bytes());
        let hello = first_record(&sent).expect("a record");
        assert_eq!(asked_for(hello).as_deref(), Some(sni));
        assert!(is_tls(&sent) && is_tls(&received), "nothing but TLS on the hop for {sni}");
        for secret in [MARKER, "SELECT", mariadb::USER, mariadb::DATABASE] {
            assert!(
                !contains(&sent, secret) && !contains(&received, secret),
                "{secret} on the hop for {sni}"
            );
        }
    }
    let identities = |program: &Program| {
        let record = program.record();
        assert_eq!(record["outcome"], "completed", "{record}");
        ["downstream", "upstream"]
            .map(|side| record[side]["peer"]["identity"].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(identities(&tutorial.sidecar), ["-", EGRESS_ID]);
    assert_eq!(identities(&tutorial.egress), [SIDECAR_ID, HOST]);
    assert_eq!(identities(&tutorial.ingress), ["egress.example", MYSQL_ID]);
    assert_eq!(identities(&tutorial.mysql), [INGRESS_ID, "-"]);
    shows_the_issuer(&tutorial, &credentials);
}

/// The SNI of a ClientHello.
fn asked_for(mut hello: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    while !hello.is_empty() {
        acceptor.read_tls(&mut hello).expect("a ClientHello");
        if let Ok(Some(accepted)) = acceptor.accept() {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
    None
}

/// The certificate of each hop verifies under its own root, and under no other.
fn shows_the_issuer(tutorial: &Tutorial, credentials: &Credentials) {
    let roots = [&credentials.client_mesh, &credentials.private, &credentials.server_mesh];
    let listeners = [tutorial.egress.address, tutorial.ingress.address, tutorial.mysql.address];
    for (hop, address) in listeners.into_iter().enumerate() {
        for (index, root) in roots.iter().enumerate() {
            assert_eq!(issued_by(address, root), index == hop, "hop {hop} under root {index}");
        }
    }
}

/// Whether the server's chain ends in a root; its name is another matter, and comes after.
fn issued_by(address: SocketAddr, root: &Authority) -> bool {
    let stranger: Option<&Identity> = None;
    let mut config = peer::client_config(&root.certificate, stranger, rustls::ALL_VERSIONS);
    config.alpn_protocols = vec![b"istio".to_vec()];
    let mut stream = peer::connect(address, config);
    let error =
        std::io::Read::read(&mut stream, &mut [0; 1]).expect_err("a refusal, of one side or the other");
    // Roots of one name: which of them signed is told by the signature.
    !["UnknownIssuer", "BadSignature"].iter().any(|wrong| error.to_string().contains(wrong))
}

#[test]
fn rotating_one_root_touches_no_other_and_no_open_connection() {
    if !support::has(mariadb::NEEDED) {
        return;
    }
    let database = MariaDb::shared();
    let credentials = Credentials::new();
    let tutorial = Tutorial::to(database.address, &credentials);
    let programs = [&tutorial.sidecar, &tutorial.egress, &tutorial.ingress, &tutorial.mysql];
    let loaded = |program: &Program, credential: &str| {
        let stderr = program.stderr();
        let lines = stderr.lines().filter(|line| line.contains("credential loaded"));
        lines.filter(|line| line.contains(&format!("\"{credential}\""))).count()
    };
    let mut held = Task::start(&mut client(tutorial.sidecar.address, "DO SLEEP(600)"));
    // It is open once the last proxy has dialled the server, which its own list of sessions shows.
    support::wait_until("a session", || database.sql("SHOW PROCESSLIST").contains("SLEEP(600)"));

    credentials.renew_private();
    support::wait_until("the private credentials", || {
        loaded(&tutorial.egress, "client-credential") == 1
            && loaded(&tutorial.ingress, "mysql-credential") == 1
    });
    assert!(select(tutorial.sidecar.address).contains(MARKER));
    assert!(programs.iter().all(|program| loaded(program, "workload") == 0), "a mesh credential was touched");

    credentials.renew_meshes();
    support::wait_until("the mesh credentials", || {
        loaded(&tutorial.egress, "workload") == 1 && loaded(&tutorial.mysql, "workload") == 1
    });
    assert!(select(tutorial.sidecar.address).contains(MARKER));
    let private =
        || [loaded(&tutorial.egress, "client-credential"), loaded(&tutorial.ingress, "mysql-credential")];
    assert_eq!(private(), [1, 1]);

    // Not the certificates alone: the root itself is another.
    let meshes = programs.map(|program| loaded(program, "workload"));
    credentials.replace_private_root(|| support::wait_until("both roots", || private() == [2, 2]));
    support::wait_until("the certificates of the new root", || private() == [3, 3]);
    assert!(select(tutorial.sidecar.address).contains(MARKER));
    let issued = |program: &Program, root: &Authority| issued_by(program.address, root);
    assert!(!issued(&tutorial.ingress, &credentials.private), "it still shows what the old root issued");
    assert!(
        issued(&tutorial.egress, &credentials.client_mesh)
            && issued(&tutorial.mysql, &credentials.server_mesh)
    );
    assert_eq!(programs.map(|program| loaded(program, "workload")), meshes, "a mesh credential was touched");

    assert!(held.is_running(), "the open connection was cut");
    held.kill();
}
