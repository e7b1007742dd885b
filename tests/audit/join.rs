//! `twinlock audit join` over what real gateways wrote, whole and damaged.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::Shutdown;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::link::Link;
use crate::support::socket::{Backend, connect, echo};
use crate::support::{self, CLIENT, HOST, Program, path};

/// The logs of two sites, in a directory of their own.
struct Logs {
    directory: tempfile::TempDir,
    egress: String,
    ingress: String,
}

/// What the program said of logs: its exit code, each finding, standard error.
struct Answer {
    code: i32,
    findings: Vec<Value>,
    err: String,
}

impl Logs {
    /// Of so many connections, each with its own number of bytes, some of them at once.
    fn of_connections(connections: usize) -> Self {
        const CLIENTS: usize = 8;
        let mut link = Link::to(Backend::echo());
        let address = link.egress.address;
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || {
                    for number in (client..connections).step_by(CLIENTS) {
                        let mut stream = connect(address);
                        echo(&mut stream, &"x".repeat(number % 500 + 1));
                        stream.shutdown(Shutdown::Write).expect("shut down");
                        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
                    }
                });
            }
        });
        let [egress, ingress] = [&mut link.egress, &mut link.ingress].map(Program::stop_and_take_log);
        Self { directory: tempfile::tempdir().expect("a directory"), egress, ingress }
    }

    fn write(&self, name: &str, log: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::write(&file, log).expect("written");
        file
    }

    fn run(&self, more: &[&str]) -> (i32, String, String) {
        let logs = [self.write("egress.log", &self.egress), self.write("ingress.log", &self.ingress)];
        // Through a file: many findings are more than a pipe holds.
        let found = self.directory.path().join("found");
        let mut command = support::command(&["audit", "join", path(&logs[0]), path(&logs[1])]);
        command.args(more).stdout(fs::File::create(&found).expect("a file"));
        let output = command.stderr(std::process::Stdio::piped()).output().expect("runs");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code().unwrap_or(-1), fs::read_to_string(found).expect("text"), err)
    }

    fn join(&self) -> Answer {
        let (code, out, err) = self.run(&["--json"]);
        let findings = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        Answer { code, findings, err }
    }
}

impl Answer {
    fn of(&self, event: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["event"] == event).collect()
    }

    /// Matched, differing, alone, repeated, skipped, unreadable: as counted and, the first four, as told.
    fn assert_counted(&self, code: i32, expected: [usize; 6]) {
        assert_eq!(self.code, code, "{}", self.err);
        let counts = self.findings.last().expect("counts");
        let names = ["matched", "differing", "alone", "repeated", "skipped", "unreadable"];
        assert_eq!(
            names.map(|name| counts[name].as_u64()),
            expected.map(|count| Some(count as u64)),
            "{counts}"
        );
        let told = ["matched", "differs", "alone", "repeated"].map(|event| self.of(event).len());
        assert_eq!(told, expected[..4], "{counts}");
    }
}

/// The log without the line that this is the number of, from 0.
fn without(log: &str, number: usize) -> String {
    let lines = log.split_inclusive('\n').enumerate();
    lines.filter(|(line, _)| *line != number).map(|(_, line)| line).collect()
}

#[test]
fn every_connection_through_both_sites_is_a_pair_and_one_that_is_missing_is_told() {
    const CONNECTIONS: usize = 1_000;
    let mut logs = Logs::of_connections(CONNECTIONS);
    let answer = logs.join();
    answer.assert_counted(0, [CONNECTIONS, 0, 0, 0, 2, 0]);
    let pairs = answer.of("matched");
    let sessions: BTreeSet<_> = pairs.iter().map(|pair| pair["session"].as_str()).collect();
    assert_eq!(sessions.len(), CONNECTIONS);
    for site in ["from", "to"] {
        let ids: BTreeSet<_> = pairs.iter().map(|pair| pair[site]["id"].as_u64()).collect();
        assert_eq!(ids.len(), CONNECTIONS);
    }
    let total: u64 = pairs.iter().filter_map(|pair| pair["to"]["sent"].as_u64()).sum();
    assert_eq!(total, (0..CONNECTIONS as u64).map(|number| number % 500 + 1).sum::<u64>());
    assert!(pairs.iter().all(|pair| {
        let same = ["received", "sent", "outcome"].iter().all(|name| pair["from"][name] == pair["to"][name]);
        same && pair["server_identity"] == HOST && pair["client_identity"] == CLIENT
    }));
    logs.ingress = without(&logs.ingress, 500);
    let answer = logs.join();
    answer.assert_counted(1, [CONNECTIONS - 1, 0, 1, 0, 2, 0]);
    let alone = answer.of("alone")[0];
    assert_eq!([&alone["side"], &alone["at"]["role"]], ["upstream", "egress"], "{alone}");
}

