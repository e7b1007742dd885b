//! Counts and times that a gateway keeps to.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::peer;
use crate::support::socket::{Backend, Ending, attempt, connect, echo, ending, expect};
use crate::support::{self, Certs, HOST, Program, Reader, path, wait_until};

/// Longer than bytes take to go there and back on a busy machine.
const IDLE_TIMEOUT: [&str; 2] = ["--idle-timeout", "2s"];

#[test]
fn a_connection_over_the_limit_is_reset_and_a_place_that_is_given_back_is_used_again() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &["--max-connections", "2"]);
    let client = || {
        let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
        echo(&mut client, "let in");
        client
    };
    let mut open = [client(), client()];
    let mut third = peer::connect(ingress.address, peer::good_client_config(&certs));
    assert_eq!(ending(&mut third), Ending::Reset);
    let record = ingress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["connection_limit", "gateway"], "{record}");
    assert_eq!(record["id"], 3, "{record}");
    peer::half_close(&mut open[0]);
    assert_eq!(ending(&mut open[0]), Ending::Clean);
    assert_eq!(ingress.record()["outcome"], "completed");
    let mut next = client();
    echo(&mut open[1], "still served");
    echo(&mut next, "served too");
}

#[test]
fn clients_that_never_finish_their_handshake_use_up_nothing_of_those_who_do() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let limits = ["--workers", "1", "--max-connections", "2", "--max-handshakes", "3"];
    let ingress = Program::ingress(&certs, backend.address, &limits);
    let client = || peer::connect(ingress.address, peer::good_client_config(&certs));
    let mut known = client();
    echo(&mut known, "let in");
    // One slot is left for those who mean it.
    let silent = [(); 2].map(|()| connect(ingress.address));
    let mut second = client();
    echo(&mut second, "let in beside the silent");
    let third_silent = connect(ingress.address);
    assert_eq!(attempt(ingress.address, b""), Ending::Reset);
    let record = ingress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["handshake_limit", "gateway"], "{record}");
    for mut client in [known, second] {
        echo(&mut client, "still served");
    }
    drop((silent, third_silent));
}

#[test]
fn a_silent_connection_is_reset_after_the_idle_timeout_and_one_that_moves_bytes_is_not() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &IDLE_TIMEOUT);
    let config = peer::good_client_config(&certs);
    let [mut silent, mut busy] = [(); 2].map(|()| peer::connect(ingress.address, config.clone()));
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let moving = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            echo(&mut busy, "moving");
        }
        busy
    });
    echo(&mut silent, "once");
    assert_eq!(ending(&mut silent), Ending::Reset);
    let record = ingress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["idle_timeout", "gateway"], "{record}");
    assert!(record["duration_ms"].as_u64().is_some_and(|millis| millis >= 2000), "{record}");
    over.store(true, Ordering::Relaxed);
    echo(&mut moving.join().expect("it moved all the time"), "still served");
}

#[test]
fn one_direction_that_moves_keeps_a_connection_from_being_idle() {
    let (certs, backend) = (Certs::mint(), Backend::start());
    let ingress = Program::ingress(&certs, backend.address, &IDLE_TIMEOUT);
    let egress = Program::egress(&certs, ingress.address, &IDLE_TIMEOUT);
    let mut silent = connect(egress.address);
    let _silent_server = backend.accept();
    let mut client = connect(egress.address);
    let mut server = backend.accept();
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let moving = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            // Only ever from the server to the client.
            std::io::Write::write_all(&mut server, b"row").expect("written");
            expect(&mut client, "row");
        }
    });
    assert_eq!(ending(&mut silent), Ending::Reset);
    over.store(true, Ordering::Relaxed);
    moving.join().expect("it moved all the time");
}

/// The names of the threads of a process that are workers.
fn names_of_workers(program: &Program) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid())).expect("its threads");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.expect("a thread").path().join("comm")).unwrap_or_default()
    };
    tasks.map(name).filter(|name| name.starts_with("worker-")).collect()
}

