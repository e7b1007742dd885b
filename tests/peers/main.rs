//! Bad peers, and good ones that are unusual: what each is told, what is recorded of it, and that nobody
//! else notices.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod hellos;
mod openssl;
mod policy;
mod revocation;
mod scene;
mod servers;
