//! What a refusal to start looks like.

use std::process::Command;

use crate::support;

/// The arguments are refused: a line for each of the problems, in this order, that contains this text.
pub fn assert_refused(arguments: &[&str], problems: &[&str]) {
    assert_command_refused(support::command(arguments), problems);
}

pub fn assert_command_refused(command: Command, problems: &[&str]) {
    let shown = format!("{command:?}");
    let (code, out, err) = support::finish(command);
    assert_eq!((code, out.as_str()), (2, ""), "{shown}: {err}");
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), problems.len(), "{shown}: {err}");
    for (line, problem) in lines.iter().zip(problems) {
        assert!(line.starts_with("twinlock: "), "{shown}: {err}");
        assert!(line.contains(problem), "{shown}: expected {problem:?} in {line}");
        for internal in ["panicked", "RUST_BACKTRACE", "os error", ".rs:", "Err("] {
            assert!(!line.contains(internal), "{shown}: {line}");
        }
    }
}
