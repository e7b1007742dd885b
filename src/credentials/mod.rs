//! A directory -> checked key material.
//!
//! [`layout`] knows which file is what and reads them as one set, [`bundle`] turns bytes into a
//! [`bundle::Credential`] or says why not, [`store`] publishes the current generation under a name,
//! and [`watch`] notices that a directory has changed. Nothing here knows what a connection is.

pub mod bundle;
pub mod layout;
pub mod store;
pub mod watch;
