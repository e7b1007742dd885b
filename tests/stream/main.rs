//! A stream through both gateways: every byte, and the end as it was.

#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod ends;
mod records;
