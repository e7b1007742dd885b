//! Options that cannot be honoured.

use std::net::TcpListener;

use crate::refusal::assert_refused;
use crate::support::{Certs, HOST, Program, path};

const EGRESS: [&str; 7] =
    ["egress", "--upstream", "127.0.0.1:1", "--credentials", "absent", "--listen", "127.0.0.1:0"];
const INGRESS: [&str; 9] = [
    "ingress",
    "--backend",
    "127.0.0.1:1",
    "--host",
    HOST,
    "--credentials",
    "absent",
    "--listen",
    "127.0.0.1:0",
];

/// An option of a command that is otherwise whole: each value is refused with this text behind the name.
fn check(command: &[&str], option: &str, values: &[&str], expected: &str) {
    // An option that is given already is replaced: most may be given once.
    let position = command.iter().position(|given| *given == option);
    for value in values {
        let mut arguments = command.to_vec();
        match position {
            Some(position) => arguments[position + 1] = value,
            None => arguments.extend([option, value]),
        }
        assert_refused(&arguments, &[&format!("twinlock: {option}: {expected}, found {value:?}")]);
    }
}

#[test]
fn an_upstream_or_backend_that_is_no_host_and_port_is_refused() {
    let bad = ["db:x", ":3306", "a b:1", "http://db:1", "db:", ""];
    check(&EGRESS, "--upstream", &bad[..1], "expected HOST:PORT with a port from 1 to 65535");
    check(&INGRESS, "--backend", &["db:0", "db:65536"], "expected HOST:PORT with a port from 1 to 65535");
    for value in bad {
        let arguments = ["egress", "--upstream", value, "--credentials", "absent"];
        assert_refused(&arguments, &["--upstream: expected "]);
    }
}

#[test]
fn a_version_of_the_proxy_protocol_that_there_is_not_is_refused() {
    check(&INGRESS, "--send-proxy-protocol", &["V2", "3", ""], "expected v1 or v2");
}

#[test]
fn a_dns_server_that_is_no_address_is_refused() {
    let bad = ["dns.example", "127.0.0.1:0", "127.0.0.1:x", ""];
    check(&EGRESS, "--dns-server", &bad, "expected an IP address, with or without a port from 1 to 65535");
    check(&EGRESS, "--dns-stale", &["1d"], "expected a duration such as 10s, 250ms or 1h30m");
}

#[test]
fn a_listen_address_that_is_none_is_refused() {
    let expected = "expected an IP address and a port such as 127.0.0.1:3306 or [::1]:3306";
    for command in [&EGRESS[..], &INGRESS] {
        check(
            command,
            "--listen",
            &["3306", "db.example:1", "127.0.0.1", "::1:1", "127.0.0.1:65536"],
            expected,
        );
    }
}

#[test]
fn a_name_to_send_or_to_find_that_is_none_is_refused() {
    check(&EGRESS, "--sni", &["a b", "10.0.0.1", "", "*.example.com"], "expected a DNS name");
    check(&EGRESS, "--san", &["a b", "://x"], "expected a DNS name, a URI or an IP address");
    check(&INGRESS, "--allow-san", &["a b", "x..y"], "expected a DNS name, a URI or an IP address");
    let whole = "expected spiffe://DOMAIN/PATH or spiffe://DOMAIN/PATH/*";
    check(&INGRESS, "--allow-spiffe", &["td/ns/a", "spiffe://td", "spiffe://td/a*"], whole);
    check(&INGRESS, "--host", &["a.*.b", "10.0.0.1", "", "*."], "expected a DNS name or *.NAME");
}

#[test]
fn a_subject_is_refused_as_a_name_because_it_is_never_an_identity() {
    let refused = [
        [&EGRESS[..], &["--san", "CN=x"]],
        [&INGRESS[..], &["--allow-san", "CN=x"]],
        [&INGRESS[..], &["--allow-spiffe", "CN=x"]],
    ];
    for arguments in refused {
        assert_refused(&arguments.concat(), &["never an identity"]);
    }
}

#[test]
fn a_duration_without_a_unit_or_of_nothing_is_refused() {
    let malformed = "expected a duration such as 10s, 250ms or 1h30m";
    for option in [
        "--handshake-timeout",
        "--connect-timeout",
        "--idle-timeout",
        "--drain-timeout",
        "--credentials-poll",
    ] {
        check(&EGRESS, option, &["10", "1.5s", "", "1d", "s"], malformed);
    }
    for option in
        ["--handshake-timeout", "--connect-timeout", "--idle-timeout", "--user-timeout", "--credentials-poll"]
    {
        check(&INGRESS, option, &["0s", "0ms"], "expected a duration above zero");
    }
}

#[test]
fn a_count_of_nothing_is_refused() {
    for option in ["--max-connections", "--workers"] {
        check(&EGRESS, option, &["0", "x", "1.5", "99999999999999999999"], "expected a number above zero");
    }
}

#[test]
fn a_word_that_is_none_of_the_choices_is_refused() {
    check(&EGRESS, "--log-format", &["xml", ""], "expected text or json");
    check(&INGRESS, "--on-truncation", &["ignore"], "expected reset or fin");
    check(&EGRESS, "--ca", &["other"], "expected public");
}

