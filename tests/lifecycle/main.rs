//! From start to stop: ready, limits, signals, drain, and logs that nobody reads.

#[path = "../support/mod.rs"]
mod support;

mod drain;
mod limits;
mod logs;
