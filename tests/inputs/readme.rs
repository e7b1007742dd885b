//! What the README shows of the program is what it says: the same lines, with other names and dates.

use crate::support::socket::Backend;
use crate::support::{self, Certs, HOST, Program, path};

/// The first word of each line.
fn shape(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.split_whitespace().next().unwrap_or_default()).collect()
}

/// What the README shows below a command.
fn shown(command: &str) -> &'static str {
    let (_, behind) = include_str!("../../README.md").split_once(command).expect("the command");
    let (_, output) = behind.split_once('\n').expect("its output");
    output.split_once("```").expect("its end").0
}

#[test]
fn the_readme_shows_certificates_as_they_are_shown() {
    let certs = Certs::mint();
    let (code, out, _) = support::run(&["certs", path(&certs.egress())]);
    assert_eq!((code, shape(&out)), (0, shape(shown("$ twinlock certs "))));
}

#[test]
fn the_readme_shows_a_probe_as_it_is_shown() {
    let (certs, backend) = (Certs::mint(), Backend::echo());
    let ingress = Program::ingress(&certs, backend.address, &[]);
    let (target, credentials) = (ingress.address.to_string(), certs.egress());
    let arguments = ["probe", &target, "--sni", HOST, "--credentials", path(&credentials)];
    let (code, out, _) = support::run(&arguments);
    assert_eq!((code, shape(&out)), (0, shape(shown("$ twinlock probe "))));
}
