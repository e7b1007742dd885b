//! Kinds that are not honoured, and YAML as it is found in files: usual, odd, and hostile.

use std::fmt::Write as _;

use crate::judge::{accepted, errors, head, refused};

#[test]
fn kinds_that_change_security_and_are_not_honoured_are_refused() {
    for (group, kind) in [
        ("networking.istio.io/v1", "Sidecar"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("security.istio.io/v1", "RequestAuthentication"),
    ] {
        refused(
            &format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n"),
            &["expected a kind that can be honoured"],
        );
    }
    refused(
        "apiVersion: networking.istio.io/v1\nkind: VirtualServise\nmetadata: {name: x}\n",
        &["expected a kind of networking.istio.io, found \"VirtualServise\""],
    );
    refused(
        "apiVersion: security.istio.io/v1\nkind: Gateway\nmetadata: {name: x}\n",
        &["expected Gateway in the group networking.istio.io"],
    );
}

#[test]
fn yaml_that_lies_or_never_ends_is_refused_with_its_line() {
    for (text, expected) in [
        ("a: 1\na: 2\n".to_owned(), "in.yaml:2:1: expected each key once, found it twice: \"a\""),
        ("a: *nobody\n".to_owned(), "in.yaml:1:4: "),
        ("a:\n\t- b\n".to_owned(), "in.yaml:2:"),
        ("[".repeat(1 << 20), "in.yaml:1:"),
        ("{a: ".repeat(1 << 18), "in.yaml:1:"),
        ("- ".repeat(1 << 19), "in.yaml:1:"),
    ] {
        let found = errors(&text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
    // A billion laughs.
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        writeln!(text, "a{level}: &a{level} [{before} x]").expect("written");
    }
    let found = errors(&text);
    assert!(found[0].contains("expected at most 4000000 values in a file"), "{found:?}");
}

#[test]
fn what_is_usual_in_files_is_read() {
    let gateway = |name: &str| {
        head("Gateway", name)
            + "spec: {servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: [a.b]}]}\n"
    };
    accepted(&format!(
        "\u{feff}# only a comment\n---\n---\n{}---\n# nothing\n---\n{}...\n",
        gateway("a"),
        gateway("b")
    ));
    accepted(&format!("{}status: {{}}\n", gateway("a")));
    let json = r#"{"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "g"},
        "spec": {"servers": [{"port": {"number": 1, "name": "a", "protocol": "TCP"}, "hosts": ["a.b"]}]}}"#;
    accepted(json);
    let anchors = head("Gateway", "g")
        + "spec:\n  servers:\n  - port: {number: 1, name: a, protocol: TCP}\n    hosts: &hosts [a.b]\n  - port: {number: 2, name: b, protocol: TCP}\n    hosts: *hosts\n";
    accepted(&anchors);
    accepted(&gateway("a").replace('\n', "\r\n"));
}
