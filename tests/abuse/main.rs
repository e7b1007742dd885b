//! Peers that keep to the letter of TCP and TLS, or nearly, to make the gateway pay.

#[path = "../support/mod.rs"]
mod support;

mod floods;
mod neighbours;
mod readers;
mod records;