#[test]
fn bytes_that_do_not_agree_and_records_that_are_there_twice_are_told() {
    let mut logs = Logs::of_connections(3);
    let (egress, ingress) = (logs.egress.clone(), logs.ingress.clone());
    logs.ingress = ingress.replacen(r#""bytes_sent":"#, r#""bytes_sent":1"#, 1);
    let answer = logs.join();
    answer.assert_counted(1, [2, 1, 0, 0, 2, 0]);
    let pair = answer.of("differs")[0];
    assert_ne!(pair["from"]["sent"], pair["to"]["sent"], "{pair}");
    let last = egress.lines().last().expect("a record");
    logs = Logs { ingress, egress: format!("{egress}{last}\n"), ..logs };
    let answer = logs.join();
    answer.assert_counted(1, [3, 0, 0, 1, 2, 0]);
    let repeated = &answer.of("repeated")[0]["at"];
    assert!(repeated["log"].as_str().is_some_and(|log| log.ends_with("egress.log:5")), "{repeated}");
}

#[test]
fn what_cannot_be_read_is_told_with_its_place_and_the_rest_is_joined() {
    let mut logs = Logs::of_connections(2);
    let long = "x".repeat(3 * 1024 * 1024);
    let half = &logs.egress.lines().last().expect("a record")[..40];
    logs.egress = format!("text\n{long}\n{}{half}", logs.egress);
    let answer = logs.join();
    answer.assert_counted(2, [2, 0, 0, 0, 2, 3]);
    let expected = [
        "egress.log:1: expected a record as JSON, found ",
        "egress.log:2: expected a line of at most 1048576 bytes, found a longer one",
        "egress.log:6: expected a record as JSON, found ",
    ];
    assert_eq!(answer.err.lines().count(), expected.len(), "{}", answer.err);
    for (line, expected) in answer.err.lines().zip(expected) {
        assert!(line.starts_with("twinlock: ") && line.contains(expected), "{line}");
    }
}

#[test]
fn a_log_that_is_not_there_or_no_second_one_is_a_mistake() {
    let directory = tempfile::tempdir().expect("a directory");
    let absent = directory.path().join("absent.log");
    let (code, out, err) = support::run(&["audit", "join", path(&absent), path(&absent)]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with(&format!("twinlock: cannot read {}: ", absent.display())), "{err}");
    assert_eq!(support::run(&["audit", "join", path(&absent)]).0, 2);
}

#[test]
fn strangers_cannot_write_lines_or_colours_into_what_is_found() {
    let mut logs = Logs::of_connections(1);
    logs.egress = logs.egress.replace(HOST, r"evil\n\u001b[31mname");
    let (code, out, err) = logs.run(&[]);
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 2), "{out}");
    assert!(
        out.starts_with("matched time=") && out.contains(r" server_identity=evil\n\u{1b}[31mname "),
        "{out}"
    );
}

#[test]
fn a_reader_that_leaves_early_changes_nothing_of_the_verdict() {
    let logs = Logs::of_connections(1);
    let files = [logs.write("egress.log", &logs.egress), logs.write("ingress.log", &logs.ingress)];
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = support::command(&["audit", "join", path(&files[0]), path(&files[1])]);
    let status = command.stdout(writer).status().expect("runs");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_readme_shows_what_is_found_as_it_is_shown() {
    let (_, shown) =
        include_str!("../../README.md").split_once("$ twinlock audit join ").expect("the command");
    let shown: Vec<_> = shown.lines().skip(1).take_while(|line| *line != "```").collect();
    let mut logs = Logs::of_connections(2);
    logs.egress = without(&logs.egress, 2);
    let (code, out, _) = logs.run(&[]);
    // Each word up to its value.
    let shape = |line: &str| -> Vec<String> {
        line.split(' ').filter_map(|word| word.split('=').next()).map(str::to_owned).collect()
    };
    assert_eq!(code, 1);
    assert_eq!(out.lines().map(shape).collect::<Vec<_>>(), shown.into_iter().map(shape).collect::<Vec<_>>());
}
