//! The records of both sites, joined.

#[path = "../support/mod.rs"]
mod support;

mod join;
mod records;