#[test]
fn as_many_workers_run_as_were_asked_for_and_all_of_them_serve() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    for workers in [1, 4] {
        let ingress = Program::ingress(&certs, backend.address, &["--workers", &workers.to_string()]);
        // A thread takes its name when it first runs.
        wait_until("the workers", || names_of_workers(&ingress).len() >= workers);
        assert_eq!(names_of_workers(&ingress).len(), workers);
        let config = peer::good_client_config(&certs);
        let mut clients: Vec<_> = (0..8).map(|_| peer::connect(ingress.address, config.clone())).collect();
        for client in &mut clients {
            echo(client, "served");
        }
    }
}

#[test]
fn a_gateway_out_of_descriptors_neither_ends_nor_spins_and_serves_again() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let mut ingress = with_descriptors("ulimit -n 40", &certs, &backend);
    ingress.wait_for_stderr("found a limit of 40");
    let strangers: Vec<_> = (0..60).map(|_| connect(ingress.address)).collect();
    let tried = || ingress.said("cannot accept");
    wait_until("several attempts to accept", || tried() >= 6);
    drop(strangers);
    // A place is free again with the first that is gone.
    let mut client = peer::connect(ingress.address, peer::good_client_config(&certs));
    echo(&mut client, "served again");
    assert!(tried() < 40, "{} attempts: it spins", tried());
    drop(client);
    let records = ingress.stop_and_take_records();
    let strangers = records.iter().filter(|record| record["outcome"] == "no_hello").count();
    assert_eq!(strangers, 60, "each is recorded once it could be accepted");
}

/// Leaves a process one file descriptor, which is then the lowest that is free.
fn leave_one_descriptor(program: &Program) {
    let number = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let taken = || -> BTreeSet<u64> {
        let taken = std::fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("its descriptors");
        taken.filter_map(number).collect()
    };
    // What is open for a moment only, because a directory is being read, will be free.
    let (mut held, mut looks) = (taken(), 0);
    wait_until("twenty looks", || {
        held = &held & &taken();
        looks += 1;
        looks == 20
    });
    let free = (0..).filter(|number| !held.contains(number)).nth(1);
    let limit = Rlimit { current: free, maximum: getrlimit(Resource::Nofile).maximum };
    let pid = i32::try_from(program.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, limit).expect("limited");
}

#[test]
fn a_gateway_without_a_descriptor_to_dial_with_does_not_blame_the_upstream() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let egress = Program::egress(&certs, backend.address, &["--workers", "1"]);
    leave_one_descriptor(&egress);
    // Already the connect may hear of the end.
    let client = TcpStream::connect(egress.address);
    let mut end = client.as_ref().err().map(std::io::Error::kind);
    if let Ok(mut client) = client {
        client.set_nonblocking(true).expect("nonblocking");
        let mut unaccepted = 0;
        wait_until("the end of the connection", || {
            // Where the process has opened something since, there was none left to accept with.
            if egress.said("cannot accept") > unaccepted {
                unaccepted = egress.said("cannot accept");
                leave_one_descriptor(&egress);
            }
            end = client.read(&mut [0]).err().map(|error| error.kind());
            end != Some(ErrorKind::WouldBlock)
        });
    }
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    let record = egress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["internal", "gateway"], "{record}");
    assert!(
        record["detail"].as_str().is_some_and(|text| text.contains("no file descriptor left")),
        "{record}"
    );
    assert_eq!(backend.dialled(), 0);
}

#[test]
fn a_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = with_descriptors("ulimit -S -n 40", &certs, &backend);
    let config = peer::good_client_config(&certs);
    let mut clients: Vec<_> = (0..60).map(|_| peer::connect(ingress.address, config.clone())).collect();
    for client in &mut clients {
        echo(client, "served");
    }
    assert_eq!(ingress.said("cannot accept"), 0, "{}", ingress.stderr());
}

/// An ingress that a shell has started with another limit of descriptors.
fn with_descriptors(limit: &str, certs: &Certs, backend: &Backend) -> Program {
    let (server, credentials) = (backend.address.to_string(), certs.ingress());
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("{limit}; exec \"$0\" \"$@\""), support::BINARY, "ingress"]);
    limited.args(["--listen", "127.0.0.1:0", "--backend", &server, "--host", HOST]);
    limited.args(["--credentials", path(&credentials), "--workers", "1", "--log-format", "json"]);
    Program::launch(limited, Reader::Reads, Reader::Reads)
}
