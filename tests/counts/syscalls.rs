//! System calls of the real program for a request and for a mebibyte, counted by strace.
//!
//! The same work is done in two sizes; the difference is what it costs, whatever start and end cost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::support::socket::{Backend, connect};
use crate::support::{Certs, HOST, Program, Reader, command, has, path, wait_until};

const MIB: usize = 1 << 20;

/// Each way: a wait, a read, a write. The rest is for clocks that tick.
const CALLS_OF_REQUEST_MAX: f64 = 6.2;
/// A read and a write of 256 KiB each, four times, and a wait; twice that where a busy machine has less to read.
const CALLS_OF_MEBIBYTE_MAX: f64 = 20.0;

/// How often each system call was made.
type Counts = BTreeMap<String, usize>;

/// Which of the two gateways is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Egress,
    Ingress,
}

/// System calls that this work needs, by name.
fn calls(watched: Watched, work: impl FnOnce(TcpStream, TcpStream)) -> Counts {
    let (certs, backend) = (Certs::mint(), Backend::start());
    // Not where the program would notice that it changes.
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("calls");
    let start = |watch: bool, arguments: &[&str]| {
        let program = command(arguments);
        let mut command = if watch { traced(&program, &log) } else { program };
        command.args(["--log-format", "json"]);
        Program::launch(command, Reader::Reads, Reader::Reads)
    };
    let (server, credentials) = (backend.address.to_string(), certs.ingress());
    let ingress = ["ingress", "--listen", "127.0.0.1:0", "--host", HOST, "--backend", &server];
    let mut ingress = start(
        watched == Watched::Ingress,
        &[&ingress[..], &["--workers", "1", "--credentials", path(&credentials)]].concat(),
    );
    let (upstream, credentials) = (ingress.address.to_string(), certs.egress());
    let egress = ["egress", "--listen", "127.0.0.1:0", "--sni", HOST, "--upstream", &upstream];
    let mut egress = start(
        watched == Watched::Egress,
        &[&egress[..], &["--workers", "1", "--credentials", path(&credentials)]].concat(),
    );
    let watched_pid = if watched == Watched::Egress { egress.pid() } else { ingress.pid() };
    let client = connect(egress.address);
    work(client, backend.accept());
    for program in [&mut egress, &mut ingress] {
        program.record();
        program.stop();
    }
    read(&log, watched_pid)
}

/// A flag of a write that says that more follows at once.
const MORE: &str = "MSG_MORE";

/// The program under strace, which is its grandchild: the process that is started is the program itself.
fn traced(program: &Command, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-q", "-e", "signal=none", "-o"]).arg(log).arg("--");
    strace.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// What strace has written, once the program has ended in it too.
fn read(log: &Path, pid: u32) -> Counts {
    // The number is padded to five columns.
    let ended = |line: &str| {
        line.split_once(' ')
            .is_some_and(|(of, event)| of.parse() == Ok(pid) && event.trim_start().starts_with("+++ exited"))
    };
    let mut text = String::new();
    wait_until("the end of the trace", || {
        text = std::fs::read_to_string(log).expect("a trace");
        text.lines().rev().take(8).any(ended)
    });
    let mut counts = Counts::new();
    for line in text.lines() {
        let call = line.split_once(' ').map_or("", |(_pid, call)| call.trim_start());
        let name = call.split('(').next().unwrap_or_default();
        // Not the second half of a call that another thread's came in between, nor an exit.
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        if call.contains(MORE) {
            *counts.entry(MORE.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// System calls for a unit of work: all of them, and by name.
struct Each {
    all: f64,
    names: Vec<(String, f64)>,
}

/// What the larger of two amounts of work takes more than the smaller, for each unit of the difference.
fn each(watched: Watched, amounts: [usize; 2], work: fn(TcpStream, TcpStream, usize)) -> Each {
    let [few, many] = amounts.map(|amount| calls(watched, |client, server| work(client, server, amount)));
    let number = |count: usize| f64::from(u32::try_from(count).expect("a small number"));
    let units = number(amounts[1] - amounts[0]);
    let names: BTreeSet<_> = many.keys().chain(few.keys()).cloned().collect();
    let more = |name: String| {
        let count = |counts: &Counts| number(counts.get(&name).copied().unwrap_or_default());
        let each = (count(&many) - count(&few)) / units;
        (name, each)
    };
    let names: Vec<_> = names.into_iter().map(more).collect();
    Each { all: names.iter().map(|(_, each)| each).sum(), names }
}

/// There are at most so many, and the reads and writes of that work are among them.
fn check(watched: Watched, each: &Each, what: &str, least: f64, most: f64) {
    let told: Vec<_> = each.names.iter().filter(|(_, each)| each.abs() > 0.05).collect();
    let found = format!("{watched:?}: {:.2} system calls a {what}: {told:.2?}", each.all);
    assert!((least..=most).contains(&each.all), "{found}");
}

/// Requests of 128 bytes, each answered with 512.
fn requests(mut client: TcpStream, mut server: TcpStream, count: usize) {
    let serving = std::thread::spawn(move || {
        let mut request = [0; 128];
        while server.read_exact(&mut request).is_ok() {
            server.write_all(&[2; 512]).expect("written");
        }
    });
    for _ in 0..count {
        client.write_all(&[1; 128]).expect("written");
        client.read_exact(&mut [0; 512]).expect("an answer");
    }
    drop(client);
    serving.join().expect("served");
}

/// So many mebibytes one way, then the end.
fn bulk(mut from: TcpStream, mut to: TcpStream, mebibytes: usize) {
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; MIB];
        let mut found = 0;
        loop {
            match to.read(&mut buffer).expect("read") {
                0 => return found,
                read => found += read,
            }
        }
    });
    let chunk = vec![7; MIB];
    for _ in 0..mebibytes {
        from.write_all(&chunk).expect("written");
    }
    from.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(reading.join().expect("read"), mebibytes * MIB);
}

#[test]
fn a_request_and_its_answer_take_few_system_calls() {
    if !has(&["strace"]) {
        return;
    }
    for watched in [Watched::Egress, Watched::Ingress] {
        check(watched, &each(watched, [200, 1200], requests), "request", 4.0, CALLS_OF_REQUEST_MAX);
    }
}

#[test]
fn a_mebibyte_takes_few_system_calls_in_either_direction() {
    if !has(&["strace"]) {
        return;
    }
    for watched in [Watched::Egress, Watched::Ingress] {
        let outward = each(watched, [8, 72], bulk);
        check(watched, &outward, "mebibyte outward", 4.0, CALLS_OF_MEBIBYTE_MAX);
        let inward = each(watched, [8, 72], |client, server, mebibytes| bulk(server, client, mebibytes));
        check(watched, &inward, "mebibyte inward", 4.0, CALLS_OF_MEBIBYTE_MAX);
    }
}

#[test]
fn close_notify_waits_for_the_fin_that_comes_with_it() {
    if !has(&["strace"]) {
        return;
    }
    let ended = |mut client: TcpStream, mut server: TcpStream| {
        client.shutdown(Shutdown::Write).expect("FIN");
        assert_eq!(server.read(&mut [0]).expect("the end"), 0);
        drop(server);
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    };
    for watched in [Watched::Egress, Watched::Ingress] {
        assert_eq!(calls(watched, ended).get(MORE), Some(&1), "{watched:?}");
    }
}
