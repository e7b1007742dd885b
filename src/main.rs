//! Parses the command line, calls one function, maps the result to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(twinlock::command::run(std::env::args_os()))
}
