//! What a connection, a request and a mebibyte cost, in counts that do not depend on the machine.

#[path = "../support/mod.rs"]
mod support;

mod memory;
mod syscalls;
