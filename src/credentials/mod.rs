//! A directory -> checked key material.
//!
//! [`layout`] knows which file is what, [`read`] reads them as one set, [`bundle`] turns bytes into a
//! [`bundle::Credential`] or says why not, [`store`] publishes the current generation under a name,
//! and [`watch`] notices that a directory has changed. Nothing here knows what a connection is.

pub mod bundle;
pub mod certificate;
pub mod crl;
pub mod held;
pub mod layout;
pub mod levels;
pub mod needs;
pub mod read;
pub mod refusal;
mod signatures;
pub mod status;
pub mod store;
pub mod trust;
pub mod watch;
