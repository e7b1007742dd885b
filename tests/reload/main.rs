//! A configuration that changes while the gateway runs: followed whole or not at all, and no connection is lost.

#[path = "../support/mod.rs"]
mod support;

mod folder;
mod listeners;
mod permissions;
mod scene;
mod storm;
