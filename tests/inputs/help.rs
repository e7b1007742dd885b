//! The help, held to its word: its examples work, and so does every variable that it names.

use std::collections::BTreeMap;

use clap::Parser as _;
use twinlock::cli::{Cli, Command};
use twinlock::config::{flags, server};

use crate::refusal::assert_command_refused;
use crate::support::{self, Certs, HOST, Program, Reader, path};

const COMMANDS: [&str; 9] =
    ["egress", "ingress", "run", "check", "explain", "certs", "probe", "dev-certs", "audit join"];

fn help(command: &str) -> String {
    let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
    let (code, out, err) = support::run(&words);
    assert_eq!((code, err.as_str()), (0, ""));
    out
}

/// The examples that a help text begins with, as words.
fn examples(command: &str) -> Vec<Vec<String>> {
    let help = help(command);
    let rest = help.strip_prefix("Example:\n").unwrap_or_else(|| panic!("no example first: {help}"));
    let lines = rest.lines().take_while(|line| !line.is_empty());
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn the_help_of_each_command_begins_with_an_example_that_is_right() {
    for command in COMMANDS {
        let examples = examples(command);
        let begins = |words: &Vec<String>| words[1..].join(" ").starts_with(command);
        assert!(examples.iter().any(begins), "{command}");
        for words in examples {
            match Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}")).command {
                Command::Egress(given) => assert!(flags::egress(&given).is_ok(), "{words:?}"),
                Command::Ingress(given) => assert!(flags::ingress(&given).is_ok(), "{words:?}"),
                Command::Probe(given) => assert!(server::probe(&given).is_ok(), "{words:?}"),
                // What they name is in the repository; tests of Istio's resources check every file of it.
                Command::Run(_)
                | Command::Check(_)
                | Command::Explain(_)
                | Command::Certs(_)
                | Command::Audit(_)
                | Command::DevCerts(_) => {}
            }
        }
    }
}

#[test]
fn the_examples_run_one_after_the_other() {
    for command in ["egress", "ingress"] {
        let directory = tempfile::tempdir().expect("a directory");
        for words in examples(command) {
            let words: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
            let mut program = support::command(&words);
            program.current_dir(directory.path());
            if words[0] == "dev-certs" {
                let (code, out, err) = support::finish(program);
                assert_eq!((code, err.as_str()), (0, ""), "{out}");
            } else {
                program.args(["--listen", "127.0.0.1:0"]);
                Program::launch(program, Reader::Reads, Reader::Reads);
            }
        }
    }
}

/// Option -> the variable that the help shows with it.
fn variables(command: &str) -> BTreeMap<String, String> {
    let help = help(command);
    let options = help.split("\nOptions:\n").nth(1).expect("options");
    let mut found = BTreeMap::new();
    for option in options.split("\n      --").map(|option| option.trim().trim_start_matches("--")) {
        let name = option.split_whitespace().next().expect("a name");
        let words = option.split_whitespace().collect::<Vec<_>>().join(" ");
        let variable = words.split("[env: ").nth(1).and_then(|rest| rest.split('=').next());
        let variable = variable.unwrap_or_else(|| panic!("--{name} of {command} has no variable: {words}"));
        found.insert(format!("--{name}"), variable.to_owned());
    }
    found
}

#[test]
fn every_option_has_a_variable_named_after_it() {
    let at_least = [17, 16, 20, 20, 20, 1, 9, 5, 1];
    for (command, at_least) in COMMANDS.into_iter().zip(at_least) {
        let variables = variables(command);
        assert!(variables.len() >= at_least, "{variables:?}");
        for (option, variable) in variables {
            let expected = option.trim_start_matches('-').replace('-', "_").to_uppercase();
            assert_eq!(variable, format!("TWINLOCK_{expected}"), "{command}");
        }
    }
}

#[test]
fn every_variable_counts_as_its_option_does() {
    for (command, mandatory) in [
        ("egress", &["--upstream", "127.0.0.1:1", "--credentials", "absent"][..]),
        ("ingress", &["--backend", "127.0.0.1:1", "--host", HOST, "--credentials", "absent"]),
    ] {
        for (option, variable) in variables(command) {
            let mut arguments = vec![command];
            let others = mandatory.chunks(2).filter(|given| given[0] != option);
            arguments.extend(others.flatten());
            let mut program = support::command(&arguments);
            // No option accepts this; a folder of that name does not exist.
            program.env(&variable, "?/?");
            assert_command_refused(program, &[&format!("twinlock: {option}: ")]);
        }
    }
}

#[test]
fn a_gateway_starts_by_variables_alone_and_an_option_comes_before_its_variable() {
    let certs = Certs::mint();
    let mut egress = support::command(&["egress", "--log-format", "json"]);
    egress
        .env("TWINLOCK_UPSTREAM", "127.0.0.1:1")
        .env("TWINLOCK_LISTEN", "127.0.0.1:0,[::1]:0")
        .env("TWINLOCK_LOG_FORMAT", "no such format")
        .env("TWINLOCK_CREDENTIALS", path(&certs.egress()));
    let egress = Program::launch(egress, Reader::Reads, Reader::Reads);
    assert_eq!(egress.address.ip().to_string(), "127.0.0.1");
    let second = egress.next_event("ready");
    assert!(second["listen"].as_str().is_some_and(|listen| listen.starts_with("[::1]:")), "{second}");
    assert_eq!(second["upstream"], "127.0.0.1:1");
}

#[test]
fn the_version_is_that_of_the_package() {
    let (code, out, _) = support::run(&["--version"]);
    assert_eq!((code, out.trim()), (0, concat!("twinlock ", env!("CARGO_PKG_VERSION"))));
}