#[test]
fn several_problems_are_told_at_once() {
    let arguments = ["ingress", "--backend", "db:0", "--host", "a b", "--credentials", "absent"];
    let more = ["--listen", "3306", "--listen", "x", "--drain-timeout", "10", "--workers", "0"];
    assert_refused(
        &[&arguments[..], &more].concat(),
        &[
            "--backend: ",
            "--host: ",
            "--listen: expected an IP address and a port such as 127.0.0.1:3306 or [::1]:3306, found \"3306\"",
            "--listen: ",
            "--drain-timeout: ",
            "--workers: ",
        ],
    );
}

#[test]
fn an_option_or_command_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
    assert_refused(&[&EGRESS[..], &["--lisen", "127.0.0.1:0"]].concat(), &["'--listen'"]);
    assert_refused(&["egres"], &["'egress'"]);
    assert_refused(&["bogus"], &["unrecognized subcommand 'bogus'"]);
}

#[test]
fn an_option_that_must_be_given_is_named() {
    let missing = ["--upstream", "--credentials"];
    for name in missing {
        assert_refused(&["egress"], &[name]);
    }
    for name in ["--backend", "--host", "--credentials"] {
        assert_refused(&["ingress"], &[name]);
    }
    assert_refused(&["dev-certs", "--out", "certs"], &["--host"]);
    assert_refused(&["egress", "--upstream"], &["--upstream"]);
}

#[test]
fn without_a_command_those_there_are_are_named_in_one_line() {
    assert_refused(&[], &["requires a subcommand but one was not provided [subcommands: egress, ingress, "]);
    assert_refused(&[], &["(see twinlock --help)"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    check_bind(&address, &format!("--listen: the port is already in use: {address}"));
}

#[test]
fn an_address_of_another_host_is_named() {
    // TEST-NET-1 (RFC 5737) belongs to nobody.
    check_bind("192.0.2.1:0", "--listen: this host has no such address: 192.0.2.1:0");
}

fn check_bind(address: &str, problem: &str) {
    let certs = Certs::mint();
    let credentials = certs.egress();
    let arguments = ["egress", "--upstream", "127.0.0.1:1", "--credentials", path(&credentials)];
    assert_refused(&[&arguments[..], &["--listen", address]].concat(), &[problem]);
    // Nor does it start on the others alone.
    let more = ["--listen", "127.0.0.1:0", "--listen", address];
    assert_refused(&[&arguments[..], &more].concat(), &[problem]);
}

#[test]
fn plaintext_beyond_loopback_is_one_warning_and_tls_none() {
    let certs = Certs::mint();
    let nowhere = ([127, 0, 0, 1], 1).into();
    for (more, warnings) in [(&["--listen", "0.0.0.0:0"][..], 1), (&["--listen", "[::1]:0"], 0)] {
        let mut egress = Program::egress(&certs, nowhere, more);
        egress.stop();
        let warned = egress.said("plaintext is accepted beyond loopback");
        assert_eq!([warned, egress.said("WARN")], [warnings; 2], "{}", egress.stderr());
    }
    // Fewer connections than any machine has descriptors for: too few are a warning of their own.
    let more = ["--listen", "0.0.0.0:0", "--max-connections", "100", "--max-handshakes", "100"];
    let mut ingress = Program::ingress(&certs, nowhere, &more);
    ingress.stop();
    assert_eq!(ingress.stderr(), "");
}

#[test]
fn development_certificates_for_a_bad_name_or_place_are_refused_and_leave_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("certs");
    let make = |more: &[&str], problem: &str| {
        assert_refused(&[&["dev-certs", "--out", path(&out)], more].concat(), &[problem]);
        assert!(!out.exists(), "{more:?} left something");
    };
    for host in ["a b", "", "*", "a.*.b", "x.example."] {
        make(&["--host", host], &format!("expected a DNS name or an IP address as host, found `{host}`"));
    }
    make(&["--host", "a", "--client", "a b"], "expected a DNS name or a URI as client, found `a b`");
    make(&["--host", "a", "--days", "9999999"], "found 9999999");
    make(&["--host", "a", "--days", "x"], "--days");
    std::fs::write(directory.path().join("file"), "").expect("written");
    let inside = directory.path().join("file/certs");
    assert_refused(&["dev-certs", "--out", path(&inside), "--host", "a"], &[path(&inside)]);
}

#[test]
fn a_bound_on_the_use_of_keys_that_is_none_is_refused() {
    for command in [&EGRESS[..], &INGRESS] {
        let bad = ["1", "1GB", "0s", "0KiB", "1h30", "x"];
        check(command, "--rekey-after", &bad, "expected a size such as 1GiB or a duration such as 1h");
    }
}

#[test]
fn a_tls_policy_that_is_none_or_leaves_nothing_is_refused() {
    for command in [&EGRESS[..], &INGRESS] {
        check(command, "--tls-min", &["1.1", "TLSv1.2", ""], "expected 1.2 or 1.3");
        check(command, "--kx", &["pq", "X25519", ""], "expected prefer-pq, require-pq or classical");
        let all = "expected one of TLS_AES_256_GCM_SHA384, ";
        assert_refused(&[command, &["--cipher", "AES256-SHA"]].concat(), &[all]);
        assert_refused(
            &[command, &["--kx", "require-pq", "--tls-min", "1.2"]].concat(),
            &["--tls-min: expected 1.3, which --kx require-pq needs, found \"1.2\""],
        );
        let old = ["--cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
        for policy in [["--tls-min", "1.3"], ["--kx", "require-pq"]] {
            let expected = "--cipher: expected a cipher suite of TLS 1.3, found \"ECDHE-RSA-AES128";
            assert_refused(&[command, &old, &policy].concat(), &[expected]);
        }
    }
}
