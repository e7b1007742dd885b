//! Credentials that change while the gateway runs: published whole or not at all, and no connection is lost.

#[path = "../support/mod.rs"]
mod support;

mod bad;
mod directory;
mod leaves;
mod load;
mod mount;
mod prompt;
mod storm;
mod tenure;
mod trust;
