//! Bad input: one clear line for each mistake, exit code 2, and nothing of how the program is made.

#[path = "../support/mod.rs"]
mod support;

mod certs;
mod credentials;
mod flags;
mod help;
mod probe;
mod readme;
mod refusal;
