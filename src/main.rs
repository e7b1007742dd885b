//! Parses the command line, calls one function, maps the result to an exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives the memory of a burst of connections back, where the system's allocator keeps it for good.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(twinlock::command::run(std::env::args_os()))
}
